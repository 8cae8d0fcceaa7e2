//! The one loop: whatever happens in the sandbox or comes from the server is handled here, one after the other.
//!
//! Waiting and doing are separate. [`Supervisor::next`] only waits until something can be done; everything that is done is plain code that
//! does not wait. So no state is ever seen in between, and nothing can be lost by cancelling a future.

mod checkpoints;
mod commands;
mod life;

use std::io;
use std::sync::Arc;

use rustix::process::{Pid, WaitStatus};
use tokio::net::UnixListener;
use tokio::task::JoinHandle;
use tokio::time::{Duration, Instant};

use self::checkpoints::Copying;
use super::checkpoints::{Checkpoints, Twin};
use super::greeting::{Door, Guest};
use super::init::{self, Signals};
use super::kernel_process::{KILL_AGAIN, Kernel, StartError};
use super::outbox::Outbox;
use super::relay::{Control, RelayError};
use super::requests::Executing;
use super::usage::Meter;
use super::watch::{Finding, Watch};
use super::workspace::Workspace;
use super::{AgentError, ExitReason, KernelSource, Setup};
use crate::model::id::SandboxId;
use crate::protocol::GENERATION;
use crate::protocol::agent::{AgentConfig, AgentHello, Kind, UsageReport};
use crate::protocol::checkpoints::HeldOnes;

/// How much is kept for the server, in bytes. Beyond it nothing more is read from the kernel, so that it waits when it writes.
const OUTBOX: usize = 8 * 1024 * 1024;

/// How long an orderly end may take.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// Memory that was needed for a flood is given back after so long.
const TRIM: Duration = Duration::from_secs(1);

/// The agent.
#[derive(Debug)]
pub(crate) struct Supervisor {
    sandbox: SandboxId,
    source: Arc<KernelSource>,
    jail: Arc<serde_json::Value>,
    config: AgentConfig,
    meter: Meter,
    workspace: Arc<Workspace>,
    watch: Watch,
    signals: Signals,
    door: Door,
    outbox: Outbox,
    control: Option<Control>,
    /// Counts control connections: an answer goes to the one that asked.
    connection: u64,
    /// Since when there is no control connection.
    orphan_since: Instant,
    kernel: Option<Kernel>,
    /// How many were started.
    kernels: u64,
    /// The highest number of the requests that have arrived, and of the executions: what a server sends again is not done again.
    last_request: u64,
    last_execution: u64,
    starting: Option<Starting>,
    /// What a kernel can be replaced by, with all it had.
    checkpoints: Checkpoints,
    /// The one to which it is about to go back.
    copying: Option<Copying>,
    /// Who asked for the kernel that is to be there when the current one is gone.
    wanted: Option<Wanted>,
    reaped: Vec<(Pid, WaitStatus)>,
    ending: Option<(ExitReason, Instant)>,
    kill_again: Option<Instant>,
    trim: Option<Instant>,
    /// The frame whose line was waited for last.
    lingered: Option<u64>,
    /// There is more to do at once.
    more: bool,
}

/// Who waits for an answer.
#[derive(Clone, Copy, Debug)]
struct Asker {
    connection: u64,
    number: u64,
}

/// A kernel that is wanted.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    asker: Asker,
    origin: Origin,
}

/// Where a kernel comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// A new one, which has nothing.
    New(HeldOnes),
    /// The newest checkpoint.
    Newest,
    /// The checkpoint that was chosen.
    Chosen,
}

#[derive(Debug)]
struct Starting {
    asker: Asker,
    task: JoinHandle<Result<Pid, StartError>>,
}

/// What can be done now.
#[derive(Debug)]
enum Event {
    /// Children may have ended.
    Children,
    /// SIGTERM from outside.
    Terminate,
    /// A connection has said hello.
    Guest(Box<Guest>),
    /// The server has sent something.
    Received,
    /// The start of a kernel has come to its end.
    Started(Result<Pid, StartError>),
    /// A checkpoint was copied, or was not.
    Copied(io::Result<Twin>),
    /// An operation on files has ended.
    Files,
    /// Something that the next round of the loop does anyway.
    Round,
}

