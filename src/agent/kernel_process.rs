//! One kernel: its process, its descriptors, its beginning and its end.

mod exec;
mod zygote;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::process::{Pid, WaitStatus};
use serde_json::Value;
use tokio::io::unix::AsyncFd;
use tokio::time::{Duration, Instant};

use super::KernelSource;
use super::capture::{Capture, KernelEnds};
use super::checkpoints::{Nursery, Twin};
use super::init;
use super::requests::Requests;
use super::ring::Violation;
use crate::protocol::agent::{CANCEL, CANCEL_SIGNAL, WatchedLimit};

/// How long killed processes are waited for. One that hangs in the system for longer is given up.
const LAST_WAIT: Duration = Duration::from_secs(5);

/// How often the kill is repeated meanwhile.
pub(crate) const KILL_AGAIN: Duration = Duration::from_millis(100);

/// A kernel.
#[derive(Debug)]
pub(crate) struct Kernel {
    /// The first of the sandbox is 1.
    pub(crate) number: u64,
    /// Its output.
    pub(crate) capture: Capture,
    /// Its input.
    pub(crate) requests: Requests,
    /// Where its twins announce themselves.
    pub(crate) nursery: Nursery,
    /// Its process, once it is known.
    pub(crate) pid: Option<Pid>,
    /// How it ended, once it has.
    pub(crate) status: Option<WaitStatus>,
    /// The watched limit for which it was killed.
    pub(crate) limit: Option<WatchedLimit>,
    /// The violation for which it was killed.
    pub(crate) violation: Option<Violation>,
    /// How many kills for lack of memory there were when it, or its last execution, began.
    pub(crate) oom_kills: u64,
    process: Option<AsyncFd<OwnedFd>>,
    ending: Option<Ending>,
}

#[derive(Clone, Copy, Debug)]
struct Ending {
    since: Instant,
    /// Whether no process is left.
    alone: bool,
}

/// The kernel's ends of everything, to be given to its process.
#[derive(Debug)]
pub(crate) struct Ends {
    output: KernelEnds,
    control: OwnedFd,
    twins: OwnedFd,
}

/// Why there is no new kernel.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// The descriptors could not be made.
    #[error("cannot make the descriptors of a kernel: {0}")]
    Descriptors(#[source] io::Error),
    /// The zygote cannot be reached.
    #[error("cannot ask the zygote for a kernel: {0}")]
    Zygote(#[source] io::Error),
    /// It says no.
    #[error("the zygote cannot make a kernel: {0}")]
    Refused(String),
    /// It says nothing.
    #[error("the zygote did not make a kernel within {0} s")]
    TimedOut(u64),
    /// The program does not start.
    #[error("cannot start `{program}`: {source}")]
    Exec {
        /// Which program.
        program: String,
        /// What the system said.
        source: io::Error,
    },
    /// The twin that was to take its place is not there.
    #[error("the checkpoint cannot be woken: {0}")]
    Twin(#[source] io::Error),
    /// It was killed while it was being started.
    #[error("the kernel was ended before it had started")]
    Ended,
}

impl Ends {
    /// By the names of `kernel-image/PROTOCOL.md`.
    pub(super) fn named(&self) -> [(&'static str, &OwnedFd); 7] {
        [
            ("control", &self.control),
            ("ring", &self.output.ring),
            ("doorbell", &self.output.doorbell),
            ("space", &self.output.space),
            ("stdout", &self.output.stdout),
            ("stderr", &self.output.stderr),
            ("twins", &self.twins),
        ]
    }
}

impl Kernel {
    /// Makes all but the process.
    pub(crate) fn prepare(number: u64, oom_kills: u64) -> Result<(Self, Ends), StartError> {
        let (capture, output) = Capture::create().map_err(StartError::Descriptors)?;
        let (requests, control) = Requests::create().map_err(StartError::Descriptors)?;
        let (nursery, twins) = Nursery::create().map_err(StartError::Descriptors)?;
        let kernel = Self {
            number,
            capture,
            requests,
            nursery,
            pid: None,
            status: None,
            limit: None,
            violation: None,
            oom_kills,
            process: None,
            ending: None,
        };
        let ends = Ends {
            output,
            control,
            twins,
        };
        Ok((kernel, ends))
    }

    /// Takes note of its process.
    pub(crate) fn started(&mut self, pid: Pid) {
        self.pid = Some(pid);
        // PID 1 hears of all its children by SIGCHLD; other processes may have their signals taken elsewhere.
        self.process = (!init::is_pid_one())
            .then(|| init::watch_process(pid))
            .flatten();
    }

    /// Whether requests make sense.
    pub(crate) fn is_alive(&self) -> bool {
        self.ending.is_none()
    }

    /// Waits for the end of its process, where that is not told by a signal.
    pub(crate) async fn exited(&self) {
        match &self.process {
            Some(process) if self.status.is_none() => {
                if process.readable().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
            _ => std::future::pending().await,
        }
    }

    /// SIGINT to its process only, or the signal that cancels.
    pub(crate) fn interrupt(&self, means: &[u8]) {
        let (Some(pid), None, true) = (self.pid, &self.status, self.is_alive()) else {
            return;
        };
        let signal = match means {
            CANCEL => CANCEL_SIGNAL,
            _ => libc::SIGINT,
        };
        // SAFETY: takes numbers only, of a process that was not reaped yet. rustix has no names for real-time signals.
        unsafe {
            libc::kill(pid.as_raw_nonzero().get(), signal);
        }
    }

    /// Ends it, with everything it has started but those `spared`.
    pub(crate) fn end(&mut self, spared: &[Pid]) {
        init::kill_everybody(self.pid, self.status.is_some(), spared);
        self.ending.get_or_insert(Ending {
            since: Instant::now(),
            alone: false,
        });
    }

    /// Whether killed processes are still to be waited for.
    pub(crate) fn is_lingering(&self) -> bool {
        self.ending.is_some_and(|ending| !ending.alone)
    }

    /// Kills once more what is still there; gives up in the end.
    pub(crate) fn end_again(&mut self, spared: &[Pid]) {
        if let Some(ending) = &mut self.ending
            && !ending.alone
        {
            init::kill_everybody(self.pid, self.status.is_some(), spared);
            ending.alone = ending.since.elapsed() > LAST_WAIT;
        }
    }

    /// Takes note that no process is left in the sandbox.
    pub(crate) fn is_alone(&mut self) {
        if let Some(ending) = &mut self.ending {
            ending.alone = true;
        }
    }

    /// Whether nobody is left who could write.
    pub(crate) fn is_silent(&self) -> bool {
        self.ending.is_some_and(|ending| ending.alone)
    }
}

/// Lets a twin be the process of a kernel. Returns its number in this pid namespace.
pub(crate) async fn wake(twin: Twin, ends: Ends) -> Result<Pid, StartError> {
    twin.wake(&ends).map_err(StartError::Twin)
}

/// Starts the process of a kernel. Returns its number in this pid namespace.
pub(crate) async fn start(
    source: Arc<KernelSource>,
    jail: Arc<Value>,
    ends: Ends,
) -> Result<Pid, StartError> {
    match &*source {
        KernelSource::Zygote {
            directory,
            namespaces,
            cgroups,
        } => {
            let limit = zygote::LIMIT;
            let asked = zygote::ask(directory, namespaces, cgroups, &jail, &ends);
            tokio::time::timeout(limit, asked)
                .await
                .unwrap_or(Err(StartError::TimedOut(limit.as_secs())))
        }
        KernelSource::Exec { argv } => exec::start(argv, &jail, &ends),
    }
}
