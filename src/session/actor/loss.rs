//! How a session loses its kernel, what it says of the variables then, and what it goes on with.

use std::time::Duration;

use super::Actor;
use super::kernel::KernelState;
use super::running::Running;
use crate::model::event::{Cause, Event, InterruptReason, StartReason, Verdict};
use crate::model::note::StateNote;
use crate::model::output::ErrorOutput;
use crate::protocol::agent::{Checkpoint, KernelExit, WatchedLimit};
use crate::session::command::Denied;
use crate::session::memory::GoingBack;

/// The number of the signal that a kernel is killed with; see signal(7).
const SIGKILL: i32 = 9;
/// A kernel that dies sooner than this without having run a cell would only die again.
const TOO_SOON: Duration = Duration::from_secs(5);

impl Actor {
    /// The kernel's process is gone.
    pub(super) fn kernel_exited(&mut self, exit: &KernelExit) {
        let KernelState::Ready { since, used, .. } = &self.kernel else {
            // The one that a restart has ended, or one that died while it was being started.
            return self.exited_while_starting(exit);
        };
        let (used, age) = (*used, since.elapsed());
        let cause = self.cause_of(exit);
        // What floods between cells would go on to in a checkpoint.
        let storm = !used && (age < TOO_SOON || matches!(cause, Cause::OutputLimit { .. }));
        let why = describe(&cause);
        if storm {
            self.lose(&cause, &why);
            self.abandon();
            self.no_kernel(format!("the kernel ended before it was used: {why}"));
        } else if let Some(state) = exit.checkpoint.as_ref().and_then(rolled_back_to) {
            self.lose_kernel(&cause, &why, state);
            let going_back = GoingBack { cause, asked: None };
            self.replace_kernel(StartReason::RolledBack, Some(going_back));
        } else {
            self.lose(&cause, &why);
            self.replace_kernel(StartReason::Recovered, None);
        }
    }

    /// The checkpoint that was to take the kernel's place cannot: a new kernel does, with nothing.
    pub(super) fn rollback_failed(&mut self, why: &str) {
        let KernelState::Restarting {
            rolls_back: Some(GoingBack { cause, .. }),
            ..
        } = &mut self.kernel
        else {
            return;
        };
        let cause = cause.clone();
        self.deny_waiting(&Denied::NoKernel(why.to_owned()));
        let reason = self.rollback_lost(cause, why);
        self.replace_kernel(reason, None);
    }

    /// Takes back in the log what was said of a checkpoint that is not there. Returns why the next kernel is started.
    pub(super) fn rollback_lost(&mut self, cause: Cause, why: &str) -> StartReason {
        tracing::warn!(session.id = %self.id, why, "a checkpoint could not be woken");
        let why = format!(
            "{}, and its checkpoint did not wake: {why}",
            describe(&cause)
        );
        self.tell_loss(cause, Verdict::Lost { why });
        StartReason::Recovered
    }

    /// A kernel has ended while one was being started: one that is replaced, or the new one.
    fn exited_while_starting(&mut self, exit: &KernelExit) {
        let KernelState::Restarting {
            started,
            rolls_back,
            ..
        } = &mut self.kernel
        else {
            return;
        };
        if *started != Some(exit.kernel) {
            if let Some(GoingBack {
                asked: Some(asked), ..
            }) = rolls_back
                && asked.state.is_none()
            {
                asked.ended = Some(exit.clone());
            }
            return;
        }
        if rolls_back.is_some() {
            let why = describe(&self.cause_of(exit));
            return self.rollback_failed(&why);
        }
        // A new one would only end the same way. The next cell or a restart tries again, in a new sandbox with the same files.
        let problem = format!(
            "the kernel did not start: {}",
            describe(&self.cause_of(exit))
        );
        self.abandon();
        self.no_kernel(problem);
    }

