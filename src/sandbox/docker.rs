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
mod handle;
mod inside;
mod profile;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

pub use check::checks;
pub use inside::{ORPHANED, init, relay};

use self::container::{BESIDE, Container};
use self::engine::{Engine, EngineError};
use self::handle::DockerSandbox;
use self::inside::Order;
use super::native::{self, step::StepError};
use super::owners::{self, Owners};
use super::{Backend, Sandbox, SandboxError, SandboxSpec, ids_in, keep_others_out, name_of};
use crate::model::id::SandboxId;

/// Where the agent's program is in a container.
const AGENT: &str = "/opt/evercell/bin/evercell";
/// Where the directory is in which the agent puts its socket.
const DOOR: &str = "/run/evercell";
/// The agent's socket.
const AGENT_SOCKET: &str = "agent.sock";
/// Whose a container is.
const LABEL_SERVER: &str = "evercell.server";
/// Which sandbox it is.
const LABEL_SANDBOX: &str = "evercell.sandbox";

/// How long an agent may take to listen, once its container has been started.
const READY_WITHIN: Duration = Duration::from_secs(20);

/// What the Docker backend needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the server keeps everything; what belongs to a container lies below `run/` in it.
    pub data_dir: PathBuf,
    /// This program, which is the agent too.
    pub program: PathBuf,
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
    /// By a program that the engine starts in the container for each connection. The agent has to be in the image.
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
}

/// What backend and sandboxes have in common.
#[derive(Debug)]
struct Shared {
    config: Config,
    engine: Engine,
    run: PathBuf,
    /// Whose containers ours are.
    server: String,
    /// The ids of containers, where this server is root and can give them workspaces.
    owners: Option<Owners>,
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
        let link = shared.find_link().await?;
        tracing::debug!(link = link.name(), "the Docker backend is ready");
        Ok(Self { shared, link })
    }
}

