//! The life of a session's kernel: launched, restarted, lost, replaced.

use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::Actor;
use super::acts::Act;
use crate::kernel::{Claimed, Kernel, KernelError, KernelEvent, KernelEvents, Occurrence, Order};
use crate::model::event::{Cause, Event, InterruptReason, Seq, StartReason};
use crate::model::id::CellId;
use crate::model::output::StreamName;
use crate::protocol::agent::{DiskReport, KernelStart, WORKSPACE_DEPTH, WORKSPACE_ENTRIES};
use crate::protocol::checkpoints::{HeldOnes, Refusal, Target};
use crate::protocol::kernel::{Message, Request};
use crate::session::clock::millis;
use crate::session::command::Denied;
use crate::session::memory::GoingBack;
use crate::session::view::Status;

/// How long a restart may take before the sandbox is given up.
const RESTART_LIMIT: Duration = Duration::from_secs(60);
/// How long a checkpoint may take to wake before a new kernel is started.
const WAKE_LIMIT: Duration = Duration::from_secs(10);

/// What there is of a kernel.
pub(in crate::session) enum KernelState {
    /// A sandbox is being made, or claimed from the pool.
    Launching {
        launch: BoxFuture<'static, Result<Claimed, KernelError>>,
        reason: StartReason,
        since: Instant,
    },
    /// It waits for cells, or runs one.
    Ready {
        kernel: Kernel,
        events: KernelEvents,
        since: Instant,
        used: bool,
    },
    /// A new one is being started in the same sandbox.
    Restarting {
        kernel: Kernel,
        events: KernelEvents,
        reason: StartReason,
        since: Instant,
        request: u64,
        /// Its number, once there is one: what earlier ones still have to say, and their ends, may come before that.
        started: Option<u64>,
        /// The checkpoint that is being woken, if it is one.
        rolls_back: Option<GoingBack>,
    },
    /// There is none; the next cell tries again.
    Dead { problem: String },
}

impl KernelState {
    pub(super) fn status(&self) -> Status {
        match self {
            Self::Launching { .. } => Status::Starting,
            Self::Ready { .. } => Status::Idle,
            Self::Restarting { .. } => Status::Restarting,
            Self::Dead { .. } => Status::Dead,
        }
    }

    pub(super) fn is_ready(&self) -> bool {
        matches!(self, Self::Ready { .. })
    }

    pub(super) fn problem(&self) -> Option<&str> {
        if let Self::Dead { problem } = self {
            Some(problem)
        } else {
            None
        }
    }

    /// The connection to the sandbox, if there is one.
    pub(super) fn connected(&self) -> Option<&Kernel> {
        match self {
            Self::Ready { kernel, .. } | Self::Restarting { kernel, .. } => Some(kernel),
            Self::Launching { .. } | Self::Dead { .. } => None,
        }
    }

    /// A cell was given to it: its death is the cell's doing.
    pub(super) fn mark_used(&mut self) {
        if let Self::Ready { used, .. } = self {
            *used = true;
        }
    }

    /// Waits for the end of a launch, or for events, which are put into `inbox`; for ever if neither can come. May be dropped at any point.
    pub(super) async fn next(
        &mut self,
        inbox: &mut Vec<KernelEvent>,
        limit: usize,
    ) -> Option<Result<Claimed, KernelError>> {
        match self {
            Self::Launching { launch, .. } => Some(launch.await),
            Self::Ready { events, .. } | Self::Restarting { events, .. } => {
                if events.receive(inbox, limit).await == 0 {
                    // The end was an event of its own, and has been handled.
                    std::future::pending::<()>().await;
                }
                None
            }
            Self::Dead { .. } => std::future::pending().await,
        }
    }

    /// When time will have something to say about it.
    pub(super) fn due(&self) -> Option<Instant> {
        match self {
            Self::Restarting {
                since,
                rolls_back: Some(_),
                ..
            } => Some(*since + WAKE_LIMIT),
            Self::Restarting { since, .. } => Some(*since + RESTART_LIMIT),
            _ => None,
        }
    }

    /// Destroys the sandbox, if there is one. A launch under way is let come to its end first, so that it leaves nothing behind.
    pub(super) async fn destroy(&mut self) {
        let state = std::mem::replace(
            self,
            Self::Dead {
                problem: "the session ended".to_owned(),
            },
        );
        let kernel = match state {
            Self::Ready { kernel, .. } | Self::Restarting { kernel, .. } => kernel,
            Self::Launching { launch, .. } => match launch.await {
                Ok(claimed) => claimed.kernel,
                Err(_) => return,
            },
            Self::Dead { .. } => return,
        };
        let sandbox = kernel.sandbox();
        if let Err(error) = kernel.destroy().await {
            tracing::warn!(sandbox.id = %sandbox, error = %error, "a sandbox could not be removed completely");
        }
    }
}

