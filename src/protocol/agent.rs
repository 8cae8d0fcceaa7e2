//! What the server and the agent say to each other.
//!
//! A connection begins with a [`Hello`] from each side, the server's first. On a `control` connection the agent then sends every
//! kept frame after `resume_after`, in order, and goes on with new ones. A kept frame is numbered from 1 without gaps over the whole life of the
//! sandbox, and kept until the server has acknowledged it as stored. There is one control connection; a new one displaces the old.
//! On a `files` connection the server sends one request (see [`super::files`]).

use serde::{Deserialize, Serialize};

use crate::model::id::SandboxId;

/// The kinds of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Kept. Bytes that were written to standard output.
    Stdout = 1,
    /// Kept. Bytes that were written to standard error.
    Stderr = 2,
    /// Kept. A message of the kernel, maybe a part of one: `u32 length of JSON | JSON | buffers`.
    Message = 3,
    /// Kept. A kernel's reply to a request; form as [`Kind::Message`].
    Reply = 5,
    /// Kept. [`UsageReport`] of the execution whose reply comes next.
    Usage = 6,
    /// Kept. [`KernelExit`]. Everything the kernel wrote comes before it.
    KernelExited = 7,
    /// Kept. [`DiskReport`]: the workspace is over its quota.
    DiskFull = 8,
    /// Kept. [`MemoryReport`]: memory comes near its limit while a cell runs.
    MemoryHigh = 9,
    /// Kept. [`CpuReport`]: the execution has used as much time on the processors as it may.
    CpuSpent = 10,
    /// Kept. [`super::checkpoints::CheckpointReport`]: what became of a checkpoint with a name, or of the wish to go back.
    Checkpoint = 11,
    /// Kept. [`KernelStart`]. Everything that the kernel says comes after it.
    KernelStarted = 12,

    /// Agent's [`AgentHello`], first of all.
    AgentHello = 64,
    /// The answer to [`Kind::StartKernel`], [`Kind::Configure`] and [`Kind::Stat`], with the request's number: JSON, or `{"error": "…"}`.
    Answer = 65,
    /// The answer to [`Kind::Ping`], with its number.
    Pong = 66,
    /// File content, at most 256 KiB; both ways, on a `files` connection.
    Data = 70,
    /// The end of file content; both ways.
    End = 71,
    /// A [`super::files::FileAnswer`].
    FileAnswer = 72,

    /// Server's [`Hello`], first of all.
    Hello = 128,
    /// Everything up to this number is stored and can be forgotten.
    Ack = 129,
    /// A request for the kernel: JSON, passed on as it is. The number is its id, and grows over the whole life of the sandbox, together with
    /// those of [`Kind::StartKernel`].
    Request = 130,
    /// As [`Kind::Request`], and an execution: the agent measures what it uses. Its numbers grow by themselves.
    Execute = 131,
    /// SIGINT to the kernel's process; with [`CANCEL`] as its payload the signal [`CANCEL_SIGNAL`], of which an agent that does not know it makes a SIGINT.
    Interrupt = 132,
    /// Ends the current kernel, if any, and starts a new one. Answered when the new one has been started (its `ready` is a message).
    /// With [`super::checkpoints::HeldOnes`]; checkpoints without a name end.
    StartKernel = 133,
    /// SIGKILL to the kernel and everything it has started.
    KillKernel = 134,
    /// [`AgentConfig`]: limits that the agent itself watches.
    Configure = 135,
    /// Asks for a [`Stat`].
    Stat = 136,
    /// Are you there?
    Ping = 137,
    /// The end of the sandbox.
    Shutdown = 138,
    /// Ends the current kernel, if any, and wakes a checkpoint in its place: with [`super::checkpoints::Target`]. Answered as [`Kind::StartKernel`];
    /// but for the newest one, [`Kind::Checkpoint`] tells first whether it is there, and the kernel is ended only then.
    Restore = 139,
    /// A [`super::files::FileRequest`]; on a `files` connection, once.
    FileRequest = 140,
    /// Has the kernel make a checkpoint, and keeps it: with [`super::checkpoints::Named`]. [`Kind::Checkpoint`] tells of it.
    Hold = 141,
    /// Ends a checkpoint that was kept: with [`super::checkpoints::Named`]. [`Kind::Checkpoint`] tells of it.
    Release = 142,
}

/// A byte that is no kind of frame in this generation.
#[derive(Debug, thiserror::Error)]
#[error("{0} is no kind of frame")]
pub struct UnknownKind(u8);

/// What an interrupt carries that is to cancel what the cell awaits.
pub const CANCEL: &[u8] = b"cancel";

/// The signal for that: a real-time signal that no library is known to use. The kernel knows it by the same number (`interrupts.py`).
pub const CANCEL_SIGNAL: i32 = 60;

impl TryFrom<u8> for Kind {
    type Error = UnknownKind;

    fn try_from(byte: u8) -> Result<Self, UnknownKind> {
        const ALL: [Kind; 32] = [
            Kind::Stdout,
            Kind::Stderr,
            Kind::Message,
            Kind::Reply,
            Kind::Usage,
            Kind::KernelExited,
            Kind::DiskFull,
            Kind::MemoryHigh,
            Kind::CpuSpent,
            Kind::Checkpoint,
            Kind::KernelStarted,
            Kind::AgentHello,
            Kind::Answer,
            Kind::Pong,
            Kind::Data,
            Kind::End,
            Kind::FileAnswer,
            Kind::Hello,
            Kind::Ack,
            Kind::Request,
            Kind::Execute,
            Kind::Interrupt,
            Kind::StartKernel,
            Kind::KillKernel,
            Kind::Configure,
            Kind::Stat,
            Kind::Ping,
            Kind::Shutdown,
            Kind::Restore,
            Kind::FileRequest,
            Kind::Hold,
            Kind::Release,
        ];
        ALL.into_iter()
            .find(|kind| *kind as u8 == byte)
            .ok_or(UnknownKind(byte))
    }
}