impl Backend for DockerBackend {
    fn name(&self) -> &'static str {
        "docker"
    }

    fn create(&self, spec: SandboxSpec) -> BoxFuture<'_, Result<Arc<dyn Sandbox>, SandboxError>> {
        async move {
            let sandbox: Arc<dyn Sandbox> = self.shared.create(spec, self.link).await?;
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
        // The backend itself runs nothing.
        std::future::ready(()).boxed()
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
        Ok(Self {
            server: name_of(&run),
            engine,
            run,
            owners,
            config,
        })
    }

    fn directory(&self, id: SandboxId) -> PathBuf {
        self.run.join(id.to_string())
    }

    /// How agents are reached: as was said, as it works already, or as a trial shows.
    async fn find_link(self: &Arc<Self>) -> Result<Link, SandboxError> {
        let survivors =
            ids_in(&self.run).filter_map(|id| Some(Record::read(&self.directory(id)).ok()?.link));
        let known = self.config.link.or(survivors.last());
        let mut tried = None;
        for link in known.map_or(vec![Link::Socket, Link::Exec], |link| vec![link]) {
            match self.try_link(link).await {
                Ok(()) => return Ok(link),
                // The first is what should work; what it says is what is to be told.
                Err(error) => {
                    tracing::debug!(link = link.name(), %error, "agents cannot be reached this way");
                    tried.get_or_insert(error);
                }
            }
        }
        Err(tried.expect("something was tried"))
    }

    async fn try_link(self: &Arc<Self>, link: Link) -> Result<(), SandboxError> {
        let id = SandboxId::new();
        let workspace = self.run.join(format!("trial-{id}"));
        let made = async {
            fs::create_dir(&workspace).map_err(|source| step(id, "make a directory", source))?;
            let spec = SandboxSpec {
                id,
                limits: crate::model::limits::Limits::default(),
                workspace: workspace.clone(),
            };
            let sandbox = self.create(spec, link).await?;
            let reached = sandbox.connect().await.map(drop);
            sandbox.destroy().await?;
            reached
        }
        .await;
        // It holds nothing.
        let _ = fs::remove_dir_all(&workspace);
        made
    }

    async fn create(
        self: &Arc<Self>,
        spec: SandboxSpec,
        link: Link,
    ) -> Result<Arc<DockerSandbox>, SandboxError> {
        let id = spec.id;
        let shared = Arc::clone(self);
        let written = tokio::task::spawn_blocking(move || {
            shared.write_down(&spec, link).map(|user| (spec, user))
        })
        .await
        .expect("writing down does not panic");
        let launched = match written {
            Ok((spec, user)) => self.launch(&spec, link, user).await,
            Err(error) => Err(error),
        };
        match launched {
            Ok(()) => Ok(Arc::new(DockerSandbox {
                shared: Arc::clone(self),
                id,
                link,
            })),
            Err(error) => {
                if let Err(error) = self.destroy(id).await {
                    tracing::error!(sandbox.id = %id, %error, "what was made of a sandbox could not be destroyed");
                }
                Err(step(id, &error.step, error.source))
            }
        }
    }

    /// Makes what of a sandbox lies in the server's own directory, and gives the workspace to its user, which is returned.
    fn write_down(&self, spec: &SandboxSpec, link: Link) -> Result<u32, StepError> {
        use super::native::step::Step as _;
        let directory = self.directory(spec.id);
        fs::create_dir(&directory).step("make the directory")?;
        let owner = match &self.owners {
            Some(owners) => Some(
                owners
                    .take(&spec.workspace)
                    .step("give the workspace to the sandbox")?,
            ),
            None => None,
        };
        let user = owner.map_or_else(
            || rustix::process::geteuid().as_raw(),
            |owner| self.config.first_id + owner,
        );
        // First the record, then what it tells of: so it can be found after a crash in between.
        Record {
            label: LABEL.to_owned(),
            link,
            owner,
        }
        .write(&directory)
        .step("write the record")?;
        for (file, content) in names(user) {
            fs::write(directory.join(file), content).step("name the user")?;
        }
        if link == Link::Socket {
            let door = directory.join("door");
            fs::create_dir(&door).step("make the door")?;
            if owner.is_some() {
                owners::give_to(&door, user).step("make the door")?;
            }
        }
        Ok(user)
    }

    /// Makes and starts the container, and waits until its agent listens.
    async fn launch(&self, spec: &SandboxSpec, link: Link, user: u32) -> Result<(), StepError> {
        use super::native::step::Step as _;
        let directory = self.directory(spec.id);
        let workspace = spec.workspace.canonicalize().step("find the workspace")?;
        let show = |file: &str, at: &str| (directory.join(file), at.to_owned());
        let container = Container {
            image: &self.config.image,
            runtime: self.config.runtime.as_deref(),
            server: &self.server,
            user,
            workspace: &workspace,
            shows: vec![
                (self.config.program.clone(), AGENT.to_owned()),
                show("passwd", "/etc/passwd"),
                show("group", "/etc/group"),
            ],
            door: (link == Link::Socket).then(|| directory.join("door")),
            order: Order {
                id: spec.id,
                link,
                limits: spec.limits.clone(),
                beside: BESIDE,
                orphan_ms: u64::try_from(self.config.orphan.as_millis()).unwrap_or(u64::MAX),
            },
        };
        let name = name(spec.id);
        self.engine
            .create(&name, container.body())
            .await
            .step("create the container")?;
        let mut said = self
            .engine
            .listen(&name)
            .await
            .step("listen to the container")?
            .output;
        self.engine.start(&name).await.step("start the container")?;
        if link == Link::Exec {
            // Its relay waits for the agent.
            return Ok(());
        }
        let mut last_words = String::new();
        let listens = async {
            tokio::select! {
                listens = open_door(&directory) => listens,
                // The stream ends with the container.
                () = async {
                    while let Some(Ok(piece)) = said.next().await {
                        last_words.push_str(&piece.to_string());
                        last_words.truncate(last_words.floor_char_boundary(4096));
                    }
                } => Err(io::Error::other(format!("the agent ended: {}", last_words.trim()))),
            }
        };
        timeout(READY_WITHIN, listens)
            .await
            .unwrap_or(Err(io::ErrorKind::TimedOut.into()))
            .step("wait for the agent")
    }

    async fn adopt(self: &Arc<Self>, id: SandboxId) -> Result<Arc<DockerSandbox>, SandboxError> {
        let gone = |why: String| SandboxError::Gone { id, why };
        let directory = self.directory(id);
        let record =
            Record::read(&directory).map_err(|_| gone("nothing is left of it".to_owned()))?;
        // An agent that answers needs no engine.
        if record.link == Link::Exec || handle::dial(&directory).await.is_err() {
            let name = name(id);
            match self.engine.inspect(&name).await {
                Ok(found) if found.state.as_ref().and_then(|state| state.running) == Some(true) => {
                    if record.link == Link::Socket {
                        return Err(gone("it was never complete".to_owned()));
                    }
                }
                Ok(_) | Err(EngineError::NotFound(_)) => {
                    return Err(gone(self.why_gone(&name).await));
                }
                Err(error) => return Err(step(id, "look at the container", error.into())),
            }
        }
        Ok(Arc::new(DockerSandbox {
            shared: Arc::clone(self),
            id,
            link: record.link,
        }))
    }

    /// Why a container does not run any more, as far as the engine knows.
    async fn why_gone(&self, name: &str) -> String {
        let end = self.engine.end_of(name).await.ok().flatten();
        let code = end.and_then(|attributes| attributes.get("exitCode")?.parse::<u8>().ok());
        match code {
            Some(ORPHANED) => native::ORPHANED,
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

    /// Destroys what is left of a sandbox: container and directory.
    async fn destroy(&self, id: SandboxId) -> Result<(), SandboxError> {
        self.engine
            .remove(&name(id))
            .await
            .map_err(|error| step(id, "remove the container", error.into()))?;
        let directory = self.directory(id);
        let owner = Record::read(&directory)
            .ok()
            .and_then(|record| record.owner);
        match fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(step(id, "remove the directory", error));
            }
            _ => {}
        }
        if let (Some(owners), Some(owner)) = (&self.owners, owner) {
            owners.give_back(owner);
        }
        Ok(())
    }
}

