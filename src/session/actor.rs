//! The one task that owns a session, and its loop.
//!
//! Whatever happens is handled in the same three steps: the state changes and says so in events; the events are committed to the log; only then
//! does anything act on them (a cell is sent to the kernel, a frame is acknowledged, an asker is answered). With the events goes what the task
//! has to remember, so that the death of the server at any moment leaves a state from which another one goes on (`adopt.rs`). While the data directory is full the
//! events wait, the kernel's output waits in the agent, and new cells are refused: nothing is lost.

mod acts;
mod adopt;
mod aside;
mod between;
mod cells;
mod checkpoints;
mod commands;
mod kernel;
mod labels;
mod loss;
mod running;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::ControlFlow;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use super::clock::{at_ms, unix_ms};
use super::command::{CellRequest, Command, Denied, Reply, SessionError};
use super::log::{Batch, EventLog};
use super::memory::Memory;
use super::output::Output;
use super::queue::CellQueue;
use super::readers::Readers;
use super::view::{SessionView, Status};
use crate::kernel::files::Files;
use crate::kernel::{Claimed, KernelError, KernelEvent, Launcher};
use crate::model::checkpoint::HeldCheckpoint;
use crate::model::event::{EndReason, Event, Seq, StartReason, Unprotected};
use crate::model::id::{CellId, SessionId};
use crate::model::note::StateNote;
use crate::model::settings::Settings;
use crate::store::{SessionKey, Store, StoreError};
use acts::Act;
pub(super) use adopt::{Beginning, Remains};
pub(super) use between::Between;
use checkpoints::{Later, Wish};
use kernel::KernelState;
use running::Running;

/// How many events of the kernel are taken at once, and committed together.
const BATCH: usize = 256;
/// How often the log is tried again while the disk is full.
const RETRY: Duration = Duration::from_millis(500);

/// Everything that can wake a session. The list is closed on purpose: to know what a session reacts to, read this enum.
enum Input {
    Command(Command),
    /// All handles are gone: the server is being taken down.
    Abandoned,
    Kernel(Vec<KernelEvent>),
    Launched(Result<Claimed, KernelError>),
    Time,
}

/// How a task comes to its end: with its session, or without, where another server is to go on with it. And who is to be told.
type Over = (Option<EndReason>, Option<Reply<()>>);

/// The owner of a session.
pub(super) struct Actor {
    pub(super) id: SessionId,
    pub(super) key: SessionKey,
    pub(super) log: std::sync::Arc<EventLog>,
    pub(super) readers: Readers,
    pub(super) store: Store,
    pub(super) launcher: Launcher,
    pub(super) settings: Settings,
    /// The name of its workspace.
    pub(super) workspace: String,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) view: watch::Sender<SessionView>,
    pub(super) kernel: KernelState,
    /// The sandbox that was let go of last, while it is being destroyed.
    pub(super) leaving: Option<JoinHandle<()>>,
    pub(super) queue: CellQueue,
    pub(super) running: Option<Running>,
    /// Who waits for which reply of the kernel.
    pub(super) asks: HashMap<u64, Reply<serde_json::Map<String, serde_json::Value>>>,
    /// The comm messages of clients that the kernel is not done with: their requests, and where they stand in the log.
    pub(super) comms: BTreeMap<u64, Seq>,
    /// What runs while no cell does.
    pub(super) between: Between,
    /// Who waits for what the agent will say of a checkpoint, by the number of the request.
    pub(super) wishes: HashMap<u64, Wish>,
    /// Who waits for a kernel, to hold it or to go back.
    pub(super) later: VecDeque<Later>,
    /// The checkpoints that somebody holds, the oldest first.
    pub(super) checkpoints: Vec<HeldCheckpoint>,
    /// Why no checkpoint was made right before the last cell that was not silent.
    pub(super) unprotected: Option<Unprotected>,
    /// Who waits for a sandbox, to get at its files.
    pub(super) waiting_for_files: Vec<Reply<Files>>,
    pub(super) idle_since: Instant,
    pub(super) execution_count: u32,
    /// The version of Python of the kernel, or of the last one.
    pub(super) python: String,
    pub(super) output: Output,
    /// Events that have happened and are not in the log yet.
    pub(super) pending: Vec<Event>,
    /// The last kept frame whose events are in `pending` or in the log.
    pub(super) frame: u64,
    /// The last kept frame that is stored and that the agent was told of.
    pub(super) acknowledged: u64,
    /// What is to be done once what has happened is in the log.
    pub(super) acts: Vec<Act>,
    /// What the store has of what this task has to remember.
    pub(super) remembered: Memory,
    /// After this frame a kernel that was being started when the server died, and of which nothing was heard, is started once more.
    pub(super) silent_until: Option<u64>,
    /// While the log cannot be written: when to try again.
    pub(super) retry_at: Option<Instant>,
    /// What became of the variables, until a cell has begun that says so.
    pub(super) note: Option<StateNote>,
    /// A buffer for the kernel's events, used again and again.
    pub(super) inbox: Vec<KernelEvent>,
}

