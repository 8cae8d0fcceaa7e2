//! What is asked of a session, and what it answers. What is allowed when, is decided here and nowhere else.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Actor;
use super::cells::{aborted, tells};
use super::running::Running;
use crate::model::event::{Cause, Event, ExtendReason, InputOutcome, InterruptReason, StartReason};
use crate::model::id::CellId;
use crate::model::limits::Timeouts;
use crate::model::output::Metadata;
use crate::protocol::kernel::Request;
use crate::session::clock::millis;
use crate::session::command::{
    CellRequest, Command, Deadlines, Denied, InputAnswer, Interruption, Patience, Queued, Reply,
    SessionError,
};
use crate::session::memory::Memory;
use crate::session::queue::Waiting;
use crate::session::view::Status;
use crate::store::CellRow;

/// How many questions to the kernel may be open at once.
const MAX_ASKS: usize = 32;

impl Actor {
    /// Handles a command, and answers it. What changed is to be seen before the answer is.
    pub(super) async fn command(&mut self, command: Command) {
        // An asker who has gone away is not told.
        match command {
            Command::Execute { request, reply } => {
                let answer = self.execute(request).await;
                self.publish();
                let _ = reply.send(answer);
                // After the answer: whoever asked knows the cell before its first output is there.
                self.send_cell();
            }
            Command::Extend { cell, by, reply } => {
                let answer = self.extend(cell, by).await;
                self.publish();
                drop(reply.send(answer));
            }
            Command::Interrupt { cell, reply } => {
                let answer = self.interrupt(cell);
                self.answer_later(reply, answer);
            }
            Command::Cancel { cell, reply } => {
                let answer = self.cancel(cell).await;
                self.publish();
                drop(reply.send(answer));
            }
            Command::Restart { reply } => {
                let answer = self.restart_asked();
                self.answer_later(reply, answer);
            }
            Command::Hold { name, reply } => self.hold(name, reply),
            Command::Release { name, reply } => self.release(name, reply),
            Command::GoBack { target, reply } => self.go_back(target, reply),
            Command::Input { answer, reply } => {
                let answer = self.answer_input(answer);
                self.answer_later(reply, answer);
            }
            Command::Ask {
                request,
                patience,
                reply,
            } => self.ask(request, patience, reply),
            Command::Comm {
                message,
                client,
                reply,
            } => drop(reply.send(self.comm(message, client).await)),
            Command::Label { changes, reply } => {
                let answer = self.label(changes).await;
                self.answer_later(reply, answer);
            }
            Command::Files { reply } => self.files(reply),
            Command::Usage { reply } => self.usage(reply),
            Command::End { .. } | Command::Leave { .. } => {
                unreachable!("the loop handles the end")
            }
        }
    }

    async fn execute(&mut self, request: CellRequest) -> Result<Queued, SessionError> {
        check(&request)?;
        if let Some(key) = &request.key
            && let Some(row) = self.store.cell_by_key(self.key, key).await?
        {
            return self.duplicate(&row, &request).await;
        }
        if let Some(after) = request.after {
            self.check_went_well(after).await?;
        }
        let limit = self.limit(&request)?;
        if self.queue.is_full() {
            return Err(Denied::QueueFull {
                bound: self.queue.bound(),
            }
            .into());
        }
        let cell = CellId::new();
        let position = u32::try_from(self.queue.len() + usize::from(self.running.is_some()))
            .unwrap_or(u32::MAX);
        let kept = Some((cell, request.clone()));
        let state_note = self.note.clone();
        let is_told = tells(&request);
        let queued = Event::CellQueued {
            cell,
            code: request.code.clone(),
            position,
            silent: request.silent,
            origin: request.origin.clone(),
            client: request.client.clone(),
        };
        let waiting = Waiting {
            cell,
            request,
            queued: 0,
            limit,
        };
        let ceiling = Duration::from_millis(self.settings.timeouts.ceiling_ms).max(limit);
        let waits = Deadlines {
            cell,
            limit,
            ceiling,
            deadline_at_ms: None,
            extendable: ceiling - limit,
        };
        // Nothing changes before the cell is in the log: if it cannot be written, the cell was never accepted.
        if position == 0 && self.can_begin() {
            // Behind the event that accepts it.
            let (running, started) = self.begin(waiting, self.log.head() + 2);
            let memory = running.memory();
            let begins = |now: &mut Memory| {
                now.running = Some(memory);
                now.output.bytes = 0;
                now.note.take_if(|_| is_told);
            };
            let last = self.record(vec![queued, started], kept, begins).await?;
            let deadlines = running.deadlines();
            self.running = Some(Running {
                queued: last - 1,
                ..running
            });
            self.output.bytes = 0;
            self.note.take_if(|_| is_told);
            return Ok(Queued {
                cell,
                seq: last - 1,
                position,
                deadlines,
                duplicate: false,
                state_note,
            });
        }
        let seq = self.record(vec![queued], kept, |_| {}).await?;
        self.queue.push(Waiting {
            queued: seq,
            ..waiting
        });
        if self.kernel.status() == Status::Dead {
            self.launch(StartReason::Recovered);
        }
        Ok(Queued {
            cell,
            seq,
            position,
            deadlines: waits,
            duplicate: false,
            state_note,
        })
    }

