//! What server and agent say to each other about checkpoints: which is wanted, and what became of those that have names.

use serde::{Deserialize, Serialize};

use crate::model::checkpoint::DropReason;
use crate::model::id::CheckpointName;

/// What a kernel goes back to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// The newest checkpoint. The kernel is gone already, or is to go whether or not there is one.
    #[default]
    Newest,
    /// The one from before the last cell that was not silent.
    Undo,
    /// The one that has this name, which it keeps.
    Held(CheckpointName),
}

/// The payload of [`super::agent::Kind::Hold`] and [`super::agent::Kind::Release`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// The checkpoint's name.
    pub name: CheckpointName,
}

/// What becomes of checkpoints with names when a new kernel begins: the payload of [`super::agent::Kind::StartKernel`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeldOnes {
    /// They end too: somebody wants to begin anew.
    #[default]
    End,
    /// They stay: the kernel was lost, and they are what is left of it.
    Stay,
}

/// What became of a checkpoint, or of the wish for one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointReport {
    /// The number of the request that asked for it, if one did.
    #[serde(default)]
    pub request: Option<u64>,
    /// What became of it.
    pub fate: Fate,
}

/// See [`CheckpointReport`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// It is there, under this name; one that had the name before is not.
    Held(CheckpointName),
    /// It is not there any more.
    Dropped {
        /// Its name.
        name: CheckpointName,
        /// Why.
        reason: DropReason,
    },
    /// The kernel is being replaced by it; here with the cell that came after it, where that is known.
    Chosen(Option<String>),
    /// The wish was not granted, and nothing has changed.
    Refused(Refusal),
}

/// Why a wish is not granted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// No cell has run since the kernel began, or since it went back.
    NothingRan,
    /// No checkpoint was made right before the last cell.
    NotMade,
    /// There was one, but no memory for it.
    Memory,
    /// It went wrong; this says how.
    Failed(String),
}
