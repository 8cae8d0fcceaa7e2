//! One twin: a process that sleeps until it is told to take a kernel's place, or to fork once more.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use rustix::process::{Pid, Signal};
use serde::Serialize;
use tokio::io::unix::AsyncFd;
use tokio::time::Duration;

use super::nursery;
use crate::agent::init;
use crate::agent::kernel_process::Ends;

/// How long a twin may take to fork. Its agent answers before a server gives up.
const SPLIT_LIMIT: Duration = Duration::from_secs(5);

/// A sleeping twin.
#[derive(Debug)]
pub(crate) struct Twin {
    pub(super) pid: Pid,
    /// Whoever sends descriptors here wakes it. Closed, it ends.
    pub(super) door: OwnedFd,
    /// What it knows and what came after it.
    pub(super) place: Place,
}

/// Where a twin stands in what was executed.
#[derive(Clone, Debug, Default)]
pub(super) struct Place {
    /// The last execution of which it knows.
    pub(super) after: u64,
    /// The last cell that was not silent of which it knows.
    pub(super) last: Option<String>,
    /// The cell that came next, once one has.
    pub(super) before: Option<String>,
}

/// A copy of a twin that is about to be there.
#[derive(Debug)]
pub(crate) struct Copy {
    socket: AsyncFd<OwnedFd>,
    place: Place,
}

#[derive(Serialize)]
struct Order<'a> {
    op: &'static str,
    fds: &'a [&'static str],
}

impl Twin {
    /// Its process.
    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// Wakes it: with these descriptors it is the kernel. Returns its process.
    pub(crate) fn wake(self, ends: &Ends) -> io::Result<Pid> {
        let named = ends.named();
        let names = named.map(|(name, _)| name);
        self.send("wake", &names, &named.map(|(_, fd)| fd.as_fd()))?;
        Ok(self.pid)
    }

    /// Has it fork once more. One is to be woken, and the other sleeps on.
    pub(super) fn copy(&self) -> io::Result<Copy> {
        let (socket, theirs) = nursery::pair()?;
        self.send("split", &["door"], &[theirs.as_fd()])?;
        let place = self.place.clone();
        Ok(Copy { socket, place })
    }

    fn send(
        &self,
        op: &'static str,
        names: &[&'static str],
        fds: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        let packet = serde_json::to_vec(&Order { op, fds: names })?;
        let message = SendAncillaryMessage::ScmRights(fds);
        let mut space = vec![MaybeUninit::uninit(); message.size()];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(message), "the space was made for it");
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        rustix::net::sendmsg(&self.door, &[IoSlice::new(&packet)], &mut control, flags)?;
        Ok(())
    }

    pub(super) fn end(self) {
        let _ = rustix::process::kill_process(self.pid, Signal::KILL);
        if !init::is_pid_one() {
            init::forget_child(self.pid);
        }
    }
}

impl Copy {
    /// Waits for its first word, by which it is known.
    pub(crate) async fn born(self) -> io::Result<Twin> {
        tokio::time::timeout(SPLIT_LIMIT, self.heard())
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    async fn heard(self) -> io::Result<Twin> {
        loop {
            let mut guard = self.socket.readable().await?;
            match guard.try_io(|socket| Ok(nursery::sender(socket.get_ref())?)) {
                Ok(sender) => {
                    let pid = sender?.ok_or_else(|| {
                        io::Error::other("it has ended, or no memory or process was left for it")
                    })?;
                    return Ok(Twin {
                        pid,
                        door: self.socket.into_inner(),
                        place: self.place,
                    });
                }
                Err(_would_block) => {}
            }
        }
    }
}
