//! Keeps a zygote alive: starts it, waits until it is ready, starts it again when it dies, ends it with the server.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, sleep, timeout};

use super::house::House;
use super::seccomp::{self, Audience};
use super::step::Status;
use crate::sandbox::SandboxError;

/// The socket on which a zygote listens, in its directory.
pub(super) const SOCKET: &str = "zygote.sock";
/// How the house is made.
pub(super) const SPEC: &str = "house.json";
/// The filter of kernels, base64.
pub(super) const FILTER: &str = "kernel.seccomp";
/// The filter of agents, base64.
pub(super) const AGENT_FILTER: &str = "agent.seccomp";
/// The filter of the zygote, base64.
pub(super) const HOUSE_FILTER: &str = "house.seccomp";
/// What the zygote writes to its standard error.
const LOG: &str = "zygote.log";

/// Importing everything takes seconds on a cold disk.
const READY_WITHIN: Duration = Duration::from_secs(120);
/// A zygote that lived this long is started again at once when it dies.
const PROVEN: Duration = Duration::from_secs(60);
/// The first pause before a zygote that died early is started again; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// A zygote and who keeps it alive.
#[derive(Debug)]
pub(super) struct Zygote {
    /// The user namespace of the house; it lives on when the zygote is replaced.
    house: Arc<OwnedFd>,
    alive: watch::Receiver<State>,
    /// Ends the supervisor and so the zygote.
    stop: Mutex<Option<tokio::task::JoinHandle<()>>>,
    stopping: watch::Sender<bool>,
}

#[derive(Clone, Debug)]
enum State {
    /// The first one of a server that has found sandboxes, which do not need it yet.
    Starting,
    Alive {
        pid: u32,
    },
    Dead {
        why: String,
    },
}

/// One zygote that is running.
struct Running {
    child: Child,
    /// The zygote ends when this is closed.
    lifeline: UnixStream,
}

/// How zygotes are started.
#[derive(Clone, Debug)]
pub(super) struct Starter {
    /// The program, which knows `zygote-init`.
    pub(super) program: PathBuf,
    /// The zygote's directory.
    pub(super) directory: PathBuf,
}

impl Zygote {
    /// Writes down how the house is made and starts a zygote, in `house` if there is one already. Returns when it is ready, or at once if there
    /// is a house: then sandboxes are there that can be used without it.
    pub(super) async fn start(
        starter: Starter,
        spec: &House,
        house: Option<OwnedFd>,
    ) -> Result<Self, SandboxError> {
        starter
            .write(spec)
            .map_err(|error| cannot("prepare the zygote's directory", &error))?;
        let (first, house, state) = match house {
            Some(house) => (None, house, State::Starting),
            None => {
                let running = starter.start(None).await?;
                let pid = running.child.id().unwrap_or_default();
                let house = fs::File::open(format!("/proc/{pid}/ns/user"))
                    .map_err(|error| cannot("open the user namespace of the zygote", &error))?;
                (Some(running), house.into(), State::Alive { pid })
            }
        };
        let house = Arc::new(house);
        let (state, alive) = watch::channel(state);
        let (stopping, stopped) = watch::channel(false);
        let task = tokio::spawn(supervise(
            starter,
            Arc::clone(&house),
            first,
            state,
            stopped,
        ));
        Ok(Self {
            house,
            alive,
            stop: Mutex::new(Some(task)),
            stopping,
        })
    }

    /// A descriptor of the house's user namespace.
    pub(super) fn house(&self) -> io::Result<OwnedFd> {
        self.house.try_clone()
    }

    /// Waits for the first one, if it is being started.
    pub(super) async fn begun(&self) {
        let mut alive = self.alive.clone();
        // An error says that the supervisor is gone: then it is not alive.
        let _ = alive
            .wait_for(|state| !matches!(state, State::Starting))
            .await;
    }

