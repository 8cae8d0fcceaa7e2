//! From an order to a kernel that has proved itself: sandbox, connection, start, first cell.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::TaskTracker;

use super::KernelError;
use super::connection::{Agent, Kernel, KernelEvents, Occurrence};
use super::files::Files;
use super::pool::Pool;
use crate::model::id::SandboxId;
use crate::model::limits::Limits;
use crate::protocol::agent::{AgentConfig, AgentHello, KernelExit, WatchedLimit};
use crate::protocol::kernel::{Execute, Message, Request};
use crate::sandbox::{Backend, Sandbox, SandboxError, SandboxSpec, remove_tree};

/// Operations at one time on files that sandboxes have left; more wait. Each is a thread of ours.
const MOST_READERS: usize = 16;

/// How kernels are launched.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where workspaces lie: each is a directory of this one.
    pub workspaces: PathBuf,
    /// What a sandbox of the pool may use.
    pub defaults: Limits,
    /// How many kernels are kept warm at least.
    pub pool_min: usize,
    /// How many at most.
    pub pool_max: usize,
    /// How long an agent lives on without a server.
    pub orphan_limit: Duration,
}

/// What is wanted of a kernel.
#[derive(Clone, Debug)]
pub struct Order {
    /// What its sandbox may use.
    pub limits: Limits,
    /// Its environment variables.
    pub env: BTreeMap<String, String>,
    /// The name of its workspace, which is made if it is not there.
    pub workspace: String,
}

/// A kernel that has run a cell.
#[derive(Debug)]
pub struct Claimed {
    /// The kernel.
    pub kernel: Kernel,
    /// What it says from now on.
    pub events: KernelEvents,
    /// The last kept frame before that.
    pub frame: u64,
    /// Python's version.
    pub python: String,
    /// The name of its workspace.
    pub(super) workspace: String,
    /// Whether it had been kept warm.
    pub warm: bool,
}

/// A kernel that an earlier server has made.
#[derive(Debug)]
pub struct Adopted {
    /// The kernel.
    pub kernel: Kernel,
    /// What it says, from the frame that was asked for on.
    pub events: KernelEvents,
    /// How its agent found things.
    pub hello: AgentHello,
}

/// How long to wait before a sandbox that cannot be found just now is looked for again.
const FIND_AGAIN: Duration = Duration::from_millis(500);

/// How long a kernel may take from nothing to its first cell's end.
const START_LIMIT: Duration = Duration::from_secs(60);

/// Makes kernels, or takes them from the pool. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Launcher {
    pub(super) parts: Arc<Parts>,
}

#[derive(Debug)]
pub(super) struct Parts {
    backend: Arc<dyn Backend>,
    config: Config,
    pool: Pool,
    /// Those who clear away what was given up half-way.
    clearing: TaskTracker,
    /// For those who read what sandboxes have left.
    readers: Arc<Semaphore>,
}

impl Launcher {
    /// A launcher on a backend. The pool is filled once [`Launcher::keep_warm`] runs.
    pub fn new(backend: Arc<dyn Backend>, config: Config) -> Self {
        let pool = Pool::new(config.pool_min, config.pool_max);
        Self {
            parts: Arc::new(Parts {
                backend,
                config,
                pool,
                clearing: TaskTracker::new(),
                readers: Arc::new(Semaphore::new(MOST_READERS)),
            }),
        }
    }

    /// Keeps the pool filled until it is dropped.
    pub async fn keep_warm(self) {
        self.parts
            .pool
            .keep_filled(
                || self.launch(None, &self.parts.config.defaults),
                |claimed| self.discard_aside(claimed),
            )
            .await;
    }

    /// Makes one kernel for the pool, so that who starts a server knows that kernels can be made.
    ///
    /// # Errors
    /// It could not be made, or did not run its first cell in time.
    pub async fn warm_up(&self) -> Result<(), KernelError> {
        let claimed = self.launch(None, &self.parts.config.defaults).await?;
        if let Some(late) = self.parts.pool.put(claimed) {
            self.discard(late).await;
        }
        Ok(())
    }

    /// How many kernels are warm.
    pub fn warm(&self) -> usize {
        self.parts.pool.len()
    }

