//! Limits: what a sandbox may use, how long things may take, and how a session's wishes meet the server's ceilings.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One mebibyte, in bytes.
pub const MIB: u64 = 1024 * 1024;

/// What a sandbox may use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Limits {
    /// Memory of all its processes, files in /tmp and /dev/shm included.
    pub memory_bytes: u64,
    /// Processors, in thousandths: 1500 is one and a half.
    pub cpu_millis: u32,
    /// Processes and threads.
    pub processes: u32,
    /// Disk beyond the workspace: /tmp.
    pub disk_bytes: u64,
    /// Disk for the workspace.
    pub workspace_bytes: u64,
    /// Time on the processors of one cell, child processes included; none if only its deadline bounds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cell_cpu_ms: Option<u64>,
    /// What one cell may write and show.
    #[serde(default = "cell_output_bytes")]
    pub cell_output_bytes: u64,
}

/// What a cell may write and show if nobody says otherwise.
fn cell_output_bytes() -> u64 {
    1024 * MIB
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes: 512 * MIB,
            cpu_millis: 2000,
            processes: 128,
            disk_bytes: 100 * MIB,
            workspace_bytes: 2048 * MIB,
            cell_cpu_ms: None,
            cell_output_bytes: cell_output_bytes(),
        }
    }
}

/// How long things may take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Timeouts {
    /// Wall-clock time of a cell, until it is extended.
    pub cell_ms: u64,
    /// Wall-clock time of a cell, with all extensions.
    pub ceiling_ms: u64,
    /// By how much a cell that shows progress is extended when its time is nearly up, as long as the ceiling allows; 0 for not at all.
    #[serde(default)]
    pub extend_on_progress_ms: u64,
    /// How long before the deadline it warns.
    pub warning_ms: u64,
    /// How long `input()` waits for an answer.
    pub input_ms: u64,
    /// How long a session lives after its last cell has ended, or after it was opened.
    pub idle_ms: u64,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            cell_ms: 30_000,
            ceiling_ms: 600_000,
            extend_on_progress_ms: 0,
            warning_ms: 5_000,
            input_ms: 300_000,
            idle_ms: 3_600_000,
        }
    }
}

impl Timeouts {
    /// The least by which progress extends a cell: it bounds how often the log says so.
    pub const LEAST_EXTENSION_MS: u64 = 1000;

    /// Whether a cell can be extended by that much on progress; 0 is not at all.
    pub fn allows_on_progress(ms: u64) -> bool {
        ms == 0 || ms >= Self::LEAST_EXTENSION_MS
    }

    /// How long before a deadline of this length the warning comes: as configured, or a third of a short limit.
    pub fn warning_before(&self, limit: Duration) -> Duration {
        Duration::from_millis(self.warning_ms).min(limit / 3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_limit_warns_a_third_before() {
        let timeouts = Timeouts::default();
        assert_eq!(
            timeouts.warning_before(Duration::from_secs(30)),
            Duration::from_secs(5)
        );
        assert_eq!(
            timeouts.warning_before(Duration::from_secs(3)),
            Duration::from_secs(1)
        );
    }
}