impl Actor {
    /// Begins to make a sandbox with a kernel, once the one before it is gone: two in one workspace would be in each other's way.
    pub(super) fn launch(&mut self, reason: StartReason) {
        let (launcher, order) = (self.launcher.clone(), self.order());
        let leaving = self.leaving.take();
        let launch = Box::pin(async move {
            if let Some(leaving) = leaving {
                // What it could not remove it has said, and is tried again elsewhere.
                let _ = leaving.await;
            }
            launcher.claim(&order).await
        });
        self.kernel = KernelState::Launching {
            launch,
            reason,
            since: Instant::now(),
        };
    }

    fn order(&self) -> Order {
        Order {
            limits: self.settings.limits.clone(),
            env: self.settings.env.clone(),
            workspace: self.workspace.clone(),
        }
    }

    /// A launch has come to its end.
    pub(super) fn launched(&mut self, result: Result<Claimed, KernelError>) {
        let KernelState::Launching { reason, since, .. } = &self.kernel else {
            return;
        };
        let (reason, since) = (*reason, *since);
        match result {
            Ok(claimed) => {
                let Claimed {
                    kernel,
                    events,
                    frame,
                    python,
                    warm,
                    ..
                } = claimed;
                (self.frame, self.acknowledged) = (frame, frame);
                self.execution_count = 0;
                self.output.bytes = 0;
                self.python.clone_from(&python);
                for waiting in self.waiting_for_files.drain(..) {
                    let _ = waiting.send(Ok(kernel.files()));
                }
                self.kernel = KernelState::Ready {
                    kernel,
                    events,
                    since: Instant::now(),
                    used: false,
                };
                self.pending.push(Event::KernelStarted {
                    reason,
                    python,
                    warm,
                    took_ms: millis(since.elapsed()),
                    restored: None,
                });
            }
            Err(error) => {
                tracing::error!(session.id = %self.id, error = %crate::session::command::chain(&error), "no kernel could be started");
                self.no_kernel(crate::session::command::chain(&error));
            }
        }
    }

    /// There is no kernel, and cells that wait for one end. The next cell or a restart tries again.
    pub(super) fn no_kernel(&mut self, problem: String) {
        self.pending.push(Event::KernelFailed {
            message: problem.clone(),
        });
        self.abort_queue(&Cause::NoKernel);
        self.deny_waiting(&Denied::NoKernel(problem.clone()));
        self.kernel = KernelState::Dead { problem };
    }

    /// Something that the kernel or its agent said.
    pub(super) fn kernel_event(&mut self, event: KernelEvent) {
        self.frame = self.frame.max(event.frame);
        match event.what {
            Occurrence::Stream(name, bytes) => {
                let cell = self.showing();
                self.output.stream(&mut self.pending, cell, name, &bytes);
            }
            Occurrence::Message(message, buffers, bytes) => match *message {
                Message::Ready {
                    python,
                    execution_count,
                    ..
                } => self.restarted(python, execution_count),
                message => self.message(message, &buffers, bytes),
            },
            Occurrence::Reply(reply) => {
                if self
                    .running
                    .as_ref()
                    .is_some_and(|running| running.request_id == Some(reply.id))
                {
                    self.executed(reply);
                } else if let Some(asker) = self.asks.remove(&reply.id) {
                    let _ = asker.send(answer(reply.body));
                } else if let Some(at_seq) = self.comms.remove(&reply.id) {
                    self.comm_handled(at_seq, &reply.body);
                }
            }
            Occurrence::Usage(report) => {
                if let Some(running) = self
                    .running
                    .as_mut()
                    .filter(|running| running.request_id == Some(report.id))
                {
                    running.usage = Some(report);
                }
            }
            Occurrence::Started(start) => self.kernel_started(start),
            Occurrence::Exited(exit) => self.kernel_exited(&exit),
            Occurrence::DiskFull(report) => {
                self.notice(&format!(
                    "\nevercell: {}; files cannot grow until some are deleted\n",
                    too_much(&report)
                ));
            }
            Occurrence::MemoryHigh(report) => {
                if let Some(cell) = self.running_as(report.id) {
                    self.pending.push(Event::MemoryWarning {
                        cell,
                        used_bytes: report.used_bytes,
                        limit_bytes: report.limit_bytes,
                    });
                }
            }
            Occurrence::CpuSpent(report) => {
                if self.running_as(report.id).is_some() {
                    self.stop_cell(InterruptReason::CpuLimit);
                }
            }
            Occurrence::Checkpoint(report) => self.checkpoint_report(report),
            Occurrence::Answer(number, body) => self.answered(number, body),
            Occurrence::Nonsense(what) => self.notice(&format!("\nevercell: {what}\n")),
            Occurrence::Greeted(hello) => self.greeted(&hello),
            Occurrence::Lost(why) => self.sandbox_lost(&why),
        }
    }