/// Waits until the agent listens, and takes its socket, and the directory in which it was made, out of the sandbox: what runs there from now on finds
/// nothing to connect to and no place to write. A directory that is gone stays mounted, and nothing can be made in it.
async fn open_door(directory: &Path) -> io::Result<()> {
    const AGAIN: Duration = Duration::from_millis(2);
    let door = directory.join("door");
    loop {
        match fs::rename(door.join(AGENT_SOCKET), directory.join(AGENT_SOCKET)) {
            Ok(()) => break,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                tokio::time::sleep(AGAIN).await
            }
            Err(error) => return Err(error),
        }
    }
    fs::remove_dir_all(&door)?;
    // It is there before it is listened to.
    while let Err(error) = handle::dial(directory).await {
        if error.kind() != io::ErrorKind::ConnectionRefused {
            return Err(error);
        }
        tokio::time::sleep(AGAIN).await;
    }
    Ok(())
}

fn step(id: SandboxId, step: &str, source: io::Error) -> SandboxError {
    SandboxError::Step {
        id,
        step: step.to_owned(),
        source,
    }
}

/// What names the user of a sandbox in it.
fn names(user: u32) -> [(&'static str, String); 2] {
    [
        (
            "passwd",
            format!(
                "root:x:0:0:root:/root:/usr/sbin/nologin\nuser:x:{user}:{user}:user:/home/user:/bin/bash\n\
                 nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
            ),
        ),
        (
            "group",
            format!("root:x:0:\nuser:x:{user}:\nnogroup:x:65534:\n"),
        ),
    ]
}

/// Says that a directory is a sandbox of this backend.
const LABEL: &str = "evercell container 1";
const RECORD: &str = "record.json";

/// What is written down of a sandbox, beside what its container's labels say.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    label: String,
    link: Link,
    /// Its id, counted from the first.
    owner: Option<u32>,
}

impl Record {
    fn write(&self, directory: &Path) -> io::Result<()> {
        let temporary = directory.join("record.json.new");
        fs::write(&temporary, serde_json::to_vec(self)?)?;
        fs::rename(temporary, directory.join(RECORD))
    }

    fn read(directory: &Path) -> io::Result<Self> {
        let record: Self = serde_json::from_slice(&fs::read(directory.join(RECORD))?)?;
        if record.label == LABEL {
            Ok(record)
        } else {
            Err(io::Error::other(format!(
                "`{}` is not `{LABEL}`",
                record.label
            )))
        }
    }
}
