//! How the time of a cell is moved, and how a cell is stopped.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Why a deadline was moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ExtendReason {
    /// Somebody asked for it.
    #[default]
    Asked,
    /// The cell had shown progress since the last time, and is to be extended for that.
    Progress,
    /// The server had died before the kernel heard of the cell: its time begins anew.
    Adopted,
}

/// Why a running cell is being stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum InterruptReason {
    /// Somebody asked for it.
    Requested,
    /// The deadline struck.
    Deadline,
    /// Its time on the processors is used up.
    CpuLimit,
    /// It has written and shown more than it may.
    OutputLimit,
    /// The server is stopping.
    ServerStopping,
}

/// By what means a running cell is being stopped, from gentle to final.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Rung {
    /// `KeyboardInterrupt`, by SIGINT.
    Sigint,
    /// The task of a cell that awaits is cancelled, and SIGINT is taken back from code that ignores or handles it.
    Cancel,
    /// `KeyboardInterrupt` once more.
    SecondSigint,
    /// The kernel's process is killed.
    Kill,
}
