//! The agent: PID 1 of a sandbox. It survives the server.
//!
//! It starts and watches the Python kernel, captures what is written to file descriptors 1 and 2, keeps every frame until the server has
//! acknowledged it as stored, answers while Python is busy (interrupts, files, usage), waits for orphaned processes, and ends itself when no
//! server has come back within a limit. One thread, one loop.
//!
//! How the sandbox was made is none of its business: it is given a [`Setup`] when everything around it stands.
//!
//! ```text
//!              greeting          supervisor            kernel_process
//!  server ───▶ relay ──────────▶ commands ─▶ requests ────────────────▶ Python kernel
//!         ◀─── relay ◀─ outbox ◀──────────── capture ◀── ring, pipes ──
//!         ◀──▶ files ◀─▶ workspace ◀─ watch, usage
//! ```

mod supervisor;

mod capture;
mod checkpoints;
mod descriptor;
mod files;
mod greeting;
mod init;
mod kernel_process;
mod outbox;
mod relay;
mod requests;
mod ring;
#[cfg(test)]
mod tests;
mod usage;
mod watch;
mod workspace;

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use crate::model::id::SandboxId;
use crate::protocol::agent::AgentConfig;

use self::supervisor::Supervisor;

pub(crate) use self::files::serve_left;

/// What an agent is given by whoever made the sandbox around it.
#[derive(Debug)]
pub struct Setup {
    /// Which sandbox this is.
    pub sandbox: SandboxId,
    /// A Unix stream socket on which the server connects; bound and listening.
    pub listener: OwnedFd,
    /// Who may connect there.
    pub visitors: Visitors,
    /// Where kernels come from.
    pub kernels: KernelSource,
    /// The `JAIL` of `kernel-image/PROTOCOL.md`, given to each kernel as it is.
    pub jail: serde_json::Value,
    /// The workspace, as it is seen in the sandbox.
    pub workspace: PathBuf,
    /// Where usage is read.
    pub gauges: Gauges,
    /// Limits that the agent watches, until it is told others.
    pub config: AgentConfig,
}

/// What a connection begins with when an agent has to know whether it comes from its server.
pub type Secret = [u8; 32];

/// Who may connect to an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visitors {
    /// Whoever can: the socket is out of the sandbox's reach.
    All,
    /// Those who begin with this secret: kernels can get at the socket.
    Knowing(Secret),
}

/// Where kernels come from.
#[derive(Debug)]
pub enum KernelSource {
    /// Forked from a zygote outside of the sandbox.
    Zygote {
        /// A directory outside of the sandbox, opened with `O_PATH` before the root was changed. The zygote listens in it as `zygote.sock`.
        directory: OwnedFd,
        /// The namespaces that a kernel enters, named as in `kernel-image/PROTOCOL.md`, in that order.
        namespaces: Vec<(&'static str, OwnedFd)>,
        /// The `cgroup.procs` files of the cgroups that a kernel enters.
        cgroups: Vec<OwnedFd>,
    },
    /// Started in the sandbox by executing a program.
    Exec {
        /// The program and its arguments.
        argv: Vec<String>,
    },
}

/// Open files from which usage is read, each where the host has it.
#[derive(Debug, Default)]
pub struct Gauges {
    /// Bytes in use by the kernel's cgroup (`memory.current`, `memory.usage_in_bytes`).
    pub memory: Option<OwnedFd>,
    /// The most of it (`memory.peak`, `memory.max_usage_in_bytes`), opened for writing too: a write sets it back.
    pub memory_peak: Option<OwnedFd>,
    /// Where kills for lack of memory are counted (`memory.events`, `memory.oom_control`): the number in the line `oom_kill N`.
    pub oom: Option<OwnedFd>,
    /// What it is made of (`memory.stat`), to tell what could be given back.
    pub memory_stat: Option<OwnedFd>,
    /// Processor time of the kernel's cgroup.
    pub cpu: Option<CpuGauge>,
    /// Bytes of that memory which are not the session's: libraries that no zygote shares, and the agent itself.
    pub beside: u64,
}

/// Processor time of a cgroup.
#[derive(Debug)]
pub enum CpuGauge {
    /// Version 2: the line `usage_usec N` of `cpu.stat`.
    Stat(OwnedFd),
    /// Version 1: nanoseconds in `cpuacct.usage`.
    Acct(OwnedFd),
}

/// Why the agent has come to its end. Nothing of the sandbox runs any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitReason {
    /// The server said so.
    Shutdown,
    /// SIGTERM from outside of the sandbox.
    Terminated,
    /// No server came back within the limit.
    Orphaned,
}

/// Why the agent could not begin.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// No event loop.
    #[error("cannot make an event loop")]
    Runtime(#[source] io::Error),
    /// No signals.
    #[error("cannot take over signals")]
    Signals(#[source] io::Error),
    /// No listener.
    #[error("cannot use the listening socket")]
    Listener(#[source] io::Error),
    /// No workspace.
    #[error("cannot open the workspace `{path}`")]
    Workspace {
        /// Where it should be.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// Is the agent, until the end of the sandbox. To be called in a process with one thread.
pub fn run(setup: Setup) -> Result<ExitReason, AgentError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(AgentError::Runtime)?;
    runtime.block_on(async { Ok(Supervisor::new(setup)?.run().await) })
}
