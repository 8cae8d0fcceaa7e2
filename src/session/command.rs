//! What may be asked of a session, what it answers, and why it refuses: the public interface of a session.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::oneshot;

use crate::kernel::files::Files;
use crate::model::checkpoint::HeldCheckpoint;
use crate::model::event::{CommMessage, Seq, UnixMillis, Verdict};
use crate::model::id::{CellId, CheckpointName, SessionId};
use crate::model::note::StateNote;
use crate::model::output::Metadata;
use crate::model::settings::SettingsError;
use crate::protocol::checkpoints::Target;
use crate::protocol::kernel::Request;
use crate::store::StoreError;

/// Where an answer goes. It may be dropped by an asker who no longer waits.
pub(crate) type Reply<T> = oneshot::Sender<Result<T, SessionError>>;

/// What may be asked of a session. Front ends translate into this and into nothing else.
#[derive(Debug)]
pub(crate) enum Command {
    /// Puts a cell at the end of the queue. Allowed until the session ends.
    Execute {
        request: CellRequest,
        reply: Reply<Queued>,
    },
    /// Moves the deadline of a cell that runs or waits. Of the running one if none is named.
    Extend {
        cell: Option<CellId>,
        by: Duration,
        reply: Reply<Deadlines>,
    },
    /// Interrupts the running cell, or what a comm message has set off, and aborts the cells that wait.
    Interrupt {
        cell: Option<CellId>,
        reply: Reply<Interruption>,
    },
    /// Takes a waiting cell out of the queue.
    Cancel { cell: CellId, reply: Reply<()> },
    /// A new kernel, in the same sandbox with the same files. Aborts what runs and waits.
    Restart { reply: Reply<()> },
    /// Holds the variables as they are, under a name. Between cells only.
    Hold {
        name: CheckpointName,
        reply: Reply<Held>,
    },
    /// Drops a checkpoint that is held. Always allowed.
    Release {
        name: CheckpointName,
        reply: Reply<()>,
    },
    /// Goes back to a checkpoint. Between cells only.
    GoBack {
        target: Target,
        reply: Reply<WentBack>,
    },
    /// Answers an `input()` that waits.
    Input {
        answer: InputAnswer,
        reply: Reply<()>,
    },
    /// A request that the kernel answers between cells: completion, inspection, variables.
    Ask {
        request: Request,
        patience: Patience,
        reply: Reply<serde_json::Map<String, Value>>,
    },
    /// A client's comm message. Recorded in the log.
    Comm {
        message: CommMessage,
        client: Option<Metadata>,
        reply: Reply<()>,
    },
    /// Changes labels, those that are named; none takes one away.
    Label {
        changes: BTreeMap<String, Option<String>>,
        reply: Reply<()>,
    },
    /// Access to the workspace; waits for the sandbox if it is being made.
    Files { reply: Reply<Files> },
    /// What the sandbox uses at this moment; also while a cell runs.
    Usage {
        reply: Reply<serde_json::Map<String, Value>>,
    },
    /// Ends the session.
    End {
        reason: crate::model::event::EndReason,
        reply: Reply<()>,
    },
    /// Ends the session's task, but not the session: another server is to go on with it.
    Leave { reply: Reply<()> },
}

/// Whether somebody who asks while a cell runs waits for its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Patience {
    /// He is refused.
    #[default]
    None,
    /// The question waits in the kernel, before the cells that wait here.
    Waits,
}

impl Command {
    /// Refuses it.
    pub(crate) fn deny(self, denied: Denied) {
        let error = SessionError::Denied(denied);
        // An asker who has gone away is not told.
        match self {
            Self::Execute { reply, .. } => drop(reply.send(Err(error))),
            Self::Extend { reply, .. } => drop(reply.send(Err(error))),
            Self::Interrupt { reply, .. } => drop(reply.send(Err(error))),
            Self::Ask { reply, .. } | Self::Usage { reply } => drop(reply.send(Err(error))),
            Self::Files { reply } => drop(reply.send(Err(error))),
            Self::Hold { reply, .. } => drop(reply.send(Err(error))),
            Self::GoBack { reply, .. } => drop(reply.send(Err(error))),
            Self::Cancel { reply, .. }
            | Self::Release { reply, .. }
            | Self::Restart { reply }
            | Self::Leave { reply }
            | Self::Input { reply, .. }
            | Self::Comm { reply, .. }
            | Self::Label { reply, .. }
            | Self::End { reply, .. } => drop(reply.send(Err(error))),
        }
    }
}

