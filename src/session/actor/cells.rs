//! What happens to cells: they begin, show things, ask, are stopped, and end.

use std::time::Duration;

use tokio::time::Instant;

use super::Actor;
use super::acts::Act;
use super::commands::extended;
use super::running::{InputWait, Running, Stopping};
use crate::model::event::{
    Cause, CellStatus, Envelope, Event, ExtendReason, InputOutcome, InterruptReason, Protection,
    Rung, Seq, Verdict,
};
use crate::model::id::CellId;
use crate::model::output::VariableChanges;
use crate::protocol::kernel::{
    Execute, ExecuteReply, Message, NumberedReply, ReplyStatus, Request,
};
use crate::session::clock::{at_ms, millis, unix_ms};
use crate::session::command::{CellRequest, Denied, SessionError};
use crate::session::deadline::Deadline;
use crate::session::queue::Waiting;

impl Actor {
    /// Lets the first waiting cell begin, if the kernel is free. It is sent once that is in the log.
    pub(super) fn begin_next(&mut self) {
        if !self.can_begin() {
            return;
        }
        let Some(waiting) = self.queue.pop() else {
            return;
        };
        let (running, event) = self.begin(waiting, self.next_seq());
        self.note.take_if(|_| tells(&running.request));
        self.running = Some(running);
        self.output.bytes = 0;
        self.pending.push(event);
    }

    /// Whether a cell that comes now begins now.
    pub(super) fn can_begin(&self) -> bool {
        self.running.is_none() && self.kernel.is_ready() && self.is_free()
    }

    /// What a cell is when it begins, and the event that says so, which will stand there.
    pub(super) fn begin(&self, waiting: Waiting, begun: Seq) -> (Running, Event) {
        let Waiting {
            cell,
            request,
            queued,
            limit,
        } = waiting;
        let timeouts = &self.settings.timeouts;
        let now = Instant::now();
        let ceiling = Duration::from_millis(timeouts.ceiling_ms);
        let deadline = Deadline::new(now, limit, ceiling, timeouts.warning_before(limit));
        let counts = request.store_history && !request.silent;
        let execution_count = counts.then_some(self.execution_count + 1);
        let event = Event::CellStarted {
            cell,
            execution_count,
            deadline_at_ms: at_ms(deadline.at()),
            ceiling_at_ms: at_ms(deadline.ceiling_at()),
            state_note: self.note.clone(),
        };
        let running = Running {
            cell,
            on_progress: Running::on_progress(&request, timeouts),
            progressed: false,
            request,
            queued,
            begun,
            execution_count,
            started: now,
            started_at_ms: unix_ms(),
            deadline,
            request_id: None,
            stopping: None,
            input: None,
            answered: None,
            usage: None,
        };
        (running, event)
    }

    /// Sends the cell that has begun to the kernel, if that was not done yet.
    pub(super) fn send_cell(&mut self) {
        let Some(running) = self
            .running
            .as_mut()
            .filter(|running| running.request_id.is_none())
        else {
            return;
        };
        let Some(kernel) = self.kernel.connected() else {
            return;
        };
        let request = &running.request;
        let execute = Execute {
            cell: running.cell.to_string(),
            code: request.code.clone(),
            silent: request.silent,
            store_history: request.store_history,
            allow_stdin: request.allow_stdin,
            user_expressions: request.user_expressions.clone(),
            client: request.client.clone(),
        };
        match kernel.execute(running.queued, execute) {
            Ok(id) => {
                running.request_id = Some(id);
                self.kernel.mark_used();
            }
            // The connection's end comes as an event of its own.
            Err(error) => tracing::debug!(error = %error, "a cell could not be sent"),
        }
    }

    /// A message of the kernel that is not about its own life.
    pub(super) fn message(&mut self, message: Message, buffers: &[bytes::Bytes], bytes: u64) {
        let cell = self.showing();
        self.output.flush(&mut self.pending, cell);
        self.output.bytes += bytes;
        if let Message::InputRequest {
            request,
            prompt,
            password,
        } = message
        {
            return self.input_requested(request, prompt, password);
        }
        if let Some(event) = self.output.message(cell, message, buffers) {
            self.pending.push(event);
        }
    }

    fn input_requested(&mut self, request: String, prompt: String, password: bool) {
        // Nobody to ask for: a kernel that says so between cells is not believed.
        let Some(running) = self
            .running
            .as_mut()
            .filter(|running| running.input.is_none())
        else {
            return;
        };
        let since = Instant::now();
        let until = since + Duration::from_millis(self.settings.timeouts.input_ms);
        running.input = Some(InputWait {
            request: request.clone(),
            prompt: prompt.clone(),
            password,
            since,
            until,
        });
        let cell = running.cell;
        self.pending.push(Event::InputRequested {
            cell,
            request,
            prompt,
            password,
            deadline_at_ms: at_ms(until),
        });
    }

