//! Tries out what isolation needs, in a process of its own: what the program does when it is started as `sandbox-probe`.
//!
//! Does in small what [`super::house`] and [`super::init()`] do, and tells of each part whether it works. Leaves nothing behind.

use std::io;
use std::path::Path;

use rustix::process::{Pid, WaitOptions};
use rustix::thread::CapabilitySet;
use serde::{Deserialize, Serialize};

use super::house::{House, make_house};
use super::ids::{self, Range};
use super::jail::USER;
use super::rootfs;
use super::seccomp::{self, Audience};
use super::step::{Step, StepError};
use super::sys::{self, Fork};

/// A part of isolation that can be had or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// A user namespace for all sandboxes, with its id maps.
    House,
    /// User, pid, mount, network, ipc, uts and cgroup namespaces for one sandbox.
    Namespaces,
    /// Mount calls that work on descriptors.
    Mounts,
    /// A /proc of the sandbox's own processes and nothing else.
    Proc,
    /// Giving up capabilities.
    Capabilities,
    /// The filter of system calls.
    Seccomp,
}

impl Part {
    /// All of them, in the order they are tried; each needs those before it.
    pub(in crate::sandbox) const ALL: [Self; 6] = [
        Self::House,
        Self::Namespaces,
        Self::Mounts,
        Self::Proc,
        Self::Capabilities,
        Self::Seccomp,
    ];
}

/// What came out of one attempt: a line of JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Attempt {
    /// What was tried.
    pub part: Part,
    /// Why it does not work, if so.
    pub error: Option<String>,
}

/// Tries everything and writes a line for each attempt to standard output; stops at the first that fails.
pub fn probe() {
    let house = House::for_probe();
    // What cannot be told need not be tried.
    let told = attempt(Part::House, enter_house(&house)) && attempt_inside();
    if !told {
        tracing::debug!("some part of isolation is missing here");
    }
}

/// Tells how an attempt went. Returns whether to go on.
fn attempt(part: Part, outcome: Result<(), StepError>) -> bool {
    let works = outcome.is_ok();
    let error = outcome
        .err()
        .map(|error| format!("{error}: {}", error.source));
    let mut line = serde_json::to_vec(&Attempt { part, error }).unwrap_or_default();
    line.push(b'\n');
    rustix::io::write(rustix::stdio::stdout(), &line).is_ok() && works
}

fn enter_house(house: &House) -> Result<(), StepError> {
    make_house(house)?;
    ids::become_owner(house.privileged)
}

/// The rest, in a sandbox's namespaces.
fn attempt_inside() -> bool {
    let namespaces = libc::CLONE_NEWUSER
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWCGROUP;
    let pipe = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).step("make a pipe");
    let (go, may_go) = match pipe {
        Ok(pipe) => pipe,
        Err(error) => return attempt(Part::Namespaces, Err(error)),
    };
    match sys::fork_into(namespaces).step("make namespaces") {
        Err(error) => attempt(Part::Namespaces, Err(error)),
        Ok(Fork::Parent(pid)) => {
            let first = if ids::is_mapped(1) { 1 } else { 0 };
            let maps = ids::write_maps(pid.cast_unsigned(), USER, Range { first, count: 1 });
            let went = attempt(Part::Namespaces, maps.step("write the id maps"));
            if went {
                // If the child is gone, nobody is waited for below.
                let _ = rustix::io::write(&may_go, b"g");
            }
            drop(may_go);
            let _ = rustix::process::waitpid(Pid::from_raw(pid), WaitOptions::empty());
            went
        }
        Ok(Fork::Child) => {
            drop(may_go);
            if rustix::io::read(&go, &mut [0_u8; 1]).is_ok_and(|bytes| bytes == 1) {
                let _ = attempt(
                    Part::Mounts,
                    ids::become_user(USER).and_then(|()| rootfs::try_mounts(Path::new("/usr"))),
                ) && attempt(Part::Proc, rootfs::try_proc())
                    && attempt(Part::Capabilities, ids::keep_only(CapabilitySet::empty()))
                    && attempt(Part::Seccomp, try_seccomp());
            }
            // SAFETY: ends this forked process at once, without running what its parent has registered for its own end.
            unsafe { libc::_exit(0) }
        }
    }
}

fn try_seccomp() -> Result<(), StepError> {
    let filter = seccomp::filter(Audience::Kernel)?;
    sys::install_filter(&filter).step("install the seccomp filter")?;
    // The filter has to be in force, not only accepted.
    // SAFETY: the call takes numbers only, and is refused.
    let refused = unsafe { libc::syscall(libc::SYS_setns, -1, 0) };
    let error = io::Error::last_os_error();
    if refused == -1 && error.raw_os_error() == Some(libc::EPERM) {
        Ok(())
    } else {
        Err(StepError {
            step: "see the seccomp filter in force".into(),
            source: error,
        })
    }
}
