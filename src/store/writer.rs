//! Writing: one connection, one transaction at a time, many requests to a transaction.
//!
//! A thread takes a request, takes what else waits, commits once, and answers all. That is how it goes under load, and for
//! everything that may take long. But a small append to a store that has nothing else to do is a matter of some 30 µs, less than it
//! takes to wake a thread and be woken by it; so its caller commits it itself. Then at most one thread of the caller's runtime is
//! held up at a time, and never by a wait for the disk that is ours to avoid.

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::thread::JoinHandle;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::bulk::BulkFiles;
use super::checkpoint::Checkpoints;
use super::crash::{self, Step};
use super::directory::DirectoryLock;
use super::request::{Outcome, Refused, Request};
use super::reserve::Reserve;
use super::{Durability, StoreError};

/// The most requests in one transaction.
const GROUP_REQUESTS: usize = 128;

/// Events of this size together end a group: beyond it a larger one gains nothing.
const GROUP_BYTES: usize = 4 << 20;

/// Up to this size an append is small.
const SMALL_BYTES: usize = 32 << 10;

/// A handle to the one who writes.
pub(super) struct Writer {
    requests: mpsc::Sender<Request>,
    core: Arc<Mutex<Option<Core>>>,
    /// Whether the thread has requests in hand.
    is_busy: Arc<AtomicBool>,
    durability: Durability,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").finish_non_exhaustive()
    }
}

