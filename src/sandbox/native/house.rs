//! How the zygote's surroundings are made, from inside: what the program does when it is started as `zygote-init`.
//!
//! The house is a user namespace with no rights over the host. The user namespaces of all sandboxes lie in it and belong to its user 0, who
//! is the zygote. That is why a child of the zygote, though it has no capability, may enter a sandbox and there do everything that making
//! a kernel takes: the owner of a user namespace has all capabilities in it, seen from its parent; see user_namespaces(7).

use std::convert::Infallible;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::net::SocketType;
use rustix::process::{Pid, WaitOptions};
use rustix::thread::{CapabilitySet, UnshareFlags};
use serde::{Deserialize, Serialize};

use super::Config;
use super::ids::{self, Range};
use super::init::listen;
use super::rootfs::{self, LIBRARY, Layout, PYTHON_ENV, Root, Sources};
use super::step::{Status, Step, StepError};
use super::sys::{self, Fork, Inherited};
use super::zygote::{HOUSE_FILTER, SOCKET, SPEC};

/// How the house is made; lies in the zygote's directory as [`SPEC`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct House {
    /// Where the parts of its root come from.
    pub(super) layout: Layout,
    /// Whether root makes it.
    pub(super) privileged: bool,
    /// The first id on the host of those that it maps.
    pub(super) first_id: u32,
    /// How many it maps.
    pub(super) ids: u32,
}

impl House {
    /// The ids that a house of this user maps.
    pub(super) fn new(layout: Layout, privileged: bool, range: Range) -> Self {
        let (first_id, ids) = if privileged {
            (range.first, range.count)
        } else {
            (rustix::process::geteuid().as_raw(), 1)
        };
        Self {
            layout,
            privileged,
            first_id,
            ids,
        }
    }

    /// One that is only tried.
    pub(super) fn for_probe() -> Self {
        let range = Range {
            first: Config::FIRST_ID,
            count: Config::IDS,
        };
        Self::new(Layout::default(), ids::is_privileged(range), range)
    }
}

/// Becomes the zygote of this directory.
///
/// Descriptor 0 is the lifeline, a socket that ends with the server. With `join`, descriptor 1 is the user namespace of a house whose zygote
/// has died and in which there are sandboxes; without, a new house is made.
pub fn zygote_init(directory: &Path, join: bool) -> Result<Infallible, StepError> {
    sys::forget_inherited(Inherited::CloseLater).step("close inherited files")?;
    let lifeline = ids::keep_private(rustix::stdio::stdin()).step("keep the lifeline")?;
    become_zygote(directory, join, &lifeline).inspect_err(|error| {
        if let Ok(mut line) = serde_json::to_vec(&Status::from(error)) {
            line.push(b'\n');
            // The server may be gone; then nobody reads it.
            let _ = rustix::io::write(&lifeline, &line);
        }
    })
}

fn become_zygote(
    directory: &Path,
    join: bool,
    lifeline: &OwnedFd,
) -> Result<Infallible, StepError> {
    rustix::process::setsid().step("start a session")?;
    let text = fs::read(directory.join(SPEC)).step("read the house's description")?;
    let house: House = serde_json::from_slice(&text)
        .map_err(io::Error::from)
        .step("read the house's description")?;
    let filter =
        fs::read_to_string(directory.join(HOUSE_FILTER)).step("read the seccomp filter")?;
    let filter = base64::engine::general_purpose::STANDARD
        .decode(filter)
        .map_err(io::Error::other)
        .step("read the seccomp filter")?;
    let place = rootfs::open_place(directory).step("open the zygote's directory")?;
    let listener = listen(&place, SOCKET, SocketType::SEQPACKET).step("listen for agents")?;
    // Agents have ids that mean nothing here; who may connect is decided by who has the directory.
    fs::set_permissions(
        directory.join(SOCKET),
        std::os::unix::fs::PermissionsExt::from_mode(0o666),
    )
    .step("let agents connect")?;
    let taken = if house.privileged {
        Some(Sources::for_house(&house.layout)?)
    } else {
        None
    };

    if join {
        let old = ids::keep_private(rustix::stdio::stdout()).step("keep the house")?;
        ids::enter_house(old.as_fd(), house.privileged)?;
    } else {
        make_house(&house)?;
        ids::become_owner(house.privileged)?;
    }

    // SAFETY: none of these flags unshares the table of descriptors, which is what could break the ownership of open files.
    unsafe {
        rustix::thread::unshare_unsafe(
            UnshareFlags::NEWNS
                | UnshareFlags::NEWNET
                | UnshareFlags::NEWIPC
                | UnshareFlags::NEWUTS
                | UnshareFlags::NEWCGROUP,
        )
    }
    .step("make namespaces for the zygote")?;
    let sources = match taken {
        Some(sources) => sources,
        None => Sources::for_house(&house.layout)?,
    };
    rootfs::enter(sources, Root::House)?;
    rustix::system::sethostname(b"evercell").step("set the host name")?;
    ids::keep_only(CapabilitySet::empty())?;
    sys::install_filter(&filter).step("install the seccomp filter")?;
    execute(lifeline, &listener)
}