    /// The wait for a line is over; the cell's clock goes on.
    pub(super) fn close_input(&mut self, outcome: InputOutcome) {
        let Some(running) = self.running.as_mut() else {
            return;
        };
        let Some(input) = running.input.take() else {
            return;
        };
        running.deadline.pause(input.since.elapsed());
        let (cell, deadline_at_ms) = (running.cell, at_ms(running.deadline.at()));
        self.pending.push(Event::InputClosed {
            cell,
            request: input.request,
            outcome,
            deadline_at_ms,
        });
    }

    /// The reply to the running cell.
    pub(super) fn executed(&mut self, reply: NumberedReply) {
        let Ok(reply) =
            serde_json::from_value::<ExecuteReply>(serde_json::Value::Object(reply.body))
        else {
            // A cell whose end is not understood has ended all the same.
            let broken = ExecuteReply {
                status: ReplyStatus::Error,
                execution_count: None,
                error: None,
                user_expressions: None,
                variables: None,
                payload: Vec::new(),
                unprotected: None,
            };
            return self.finish(broken);
        };
        self.finish(reply);
    }

    fn finish(&mut self, reply: ExecuteReply) {
        self.close_input(InputOutcome::Interrupted);
        let Some(running) = self.running.take() else {
            return;
        };
        self.output.flush(&mut self.pending, Some(running.cell));
        let interrupted = reply
            .error
            .as_ref()
            .is_some_and(|error| error.ename == "KeyboardInterrupt");
        let status = match reply.status {
            ReplyStatus::Ok => CellStatus::Ok,
            ReplyStatus::Error => CellStatus::Error,
        };
        let cause = (status == CellStatus::Error).then_some(match running.stopping {
            Some(stopping) if interrupted => self.cause_of_stop(stopping.reason),
            _ => self.cause_of_error(reply.error.as_ref(), &running),
        });
        if running.execution_count.is_some() {
            self.execution_count = reply.execution_count.unwrap_or(self.execution_count + 1);
        }
        if !running.request.silent {
            self.unprotected = reply.unprotected;
        }
        let checkpoint = running.protection(reply.unprotected);
        self.pending.push(Event::CellFinished {
            cell: running.cell,
            status,
            cause,
            state: Verdict::Kept,
            execution_count: running.execution_count.and(reply.execution_count),
            usage: Some(running.usage(self.output.bytes)),
            variables: reply.variables.filter(|changes| {
                !running.request.silent || *changes != VariableChanges::default()
            }),
            user_expressions: reply
                .user_expressions
                .filter(|values| values.as_object().is_some_and(|map| !map.is_empty())),
            payload: reply.payload,
            checkpoint: Some(checkpoint),
        });
        self.output.bytes = 0;
        self.idle_since = Instant::now();
        if status == CellStatus::Error
            && (running.request.stop_on_error || running.stopping.is_some())
        {
            self.abort_queue(&Cause::EarlierError);
        }
    }

    /// The running cell's kernel is gone, and the variables with it.
    pub(super) fn finish_lost(&mut self, cause: &Cause, why: &str) {
        let why = why.to_owned();
        self.finish_dead(cause, Verdict::Lost { why });
    }

    /// The running cell's kernel is gone.
    pub(super) fn finish_dead(&mut self, cause: &Cause, state: Verdict) {
        self.close_input(InputOutcome::Interrupted);
        let Some(running) = self.running.take() else {
            return;
        };
        self.output.flush(&mut self.pending, Some(running.cell));
        self.pending.push(Event::CellFinished {
            cell: running.cell,
            status: CellStatus::Error,
            cause: Some(cause.clone()),
            checkpoint: match &state {
                Verdict::RolledBack { before } => Some(Protection::Before(*before)),
                Verdict::Kept | Verdict::Restored { .. } | Verdict::Lost { .. } => None,
            },
            state,
            execution_count: running.execution_count,
            usage: Some(running.usage(self.output.bytes)),
            variables: None,
            user_expressions: None,
            payload: Vec::new(),
        });
        self.output.bytes = 0;
        self.idle_since = Instant::now();
    }

    /// No cell that waits will run.
    pub(super) fn abort_queue(&mut self, cause: &Cause) {
        for waiting in self.queue.clear() {
            self.pending.push(aborted(waiting.cell, cause.clone()));
        }
        self.idle_since = Instant::now();
    }