impl Actor {
    /// Runs until the session ends; then its sandbox is gone. Or until the session is left to another server; then there is no reason.
    pub(super) async fn run(mut self, beginning: Beginning) -> Option<EndReason> {
        match beginning {
            Beginning::New => self.launch(StartReason::Opened),
            Beginning::Adopted(remains) => {
                self.take_up(*remains).await;
                self.settle().await;
            }
        }
        loop {
            let input = self.next_input().await;
            if let ControlFlow::Break((reason, reply)) = self.handle(input).await {
                match reason {
                    Some(reason) => self.end(reason).await,
                    None => self.leave().await,
                }
                if let Some(reply) = reply {
                    let _ = reply.send(Ok(()));
                }
                return reason;
            }
            self.settle().await;
        }
    }

    async fn next_input(&mut self) -> Input {
        let due = self.next_due();
        let stalled = self.retry_at.is_some();
        let kernel = &mut self.kernel;
        let inbox = &mut self.inbox;
        tokio::select! {
            // In this order: a flood of output delays neither an interrupt nor the deadline.
            biased;
            () = sleep_until(due) => Input::Time,
            command = self.commands.recv() => command.map_or(Input::Abandoned, Input::Command),
            // Not while the log cannot be written: the output waits in the agent.
            launched = kernel.next(inbox, BATCH), if !stalled => match launched {
                Some(launched) => Input::Launched(launched),
                None => Input::Kernel(std::mem::take(inbox)),
            },
        }
    }

    async fn handle(&mut self, input: Input) -> ControlFlow<Over> {
        match input {
            Input::Command(Command::End { reason, reply }) => {
                return ControlFlow::Break((Some(reason), Some(reply)));
            }
            Input::Command(Command::Leave { reply }) => {
                return ControlFlow::Break((None, Some(reply)));
            }
            Input::Abandoned => {
                return ControlFlow::Break((Some(EndReason::ServerStopped), None));
            }
            Input::Command(command) => self.command(command).await,
            Input::Launched(result) => self.launched(result),
            Input::Kernel(mut events) => {
                for event in events.drain(..) {
                    self.kernel_event(event);
                }
                self.inbox = events;
                self.bound_output();
            }
            Input::Time => return self.time_passed(),
        }
        ControlFlow::Continue(())
    }

    /// Commits what has happened, acts upon it, and lets the next cell begin if it can.
    async fn settle(&mut self) {
        let stalled = self.retry_at.is_some_and(|retry| retry > Instant::now());
        self.attend();
        if !stalled {
            self.do_later();
            self.begin_next();
        }
        // Before the commit: who has read of a cell's end in the log does not find it running.
        self.publish();
        let stored = !stalled && self.commit().await;
        if stored {
            self.acknowledge();
            self.start_again_if_silent();
        }
        // Also while the log cannot be written: a cell is stopped all the same.
        self.act();
        if stored {
            self.send_cell();
        }
    }

    /// Writes the pending events to the log. Says whether the log is up to date; if not, it will be tried again.
    async fn commit(&mut self) -> bool {
        self.retry_at = None;
        let memory = self.memory();
        let changed = memory != self.remembered;
        if self.pending.is_empty() && !changed && self.frame == self.acknowledged {
            return true;
        }
        let is_activity = self
            .pending
            .iter()
            .any(|event| matches!(event, Event::CellFinished { .. }));
        let mut batch = Batch {
            events: std::mem::take(&mut self.pending),
            kernel_frame: Some(self.frame),
            requests: vec![],
            is_activity,
            memory: changed.then(|| memory.to_json(self.readers.all())),
        };
        match self.log.append(&batch).await {
            Ok(_) => {
                batch.events.clear();
                self.remembered = memory;
                // The allocation is used again.
                self.pending = batch.events;
                true
            }
            Err(error) => {
                if !matches!(error, StoreError::Full { .. }) {
                    tracing::error!(session.id = %self.id, error = %error, "events could not be written; trying again");
                }
                self.pending = batch.events;
                self.retry_at = Some(Instant::now() + RETRY);
                false
            }
        }
    }

    /// Commits events that a command causes, all or nothing, before the state changes. `change` does to the memory what the command will then
    /// do to the state.
    async fn record(
        &mut self,
        events: Vec<Event>,
        request: Option<(CellId, CellRequest)>,
        change: impl FnOnce(&mut Memory),
    ) -> Result<Seq, SessionError> {
        if !self.pending.is_empty() || self.retry_at.is_some() {
            return Err(Denied::StoreFull.into());
        }
        let mut memory = self.memory();
        change(&mut memory);
        let batch = Batch {
            events,
            requests: request.into_iter().collect(),
            is_activity: true,
            memory: (memory != self.remembered).then(|| memory.to_json(self.readers.all())),
            ..Batch::default()
        };
        let seq = self.log.append(&batch).await.map_err(SessionError::from)?;
        self.remembered = memory;
        Ok(seq)
    }