    /// A kernel that fits the order: from the pool where there is one, else made now.
    ///
    /// # Errors
    /// It could not be made, or did not run its first cell in time.
    pub async fn claim(&self, order: &Order) -> Result<Claimed, KernelError> {
        self.parts.pool.arrival();
        let is_new = !tokio::fs::try_exists(self.workspace(&order.workspace))
            .await
            .map_err(KernelError::Workspace)?;
        let claimed = match is_new.then(|| self.take_warm(order)).flatten() {
            Some(claimed) => self.fit(claimed, &order.limits).await,
            None => None,
        };
        let claimed = match claimed {
            Some(claimed) => self.name_workspace(claimed, &order.workspace).await?,
            None => {
                self.launch(Some(order.workspace.clone()), &order.limits)
                    .await?
            }
        };
        if !order.env.is_empty() {
            let env = order.env.clone();
            if let Err(error) = claimed.kernel.request(Request::Configure { env }) {
                self.discard(claimed).await;
                return Err(error);
            }
        }
        Ok(claimed)
    }

    /// The directory of a workspace.
    pub fn workspace(&self, name: &str) -> PathBuf {
        self.parts.config.workspaces.join(name)
    }

    /// Removes a workspace with all that sandboxes wrote there. Succeeds when there is none.
    ///
    /// # Errors
    /// Something of it could not be removed.
    pub async fn remove_workspace(&self, name: &str) -> io::Result<()> {
        let directory = self.workspace(name);
        tokio::task::spawn_blocking(move || remove_tree(&directory))
            .await
            .map_err(io::Error::other)?
            .map(drop)
    }

    /// The files in a workspace that no sandbox uses any more, for reading.
    pub fn left_files(&self, name: &str) -> Files {
        Files::left(self.workspace(name), self.parts.readers.clone())
    }

    /// Takes over a sandbox of an earlier server, with all that its kernel said after the kept frame `after`. Bounded.
    ///
    /// # Errors
    /// It is gone, its agent does not answer or speaks another generation. What is left of it is still there.
    pub async fn adopt(
        &self,
        id: SandboxId,
        after: u64,
        limits: &Limits,
    ) -> Result<Adopted, KernelError> {
        let sandbox = self.find(id).await.map_err(KernelError::Sandbox)?;
        let orphan_limit = self.parts.config.orphan_limit;
        let (kernel, mut events) = Kernel::connect(sandbox, Agent::Left(after), orphan_limit);
        let first = events.next().await.ok_or(KernelError::Closed)?;
        match first.what {
            Occurrence::Greeted(hello) => {
                kernel.number_after(hello.last_request);
                // This server may have been told other limits.
                kernel.configure(&self.agent_config(limits))?;
                Ok(Adopted {
                    kernel,
                    events,
                    hello,
                })
            }
            // It may have been about to end when it was looked at: then that is why.
            Occurrence::Lost(why) => match self.parts.backend.adopt(id).await {
                Ok(_) => Err(KernelError::Agent(why)),
                Err(gone) => Err(KernelError::Sandbox(gone)),
            },
            _ => Err(KernelError::Nonsense("something before its greeting")),
        }
    }

    /// Finds a sandbox of an earlier server, if need be as soon as what leads to it answers again.
    async fn find(&self, id: SandboxId) -> Result<Arc<dyn Sandbox>, SandboxError> {
        let began = Instant::now();
        loop {
            match self.parts.backend.adopt(id).await {
                Err(SandboxError::Away { .. })
                    if began.elapsed() < self.parts.config.orphan_limit =>
                {
                    sleep(FIND_AGAIN).await;
                }
                found => return found,
            }
        }
    }

    /// Destroys what is left of a sandbox of an earlier server.
    ///
    /// # Errors
    /// Something of it could not be removed.
    pub async fn destroy(&self, sandbox: SandboxId) -> Result<(), KernelError> {
        self.parts
            .backend
            .destroy(sandbox)
            .await
            .map_err(KernelError::Sandbox)
    }

    /// Destroys all kernels of the pool.
    pub async fn drain_pool(&self) {
        for claimed in self.parts.pool.close() {
            self.discard(claimed).await;
        }
        self.parts.clearing.close();
        self.parts.clearing.wait().await;
    }

    /// A kernel of the pool, if one fits: the sizes of their file systems are fixed.
    fn take_warm(&self, order: &Order) -> Option<Claimed> {
        let fits = order.limits.disk_bytes == self.parts.config.defaults.disk_bytes;
        if !fits {
            return None;
        }
        let (taken, dead) = self.parts.pool.take();
        dead.into_iter().for_each(|dead| self.discard_aside(dead));
        taken
    }

