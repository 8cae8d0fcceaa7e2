//! Deletes an entry, a directory with all it holds, and nothing that a link points to.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::fs::{AtFlags, Dir, Mode, OFlags};
use rustix::io::Errno;
use tokio::time::Instant;

use crate::agent::workspace::{FileError, Workspace};
use crate::protocol::files::{FileAnswer, FileErrorCode};

/// The deepest directory; each level holds a descriptor.
const DEPTH: usize = 512;

/// How long it may take: hostile code may make files as fast as they are deleted.
const LIMIT: Duration = Duration::from_secs(60);

struct Level {
    reader: Dir,
    /// Its name in the level above.
    name: CString,
    /// Whether something was deleted since it was read from the beginning.
    is_dirty: bool,
}

/// See the module.
pub(super) fn delete(workspace: &Workspace, path: &str) -> Result<FileAnswer, FileError> {
    let failed = |error: Errno| FileError::system(path, error);
    let place = workspace.resolve(path, false)?;
    let name = CString::new(place.name).map_err(|_| failed(Errno::INVAL))?;
    match rustix::fs::unlinkat(&place.directory, &*name, AtFlags::empty()) {
        Ok(()) => return Ok(FileAnswer::Deleted),
        // POSIX says EPERM for directories, Linux says EISDIR.
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(failed(error)),
    }
    let began = Instant::now();
    let mut levels = vec![Level::open(&place.directory, &name).map_err(failed)?];
    while let Some(level) = levels.last_mut() {
        if began.elapsed() > LIMIT {
            return Err(FileError::new(
                FileErrorCode::Io,
                format!(
                    "`{path}` was not deleted within {} s: something goes on writing there",
                    LIMIT.as_secs()
                ),
            ));
        }
        let Some(entry) = level.reader.read() else {
            if level.is_dirty {
                // What is deleted while a directory is read may make the reader pass over other entries.
                level.is_dirty = false;
                level.reader.rewind();
                continue;
            }
            let done = levels.pop().expect("it was looked at");
            let above: &dyn AsFdDyn = match levels.last() {
                Some(level) => level,
                None => &place.directory,
            };
            match rustix::fs::unlinkat(above.fd(), &*done.name, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => {}
                // Something new has come; the level above will find it again.
                Err(Errno::NOTEMPTY) if !levels.is_empty() => {}
                Err(error) => return Err(failed(error)),
            }
            continue;
        };
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        level.is_dirty = true;
        let directory = level.fd();
        match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::ISDIR | Errno::PERM) => {
                let below = Level::open(directory, name).map_err(failed)?;
                if levels.len() >= DEPTH {
                    return Err(FileError::new(
                        FileErrorCode::Io,
                        format!("`{path}` is too deep to be deleted: delete it in a cell"),
                    ));
                }
                levels.push(below);
            }
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(FileAnswer::Deleted)
}

impl Level {
    fn open(above: impl AsFd, name: &CStr) -> rustix::io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(above, name, flags, Mode::empty())?;
        Ok(Self {
            reader: Dir::new(directory)?,
            name: name.to_owned(),
            is_dirty: false,
        })
    }
}

trait AsFdDyn {
    fn fd(&self) -> std::os::fd::BorrowedFd<'_>;
}

impl AsFdDyn for Level {
    fn fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.reader
            .fd()
            .expect("a directory on Linux has a descriptor")
    }
}

impl AsFdDyn for OwnedFd {
    fn fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.as_fd()
    }
}
