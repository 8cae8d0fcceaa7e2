//! The Docker backend: each sandbox is a container of an engine.
//!
//! ```text
//! server ── API ──▶ engine ── starts ──▶ container: agent (PID 1) ──▶ kernel
//!    │                                       │
//!    └──── Unix socket on a shared directory ┘      or, where that cannot work, a relay that the engine starts in the container
//! ```
//!
//! The agent is this very program, shown to the container read-only, so that versions cannot differ. It and the kernel have one user, no
//! capabilities, and the container's limits: the agent's own are the same as in the native backend, and so is the kernel's jail. There is no
//! zygote: a kernel imports everything by itself, which takes seconds, and the warm pool hides that.
//!
//! Containers go on when the engine dies, if it restores them (`live-restore`), and whatever happens they end by themselves when no server comes.

mod check;
mod container;
mod engine;
#[cfg(test)]
mod fake;
mod handle;
mod inside;
mod launch;
mod plotly;
mod profile;
mod reaper;
mod record;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use rustix::fs::{AtFlags, CWD, linkat};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;

pub use check::checks;
pub use inside::{ORPHANED, init, relay};

use self::engine::{Engine, EngineError};
use self::handle::DockerSandbox;
use self::reaper::Reaper;
use self::record::Record;
use super::native;
use super::owners::Owners;
use super::record::Recorded as _;
use super::{Backend, Sandbox, SandboxError, SandboxSpec, ids_in, keep_others_out, name_of};
use crate::model::id::SandboxId;

/// Where the agent's program is in a container.
const AGENT: &str = "/opt/evercell/bin/evercell";
/// Where the directory is in which the agent puts its socket.
const DOOR: &str = "/run/evercell";
/// The agent's socket.
const AGENT_SOCKET: &str = "agent.sock";
/// The file in the data directory with the script of the image's plotly.
pub const PLOTLY: &str = "plotly.js";
/// Whose a container is.
const LABEL_SERVER: &str = "evercell.server";
/// Which sandbox it is.
const LABEL_SANDBOX: &str = "evercell.sandbox";

/// What the Docker backend needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the server keeps everything; what belongs to a container lies below `run/` in it.
    pub data_dir: PathBuf,
    /// Where the engine is, such as `unix:///var/run/docker.sock`; there, if none.
    pub host: Option<String>,
    /// The image, as `make image` builds it.
    pub image: String,
    /// The engine's runtime, such as `runsc`; its default, if none.
    pub runtime: Option<String>,
    /// How the server reaches agents; found out by trying, if none.
    pub link: Option<Link>,
    /// The first of the ids that sandboxes get on the host, when the server is root.
    pub first_id: u32,
    /// How many there are, so how many sandboxes at once.
    pub ids: u32,
    /// How long an agent lives on without a server.
    pub orphan: Duration,
}

/// How a server reaches the agent in a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Link {
    /// By a Unix socket on a directory that both see: the server's files are the engine's.
    Socket,
    /// By a program that the engine starts in the container for each connection.
    Exec,
}

impl Link {
    fn name(self) -> &'static str {
        match self {
            Self::Socket => "socket",
            Self::Exec => "exec",
        }
    }
}

/// Makes sandboxes out of containers.
#[derive(Debug)]
pub struct DockerBackend {
    shared: Arc<Shared>,
    link: Link,
    /// Containers that are being made.
    making: TaskTracker,
}

/// What backend and sandboxes have in common.
#[derive(Debug)]
struct Shared {
    config: Config,
    engine: Engine,
    run: PathBuf,
    /// Whose containers ours are.
    server: String,
    /// The program as containers see it.
    agent: PathBuf,
    /// The ids of containers, where this server is root and can give them workspaces.
    owners: Option<Owners>,
    /// For what could not be removed.
    reaper: Reaper,
}

/// The name of a container.
fn name(id: SandboxId) -> String {
    format!("evercell-{id}")
}

impl DockerBackend {
    /// Checks that the engine has what is needed, and makes a sandbox to find out how agents are reached.
    pub async fn start(config: Config) -> Result<Self, SandboxError> {
        let engine = check::engine(&config).await?;
        let shared = tokio::task::spawn_blocking(move || Shared::prepare(config, engine))
            .await
            .expect("preparing does not panic")?;
        let shared = Arc::new(shared);
        let (link, ()) = tokio::join!(shared.find_link(), shared.take_plotly());
        let link = link?;
        tracing::debug!(link = link.name(), "the Docker backend is ready");
        tokio::spawn(Reaper::run(Arc::downgrade(&shared)));
        Ok(Self {
            shared,
            link,
            making: TaskTracker::new(),
        })
    }
}

impl Backend for DockerBackend {
    fn name(&self) -> &'static str {
        "docker"
    }

    fn create(&self, spec: SandboxSpec) -> BoxFuture<'_, Result<Arc<dyn Sandbox>, SandboxError>> {
        let (shared, link) = (Arc::clone(&self.shared), self.link);
        let (tell, told) = oneshot::channel();
        self.making.spawn(async move {
            let made = shared.create(spec, link).await;
            // Whoever wanted it may have gone meanwhile.
            if let Err(Ok(unwanted)) = tell.send(made)
                && let Err(error) = unwanted.destroy().await
            {
                tracing::error!(sandbox.id = %unwanted.id(), %error, "a sandbox that nobody wants could not be destroyed");
            }
        });
        async move {
            let sandbox: Arc<dyn Sandbox> = told.await.expect("making does not panic")?;
            Ok(sandbox)
        }
        .boxed()
    }

    fn adopt(&self, id: SandboxId) -> BoxFuture<'_, Result<Arc<dyn Sandbox>, SandboxError>> {
        async move {
            let sandbox: Arc<dyn Sandbox> = self.shared.adopt(id).await?;
            Ok(sandbox)
        }
        .boxed()
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<SandboxId>, SandboxError>> {
        self.shared.list().boxed()
    }

    fn destroy(&self, id: SandboxId) -> BoxFuture<'_, Result<(), SandboxError>> {
        self.shared.destroy(id).boxed()
    }

    fn shut_down(&self) -> BoxFuture<'_, ()> {
        self.making.close();
        self.making.wait().boxed()
    }
}