/// A cell to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CellRequest {
    /// The source.
    pub code: String,
    /// Leaves no trace in history and execution count, and shows no result.
    pub silent: bool,
    /// Counts, and goes into `In` and `Out`.
    pub store_history: bool,
    /// Whether an error aborts the cells that wait behind it.
    pub stop_on_error: bool,
    /// Whether `input()` may ask.
    pub allow_stdin: bool,
    /// Expressions to evaluate afterwards.
    pub user_expressions: BTreeMap<String, String>,
    /// Wall-clock limit; the session's if none.
    pub limit: Option<Duration>,
    /// By how much it is extended when its time is nearly up and it has shown progress, zero for not at all; as the session says if none.
    #[serde(default)]
    pub extend_on_progress: Option<Duration>,
    /// Submitting the same key again returns the first cell instead of running it twice.
    pub key: Option<String>,
    /// Only if this cell has not gone wrong: it runs, waits, or ended well.
    #[serde(default)]
    pub after: Option<CellId>,
    /// Who sends it, as the client says of itself.
    pub origin: Option<String>,
    /// What the front end keeps with it; comes back in the event. Opaque to the session.
    #[serde(default)]
    pub client: Option<Metadata>,
}

impl CellRequest {
    /// The longest source that is accepted, in bytes.
    pub const MAX_CODE: usize = 4 * 1024 * 1024;
    /// The longest idempotency key or origin, in bytes.
    pub const MAX_NAME: usize = 256;
    /// The most that a front end may keep with a cell or a comm message, in bytes of JSON.
    pub const MAX_CLIENT: usize = 4096;

    /// A cell with nothing but its source.
    pub fn new(code: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            silent: false,
            store_history: true,
            stop_on_error: true,
            allow_stdin: true,
            user_expressions: BTreeMap::new(),
            limit: None,
            extend_on_progress: None,
            after: None,
            key: None,
            origin: None,
            client: None,
        }
    }
}

/// A cell was accepted, and is in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queued {
    /// The cell.
    pub cell: CellId,
    /// Where in the log it was accepted: read on from `seq - 1` to see it all.
    pub seq: Seq,
    /// How many cells run or wait before it.
    pub position: u32,
    /// How long it may run, and until when if it runs.
    pub deadlines: Deadlines,
    /// Whether it had been submitted before with the same key.
    pub duplicate: bool,
    /// What became of the variables, if no cell has begun since that says so.
    pub state_note: Option<StateNote>,
}

/// The deadline of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// The cell.
    pub cell: CellId,
    /// How long it may run.
    pub limit: Duration,
    /// How long it may run with all extensions.
    pub ceiling: Duration,
    /// When it will be stopped; none while it waits.
    pub deadline_at_ms: Option<UnixMillis>,
    /// By how much it can still be extended.
    pub extendable: Duration,
}

/// What an interrupt found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interruption {
    /// The cell that is being interrupted; none if none ran.
    pub cell: Option<CellId>,
}

/// A checkpoint was made, and is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The checkpoint.
    pub checkpoint: HeldCheckpoint,
    /// Whether another one had the name before.
    pub replaced: bool,
}

/// A checkpoint has taken the kernel's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WentBack {
    /// What became of the variables.
    pub state: Verdict,
    /// The event `kernel_started` that says so.
    pub seq: Seq,
}

/// The answer to an `input()`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputAnswer {
    /// Which request; the open one if none.
    pub request: Option<String>,
    /// What was typed; none is the end of the file.
    pub value: Option<String>,
}