    fn limit(&self, request: &CellRequest) -> Result<Duration, Denied> {
        let timeouts = &self.settings.timeouts;
        let limit = request
            .limit
            .unwrap_or(Duration::from_millis(timeouts.cell_ms));
        if limit.is_zero() || millis(limit) > timeouts.ceiling_ms {
            let why = format!(
                "is {} ms, but 1 to {} are allowed",
                millis(limit),
                timeouts.ceiling_ms
            );
            return Err(Denied::BadField {
                field: "limit_ms",
                why,
            });
        }
        Ok(limit)
    }

    /// The same key again: the first cell's answer, if it is the same source.
    async fn duplicate(
        &mut self,
        row: &CellRow,
        request: &CellRequest,
    ) -> Result<Queued, SessionError> {
        let events = self
            .store
            .read(self.key, row.queued - 1, 1, usize::MAX)
            .await?;
        let first: Option<crate::model::event::Envelope> = events
            .first()
            .filter(|event| event.seq == row.queued)
            .and_then(|event| serde_json::from_slice(&event.json).ok());
        // An event that was trimmed is not compared.
        if let Some(Event::CellQueued { code, .. }) = first.map(|envelope| envelope.event)
            && code != request.code
        {
            return Err(Denied::KeyReused.into());
        }
        let deadlines = match self
            .running
            .as_ref()
            .filter(|running| running.cell == row.cell)
        {
            Some(running) => running.deadlines(),
            None => {
                let limit = self.limit(request)?;
                let ceiling = Duration::from_millis(self.settings.timeouts.ceiling_ms).max(limit);
                Deadlines {
                    cell: row.cell,
                    limit,
                    ceiling,
                    deadline_at_ms: None,
                    extendable: Duration::ZERO,
                }
            }
        };
        let ahead = self.queue.cells().position(|cell| cell == row.cell);
        let position = ahead.map_or(0, |ahead| ahead + usize::from(self.running.is_some()));
        let position = u32::try_from(position).unwrap_or(u32::MAX);
        Ok(Queued {
            cell: row.cell,
            seq: row.queued,
            position,
            deadlines,
            duplicate: true,
            state_note: ahead.and(self.note.clone()),
        })
    }

