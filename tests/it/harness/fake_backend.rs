//! A backend without isolation and without Python: its agent speaks the real protocol, its kernel runs a script.
//!
//! One command a line: `print TEXT`, `write TEXT` (no newline), `warn TEXT` (standard error), `show TEXT`, `result TEXT`, `error NAME TEXT`, `ask PROMPT`
//! (prints the answer), `rest SECONDS`, `wait` (until interrupted), `deaf` (until cancelled: SIGINT does nothing), `stubborn` (until killed), `die SIGNAL`, `exit CODE`, `oom`, `memory BYTES`
//! (so much is in use, of 1000), `cpu` (its processor time is used up), `immortal` (does not even die when killed), `checkpoint`
//! (one is made when the cell is over; `checkpoint broken` does not wake, `checkpoint slow` says that
//! it is awake only when it is about to be ended), `afterwards SIGNAL` (dies of it when the cell is over). Anything else does nothing.

mod agent;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use dashmap::DashMap;
use evercell::model::id::SandboxId;
use evercell::model::limits::Limits;
use evercell::protocol::GENERATION;
use evercell::sandbox::{Backend, Sandbox, SandboxError, SandboxSpec, Stream};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::io::DuplexStream;
use tokio::sync::mpsc;

use self::agent::Agent;

/// What a test can do to the backend, and see of it.
#[derive(Debug, Default)]
pub struct FakeBackend {
    /// How many of the next sandboxes cannot be made.
    pub failures: AtomicUsize,
    /// How many were asked for.
    pub created: AtomicUsize,
    sandboxes: Arc<Sandboxes>,
    /// How many were asked for while others were being destroyed.
    pub crowded: AtomicUsize,
    /// What agents are like.
    mood: Arc<Mood>,
}

/// Those that there are.
#[derive(Debug, Default)]
struct Sandboxes {
    agents: DashMap<SandboxId, mpsc::Sender<DuplexStream>>,
    /// How many are being destroyed.
    leaving: AtomicUsize,
    /// Whether that takes a while.
    linger: AtomicBool,
    /// How often they cannot be found just now.
    hidden: AtomicUsize,
    /// How often they cannot be reached just now.
    unreachable: AtomicUsize,
}

/// An error while there are some left.
fn away(id: SandboxId, left: &AtomicUsize) -> Result<(), SandboxError> {
    let one_less = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
    one_less.map_or(Ok(()), |_| {
        Err(SandboxError::Away {
            id,
            step: "reach the agent".to_owned(),
            source: std::io::ErrorKind::TimedOut.into(),
        })
    })
}

