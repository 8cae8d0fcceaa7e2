//! What can go wrong in the store, each with what to do about it.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

use super::SessionKey;
use crate::model::event::Seq;
use crate::model::id::{CellId, SessionId};

/// Why the store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another server has this data directory.
    #[error("the data directory `{}` is in use by another server{}; stop that one, or choose another `--data-dir`",
        dir.display(), pid.map(|pid| format!(", process {pid}")).unwrap_or_default())]
    InUse {
        /// The directory.
        dir: PathBuf,
        /// The other server's process, if it has said so by now.
        pid: Option<u32>,
    },
    /// The data directory is not a directory.
    #[error("the data directory `{}` is not a directory; remove what is there, or choose another `--data-dir`", dir.display())]
    NotADirectory {
        /// The path.
        dir: PathBuf,
    },
    /// The data directory cannot be written.
    #[error("the data directory `{}` is not writable; give this user the right to write there, or choose another `--data-dir`", dir.display())]
    NotWritable {
        /// The directory.
        dir: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The data directory cannot be made or looked at.
    #[error("cannot prepare the data directory `{}`", dir.display())]
    Directory {
        /// The directory.
        dir: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A newer version has written the database.
    #[error("the database `{}` has schema {found}, written by a newer version; this one knows up to {known}. Use that version, or another `--data-dir`", file.display())]
    Newer {
        /// The database.
        file: PathBuf,
        /// Its schema.
        found: i64,
        /// The newest schema known here.
        known: i64,
    },
    /// The file is a database of another program.
    #[error("the database `{}` was not written by evercell; choose another `--data-dir`", file.display())]
    Foreign {
        /// The file.
        file: PathBuf,
    },
    /// The database is damaged.
    #[error("the database `{}` is damaged; restore it from a backup, or move it away to begin anew", file.display())]
    Corrupt {
        /// The file.
        file: PathBuf,
        /// What SQLite said.
        #[source]
        source: rusqlite::Error,
    },
    /// There is no room on the disk. Nothing was written; the same request can be made again once there is room.
    #[error("no room is left for the data directory `{}`; free some, it goes on by itself", dir.display())]
    Full {
        /// The directory.
        dir: PathBuf,
        /// What SQLite or the system said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The file with a session's large events cannot be read or written.
    #[error("cannot {what} the file of large events `{}`", file.display())]
    Bulk {
        /// What was tried.
        what: &'static str,
        /// The file.
        file: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A large event is in the database but not in its bulk file.
    #[error(
        "event {seq} of {session:?} is missing in its file of large events; restore `bulk` from the same backup as the database"
    )]
    Missing {
        /// The session.
        session: SessionKey,
        /// The event.
        seq: Seq,
    },
    /// The system gives no thread.
    #[error("cannot start a thread of the store")]
    Thread {
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A number that cannot grow further.
    #[error("the {what} of this data directory are used up; begin with a new `--data-dir`")]
    Exhausted {
        /// Which.
        what: &'static str,
    },
    /// The store was closed, or its writer is gone.
    #[error("the store is closed")]
    Closed,
    /// There is a session with this id.
    #[error("there is a session `{id}` already")]
    SessionExists {
        /// The id.
        id: SessionId,
    },
    /// There is no such session, or no more.
    #[error("there is no session with key {0:?}")]
    NoSuchSession(SessionKey),
    /// The events of an append do not follow the last one in the log. Nothing was written.
    #[error(
        "broken invariant: events from {first} on do not follow the head {head} of {session:?}"
    )]
    Gap {
        /// The session.
        session: SessionKey,
        /// The last event in the log.
        head: Seq,
        /// The first of those that were to be appended, or where their order breaks.
        first: Seq,
    },
    /// A cell was queued twice, or two cells with the same key. Nothing was written.
    #[error("broken invariant: cell {cell} or its key is in {session:?} already")]
    CellExists {
        /// The session.
        session: SessionKey,
        /// The cell.
        cell: CellId,
    },
    /// A cell was finished that was not queued, or twice. Nothing was written.
    #[error("broken invariant: cell {cell} of {session:?} is not one that can finish")]
    NoSuchCell {
        /// The session.
        session: SessionKey,
        /// The cell.
        cell: CellId,
    },
    /// Anything else that SQLite says.
    #[error("cannot {what} in the database `{}`", file.display())]
    Sql {
        /// What was tried.
        what: &'static str,
        /// The file.
        file: PathBuf,
        /// What SQLite said.
        #[source]
        source: rusqlite::Error,
    },
}

impl StoreError {
    /// What an error of SQLite means for who asked.
    pub(super) fn from_sql(what: &'static str, file: &Path, source: rusqlite::Error) -> Self {
        let file = file.to_owned();
        let dir = || file.parent().unwrap_or(&file).to_owned();
        match source.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full {
                dir: dir(),
                source: source.into(),
            },
            // SQLite tells a full disk from a broken one for some of its writes only.
            Some(ErrorCode::SystemIoFailure) if is_full(&file) => Self::Full {
                dir: dir(),
                source: source.into(),
            },
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                Self::Corrupt { file, source }
            }
            Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen) => Self::NotWritable {
                dir: dir(),
                source: io::Error::other(source),
            },
            _ => Self::Sql { what, file, source },
        }
    }

    /// What an error on a bulk file means for who asked.
    pub(super) fn from_bulk(what: &'static str, file: &Path, source: io::Error) -> Self {
        let file = file.to_owned();
        match source.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
                Self::Full {
                    dir: file.parent().unwrap_or(&file).to_owned(),
                    source: source.into(),
                }
            }
            _ => Self::Bulk { what, file, source },
        }
    }
}

fn is_full(file: &Path) -> bool {
    // 64 KiB: less than SQLite needs at once for its index of the WAL.
    rustix::fs::statvfs(file).is_ok_and(|stat| stat.f_bavail * stat.f_frsize < 64 * 1024)
}
