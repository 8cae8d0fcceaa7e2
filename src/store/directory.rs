//! The data directory: made, checked, and held by one server at a time.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::StoreError;

/// The lock of a data directory, held as long as this lives.
#[derive(Debug)]
pub(super) struct DirectoryLock {
    // Never read: the lock goes when the file is closed.
    _file: File,
}

/// The database's file.
pub(super) fn database(dir: &Path) -> PathBuf {
    dir.join("evercell.db")
}

/// How often the lock is tried, and how long to wait in between.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(25);

/// Takes the lock, with a little patience: a server that has just been killed, or a process forked from it that has not executed its own
/// program yet, holds it a moment longer.
fn lock_soon(file: &File) -> Result<(), TryLockError> {
    for _ in 1..TRIES {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => std::thread::sleep(PAUSE),
            taken => return taken,
        }
    }
    file.try_lock()
}

/// Makes the directory if it is not there, and takes its lock.
pub(super) fn claim(dir: &Path) -> Result<DirectoryLock, StoreError> {
    let failed = |source: io::Error| match source.kind() {
        ErrorKind::NotADirectory | ErrorKind::AlreadyExists => StoreError::NotADirectory {
            dir: dir.to_owned(),
        },
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => StoreError::NotWritable {
            dir: dir.to_owned(),
            source,
        },
        _ => StoreError::Directory {
            dir: dir.to_owned(),
            source,
        },
    };
    // Readable by nobody else: code and output of all sessions are in it.
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(failed)?;
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(dir.join("lock"))
        .map_err(failed)?;
    match lock_soon(&file) {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            // The other one may not have written it yet; then it stays unnamed.
            let pid = match file.read_to_string(&mut text) {
                Ok(_) => text.trim().parse().ok(),
                Err(_) => None,
            };
            return Err(StoreError::InUse {
                dir: dir.to_owned(),
                pid,
            });
        }
        Err(TryLockError::Error(source)) => return Err(failed(source)),
    }
    file.set_len(0).map_err(failed)?;
    // On a full disk the lock holds all the same; it then does not say whose it is.
    let _ = writeln!(file, "{}", std::process::id());
    Ok(DirectoryLock { _file: file })
}