    fn cause_of(&self, exit: &KernelExit) -> Cause {
        let limits = &self.settings.limits;
        if exit.limit == Some(WatchedLimit::Disk) {
            return Cause::DiskLimit {
                limit_bytes: limits.workspace_bytes,
            };
        }
        if exit.limit == Some(WatchedLimit::Processes) {
            return Cause::ProcessLimit {
                limit: limits.processes,
            };
        }
        if let Some(how) = &exit.violation {
            return Cause::BrokenProtocol { how: how.clone() };
        }
        if exit.out_of_memory || exit.limit == Some(WatchedLimit::Memory) {
            return Cause::OutOfMemory {
                limit_bytes: limits.memory_bytes,
                peak_bytes: exit.peak_memory_bytes,
                asked_bytes: None,
            };
        }
        match self.stopping() {
            Some(stopping) if exit.signal == Some(SIGKILL) => self.cause_of_stop(stopping.reason),
            _ => match (exit.signal, exit.code) {
                (Some(signal), _) => Cause::KilledBySignal {
                    signal,
                    name: signal_name(signal),
                },
                (None, code) => Cause::Exited {
                    code: code.unwrap_or(-1),
                },
            },
        }
    }

    /// What ended a cell that was stopped for that reason.
    pub(super) fn cause_of_stop(&self, reason: InterruptReason) -> Cause {
        let limits = &self.settings.limits;
        match reason {
            InterruptReason::Requested => Cause::Interrupted,
            InterruptReason::Deadline => Cause::Deadline,
            InterruptReason::CpuLimit => Cause::CpuLimit {
                limit_ms: limits.cell_cpu_ms.unwrap_or_default(),
            },
            InterruptReason::OutputLimit => Cause::OutputLimit {
                limit_bytes: limits.cell_output_bytes,
            },
            InterruptReason::ServerStopping => Cause::ServerStopped,
        }
    }

    /// What is behind an exception: a limit, where it says so in words that nothing else says.
    pub(super) fn cause_of_error(&self, error: Option<&ErrorOutput>, running: &Running) -> Cause {
        let limits = &self.settings.limits;
        let Some(error) = error else {
            return Cause::Exception;
        };
        if let Some(asked_bytes) = asked_bytes(error) {
            return Cause::OutOfMemory {
                limit_bytes: limits.memory_bytes,
                peak_bytes: running.usage(0).peak_memory_bytes,
                asked_bytes: Some(asked_bytes),
            };
        }
        match (error.ename.as_str(), error.evalue.as_str()) {
            // EFBIG: files may not grow while the workspace is over its quota.
            ("OSError", text) if text.starts_with("[Errno 27]") => Cause::DiskLimit {
                limit_bytes: limits.workspace_bytes,
            },
            // A fork that is refused says no more than EAGAIN, as many other things do.
            ("RuntimeError", "can't start new thread") => Cause::ProcessLimit {
                limit: limits.processes,
            },
            _ => Cause::Exception,
        }
    }

    /// The variables are gone: says so for the running cell, and for the session.
    pub(super) fn lose(&mut self, cause: &Cause, why: &str) {
        let state = Verdict::Lost {
            why: why.to_owned(),
        };
        self.lose_kernel(cause, why, state);
    }

    /// The kernel is gone, and the variables are what the verdict says.
    fn lose_kernel(&mut self, cause: &Cause, why: &str, state: Verdict) {
        self.finish_dead(cause, state.clone());
        self.abort_queue(&Cause::EarlierError);
        self.deny_waiting(&Denied::NoKernel(why.to_owned()));
        self.tell_loss(cause.clone(), state);
    }

    /// Says in the log that a kernel is gone, and has it repeated if variables went with it.
    fn tell_loss(&mut self, cause: Cause, state: Verdict) {
        let at_seq = self.next_seq();
        let is_lost = |state: &Verdict| matches!(state, Verdict::Lost { .. });
        let hides_worse = self.note.as_ref().is_some_and(|note| is_lost(&note.state));
        if is_lost(&state) || (state != Verdict::Kept && !hides_worse) {
            self.note = Some(StateNote {
                state: state.clone(),
                cause: cause.clone(),
                at_seq,
            });
        }
        self.pending.push(Event::KernelLost { cause, state });
    }

    /// The agent is gone, and the sandbox with it.
    pub(super) fn sandbox_lost(&mut self, why: &str) {
        if self.kernel.connected().is_none() {
            return;
        }
        tracing::warn!(session.id = %self.id, why, "a sandbox was lost");
        self.give_up_sandbox(&Cause::SandboxLost, "the sandbox went away");
    }

