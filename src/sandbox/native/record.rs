//! What is written down about a sandbox, in a directory of its own, so that it can be found, taken over or destroyed after any crash.
//!
//! `record.json` is written before anything of the sandbox exists and says how it is made; `pid` is written as soon as its first process
//! exists; `agent.sock` is where the agent listens; `agent.log` is what it has to say.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::process::{Pid, PidfdFlags, Signal};
use serde::{Deserialize, Serialize};

use super::cgroup::Cgroups;
use super::rootfs::Layout;
use crate::model::id::SandboxId;
use crate::model::limits::Limits;
use crate::sandbox::record::Recorded;

/// The socket on which an agent listens.
pub(super) const AGENT_SOCKET: &str = "agent.sock";
/// What an agent writes to its standard error.
pub(super) const AGENT_LOG: &str = "agent.log";
/// The pid of a sandbox's first process.
pub(super) const PID: &str = "pid";
/// What the last line of its log says when an agent has ended because no server came back.
pub const ORPHANED: &str = "no server came back in time, so it ended itself";
/// How a sandbox is made.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Record {
    label: String,
    /// Which sandbox.
    pub(super) id: SandboxId,
    /// Where the parts of its root come from.
    pub(super) layout: Layout,
    /// The directory of the zygote.
    pub(super) house: PathBuf,
    /// Whether it is made by root, so that its ids are its own on the host too.
    pub(super) privileged: bool,
    /// The id, as the house's user namespace numbers them, that is 1000 inside.
    pub(super) id_in_house: u32,
    /// What it may use.
    pub(super) limits: Limits,
    /// The directory that becomes /workspace.
    pub(super) workspace: PathBuf,
    /// Its cgroups.
    pub(super) cgroups: Cgroups,
    /// How much of its address space a new kernel may write to from the start.
    pub(super) shared_data_bytes: u64,
    /// How long its agent lives on without a server.
    pub(super) orphan_ms: u64,
}

/// What makes a [`Record`]; the label is added.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) id: SandboxId,
    pub(super) layout: Layout,
    pub(super) house: PathBuf,
    pub(super) privileged: bool,
    pub(super) id_in_house: u32,
    pub(super) limits: Limits,
    pub(super) workspace: PathBuf,
    pub(super) cgroups: Cgroups,
    pub(super) shared_data_bytes: u64,
    pub(super) orphan_ms: u64,
}

impl From<Facts> for Record {
    fn from(facts: Facts) -> Self {
        Self {
            label: Self::LABEL.into(),
            id: facts.id,
            layout: facts.layout,
            house: facts.house,
            privileged: facts.privileged,
            id_in_house: facts.id_in_house,
            limits: facts.limits,
            workspace: facts.workspace,
            cgroups: facts.cgroups,
            shared_data_bytes: facts.shared_data_bytes,
            orphan_ms: facts.orphan_ms,
        }
    }
}

impl Recorded for Record {
    const LABEL: &'static str = "evercell sandbox 1";

    fn label(&self) -> &str {
        &self.label
    }
}

/// A process, named so that another that later gets the same pid is not taken for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Process {
    pid: i32,
    /// In clock ticks since the machine started.
    start: u64,
    /// Which start of the machine.
    boot: String,
}

impl Process {
    /// The process that has this pid now.
    pub(super) fn of(pid: i32) -> io::Result<Self> {
        Ok(Self {
            pid,
            start: start_time(pid)?,
            boot: boot_id()?,
        })
    }

    /// Reads it from a sandbox's directory.
    pub(super) fn read(directory: &Path) -> io::Result<Self> {
        Ok(serde_json::from_slice(&fs::read(directory.join(PID))?)?)
    }

    /// Whether the machine has not been started again since.
    pub(super) fn is_of_this_boot(&self) -> bool {
        boot_id().is_ok_and(|boot| boot == self.boot)
    }

    /// Its pid.
    pub(super) fn pid(&self) -> i32 {
        self.pid
    }

    /// Opens it, if it still exists.
    pub(super) fn open(&self) -> io::Result<Option<OwnedFd>> {
        if self.boot != boot_id()? {
            return Ok(None);
        }
        let Some(pid) = Pid::from_raw(self.pid) else {
            return Ok(None);
        };
        let pidfd = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(rustix::io::Errno::SRCH) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        // Only now: from here on the descriptor means one process, and if the start time fits, it is the right one.
        match start_time(self.pid) {
            Ok(start) if start == self.start => Ok(Some(pidfd)),
            Ok(_) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether it runs: it exists and is not just waiting to be reaped.
    pub(super) fn runs(&self) -> io::Result<bool> {
        match self.open()? {
            Some(pidfd) => Ok(!has_ended(pidfd.as_fd(), 0)?),
            None => Ok(false),
        }
    }

    /// Kills it and waits until it is gone, at most so long. Returns whether it is.
    pub(super) fn kill(&self, wait_ms: i64) -> io::Result<bool> {
        let Some(pidfd) = self.open()? else {
            return Ok(true);
        };
        match rustix::process::pidfd_send_signal(&pidfd, Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => return Err(error.into()),
        }
        let gone = has_ended(pidfd.as_fd(), wait_ms)?;
        if gone {
            // Where this process is the one that orphans are given to (PID 1 of a container), it has to be reaped by us. Everywhere else
            // this is an error (ECHILD) that says that somebody else does it.
            let _ = rustix::process::waitid(
                rustix::process::WaitId::PidFd(pidfd.as_fd()),
                rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOHANG,
            );
        }
        Ok(gone)
    }
}

/// Whether a process has ended; waits for it at most so long.
fn has_ended(pidfd: std::os::fd::BorrowedFd<'_>, wait_ms: i64) -> io::Result<bool> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    // A pid file descriptor becomes readable when its process ends, see pidfd_open(2).
    let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
    let timeout = Timespec {
        tv_sec: wait_ms / 1000,
        tv_nsec: (wait_ms % 1000) * 1_000_000,
    };
    Ok(poll(&mut fds, Some(&timeout))? > 0)
}

/// When a process started, field 22 of proc_pid_stat(5).
fn start_time(pid: i32) -> io::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field is the name in parentheses, which may itself hold spaces and parentheses.
    stat.rsplit_once(')')
        .and_then(|(_, rest)| rest.split_whitespace().nth(19))
        .and_then(|field| field.parse().ok())
        .ok_or_else(|| io::Error::other(format!("cannot read /proc/{pid}/stat")))
}

fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?
        .trim()
        .to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_not_taken_for_a_later_one_of_the_same_pid() {
        let own = i32::try_from(std::process::id()).unwrap();
        let now = Process::of(own).unwrap();
        assert!(now.runs().unwrap());
        let earlier = Process {
            start: now.start - 1,
            ..now.clone()
        };
        assert!(!earlier.runs().unwrap());
        assert!(
            earlier.kill(0).unwrap(),
            "killing what is gone is fine, and we still live"
        );
        let before_a_restart = Process {
            boot: "another".into(),
            ..now
        };
        assert!(!before_a_restart.runs().unwrap());
    }
}
