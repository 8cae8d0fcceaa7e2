//! A container from inside: what the program does when it is PID 1 there, or brings a connection to that.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use rustix::fs::{Mode, OFlags};
use rustix::net::SocketType;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{AGENT_SOCKET, DOOR, Link};
use crate::agent::{CpuGauge, Gauges, KernelSource, Secret, Setup, Visitors};
use crate::model::id::SandboxId;
use crate::model::limits::Limits;
use crate::protocol::agent::AgentConfig;
use crate::sandbox::native::step::{Step as _, StepError};
use crate::sandbox::native::{self, Audience, Memory};

/// Where the agent listens when connections are brought to it: a name without a file, so that nobody can put another socket in its place.
const NAME: &[u8] = b"evercell-agent";

/// The exit code of an agent to which no server came back.
pub const ORPHANED: u8 = 3;

/// What the agent of a container is told, on its command line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Order {
    /// Which sandbox this is.
    pub(super) id: SandboxId,
    /// How the server comes in.
    pub(super) link: Link,
    /// What the sandbox may use.
    pub(super) limits: Limits,
    /// Bytes of the container's memory that are not the session's.
    pub(super) beside: u64,
    /// How long the agent lives on without a server.
    pub(super) orphan_ms: u64,
}

/// Prepares what the agent of a container needs.
///
/// The engine has made everything else: root, limits, namespaces, filter. The agent has the user of the kernel and no capabilities. What keeps a
/// kernel out of it is that it cannot be looked into (`PR_SET_DUMPABLE`), and that its socket is out of reach, or asks for a secret.
pub fn init(order: &str) -> Result<Setup, StepError> {
    let order: Order = serde_json::from_str(order)
        .map_err(io::Error::from)
        .step("read the order")?;
    native::set_dumpable(false).step("hide from the kernel")?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    let (listener, visitors) = match order.link {
        Link::Socket => {
            let door = native::open_place(Path::new(DOOR)).step("open the door")?;
            let listener = native::listen(&door, AGENT_SOCKET, SocketType::STREAM)
                .step("listen for the server")?;
            // The server takes it out of the sandbox before it lets a kernel run.
            (listener, Visitors::All)
        }
        Link::Exec => {
            let listener = address()
                .and_then(|address| UnixListener::bind_addr(&address))
                .step("listen for the server")?;
            // On standard input, since all else that a process is told can be read in /proc; and no runtime but the usual one says who connects.
            let mut secret = Secret::default();
            io::stdin()
                .lock()
                .read_exact(&mut secret)
                .step("read the secret")?;
            (OwnedFd::from(listener), Visitors::Knowing(secret))
        }
    };
    // A part of /tmp, to which the home in the image is a link.
    match fs::create_dir("/tmp/.home") {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(error).step("make the home directory");
        }
        _ => {}
    }
    let filter = native::filter(Audience::Kernel)?;
    let filter = base64::engine::general_purpose::STANDARD.encode(filter);
    let limits = order.limits;
    Ok(Setup {
        sandbox: order.id,
        listener,
        visitors,
        kernels: KernelSource::Exec {
            argv: [
                &format!("{}/bin/python", native::PYTHON_ENV),
                // No user's site-packages, no directory that happens to be the current one.
                "-s",
                "-P",
                "-m",
                "pykernel",
                "kernel",
            ]
            .map(str::to_owned)
            .to_vec(),
        },
        jail: jail(&limits, &filter),
        workspace: native::WORKSPACE.into(),
        gauges: gauges(order.beside),
        config: AgentConfig {
            workspace_bytes: limits.workspace_bytes,
            memory_bytes: limits.memory_bytes,
            processes: limits.processes,
            cell_cpu_ms: limits.cell_cpu_ms,
            orphan_ms: order.orphan_ms,
        },
    })
}

/// The jail of a kernel, without what the engine has done already.
fn jail(limits: &Limits, filter: &str) -> Value {
    let mut jail = native::jail(limits, Memory::Group, filter);
    // It is this user already, and there is no capability to give up.
    jail["uid"] = Value::Null;
    jail["gid"] = Value::Null;
    // Linux counts it over all processes of a user, in whatever container, the agent's too. The container's cgroup bounds it, and that moves with
    // the session's limits.
    if let Some(rlimits) = jail["rlimits"].as_object_mut() {
        rlimits.remove("NPROC");
    }
    jail
}

/// The container's own cgroup, version 1 or 2, as engines show it inside.
fn gauges(beside: u64) -> Gauges {
    let open = |path: &str| -> Option<OwnedFd> {
        let path = Path::new("/sys/fs/cgroup").join(path);
        rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()
    };
    let version_2 = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    // The most that was used cannot be set back here: it is what the kernel itself had, and what was seen.
    let memory_peak = None;
    if version_2 {
        Gauges {
            memory: open("memory.current"),
            memory_peak,
            oom: open("memory.events"),
            memory_stat: open("memory.stat"),
            cpu: open("cpu.stat").map(CpuGauge::Stat),
            beside,
        }
    } else {
        Gauges {
            memory: open("memory/memory.usage_in_bytes"),
            memory_peak,
            oom: open("memory/memory.oom_control"),
            memory_stat: open("memory/memory.stat"),
            cpu: open("cpuacct/cpuacct.usage").map(CpuGauge::Acct),
            beside,
        }
    }
}

fn address() -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(NAME)
}

/// How long a relay waits for an agent that has not begun to listen.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(5);

/// Brings what comes on standard input to the agent, and its answers to standard output, until either ends.
///
/// The engine starts this in the container. What the server sends begins with the secret by which the agent knows it.
pub fn relay() -> io::Result<()> {
    let address = address()?;
    let began = tokio::time::Instant::now();
    let mut agent = loop {
        match UnixStream::connect_addr(&address) {
            Ok(agent) => break agent,
            Err(_) if began.elapsed() < PATIENCE => std::thread::sleep(PAUSE),
            Err(error) => return Err(error),
        }
    };
    let mut to_agent = agent.try_clone()?;
    std::thread::spawn(move || {
        let _ = io::copy(&mut io::stdin().lock(), &mut to_agent);
        // Both directions: an agent that hears nothing more is not to be listened to either.
        let _ = to_agent.shutdown(std::net::Shutdown::Both);
    });
    let mut out = io::stdout().lock();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match agent.read(&mut buffer)? {
            0 => return Ok(()),
            length => {
                out.write_all(&buffer[..length])?;
                out.flush()?;
            }
        }
    }
}
