//! The one thread that writes: takes a request, takes what else waits, commits once, answers all.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::bulk::BulkFiles;
use super::checkpoint::Checkpoints;
use super::crash::{self, Step};
use super::directory::DirectoryLock;
use super::events::Append;
use super::reserve::Reserve;
use super::sessions::{NewSession, SessionRow, SessionUpdate};
use super::trim::{self, Slice, Trimmed};
use super::{SessionKey, StoreError, StoredEvent, events, sessions};

/// The most requests in one transaction.
const GROUP_REQUESTS: usize = 128;

/// Events of this size together end a group: beyond it a larger one gains nothing.
const GROUP_BYTES: usize = 4 << 20;

/// Where an answer goes. Nobody may be there any more.
pub(super) type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// Called by the writer with the events of an append, between its commit and its answer. Must be quick and must not panic.
pub(crate) type Committed = Box<dyn FnOnce(Vec<StoredEvent>) + Send>;

/// Everything that is ever written.
pub(super) enum Request {
    Create {
        new: NewSession,
        reply: Reply<SessionRow>,
    },
    Update {
        key: SessionKey,
        update: SessionUpdate,
        reply: Reply<()>,
    },
    Delete {
        key: SessionKey,
        reply: Reply<()>,
    },
    Append {
        append: Append,
        committed: Option<Committed>,
        reply: Reply<()>,
    },
    /// A bounded step of trimming.
    Trim {
        slice: Slice,
        reply: Reply<Trimmed>,
    },
    /// The last one: whatever waits behind it is refused.
    Close {
        reply: oneshot::Sender<()>,
    },
}

/// What came of a request.
enum Outcome {
    Done,
    Created(Box<SessionRow>),
    Trimmed(trim::Step),
}

/// Why a request was not carried out.
pub(super) enum Refused {
    Known(StoreError),
    Sql(rusqlite::Error),
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        Self::Known(error)
    }
}