    /// Gives the workspace of a pooled kernel its final name. What is mounted in the sandbox follows the directory, not its name.
    async fn name_workspace(
        &self,
        mut claimed: Claimed,
        name: &str,
    ) -> Result<Claimed, KernelError> {
        match tokio::fs::rename(self.workspace(&claimed.workspace), self.workspace(name)).await {
            Ok(()) => {
                claimed.workspace = name.to_owned();
                Ok(claimed)
            }
            Err(error) => {
                self.discard(claimed).await;
                Err(KernelError::Workspace(error))
            }
        }
    }

    /// Gives a kernel of the pool other limits. None if that cannot be: there are runtimes that change nothing of a container that runs, and one
    /// that is made to order has the right ones.
    async fn fit(&self, claimed: Claimed, limits: &Limits) -> Option<Claimed> {
        if *limits == self.parts.config.defaults {
            return Some(claimed);
        }
        let fitted = match claimed.kernel.apply(limits).await {
            Ok(()) => claimed.kernel.configure(&self.agent_config(limits)),
            Err(error) => Err(KernelError::Sandbox(error)),
        };
        match fitted {
            Ok(_) => Some(claimed),
            Err(error) => {
                tracing::debug!(error = %crate::kernel::pool::chain(&error), "a warm kernel does not fit");
                self.discard(claimed).await;
                None
            }
        }
    }

    async fn launch(
        &self,
        workspace: Option<String>,
        limits: &Limits,
    ) -> Result<Claimed, KernelError> {
        let id = SandboxId::new();
        let making = Making {
            launcher: self,
            id,
            is_made: false,
        };
        let launched = self.launch_as(id, workspace, limits).await;
        making.ends();
        launched
    }

    async fn launch_as(
        &self,
        id: SandboxId,
        workspace: Option<String>,
        limits: &Limits,
    ) -> Result<Claimed, KernelError> {
        let is_for_pool = workspace.is_none();
        let workspace = workspace.unwrap_or_else(|| id.to_string());
        let directory = self.workspace(&workspace);
        tokio::fs::create_dir_all(&directory)
            .await
            .map_err(KernelError::Workspace)?;
        let spec = SandboxSpec {
            id,
            limits: limits.clone(),
            workspace: directory,
        };
        let began = Instant::now();
        let sandbox = self
            .parts
            .backend
            .create(spec)
            .await
            .map_err(KernelError::Sandbox)?;
        let orphan_limit = self.parts.config.orphan_limit;
        let (kernel, events) = Kernel::connect(sandbox, Agent::New, orphan_limit);
        let mut claimed = Claimed {
            kernel,
            events,
            frame: 0,
            python: String::new(),
            workspace,
            warm: false,
        };
        let proved = async {
            self.prove(&mut claimed, limits).await?;
            // Somebody waits for a kernel that is made to order, or to prove that one can be made.
            if is_for_pool && self.parts.config.pool_min > 0 {
                self.rehearse(&mut claimed).await?;
            }
            claimed.kernel.acknowledge(claimed.frame)
        };
        let proved = timeout(START_LIMIT, proved)
            .await
            .unwrap_or(Err(KernelError::TimedOut {
                what: "run its first cell",
                seconds: START_LIMIT.as_secs(),
            }));
        match proved {
            Ok(()) => {
                tracing::debug!(sandbox.id = %id, duration_ms = began.elapsed().as_millis(), "kernel launched");
                Ok(claimed)
            }
            Err(error) => {
                self.discard(claimed).await;
                Err(error)
            }
        }
    }

