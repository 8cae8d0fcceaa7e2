//! How a task goes on with a session whose server has died: it puts its state together from what was remembered, asks the agent how far the
//! kernel has come, and does once what the dead server did not come to do.
//!
//! Who knows what: the store, all that happened and was told to anybody; the agent, which requests have arrived, and every frame that is not stored.
//! So for each request there are three cases, told apart by its number: it never arrived, and is sent now; it has arrived, and its reply is still
//! to come; its reply is stored, and so is what followed.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::Actor;
use super::acts::Act;
use super::between::Between;
use super::cells::aborted;
use super::commands::extended;
use super::kernel::{KernelState, replacement};
use super::running::Running;
use crate::kernel::{Adopted, Kernel};
use crate::model::event::{Cause, Event, ExtendReason, Seq, StartReason, Verdict};
use crate::model::id::SandboxId;
use crate::protocol::agent::AgentHello;
use crate::session::clock::{at_ms, instant_of, millis};
use crate::session::command::{CellRequest, chain};
use crate::session::memory::{GoingBack, KernelMemory, Memory};
use crate::session::output::Output;
use crate::session::queue::Waiting;
use crate::store::OpenSession;

/// How a task begins.
pub(in crate::session) enum Beginning {
    /// With a session that was just opened.
    New,
    /// With one that another server has left.
    Adopted(Box<Remains>),
}

/// What another server has left of a session.
pub(in crate::session) struct Remains {
    pub(in crate::session) open: OpenSession,
    pub(in crate::session) memory: Memory,
}

impl Actor {
    /// What another server would have to know to go on from here.
    pub(super) fn memory(&self) -> Memory {
        let accepted = |waiting: &Waiting| waiting.request.limit.unwrap_or(self.cell_limit());
        let limits = self.queue.iter();
        let limits = limits.filter(|waiting| waiting.limit != accepted(waiting));
        Memory {
            kernel: self.kernel.memory(),
            execution_count: self.execution_count,
            python: self.python.clone(),
            output: self.output.memory(),
            running: self.running.as_ref().map(Running::memory),
            comms: self.comms.clone(),
            stopping_between: self.between.memory(),
            limits: limits
                .map(|waiting| (waiting.cell, millis(waiting.limit)))
                .collect(),
            readers: Vec::new(),
            note: self.note.clone(),
            checkpoints: self.checkpoints.clone(),
            unprotected: self.unprotected,
        }
    }

    /// Goes on with what another server has left. Bounded; commands wait meanwhile.
    pub(super) async fn take_up(&mut self, remains: Remains) {
        let kernel = self.restore(remains);
        self.publish();
        let Some(sandbox) = kernel.sandbox() else {
            return match kernel {
                KernelMemory::Dead { problem } => self.kernel = KernelState::Dead { problem },
                // What was being made is nobody's, and is cleared away.
                KernelMemory::Launching { reason } => self.launch(reason),
                KernelMemory::Ready { .. } | KernelMemory::Restarting { .. } => {
                    unreachable!("these have a sandbox")
                }
            };
        };
        let adopted = self
            .launcher
            .adopt(sandbox, self.frame, &self.settings.limits)
            .await;
        match adopted {
            Ok(adopted) => self.adopted(kernel, adopted),
            Err(error) => self.not_adopted(&kernel, sandbox, &chain(&error)),
        }
    }

