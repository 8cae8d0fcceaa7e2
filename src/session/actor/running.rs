//! The cell that runs: its deadline, what it waits for, and how far the attempt to stop it has come.

use std::time::Duration;

use tokio::time::Instant;

use crate::model::event::{InterruptReason, Protection, Rung, Seq, UnixMillis, Unprotected, Usage};
use crate::model::id::CellId;
use crate::model::limits::Timeouts;
use crate::protocol::agent::UsageReport;
use crate::session::clock::{at_ms, instant_of, millis};
use crate::session::command::{CellRequest, Deadlines};
use crate::session::deadline::Deadline;
use crate::session::memory::{InputMemory, RunningMemory, StoppingMemory};
use crate::session::view::{InputView, RunningView};

/// How long code may take to react to a SIGINT before the next rung.
const GRACE: Duration = Duration::from_secs(2);
/// How long it may take on each rung after that, before it is killed.
const GRACE_AGAIN: Duration = Duration::from_secs(1);
/// How long the agent may take to kill a kernel before the sandbox is given up.
const KILL_LIMIT: Duration = Duration::from_secs(5);

/// A cell that runs.
#[derive(Debug)]
pub(in crate::session) struct Running {
    pub(super) cell: CellId,
    pub(super) request: CellRequest,
    /// The event by which it was accepted: by it its execution is numbered.
    pub(super) queued: Seq,
    /// The event with which it began.
    pub(super) begun: Seq,
    pub(super) execution_count: Option<u32>,
    pub(super) started: Instant,
    pub(super) started_at_ms: UnixMillis,
    pub(super) deadline: Deadline,
    /// By how much progress extends it, if at all.
    pub(super) on_progress: Option<Duration>,
    /// Whether it has shown any since its deadline was last moved. Only noted where it matters.
    pub(super) progressed: bool,
    /// The id under which the kernel was asked to run it; none until its start is in the log.
    pub(super) request_id: Option<u64>,
    pub(super) stopping: Option<Stopping>,
    pub(super) input: Option<InputWait>,
    /// The `input()` that was answered last, and the number of the request that carries the answer.
    pub(super) answered: Option<(InputWait, u64)>,
    pub(super) usage: Option<UsageReport>,
}

/// An attempt to stop what runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stopping {
    pub(super) reason: InterruptReason,
    pub(super) rung: Rung,
    /// When the next rung is due.
    pub(super) next: Instant,
}

impl Stopping {
    /// An attempt that has come to this rung now.
    pub(super) fn at(reason: InterruptReason, rung: Rung) -> Self {
        let wait = match rung {
            Rung::Sigint => GRACE,
            Rung::Cancel | Rung::SecondSigint => GRACE_AGAIN,
            Rung::Kill => KILL_LIMIT,
        };
        Self {
            reason,
            rung,
            next: Instant::now() + wait,
        }
    }

    /// Goes on to the next rung, if there is one.
    pub(super) fn climb(&mut self) -> Option<Rung> {
        let rung = match self.rung {
            Rung::Sigint => Rung::Cancel,
            Rung::Cancel => Rung::SecondSigint,
            Rung::SecondSigint => Rung::Kill,
            Rung::Kill => return None,
        };
        *self = Self::at(self.reason, rung);
        Some(rung)
    }
}

/// An `input()` that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct InputWait {
    pub(super) request: String,
    pub(super) prompt: String,
    pub(super) password: bool,
    pub(super) since: Instant,
    pub(super) until: Instant,
}

impl Running {
    /// When time will have something to say about it.
    pub(super) fn next_due(&self) -> Instant {
        match (&self.stopping, &self.input) {
            (Some(stopping), _) => stopping.next,
            // The deadline stands still while the user is asked.
            (None, Some(input)) => input.until,
            (None, None) => self.deadline.next(),
        }
    }

    /// By how much progress is to extend a cell: as it asks, else as its session does.
    pub(super) fn on_progress(request: &CellRequest, timeouts: &Timeouts) -> Option<Duration> {
        let session = Duration::from_millis(timeouts.extend_on_progress_ms);
        let asked = request.extend_on_progress.unwrap_or(session);
        (!asked.is_zero()).then_some(asked)
    }

    /// Takes note that it has shown something. For a flood of it this is one store.
    pub(super) fn show_progress(&mut self) {
        self.progressed = self.on_progress.is_some();
    }

