//! A sandbox: the isolated place in which an agent and a kernel run, and the backends that make them.
//!
//! Knows nothing of kernels, sessions or protocols: it makes a place, gives a byte stream to the agent in it, applies limits, and
//! destroys it completely. A backend never runs code unsandboxed: where the host cannot isolate, it refuses and says what is missing.

pub mod check;
pub mod docker;
pub mod native;
mod owners;
mod record;
mod tree;

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};

pub use tree::remove as remove_tree;

use crate::model::id::SandboxId;
use crate::model::limits::Limits;

/// A byte stream to an agent.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A way to make sandboxes.
pub trait Backend: Send + Sync + fmt::Debug {
    /// Its name, such as `native`.
    fn name(&self) -> &'static str;

    /// Makes a sandbox in which an agent listens. No kernel runs in it yet.
    fn create(&self, spec: SandboxSpec) -> BoxFuture<'_, Result<Arc<dyn Sandbox>, SandboxError>>;

    /// Finds a sandbox that an earlier server made.
    fn adopt(&self, id: SandboxId) -> BoxFuture<'_, Result<Arc<dyn Sandbox>, SandboxError>>;

    /// All sandboxes that carry our label, owned or not.
    fn list(&self) -> BoxFuture<'_, Result<Vec<SandboxId>, SandboxError>>;

    /// Destroys what is left of a sandbox, whatever state it is in: processes, cgroups, mounts, directories. Succeeds when
    /// there is nothing left. The workspace is not part of the sandbox.
    fn destroy(&self, id: SandboxId) -> BoxFuture<'_, Result<(), SandboxError>>;

    /// Ends what the backend itself runs (the zygote).
    fn shut_down(&self) -> BoxFuture<'_, ()>;
}

/// What is to be made.
#[derive(Clone, Debug)]
pub struct SandboxSpec {
    /// Its id, chosen by the caller, so that it can be recorded before the sandbox exists.
    pub id: SandboxId,
    /// What it may use.
    pub limits: Limits,
    /// The directory on the host that becomes /workspace. It exists and is ours.
    pub workspace: PathBuf,
}

/// A stream on which files of a workspace can be read whose sandbox is gone, as an agent would serve them; for one operation. It drops `slot` at its end.
///
/// # Errors
/// The workspace is not there.
pub fn read_left(workspace: &Path, slot: impl Send + 'static) -> io::Result<Box<dyn Stream>> {
    let stream = crate::agent::serve_left(workspace, slot)?;
    stream.set_nonblocking(true)?;
    Ok(Box::new(tokio::net::UnixStream::from_std(stream)?))
}

/// One sandbox.
pub trait Sandbox: Send + Sync + fmt::Debug {
    /// Its id.
    fn id(&self) -> SandboxId;

    /// Opens a new stream to its agent.
    fn connect(&self) -> BoxFuture<'_, Result<Box<dyn Stream>, SandboxError>>;

    /// Changes memory, processor and process limits. The sizes of file systems stay as they were made.
    fn apply(&self, limits: &Limits) -> BoxFuture<'_, Result<(), SandboxError>>;

    /// Destroys it, completely, within a bounded time.
    fn destroy(&self) -> BoxFuture<'_, Result<(), SandboxError>>;
}

/// What we could not do.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The host lacks something that isolation cannot do without.
    #[error("this host cannot isolate: {missing}\n\nhint: {hint}")]
    CannotIsolate {
        /// What is missing.
        missing: String,
        /// How to get it.
        hint: String,
    },
    /// The engine that makes containers lacks something, or is not there.
    #[error("the Docker backend cannot be used: {missing}\n\nhint: {hint}")]
    Engine {
        /// What is missing.
        missing: String,
        /// How to get it.
        hint: String,
    },
    /// There is no such sandbox.
    #[error("there is no sandbox `{0}`")]
    NotFound(SandboxId),
    /// A sandbox of an earlier server does not run any more.
    #[error("{why}")]
    Gone {
        /// Which sandbox.
        id: SandboxId,
        /// What has ended it, as far as is known.
        why: String,
    },
    /// A step of making or changing it failed.
    #[error("cannot {step} of sandbox `{id}`")]
    Step {
        /// Which sandbox.
        id: SandboxId,
        /// What was tried, such as `mount /proc`.
        step: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// What leads to it does not answer just now. It may be as well as ever.
    #[error("cannot {step} of sandbox `{id}` now")]
    Away {
        /// Which sandbox.
        id: SandboxId,
        /// What was tried.
        step: String,
        /// What was said instead of an answer.
        #[source]
        source: std::io::Error,
    },
    /// The Python environment does not work.
    #[error("the Python environment does not work: {why}\n\nhint: {hint}")]
    Environment {
        /// What is wrong.
        why: String,
        /// What to do.
        hint: String,
    },
    /// It did not come up in time.
    #[error("sandbox `{id}` did not {what} within {seconds} s")]
    TimedOut {
        /// Which sandbox.
        id: SandboxId,
        /// What was waited for.
        what: &'static str,
        /// How long.
        seconds: u64,
    },
}

/// The sandboxes that have a directory of their own in this one.
fn ids_in(run: &Path) -> impl Iterator<Item = SandboxId> + use<> {
    let entries = fs::read_dir(run).into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// Closes a directory to users who are neither its owner nor in its group.
///
/// Whoever runs in a sandbox of an ordinary user can make files in the workspace that run as that user when somebody executes them
/// (setuid). In the sandbox that means nothing; on the host it would.
fn keep_others_out(directory: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = fs::metadata(directory)?.permissions().mode();
    if mode & 0o007 == 0 {
        return Ok(());
    }
    fs::set_permissions(directory, fs::Permissions::from_mode(mode & 0o770))
}

/// A short name that is always the same for a directory, and of which there is one for each server.
fn name_of(directory: &Path) -> String {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    let mut hasher = DefaultHasher::new();
    directory.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}
