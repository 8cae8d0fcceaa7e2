//! What Jupyter has no message for, in words: they are shown as text on standard error.

use crate::model::event::{Cause, Event, InterruptReason, Rung, Verdict};
use crate::model::output::ErrorOutput;

/// An event that a reader of the cell should know of; none where there is nothing to say.
pub(crate) fn of(event: &Event) -> Option<String> {
    match event {
        Event::DeadlineWarning { extendable_ms, .. } => Some(format!(
            "this cell is stopped soon: its time is nearly up (it can be extended by {} s)",
            extendable_ms / 1000
        )),
        Event::MemoryWarning {
            used_bytes,
            limit_bytes,
            ..
        } => Some(format!(
            "memory is nearly used up: {} of {} MiB",
            used_bytes >> 20,
            limit_bytes >> 20
        )),
        Event::Interrupted { cell, reason, rung } => stopped(cell.is_some(), *reason, *rung),
        _ => None,
    }
}

fn stopped(is_cell: bool, reason: InterruptReason, rung: Rung) -> Option<String> {
    let what = if is_cell {
        "the cell"
    } else {
        "what runs between cells"
    };
    let why = match (reason, rung) {
        // Nothing was tried before.
        (InterruptReason::OutputLimit, Rung::Kill) if !is_cell => "it has put out more than it may",
        (_, Rung::Kill) => return Some(format!("{what} did not stop, and is killed")),
        // Whoever asked for it knows.
        (InterruptReason::Requested, _) | (_, Rung::SecondSigint) => return None,
        (InterruptReason::Deadline, _) => "its time is up",
        (InterruptReason::CpuLimit, _) => "its processor time is used up",
        (InterruptReason::OutputLimit, _) => "it has put out more than it may",
        (InterruptReason::ServerStopping, _) => "the server is stopping",
    };
    Some(format!("{what} is stopped: {why}"))
}

/// That no kernel could be started.
pub(crate) fn no_kernel(message: &str) -> String {
    format!("no kernel could be started: {message}")
}

/// Which cell a checkpoint was made before, as the reader of another one knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Before {
    /// The one that is being read.
    This,
    /// An earlier one, by its number.
    Numbered(u32),
    /// An earlier one, of which no more is known.
    Earlier,
}

/// How a kernel was lost, and what that means for the variables.
pub(crate) fn loss(cause: &Cause, state: &Verdict, before: Before) -> String {
    let how = ended(cause);
    match state {
        Verdict::Kept => format!("{how}; all variables are kept"),
        Verdict::RolledBack { .. } => {
            let to = match before {
                Before::This => "before this cell".to_owned(),
                Before::Numbered(number) => {
                    format!("before cell [{number}]: what it and later ones did to them is undone")
                }
                Before::Earlier => {
                    "before an earlier cell: what later ones did to them is undone".to_owned()
                }
            };
            format!("{how}; variables are as they were {to}; files are as they are")
        }
        Verdict::Restored { checkpoint } => {
            format!("{how}; variables are as they were when checkpoint `{checkpoint}` was held")
        }
        Verdict::Lost { why } => format!("{how}; all variables are lost ({why}), files are kept"),
    }
}

fn ended(cause: &Cause) -> String {
    match cause {
        Cause::OutOfMemory { limit_bytes, .. } => format!(
            "the kernel needed more than its {} MiB of memory and was ended",
            limit_bytes >> 20
        ),
        Cause::KilledBySignal { name, .. } => format!("the kernel was ended by {name}"),
        Cause::Exited { code } => format!("the kernel's process exited with code {code}"),
        Cause::DiskLimit { limit_bytes } => format!(
            "more than {} MiB were written to disk, and the kernel was ended",
            limit_bytes >> 20
        ),
        Cause::ProcessLimit { limit } => format!(
            "more than {limit} processes and threads were started, and the kernel was ended"
        ),
        Cause::Deadline => {
            "what ran did not stop at its deadline, and the kernel was ended".to_owned()
        }
        Cause::CpuLimit { .. } => {
            "the cell did not stop when its processor time was used up, and the kernel was ended"
                .to_owned()
        }
        Cause::OutputLimit { .. } => {
            "more was put out than may be, and the kernel was ended".to_owned()
        }
        Cause::Interrupted => {
            "what ran did not stop when interrupted, and the kernel was ended".to_owned()
        }
        Cause::Restart => "the kernel was restarted".to_owned(),
        Cause::RolledBack { .. } => "somebody went back to a checkpoint".to_owned(),
        Cause::Undone => "somebody undid the last cell".to_owned(),
        Cause::SandboxLost => "the kernel's sandbox went away".to_owned(),
        Cause::ServerStopped => "the server was stopped".to_owned(),
        Cause::NoKernel => "there is no kernel".to_owned(),
        Cause::SessionEnded => "the session has ended".to_owned(),
        _ => "the kernel is gone".to_owned(),
    }
}

/// A bad end that was no exception, as one.
pub(crate) fn as_error(cause: &Cause, state: &Verdict, before: Before) -> ErrorOutput {
    let ename = match cause {
        Cause::OutOfMemory { .. } => "OutOfMemory",
        Cause::Deadline => "DeadlineExceeded",
        Cause::CpuLimit { .. } => "CpuLimitExceeded",
        Cause::OutputLimit { .. } => "OutputLimitExceeded",
        Cause::DiskLimit { .. } => "DiskLimitExceeded",
        Cause::ProcessLimit { .. } => "ProcessLimitExceeded",
        Cause::Restart | Cause::RolledBack { .. } | Cause::Undone => "KernelRestarted",
        Cause::NoKernel => "NoKernel",
        Cause::Interrupted => "KeyboardInterrupt",
        _ => "KernelDied",
    };
    let evalue = match state {
        Verdict::Kept => ended(cause),
        state => loss(cause, state, before),
    };
    ErrorOutput {
        ename: ename.to_owned(),
        traceback: vec![format!("{ename}: {evalue}")],
        evalue,
    }
}
