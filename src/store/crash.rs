//! Places in the write path at which a test can have the process killed. Nothing at all outside of tests.

/// A step of the write path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A transaction has begun.
    Begun,
    /// Large events are in the bulk file, their rows not yet in the database.
    BulkWritten,
    /// Everything is written and nothing committed.
    Written,
    /// It is committed, and nobody knows.
    Committed,
    /// Readers know, who asked does not.
    Published,
    /// A checkpoint begins.
    CheckpointBegins,
    /// A checkpoint is over.
    CheckpointDone,
    /// Trimming is committed, and the bulk file has not given the space back.
    Trimmed,
    /// A deleted session's bulk file is gone, and its last row is not.
    BulkDeleted,
}

/// Passes a step.
#[cfg(not(test))]
#[inline]
pub(super) fn step(_step: Step) {}

#[cfg(test)]
pub(super) use in_tests::{kill_at, step};

#[cfg(test)]
mod in_tests {
    use std::sync::Mutex;

    use super::Step;

    /// At which step, and how often it is passed before.
    static KILL_AT: Mutex<Option<(Step, u32)>> = Mutex::new(None);

    /// Has this process killed when it has passed a step this often.
    pub(in crate::store) fn kill_at(step: Step, times: u32) {
        *KILL_AT.lock().unwrap() = Some((step, times));
    }

    pub(in crate::store) fn step(step: Step) {
        let mut kill_at = KILL_AT.lock().unwrap();
        match kill_at.as_mut() {
            Some((at, 0)) if *at == step => {
                let pid = rustix::process::getpid();
                rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
                // Signals are delivered on the way back from the system call, but a thread may be slow to die.
                loop {
                    std::thread::park();
                }
            }
            Some((at, times)) if *at == step => *times -= 1,
            _ => {}
        }
    }
}
