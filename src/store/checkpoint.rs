//! Checkpoints: what is in SQLite's write-ahead log is moved into the database, so that the log stays short.
//!
//! A checkpoint waits for the disk, so it runs on a thread of its own and the writer goes on meanwhile. When the writer stays ahead of
//! it all the same, the log would grow without bound; then the writer does the rest itself.

use std::cell::Cell;
use std::path::Path;
use std::sync::mpsc::{self, SyncSender};
use std::thread::JoinHandle;

use rusqlite::Connection;

use super::crash::{self, Step};
use super::{StoreError, schema};

thread_local! {
    /// Pages in the log after the last commit of this thread's connection.
    static PAGES: Cell<i32> = const { Cell::new(0) };
}

/// From this length on the log is moved: 8 MiB.
const SOFT_PAGES: i32 = (8 << 20) / schema::PAGE_BYTES as i32;

/// From this length on the writer does it itself: 64 MiB.
const HARD_PAGES: i32 = 8 * SOFT_PAGES;

/// Decides when to move the log, and has it done.
#[derive(Debug)]
pub(super) struct Checkpoints {
    wake: SyncSender<()>,
    thread: JoinHandle<()>,
    /// From which length on the writer does it itself; more than usual after that has failed.
    hard_pages: i32,
}

impl Checkpoints {
    pub(super) fn start(file: &Path) -> Result<Self, StoreError> {
        let failed = |error| StoreError::from_sql("open", file, error);
        let db = schema::open_for_checkpoints(file).map_err(failed)?;
        // One that waits is as good as many.
        let (wake, woken) = mpsc::sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("store-checkpoint".into())
            .spawn(move || {
                while let Ok(()) = woken.recv() {
                    report(checkpoint(&db, "PASSIVE"));
                }
            })
            .map_err(|source| StoreError::Thread { source })?;
        Ok(Self {
            wake,
            thread,
            hard_pages: HARD_PAGES,
        })
    }

    /// Has SQLite say how long the log is. To be called on the writer's thread.
    pub(super) fn watch(db: &Connection) {
        db.wal_hook(Some(|_wal, pages| {
            PAGES.set(pages);
            Ok(())
        }));
    }

    /// Has the log moved when it has become long.
    pub(super) fn after_commit(&mut self, db: &Connection) {
        let pages = PAGES.get();
        if pages < SOFT_PAGES {
            self.hard_pages = HARD_PAGES;
        } else if pages < self.hard_pages {
            // Full: it will see these pages too, or be woken by the next commit.
            let _ = self.wake.try_send(());
        } else {
            // Readers are short, so this waits for them. If it fails, not again at the very next commit.
            self.hard_pages = pages.saturating_add(HARD_PAGES / 4);
            report(checkpoint(db, "RESTART"));
        }
    }

    /// Moves all of it and closes the connections.
    pub(super) fn finish(self, db: Connection) {
        drop(self.wake);
        if self.thread.join().is_err() {
            tracing::error!("the store's thread for checkpoints had panicked");
        }
        // What cannot be moved now is found and moved when the database is opened next.
        report(checkpoint(&db, "TRUNCATE"));
        drop(db);
    }
}

fn report(result: rusqlite::Result<()>) {
    if let Err(error) = result {
        tracing::warn!(%error, "cannot move the write-ahead log into the database");
    }
}

fn checkpoint(db: &Connection, mode: &str) -> rusqlite::Result<()> {
    crash::step(Step::CheckpointBegins);
    db.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |_row| Ok(()))?;
    crash::step(Step::CheckpointDone);
    Ok(())
}
