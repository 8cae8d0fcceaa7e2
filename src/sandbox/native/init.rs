//! How a sandbox is made, from inside: what the program does when it is started as `sandbox-init`.
//!
//! Two processes. The first is started by the server, gathers what only somebody outside can, enters the user namespace of the house and
//! forks into all new namespaces; then it writes the id maps and the pid, and is done. The second is PID 1: it builds the root, gives up
//! what it does not need, and goes on as the agent.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::thread::CapabilitySet;

use super::cgroup::{Controller, Gauges};
use super::ids::{self, Range};
use super::jail::{self, Memory, USER};
use super::record::{AGENT_SOCKET, PID, Process, Record};
use super::rootfs::{self, Root, Sources};
use super::step::{Status, Step, StepError};
use super::sys::{self, Fork, Inherited};
use super::zygote::{AGENT_FILTER, FILTER};
use crate::model::id::SandboxId;
use crate::model::limits::Limits;
use crate::sandbox::record::Recorded as _;

/// The namespaces of a sandbox, as `kernel-image/PROTOCOL.md` names them and in the order a kernel enters them.
const NAMESPACES: [(&str, &str); 7] = [
    ("user", "user"),
    ("mnt", "mnt"),
    ("net", "net"),
    ("ipc", "ipc"),
    ("uts", "uts"),
    ("cgroup", "cgroup"),
    ("pid", "pid"),
];

/// Everything that the agent is given.
#[derive(Debug)]
pub struct Inside {
    /// Which sandbox this is.
    pub id: SandboxId,
    /// A Unix stream socket, bound and listening.
    pub listener: OwnedFd,
    /// The directory of the zygote, outside.
    pub zygote: OwnedFd,
    /// The namespaces that a kernel enters, by name, in order.
    pub namespaces: Vec<(&'static str, OwnedFd)>,
    /// The files into which a kernel writes `0` to enter its cgroups.
    pub cgroups: Vec<OwnedFd>,
    /// Where usage is read.
    pub gauges: Gauges,
    /// The `JAIL` of a kernel.
    pub jail: serde_json::Value,
    /// Where the workspace is.
    pub workspace: PathBuf,
    /// What the sandbox may use.
    pub limits: Limits,
    /// Which of these limits nobody else enforces.
    pub unbounded: Unbounded,
    /// How long the agent lives on without a server.
    pub orphan: Duration,
}

/// Limits that no cgroup enforces.
#[derive(Clone, Copy, Debug)]
pub struct Unbounded {
    /// Memory.
    pub memory: bool,
    /// Numbers of processes and threads. There is still `RLIMIT_NPROC`.
    pub processes: bool,
}

/// Makes the sandbox of this directory. Returns in two processes: in PID 1 of the sandbox with what the agent needs, and in the process
/// that was started by the server with `None`, when it is to exit.
///
/// Descriptor 0 is the user namespace of the house; the outcome is written to descriptor 1.
pub fn init(directory: &Path) -> Result<Option<Inside>, StepError> {
    sys::forget_inherited(Inherited::Close).step("close inherited files")?;
    let status = ids::keep_private(rustix::stdio::stdout()).step("keep the status pipe")?;
    make(directory, &status).inspect_err(|error| {
        // The server may be gone; then nobody reads it.
        let _ = tell(&status, &Status::from(error));
    })
}

fn make(directory: &Path, status: &OwnedFd) -> Result<Option<Inside>, StepError> {
    // A session of its own: a Ctrl-C in the server's terminal is not for us.
    rustix::process::setsid().step("start a session")?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    let outside = Outside::gather(directory)?;
    let house = ids::keep_private(rustix::stdio::stdin()).step("keep the house")?;

    // From here on this process sees the host as user 0 of the house does: as nobody.
    ids::enter_house(house.as_fd(), outside.record.privileged)?;
    drop(house);

    let (go, may_go) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).step("make a pipe")?;
    let flags = libc::CLONE_NEWUSER
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWCGROUP;
    match sys::fork_into(flags).step("make namespaces")? {
        Fork::Parent(pid) => {
            let maps = Range {
                first: outside.record.id_in_house,
                count: 1,
            };
            ids::write_maps(pid.cast_unsigned(), USER, maps).step("write the id maps")?;
            outside.write_pid(pid).step("write down the pid")?;
            rustix::io::write(&may_go, b"g").step("let the sandbox go on")?;
            Ok(None)
        }
        Fork::Child => {
            drop(may_go);
            // End of file instead of a byte: the other process has said what went wrong.
            if rustix::io::read(&go, &mut [0_u8; 1]).step("wait for the id maps")? != 1 {
                return Ok(None);
            }
            drop(go);
            let inside = outside.enter()?;
            // A server that went away meanwhile does not know of this sandbox: then it is not to be.
            tell(status, &Status::Ready).step("tell the server")?;
            forget_standard_files().step("let go of standard input and output")?;
            Ok(Some(inside))
        }
    }
}

fn tell(status: &OwnedFd, what: &Status) -> io::Result<()> {
    let mut line = serde_json::to_vec(what)?;
    line.push(b'\n');
    rustix::io::write(status, &line)?;
    Ok(())
}

