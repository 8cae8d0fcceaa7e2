//! Events: the facts of a session's log, in the one form that is stored, replayed and sent.
//!
//! A field that is added has a default; a field or a variant is never renamed or removed within `v1`.

mod deadline;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::checkpoint::DropReason;
use super::id::{CellId, CheckpointName, SessionId};
use super::note::StateNote;
use super::output::{ErrorOutput, Metadata, MimeBundle, StreamName, VariableChanges};
pub use deadline::{ExtendReason, InterruptReason, Rung};

/// A position in a session's log: from 1, growing by 1, without gaps, never reused. 0 is "before the first".
pub type Seq = u64;

/// Milliseconds since the Unix epoch, by the server's clock.
pub type UnixMillis = u64;

/// An event at its place in the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Envelope {
    /// Where in the log it stands.
    pub seq: Seq,
    /// When it was written to the log.
    pub at_ms: UnixMillis,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// One fact in a session's log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The log begins, or goes on after the session had ended (`reopened`).
    SessionOpened {
        /// The session's id.
        session: SessionId,
        /// Whether there was an earlier life of this session, whose log and files are still here.
        reopened: bool,
    },
    /// A kernel is there and has answered. Its namespace is empty, unless it is a checkpoint (`rolled_back`).
    KernelStarted {
        /// Why it was started.
        reason: StartReason,
        /// The version of Python.
        python: String,
        /// Whether it had been kept warm.
        warm: bool,
        /// How long the session waited for it.
        took_ms: u64,
        /// The held checkpoint that it is, if it is one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        restored: Option<CheckpointName>,
    },
    /// A kernel could not be started. The session stays; the next cell or a restart tries again.
    KernelFailed {
        /// What went wrong and what to do about it.
        message: String,
    },
    /// The server was stopped and started again, and has taken up the kernel that was there, with the cell that it runs.
    KernelAdopted {
        /// What became of the variables.
        state: Verdict,
    },
    /// The kernel is gone. What it had may live on in a checkpoint.
    KernelLost {
        /// What ended it.
        cause: Cause,
        /// What became of the variables.
        state: Verdict,
    },
    /// A checkpoint is held under this name from now on. One that had the name before is not there any more.
    CheckpointHeld {
        /// The name.
        name: CheckpointName,
        /// The number of the last counted cell that its variables have seen.
        execution_count: u32,
    },
    /// A checkpoint is not held any more.
    CheckpointDropped {
        /// Its name.
        name: CheckpointName,
        /// Why.
        reason: DropReason,
    },
    /// Labels of the session were changed.
    LabelsChanged {
        /// All that it has from now on.
        labels: BTreeMap<String, String>,
    },
    /// A cell was accepted.
    CellQueued {
        /// The cell.
        cell: CellId,
        /// Its source.
        code: String,
        /// How many cells run or wait before it.
        position: u32,
        /// Whether it leaves no trace in history and execution count.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        silent: bool,
        /// Who sent it, as the client said of itself.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        origin: Option<String>,
        /// What the front end that took it keeps with it. Opaque to the session.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        client: Option<Metadata>,
    },
    /// A cell began to run.
    CellStarted {
        /// The cell.
        cell: CellId,
        /// Its number, as in `In [n]`; none for a silent one.
        execution_count: Option<u32>,
        /// When it will be stopped.
        deadline_at_ms: UnixMillis,
        /// The latest instant to which the deadline can be extended.
        ceiling_at_ms: UnixMillis,
        /// What became of the variables since the cell before, in the first cell that begins after a loss or a rollback.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        state_note: Option<StateNote>,
    },
    /// Text was written.
    Stream {
        /// The cell that was running, if any.
        cell: Option<CellId>,
        /// To which stream.
        name: StreamName,
        /// The text.
        text: String,
    },
    /// Something was shown.
    DisplayData {
        /// The cell that was running, if any.
        cell: Option<CellId>,
        /// What was shown.
        data: MimeBundle,
        /// Facts about it.
        metadata: Metadata,
        /// By which id it can be updated.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        display_id: Option<String>,
    },
    /// Something that was shown is to be shown differently.
    UpdateDisplayData {
        /// The cell that was running, if any.
        cell: Option<CellId>,
        /// What is shown now.
        data: MimeBundle,
        /// Facts about it.
        metadata: Metadata,
        /// Which display is meant.
        display_id: String,
    },
    /// The value of a cell's last expression.
    ExecuteResult {
        /// The cell.
        cell: Option<CellId>,
        /// As in `Out [n]`.
        execution_count: u32,
        /// The value.
        data: MimeBundle,
        /// Facts about it.
        metadata: Metadata,
    },
    /// An exception reached the top of a cell, or of a task that ran between cells.
    Error {
        /// The cell, if one was running.
        cell: Option<CellId>,
        /// The exception.
        #[serde(flatten)]
        error: ErrorOutput,
    },
    /// What the cell has shown so far is to be cleared.
    ClearOutput {
        /// The cell.
        cell: Option<CellId>,
        /// Not at once, but when the next output comes.
        wait: bool,
    },
    /// The code asks the user for a line.
    InputRequested {
        /// The cell.
        cell: CellId,
        /// To be named in the answer.
        request: String,
        /// What the user is shown.
        prompt: String,
        /// Whether what is typed must not be shown.
        password: bool,
        /// When the wait ends with an `EOFError`. The cell's own deadline stands still meanwhile.
        deadline_at_ms: UnixMillis,
    },
    /// The wait for a line is over.
    InputClosed {
        /// The cell.
        cell: CellId,
        /// Which request.
        request: String,
        /// How it ended.
        outcome: InputOutcome,
        /// The cell's deadline, which has moved by the time that was waited.
        deadline_at_ms: UnixMillis,
    },
    /// A comm was opened, used or closed.
    Comm {
        /// The cell that was running, if any.
        cell: Option<CellId>,
        /// Who sent it.
        from: CommSide,
        /// The message.
        #[serde(flatten)]
        message: CommMessage,
        /// What the front end that took it from a client keeps with it. Opaque to the session.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        client: Option<Metadata>,
    },
    /// The kernel is done with a client's comm message: what it caused, outside of cells, lies before this.
    CommHandled {
        /// The event `comm` with the message.
        at_seq: Seq,
        /// Why the kernel did not take it, if it did not.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
    /// The deadline is near.
    DeadlineWarning {
        /// The cell.
        cell: CellId,
        /// When it strikes.
        deadline_at_ms: UnixMillis,
        /// By how much it can still be extended.
        extendable_ms: u64,
    },
    /// The deadline was moved.
    DeadlineExtended {
        /// The cell.
        cell: CellId,
        /// Why.
        #[serde(default)]
        reason: ExtendReason,
        /// By how much.
        by_ms: u64,
        /// How long the cell may run now.
        limit_ms: u64,
        /// When it strikes now; none while the cell waits.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        deadline_at_ms: Option<UnixMillis>,
        /// By how much it can still be extended.
        extendable_ms: u64,
    },
    /// The memory that counts against the session's limit comes near it. Said once in a cell.
    MemoryWarning {
        /// The cell.
        cell: CellId,
        /// What is in use.
        used_bytes: u64,
        /// The limit.
        limit_bytes: u64,
    },
    /// Something is being done to stop what runs.
    Interrupted {
        /// The cell; none if it is what runs between cells, such as what a comm message set off.
        cell: Option<CellId>,
        /// Why.
        reason: InterruptReason,
        /// How.
        rung: Rung,
    },
    /// A cell is over. Nothing more comes from it.
    CellFinished {
        /// The cell.
        cell: CellId,
        /// How it ended.
        status: CellStatus,
        /// Why, unless it ended well.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cause: Option<Cause>,
        /// What became of the variables.
        state: Verdict,
        /// Its number; none if it did not run or was silent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        execution_count: Option<u32>,
        /// What it used; none if it did not run.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        usage: Option<Usage>,
        /// What it did to the namespace.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        variables: Option<VariableChanges>,
        /// The expressions that were asked for with it, each with its mime bundle or its error.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        user_expressions: Option<Value>,
        /// What the code asks of whoever edits the cell, such as a next cell's source; in Jupyter's words.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        payload: Vec<Value>,
        /// What the variables would have been if the kernel had been lost with this cell; none if it did not run.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        checkpoint: Option<Protection>,
    },
    /// The session is over. Nothing more comes, unless it is opened again.
    SessionEnded {
        /// Why.
        reason: EndReason,
    },
}

