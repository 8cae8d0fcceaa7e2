//! `evercell serve`, the composition root: builds every room from the bottom up, serves, and takes them down in the reverse order.

mod left;
mod token;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::shutdown::{Stops, within};
use super::{hinted, telemetry};
use crate::api;
use crate::config::flags::{Durability, Flags};
use crate::config::{Config, Kernels, Surroundings, Token};
use crate::kernel::{self, Launcher};
use crate::sandbox::Backend;
use crate::sandbox::docker::{self, DockerBackend};
use crate::sandbox::native::{self, NativeBackend};
use crate::session::{self, Sessions};
use crate::store::{self, Store, TrimPolicy};

use left::Left;
pub(super) use token::TOKEN_FILE;

/// How long each step of stopping may take, after the grace.
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// How long what was to be sent last may take to leave, before connections are closed.
const LAST_WORDS: Duration = Duration::from_millis(100);
/// How often old events and sessions are looked for.
const TRIM_EVERY: Duration = Duration::from_secs(600);
/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;

/// How the ready line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReadyLine {
    Text,
    Json,
}

/// Serves until a signal says to stop.
pub(super) fn main(flags: &Flags) -> Result<ExitCode> {
    telemetry::start(&flags.log)?;
    let config = Config::new(flags, &Surroundings::of_process())?;
    let line = if flags.ready_json {
        ReadyLine::Json
    } else {
        ReadyLine::Text
    };
    raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let outcome = runtime.block_on(run(config, line));
    // What still reads a disk then has had its time.
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome
}

async fn run(config: Config, line: ReadyLine) -> Result<ExitCode> {
    let mut stops = Stops::new()?;
    let (grace, keep_sessions) = (config.grace, config.keep_sessions);
    let mut rooms = Rooms::default();
    let started = tokio::select! {
        started = rooms.start(&config, line) => started,
        signal = stops.next() => {
            info!(signal, "stopping before it was ready");
            let how = Stop::new(signal, keep_sessions, Duration::ZERO);
            rooms.stop(how, &mut stops).await;
            return Ok(ExitCode::SUCCESS);
        }
    };
    if let Err(error) = started {
        // What an earlier server has left is left to one that starts.
        rooms.stop(Stop::Leave, &mut stops).await;
        return Err(error);
    }
    let signal = stops.next().await;
    let how = Stop::new(signal, keep_sessions, grace);
    match how {
        Stop::End { grace } => info!(
            signal,
            grace_s = grace.as_secs_f64(),
            "stopping; a second signal ends the grace"
        ),
        Stop::Leave => info!(signal, "stopping; sessions are left to the next start"),
    }
    rooms.stop(how, &mut stops).await;
    info!("stopped");
    Ok(ExitCode::SUCCESS)
}

/// What becomes of sessions when the server stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    /// They end, running cells after this grace.
    End { grace: Duration },
    /// They are left to the next server, cells and all.
    Leave,
}

impl Stop {
    /// What a signal means. SIGINT comes from somebody at a terminal, who wants nothing to stay.
    fn new(signal: &str, keep_sessions: bool, grace: Duration) -> Self {
        if keep_sessions && signal == "SIGTERM" {
            Self::Leave
        } else {
            Self::End { grace }
        }
    }
}

/// What stands so far, in the order in which it was built.
#[derive(Default)]
struct Rooms {
    store: Option<Store>,
    backend: Option<Arc<dyn Backend>>,
    launcher: Option<Launcher>,
    sessions: Option<Sessions>,
    /// Cancelled when clients are let go.
    stopping: CancellationToken,
    /// Keep the pool filled, and old events away.
    keepers: Vec<JoinHandle<()>>,
    server: Option<JoinHandle<()>>,
}