    /// The pid of the zygote, or why there is none.
    pub(super) fn pid(&self) -> Result<u32, SandboxError> {
        match &*self.alive.borrow() {
            State::Alive { pid } => Ok(*pid),
            State::Starting => Err(SandboxError::Environment {
                why: "the process that all kernels are forked from is being started".into(),
                hint: "try again in a moment".into(),
            }),
            State::Dead { why } => Err(SandboxError::Environment {
                why: format!("the process that all kernels are forked from has died: {why}"),
                hint: "it is started again by itself; if this stays, run `make env`, then `evercell doctor`".into(),
            }),
        }
    }

    /// How much of its address space it may write to (`VmData` of proc_pid_status(5)); 0 where that is not known.
    pub(super) fn data_bytes(&self) -> u64 {
        let State::Alive { pid } = &*self.alive.borrow() else {
            return 0;
        };
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status
            .lines()
            .find_map(|line| {
                line.strip_prefix("VmData:")?
                    .trim()
                    .strip_suffix(" kB")?
                    .parse::<u64>()
                    .ok()
            })
            .map_or(0, |kib| kib * 1024)
    }

    /// Ends it and waits for its end.
    pub(super) async fn stop(&self) {
        self.stopping.send_replace(true);
        if let Some(task) = self.stop.lock().await.take() {
            // The supervisor kills what does not end by itself; it cannot fail otherwise.
            let _ = task.await;
        }
    }
}

async fn supervise(
    starter: Starter,
    house: Arc<OwnedFd>,
    first: Option<Running>,
    state: watch::Sender<State>,
    mut stopped: watch::Receiver<bool>,
) {
    let mut pause = FIRST_PAUSE;
    let mut running = match first {
        Some(running) => running,
        None => {
            let Some(running) = start_again(
                &starter,
                &house,
                &state,
                &mut stopped,
                &mut pause,
                Duration::ZERO,
            )
            .await
            else {
                return;
            };
            running
        }
    };
    loop {
        let started = Instant::now();
        let ended = tokio::select! {
            ended = running.child.wait() => ended,
            () = told_to(&mut stopped) => return end(running).await,
        };
        let why = describe(&starter, ended);
        tracing::warn!(%why, "the zygote died and is started again");
        state.send_replace(State::Dead { why });
        if started.elapsed() >= PROVEN {
            pause = FIRST_PAUSE;
        }
        let wait = pause;
        let next = start_again(&starter, &house, &state, &mut stopped, &mut pause, wait).await;
        let Some(next) = next else {
            return;
        };
        running = next;
    }
}

/// Starts a zygote after `wait`, and again until one starts; none when it is to end.
async fn start_again(
    starter: &Starter,
    house: &OwnedFd,
    state: &watch::Sender<State>,
    stopped: &mut watch::Receiver<bool>,
    pause: &mut Duration,
    mut wait: Duration,
) -> Option<Running> {
    loop {
        tokio::select! {
            () = sleep(wait) => {}
            () = told_to(stopped) => return None,
        }
        *pause = (*pause * 2).min(LONGEST_PAUSE);
        wait = *pause;
        let next = tokio::select! {
            next = starter.start(Some(house)) => next,
            () = told_to(stopped) => return None,
        };
        match next {
            Ok(next) => {
                let pid = next.child.id().unwrap_or_default();
                state.send_replace(State::Alive { pid });
                return Some(next);
            }
            Err(error) => {
                tracing::error!(%error, pause_ms = wait.as_millis(), "the zygote does not start");
                let why = error.to_string();
                state.send_replace(State::Dead { why });
            }
        }
    }
}

/// Waits until the zygote is to end.
async fn told_to(stopped: &mut watch::Receiver<bool>) {
    // An error says that the backend itself is gone, which means the same.
    let _ = stopped.wait_for(|stop| *stop).await;
}

async fn end(mut running: Running) {
    const GRACE: Duration = Duration::from_secs(1);
    drop(running.lifeline);
    if timeout(GRACE, running.child.wait()).await.is_err() {
        let _ = running.child.kill().await;
    }
}