    /// Lets go of the sandbox and makes another one. The variables are gone.
    pub(super) fn give_up_sandbox(&mut self, cause: &Cause, why: &str) {
        self.lose(cause, why);
        self.abandon();
        self.launch(StartReason::Recovered);
    }
}

/// What the variables are in a checkpoint; none if that cannot be said.
fn rolled_back_to(checkpoint: &Checkpoint) -> Option<Verdict> {
    let Some(before) = &checkpoint.before else {
        // No cell has begun since it was made.
        return Some(Verdict::Kept);
    };
    let before = before.parse().ok()?;
    Some(Verdict::RolledBack { before })
}

/// How much memory was asked for when it was refused, as NumPy says it: `Unable to allocate 8.00 GiB for an array …`.
fn asked_bytes(error: &ErrorOutput) -> Option<u64> {
    if error.ename != "MemoryError" {
        return None;
    }
    let text = error.evalue.strip_prefix("Unable to allocate ")?;
    let mut words = text.split(' ');
    let number: f64 = words.next()?.parse().ok()?;
    let units = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let unit = words.next()?;
    let power = units.iter().position(|known| *known == unit)?;
    let bytes = number * 1024_f64.powi(i32::try_from(power).ok()?);
    (bytes.is_finite() && bytes >= 0.0).then_some(bytes as u64)
}

/// What ended a kernel, in words.
fn describe(cause: &Cause) -> String {
    match cause {
        Cause::OutOfMemory { limit_bytes, .. } => {
            format!(
                "the kernel was killed: it needed more than its {} MiB of memory",
                limit_bytes >> 20
            )
        }
        Cause::DiskLimit { limit_bytes } => {
            format!(
                "the kernel was killed: it wrote more than its {} MiB to the workspace",
                limit_bytes >> 20
            )
        }
        Cause::ProcessLimit { limit } => {
            format!("the kernel was killed: it started more than its {limit} processes and threads")
        }
        Cause::BrokenProtocol { how } => {
            format!("the kernel was killed: it broke its protocol ({how})")
        }
        Cause::KilledBySignal { name, .. } => format!("the kernel was killed by {name}"),
        Cause::Exited { code } => format!("the kernel's process exited with code {code}"),
        Cause::Deadline => {
            "the kernel was killed: what ran did not stop at its deadline".to_owned()
        }
        Cause::CpuLimit { .. } => {
            "the kernel was killed: the cell did not stop when its processor time was used up"
                .to_owned()
        }
        Cause::OutputLimit { .. } => {
            "the kernel was killed: it had put out more than it may, and did not stop".to_owned()
        }
        Cause::Interrupted => {
            "the kernel was killed: what ran did not stop when it was interrupted".to_owned()
        }
        Cause::RolledBack { to } => format!("the kernel was to go back to checkpoint `{to}`"),
        Cause::Undone => "the last cell was to be undone".to_owned(),
        _ => "the kernel is gone".to_owned(),
    }
}

/// The names of the signals that end processes, as in signal(7). The numbers are those of all architectures that we run on.
fn signal_name(signal: i32) -> String {
    let name = match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        5 => "SIGTRAP",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        14 => "SIGALRM",
        15 => "SIGTERM",
        24 => "SIGXCPU",
        25 => "SIGXFSZ",
        31 => "SIGSYS",
        other => return format!("signal {other}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_numpy_was_refused_is_read_from_what_it_says() {
        let asked = |ename: &str, evalue: &str| {
            asked_bytes(&ErrorOutput {
                ename: ename.to_owned(),
                evalue: evalue.to_owned(),
                traceback: vec![],
            })
        };
        let text = "Unable to allocate 8.50 GiB for an array with shape (1,) and data type float64";
        assert_eq!(asked("MemoryError", text), Some(17 << 29));
        assert_eq!(asked("ValueError", text), None);
        for odd in [
            "",
            "Unable to allocate",
            "Unable to allocate NaN GiB",
            "Unable to allocate 1 GB",
            "Unable to allocate -1 MiB",
        ] {
            assert_eq!(asked("MemoryError", odd), None, "{odd}");
        }
    }
}