    /// Ready means: a cell has run.
    async fn prove(&self, claimed: &mut Claimed, limits: &Limits) -> Result<(), KernelError> {
        let kernel = &claimed.kernel;
        kernel.configure(&self.agent_config(limits))?;
        let start = kernel.start()?;
        let proof = kernel.request(Request::Execute(Box::new(Execute {
            cell: String::new(),
            code: "1".to_owned(),
            silent: true,
            store_history: false,
            allow_stdin: false,
            user_expressions: BTreeMap::new(),
            client: None,
        })));
        let proof = proof?;
        // What a kernel that cannot start says on its way out is the reason that the operator needs.
        let mut said = String::new();
        loop {
            let event = claimed.events.next().await.ok_or(KernelError::Closed)?;
            claimed.frame = claimed.frame.max(event.frame);
            match event.what {
                Occurrence::Message(message, ..) => {
                    if let Message::Ready { python, .. } = *message {
                        claimed.python = python;
                    }
                }
                Occurrence::Reply(reply) if reply.id == proof => break,
                Occurrence::Stream(_, bytes) if said.len() < 4096 => {
                    said.push_str(&String::from_utf8_lossy(&bytes))
                }
                Occurrence::Answer(number, body) if number == start => {
                    if let Some(error) = body.get("error").and_then(|error| error.as_str()) {
                        return Err(KernelError::Start(error.to_owned()));
                    }
                }
                Occurrence::Exited(exit) => {
                    return Err(KernelError::Start(
                        format!("{} {}", describe(&exit), said.trim())
                            .trim()
                            .to_owned(),
                    ));
                }
                Occurrence::Lost(why) => return Err(KernelError::Start(why)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Lets a kernel pay for its page faults before it has a session.
    async fn rehearse(&self, claimed: &mut Claimed) -> Result<(), KernelError> {
        let rehearsal = claimed.kernel.request(Request::Rehearse {})?;
        loop {
            let event = claimed.events.next().await.ok_or(KernelError::Closed)?;
            claimed.frame = claimed.frame.max(event.frame);
            match event.what {
                Occurrence::Reply(reply) if reply.id == rehearsal => return Ok(()),
                Occurrence::Exited(exit) => return Err(KernelError::Start(describe(&exit))),
                Occurrence::Lost(why) => return Err(KernelError::Start(why)),
                _ => {}
            }
        }
    }

    fn agent_config(&self, limits: &Limits) -> AgentConfig {
        AgentConfig {
            workspace_bytes: limits.workspace_bytes,
            memory_bytes: limits.memory_bytes,
            processes: limits.processes,
            cell_cpu_ms: limits.cell_cpu_ms,
            orphan_ms: u64::try_from(self.parts.config.orphan_limit.as_millis())
                .unwrap_or(u64::MAX),
        }
    }

    /// Destroys a kernel that nobody has used, with its workspace.
    async fn discard(&self, claimed: Claimed) {
        let sandbox = claimed.kernel.sandbox();
        let destroyed = claimed.kernel.destroy().await;
        self.clear(sandbox, destroyed).await;
    }

    /// The same, while nobody waits for it but who stops the server.
    fn discard_aside(&self, claimed: Claimed) {
        let launcher = self.clone();
        let clearing = &self.parts.clearing;
        clearing.spawn(async move { launcher.discard(claimed).await });
    }

    /// Says what could not be removed of a sandbox that nobody has used, and removes its workspace.
    async fn clear(&self, sandbox: SandboxId, destroyed: Result<(), SandboxError>) {
        if let Err(error) = destroyed {
            tracing::warn!(sandbox.id = %sandbox, error = %error, "a kernel could not be removed completely");
        }
        // Only a workspace that was made for this sandbox carries its name; one that a session has named since is not there.
        if let Err(error) = self.remove_workspace(&sandbox.to_string()).await {
            tracing::warn!(sandbox.id = %sandbox, error = %error, "a workspace could not be removed");
        }
    }
}

/// A kernel that is being made, for somebody who may give up meanwhile, as the pool does when the server stops.
struct Making<'a> {
    launcher: &'a Launcher,
    id: SandboxId,
    is_made: bool,
}

impl Making<'_> {
    /// It is made, or what was made is gone.
    fn ends(mut self) {
        self.is_made = true;
    }
}

impl Drop for Making<'_> {
    fn drop(&mut self) {
        if self.is_made {
            return;
        }
        let (launcher, id) = (self.launcher.clone(), self.id);
        self.launcher.parts.clearing.spawn(async move {
            let destroyed = launcher.parts.backend.destroy(id).await;
            launcher.clear(id, destroyed).await;
        });
    }
}

fn describe(exit: &KernelExit) -> String {
    let how = match (exit.code, exit.signal) {
        (Some(code), _) => format!("it exited with code {code}"),
        (_, Some(signal)) => format!("it was killed by signal {signal}"),
        _ => "it ended".to_owned(),
    };
    let why = match (&exit.violation, exit.limit) {
        (Some(violation), _) => violation,
        (None, Some(WatchedLimit::Memory)) => "it needed more memory than it may have",
        (None, Some(WatchedLimit::Disk)) => "its workspace holds more than it may",
        (None, Some(WatchedLimit::Processes)) => "it has more processes than it may",
        (None, None) if exit.out_of_memory => "it needed more memory than it may have",
        (None, None) => return how,
    };
    format!("{how}: {why}")
}