    /// Puts the state together, but for the kernel, which is returned.
    fn restore(&mut self, Remains { open, mut memory }: Remains) -> KernelMemory {
        self.readers.restore(std::mem::take(&mut memory.readers));
        self.remembered = memory.clone();
        let Memory {
            kernel,
            execution_count,
            python,
            output,
            mut running,
            comms,
            stopping_between,
            limits,
            readers: _,
            note,
            checkpoints,
            unprotected,
        } = memory;
        self.between = Between::restored(stopping_between, &comms);
        (self.note, self.comms, self.python) = (note, comms, python);
        self.checkpoints = checkpoints;
        self.unprotected = unprotected;
        (self.frame, self.acknowledged) = (open.row.kernel_frame, open.row.kernel_frame);
        self.execution_count = execution_count;
        self.output = Output::restored(&output);
        self.idle_since = instant_of(open.row.active_at_ms);
        for unfinished in open.cells {
            let (cell, queued) = (unfinished.cell, unfinished.queued);
            let request = unfinished.request.as_deref().unwrap_or_default();
            let Ok(request) = serde_json::from_str::<CellRequest>(request) else {
                self.pending.push(aborted(cell, Cause::ServerStopped));
                continue;
            };
            if let Some(memory) = running.take_if(|running| running.cell == cell) {
                let timeouts = &self.settings.timeouts;
                self.running = Some(Running::restored(memory, queued, request, timeouts));
                continue;
            }
            let accepted = request.limit.unwrap_or(self.cell_limit());
            let limit = limits.get(&cell).copied();
            let limit = limit.map_or(accepted, Duration::from_millis);
            if self.queue.is_full() {
                // This server was told to let fewer wait.
                self.pending.push(aborted(cell, Cause::ServerStopped));
                continue;
            }
            self.queue.push(Waiting {
                cell,
                request,
                queued,
                limit,
            });
        }
        kernel
    }

    fn adopted(&mut self, was: KernelMemory, adopted: Adopted) {
        let Adopted {
            kernel,
            events,
            hello,
        } = adopted;
        let state = Verdict::Kept;
        self.pending.push(Event::KernelAdopted { state });
        match was {
            KernelMemory::Restarting {
                reason,
                request,
                started,
                rolls_back,
                ..
            } => {
                kernel.number_after(request);
                self.kernel = KernelState::Restarting {
                    kernel,
                    events,
                    reason,
                    since: Instant::now(),
                    request,
                    started,
                    rolls_back,
                };
                // It was asked for, and came to nothing; or it came, and the frames tell.
                let is_silent = !hello.alive && !hello.starting;
                self.silent_until = is_silent.then_some(hello.last);
            }
            _ => {
                self.kernel = KernelState::Ready {
                    kernel,
                    events,
                    since: Instant::now(),
                    // Whatever ends it now, it is not its start.
                    used: true,
                };
            }
        }
        self.find_running(&hello);
        self.stop_between_again();
        self.drop_comms_after(hello.last_request);
        self.greeted(&hello);
    }

    /// Comm messages that the dead server had taken and that did not get to the kernel: whoever sent them is told, and may send them again.
    fn drop_comms_after(&mut self, arrived: u64) {
        let on_their_way = self.comms.split_off(&(arrived + 1));
        self.end_comms(
            on_their_way,
            "the server was stopped before the kernel had it",
        );
    }

    /// Says of comm messages that the kernel will not handle them.
    pub(super) fn end_comms(&mut self, comms: BTreeMap<u64, Seq>, why: &str) {
        let handled = |at_seq| Event::CommHandled {
            at_seq,
            error: Some(why.to_owned()),
        };
        self.pending.extend(comms.into_values().map(handled));
    }

    /// Finds out how far the running cell has come.
    fn find_running(&mut self, hello: &AgentHello) {
        let Some(running) = self.running.as_mut() else {
            return;
        };
        let number = Kernel::execution(running.queued);
        if hello.last_execution < number {
            return self.give_time_back();
        }
        running.request_id = Some(number);
        if hello.executing != Some(number) {
            // Its end is in the frames to come.
            return;
        }
        // What it has said meanwhile is still to be read, but its deadline may be over.
        if hello.last > self.frame {
            running.show_progress();
        }
        // An answer that was given, and did not get there.
        if let Some((input, answer)) = running.answered.take()
            && answer > hello.last_request
            && running.input.is_none()
        {
            self.pending.push(Event::InputRequested {
                cell: running.cell,
                request: input.request.clone(),
                prompt: input.prompt.clone(),
                password: input.password,
                deadline_at_ms: at_ms(input.until),
            });
            running.input = Some(input);
        }
        if let Some(stopping) = running.stopping {
            // It may not have got there. Once more does no harm: it is what the next rung does.
            self.acts.push(Act::Signal(stopping.rung));
        }
    }

