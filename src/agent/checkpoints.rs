//! Twins of the kernel: asleep, known by what Linux says of them, woken when the kernel is lost.
//!
//! A twin announces itself over a socket that the kernel inherited: one packet, with one descriptor by which it is woken. Whoever has that socket
//! can send anything, as often as it likes: so nothing that is said is believed but the number of an execution, and that only if there was one.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::descriptor;
use super::init;
use super::kernel_process::Ends;

/// How many twins there are at most. A new one takes the place of the oldest, once it is there.
const MOST: usize = 1;

/// How many announcements are looked at before anything else has its turn.
const AT_ONCE: usize = 8;

/// The largest announcement.
const ANNOUNCEMENT: usize = 256;

/// How many executions are remembered: between a twin's fork and its announcement there are hardly two.
const RECENT: usize = 64;

/// The longest name of a cell that is remembered.
const CELL: usize = 64;

/// How many descriptors an announcement is looked through for. Linux allows 253 in one packet, and closes what does not fit.
const DESCRIPTORS: usize = 4;

/// The twins of one sandbox, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct Checkpoints {
    twins: Vec<Twin>,
    /// The last executions, with their cells.
    recent: VecDeque<(u64, String)>,
    /// The last execution that is not among them any more.
    forgotten: u64,
}

/// One sleeping twin.
#[derive(Debug)]
pub(crate) struct Twin {
    pid: Pid,
    /// Whoever sends descriptors here wakes it. Closed, it ends.
    door: OwnedFd,
    /// The last execution of which it knows.
    after: u64,
    /// The cell that came next, once one has.
    before: Option<String>,
}

/// The agent's end of the socket over which twins of one kernel announce themselves.
#[derive(Debug)]
pub(crate) struct Nursery {
    socket: AsyncFd<OwnedFd>,
    /// Nothing comes any more.
    closed: bool,
}

/// What a twin says of itself.
#[derive(Debug, Deserialize)]
struct Announcement {
    after: u64,
}

#[derive(Serialize)]
struct Wake<'a> {
    op: &'static str,
    fds: &'a [&'static str],
}

impl Nursery {
    /// Makes both ends.
    pub(crate) fn create() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        rustix::net::sockopt::set_socket_passcred(&ours, true)?;
        let socket = descriptor::watched(ours, Interest::READABLE)?;
        let nursery = Self {
            socket,
            closed: false,
        };
        Ok((nursery, theirs))
    }

    /// Waits until there may be an announcement.
    pub(crate) async fn readable(&self) {
        if self.closed || self.socket.readable().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    fn next(&mut self) -> Received {
        if self.closed {
            return Received::Nothing;
        }
        // Whether or not the reactor has noticed.
        match receive(self.socket.get_ref().as_fd()) {
            Ok(received) => {
                // An empty packet looks the same as the end. Who sends one is not listened to any more.
                self.closed = matches!(received, Received::Nothing);
                received
            }
            Err(_) => {
                // Has the reactor wait for more.
                let _ = self
                    .socket
                    .try_io(Interest::READABLE, |_| -> io::Result<()> {
                        Err(io::ErrorKind::WouldBlock.into())
                    });
                Received::Nothing
            }
        }
    }
}

enum Received {
    Twin(Twin),
    Nonsense,
    Nothing,
}

fn receive(socket: BorrowedFd<'_>) -> rustix::io::Result<Received> {
    let mut packet = [0; ANNOUNCEMENT];
    let mut space =
        [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS), ScmCredentials(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::net::recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut packet)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT,
    )?;
    if received.bytes == 0 {
        return Ok(Received::Nothing);
    }
    let (mut doors, mut sender) = (Vec::new(), None);
    for message in control.drain() {
        match message {
            RecvAncillaryMessage::ScmRights(fds) => doors.extend(fds),
            RecvAncillaryMessage::ScmCredentials(credentials) => sender = Some(credentials.pid),
            _ => {}
        }
    }
    let whole = !received
        .flags
        .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC);
    let said = serde_json::from_slice(&packet[..received.bytes]);
    Ok(match (doors.pop(), sender, said) {
        (Some(door), Some(pid), Ok(Announcement { after })) if whole && doors.is_empty() => {
            Received::Twin(Twin {
                pid,
                door,
                after,
                before: None,
            })
        }
        _ => Received::Nonsense,
    })
}

