//! What is asked of the writer, how it is carried out, and how it is answered.

use std::path::Path;

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::bulk::BulkFiles;
use super::crash::{self, Step};
use super::events::{self, Append};
use super::sessions::{self, NewSession, SessionRow, SessionUpdate};
use super::trim::{self, Slice, Trimmed};
use super::{SessionKey, StoreError, StoredEvent};

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
pub(super) enum Outcome {
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

impl Request {
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Append { append, .. } => append.bytes(),
            Self::Trim { .. } => trim::SLICE_BYTES,
            _ => 0,
        }
    }

    pub(super) fn what(&self) -> &'static str {
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
    pub(super) fn makes_room(&self) -> bool {
        matches!(self, Self::Delete { .. } | Self::Trim { .. })
    }

    pub(super) fn apply(&self, db: &Connection, bulk: &mut BulkFiles) -> Result<Outcome, Refused> {
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

    pub(super) fn answer(self, outcome: Outcome) {
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

    pub(super) fn refuse(self, error: StoreError) {
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