impl Writer {
    pub(super) fn start(
        db: Connection,
        file: PathBuf,
        bulk: BulkFiles,
        lock: DirectoryLock,
        durability: Durability,
        queue: usize,
    ) -> Result<Self, StoreError> {
        let (requests, inbox) = mpsc::channel(queue);
        let core = Core {
            reserve: Reserve::open(file.parent().unwrap_or(&file)),
            checkpoints: Checkpoints::start(&db, &file)?,
            db,
            file,
            bulk,
            outcomes: Vec::with_capacity(GROUP_REQUESTS),
        };
        let core = Arc::new(Mutex::new(Some(core)));
        let is_busy = Arc::new(AtomicBool::new(false));
        let theirs = (Arc::clone(&core), Arc::clone(&is_busy));
        let thread = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || {
                let (core, is_busy) = theirs;
                let done = run(&core, &is_busy, inbox);
                let core = core.lock().unwrap_or_else(PoisonError::into_inner).take();
                if let Some(core) = core {
                    core.checkpoints.finish(core.db);
                }
                // In this order: the directory is free before anybody hears that it is.
                drop(lock);
                if let Some(done) = done {
                    let _ = done.send(());
                }
            })
            .map_err(|source| StoreError::Thread { source })?;
        Ok(Self {
            requests,
            core,
            is_busy,
            durability,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Has a request carried out. The answer comes through the request's own channel.
    pub(super) async fn send(&self, request: Request) -> Result<(), StoreError> {
        let Some(request) = self.try_here(request) else {
            return Ok(());
        };
        self.requests
            .send(request)
            .await
            .map_err(|_gone| StoreError::Closed)
    }

    /// Carries out a small append at once, if nobody else writes or waits; gives back whatever else it is.
    fn try_here(&self, request: Request) -> Option<Request> {
        let is_small =
            matches!(&request, Request::Append { append, .. } if append.bytes() <= SMALL_BYTES);
        // Those who wait in the channel were here first.
        let nobody_waits = self.requests.capacity() == self.requests.max_capacity()
            && !self.is_busy.load(Ordering::Relaxed);
        if !is_small || !nobody_waits || self.durability == Durability::Power {
            return Some(request);
        }
        let mut core = match self.core.try_lock() {
            Ok(core) => core,
            Err(TryLockError::WouldBlock) => return Some(request),
            // Somebody has panicked in the middle of a transaction: nobody may go on with that connection.
            Err(TryLockError::Poisoned(_)) => return Some(request),
        };
        match core.as_mut() {
            Some(core) if !core.checkpoints.is_wait_due() => {
                core.commit_group(&mut vec![request]);
                core.checkpoints.after_commit();
                None
            }
            _ => Some(request),
        }
    }

    /// Ends the thread after what waits now.
    pub(super) async fn close(&self) {
        let (reply, done) = oneshot::channel();
        let close = Request::Close { reply };
        if self.requests.send(close).await.is_ok() {
            let _ = done.await;
        }
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the store's writer had panicked");
        }
    }
}

/// The thread: runs until it is told to close or nobody is left to ask; returns whom to tell.
fn run(
    core: &Mutex<Option<Core>>,
    is_busy: &AtomicBool,
    mut inbox: mpsc::Receiver<Request>,
) -> Option<oneshot::Sender<()>> {
    let mut group = Vec::with_capacity(GROUP_REQUESTS);
    let mut close = None;
    while close.is_none()
        && let Some(request) = inbox.blocking_recv()
    {
        is_busy.store(true, Ordering::Relaxed);
        // After a panic in the middle of a transaction nobody can say what the connection is in; what waits is refused.
        let mut core = core.lock().ok()?;
        let core = core.as_mut()?;
        close = gather(request, &mut inbox, &mut group);
        core.commit_group(&mut group);
        core.checkpoints.after_commit_of_writer(&core.db);
        is_busy.store(false, Ordering::Relaxed);
    }
    inbox.close();
    close
}

/// Puts a request and those that wait behind it into a group, within bounds.
fn gather(
    first: Request,
    inbox: &mut mpsc::Receiver<Request>,
    group: &mut Vec<Request>,
) -> Option<oneshot::Sender<()>> {
    let mut bytes = 0;
    let mut next = Some(first);
    while let Some(request) = next {
        if let Request::Close { reply } = request {
            return Some(reply);
        }
        bytes += request.bytes();
        group.push(request);
        if group.len() >= GROUP_REQUESTS || bytes >= GROUP_BYTES {
            break;
        }
        next = inbox.try_recv().ok();
    }
    None
}

/// What it takes to write.
struct Core {
    db: Connection,
    file: PathBuf,
    bulk: BulkFiles,
    reserve: Reserve,
    checkpoints: Checkpoints,
    /// Empty between groups.
    outcomes: Vec<Outcome>,
}

impl Core {
    /// Carries out requests and answers them. `group` is empty afterwards.
    fn commit_group(&mut self, group: &mut Vec<Request>) {
        if group.is_empty() {
            return;
        }
        match self.transact(group) {
            Ok(()) => {
                crash::step(Step::Committed);
                for (request, outcome) in group.drain(..).zip(self.outcomes.drain(..)) {
                    if let Outcome::Trimmed(step) = &outcome
                        && let Some(end) = step.bulk_end
                    {
                        crash::step(Step::Trimmed);
                        // Only now: until the commit the rows said that it is there.
                        self.bulk.release(step.trimmed.session, end);
                        self.reserve.take();
                    }
                    request.answer(outcome);
                }
            }
            Err(refused) if group.len() == 1 => {
                let request = group.remove(0);
                let error = refused.explain(request.what(), &self.file);
                let is_full = matches!(error, StoreError::Full { .. });
                if is_full && request.makes_room() && self.reserve.give_up() {
                    self.commit_group(&mut vec![request]);
                } else {
                    request.refuse(error);
                }
            }
            // One of them spoilt it for all: each by itself, so that only that one fails.
            Err(_) => {
                for request in std::mem::take(group) {
                    self.commit_group(&mut vec![request]);
                }
            }
        }
    }

    /// One transaction, all or nothing.
    fn transact(&mut self, group: &[Request]) -> Result<(), Refused> {
        self.outcomes.clear();
        self.db.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        crash::step(Step::Begun);
        let written = group
            .iter()
            .try_for_each(|request| {
                self.outcomes.push(request.apply(&self.db, &mut self.bulk)?);
                Ok(())
            })
            // Before the commit, which says that it is there.
            .and_then(|()| Ok(self.bulk.sync()?))
            .inspect(|()| crash::step(Step::Written))
            .and_then(|()| Ok(self.db.prepare_cached("COMMIT")?.execute([]).map(drop)?));
        if written.is_err() && !self.db.is_autocommit() {
            // SQLite has rolled back by itself after some errors. If this fails too, the next BEGIN says so.
            let _ = self.db.execute_batch("ROLLBACK");
        }
        written
    }
}