    /// The running cell is in the log as begun, but the kernel has not heard of it: its time begins now.
    fn give_time_back(&mut self) {
        let Some(running) = self.running.as_mut() else {
            return;
        };
        let waited = running.deadline.started().elapsed();
        running.deadline.pause(waited);
        let moved = running.deadlines();
        self.pending
            .push(extended(&moved, waited, ExtendReason::Adopted));
    }

    /// The agent says what has arrived: what has not is sent again. What was still on its way then comes twice, and is passed over.
    pub(super) fn greeted(&mut self, hello: &AgentHello) {
        if let Some(running) = self.running.as_mut()
            && let Some(number) = running.request_id
            && hello.last_execution < number
        {
            running.request_id = None;
        }
        if let KernelState::Restarting {
            request,
            reason,
            rolls_back,
            ..
        } = &self.kernel
            && hello.last_request < *request
        {
            self.silent_until = None;
            self.acts
                .push(replacement(*request, *reason, rolls_back.as_ref()));
        }
    }

    /// All has been heard that the agent had to say, and a kernel that it was asked for is not there: it could not be started without a server.
    pub(super) fn start_again_if_silent(&mut self) {
        if self.silent_until.is_none_or(|last| last > self.frame) {
            return;
        }
        self.silent_until = None;
        let KernelState::Restarting {
            kernel,
            request,
            reason,
            started,
            rolls_back,
            ..
        } = &mut self.kernel
        else {
            return;
        };
        if rolls_back.is_some() {
            return self.rollback_failed("it did not while there was no server");
        }
        (*request, *started) = (kernel.number(), None);
        self.acts.push(replacement(*request, *reason, None));
    }

    /// What was there cannot be used any more. It is destroyed, and a new one is made.
    fn not_adopted(&mut self, was: &KernelMemory, sandbox: SandboxId, why: &str) {
        tracing::warn!(session.id = %self.id, sandbox.id = %sandbox, why, "a sandbox could not be taken over");
        let launcher = self.launcher.clone();
        self.leaving = Some(tokio::spawn(async move {
            if let Err(error) = launcher.destroy(sandbox).await {
                tracing::warn!(sandbox.id = %sandbox, error = %error, "a sandbox of an earlier server could not be removed");
            }
        }));
        self.forget_checkpoints();
        match was {
            // The log says that a checkpoint is there, which went with its sandbox.
            KernelMemory::Restarting {
                rolls_back: Some(GoingBack { cause, .. }),
                ..
            } => {
                let reason = self.rollback_lost(cause.clone(), "the sandbox went away");
                self.launch(reason);
            }
            // The one before it is lost already, and the log says so.
            KernelMemory::Restarting { reason, .. } => self.launch(*reason),
            _ => {
                let why = format!(
                    "the sandbox could not be taken up when the server was started again: {why}"
                );
                self.lose(&Cause::SandboxLost, &why);
                self.launch(StartReason::Recovered);
            }
        }
    }

    fn cell_limit(&self) -> Duration {
        Duration::from_millis(self.settings.timeouts.cell_ms)
    }
}

impl KernelState {
    fn memory(&self) -> KernelMemory {
        match self {
            Self::Launching { reason, .. } => KernelMemory::Launching { reason: *reason },
            Self::Ready { kernel, .. } => KernelMemory::Ready {
                sandbox: kernel.sandbox(),
            },
            Self::Restarting {
                kernel,
                reason,
                request,
                started,
                rolls_back,
                ..
            } => KernelMemory::Restarting {
                sandbox: kernel.sandbox(),
                reason: *reason,
                request: *request,
                started: *started,
                rolls_back: rolls_back.clone(),
            },
            Self::Dead { problem } => KernelMemory::Dead {
                problem: problem.clone(),
            },
        }
    }
}

impl Actor {
    /// Leaves the session to another server: everything is in the store, and the kernel goes on without us.
    pub(super) async fn leave(&mut self) {
        use crate::session::command::Denied;
        self.commands.close();
        self.deny_waiting(&Denied::Stopping);
        self.commit().await;
        self.write_readers().await;
        self.act();
        if let KernelState::Launching { .. } = self.kernel {
            // Nobody knows of it yet, so nobody would find it.
            self.kernel.destroy().await;
        }
        while let Some(command) = self.commands.recv().await {
            command.deny(Denied::Stopping);
        }
    }
}