impl From<rusqlite::Error> for Refused {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

impl Refused {
    /// What it means for who asked.
    pub(super) fn explain(self, what: &'static str, file: &Path) -> StoreError {
        match self {
            Self::Known(error) => error,
            Self::Sql(error) => StoreError::from_sql(what, file, error),
        }
    }
}

/// A handle to the thread that writes.
pub(super) struct Writer {
    requests: mpsc::Sender<Request>,
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
        queue: usize,
    ) -> Result<Self, StoreError> {
        let (requests, inbox) = mpsc::channel(queue);
        let reserve = Reserve::open(file.parent().unwrap_or(&file));
        let checkpoints = Checkpoints::start(&file)?;
        let thread = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || {
                let done = Loop {
                    db,
                    file,
                    bulk,
                    reserve,
                    checkpoints,
                }
                .run(inbox);
                // In this order: the directory is free before anybody hears that it is.
                drop(lock);
                if let Some(done) = done {
                    let _ = done.send(());
                }
            })
            .map_err(|source| StoreError::Thread { source })?;
        Ok(Self {
            requests,
            thread: Mutex::new(Some(thread)),
        })
    }

    pub(super) async fn send(&self, request: Request) -> Result<(), StoreError> {
        self.requests
            .send(request)
            .await
            .map_err(|_gone| StoreError::Closed)
    }

    /// Ends the thread after what waits now.
    pub(super) async fn close(&self) {
        let (reply, done) = oneshot::channel();
        if self.send(Request::Close { reply }).await.is_ok() {
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

struct Loop {
    db: Connection,
    file: PathBuf,
    bulk: BulkFiles,
    reserve: Reserve,
    checkpoints: Checkpoints,
}

impl Loop {
    /// Runs until it is told to close or nobody is left to ask; returns whom to tell.
    fn run(mut self, mut inbox: mpsc::Receiver<Request>) -> Option<oneshot::Sender<()>> {
        Checkpoints::watch(&self.db);
        let mut group = Vec::with_capacity(GROUP_REQUESTS);
        let mut outcomes = Vec::with_capacity(GROUP_REQUESTS);
        let mut close = None;
        while close.is_none()
            && let Some(request) = inbox.blocking_recv()
        {
            close = gather(request, &mut inbox, &mut group);
            self.commit_group(&mut group, &mut outcomes);
            self.checkpoints.after_commit(&self.db);
        }
        inbox.close();
        self.checkpoints.finish(self.db);
        close
    }

    fn commit_group(&mut self, group: &mut Vec<Request>, outcomes: &mut Vec<Outcome>) {
        if group.is_empty() {
            return;
        }
        match self.transact(group, outcomes) {
            Ok(()) => {
                crash::step(Step::Committed);
                for (request, outcome) in group.drain(..).zip(outcomes.drain(..)) {
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
                    self.commit_group(&mut vec![request], outcomes);
                } else {
                    request.refuse(error);
                }
            }
            // One of them spoilt it for all: each by itself, so that only that one fails.
            Err(_) => {
                for request in std::mem::take(group) {
                    self.commit_group(&mut vec![request], outcomes);
                }
            }
        }
    }

    /// One transaction, all or nothing.
    fn transact(&mut self, group: &[Request], outcomes: &mut Vec<Outcome>) -> Result<(), Refused> {
        outcomes.clear();
        self.db.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        crash::step(Step::Begun);
        let written = group
            .iter()
            .try_for_each(|request| {
                outcomes.push(request.apply(&self.db, &mut self.bulk)?);
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

impl Request {
    fn bytes(&self) -> usize {
        match self {
            Self::Append { append, .. } => append.bytes(),
            Self::Trim { .. } => trim::SLICE_BYTES,
            _ => 0,
        }
    }

    fn what(&self) -> &'static str {
        match self {
            Self::Create { .. } => "create a session",
            Self::Update { .. } => "update a session",
            Self::Delete { .. } => "delete a session",
            Self::Append { .. } => "append events",
            Self::Trim { .. } => "trim events",
            Self::Close { .. } => "close",
        }
    }

    /// Whether there is more room after it.
    fn makes_room(&self) -> bool {
        matches!(self, Self::Delete { .. } | Self::Trim { .. })
    }

    fn apply(&self, db: &Connection, bulk: &mut BulkFiles) -> Result<Outcome, Refused> {
        match self {
            Self::Create { new, .. } => Ok(Outcome::Created(Box::new(sessions::create(db, new)?))),
            Self::Update { key, update, .. } => {
                sessions::update(db, *key, update).map(|()| Outcome::Done)
            }
            Self::Delete { key, .. } => sessions::delete(db, *key).map(|()| Outcome::Done),
            Self::Append { append, .. } => events::append(db, bulk, append).map(|()| Outcome::Done),
            Self::Trim { slice, .. } => Ok(Outcome::Trimmed(trim::apply(db, bulk, slice)?)),
            Self::Close { .. } => Ok(Outcome::Done),
        }
    }

    fn answer(self, outcome: Outcome) {
        match (self, outcome) {
            (Self::Create { reply, .. }, Outcome::Created(row)) => {
                let _ = reply.send(Ok(*row));
            }
            (Self::Trim { reply, .. }, Outcome::Trimmed(step)) => {
                let _ = reply.send(Ok(step.trimmed));
            }
            (
                Self::Append {
                    append,
                    committed,
                    reply,
                },
                Outcome::Done,
            ) => {
                if let Some(committed) = committed {
                    committed(append.events);
                }
                crash::step(Step::Published);
                let _ = reply.send(Ok(()));
            }
            (Self::Update { reply, .. } | Self::Delete { reply, .. }, Outcome::Done) => {
                let _ = reply.send(Ok(()));
            }
            (request, _) => unreachable!("`{}` has another outcome", request.what()),
        }
    }

    fn refuse(self, error: StoreError) {
        match self {
            Self::Create { reply, .. } => drop(reply.send(Err(error))),
            Self::Trim { reply, .. } => drop(reply.send(Err(error))),
            Self::Append { reply, .. }
            | Self::Update { reply, .. }
            | Self::Delete { reply, .. } => drop(reply.send(Err(error))),
            Self::Close { .. } => {}
        }
    }
}
