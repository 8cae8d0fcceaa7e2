//! Hidden: become PID 1 of a sandbox or container, or the zygote. Started by backends only.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::agent::{self, CpuGauge, ExitReason, Gauges, KernelSource, Setup, Visitors};
use crate::protocol::agent::AgentConfig;
use crate::sandbox::{docker, native};

/// Become PID 1 of a sandbox.
#[derive(Debug, Args)]
pub(super) struct SandboxInit {
    /// The sandbox's directory.
    directory: PathBuf,
}

/// Become the process that kernels are forked from.
#[derive(Debug, Args)]
pub(super) struct ZygoteInit {
    /// The zygote's directory.
    directory: PathBuf,
    /// Move into the user namespace on descriptor 1.
    #[arg(long)]
    join: bool,
}

/// Become PID 1 of a container.
#[derive(Debug, Args)]
pub(super) struct ContainerInit {
    /// What it is told, as JSON.
    order: String,
}

/// Is the agent of the container that this runs in.
pub(super) fn container_init(arguments: &ContainerInit) -> ExitCode {
    match docker::init(&arguments.order).map(agent::run) {
        Ok(Ok(ExitReason::Orphaned)) => ExitCode::from(docker::ORPHANED),
        Ok(Ok(ExitReason::Shutdown | ExitReason::Terminated)) => ExitCode::SUCCESS,
        Ok(Err(error)) => fail(&error),
        Err(error) => fail(&error),
    }
}

/// Brings a connection to the agent of the container that this runs in.
pub(super) fn container_relay() -> ExitCode {
    match docker::relay() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

/// Makes the sandbox and goes on as its agent.
pub(super) fn sandbox_init(arguments: &SandboxInit) -> ExitCode {
    match native::init(&arguments.directory) {
        // The first of two processes: the sandbox has what it needs from outside.
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(inside)) => run(inside),
        // The server was told; this line goes to the agent's log.
        Err(error) => fail(&error),
    }
}

/// Makes the house and goes on as Python. Returns only if that does not work.
pub(super) fn zygote_init(arguments: &ZygoteInit) -> ExitCode {
    match native::zygote_init(&arguments.directory, arguments.join) {
        Err(error) => fail(&error),
    }
}

/// Tries out what isolation needs and says how it went on standard output.
pub(super) fn sandbox_probe() -> ExitCode {
    native::probe();
    ExitCode::SUCCESS
}

/// Is the agent of a sandbox that stands.
fn run(inside: native::Inside) -> ExitCode {
    let limits = &inside.limits;
    let config = AgentConfig {
        workspace_bytes: limits.workspace_bytes,
        memory_bytes: limits.memory_bytes,
        processes: limits.processes,
        cell_cpu_ms: limits.cell_cpu_ms,
        orphan_ms: u64::try_from(inside.orphan.as_millis()).unwrap_or(u64::MAX),
    };
    let gauges = inside.gauges;
    let setup = Setup {
        sandbox: inside.id,
        listener: inside.listener,
        visitors: Visitors::All,
        kernels: KernelSource::Zygote {
            directory: inside.zygote,
            namespaces: inside.namespaces,
            cgroups: inside.cgroups,
        },
        jail: inside.jail,
        workspace: inside.workspace,
        gauges: Gauges {
            memory: gauges.memory,
            memory_peak: gauges.memory_peak,
            memory_stat: gauges.memory_stat,
            oom: gauges.oom,
            cpu: gauges
                .cpu_stat
                .map(CpuGauge::Stat)
                .or(gauges.cpu_acct.map(CpuGauge::Acct)),
            beside: 0,
        },
        config,
    };
    match agent::run(setup) {
        Ok(reason) => {
            if reason == ExitReason::Orphaned {
                // For the server that comes back all the same.
                let _ = writeln!(io::stderr(), "{}", native::ORPHANED);
            }
            ExitCode::SUCCESS
        }
        Err(error) => fail(&error),
    }
}

/// Says what went wrong where the server's operator can find it: in the sandbox's log.
fn fail(error: &dyn std::error::Error) -> ExitCode {
    let source = error
        .source()
        .map_or(String::new(), |source| format!(": {source}"));
    // Nobody is left to tell if that fails.
    let _ = writeln!(io::stderr(), "{error}{source}");
    ExitCode::FAILURE
}