/// Why a session refuses. Each has a stable code, listed in `api/error.rs`.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Denied {
    /// There is no such session.
    #[error("there is no session `{0}`; open it with PUT /v1/sessions/{0}")]
    UnknownSession(SessionId),
    /// The session is over.
    #[error(
        "the session has ended; open it again with PUT to get a new kernel with the same files"
    )]
    Ended,
    /// This server has as many sessions as it may.
    #[error(
        "this server already has {bound} sessions, which is its limit; end one or try again later"
    )]
    TooManySessions {
        /// The limit.
        bound: usize,
    },
    /// The session exists with other settings.
    #[error(
        "the session exists with another `{field}`; settings are fixed when a session is opened"
    )]
    SettingsDiffer {
        /// The first one that differs.
        field: String,
    },
    /// A wish cannot be had.
    #[error("{0}")]
    Settings(SettingsError),
    /// As many cells wait as may.
    #[error(
        "{bound} cells are waiting already, which is the limit of a session; wait for one to finish or cancel one"
    )]
    QueueFull {
        /// The limit.
        bound: usize,
    },
    /// The session's task has as many requests as it can hold.
    #[error("the session has too many requests at once; try again")]
    Busy,
    /// A source is too long.
    #[error(
        "the cell has {bytes} bytes, but at most {bound} are accepted; put data into a file of the workspace"
    )]
    CellTooLarge {
        /// Its length.
        bytes: usize,
        /// The limit.
        bound: usize,
    },
    /// A field is not acceptable.
    #[error("`{field}` {why}")]
    BadField {
        /// Which.
        field: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// The key was used for another source.
    #[error("the key was used before for a cell with another source; use a new key for new code")]
    KeyReused,
    /// The cell after which it was to run has gone wrong.
    #[error("cell `{0}`, after which this one was to run, has failed or was not run")]
    EarlierFailed(CellId),
    /// There is no such cell.
    #[error("there is no cell `{0}` in this session, or its events were trimmed")]
    UnknownCell(CellId),
    /// No cell is running.
    #[error("no cell is running")]
    NothingRuns,
    /// The cell is over.
    #[error("cell `{0}` has finished")]
    CellFinished(CellId),
    /// The cell runs already.
    #[error("cell `{0}` is running; interrupt it instead")]
    CellRuns(CellId),
    /// The extension is too long.
    #[error("the deadline can be extended by {grantable_ms} ms more, not by {asked_ms} ms")]
    BeyondCeiling {
        /// What was asked.
        asked_ms: u64,
        /// What can be had.
        grantable_ms: u64,
    },
    /// No `input()` waits, or not this one.
    #[error("no input is asked for, or that request is over")]
    NoInput,
    /// The kernel is running a cell.
    #[error("the kernel is running a cell; wait for its end, or interrupt it, and try again")]
    KernelBusy,
    /// There is no kernel.
    #[error("the session has no kernel: {0}")]
    NoKernel(String),
    /// The kernel refused.
    #[error("{0}")]
    Kernel(String),
    /// No checkpoint of this name is held.
    #[error("no checkpoint `{name}` is held; {}", told(names))]
    UnknownCheckpoint {
        /// The name.
        name: CheckpointName,
        /// Those that are.
        names: Vec<CheckpointName>,
    },
    /// As many checkpoints are held as may.
    #[error(
        "{bound} checkpoints are held already, which is the limit; drop one, or use its name; {}",
        told(names)
    )]
    TooManyCheckpoints {
        /// The limit.
        bound: usize,
        /// Those that are held.
        names: Vec<CheckpointName>,
    },
    /// There is no checkpoint from right before the last cell.
    #[error(
        "the last cell cannot be undone: {0}; hold a checkpoint before a cell that may have to be taken back"
    )]
    NothingToUndo(&'static str),
    /// No checkpoint could be made, or woken. Nothing has changed.
    #[error("nothing has changed, since the checkpoint cannot be used: {0}")]
    CheckpointFailed(String),
    /// The data directory is full.
    #[error(
        "the server's data directory is full; nothing was lost, and cells are accepted again when there is room"
    )]
    StoreFull,
    /// The server is stopping.
    #[error("the server is stopping")]
    Stopping,
}

/// The names of what is held.
fn told(names: &[CheckpointName]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    match names.as_slice() {
        [] => "none is".to_owned(),
        names => format!("held are {}", names.join(", ")),
    }
}

/// Why a session did not do what it was asked: it refused, or we could not.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// It refused.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// The store could not.
    #[error("the store failed")]
    Store(#[source] StoreError),
    /// The kernel or its sandbox could not.
    #[error("the kernel failed")]
    Kernel(#[source] crate::kernel::KernelError),
}

impl From<StoreError> for SessionError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Full { .. } => Self::Denied(Denied::StoreFull),
            error => Self::Store(error),
        }
    }
}

/// An error with its sources, on one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