impl Supervisor {
    /// Prepares everything. Within a runtime.
    pub(crate) fn new(setup: Setup) -> Result<Self, AgentError> {
        let signals = Signals::take_over().map_err(AgentError::Signals)?;
        let listener = std::os::unix::net::UnixListener::from(setup.listener);
        let listener = listener
            .set_nonblocking(true)
            .and_then(|()| UnixListener::from_std(listener))
            .map_err(AgentError::Listener)?;
        let workspace =
            Workspace::open(&setup.workspace, setup.config.workspace_bytes, &setup.jail).map_err(
                |source| AgentError::Workspace {
                    path: setup.workspace.clone(),
                    source: source.into(),
                },
            )?;
        let workspace = Arc::new(workspace);
        Ok(Self {
            sandbox: setup.sandbox,
            source: Arc::new(setup.kernels),
            jail: Arc::new(setup.jail),
            config: setup.config,
            meter: Meter::new(setup.gauges),
            watch: Watch::new(Arc::clone(&workspace)),
            workspace,
            signals,
            door: Door::new(listener, setup.visitors),
            outbox: Outbox::new(OUTBOX),
            control: None,
            connection: 0,
            orphan_since: Instant::now(),
            kernel: None,
            kernels: 0,
            last_request: 0,
            last_execution: 0,
            starting: None,
            checkpoints: Checkpoints::default(),
            copying: None,
            wanted: None,
            reaped: Vec::new(),
            ending: None,
            kill_again: None,
            trim: None,
            lingered: None,
            more: false,
        })
    }

    /// Runs until the end of the sandbox.
    pub(crate) async fn run(mut self) -> ExitReason {
        loop {
            self.pump();
            self.flush();
            self.look();
            if let Some(reason) = self.is_over() {
                self.kill_everybody();
                return reason;
            }
            match self.next().await {
                Event::Children => self.reap(),
                Event::Terminate => self.end(ExitReason::Terminated),
                Event::Guest(guest) => self.welcome(*guest),
                Event::Received => self.receive(),
                Event::Started(result) => self.started(result),
                Event::Copied(result) => self.copied(result),
                Event::Files => self.watch.soon(),
                Event::Round => {}
            }
        }
    }

    /// Waits until something can be done.
    async fn next(&mut self) -> Event {
        let deadline = self.deadline();
        let listens = self.starting.is_none() && !self.outbox.is_full();
        let Self {
            signals,
            door,
            control,
            kernel,
            starting,
            copying,
            outbox,
            ..
        } = self;
        let kernel = kernel.as_ref();
        let control = control.as_ref();
        let files_done = Arc::clone(&door.files_done);
        tokio::select! {
            terminate = signals.next() => if terminate { Event::Terminate } else { Event::Children },
            guest = door.next() => Event::Guest(Box::new(guest)),
            () = files_done.notified() => Event::Files,
            Some(()) = maybe(control.map(Control::readable)) => Event::Received,
            Some(()) = maybe(control.map(|control| control.flushable(outbox))) => Event::Round,
            Some(()) = maybe(kernel.map(|kernel| kernel.capture.rest.wait())), if listens => Event::Round,
            Some(()) = maybe(kernel.map(|kernel| kernel.capture.readable())), if listens => Event::Round,
            Some(()) = maybe(kernel.map(|kernel| kernel.requests.flushable())) => Event::Round,
            Some(()) = maybe(kernel.map(|kernel| kernel.nursery.readable())), if listens => Event::Round,
            Some(()) = maybe(kernel.map(Kernel::exited)) => Event::Children,
            Some(result) = maybe(starting.as_mut().map(|starting| &mut starting.task)) => {
                Event::Started(result.unwrap_or(Err(StartError::Ended)))
            }
            Some(result) = maybe(copying.as_mut().map(|copying| &mut copying.task)) => {
                Event::Copied(result.unwrap_or_else(|error| Err(io::Error::other(error))))
            }
            () = tokio::task::yield_now(), if self.more => Event::Round,
            Some(()) = maybe(deadline.map(tokio::time::sleep_until)) => Event::Round,
        }
    }