    /// The kernel is done with a client's comm message.
    fn comm_handled(&mut self, at_seq: Seq, body: &serde_json::Map<String, serde_json::Value>) {
        let cell = self.running.as_ref().map(|running| running.cell);
        self.output.flush(&mut self.pending, cell);
        let error = refusal(body).map(str::to_owned);
        self.pending.push(Event::CommHandled { at_seq, error });
        if self.running.is_none() {
            self.output.bytes = 0;
        }
    }

    /// The running cell, which shows something.
    pub(super) fn showing(&mut self) -> Option<CellId> {
        let running = self.running.as_mut()?;
        running.show_progress();
        Some(running.cell)
    }

    /// The running cell, if that is what the agent means by this number.
    fn running_as(&self, request: u64) -> Option<CellId> {
        let running = self.running.as_ref()?;
        (running.request_id == Some(request)).then_some(running.cell)
    }

    /// Tells the user something on standard error.
    fn notice(&mut self, text: &str) {
        let cell = self.running.as_ref().map(|running| running.cell);
        self.output.flush(&mut self.pending, cell);
        self.output
            .stream(&mut self.pending, cell, StreamName::Stderr, text.as_bytes());
    }

    /// Has another kernel take the place of the one that is or was there: a checkpoint, if it is to go back, else a new one.
    pub(super) fn replace_kernel(&mut self, reason: StartReason, rolls_back: Option<GoingBack>) {
        let state = std::mem::replace(
            &mut self.kernel,
            KernelState::Dead {
                problem: String::new(),
            },
        );
        let (KernelState::Ready { kernel, events, .. }
        | KernelState::Restarting { kernel, events, .. }) = state
        else {
            return self.launch(reason);
        };
        let request = kernel.number();
        self.acts
            .push(replacement(request, reason, rolls_back.as_ref()));
        self.kernel = KernelState::Restarting {
            kernel,
            events,
            reason,
            since: Instant::now(),
            request,
            started: None,
            rolls_back,
        };
    }

    /// The agent says how the start of a kernel went; its `ready` comes by itself.
    pub(super) fn start_answered(&mut self, number: u64, body: &serde_json::Value) {
        if let Some(error) = body.get("error").and_then(|error| error.as_str())
            && !matches!(&self.kernel, KernelState::Restarting { request, .. } if *request == number)
        {
            return self.refused(number, Refusal::Failed(error.to_owned()));
        }
        let KernelState::Restarting {
            request,
            rolls_back,
            ..
        } = &self.kernel
        else {
            return;
        };
        if *request != number {
            return;
        }
        let rolls_back = rolls_back.is_some();
        if let Some(error) = body.get("error").and_then(|error| error.as_str()) {
            if rolls_back {
                return self.rollback_failed(error);
            }
            let problem = format!("the kernel did not start: {error}");
            self.abandon();
            self.no_kernel(problem);
        }
    }

    /// The agent has started a kernel. One that was asked for before the current request was displaced by it.
    fn kernel_started(&mut self, start: KernelStart) {
        if let KernelState::Restarting {
            request, started, ..
        } = &mut self.kernel
            && *request == start.request
        {
            *started = Some(start.kernel);
        }
    }

    /// A kernel that was started in place of another is ready.
    fn restarted(&mut self, python: String, execution_count: u32) {
        let state = std::mem::replace(
            &mut self.kernel,
            KernelState::Dead {
                problem: String::new(),
            },
        );
        let KernelState::Restarting {
            kernel,
            events,
            reason,
            since,
            request,
            // What a kernel says that is about to be replaced is not the new one's.
            started: Some(_),
            rolls_back,
        } = state
        else {
            self.kernel = state;
            return;
        };
        self.execution_count = match rolls_back {
            Some(_) => execution_count,
            None => 0,
        };
        self.python.clone_from(&python);
        self.unprotected = None;
        self.output.bytes = 0;
        let asked = rolls_back.and_then(|going_back| going_back.asked);
        let restored = match asked.as_ref().map(|asked| &asked.target) {
            Some(Target::Held(name)) => Some(name.clone()),
            _ => None,
        };
        self.kernel = KernelState::Ready {
            kernel,
            events,
            since: Instant::now(),
            used: false,
        };
        if !self.settings.env.is_empty() {
            self.tell_kernel(Request::Configure {
                env: self.settings.env.clone(),
            });
        }
        self.pending.push(Event::KernelStarted {
            reason,
            python,
            warm: false,
            took_ms: millis(since.elapsed()),
            restored,
        });
        if let Some(asked) = asked {
            self.went_back(request, *asked);
        }
    }