impl Rooms {
    /// Builds everything, and says so on stdout when it can serve.
    async fn start(&mut self, config: &Config, line: ReadyLine) -> Result<()> {
        // The address is taken first, since that fails soonest; nobody can connect before everything stands.
        let socket = bind(config.listen)?;
        let store = open_store(config).await?;
        self.store = Some(store.clone());
        let token = match &config.token {
            Some(token) => token.clone(),
            None => token::of(&config.data_dir)?,
        };
        let backend = start_backend(config).await?;
        self.backend = Some(backend.clone());

        let launcher = Launcher::new(backend.clone(), launcher_config(config));
        self.launcher = Some(launcher.clone());
        // What is there before anything is made by this server.
        let left = Left::find(&*backend, &config.data_dir.join(WORKSPACES)).await;
        let sessions = Sessions::start(store, launcher.clone(), session_config(config))
            .await
            .context("cannot take over the sessions in the data directory")?;
        self.sessions = Some(sessions.clone());
        let left = left.without(sessions.adopted());
        if sessions.adopted().is_empty() {
            left.remove(&*backend).await;
            // Ready means that a cell has run.
            launcher
                .warm_up()
                .await
                .context("no kernel can be started")?;
        } else {
            // Cells run already, and nobody who comes back to them waits for new kernels to be possible.
            self.keepers
                .push(tokio::spawn(async move { left.remove(&*backend).await }));
        }
        self.keepers.push(tokio::spawn(launcher.keep_warm()));
        self.keepers
            .push(tokio::spawn(keep_trimmed(sessions.clone(), config.clone())));

        let router = api::router(sessions, self.api_config(config, &token));
        let listener = listen(socket, config.listen)?;
        let address = listener
            .local_addr()
            .context("the listener has no address")?;
        let serving = api::serve(
            listener,
            router,
            config.max_connections,
            self.stopping.clone(),
        );
        self.server = Some(tokio::spawn(serving));
        say_ready(address, &token, line).context("cannot write the ready line")?;
        info!(listen = %address, data_dir = %config.data_dir.display(), "ready");
        Ok(())
    }

    fn api_config(&self, config: &Config, token: &Token) -> api::Config {
        api::Config {
            token: Some(api::Token::new(token.reveal())),
            allowed_origins: config.allow_origin.clone(),
            allowed_hosts: config.allow_host.clone(),
            plotly: plotly_of(config),
            max_upload_bytes: config.ceilings.limits.workspace_bytes,
            jupyter: api::jupyter::Config {
                cell_ms: config.jupyter_cell_ms,
                notebooks: Some(config.notebooks.clone()),
            },
            stopping: self.stopping.clone(),
        }
    }

    /// Takes down what stands, the last first. Bounded: a step that takes too long is named in the log and left behind.
    async fn stop(&mut self, how: Stop, stops: &mut Stops) {
        if let Some(sessions) = self.sessions.take() {
            match how {
                Stop::End { grace } => {
                    drain(&sessions, grace, stops).await;
                    within(STOP_LIMIT, "ending sessions", sessions.stop()).await;
                }
                Stop::Leave => {
                    within(STOP_LIMIT, "leaving sessions", sessions.leave()).await;
                }
            }
            // Clients hear how it ended before they are let go.
            tokio::time::sleep(LAST_WORDS).await;
        }
        self.stopping.cancel();
        if let Some(server) = self.server.take() {
            within(STOP_LIMIT, "closing connections", server).await;
        }
        for keeper in self.keepers.drain(..) {
            keeper.abort();
            // It is over, one way or the other.
            let _ = keeper.await;
        }
        if let Some(launcher) = self.launcher.take() {
            within(STOP_LIMIT, "ending warm kernels", launcher.drain_pool()).await;
        }
        if let Some(backend) = self.backend.take() {
            within(STOP_LIMIT, "ending the backend", backend.shut_down()).await;
        }
        if let Some(store) = self.store.take() {
            within(STOP_LIMIT, "closing the store", store.close()).await;
        }
    }
}

// --- from one configuration to those of the rooms ----------------------------------------------------------------------

/// Where workspaces lie, below the data directory.
const WORKSPACES: &str = "workspaces";

async fn open_store(config: &Config) -> Result<Store> {
    let store_config = store::Config {
        durability: match config.durability {
            Durability::Process => store::Durability::Process,
            Durability::Power => store::Durability::Power,
        },
        ..store::Config::new(&config.data_dir)
    };
    let opened = tokio::task::spawn_blocking(|| Store::open(store_config)).await?;
    Ok(opened?)
}

async fn start_backend(config: &Config) -> Result<Arc<dyn Backend>> {
    let chosen = backend_config(&config.data_dir, &config.kernels, config.orphan_limit)?;
    Ok(match chosen {
        BackendConfig::Native(native) => Arc::new(NativeBackend::start(native).await?),
        BackendConfig::Docker(docker) => Arc::new(DockerBackend::start(docker).await?),
    })
}

/// What the chosen backend needs to know.
pub(super) enum BackendConfig {
    Native(native::Config),
    Docker(docker::Config),
}

/// What the backend needs to know; `doctor` asks with the same.
pub(super) fn backend_config(
    data_dir: &Path,
    kernels: &Kernels,
    orphan: Duration,
) -> Result<BackendConfig> {
    let data_dir = data_dir.to_owned();
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let (first_id, ids) = (native::Config::FIRST_ID, native::Config::IDS);
    Ok(match kernels.clone() {
        Kernels::Native {
            python_env,
            kernel_lib,
        } => BackendConfig::Native(native::Config {
            data_dir,
            program,
            python_env,
            pykernel_dir: kernel_lib.join("pykernel"),
            first_id,
            ids,
            orphan,
        }),
        Kernels::Docker {
            host,
            image,
            runtime,
            link,
        } => BackendConfig::Docker(docker::Config {
            data_dir,
            host,
            image,
            runtime,
            link,
            first_id,
            ids,
            orphan,
        }),
    })
}

