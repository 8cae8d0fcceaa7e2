//! Carries the content of files, in pieces: memory does not grow with the file.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::wire::{PIECE, Wire};
use super::{entry, entry_answer};
use crate::agent::workspace::{FileError, Resolved, Workspace};
use crate::protocol::agent::Kind;
use crate::protocol::files::{FileAnswer, FileErrorCode};

/// The mode of new files.
const MODE: Mode = Mode::from_raw_mode(0o644);

/// A file to be sent.
#[derive(Debug)]
pub(super) struct Opened {
    file: File,
    path: String,
    stat: Stat,
}

/// Opens a regular file. Nothing planted there makes this wait.
pub(super) fn open(workspace: &Workspace, path: &str) -> Result<Opened, FileError> {
    let failed = |error: Errno| FileError::system(path, error);
    let place = workspace.resolve(path, false)?;
    // Without O_NONBLOCK, opening a FIFO waits for its other end.
    let flags =
        OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(&place.directory, place.name, flags, Mode::empty()) {
        Ok(file) => file,
        // A socket.
        Err(Errno::NXIO) => return Err(not_a_file(path)),
        Err(error) => return Err(failed(error)),
    };
    let stat = rustix::fs::fstat(&file).map_err(failed)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(not_a_file(path));
    }
    Ok(Opened {
        file: file.into(),
        path: path.to_owned(),
        stat,
    })
}

/// Sends a file's content from `offset`, at most `length` bytes, and not more than it held when it was opened.
pub(super) fn send(
    wire: &mut Wire,
    opened: Opened,
    offset: u64,
    length: Option<u64>,
) -> io::Result<()> {
    let entry = entry(opened.path, &opened.stat);
    let mut rest = entry
        .bytes
        .saturating_sub(offset)
        .min(length.unwrap_or(u64::MAX));
    wire.answer(&FileAnswer::Entry { entry })?;
    let mut at = offset;
    while rest > 0 {
        let most = usize::try_from(rest).unwrap_or(PIECE);
        let sent = wire.send_piece(most, |room| opened.file.read_at(room, at))?;
        if sent == 0 {
            // It has become shorter meanwhile.
            break;
        }
        at += sent as u64;
        rest -= sent as u64;
    }
    wire.send_end()
}

/// Receives a file's new content. The outer error is that of the connection.
pub(super) fn receive(
    wire: &mut Wire,
    workspace: &Workspace,
    path: &str,
    length: Option<u64>,
) -> io::Result<Result<FileAnswer, FileError>> {
    let begun = workspace
        .check_room(length.unwrap_or(0))
        .and_then(|()| workspace.resolve(path, true))
        .and_then(|place| Upload::begin(workspace, path, place));
    let mut upload = match begun {
        Ok(upload) => upload,
        Err(error) => return Ok(Err(error)),
    };
    loop {
        let frame = wire.read()?;
        if frame.kind == Kind::End as u8 {
            return Ok(upload.finish(length));
        }
        if frame.kind != Kind::Data as u8 {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if let Err(error) = upload.write(wire.payload(&frame)) {
            return Ok(Err(error));
        }
    }
}

/// A file on its way. Dropped before it is whole, it leaves nothing.
struct Upload<'a> {
    workspace: &'a Workspace,
    path: &'a str,
    place: Resolved<'a>,
    temporary: Option<String>,
    file: File,
    written: u64,
}

impl<'a> Upload<'a> {
    fn begin(
        workspace: &'a Workspace,
        path: &'a str,
        place: Resolved<'a>,
    ) -> Result<Self, FileError> {
        if let Ok(stat) =
            rustix::fs::statat(&place.directory, place.name, AtFlags::SYMLINK_NOFOLLOW)
            && FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile
        {
            let error = match FileType::from_raw_mode(stat.st_mode) {
                FileType::Symlink => FileError::system(path, Errno::LOOP),
                _ => not_a_file(path),
            };
            return Err(error);
        }
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let temporary = workspace.upload_name();
        let file = rustix::fs::openat(&place.directory, &*temporary, flags, MODE)
            .map_err(|error| FileError::system(path, error))?;
        // Not left to the mask of this process.
        let _ = rustix::fs::fchmod(&file, MODE);
        workspace.give_away(&file);
        Ok(Self {
            workspace,
            path,
            place,
            temporary: Some(temporary),
            file: file.into(),
            written: 0,
        })
    }

    fn write(&mut self, data: &[u8]) -> Result<(), FileError> {
        self.workspace.take_room(data.len() as u64)?;
        self.written += data.len() as u64;
        self.file
            .write_all(data)
            .map_err(|error| self.failed(&error))
    }

    fn finish(mut self, length: Option<u64>) -> Result<FileAnswer, FileError> {
        if length.is_some_and(|length| length != self.written) {
            return Err(FileError::new(
                FileErrorCode::Io,
                format!(
                    "`{}`: {} bytes came where {} were announced",
                    self.path,
                    self.written,
                    length.unwrap_or(0)
                ),
            ));
        }
        let failed = |error: Errno| FileError::system(self.path, error);
        let directory: &OwnedFd = &self.place.directory;
        let replaced = rustix::fs::statat(directory, self.place.name, AtFlags::SYMLINK_NOFOLLOW)
            .map_or(0, |stat| u64::try_from(stat.st_size).unwrap_or(0));
        let stat = rustix::fs::fstat(&self.file).map_err(failed)?;
        let temporary = self.temporary.as_deref().expect("it was not yet moved");
        rustix::fs::renameat(directory, temporary, directory, self.place.name).map_err(failed)?;
        self.temporary = None;
        self.workspace.give_room(replaced);
        entry_answer(self.path, &stat)
    }

    fn failed(&self, error: &io::Error) -> FileError {
        let errno = error
            .raw_os_error()
            .map_or(Errno::IO, Errno::from_raw_os_error);
        FileError::system(self.path, errno)
    }
}

impl Drop for Upload<'_> {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            let _ =
                rustix::fs::unlinkat(&self.place.directory, temporary.as_str(), AtFlags::empty());
            self.workspace.give_room(self.written);
        }
    }
}

fn not_a_file(path: &str) -> FileError {
    FileError::new(
        FileErrorCode::WrongKind,
        format!("`{path}` is not a regular file"),
    )
}