impl Sandboxes {
    async fn destroy(&self, id: SandboxId) {
        if self.agents.remove(&id).is_some() || self.linger.load(Ordering::Relaxed) {
            self.leaving.fetch_add(1, Ordering::Relaxed);
            if self.linger.load(Ordering::Relaxed) {
                // Whatever else does not wait for this comes to its end meanwhile, also what needs other threads.
                for _ in 0..2000 {
                    let _ = tokio::task::spawn_blocking(|| {}).await;
                }
            }
            self.leaving.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// What all agents are like.
#[derive(Debug)]
struct Mood {
    /// What the server asks for does not arrive.
    deaf: AtomicBool,
    /// What they have to say stays with them.
    mute: AtomicBool,
    /// The generation of the protocol that they speak.
    generation: AtomicU32,
}

impl Default for Mood {
    fn default() -> Self {
        Self {
            deaf: AtomicBool::new(false),
            mute: AtomicBool::new(false),
            generation: AtomicU32::new(GENERATION),
        }
    }
}

impl FakeBackend {
    /// How many sandboxes there are.
    pub fn alive(&self) -> usize {
        self.sandboxes.agents.len()
    }

    /// Lets nothing arrive any more that the server asks for, as if it died with the server; or lets it.
    pub fn deafen(&self, deaf: bool) {
        self.mood.deaf.store(deaf, Ordering::Relaxed);
    }

    /// Lets nothing be heard any more that kernels say; or lets it, from the next connection on.
    pub fn mute(&self, mute: bool) {
        self.mood.mute.store(mute, Ordering::Relaxed);
    }

    /// Has all agents speak another generation of the protocol.
    pub fn speak(&self, generation: u32) {
        self.mood.generation.store(generation, Ordering::Relaxed);
    }

    /// Has each sandbox take a while to be destroyed.
    pub fn linger(&self) {
        self.sandboxes.linger.store(true, Ordering::Relaxed);
    }

    /// Has what leads to sandboxes not answer so often, when they are looked for and when they are called.
    pub fn away(&self, times: usize) {
        self.sandboxes.hidden.store(times, Ordering::Relaxed);
        self.sandboxes.unreachable.store(times, Ordering::Relaxed);
    }

    /// Makes the agents of all sandboxes vanish.
    pub fn lose_all(&self) {
        self.sandboxes.agents.clear();
    }
}

impl Backend for FakeBackend {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn create(&self, spec: SandboxSpec) -> BoxFuture<'_, Result<Arc<dyn Sandbox>, SandboxError>> {
        async move {
            self.created.fetch_add(1, Ordering::Relaxed);
            if self.sandboxes.leaving.load(Ordering::Relaxed) > 0 {
                self.crowded.fetch_add(1, Ordering::Relaxed);
            }
            if self
                .failures
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1))
                .is_ok()
            {
                return Err(SandboxError::TimedOut {
                    id: spec.id,
                    what: "come up",
                    seconds: 1,
                });
            }
            let (connections, accept) = mpsc::channel(4);
            tokio::spawn(Agent::new(spec.id, self.mood.clone()).run(accept));
            self.sandboxes.agents.insert(spec.id, connections);
            let sandbox = FakeSandbox {
                id: spec.id,
                sandboxes: self.sandboxes.clone(),
            };
            Ok(Arc::new(sandbox) as Arc<dyn Sandbox>)
        }
        .boxed()
    }

    fn adopt(&self, id: SandboxId) -> BoxFuture<'_, Result<Arc<dyn Sandbox>, SandboxError>> {
        async move {
            away(id, &self.sandboxes.hidden)?;
            if !self.sandboxes.agents.contains_key(&id) {
                return Err(SandboxError::NotFound(id));
            }
            let sandboxes = self.sandboxes.clone();
            Ok(Arc::new(FakeSandbox { id, sandboxes }) as Arc<dyn Sandbox>)
        }
        .boxed()
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<SandboxId>, SandboxError>> {
        async move {
            Ok(self
                .sandboxes
                .agents
                .iter()
                .map(|entry| *entry.key())
                .collect())
        }
        .boxed()
    }

    fn destroy(&self, id: SandboxId) -> BoxFuture<'_, Result<(), SandboxError>> {
        async move {
            self.sandboxes.destroy(id).await;
            Ok(())
        }
        .boxed()
    }

    fn shut_down(&self) -> BoxFuture<'_, ()> {
        async {}.boxed()
    }
}

#[derive(Debug)]
struct FakeSandbox {
    id: SandboxId,
    sandboxes: Arc<Sandboxes>,
}

impl Sandbox for FakeSandbox {
    fn id(&self) -> SandboxId {
        self.id
    }

    fn connect(&self) -> BoxFuture<'_, Result<Box<dyn Stream>, SandboxError>> {
        async move {
            away(self.id, &self.sandboxes.unreachable)?;
            let (ours, theirs) = tokio::io::duplex(1 << 20);
            let agent = self
                .sandboxes
                .agents
                .get(&self.id)
                .map(|agent| agent.clone());
            let agent = agent.ok_or(SandboxError::NotFound(self.id))?;
            agent
                .send(theirs)
                .await
                .map_err(|_| SandboxError::NotFound(self.id))?;
            Ok(Box::new(ours) as Box<dyn Stream>)
        }
        .boxed()
    }

    fn apply(&self, _: &Limits) -> BoxFuture<'_, Result<(), SandboxError>> {
        async { Ok(()) }.boxed()
    }

    fn destroy(&self) -> BoxFuture<'_, Result<(), SandboxError>> {
        async move {
            self.sandboxes.destroy(self.id).await;
            Ok(())
        }
        .boxed()
    }
}