impl Event {
    /// The cell that this event belongs to, if any.
    pub fn cell(&self) -> Option<CellId> {
        match self {
            Self::SessionOpened { .. }
            | Self::KernelStarted { .. }
            | Self::KernelFailed { .. }
            | Self::KernelAdopted { .. }
            | Self::KernelLost { .. }
            | Self::CommHandled { .. }
            | Self::CheckpointHeld { .. }
            | Self::CheckpointDropped { .. }
            | Self::LabelsChanged { .. }
            | Self::SessionEnded { .. } => None,
            Self::Stream { cell, .. }
            | Self::DisplayData { cell, .. }
            | Self::UpdateDisplayData { cell, .. }
            | Self::ExecuteResult { cell, .. }
            | Self::Error { cell, .. }
            | Self::ClearOutput { cell, .. }
            | Self::Interrupted { cell, .. }
            | Self::Comm { cell, .. } => *cell,
            Self::CellQueued { cell, .. }
            | Self::CellStarted { cell, .. }
            | Self::InputRequested { cell, .. }
            | Self::InputClosed { cell, .. }
            | Self::DeadlineWarning { cell, .. }
            | Self::DeadlineExtended { cell, .. }
            | Self::MemoryWarning { cell, .. }
            | Self::CellFinished { cell, .. } => Some(*cell),
        }
    }
}