/// The house's namespace and the status pipe would be kept alive by the agent.
fn forget_standard_files() -> io::Result<()> {
    let null = rustix::fs::openat(
        CWD,
        "/dev/null",
        OFlags::RDWR | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    Ok(())
}

/// What is gathered while the host can be seen.
struct Outside {
    record: Record,
    pid_file: OwnedFd,
    listener: OwnedFd,
    zygote: OwnedFd,
    filter: String,
    agent_filter: String,
    cgroups: Vec<OwnedFd>,
    gauges: Gauges,
    /// Where only root may open them. Otherwise they are taken later, see [`Self::enter`].
    sources: Option<Sources>,
}

impl Outside {
    fn gather(directory: &Path) -> Result<Self, StepError> {
        let record = Record::read(directory).step("read the record")?;
        let place = rootfs::open_place(directory).step("open the directory")?;
        let zygote = rootfs::open_place(&record.house).step("open the directory of the zygote")?;
        let filter =
            fs::read_to_string(record.house.join(FILTER)).step("read the seccomp filter")?;
        let agent_filter =
            fs::read_to_string(record.house.join(AGENT_FILTER)).step("read the seccomp filter")?;
        let pid_file = rustix::fs::openat(
            &place,
            PID,
            OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC,
            Mode::from_raw_mode(0o600),
        )
        .step("make the pid file")?;
        let listener = listen(&place.as_fd(), AGENT_SOCKET, SocketType::STREAM)
            .step("listen for the server")?;
        let cgroups = record.cgroups.doors().step("open the cgroups")?;
        let gauges = record.cgroups.gauges();
        let sources = if record.privileged {
            Some(take(&record)?)
        } else {
            None
        };
        Ok(Self {
            record,
            pid_file,
            listener,
            zygote,
            filter,
            agent_filter,
            cgroups,
            gauges,
            sources,
        })
    }

    fn write_pid(&self, pid: i32) -> io::Result<()> {
        let process = serde_json::to_vec(&Process::of(pid)?)?;
        rustix::io::write(&self.pid_file, &process)?;
        Ok(())
    }

    /// Becomes PID 1 of a finished sandbox.
    fn enter(self) -> Result<Inside, StepError> {
        let record = self.record;
        // Before any file is made: Linux makes none for a user that the owner of the file system does not know (EOVERFLOW).
        ids::become_user(USER)?;
        let sources = match self.sources {
            Some(sources) => sources,
            // An ordinary user has no rights over the host's mounts, but over this namespace's copies of them; and still is the same user,
            // who can open the same files.
            None => take(&record)?,
        };
        let unbounded = Unbounded {
            memory: !record.cgroups.has(Controller::Memory),
            processes: !record.cgroups.has(Controller::Pids),
        };
        // What lies there is memory: counted by a cgroup, and by nobody else.
        let shared_memory = record.limits.memory_bytes / if unbounded.memory { 8 } else { 2 };
        rootfs::enter(
            sources,
            Root::Sandbox {
                tmp: record.limits.disk_bytes,
                shared_memory,
            },
        )?;
        rustix::system::sethostname(b"evercell").step("set the host name")?;
        sys::loopback_up().step("bring up the loopback interface")?;
        let namespaces = NAMESPACES
            .into_iter()
            .map(|(name, file)| {
                let path = format!("/proc/self/ns/{file}");
                let fd =
                    rustix::fs::openat(CWD, &path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                        .step_with(|| format!("open the {name} namespace"))?;
                Ok((name, fd))
            })
            .collect::<Result<Vec<_>, StepError>>()?;
        // KILL: any process of the sandbox. DAC_OVERRIDE: serve and count files whose owner locked everybody out.
        ids::keep_only(CapabilitySet::KILL | CapabilitySet::DAC_OVERRIDE)?;
        // The agent reads what hostile code writes; should it be taken over, it has no more ways out than that code.
        let filter = base64::engine::general_purpose::STANDARD
            .decode(&self.agent_filter)
            .map_err(io::Error::other)
            .step("read the seccomp filter")?;
        sys::install_filter(&filter).step("install the seccomp filter")?;

        let memory = if unbounded.memory {
            Memory::Process {
                beside: record.shared_data_bytes,
            }
        } else {
            Memory::Group
        };
        Ok(Inside {
            id: record.id,
            listener: self.listener,
            zygote: self.zygote,
            namespaces,
            cgroups: self.cgroups,
            gauges: self.gauges,
            jail: jail::jail(&record.limits, memory, &self.filter),
            workspace: rootfs::WORKSPACE.into(),
            limits: record.limits,
            unbounded,
            orphan: Duration::from_millis(record.orphan_ms),
        })
    }
}

fn take(record: &Record) -> Result<Sources, StepError> {
    Sources::for_sandbox(&record.layout, &record.workspace)
}

/// A Unix socket that listens in a directory, however long the directory's path is.
pub(in crate::sandbox) fn listen(
    directory: &impl AsFd,
    name: &str,
    kind: SocketType,
) -> io::Result<OwnedFd> {
    let socket = rustix::net::socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
    match rustix::fs::unlinkat(directory, name, rustix::fs::AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    rustix::net::bind(&socket, &SocketAddrUnix::new(through(directory, name))?)?;
    rustix::net::listen(&socket, 128)?;
    Ok(socket)
}

/// A short path to a file in an open directory: the address of a Unix socket has room for 107 bytes, see unix(7).
pub(in crate::sandbox) fn through(directory: &impl AsFd, name: &str) -> PathBuf {
    use std::os::fd::AsRawFd;
    PathBuf::from(format!(
        "/proc/self/fd/{}/{name}",
        directory.as_fd().as_raw_fd()
    ))
}
