//! What a session repeats about its variables, so that whoever comes next cannot miss it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::event::{Cause, Seq, Verdict};

/// The variables were rolled back or lost. Said again with the first cell that begins after that, and until then whenever the session is looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StateNote {
    /// What became of the variables.
    #[serde(flatten)]
    pub state: Verdict,
    /// What ended the kernel.
    pub cause: Cause,
    /// The event `kernel_lost` that says so.
    pub at_seq: Seq,
}
