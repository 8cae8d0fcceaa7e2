//! What happened to a session, in words.

use std::time::Duration;

use super::Detail;
use crate::config::units::{show_duration, show_size};
use crate::model::checkpoint::DropReason;
use crate::model::event::{
    Cause, CellStatus, EndReason, Event, ExtendReason, InputOutcome, InterruptReason, Rung,
    StartReason, Usage, Verdict,
};

/// An event in words; none where it is shown in another way or needs none.
pub(super) fn of(event: &Event, detail: Detail) -> Option<String> {
    let everything = detail == Detail::Everything;
    match event {
        Event::SessionOpened { session, reopened } if everything => Some(match reopened {
            false => format!("session `{session}` was opened"),
            true => format!(
                "session `{session}` was opened again, with its files and without its variables"
            ),
        }),
        Event::KernelStarted {
            python,
            warm,
            took_ms,
            reason,
            ..
        } if everything => {
            let how = match (reason, warm) {
                (StartReason::RolledBack | StartReason::Undone, _) => "from a checkpoint",
                (_, true) => "from the pool",
                (_, false) => "made anew",
            };
            Some(format!(
                "a kernel is ready: Python {python}, {how}, after {took_ms} ms"
            ))
        }
        Event::KernelFailed { message } => Some(format!("no kernel could be started: {message}")),
        Event::KernelAdopted { .. } => {
            Some("the server was started again; nothing was lost".to_owned())
        }
        Event::KernelLost { cause, state } => Some(format!(
            "the kernel is gone: {}; {}",
            cause_in_words(cause),
            verdict(state)
        )),
        Event::CommHandled {
            error: Some(error), ..
        } if everything => Some(format!("a comm message was not taken: {error}")),
        Event::CheckpointHeld { name, .. } => Some(format!("checkpoint `{name}` is held")),
        Event::CheckpointDropped { name, reason } => {
            Some(format!("checkpoint `{name}` is gone: {}", dropped(*reason)))
        }
        Event::InputClosed { outcome, .. } => match outcome {
            InputOutcome::Answered => None,
            InputOutcome::TimedOut => Some("nobody answered in time".to_owned()),
            InputOutcome::Interrupted => Some("the question was taken back".to_owned()),
        },
        Event::DeadlineWarning { extendable_ms, .. } => Some(format!(
            "the deadline is near; it can be extended by {}",
            duration(*extendable_ms)
        )),
        Event::DeadlineExtended { by_ms, reason, .. } => {
            let why = match reason {
                ExtendReason::Asked => "",
                ExtendReason::Progress => ", since the cell shows progress",
                ExtendReason::Adopted => ", since the server was started again",
            };
            let by = duration(*by_ms);
            Some(format!("the deadline was extended by {by}{why}"))
        }
        Event::MemoryWarning {
            used_bytes,
            limit_bytes,
            ..
        } => Some(format!(
            "memory is nearly used up: {} of {}",
            show_size(*used_bytes),
            show_size(*limit_bytes)
        )),
        Event::Interrupted { cell, reason, rung } => {
            let what = cell.map_or("what runs between cells", |_| "the cell");
            let why = match reason {
                InterruptReason::Requested => "on request",
                InterruptReason::Deadline => "at its deadline",
                InterruptReason::CpuLimit => "since its processor time is used up",
                InterruptReason::OutputLimit => "since it has put out more than it may",
                InterruptReason::ServerStopping => "since the server stops",
            };
            Some(match rung {
                Rung::Sigint => format!("{what} is interrupted {why}"),
                Rung::Cancel => format!("a task of {what} is cancelled {why}"),
                Rung::SecondSigint => format!("{what} is interrupted once more {why}"),
                Rung::Kill => format!("{what} is killed {why}"),
            })
        }
        Event::CellFinished {
            status,
            cause,
            state,
            usage,
            ..
        } => finished(*status, cause.as_ref(), state, usage.as_ref(), detail),
        Event::SessionEnded { reason } => Some(format!(
            "the session has ended: {}",
            match reason {
                EndReason::Deleted => "it was deleted",
                EndReason::Idle => "it was idle for as long as it may be",
                EndReason::ServerStopped => "the server stopped",
                EndReason::Internal => "the server made an error of its own, which is in its log",
            }
        )),
        _ => None,
    }
}