/// Why a kernel was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StartReason {
    /// The session was opened.
    Opened,
    /// Somebody asked for a restart.
    Restarted,
    /// The one before was lost.
    Recovered,
    /// The one before was lost, or somebody wanted to go back, and a checkpoint has taken its place.
    RolledBack,
    /// Somebody wanted the last cell undone, and the checkpoint from before it has taken the kernel's place.
    Undone,
}

/// Whether there was a checkpoint to go back to while a cell ran.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Protection {
    /// There was one, made before this cell.
    Before(CellId),
    /// There was none.
    Unprotected(Unprotected),
}

/// Why there was no checkpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unprotected {
    /// Cells came too fast one after the other.
    Burst,
    /// Cells rewrite so much that copying it would have taken a felt part of their time.
    Costly,
    /// There was no memory or process left for it.
    Failed,
    /// It is switched off.
    Off,
    /// It is not known.
    #[default]
    #[serde(other)]
    Unknown,
}

/// How a cell ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CellStatus {
    /// Well.
    Ok,
    /// With an exception, or not by itself.
    Error,
    /// Without having run.
    Aborted,
}

/// What ended a cell or a kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Cause {
    /// The code raised an exception.
    Exception,
    /// The deadline struck.
    Deadline,
    /// Somebody interrupted it.
    Interrupted,
    /// It was cancelled while it waited in the queue.
    Cancelled,
    /// A cell before it in the queue ended with an error.
    EarlierError,
    /// The memory limit was reached, or more was asked for than there is.
    OutOfMemory {
        /// The limit.
        limit_bytes: u64,
        /// The most that was in use.
        peak_bytes: Option<u64>,
        /// How much was asked for when it was refused, where that is known. The kernel goes on then.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        asked_bytes: Option<u64>,
    },
    /// The kernel was killed by a signal.
    KilledBySignal {
        /// The signal's number.
        signal: i32,
        /// The signal's name, such as `SIGSEGV`.
        name: String,
    },
    /// The kernel's process exited.
    Exited {
        /// With this code.
        code: i32,
    },
    /// More was written to disk than is allowed.
    DiskLimit {
        /// The limit.
        limit_bytes: u64,
    },
    /// More processes and threads were started than are allowed.
    ProcessLimit {
        /// The limit.
        limit: u32,
    },
    /// The cell used more time on the processors than it may.
    CpuLimit {
        /// The limit.
        limit_ms: u64,
    },
    /// The cell wrote and showed more than it may.
    OutputLimit {
        /// The limit.
        limit_bytes: u64,
    },
    /// Not even killing the kernel's process ended it; its sandbox was given up.
    Unresponsive,
    /// What the kernel's process said was not what a kernel says: code in it tampered with its descriptors.
    BrokenProtocol {
        /// How.
        how: String,
    },
    /// Somebody asked for a restart.
    Restart,
    /// Somebody wanted to go back to a checkpoint.
    RolledBack {
        /// Its name.
        to: CheckpointName,
    },
    /// Somebody wanted the last cell undone.
    Undone,
    /// No kernel could be started.
    NoKernel,
    /// The sandbox went away.
    SandboxLost,
    /// The server stopped.
    ServerStopped,
    /// The session ended.
    SessionEnded,
}

/// What became of the variables.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Verdict {
    /// They are as the cell left them.
    Kept,
    /// They are as they were before this cell.
    RolledBack {
        /// The cell.
        before: CellId,
    },
    /// They are as they were when this checkpoint was last held.
    Restored {
        /// Its name.
        checkpoint: CheckpointName,
    },
    /// They are gone.
    Lost {
        /// Why.
        why: String,
    },
}

/// What a cell used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Usage {
    /// Time on the clock.
    pub wall_ms: u64,
    /// Time on the processors, its child processes included.
    pub cpu_ms: u64,
    /// The most memory that was in use meanwhile, as far as it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_memory_bytes: Option<u64>,
    /// What it wrote and showed.
    pub output_bytes: u64,
}

/// How the wait for a line ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum InputOutcome {
    /// Somebody answered. What they typed is not in the log.
    Answered,
    /// Nobody did in time: `EOFError`.
    TimedOut,
    /// The cell was stopped.
    Interrupted,
}

/// Which side of a comm spoke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CommSide {
    /// The kernel.
    Kernel,
    /// A client.
    Client,
}

/// A message of a comm, the channel that widgets use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CommMessage {
    /// What it does.
    pub comm: CommAction,
    /// Which comm.
    pub comm_id: String,
    /// What it is for; with `open`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_name: Option<String>,
    /// The content.
    #[serde(default)]
    pub data: Value,
    /// Facts about it.
    #[serde(default, skip_serializing_if = "Metadata::is_empty")]
    pub metadata: Metadata,
    /// Binary parts, as base64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub buffers: Vec<String>,
}

/// What a comm message does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CommAction {
    /// Opens a comm.
    Open,
    /// Uses it.
    Msg,
    /// Closes it.
    Close,
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// Somebody deleted it.
    Deleted,
    /// Nothing had happened for as long as its idle timeout.
    Idle,
    /// The server stopped.
    ServerStopped,
    /// The server broke an invariant of its own; its log has the details.
    Internal,
}