impl Checkpoints {
    /// Takes in twins that have announced themselves.
    pub(crate) fn take_in(&mut self, nursery: &mut Nursery, kernel: Option<Pid>) {
        for _ in 0..AT_ONCE {
            match nursery.next() {
                Received::Nothing => return,
                Received::Nonsense => {}
                Received::Twin(twin) => self.consider(twin, kernel),
            }
        }
    }

    /// Takes in a twin, if it can be one. What is not taken in is killed with the kernel.
    fn consider(&mut self, mut twin: Twin, kernel: Option<Pid>) {
        let is_other = !twin.pid.is_init() && Some(twin.pid) != kernel && !self.has(twin.pid);
        let last = self.recent.back().map_or(self.forgotten, |(id, _)| *id);
        let is_known = (self.forgotten..=last).contains(&twin.after);
        if is_other && is_known && init::exists(twin.pid) {
            let mut later = self.recent.iter().filter(|(id, _)| *id > twin.after);
            twin.before = later.next().map(|(_, cell)| cell.clone());
            self.add(twin);
        }
    }

    fn add(&mut self, twin: Twin) {
        while self.twins.len() >= MOST {
            self.twins.remove(0).end();
        }
        self.twins.push(twin);
    }

    /// Takes note of an execution that begins.
    pub(crate) fn execution_began(&mut self, id: u64, request: &[u8]) {
        #[derive(Deserialize)]
        struct Execution {
            #[serde(default)]
            cell: String,
        }
        let cell = serde_json::from_slice(request)
            .map(|Execution { cell }| cell)
            .ok()
            .filter(|cell| cell.len() <= CELL)
            .unwrap_or_default();
        for twin in &mut self.twins {
            if twin.before.is_none() && twin.after < id {
                twin.before = Some(cell.clone());
            }
        }
        if self.recent.len() >= RECENT
            && let Some((id, _)) = self.recent.pop_front()
        {
            self.forgotten = id;
        }
        self.recent.push_back((id, cell));
    }

    /// The cell before which the newest twin was made that was there before this execution began.
    pub(crate) fn behind(&self, execution: u64) -> Option<String> {
        let mut older = self
            .twins
            .iter()
            .rev()
            .filter(|twin| twin.after < execution);
        older.next()?.before.clone()
    }

    /// The newest twin: `Some(None)` if no cell has begun since.
    pub(crate) fn newest(&self) -> Option<Option<&str>> {
        Some(self.twins.last()?.before.as_deref())
    }

    /// Takes the newest twin out, to be woken.
    pub(crate) fn take_newest(&mut self) -> Option<Twin> {
        self.twins.pop()
    }

    /// Forgets a twin that has ended.
    pub(crate) fn ended(&mut self, pid: Pid) {
        self.twins.retain(|twin| twin.pid != pid);
    }

    /// Ends all twins, and forgets what was executed: the next kernel begins with nothing.
    pub(crate) fn clear(&mut self) {
        for twin in self.twins.drain(..) {
            twin.end();
        }
        self.recent.clear();
        self.forgotten = 0;
    }

    /// Whether that process is a twin.
    fn has(&self, pid: Pid) -> bool {
        self.twins.iter().any(|twin| twin.pid == pid)
    }

    /// Their processes.
    pub(crate) fn pids(&self) -> Vec<Pid> {
        self.twins.iter().map(|twin| twin.pid).collect()
    }
}

impl Twin {
    /// Wakes it: with these descriptors it is the kernel. Returns its process.
    pub(crate) fn wake(self, ends: &Ends) -> io::Result<Pid> {
        let named = ends.named();
        let names = named.map(|(name, _)| name);
        let fds = named.map(|(_, fd)| fd.as_fd());
        let packet = serde_json::to_vec(&Wake {
            op: "wake",
            fds: &names,
        })?;
        let message = SendAncillaryMessage::ScmRights(&fds);
        let mut space = vec![MaybeUninit::uninit(); message.size()];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(message), "the space was made for it");
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        rustix::net::sendmsg(&self.door, &[IoSlice::new(&packet)], &mut control, flags)?;
        Ok(self.pid)
    }

    fn end(self) {
        let _ = rustix::process::kill_process(self.pid, Signal::KILL);
        if !init::is_pid_one() {
            init::forget_child(self.pid);
        }
    }
}