fn launcher_config(config: &Config) -> kernel::Config {
    let (pool_min, pool_max) = config.pool;
    kernel::Config {
        workspaces: config.data_dir.join(WORKSPACES),
        defaults: config.defaults.limits.clone(),
        pool_min,
        pool_max,
        orphan_limit: config.orphan_limit,
    }
}

fn session_config(config: &Config) -> session::Config {
    session::Config {
        max_sessions: config.max_sessions,
        max_queued: config.max_queued,
        defaults: config.defaults.clone(),
        ceilings: config.ceilings.clone(),
    }
}

// --- steps -------------------------------------------------------------------------------------------------------------

/// Takes an address, without listening yet.
fn bind(address: SocketAddr) -> Result<TcpSocket> {
    let bound = (|| {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4(),
            SocketAddr::V6(_) => TcpSocket::new_v6(),
        }?;
        // Else a port would be closed for a minute after every restart.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        Ok(socket)
    })();
    bound.map_err(|error| cannot_listen(address, error))
}

fn listen(socket: TcpSocket, address: SocketAddr) -> Result<TcpListener> {
    socket
        .listen(BACKLOG)
        .map_err(|error| cannot_listen(address, error))
}

fn cannot_listen(address: SocketAddr, error: io::Error) -> anyhow::Error {
    let hint = match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another program has it; choose another port with `--listen`, or port 0 for a free one"
        }
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 are root's; choose a higher one with `--listen`"
        }
        _ => "choose an address of this machine with `--listen`",
    };
    hinted(format!("cannot listen on `{address}`: {error}"), hint)
}

/// Gives running cells their grace.
async fn drain(sessions: &Sessions, grace: Duration, stops: &mut Stops) {
    tokio::select! {
        drained = tokio::time::timeout(grace, sessions.drain()) => if drained.is_err() && !grace.is_zero() {
            info!("the grace is over; cells that still run are stopped");
        },
        signal = stops.next() => info!(signal, "no longer waiting for running cells"),
    }
}

/// Removes old events and sessions from time to time, for as long as it is let.
async fn keep_trimmed(sessions: Sessions, config: Config) {
    loop {
        tokio::time::sleep(TRIM_EVERY).await;
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let before = now.saturating_sub(config.retain);
        let policy = TrimPolicy {
            events_older_than_ms: None,
            bytes_per_session: Some(config.retain_log),
            bytes_total: Some(config.retain_logs),
            ended_older_than_ms: u64::try_from(before.as_millis()).ok(),
        };
        if let Err(error) = sessions.trim(policy).await {
            let error = format!("{:#}", anyhow::Error::from(error));
            warn!(
                error,
                "old events and sessions could not be removed; it is tried again later"
            );
        }
    }
}

/// The script that comes with the kernels' plotly, if that is installed.
fn plotly_of(config: &Config) -> Option<PathBuf> {
    let Kernels::Native { python_env, .. } = &config.kernels else {
        return Some(config.data_dir.join(docker::PLOTLY)).filter(|file| file.is_file());
    };
    std::fs::read_dir(python_env.join("lib"))
        .ok()?
        .filter_map(Result::ok)
        .map(|entry| {
            entry
                .path()
                .join("site-packages/plotly/package_data/plotly.min.js")
        })
        .find(|file| file.is_file())
}

/// The one line on stdout: it can serve.
fn say_ready(address: SocketAddr, token: &Token, line: ReadyLine) -> io::Result<()> {
    let token = token.reveal();
    // Behind the `#` it stays in the browser: it is in no request and in no log of a proxy.
    let url = format!("http://{address}/#token={token}");
    let mut out = io::stdout().lock();
    match line {
        ReadyLine::Text => writeln!(out, "evercell is ready at {url}")?,
        ReadyLine::Json => {
            let line = json!({
                "url": url,
                "token": token,
                "listen": address.to_string(),
                "pid": std::process::id(),
                "version": env!("CARGO_PKG_VERSION"),
            });
            writeln!(out, "{line}")?;
        }
    }
    out.flush()
}

/// Each session and each client is a few descriptors; the soft limit is often meant for programs that use `select`.
fn raise_descriptor_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // Without it there are fewer sessions, and the error that says so comes then.
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: maximum,
            maximum,
        },
    );
}