fn finished(
    status: CellStatus,
    cause: Option<&Cause>,
    state: &Verdict,
    usage: Option<&Usage>,
    detail: Detail,
) -> Option<String> {
    let used = usage
        .filter(|_| detail == Detail::Everything)
        .map(used)
        .unwrap_or_default();
    match (status, cause) {
        (CellStatus::Ok, _) => Some(format!("ok{used}")),
        // The traceback has said it.
        (CellStatus::Error, Some(Cause::Exception) | None) => {
            (detail == Detail::Everything).then(|| format!("error{used}"))
        }
        (CellStatus::Error, Some(cause)) => Some(format!(
            "the cell was stopped: {}; {}{used}",
            cause_in_words(cause),
            verdict(state)
        )),
        (CellStatus::Aborted, cause) => Some(match cause {
            Some(cause) => format!("the cell did not run: {}", cause_in_words(cause)),
            None => "the cell did not run".to_owned(),
        }),
    }
}

fn used(usage: &Usage) -> String {
    let memory = usage
        .peak_memory_bytes
        .map(|bytes| format!(", {} at most", show_size(bytes)));
    format!(
        ", {} ({} of processor{})",
        duration(usage.wall_ms),
        duration(usage.cpu_ms),
        memory.unwrap_or_default()
    )
}

fn cause_in_words(cause: &Cause) -> String {
    match cause {
        Cause::Exception => "the code raised an exception".to_owned(),
        Cause::Deadline => "its time was up".to_owned(),
        Cause::Interrupted => "it was interrupted".to_owned(),
        Cause::Cancelled => "it was cancelled".to_owned(),
        Cause::EarlierError => "a cell before it ended with an error".to_owned(),
        Cause::OutOfMemory { limit_bytes, .. } => {
            format!("it needed more than {} of memory", show_size(*limit_bytes))
        }
        Cause::KilledBySignal { name, .. } => format!("the kernel was killed by {name}"),
        Cause::Exited { code } => format!("the kernel's process exited with {code}"),
        Cause::DiskLimit { limit_bytes } => {
            format!("it wrote more than {} to disk", show_size(*limit_bytes))
        }
        Cause::ProcessLimit { limit } => {
            format!("it started more than its {limit} processes and threads")
        }
        Cause::CpuLimit { limit_ms } => {
            format!("it used more than {} of processor", duration(*limit_ms))
        }
        Cause::OutputLimit { limit_bytes } => {
            format!("it put out more than {}", show_size(*limit_bytes))
        }
        Cause::Unresponsive => "the kernel could not be killed".to_owned(),
        Cause::BrokenProtocol { how } => format!("the kernel broke its protocol ({how})"),
        Cause::Restart => "the kernel was restarted".to_owned(),
        Cause::RolledBack { to } => format!("it went back to checkpoint `{to}`"),
        Cause::Undone => "the last cell was undone".to_owned(),
        Cause::NoKernel => "no kernel could be started".to_owned(),
        Cause::SandboxLost => "the sandbox went away".to_owned(),
        Cause::ServerStopped => "the server stopped".to_owned(),
        Cause::SessionEnded => "the session ended".to_owned(),
    }
}

pub(in crate::cli) fn verdict(state: &Verdict) -> String {
    match state {
        Verdict::Kept => "variables are kept".to_owned(),
        Verdict::RolledBack { .. } => "variables are as they were before the cell".to_owned(),
        Verdict::Restored { checkpoint } => {
            format!("variables are as they were in checkpoint `{checkpoint}`")
        }
        Verdict::Lost { why } => format!("variables are lost: {why}"),
    }
}

fn dropped(reason: DropReason) -> &'static str {
    match reason {
        DropReason::Asked => "somebody dropped it",
        DropReason::Memory => "there was no memory for it any more",
        DropReason::ProcessEnded => "its process was killed",
        DropReason::Restarted => "the kernel was restarted",
        DropReason::SandboxLost => "the sandbox went away",
    }
}

fn duration(ms: u64) -> String {
    show_duration(Duration::from_millis(ms))
}