impl Shared {
    fn prepare(config: Config, engine: Engine) -> Result<Self, SandboxError> {
        let run = config.data_dir.join("run");
        let directory = |error: io::Error| SandboxError::Engine {
            missing: format!("the directory `{}` cannot be used: {error}", run.display()),
            hint: "name another with `--data-dir`, on a local disk and writable".to_owned(),
        };
        fs::create_dir_all(&run).map_err(directory)?;
        // Absolute, since the engine is told; and nobody else's business.
        let run = run.canonicalize().map_err(directory)?;
        keep_others_out(&config.data_dir).map_err(directory)?;
        fs::set_permissions(&run, std::os::unix::fs::PermissionsExt::from_mode(0o700))
            .map_err(directory)?;
        let owners = rustix::process::geteuid().is_root().then(|| {
            let used =
                ids_in(&run).filter_map(|id| Record::read(&run.join(id.to_string())).ok()?.owner);
            Owners::new(config.first_id, config.ids, used)
        });
        let agent = bring_agent(&config.data_dir).map_err(directory)?;
        Ok(Self {
            server: name_of(&run),
            engine,
            run,
            agent,
            owners,
            reaper: Reaper::default(),
            config,
        })
    }

    fn directory(&self, id: SandboxId) -> PathBuf {
        self.run.join(id.to_string())
    }

    async fn adopt(self: &Arc<Self>, id: SandboxId) -> Result<Arc<DockerSandbox>, SandboxError> {
        let gone = |why: String| SandboxError::Gone { id, why };
        let directory = self.directory(id);
        let record =
            Record::read(&directory).map_err(|_| gone("nothing is left of it".to_owned()))?;
        let name = name(id);
        let failed = |error: EngineError| error.at(id, "look at the container");
        let is_there = match record.link {
            // An agent that answers needs no engine.
            Link::Socket => handle::dial(&directory).await.is_ok(),
            Link::Exec => self.engine.is_running(&name).await.map_err(failed)?,
        };
        if !is_there {
            if record.link == Link::Socket && !directory.join(AGENT_SOCKET).exists() {
                return Err(gone("it was never complete".to_owned()));
            }
            // The agent has ended, and the engine may not have seen it yet. What it says is for people: that the agent is gone is known without it.
            let _ = self.engine.wait(&name).await;
            return Err(gone(self.why_gone(&name).await));
        }
        Ok(Arc::new(DockerSandbox {
            shared: Arc::clone(self),
            id,
            link: record.link,
            secret: record.secret,
        }))
    }

    /// Why a container does not run any more, as far as the engine knows.
    async fn why_gone(&self, name: &str) -> String {
        let code = self.engine.exit_code(name).await.ok().flatten();
        match code {
            Some(code) if code == i64::from(ORPHANED) => native::ORPHANED,
            _ => "it was ended from outside",
        }
        .to_owned()
    }

    async fn list(&self) -> Result<Vec<SandboxId>, SandboxError> {
        let label = format!("{LABEL_SERVER}={}", self.server);
        let containers = self
            .engine
            .list(&label)
            .await
            .map_err(|error| SandboxError::Engine {
                missing: error.to_string(),
                hint: "see the engine's own log".to_owned(),
            })?;
        let mut found: Vec<SandboxId> = containers
            .iter()
            .filter_map(|labels| labels.get(LABEL_SANDBOX)?.parse().ok())
            .chain(ids_in(&self.run))
            .collect();
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    /// Destroys what is left of a sandbox, now or when the engine can.
    async fn destroy(&self, id: SandboxId) -> Result<(), SandboxError> {
        let destroyed = self.remove(id).await;
        if destroyed.is_err() {
            self.reaper.take(id);
        }
        destroyed
    }

    /// Removes container and directory of a sandbox.
    async fn remove(&self, id: SandboxId) -> Result<(), SandboxError> {
        self.engine
            .remove(&name(id))
            .await
            .map_err(|error| error.at(id, "remove the container"))?;
        let directory = self.directory(id);
        let owner = Record::read(&directory)
            .ok()
            .and_then(|record| record.owner);
        // Whoever removes it gives the id back, and nobody else: it may be another's by then.
        let removed = super::remove_tree(&directory)
            .map_err(|error| step(id, "remove the directory", error))?;
        if removed && let (Some(owners), Some(owner)) = (&self.owners, owner) {
            owners.give_back(owner);
        }
        Ok(())
    }
}

/// Brings this program into the data directory: of this machine's files, that is what an engine has to see under the same path. Containers that run keep
/// what they were started with.
fn bring_agent(data_dir: &Path) -> io::Result<PathBuf> {
    let agent = data_dir.canonicalize()?.join("agent");
    let new = agent.with_extension("new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // What runs, whatever lies under its name by now. On another disk, or when it was deleted, there is no link to it.
    const SELF: &str = "/proc/self/exe";
    if linkat(CWD, SELF, CWD, &new, AtFlags::SYMLINK_FOLLOW).is_err() {
        fs::copy(SELF, &new)?;
    }
    fs::rename(&new, &agent)?;
    Ok(agent)
}

fn step(id: SandboxId, step: &str, source: io::Error) -> SandboxError {
    SandboxError::Step {
        id,
        step: step.to_owned(),
        source,
    }
}