    async fn extend(
        &mut self,
        cell: Option<CellId>,
        by: Duration,
    ) -> Result<Deadlines, SessionError> {
        if by.is_zero() {
            return Err(Denied::BadField {
                field: "by_ms",
                why: "must be at least 1".to_owned(),
            }
            .into());
        }
        let beyond = |grantable| {
            SessionError::Denied(Denied::BeyondCeiling {
                asked_ms: millis(by),
                grantable_ms: millis(grantable),
            })
        };
        if let Some(running) = self
            .running
            .as_ref()
            .filter(|running| cell.is_none_or(|cell| cell == running.cell))
        {
            let mut moved = running.deadline;
            moved.extend(by).map_err(beyond)?;
            let deadlines = Deadlines {
                cell: running.cell,
                limit: moved.limit(),
                ceiling: moved.ceiling(),
                deadline_at_ms: Some(super::at_ms(moved.at())),
                extendable: moved.extendable(),
            };
            let moves = |now: &mut Memory| {
                if let Some(running) = &mut now.running {
                    running.limit = moved.limit();
                    running.warned = moved.is_warned();
                    running.progressed = false;
                }
            };
            self.record(
                vec![extended(&deadlines, by, ExtendReason::Asked)],
                None,
                moves,
            )
            .await?;
            if let Some(running) = self.running.as_mut() {
                running.deadline = moved;
                running.progressed = false;
            }
            return Ok(deadlines);
        }
        let Some(cell) = cell else {
            return Err(Denied::NothingRuns.into());
        };
        let Some(waiting) = self.queue.find(cell) else {
            return Err(self.not_here(cell).await);
        };
        let ceiling = Duration::from_millis(self.settings.timeouts.ceiling_ms).max(waiting.limit);
        let limit = waiting.limit + by;
        if limit > ceiling {
            return Err(beyond(ceiling - waiting.limit));
        }
        let deadlines = Deadlines {
            cell,
            limit,
            ceiling,
            deadline_at_ms: None,
            extendable: ceiling - limit,
        };
        let moves = |now: &mut Memory| {
            now.limits.insert(cell, millis(limit));
        };
        self.record(
            vec![extended(&deadlines, by, ExtendReason::Asked)],
            None,
            moves,
        )
        .await?;
        if let Some(waiting) = self.queue.find(cell) {
            waiting.limit = limit;
        }
        Ok(deadlines)
    }

    fn interrupt(&mut self, cell: Option<CellId>) -> Result<Interruption, SessionError> {
        match (&self.running, cell) {
            (None, None) => {
                if self.is_handling() {
                    self.stop_between(InterruptReason::Requested);
                }
                // What waits for the kernel, or for that.
                if !self.queue.is_empty() {
                    self.abort_queue(&Cause::Interrupted);
                }
                return Ok(Interruption { cell: None });
            }
            (Some(running), cell) if cell.is_none_or(|cell| cell == running.cell) => {}
            _ => return Err(Denied::NothingRuns.into()),
        }
        let cell = self.running.as_ref().map(|running| running.cell);
        self.stop_cell(InterruptReason::Requested);
        Ok(Interruption { cell })
    }

    async fn cancel(&mut self, cell: CellId) -> Result<(), SessionError> {
        if self
            .running
            .as_ref()
            .is_some_and(|running| running.cell == cell)
        {
            return Err(Denied::CellRuns(cell).into());
        }
        if self.queue.find(cell).is_none() {
            return Err(self.not_here(cell).await);
        }
        let leaves = |now: &mut Memory| {
            now.limits.remove(&cell);
        };
        self.record(vec![aborted(cell, Cause::Cancelled)], None, leaves)
            .await?;
        self.queue.remove(cell);
        Ok(())
    }

    /// Why a cell neither runs nor waits.
    async fn not_here(&mut self, cell: CellId) -> SessionError {
        match self.store.cell(self.key, cell).await {
            Ok(Some(_)) => Denied::CellFinished(cell).into(),
            Ok(None) => Denied::UnknownCell(cell).into(),
            Err(error) => error.into(),
        }
    }

    fn restart_asked(&mut self) -> Result<(), SessionError> {
        let why = "the kernel was restarted";
        // Whoever asked for an empty namespace need not be told of what was lost before.
        self.note = None;
        match self.kernel.status() {
            // A fresh kernel is on its way.
            Status::Starting => self.abort_queue(&Cause::Restart),
            Status::Dead => self.launch(StartReason::Restarted),
            _ => {
                self.finish_lost(&Cause::Restart, why);
                self.abort_queue(&Cause::Restart);
                self.deny_waiting(&Denied::NoKernel(why.to_owned()));
                self.replace_kernel(StartReason::Restarted, None);
            }
        }
        Ok(())
    }