    /// Time has something to say about the kernel: its restart takes too long.
    pub(super) fn kernel_due(&mut self, now: Instant) {
        if self.kernel.due().is_some_and(|due| due <= now) {
            if matches!(
                self.kernel,
                KernelState::Restarting {
                    rolls_back: Some(_),
                    ..
                }
            ) {
                let why = format!("it said nothing for {} s", WAKE_LIMIT.as_secs());
                return self.rollback_failed(&why);
            }
            self.abandon();
            self.no_kernel(format!(
                "the kernel did not start within {} s",
                RESTART_LIMIT.as_secs()
            ));
        }
    }

    /// Lets go of the sandbox; it is destroyed in the background, and the next one waits for that.
    pub(super) fn abandon(&mut self) {
        self.forget_checkpoints();
        let state = std::mem::replace(
            &mut self.kernel,
            KernelState::Dead {
                problem: String::new(),
            },
        );
        if let KernelState::Ready { kernel, .. } | KernelState::Restarting { kernel, .. } = state {
            let sandbox = kernel.sandbox();
            self.leaving = Some(tokio::spawn(async move {
                if let Err(error) = kernel.destroy().await {
                    tracing::warn!(sandbox.id = %sandbox, error = %error, "a sandbox could not be removed completely");
                }
            }));
        }
    }

    /// Whoever waits for an answer of a kernel that will not give one.
    pub(super) fn deny_waiting(&mut self, denied: &Denied) {
        for (_, asker) in self.asks.drain() {
            let _ = asker.send(Err(denied.clone().into()));
        }
        if *denied != Denied::Stopping {
            let comms = std::mem::take(&mut self.comms);
            self.end_comms(comms, &denied.to_string());
        }
        for asker in self.waiting_for_files.drain(..) {
            let _ = asker.send(Err(denied.clone().into()));
        }
        self.deny_wishes(denied);
    }
}

/// How the agent is asked for another kernel.
pub(super) fn replacement(
    request: u64,
    reason: StartReason,
    rolls_back: Option<&GoingBack>,
) -> Act {
    match rolls_back {
        Some(GoingBack { asked, .. }) => {
            let target = asked.as_ref().map(|asked| asked.target.clone());
            Act::Restore(request, target.unwrap_or_default())
        }
        None if reason == StartReason::Restarted => Act::Start(request, HeldOnes::End),
        None => Act::Start(request, HeldOnes::Stay),
    }
}

/// A kernel's answer, or its refusal.
fn answer(
    body: serde_json::Map<String, serde_json::Value>,
) -> Result<serde_json::Map<String, serde_json::Value>, crate::session::SessionError> {
    match refusal(&body) {
        Some(message) => Err(Denied::Kernel(message.to_owned()).into()),
        None => Ok(body),
    }
}

/// Why the kernel refused, if it did.
fn refusal(body: &serde_json::Map<String, serde_json::Value>) -> Option<&str> {
    body.get("error")?.get("message")?.as_str()
}

/// What a workspace holds too much of.
fn too_much(report: &DiskReport) -> String {
    if report.used_bytes > report.limit_bytes {
        format!(
            "the workspace holds {} bytes, {} are allowed",
            report.used_bytes, report.limit_bytes
        )
    } else if report.entries > WORKSPACE_ENTRIES {
        format!(
            "the workspace holds {} files and directories, {WORKSPACE_ENTRIES} are allowed",
            report.entries
        )
    } else {
        format!(
            "the workspace has directories that cannot be counted: they lie deeper than the {WORKSPACE_DEPTH} levels that are allowed, or are locked"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_workspace_is_told_what_there_is_too_much_of() {
        let told = |used_bytes, entries| {
            too_much(&DiskReport {
                used_bytes,
                limit_bytes: 100,
                entries,
            })
        };
        assert_eq!(
            told(101, 1),
            "the workspace holds 101 bytes, 100 are allowed"
        );
        assert_eq!(
            told(100, 1_000_001),
            "the workspace holds 1000001 files and directories, 1000000 are allowed"
        );
        assert!(told(100, 300).contains("deeper than the 256 levels"));
    }
}
