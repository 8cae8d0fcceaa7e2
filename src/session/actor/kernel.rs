//! The life of a session's kernel: launched, restarted, lost, replaced.

use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::Actor;
use super::acts::Act;
use crate::kernel::{Claimed, Kernel, KernelError, KernelEvent, KernelEvents, Occurrence, Order};
use crate::model::event::{Cause, Event, InterruptReason, StartReason, Verdict};
use crate::model::output::StreamName;
use crate::protocol::agent::{KernelExit, WatchedLimit};
use crate::protocol::kernel::{Message, Request};
use crate::session::clock::millis;
use crate::session::command::Denied;
use crate::session::view::Status;

/// How long a restart may take before the sandbox is given up.
const RESTART_LIMIT: Duration = Duration::from_secs(60);
/// The number of the signal that a kernel is killed with; see signal(7).
const SIGKILL: i32 = 9;
/// A kernel that dies sooner than this without having run a cell would only die again.
const TOO_SOON: Duration = Duration::from_secs(5);

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
        /// How many earlier ones there are whose end is still to come.
        replaces: u32,
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
        if let Self::Restarting { since, .. } = self {
            Some(*since + RESTART_LIMIT)
        } else {
            None
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
    /// Begins to make a sandbox with a kernel.
    pub(super) fn launch(&mut self, reason: StartReason) {
        let (launcher, order) = (self.launcher.clone(), self.order());
        let launch = Box::pin(async move { launcher.claim(&order).await });
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
                });
            }
            Err(error) => {
                tracing::error!(session.id = %self.id, error = %crate::session::command::chain(&error), "no kernel could be started");
                self.no_kernel(crate::session::command::chain(&error));
            }
        }
    }

    /// There is no kernel, and cells that wait for one end. The next cell or a restart tries again.
    fn no_kernel(&mut self, problem: String) {
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
                let cell = self.running.as_ref().map(|running| running.cell);
                self.output.stream(&mut self.pending, cell, name, &bytes);
            }
            Occurrence::Message(message, buffers) => match *message {
                Message::Ready { python, .. } => self.restarted(python),
                message => self.message(message, &buffers),
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
            Occurrence::Exited(exit) => self.kernel_exited(&exit),
            Occurrence::DiskFull(report) => {
                let text = format!(
                    "\nevercell: the workspace holds {} bytes, {} are allowed; files cannot grow until some are deleted\n",
                    report.used_bytes, report.limit_bytes
                );
                self.notice(&text);
            }
            Occurrence::Answer(number, body) => self.start_answered(number, &body),
            Occurrence::Nonsense(what) => self.notice(&format!("\nevercell: {what}\n")),
            Occurrence::Greeted(hello) => self.greeted(&hello),
            Occurrence::Lost(why) => self.sandbox_lost(&why),
        }
    }

    /// Tells the user something on standard error.
    fn notice(&mut self, text: &str) {
        let cell = self.running.as_ref().map(|running| running.cell);
        self.output.flush(&mut self.pending, cell);
        self.output
            .stream(&mut self.pending, cell, StreamName::Stderr, text.as_bytes());
    }

    /// Begins to replace the kernel in the same sandbox.
    pub(super) fn restart(&mut self, reason: StartReason) {
        let replaces = match &self.kernel {
            // That one has ended already.
            KernelState::Ready { .. } if reason == StartReason::Recovered => 0,
            KernelState::Restarting { replaces, .. } => replaces + 1,
            _ => 1,
        };
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
        self.acts.push(Act::Start(request));
        self.kernel = KernelState::Restarting {
            kernel,
            events,
            reason,
            since: Instant::now(),
            request,
            replaces,
        };
    }

    /// The agent says how the start of a kernel went; its `ready` comes by itself.
    fn start_answered(&mut self, number: u64, body: &serde_json::Value) {
        let KernelState::Restarting { request, .. } = &self.kernel else {
            return;
        };
        if *request != number {
            return;
        }
        if let Some(error) = body.get("error").and_then(|error| error.as_str()) {
            let problem = format!("the kernel did not start: {error}");
            self.abandon();
            self.no_kernel(problem);
        }
    }

    /// A kernel that was started in place of another is ready.
    fn restarted(&mut self, python: String) {
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
            ..
        } = state
        else {
            self.kernel = state;
            return;
        };
        self.execution_count = 0;
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
        });
    }

    /// The kernel's process is gone.
    fn kernel_exited(&mut self, exit: &KernelExit) {
        let KernelState::Ready { since, used, .. } = &self.kernel else {
            // The one that a restart has ended, or one that died while it was being started.
            return self.exited_while_starting(exit);
        };
        let storm = !*used && since.elapsed() < TOO_SOON;
        let cause = self.cause_of(exit);
        let why = describe(&cause);
        self.lose(&cause, &why);
        if storm {
            self.abandon();
            self.no_kernel(format!("the kernel ended right after its start: {why}"));
        } else {
            self.restart(StartReason::Recovered);
        }
    }

    /// A kernel has ended while one was being started: the one that is replaced, or the new one.
    fn exited_while_starting(&mut self, exit: &KernelExit) {
        let KernelState::Restarting { replaces, .. } = &mut self.kernel else {
            return;
        };
        if let Some(fewer) = replaces.checked_sub(1) {
            *replaces = fewer;
            return;
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
            };
        }
        match self.running.as_ref().and_then(|running| running.stopping) {
            Some(stopping) if exit.signal == Some(SIGKILL) => match stopping.reason {
                InterruptReason::Requested => Cause::Interrupted,
                InterruptReason::Deadline => Cause::Deadline,
                InterruptReason::ServerStopping => Cause::ServerStopped,
            },
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

    /// The variables are gone: says so for the running cell, and for the session.
    pub(super) fn lose(&mut self, cause: &Cause, why: &str) {
        self.finish_lost(cause, why);
        self.abort_queue(&Cause::EarlierError);
        self.deny_waiting(&Denied::NoKernel(why.to_owned()));
        let state = Verdict::Lost {
            why: why.to_owned(),
        };
        self.pending.push(Event::KernelLost {
            cause: cause.clone(),
            state,
        });
    }

    /// The agent is gone, and the sandbox with it.
    pub(super) fn sandbox_lost(&mut self, why: &str) {
        if self.kernel.connected().is_none() {
            return;
        }
        tracing::warn!(session.id = %self.id, why, "a sandbox was lost");
        self.lose(&Cause::SandboxLost, "the sandbox went away");
        self.abandon();
        self.launch(StartReason::Recovered);
    }

    /// Time has something to say about the kernel: its restart takes too long.
    pub(super) fn kernel_due(&mut self, now: Instant) {
        if self.kernel.due().is_some_and(|due| due <= now) {
            self.abandon();
            self.no_kernel(format!(
                "the kernel did not start within {} s",
                RESTART_LIMIT.as_secs()
            ));
        }
    }

    /// Lets go of the sandbox; it is destroyed in the background.
    fn abandon(&mut self) {
        let state = std::mem::replace(
            &mut self.kernel,
            KernelState::Dead {
                problem: String::new(),
            },
        );
        if let KernelState::Ready { kernel, .. } | KernelState::Restarting { kernel, .. } = state {
            self.give_up(kernel);
        }
    }

    fn give_up(&self, kernel: Kernel) {
        let sandbox = kernel.sandbox();
        tokio::spawn(async move {
            if let Err(error) = kernel.destroy().await {
                tracing::warn!(sandbox.id = %sandbox, error = %error, "a sandbox could not be removed completely");
            }
        });
    }

    /// Whoever waits for an answer of a kernel that will not give one.
    pub(super) fn deny_waiting(&mut self, denied: &Denied) {
        for (_, asker) in self.asks.drain() {
            let _ = asker.send(Err(denied.clone().into()));
        }
        for asker in self.waiting_for_files.drain(..) {
            let _ = asker.send(Err(denied.clone().into()));
        }
    }
}

/// A kernel's answer, or its refusal.
fn answer(
    body: serde_json::Map<String, serde_json::Value>,
) -> Result<serde_json::Map<String, serde_json::Value>, crate::session::SessionError> {
    match body
        .get("error")
        .and_then(|error| error.get("message"))
        .and_then(|message| message.as_str())
    {
        Some(message) => Err(Denied::Kernel(message.to_owned()).into()),
        None => Ok(body),
    }
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
            "the kernel was killed: the cell did not stop at its deadline".to_owned()
        }
        Cause::Interrupted => {
            "the kernel was killed: the cell did not stop when it was interrupted".to_owned()
        }
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