/// Makes a user namespace and enters it.
pub(super) fn make_house(house: &House) -> Result<(), StepError> {
    // The maps have to be written by somebody outside of the new namespace, who is forked before there is one.
    let (go, may_go) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).step("make a pipe")?;
    let own = std::process::id();
    match sys::fork_into(0).step("fork a helper")? {
        Fork::Child => {
            drop(may_go);
            let written = rustix::io::read(&go, &mut [0_u8; 1])
                .map_err(io::Error::from)
                .and_then(|_| {
                    ids::write_maps(
                        own,
                        0,
                        Range {
                            first: house.first_id,
                            count: house.ids,
                        },
                    )
                });
            let code = written
                .err()
                .map_or(0, |error| error.raw_os_error().unwrap_or(1));
            // SAFETY: ends this forked helper at once, without running what its parent has registered for its own end.
            unsafe { libc::_exit(code) }
        }
        Fork::Parent(pid) => {
            drop(go);
            // SAFETY: as above, the table of descriptors is not unshared.
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWUSER) }
                .step("make a user namespace")?;
            rustix::io::write(&may_go, b"g").step("ask for the id maps")?;
            let status = rustix::process::waitpid(Pid::from_raw(pid), WaitOptions::empty())
                .step("wait for the helper")?;
            match status.and_then(|(_, status)| status.exit_status()) {
                Some(0) => Ok(()),
                code => Err(StepError {
                    step: "write the id maps".into(),
                    source: code.map_or_else(
                        || io::Error::other("the helper died"),
                        io::Error::from_raw_os_error,
                    ),
                }),
            }
        }
    }
}

fn execute(lifeline: &OwnedFd, listener: &OwnedFd) -> Result<Infallible, StepError> {
    let null = rustix::fs::openat(
        CWD,
        "/dev/null",
        OFlags::RDWR | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .step("open /dev/null")?;
    rustix::stdio::dup2_stdin(&null).step("close standard input")?;
    rustix::stdio::dup2_stdout(&null).step("close standard output")?;
    sys::keep_over_exec(lifeline).step("hand over the lifeline")?;
    sys::keep_over_exec(listener).step("hand over the listener")?;
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the sandbox, and it only executes"
    )]
    let mut python = Command::new(format!("{PYTHON_ENV}/bin/python"));
    let error = python
        // No user's site-packages, no directory that happens to be the current one.
        .args(["-s", "-P", "-m", "pykernel", "zygote"])
        .args(["--listen", &listener.as_raw_fd().to_string()])
        .args(["--lifeline", &lifeline.as_raw_fd().to_string()])
        .env_clear()
        .env(
            "PATH",
            format!("{PYTHON_ENV}/bin:/usr/local/bin:/usr/bin:/bin"),
        )
        .env("PYTHONPATH", LIBRARY)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("HOME", "/tmp")
        .env("LANG", "C.UTF-8")
        .exec();
    Err(StepError {
        step: format!("execute `{PYTHON_ENV}/bin/python`"),
        source: error,
    })
}