    fn answer_input(&mut self, answer: InputAnswer) -> Result<(), SessionError> {
        let InputAnswer { request, value } = answer;
        let open = self
            .running
            .as_ref()
            .and_then(|running| running.input.as_ref());
        let Some(open) = open.filter(|open| {
            request
                .as_ref()
                .is_none_or(|request| *request == open.request)
        }) else {
            return Err(Denied::NoInput.into());
        };
        let open = open.request.clone();
        self.answer_kernel(open, value);
        self.close_input(InputOutcome::Answered);
        Ok(())
    }

    /// Passes a question on to a kernel that is free to answer it, or will be.
    fn ask(
        &mut self,
        request: Request,
        patience: Patience,
        reply: Reply<serde_json::Map<String, serde_json::Value>>,
    ) {
        match self.put_question(request, patience) {
            Ok(id) => drop(self.asks.insert(id, reply)),
            Err(error) => drop(reply.send(Err(error))),
        }
    }

    fn put_question(&mut self, request: Request, patience: Patience) -> Result<u64, SessionError> {
        match patience {
            Patience::None => self.at_rest()?,
            Patience::Waits => self.has_kernel()?,
        }
        if self.asks.len() >= MAX_ASKS {
            return Err(Denied::Busy.into());
        }
        Ok(self.tell_kernel(request))
    }

    /// Whether the kernel is there and runs no cell.
    pub(super) fn at_rest(&self) -> Result<(), Denied> {
        if self.running.is_some() {
            return Err(Denied::KernelBusy);
        }
        self.has_kernel()
    }

    fn has_kernel(&self) -> Result<(), Denied> {
        if !self.kernel.is_ready() {
            let problem = self.kernel.problem().unwrap_or("it is being started");
            return Err(Denied::NoKernel(problem.to_owned()));
        }
        Ok(())
    }
}

/// Says that a deadline was moved.
pub(super) fn extended(deadlines: &Deadlines, by: Duration, reason: ExtendReason) -> Event {
    Event::DeadlineExtended {
        cell: deadlines.cell,
        reason,
        by_ms: millis(by),
        limit_ms: millis(deadlines.limit),
        deadline_at_ms: deadlines.deadline_at_ms,
        extendable_ms: millis(deadlines.extendable),
    }
}

/// Whether a request can be at all, whatever the session is doing.
fn check(request: &CellRequest) -> Result<(), Denied> {
    let CellRequest {
        code,
        key,
        origin,
        client,
        user_expressions,
        extend_on_progress,
        ..
    } = request;
    check_client(client.as_ref())?;
    let expressions: &BTreeMap<String, String> = user_expressions;
    let bytes = code.len()
        + expressions
            .iter()
            .map(|(name, code)| name.len() + code.len())
            .sum::<usize>();
    if bytes > CellRequest::MAX_CODE {
        return Err(Denied::CellTooLarge {
            bytes,
            bound: CellRequest::MAX_CODE,
        });
    }
    if let Some(asked) = extend_on_progress.map(millis)
        && !Timeouts::allows_on_progress(asked)
    {
        let least = Timeouts::LEAST_EXTENSION_MS;
        return Err(Denied::BadField {
            field: "extend_on_progress_ms",
            why: format!("is {asked}, but it is at least {least}, or 0 for not at all"),
        });
    }
    for (field, text) in [("key", key), ("origin", origin)] {
        if text
            .as_ref()
            .is_some_and(|text| text.is_empty() || text.len() > CellRequest::MAX_NAME)
        {
            return Err(Denied::BadField {
                field,
                why: format!("must have 1 to {} bytes", CellRequest::MAX_NAME),
            });
        }
    }
    Ok(())
}

/// Whether what a front end wants to keep is small enough to be written with every cell.
pub(super) fn check_client(client: Option<&Metadata>) -> Result<(), Denied> {
    let bytes = client.map_or(0, |client| {
        serde_json::to_string(client).map_or(usize::MAX, |json| json.len())
    });
    if bytes > CellRequest::MAX_CLIENT {
        return Err(Denied::BadField {
            field: "client",
            why: format!(
                "has {bytes} bytes, but at most {} are kept",
                CellRequest::MAX_CLIENT
            ),
        });
    }
    Ok(())
}
