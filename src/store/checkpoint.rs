//! Checkpoints: what is in the write-ahead log is moved into the database, so that the log stays short.

use std::cell::Cell;
use std::path::Path;

use rusqlite::Connection;

use super::{Durability, StoreError};

thread_local! {
    /// Pages in the write-ahead log after the last commit of this thread's connection.
    static PAGES: Cell<i32> = const { Cell::new(0) };
}

/// From this length on the log is moved.
const SOFT_PAGES: i32 = 4096;

/// Decides when to move the log.
#[derive(Debug)]
pub(super) struct Checkpoints {}

impl Checkpoints {
    pub(super) fn start(
        db: &Connection,
        _file: &Path,
        _durability: Durability,
    ) -> Result<Self, StoreError> {
        db.wal_hook(Some(|_wal, pages| {
            PAGES.set(pages);
            Ok(())
        }));
        Ok(Self {})
    }

    /// Moves the log when it has become long.
    pub(super) fn after_commit(&mut self, db: &Connection) {
        if PAGES.get() > SOFT_PAGES
            && let Err(error) = checkpoint(db, "RESTART")
        {
            tracing::warn!(%error, "cannot move the write-ahead log into the database");
        }
    }

    /// Moves all of it and closes the connection.
    pub(super) fn finish(self, db: Connection) {
        // What cannot be moved now is found and moved when the database is opened next.
        if let Err(error) = checkpoint(&db, "TRUNCATE") {
            tracing::warn!(%error, "cannot move the write-ahead log into the database");
        }
        drop(db);
    }
}

fn checkpoint(db: &Connection, mode: &str) -> rusqlite::Result<()> {
    db.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |_row| Ok(()))
}