/// The server's first words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The newest generation it speaks.
    pub generation: u32,
    /// What the connection is for.
    pub purpose: Purpose,
    /// The last kept frame that is stored; 0 for none.
    #[serde(default)]
    pub resume_after: u64,
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// Frames of the kernel, and its control.
    Control,
    /// One operation on the workspace.
    Files,
}

/// The agent's first words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentHello {
    /// The generation it speaks.
    pub generation: u32,
    /// Which sandbox this is.
    pub sandbox: SandboxId,
    /// The number of the last kept frame so far.
    pub last: u64,
    /// How many kernels were started in this sandbox; 0 for none.
    pub kernels: u64,
    /// Whether the last of them lives.
    pub alive: bool,
    /// The id of the execution that runs, if any.
    pub executing: Option<u64>,
    /// Whether another kernel is being started.
    #[serde(default)]
    pub starting: bool,
    /// The highest number of the requests that have arrived, executions apart. One that comes again is passed over.
    #[serde(default)]
    pub last_request: u64,
    /// The highest number of the executions that have arrived. One that comes again is passed over: a cell runs once.
    #[serde(default)]
    pub last_execution: u64,
}

/// What an execution used, as far as the agent can tell.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageReport {
    /// The request's id.
    pub id: u64,
    /// Time on the clock, from the request's arrival to the reply.
    pub wall_us: u64,
    /// Time on the processors, child processes included.
    pub cpu_us: u64,
    /// The most memory in use meanwhile.
    pub peak_memory_bytes: Option<u64>,
    /// The cell before which the checkpoint was made to which its failure would have led; none if there was none.
    #[serde(default)]
    pub checkpoint: Option<String>,
}

/// How a kernel's process ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelExit {
    /// Which one: the first of the sandbox is 1.
    pub kernel: u64,
    /// Its exit code, if it exited.
    pub code: Option<i32>,
    /// The signal that killed it, if one did.
    pub signal: Option<i32>,
    /// Whether the memory limit was hit while it ran.
    pub out_of_memory: bool,
    /// The most memory that was in use.
    pub peak_memory_bytes: Option<u64>,
    /// Whether the agent killed it because it exceeded a limit that the agent watches.
    pub limit: Option<WatchedLimit>,
    /// How it broke its protocol, if the agent killed it for that.
    #[serde(default)]
    pub violation: Option<String>,
    /// The checkpoint that is there in its place, if any.
    #[serde(default)]
    pub checkpoint: Option<Checkpoint>,
}

/// A kernel has a process: a new one, or a checkpoint that was woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelStart {
    /// The kernel's number in its sandbox, as in [`KernelExit`].
    pub kernel: u64,
    /// The number of the request for it. One that was asked for later may have displaced it already.
    pub request: u64,
}

/// A checkpoint: a copy of the kernel as it was once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The cell that began first after it was made; none if none has.
    pub before: Option<String>,
}

/// A limit that the agent enforces by itself, where the host gives it no better means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WatchedLimit {
    /// Memory of all processes.
    Memory,
    /// Disk of the workspace.
    Disk,
    /// Processes and threads.
    Processes,
}

/// The workspace is over its quota, or holds what cannot be counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskReport {
    /// What it holds.
    pub used_bytes: u64,
    /// What it may hold.
    pub limit_bytes: u64,
    /// How many files and directories it holds; at most [`WORKSPACE_ENTRIES`] are allowed.
    #[serde(default)]
    pub entries: u64,
}

/// Files and directories that a workspace may hold.
pub const WORKSPACE_ENTRIES: u64 = 1_000_000;

/// How deep its directories may lie. Deeper ones are not counted, since each level holds a descriptor: so they are not allowed.
pub const WORKSPACE_DEPTH: usize = 256;

/// Memory comes near its limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryReport {
    /// The id of the execution that runs.
    pub id: u64,
    /// What counts against the limit: all that cannot be given back, but for what only checkpoints hold.
    pub used_bytes: u64,
    /// The limit.
    pub limit_bytes: u64,
}

/// An execution has used as much time on the processors as it may.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuReport {
    /// The id of the execution.
    pub id: u64,
    /// What it has used.
    pub used_ms: u64,
}

/// Limits that the agent itself watches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentConfig {
    /// What the workspace may hold.
    pub workspace_bytes: u64,
    /// What all processes together may hold, but for checkpoints.
    pub memory_bytes: u64,
    /// How many processes and threads there may be, where no cgroup says so.
    pub processes: u32,
    /// Time on the processors after which it says that an execution has used enough.
    #[serde(default)]
    pub cell_cpu_ms: Option<u64>,
    /// How long the agent lives on without a server.
    pub orphan_ms: u64,
}

/// What a sandbox uses at this moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stat {
    /// Memory of all its processes.
    pub memory_bytes: Option<u64>,
    /// Time on the processors since it began.
    pub cpu_us: u64,
    /// Processes and threads.
    pub processes: u32,
    /// What the workspace holds.
    pub workspace_bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_found_by_its_number() {
        let known: Vec<u8> = (0..=u8::MAX)
            .filter(|byte| Kind::try_from(*byte).is_ok())
            .collect();
        assert_eq!(known.len(), 32);
        assert!(
            known
                .iter()
                .all(|byte| Kind::try_from(*byte).unwrap() as u8 == *byte)
        );
    }
}