    /// Refuses what was to run after a cell that has gone wrong: it would have been aborted with the queue, had it come in time.
    pub(super) async fn check_went_well(&mut self, cell: CellId) -> Result<(), SessionError> {
        let is_running = self
            .running
            .as_ref()
            .is_some_and(|running| running.cell == cell);
        if is_running || self.queue.cells().any(|waiting| waiting == cell) {
            return Ok(());
        }
        // Its end may not be in the store yet.
        let pending = self.pending.iter().find(|event| ends(event, cell)).cloned();
        let end = match pending {
            Some(event) => Some(event),
            None => {
                let row = self.store.cell(self.key, cell).await?;
                let row = row.ok_or(Denied::UnknownCell(cell))?;
                let finished = row.finished.unwrap_or(row.queued);
                let events = self
                    .store
                    .read(self.key, finished - 1, 1, usize::MAX)
                    .await?;
                events
                    .first()
                    .and_then(|event| serde_json::from_slice::<Envelope>(&event.json).ok())
                    .map(|envelope| envelope.event)
                    .filter(|event| ends(event, cell))
            }
        };
        match end {
            Some(Event::CellFinished { status, cause, .. })
                if status != CellStatus::Ok && cause != Some(Cause::Cancelled) =>
            {
                Err(Denied::EarlierFailed(cell).into())
            }
            _ => Ok(()),
        }
    }

    /// Begins to stop the running cell. Does nothing if that has begun.
    pub(super) fn stop_cell(&mut self, reason: InterruptReason) {
        let Some(running) = self
            .running
            .as_mut()
            .filter(|running| running.stopping.is_none())
        else {
            return;
        };
        running.stopping = Some(Stopping::at(reason, Rung::Sigint));
        let cell = running.cell;
        self.close_input(InputOutcome::Interrupted);
        self.signal(Some(cell), reason, Rung::Sigint);
    }

    /// Takes a rung of the ladder.
    pub(super) fn signal(&mut self, cell: Option<CellId>, reason: InterruptReason, rung: Rung) {
        self.pending.push(Event::Interrupted { cell, reason, rung });
        self.acts.push(Act::Signal(rung));
    }

    /// Stops what has put out more than it may: the running cell, or what runs while there is none. Asked once all that came together is taken in:
    /// its end may be in that.
    pub(super) fn bound_output(&mut self) {
        if self.output.bytes <= self.settings.limits.cell_output_bytes {
            return;
        }
        match self.running {
            Some(_) => self.stop_cell(InterruptReason::OutputLimit),
            None => self.stop_between(InterruptReason::OutputLimit),
        }
    }

    /// Does what time asks for: input that nobody gave, the warning, the deadline, the next rung.
    pub(super) fn cell_due(&mut self, now: Instant) {
        let Some(running) = self
            .running
            .as_mut()
            .filter(|running| running.request_id.is_some())
        else {
            return;
        };
        if let Some(stopping) = running.stopping {
            if stopping.next <= now {
                self.climb();
            }
        } else if let Some(input) = &running.input {
            if input.until <= now {
                let request = input.request.clone();
                self.answer_kernel(request, None);
                self.close_input(InputOutcome::TimedOut);
            }
        } else if let Some(by) = running.extend_on_progress(now) {
            let moved = running.deadlines();
            self.pending
                .push(extended(&moved, by, ExtendReason::Progress));
        } else if running.deadline.at() <= now {
            self.stop_cell(InterruptReason::Deadline);
        } else if running.deadline.take_warning(now) {
            let (cell, deadline) = (running.cell, running.deadlines());
            self.pending.push(Event::DeadlineWarning {
                cell,
                deadline_at_ms: at_ms(running.deadline.at()),
                extendable_ms: millis(deadline.extendable),
            });
        }
    }

    fn climb(&mut self) {
        let Some(running) = self.running.as_mut() else {
            return;
        };
        let cell = running.cell;
        if let Some(stopping) = running.stopping.as_mut() {
            let (rung, reason) = (stopping.climb(), stopping.reason);
            self.climbed(Some(cell), reason, rung);
        }
    }

    /// Takes the next rung, or gives up the sandbox if the kill was the last and not followed by an end.
    pub(super) fn climbed(
        &mut self,
        cell: Option<CellId>,
        reason: InterruptReason,
        rung: Option<Rung>,
    ) {
        match rung {
            Some(rung) => self.signal(cell, reason, rung),
            None => self.give_up_sandbox(&Cause::Unresponsive, "the kernel could not be killed"),
        }
    }

    /// Gives the kernel the line that it asked for; no value is the end of the file.
    pub(super) fn answer_kernel(&mut self, request: String, value: Option<String>) {
        let eof = value.is_none();
        let number = self.tell_kernel(Request::InputReply {
            request,
            value,
            eof,
        });
        if let Some(running) = self.running.as_mut() {
            running.answered = running.input.clone().map(|input| (input, number));
        }
    }
}

/// Whether somebody reads what a cell says: a silent one is a program's own.
pub(super) fn tells(request: &CellRequest) -> bool {
    !request.silent
}

/// The end of a cell that has not run.
pub(super) fn aborted(cell: CellId, cause: Cause) -> Event {
    Event::CellFinished {
        cell,
        status: CellStatus::Aborted,
        cause: Some(cause),
        state: Verdict::Kept,
        execution_count: None,
        usage: None,
        variables: None,
        user_expressions: None,
        payload: Vec::new(),
        checkpoint: None,
    }
}

fn ends(event: &Event, of: CellId) -> bool {
    matches!(event, Event::CellFinished { cell, .. } if *cell == of)
}