    /// Writes down how far readers have come, whatever else there is to write.
    async fn write_readers(&mut self) {
        let batch = Batch {
            memory: Some(self.remembered.to_json(self.readers.all())),
            ..Batch::default()
        };
        if let Err(error) = self.log.append(&batch).await {
            tracing::warn!(session.id = %self.id, error = %error, "how far readers have come could not be written");
        }
    }

    fn acknowledge(&mut self) {
        if self.frame > self.acknowledged {
            // If the agent is gone there is nobody to forget it.
            if let Some(kernel) = self.kernel.connected() {
                let _ = kernel.acknowledge(self.frame);
            }
            self.acknowledged = self.frame;
        }
    }

    /// When time will have something to say.
    fn next_due(&self) -> Instant {
        let idle = (self.running.is_none() && self.queue.is_empty()).then(|| self.idle_end());
        let running = self.running.as_ref().map(Running::next_due);
        [
            idle,
            running,
            self.between_next(),
            self.kernel.due(),
            self.retry_at,
        ]
        .into_iter()
        .flatten()
        .min()
        .unwrap_or_else(|| Instant::now() + Duration::from_secs(3600))
    }

    fn idle_end(&self) -> Instant {
        self.idle_since + Duration::from_millis(self.settings.timeouts.idle_ms)
    }

    fn time_passed(&mut self) -> ControlFlow<Over> {
        let now = Instant::now();
        if self.running.is_none() && self.queue.is_empty() && self.idle_end() <= now {
            return ControlFlow::Break((Some(EndReason::Idle), None));
        }
        self.kernel_due(now);
        self.cell_due(now);
        self.between_due(now);
        ControlFlow::Continue(())
    }

    /// Ends all that runs and waits, says so in the log, and destroys the sandbox.
    async fn end(&mut self, reason: EndReason) {
        let cause = match reason {
            EndReason::ServerStopped => crate::model::event::Cause::ServerStopped,
            _ => crate::model::event::Cause::SessionEnded,
        };
        self.commands.close();
        self.finish_lost(&cause, "the session ended");
        self.abort_queue(&cause);
        self.deny_waiting(&Denied::Ended);
        self.pending.push(Event::SessionEnded { reason });
        // One more try if the disk is full; after that the end is still told to those who listen, by the closing of the log.
        if !self.commit().await {
            self.commit().await;
        }
        self.act();
        self.kernel.destroy().await;
        if let Some(leaving) = self.leaving.take() {
            let _ = leaving.await;
        }
        while let Some(command) = self.commands.recv().await {
            command.deny(Denied::Ended);
        }
        self.publish();
        self.view.send_modify(|view| view.status = Status::Ended);
        self.log.close();
    }

    /// Tells the outside what has changed.
    pub(super) fn publish(&self) {
        let idle_end =
            (self.running.is_none() && self.queue.is_empty()).then(|| at_ms(self.idle_end()));
        self.view.send_if_modified(|view| {
            let mut changed = false;
            let mut set = |differs: bool| changed |= differs;
            let status = self.status();
            set(std::mem::replace(&mut view.status, status) != status);
            set(
                std::mem::replace(&mut view.execution_count, self.execution_count)
                    != self.execution_count,
            );
            if view.python != self.python {
                view.python.clone_from(&self.python);
                set(true);
            }
            let running = self.running.as_ref().map(Running::view);
            if view.running != running {
                view.running = running;
                set(true);
            }
            if !self.queue.cells().eq(view.queued.iter().copied()) {
                view.queued = self.queue.cells().collect();
                set(true);
            }
            let problem = self.kernel.problem();
            if view.problem.as_deref() != problem {
                view.problem = problem.map(str::to_owned);
                set(true);
            }
            if view.checkpoints != self.checkpoints {
                view.checkpoints.clone_from(&self.checkpoints);
                set(true);
            }
            if view.state_note != self.note {
                view.state_note.clone_from(&self.note);
                set(true);
            }
            if changed {
                view.active_at_ms =
                    unix_ms().saturating_sub(super::clock::millis(self.idle_since.elapsed()));
                view.idle_end_at_ms = idle_end;
            }
            changed
        });
    }

    fn status(&self) -> Status {
        match self.kernel.status() {
            Status::Idle if self.running.is_some() => Status::Busy,
            status => status,
        }
    }
}

/// What there is of a kernel before the task has begun.
pub(super) fn unborn() -> KernelState {
    KernelState::Dead {
        problem: String::new(),
    }
}
