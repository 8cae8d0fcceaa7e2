//! Checkpoints: what is in SQLite's write-ahead log is moved into the database, so that the log stays short.
//!
//! A checkpoint waits for the disk, so it runs on a thread of its own and the writer goes on meanwhile. When the writer stays ahead of
//! it all the same, the log would grow without bound; then the writer does the rest itself.

use std::cell::Cell;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
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

/// From this length on the writer's thread does it itself: 64 MiB.
const HARD_PAGES: i32 = 8 * SOFT_PAGES;

/// Decides when to move the log, and has it done.
#[derive(Debug)]
pub(super) struct Checkpoints {
    wake: SyncSender<()>,
    thread: JoinHandle<()>,
    /// Held by whoever moves the log: SQLite does not wait for another who does, but gives up at once, whatever its timeout is.
    turn: Arc<Mutex<()>>,
    /// Whether the log may be all moved, so that the next commit begins it anew, which waits for the disk.
    is_moved: Arc<AtomicBool>,
    /// The log's length after the last commit.
    pages: i32,
    /// From which length on the writer's thread does it itself; more than usual after that has failed.
    hard_pages: i32,
}

impl Checkpoints {
    pub(super) fn start(writer: &Connection, file: &Path) -> Result<Self, StoreError> {
        writer.wal_hook(Some(|_wal, pages| {
            PAGES.set(pages);
            Ok(())
        }));
        let failed = |error| StoreError::from_sql("open", file, error);
        let db = schema::open_for_checkpoints(file).map_err(failed)?;
        // One that waits is as good as many.
        let (wake, woken) = mpsc::sync_channel(1);
        let is_moved = Arc::new(AtomicBool::new(false));
        let turn = Arc::new(Mutex::new(()));
        let (their_moved, their_turn) = (Arc::clone(&is_moved), Arc::clone(&turn));
        let thread = std::thread::Builder::new()
            .name("store-checkpoint".into())
            .spawn(move || {
                while let Ok(()) = woken.recv() {
                    let turn = their_turn.lock().unwrap_or_else(PoisonError::into_inner);
                    report(checkpoint(&db, "PASSIVE"));
                    drop(turn);
                    their_moved.store(true, Ordering::Relaxed);
                }
            })
            .map_err(|source| StoreError::Thread { source })?;
        Ok(Self {
            wake,
            thread,
            turn,
            is_moved,
            pages: 0,
            hard_pages: HARD_PAGES,
        })
    }

    /// Has the log moved when it has become long. To be called on the thread that committed.
    pub(super) fn after_commit(&mut self) {
        self.pages = PAGES.get();
        if self.pages < SOFT_PAGES {
            self.hard_pages = HARD_PAGES;
        } else {
            // Full: it will see these pages too, or be woken by the next commit.
            let _ = self.wake.try_send(());
        }
    }

    /// Whether the next commit, or what comes after it, may wait for the disk, so that it is for the writer's own thread.
    pub(super) fn is_wait_due(&self) -> bool {
        self.pages >= self.hard_pages || self.is_moved.load(Ordering::Relaxed)
    }

    /// The same after a commit of the writer's own thread, which may wait: it moves the log itself when that has become far too long.
    pub(super) fn after_commit_of_writer(&mut self, db: &Connection) {
        self.is_moved.store(false, Ordering::Relaxed);
        self.after_commit();
        if self.pages >= self.hard_pages {
            // Readers are short, so this waits for them. If it fails, not again at the very next commit.
            self.hard_pages = self.pages.saturating_add(HARD_PAGES / 4);
            let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
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
