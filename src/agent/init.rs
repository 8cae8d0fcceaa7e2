//! The duties of PID 1: signals, waiting for orphans, and the end of everybody else.
//!
//! The agent can also run as an ordinary process (in tests). Then only the kernel is its business, and only the kernel is waited for and killed.

use std::collections::HashSet;
use std::io;
use std::mem::{self, MaybeUninit};
use std::os::fd::{FromRawFd, OwnedFd};

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::{descriptor, usage};

/// Signals as events.
#[derive(Debug)]
pub(crate) struct Signals {
    fd: AsyncFd<OwnedFd>,
}

/// Whether this process is the first of its pid namespace.
pub(crate) fn is_pid_one() -> bool {
    rustix::process::getpid().is_init()
}

impl Signals {
    /// Takes over SIGCHLD and SIGTERM. To be called in the only thread, since any other would go on to receive them.
    pub(crate) fn take_over() -> io::Result<Self> {
        let set = block();
        // SAFETY: the pointer to the set is valid.
        let fd =
            unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just made and belongs to nobody else.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self {
            fd: descriptor::watched(fd, Interest::READABLE)?,
        })
    }

    /// Waits for signals. Returns whether one of them ends the sandbox.
    pub(crate) async fn next(&self) -> bool {
        let Ok(mut guard) = self.fd.readable().await else {
            return std::future::pending().await;
        };
        let mut terminate = false;
        loop {
            let mut info = [0u8; mem::size_of::<libc::signalfd_siginfo>()];
            match rustix::io::read(&self.fd, &mut info) {
                Ok(length) if length == info.len() => {
                    // SAFETY: the system wrote a whole structure, which consists of numbers only.
                    let info: libc::signalfd_siginfo =
                        unsafe { std::ptr::read_unaligned(info.as_ptr().cast()) };
                    // Sent from outside of the pid namespace, the sender has no number in it. From the inside nobody may end the
                    // sandbox: user code would lose its own session.
                    let from_outside = info.ssi_pid == 0 || !is_pid_one();
                    terminate |= info.ssi_signo == libc::SIGTERM as u32 && from_outside;
                }
                _ => break,
            }
        }
        guard.clear_ready();
        terminate
    }
}

/// Blocks the signals that are taken over, in this thread and those it will start.
pub(crate) fn block() -> libc::sigset_t {
    // SAFETY: a zeroed set is initialised by `sigemptyset` before it is used; all calls get valid pointers to it, and no old mask
    // is asked for.
    unsafe {
        let mut set = MaybeUninit::<libc::sigset_t>::zeroed().assume_init();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        libc::sigaddset(&raw mut set, libc::SIGTERM);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        set
    }
}

/// Waits for a child that has ended, without blocking. `kernel` is the only one of interest unless this is PID 1.
/// `Err(())` when there is no child left at all.
pub(crate) fn reap(kernel: Option<Pid>) -> Result<Option<(Pid, WaitStatus)>, ()> {
    let waited = if is_pid_one() {
        rustix::process::wait(WaitOptions::NOHANG)
    } else {
        match kernel {
            Some(kernel) => rustix::process::waitpid(Some(kernel), WaitOptions::NOHANG),
            None => return Err(()),
        }
    };
    waited.map_err(|_| ())
}

/// Kills all processes of the sandbox but this one and those `spared`; only the kernel, unless `is_reaped`, and its process group when this is
/// not PID 1.
pub(crate) fn kill_everybody(kernel: Option<Pid>, is_reaped: bool, spared: &[Pid]) {
    if is_pid_one() && !spared.is_empty() {
        kill_all_but(spared);
    } else if is_pid_one() {
        // SAFETY: takes numbers only. As PID 1 of a namespace, -1 means everybody in it but the caller (kill(2)), in one step:
        // a process that forks meanwhile does not get a child out.
        unsafe {
            libc::kill(-1, libc::SIGKILL);
        }
    } else if let Some(kernel) = kernel {
        let _ = rustix::process::kill_process_group(kernel, Signal::KILL);
        if !is_reaped {
            let _ = rustix::process::kill_process(kernel, Signal::KILL);
        }
    }
}

/// How often the processes of the sandbox are gone through in one kill. It is repeated from outside if that was not enough.
const ROUNDS: usize = 64;

/// Kills everybody else.
fn kill_all_but(spared: &[Pid]) {
    // SAFETY: takes numbers only. Stops everybody but the caller in one step: whoever is in the middle of a fork does not get a child out.
    unsafe {
        libc::kill(-1, libc::SIGSTOP);
    }
    let mut killed = HashSet::new();
    for _ in 0..ROUNDS {
        let mut found = false;
        for pid in others(spared) {
            found |= killed.insert(pid);
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
        // Somebody may have let others go on, before he had stopped himself.
        if !found {
            break;
        }
    }
    for pid in spared {
        let _ = rustix::process::kill_process(*pid, Signal::CONT);
    }
}

/// The processes of this pid namespace, but for this one and those `spared`. One that may not be signalled is no kernel's: it is how a server
/// comes in.
pub(crate) fn others(spared: &[Pid]) -> impl Iterator<Item = Pid> {
    usage::processes(None)
        .filter_map(|pid| Pid::from_raw(i32::try_from(pid).ok()?))
        .filter(|pid| !spared.contains(pid))
        .filter(|pid| rustix::process::test_kill_process(*pid) != Err(rustix::io::Errno::PERM))
}

/// Whether there is such a process.
pub(crate) fn exists(pid: Pid) -> bool {
    rustix::process::test_kill_process(pid).is_ok()
}

/// Waits for a child that was killed, where nobody else does.
pub(crate) fn forget_child(pid: Pid) {
    // Not ours, or not dead yet: in a test, whose end is near.
    let _ = rustix::process::waitpid(Some(pid), WaitOptions::NOHANG);
}

/// A descriptor that becomes readable when a process ends, where the system has it.
pub(crate) fn watch_process(pid: Pid) -> Option<AsyncFd<OwnedFd>> {
    let fd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok()?;
    descriptor::watched(fd, Interest::READABLE).ok()
}
