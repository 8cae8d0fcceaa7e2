//! What the outside sees of a session at a moment. Published by its task; never asked for.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::model::checkpoint::HeldCheckpoint;
use crate::model::event::{Seq, UnixMillis};
use crate::model::id::{CellId, SessionId};
use crate::model::note::StateNote;
use crate::model::settings::Settings;

/// A session at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionView {
    /// Its id.
    pub id: SessionId,
    /// What its kernel is doing.
    pub status: Status,
    /// When it was opened.
    pub opened_at_ms: UnixMillis,
    /// When its last cell ended, or it was opened.
    pub active_at_ms: UnixMillis,
    /// When it will be ended for idleness, unless something happens; none while a cell runs or waits.
    pub idle_end_at_ms: Option<UnixMillis>,
    /// What it was given.
    pub settings: Settings,
    /// Which log it has.
    pub log: Arc<str>,
    /// The last position of its log.
    pub head: Seq,
    /// The first position of its log that is still there.
    pub first: Seq,
    /// The number that the next cell will have, less one.
    pub execution_count: u32,
    /// The version of Python of the kernel that is there, or was there last; empty before the first.
    pub python: String,
    /// The cell that runs.
    pub running: Option<RunningView>,
    /// The cells that wait, in order.
    pub queued: Vec<CellId>,
    /// The checkpoints that somebody holds, the oldest first.
    pub checkpoints: Vec<HeldCheckpoint>,
    /// Why there is no kernel, where there is none.
    pub problem: Option<String>,
    /// What became of the variables, until a cell has begun that says so.
    pub state_note: Option<StateNote>,
}

/// What a session's kernel is doing, in Jupyter's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// A kernel is being made. Cells are accepted and wait.
    Starting,
    /// It waits for a cell.
    Idle,
    /// It runs a cell.
    Busy,
    /// It is being replaced. Cells are accepted and wait.
    Restarting,
    /// There is none; the next cell or a restart tries again.
    Dead,
    /// The session is over.
    Ended,
}

/// The cell that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunningView {
    /// The cell.
    pub cell: CellId,
    /// The event with which it began.
    pub begun: Seq,
    /// Since when.
    pub started_at_ms: UnixMillis,
    /// When it will be stopped.
    pub deadline_at_ms: UnixMillis,
    /// The latest instant to which that can be moved.
    pub ceiling_at_ms: UnixMillis,
    /// The `input()` that waits for an answer.
    pub input: Option<InputView>,
}

/// An `input()` that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputView {
    /// To be named in the answer.
    pub request: String,
    /// What the user is shown.
    pub prompt: String,
    /// Whether what is typed must not be shown.
    pub password: bool,
    /// When the wait ends.
    pub deadline_at_ms: UnixMillis,
}
