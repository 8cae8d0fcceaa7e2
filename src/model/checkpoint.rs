//! Checkpoints that somebody holds: how many there are, what they may keep alive, and why one is there no more.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::event::{Seq, UnixMillis};
use super::id::CheckpointName;
use super::limits::MIB;

/// How many checkpoints a session may hold.
pub const MOST_HELD: usize = 8;

/// How much memory the kernel and all its checkpoints may hold together while no cell runs, at most.
const MOST_ROOM: u64 = 1024 * MIB;

/// What a sandbox may use beyond its memory limit, so that no checkpoint makes a cell fail that would have fitted without it.
///
/// It is also what the kernel and all its checkpoints may hold together while no cell runs: whatever a cell then rewrites, there is room for both.
pub fn room(memory_bytes: u64) -> u64 {
    memory_bytes.min(MOST_ROOM)
}

/// Why a checkpoint that was held is there no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DropReason {
    /// Somebody asked for it.
    Asked,
    /// The kernel and its checkpoints together held more memory than they may, and this was the oldest.
    Memory,
    /// Its process has ended: code in the session has killed it.
    ProcessEnded,
    /// The kernel was restarted.
    Restarted,
    /// The sandbox went away.
    SandboxLost,
}

/// A checkpoint that somebody holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HeldCheckpoint {
    /// Its name.
    pub name: CheckpointName,
    /// The event `checkpoint_held` of it.
    pub seq: Seq,
    /// When it was made.
    pub held_at_ms: UnixMillis,
    /// The number of the last counted cell that its variables have seen.
    pub execution_count: u32,
}
