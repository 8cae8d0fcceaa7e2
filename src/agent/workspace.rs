//! The workspace: its directory, its quota, and how a path in it is resolved without ever leading out of it.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::fs::{Gid, Mode, OFlags, ResolveFlags, Uid};
use rustix::io::Errno;
use serde_json::Value;

use crate::protocol::files::FileErrorCode;

/// What uploads are called until they are whole. Such names are not shown and cannot be addressed.
pub(crate) const UPLOAD: &str = ".evercell-upload-";

/// The longest name, in bytes; no Linux file system has longer ones.
const NAME: usize = 255;

/// The longest path, in bytes.
const PATH: usize = 4096;

/// The deepest path.
const DEPTH: usize = 128;

/// The mode of directories that are made.
const DIRECTORY: Mode = Mode::from_raw_mode(0o755);

/// Shared by the watch and all transfers.
#[derive(Debug)]
pub(crate) struct Workspace {
    root: OwnedFd,
    used: AtomicU64,
    limit: AtomicU64,
    /// What the names of the uploads of this agent begin with. What others have left is swept away.
    own_uploads: String,
    /// To whom new files are given, where that is somebody else.
    owner: Option<(Uid, Gid)>,
    /// Whether the system has openat2(2), and no filter forbids it.
    resolves: AtomicBool,
}

/// A refused or failed operation.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct FileError {
    /// Which kind.
    pub(crate) code: FileErrorCode,
    /// What, why, and what to do.
    pub(crate) message: String,
}

impl FileError {
    /// Of that kind, with that text.
    pub(crate) fn new(code: FileErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// What the system said about a path.
    pub(crate) fn system(path: &str, error: Errno) -> Self {
        let (code, message) = match error {
            Errno::NOENT => (FileErrorCode::NotFound, format!("there is no `{path}`")),
            Errno::LOOP | Errno::XDEV => (
                FileErrorCode::BadPath,
                format!("`{path}` leads over a link, which is not followed"),
            ),
            Errno::NOTDIR => (
                FileErrorCode::WrongKind,
                format!("`{path}` leads through something that is no directory"),
            ),
            Errno::ISDIR => (FileErrorCode::WrongKind, format!("`{path}` is a directory")),
            Errno::NOSPC | Errno::DQUOT => (
                FileErrorCode::DiskFull,
                "the disk is full: delete something and try again".to_owned(),
            ),
            error => (FileErrorCode::Io, format!("`{path}`: {error}")),
        };
        Self { code, message }
    }
}

/// A path that was checked, as the directory it lies in and its name there.
#[derive(Debug)]
pub(crate) struct Resolved<'a> {
    /// The directory.
    pub(crate) directory: OwnedFd,
    /// The name.
    pub(crate) name: &'a str,
}

impl Workspace {
    /// Opens it. `jail` says who owns what is in it.
    pub(crate) fn open(path: &Path, limit: u64, jail: &Value) -> rustix::io::Result<Self> {
        let root = rustix::fs::open(path, directory_flags(), Mode::empty())?;
        let id = |name: &str| u32::try_from(jail[name].as_u64()?).ok();
        let owner = id("uid")
            .zip(id("gid"))
            .map(|(uid, gid)| (Uid::from_raw(uid), Gid::from_raw(gid)));
        let ours = (rustix::process::geteuid(), rustix::process::getegid());
        Ok(Self {
            root,
            used: AtomicU64::new(0),
            limit: AtomicU64::new(limit),
            own_uploads: format!("{UPLOAD}{}-", uuid::Uuid::new_v4().simple()),
            owner: owner.filter(|owner| *owner != ours),
            resolves: AtomicBool::new(true),
        })
    }

    /// Resolves without openat2(2), as on a system that has none.
    #[cfg(test)]
    pub(crate) fn forget_openat2(&self, forget: bool) {
        self.resolves.store(!forget, Ordering::Relaxed);
    }

    /// A name for an upload that is under way. Not to be guessed, so that nothing can be planted there.
    pub(crate) fn upload_name(&self) -> String {
        format!("{}{}", self.own_uploads, uuid::Uuid::new_v4().simple())
    }

    /// Whether a name is that of an upload which no agent finishes any more: its agent was killed.
    pub(crate) fn is_left_over(&self, name: &[u8]) -> bool {
        name.starts_with(UPLOAD.as_bytes()) && !name.starts_with(self.own_uploads.as_bytes())
    }

    /// The directory itself.
    pub(crate) fn root(&self) -> &OwnedFd {
        &self.root
    }

    /// What it holds, as far as is known.
    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Takes note of what was counted.
    pub(crate) fn set_used(&self, bytes: u64) {
        self.used.store(bytes, Ordering::Relaxed);
    }

    /// Sets what it may hold.
    pub(crate) fn set_limit(&self, bytes: u64) {
        self.limit.store(bytes, Ordering::Relaxed);
    }

    /// Whether there is room for that much.
    pub(crate) fn check_room(&self, bytes: u64) -> Result<(), FileError> {
        let (used, limit) = (self.used(), self.limit.load(Ordering::Relaxed));
        if used.saturating_add(bytes) <= limit {
            return Ok(());
        }
        Err(FileError::new(
            FileErrorCode::QuotaExceeded,
            format!(
                "the workspace holds {used} of {limit} bytes, there is no room for {bytes} more: delete something and try again"
            ),
        ))
    }

