//! A kernel: one live Python kernel, wherever it runs. Typed requests go in, [`KernelEvent`]s come out.
//!
//! Also the warm pool, since what is kept warm is a kernel that has answered, not an empty box. Knows nothing of sessions.

mod connection;
pub mod files;
mod launch;
mod parts;
mod pool;

pub use connection::{Kernel, KernelEvent, KernelEvents, Occurrence};
pub use launch::{Adopted, Claimed, Config, Launcher, Order};

use crate::protocol::codec::CodecError;
use crate::sandbox::SandboxError;

/// What we could not do with a kernel.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// Its sandbox could not be made or reached.
    #[error(transparent)]
    Sandbox(SandboxError),
    /// The stream broke or carried what is no frame.
    #[error("the connection to the sandbox broke")]
    Codec(#[source] CodecError),
    /// The stream ended.
    #[error("the sandbox closed the connection")]
    Closed,
    /// The agent said what makes no sense.
    #[error("the agent sent {0}")]
    Nonsense(&'static str),
    /// The agent speaks a generation that we do not.
    #[error("the agent speaks generation {0} of the protocol, which this server does not")]
    Generation(u32),
    /// The agent of a sandbox that was to be taken over could not be spoken to.
    #[error("its agent does not answer: {0}")]
    Agent(String),
    /// The kernel did not start.
    #[error("the kernel did not start: {0}")]
    Start(String),
    /// It did not answer in time.
    #[error("the kernel did not {what} within {seconds} s")]
    TimedOut {
        /// What was waited for.
        what: &'static str,
        /// How long.
        seconds: u64,
    },
    /// The workspace's directory could not be made.
    #[error("cannot make a workspace in the data directory")]
    Workspace(#[source] std::io::Error),
}