impl Starter {
    fn write(&self, spec: &House) -> io::Result<()> {
        let encode = |bytes| base64::engine::general_purpose::STANDARD.encode(bytes);
        let filter = |audience| {
            seccomp::filter(audience)
                .map(encode)
                .map_err(|error| error.source)
        };
        fs::create_dir_all(&self.directory)?;
        // Agents and sandboxes reach the directory by an open descriptor, with ids that are nobody's here.
        fs::set_permissions(
            &self.directory,
            std::os::unix::fs::PermissionsExt::from_mode(0o711),
        )?;
        fs::write(self.directory.join(FILTER), filter(Audience::Kernel)?)?;
        fs::write(self.directory.join(AGENT_FILTER), filter(Audience::Agent)?)?;
        fs::write(self.directory.join(HOUSE_FILTER), filter(Audience::House)?)?;
        fs::write(self.directory.join(SPEC), serde_json::to_vec(spec)?)
    }

    async fn start(&self, house: Option<&OwnedFd>) -> Result<Running, SandboxError> {
        let failed = |error: io::Error| cannot("start the zygote", &error);
        let (ours, theirs) = StdUnixStream::pair().map_err(failed)?;
        ours.set_nonblocking(true).map_err(failed)?;
        let mut lifeline = UnixStream::from_std(ours).map_err(failed)?;
        let log = fs::File::create(self.directory.join(LOG)).map_err(failed)?;
        let joined = match house {
            Some(house) => Stdio::from(house.try_clone().map_err(failed)?),
            None => Stdio::null(),
        };
        let mut command = Command::new(&self.program);
        command
            .arg("zygote-init")
            .arg(&self.directory)
            .stdin(OwnedFd::from(theirs))
            .stdout(joined)
            .stderr(log)
            .kill_on_drop(true);
        if house.is_some() {
            command.arg("--join");
        }
        let mut child = command.spawn().map_err(failed)?;
        // It holds our copy of the other end of the lifeline.
        drop(command);

        let mut line = String::new();
        let read = timeout(
            READY_WITHIN,
            BufReader::new(&mut lifeline).read_line(&mut line),
        )
        .await;
        match read {
            Err(_) => Err(SandboxError::Environment {
                why: format!(
                    "importing the libraries took more than {} s",
                    READY_WITHIN.as_secs()
                ),
                hint: "is this machine very busy, or its disk very slow?".into(),
            }),
            Ok(Err(error)) => Err(failed(error)),
            Ok(Ok(0)) => {
                let ended = child.wait().await;
                Err(SandboxError::Environment {
                    why: describe(self, ended),
                    hint: "make the environment anew with `make env`".into(),
                })
            }
            Ok(Ok(_)) => self.judge(&line, child, lifeline),
        }
    }

    fn judge(
        &self,
        line: &str,
        child: Child,
        lifeline: UnixStream,
    ) -> Result<Running, SandboxError> {
        match serde_json::from_str::<Status>(line) {
            Ok(Status::Failed { step, text, .. }) if step.starts_with("execute ") => {
                Err(SandboxError::Environment {
                    why: format!("cannot {step}: {text}"),
                    hint: "make the environment anew with `make env`".into(),
                })
            }
            Ok(Status::Failed { step, text, .. }) => Err(SandboxError::CannotIsolate {
                missing: format!("cannot {step}: {text}"),
                hint: "`evercell doctor` shows what this host lacks and how to get it".into(),
            }),
            // Anything else comes from Python and says that it is ready.
            _ => {
                tracing::debug!(ready = line.trim_end(), "the zygote is ready");
                Ok(Running { child, lifeline })
            }
        }
    }
}

/// How a zygote ended, with the end of what it had to say.
fn describe(starter: &Starter, ended: io::Result<std::process::ExitStatus>) -> String {
    let how = match ended {
        Ok(status) => status.to_string(),
        Err(error) => error.to_string(),
    };
    match tail(&starter.directory.join(LOG)) {
        Some(log) => format!("{how}\n{log}"),
        None => how,
    }
}

/// The last lines of a log.
pub(super) fn tail(log: &Path) -> Option<String> {
    const BYTES: usize = 4096;
    let bytes = fs::read(log).ok()?;
    let text = String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(BYTES)..]);
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

fn cannot(step: &str, error: &io::Error) -> SandboxError {
    SandboxError::CannotIsolate {
        missing: format!("cannot {step}: {error}"),
        hint: "`evercell doctor` shows what this host lacks and how to get it".into(),
    }
}