    /// Moves its deadline if that or its warning is due, it has shown progress since the last time, and the ceiling leaves something. Returns by how much.
    pub(super) fn extend_on_progress(&mut self, now: Instant) -> Option<Duration> {
        let is_due = self.progressed && self.deadline.next() <= now;
        let step = self.on_progress.filter(|_| is_due)?;
        let by = self.deadline.extend_on_progress(step, now)?;
        self.progressed = false;
        Some(by)
    }

    pub(super) fn deadlines(&self) -> Deadlines {
        Deadlines {
            cell: self.cell,
            limit: self.deadline.limit(),
            ceiling: self.deadline.ceiling(),
            deadline_at_ms: Some(at_ms(self.deadline.at())),
            extendable: self.deadline.extendable(),
        }
    }

    /// What it has used: as the agent measured it, else by our own clock.
    pub(super) fn usage(&self, output_bytes: u64) -> Usage {
        let own = UsageReport {
            wall_us: micros(self.started.elapsed()),
            ..UsageReport::default()
        };
        let report = self.usage.as_ref().unwrap_or(&own);
        Usage {
            wall_ms: report.wall_us.div_ceil(1000),
            cpu_ms: report.cpu_us.div_ceil(1000),
            peak_memory_bytes: report.peak_memory_bytes,
            output_bytes,
        }
    }

    /// Whether there was a checkpoint behind it: as the agent saw it, else for the reason that the kernel gives.
    pub(super) fn protection(&self, unprotected: Option<Unprotected>) -> Protection {
        self.usage
            .as_ref()
            .and_then(|usage| usage.checkpoint.as_deref()?.parse().ok())
            .map_or_else(
                || Protection::Unprotected(unprotected.unwrap_or_default()),
                Protection::Before,
            )
    }

    /// What another server has to know of it.
    pub(super) fn memory(&self) -> RunningMemory {
        let input = |input: &InputWait| InputMemory {
            request: input.request.clone(),
            prompt: input.prompt.clone(),
            password: input.password,
            since: input.since - self.started,
            until: input.until - self.started,
        };
        RunningMemory {
            cell: self.cell,
            begun: self.begun,
            execution_count: self.execution_count,
            started_at_ms: self.started_at_ms,
            paused: self.deadline.started() - self.started,
            limit: self.deadline.limit(),
            ceiling: self.deadline.ceiling(),
            warned: self.deadline.is_warned(),
            progressed: self.progressed,
            stopping: self.stopping.map(|stopping| StoppingMemory {
                reason: stopping.reason,
                rung: stopping.rung,
                next: stopping.next - self.started,
            }),
            input: self.input.as_ref().map(input),
            answered: self
                .answered
                .as_ref()
                .map(|(answered, number)| (input(answered), *number)),
            usage: self.usage.clone(),
        }
    }

    /// The cell that another server ran: its clock went on meanwhile.
    pub(super) fn restored(
        memory: RunningMemory,
        queued: Seq,
        request: CellRequest,
        timeouts: &Timeouts,
    ) -> Self {
        let started = instant_of(memory.started_at_ms);
        let mut deadline = Deadline::new(
            started + memory.paused,
            memory.limit,
            memory.ceiling,
            timeouts.warning_before(memory.limit),
        );
        if memory.warned {
            deadline.forget_warning();
        }
        let input = |input: InputMemory| InputWait {
            request: input.request,
            prompt: input.prompt,
            password: input.password,
            since: started + input.since,
            until: started + input.until,
        };
        Self {
            cell: memory.cell,
            on_progress: Self::on_progress(&request, timeouts),
            progressed: memory.progressed,
            request,
            queued,
            begun: memory.begun,
            execution_count: memory.execution_count,
            started,
            started_at_ms: memory.started_at_ms,
            deadline,
            request_id: None,
            stopping: memory.stopping.map(|stopping| Stopping {
                reason: stopping.reason,
                rung: stopping.rung,
                next: started + stopping.next,
            }),
            input: memory.input.map(input),
            answered: memory
                .answered
                .map(|(answered, number)| (input(answered), number)),
            usage: memory.usage,
        }
    }

    pub(super) fn view(&self) -> RunningView {
        RunningView {
            cell: self.cell,
            begun: self.begun,
            started_at_ms: self.started_at_ms,
            // From the start, not from now: a view that has not changed stays equal.
            deadline_at_ms: self.started_at_ms + millis(self.deadline.at() - self.started),
            ceiling_at_ms: self.started_at_ms + millis(self.deadline.ceiling_at() - self.started),
            input: self.input.as_ref().map(|input| InputView {
                request: input.request.clone(),
                prompt: input.prompt.clone(),
                password: input.password,
                deadline_at_ms: self.started_at_ms + millis(input.until - self.started),
            }),
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