    /// Counts bytes that are about to be written, if there is room.
    pub(crate) fn take_room(&self, bytes: u64) -> Result<(), FileError> {
        self.check_room(bytes)?;
        self.used.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Counts bytes that are gone.
    pub(crate) fn give_room(&self, bytes: u64) {
        let _ = self
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                Some(used.saturating_sub(bytes))
            });
    }

    /// Gives something that was made to the kernel's user.
    pub(crate) fn give_away(&self, fd: &OwnedFd) {
        if let Some((uid, gid)) = self.owner {
            // Without the right to do so it stays ours, and readable.
            let _ = rustix::fs::fchown(fd, Some(uid), Some(gid));
        }
    }

    /// Opens a directory for looking into it. The empty path is the workspace itself.
    pub(crate) fn directory(&self, path: &str) -> Result<OwnedFd, FileError> {
        let names = check(path)?;
        self.descend(path, &names, false)
    }

    /// Finds the place of an entry, which need not exist. Makes the directories above it if `make`.
    pub(crate) fn resolve<'a>(&self, path: &'a str, make: bool) -> Result<Resolved<'a>, FileError> {
        let mut names = check(path)?;
        let Some(name) = names.pop() else {
            return Err(FileError::new(
                FileErrorCode::BadPath,
                "the path is empty: name something in the workspace",
            ));
        };
        let directory = self.descend(path, &names, make)?;
        Ok(Resolved { directory, name })
    }

    /// Makes a directory and those above it.
    pub(crate) fn make_directory(&self, path: &str) -> Result<OwnedFd, FileError> {
        let names = check(path)?;
        self.descend(path, &names, true)
    }

    fn descend(&self, path: &str, names: &[&str], make: bool) -> Result<OwnedFd, FileError> {
        if !make && self.resolves.load(Ordering::Relaxed) {
            let relative = if names.is_empty() {
                ".".to_owned()
            } else {
                names.join("/")
            };
            let how =
                ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
            // With O_NOFOLLOW a link at the end would be ENOTDIR instead of ELOOP.
            let flags = directory_flags() - OFlags::NOFOLLOW;
            match rustix::fs::openat2(&self.root, relative, flags, Mode::empty(), how) {
                // An old system, or a filter in between: name by name then, which is as safe.
                Err(Errno::NOSYS | Errno::PERM | Errno::INVAL) => {
                    self.resolves.store(false, Ordering::Relaxed);
                }
                result => return result.map_err(|error| FileError::system(path, error)),
            }
        }
        let open = |directory: &OwnedFd, name: &str| {
            rustix::fs::openat(directory, name, directory_flags(), Mode::empty())
        };
        let mut directory =
            open(&self.root, ".").map_err(|error| FileError::system(path, error))?;
        for name in names {
            let mut next = open(&directory, name);
            if make && matches!(next, Err(Errno::NOENT)) {
                match rustix::fs::mkdirat(&directory, *name, DIRECTORY) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(FileError::system(path, error)),
                }
                next = open(&directory, name);
                if let Ok(made) = &next {
                    // Not left to the mask of this process.
                    let _ = rustix::fs::fchmod(made, DIRECTORY);
                    self.give_away(made);
                }
            }
            directory = next.map_err(|error| not_a_link(&directory, name, path, error))?;
        }
        Ok(directory)
    }
}

/// With `O_DIRECTORY | O_NOFOLLOW` a link is `ENOTDIR`, where openat2 would say `ELOOP`.
fn not_a_link(directory: &OwnedFd, name: &str, path: &str, error: Errno) -> FileError {
    let is_link = error == Errno::NOTDIR
        && rustix::fs::statat(directory, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode).is_symlink());
    FileError::system(path, if is_link { Errno::LOOP } else { error })
}

fn directory_flags() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC
}

/// The names of a path; none for the workspace itself.
fn check(path: &str) -> Result<Vec<&str>, FileError> {
    let refuse = |why: &str| {
        Err(FileError::new(
            FileErrorCode::BadPath,
            format!("{path:?} is no path inside of the workspace: {why}"),
        ))
    };
    if path.is_empty() {
        return Ok(Vec::new());
    }
    if path.len() > PATH {
        return Err(FileError::new(
            FileErrorCode::BadPath,
            format!("a path of {} bytes is too long", path.len()),
        ));
    }
    let names: Vec<&str> = path.split('/').collect();
    if names.len() > DEPTH {
        return refuse("it is too deep");
    }
    for name in &names {
        match *name {
            "" => return refuse("it has an empty name; leave out `/` at the beginning and end"),
            "." | ".." => return refuse("it has a name of dots only"),
            name if name.len() > NAME => return refuse("it has a name that is too long"),
            name if name.contains('\0') => return refuse("it has a zero byte"),
            name if name.starts_with(UPLOAD) => return refuse("such names are for uploads"),
            _ => {}
        }
    }
    Ok(names)
}
