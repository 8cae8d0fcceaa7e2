//! What a session's task has to know to go on after its server has died: kept in the store with the events that change it.
//!
//! The log says what happened; this says where the task stands, so that a server that starts does not read a log of a gigabyte to find out. What
//! lies in time is kept as an offset from the start of the running cell, so that a memory that has not changed stays equal.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::checkpoint::HeldCheckpoint;
use crate::model::event::{
    Cause, InterruptReason, Rung, Seq, StartReason, UnixMillis, Unprotected, Verdict,
};
use crate::model::id::{CellId, SandboxId};
use crate::model::note::StateNote;
use crate::protocol::agent::{KernelExit, UsageReport};
use crate::protocol::checkpoints::Target;

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Memory {
    pub(super) kernel: KernelMemory,
    pub(super) execution_count: u32,
    /// The version of Python of the kernel.
    pub(super) python: String,
    pub(super) output: OutputMemory,
    pub(super) running: Option<RunningMemory>,
    /// The comm messages that the kernel was not done with, by the number of the request.
    pub(super) comms: BTreeMap<u64, Seq>,
    /// How far the attempt had come to stop what ran while no cell did.
    pub(super) stopping_between: Option<(InterruptReason, Rung)>,
    /// How long cells that wait may run, in milliseconds, where that is not what they were accepted with.
    pub(super) limits: BTreeMap<CellId, u64>,
    /// How far readers have come. Written with the rest, and no reason to write it.
    pub(super) readers: Vec<(String, Seq)>,
    /// What became of the variables, if no cell has begun since that says so.
    pub(super) note: Option<StateNote>,
    /// The checkpoints that somebody holds.
    pub(super) checkpoints: Vec<HeldCheckpoint>,
    /// Why no checkpoint was made right before the last cell that was not silent.
    pub(super) unprotected: Option<Unprotected>,
}

impl Memory {
    pub(super) fn to_json(&self, readers: Vec<(String, Seq)>) -> String {
        let memory = Self {
            readers,
            ..self.clone()
        };
        serde_json::to_string(&memory).expect("a memory has text keys only")
    }
}

/// What there was of a kernel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub(super) enum KernelMemory {
    /// None yet. The sandbox that was being made for it is nobody's.
    Launching { reason: StartReason },
    /// It waited for cells, or ran one.
    Ready { sandbox: SandboxId },
    /// Another one was being started in its place.
    Restarting {
        sandbox: SandboxId,
        reason: StartReason,
        /// The number under which the agent was asked for it, or was about to be.
        request: u64,
        /// The number of its kernel, once there is one.
        #[serde(default)]
        started: Option<u64>,
        /// What ended the one before, if it was a checkpoint that was being woken.
        #[serde(default)]
        rolls_back: Option<GoingBack>,
    },
    /// None, and nobody was making one.
    Dead { problem: String },
}

/// A checkpoint that is to be the kernel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct GoingBack {
    /// What ended the kernel before.
    #[serde(flatten)]
    pub(super) cause: Cause,
    /// Which one somebody asked for; none if it is the newest, because the kernel was lost.
    #[serde(default)]
    pub(super) asked: Option<Box<Asked>>,
}

/// A checkpoint that somebody wants to go back to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Asked {
    pub(super) target: Target,
    /// What becomes of the variables, once the agent has said that it is there.
    pub(super) state: Option<Verdict>,
    /// How the kernel ended, if it did so before that.
    pub(super) ended: Option<KernelExit>,
}

impl Default for KernelMemory {
    fn default() -> Self {
        Self::Launching {
            reason: StartReason::Opened,
        }
    }
}

impl KernelMemory {
    /// The sandbox that is to be taken over.
    pub(super) fn sandbox(&self) -> Option<SandboxId> {
        match self {
            Self::Ready { sandbox } | Self::Restarting { sandbox, .. } => Some(*sandbox),
            Self::Launching { .. } | Self::Dead { .. } => None,
        }
    }
}

/// What of the output is in no event.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct OutputMemory {
    pub(super) bytes: u64,
    /// The beginnings of characters whose ends have not come.
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: Vec<u8>,
}

/// The cell that ran.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct RunningMemory {
    pub(super) cell: CellId,
    /// The event with which it began.
    #[serde(default)]
    pub(super) begun: Seq,
    pub(super) execution_count: Option<u32>,
    pub(super) started_at_ms: UnixMillis,
    /// For how long its clock has stood still.
    pub(super) paused: Duration,
    pub(super) limit: Duration,
    pub(super) ceiling: Duration,
    pub(super) warned: bool,
    /// Whether it had shown progress since its deadline was last moved.
    #[serde(default)]
    pub(super) progressed: bool,
    pub(super) stopping: Option<StoppingMemory>,
    pub(super) input: Option<InputMemory>,
    /// The `input()` that was answered last, and the number of the answer, which may not have arrived.
    pub(super) answered: Option<(InputMemory, u64)>,
    pub(super) usage: Option<UsageReport>,
}

/// How far the attempt to stop it had come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoppingMemory {
    pub(super) reason: InterruptReason,
    pub(super) rung: Rung,
    /// When the next rung is due, after the start.
    pub(super) next: Duration,
}

/// An `input()` that waited.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct InputMemory {
    pub(super) request: String,
    pub(super) prompt: String,
    pub(super) password: bool,
    /// After the start of the cell.
    pub(super) since: Duration,
    /// After the start of the cell.
    pub(super) until: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_memory_of_an_earlier_version_is_understood() {
        let memory: Memory = serde_json::from_str("{}").unwrap();
        assert_eq!(memory, Memory::default());
        let sandbox = SandboxId::new();
        let json =
            format!(r#"{{"kernel": {{"is": "ready", "sandbox": "{sandbox}"}}, "later": 1}}"#);
        let memory: Memory = serde_json::from_str(&json).unwrap();
        assert_eq!(memory.kernel.sandbox(), Some(sandbox));
        let json = format!(
            r#"{{"kernel": {{"is": "restarting", "sandbox": "{sandbox}", "reason": "rolled_back", "request": 7, "replaces": 0, "rolls_back": {{"kind": "exited", "code": 3}}}}}}"#
        );
        let memory: Memory = serde_json::from_str(&json).unwrap();
        let KernelMemory::Restarting { rolls_back, .. } = memory.kernel else {
            panic!("{memory:?}");
        };
        let cause = Cause::Exited { code: 3 };
        assert_eq!(rolls_back, Some(GoingBack { cause, asked: None }));
    }
}