    /// When to go on even if nothing happens.
    fn deadline(&self) -> Option<Instant> {
        let orphaned = self.orphaned_at();
        let ending = self.ending.map(|(_, until)| until);
        [
            self.watch.next(),
            orphaned,
            ending,
            self.kill_again,
            self.trim,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// When the sandbox ends because no server has come back; never while there is one.
    fn orphaned_at(&self) -> Option<Instant> {
        let limit = Duration::from_millis(self.config.orphan_ms);
        self.orphan_since
            .checked_add(limit)
            .filter(|_| self.control.is_none())
    }

    /// Frames what the kernel has put out, and buries it once it is dead and everything is out.
    fn pump(&mut self) {
        self.more = false;
        let Some(kernel) = &mut self.kernel else {
            return;
        };
        kernel.requests.flush();
        if self.starting.is_some() {
            // What it says comes after the news that it was started.
            self.outbox.hold(false);
            return;
        }
        let (pid, silent) = (kernel.pid, kernel.is_silent());
        let was_executing = kernel.requests.executing().is_some();
        let (capture, requests, meter) = (&mut kernel.capture, &mut kernel.requests, &self.meter);
        let checkpoints = &self.checkpoints;
        let mut on_reply = |reply: &[u8]| {
            let report = requests.answered(reply, pid, meter)?;
            Ok(report.map(|report| UsageReport {
                checkpoint: checkpoints.behind(report.id),
                ..report
            }))
        };
        let result = if silent {
            capture.pump_rest(&mut self.outbox, &mut on_reply)
        } else {
            capture.pump(&mut self.outbox, &mut on_reply)
        };
        let has_executed = was_executing && requests.executing().is_none();
        self.more = match result {
            Ok(more) => more,
            Err(violation) => {
                kernel.violation.get_or_insert(violation);
                self.end_kernel();
                true
            }
        };
        if has_executed {
            self.watch.soon();
            self.make_room();
        }
        if !self.more && !self.outbox.is_full() {
            self.take_in_twins();
        }
        self.settle();
    }

    /// Waits for the kernel, or for the server, or buries the kernel.
    fn settle(&mut self) {
        self.outbox.hold(false);
        let Some(kernel) = &mut self.kernel else {
            return;
        };
        if self.more {
            return;
        }
        if self.outbox.is_full() {
            kernel.capture.ignore_doorbell();
        } else if kernel.is_silent() {
            self.bury();
            self.more = true;
        } else {
            // Each frame waits once, so that a line without end is not held back.
            let line = self.outbox.unfinished_line();
            let within_line = line.is_some() && line != self.lingered;
            self.more = !kernel.capture.settle(within_line);
            if kernel.capture.rest.is_lingering() {
                self.lingered = line;
                self.outbox.hold(true);
            }
        }
    }

    /// Sends what can be sent.
    fn flush(&mut self) {
        if let Some(control) = &mut self.control
            && control.flush(&mut self.outbox).is_err()
        {
            self.hang_up();
        }
    }

    /// Looks after limits and clocks.
    fn look(&mut self) {
        let now = Instant::now();
        if self.kill_again.is_some_and(|at| at <= now) {
            self.kill_again = None;
            if let Some(kernel) = &mut self.kernel
                // Before its process is known, there is nobody to wait for.
                && self.starting.is_none()
            {
                kernel.end_again(&self.checkpoints.pids());
                self.kill_again = kernel.is_lingering().then(|| now + KILL_AGAIN);
                self.more = true;
            }
        }
        match self.trim {
            None if self.outbox.is_fat() => self.trim = Some(now + TRIM),
            Some(at) if at <= now => {
                self.trim = None;
                self.outbox.trim();
            }
            _ => {}
        }
        let pid = self
            .kernel
            .as_ref()
            .filter(|kernel| kernel.is_alive())
            .and_then(|kernel| kernel.pid);
        let executing = self.executing();
        let twins = self.checkpoints.pids();
        let found = self
            .watch
            .look(pid, executing, &mut self.meter, &self.config, &twins);
        let found = found.or_else(|| {
            let done = self.watch.go_on();
            done.then(|| self.watch.conclude(pid, &self.config, &twins))
                .flatten()
        });
        self.more |= self.watch.is_scanning();
        match found {
            None => {}
            Some(Finding::DiskFull(report)) => self.report(Kind::DiskFull, &report),
            Some(Finding::CpuSpent(report)) => self.report(Kind::CpuSpent, &report),
            Some(Finding::MemoryHigh(report)) => self.report(Kind::MemoryHigh, &report),
            Some(Finding::Exceeded(limit)) => {
                if let Some(kernel) = &mut self.kernel {
                    kernel.limit.get_or_insert(limit);
                }
                self.end_kernel();
            }
        }
    }

    /// Tells the server of a finding.
    fn report(&mut self, kind: Kind, report: &impl serde::Serialize) {
        let json = serde_json::to_vec(report).expect("a report is made of numbers");
        self.outbox.push(kind, &json);
        self.more = true;
    }

    /// Whether the sandbox has come to its end.
    fn is_over(&self) -> Option<ExitReason> {
        let now = Instant::now();
        if let Some((reason, until)) = self.ending {
            let said = self
                .control
                .as_ref()
                .is_none_or(|control| control.is_done(&self.outbox));
            let gone = self.kernel.is_none() && self.starting.is_none();
            return (until <= now || (gone && said)).then_some(reason);
        }
        self.orphaned_at()
            .is_some_and(|at| at <= now)
            .then_some(ExitReason::Orphaned)
    }

    /// Takes in a new connection.
    fn welcome(&mut self, guest: Guest) {
        let hello = AgentHello {
            generation: GENERATION,
            sandbox: self.sandbox,
            last: self.outbox.last(),
            kernels: self.kernels,
            alive: self.kernel.as_ref().is_some_and(Kernel::is_alive) && self.starting.is_none(),
            executing: self.executing().map(|execution| execution.id),
            starting: self.starting.is_some() || self.wanted.is_some() || self.copying.is_some(),
            last_request: self.last_request,
            last_execution: self.last_execution,
        };
        if !guest.wants_control() {
            let workspace = Arc::clone(&self.workspace);
            self.door.serve_files(guest, &hello, workspace);
            return;
        }
        // The newest frame's number is told now, so it must not grow any more.
        self.outbox.close_text();
        self.outbox.ack(guest.hello.resume_after);
        let cursor = self.outbox.cursor_after(guest.hello.resume_after);
        let mut control = Control::new(guest.stream, guest.received, cursor);
        self.connection += 1;
        if control.answer_json(0, Kind::AgentHello, 0, &hello).is_ok() {
            self.control = Some(control);
            // It may have sent more than its hello.
            self.receive_requests();
        }
    }

    fn receive(&mut self) {
        let Some(control) = &mut self.control else {
            return;
        };
        match control.receive() {
            Ok(()) => self.receive_requests(),
            Err(_) => self.hang_up(),
        }
    }

    fn receive_requests(&mut self) {
        while let Some(control) = &mut self.control {
            match control.next_request() {
                Ok(Some(frame)) => self.obey(frame),
                Ok(None) => return,
                Err(_) => self.hang_up(),
            }
        }
    }

    /// Goes on without a server.
    fn hang_up(&mut self) {
        if self.control.take().is_some() {
            self.orphan_since = Instant::now();
        }
    }

    fn executing(&self) -> Option<Executing> {
        self.kernel.as_ref()?.requests.executing()
    }

    fn kill_everybody(&mut self) {
        self.checkpoints.clear(HeldOnes::End);
        let kernel = self.kernel.as_ref();
        init::kill_everybody(
            kernel.and_then(|kernel| kernel.pid),
            kernel.is_some_and(|kernel| kernel.status.is_some()),
            &[],
        );
    }

    /// Ends the sandbox in order.
    fn end(&mut self, reason: ExitReason) {
        if self.ending.is_none() {
            self.ending = Some((reason, Instant::now() + LAST_WORDS));
            self.wanted = None;
            self.copying = None;
            self.checkpoints.clear(HeldOnes::End);
            self.end_kernel();
        }
    }

    fn with_control(&mut self, act: impl FnOnce(&mut Control) -> Result<(), RelayError>) {
        if let Some(control) = &mut self.control
            && act(control).is_err()
        {
            self.hang_up();
        }
    }

    fn answer(&mut self, asker: Asker, content: &serde_json::Value) {
        if asker.connection == self.connection {
            let after = self.outbox.last();
            self.with_control(|control| {
                control.answer_json(after, Kind::Answer, asker.number, content)
            });
        }
    }

    fn answer_error(&mut self, asker: Asker, error: &str) {
        self.answer(asker, &serde_json::json!({ "error": error }));
    }
}

/// What a future gives if there is one; nothing at once otherwise.
async fn maybe<F: Future>(future: Option<F>) -> Option<F::Output> {
    match future {
        Some(future) => Some(future.await),
        None => None,
    }
}
