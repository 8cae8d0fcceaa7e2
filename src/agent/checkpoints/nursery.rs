//! How twins come to be known: they announce themselves, and who they are is what Linux says of them.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SocketFlags,
    SocketType,
};
use rustix::process::Pid;
use serde::Deserialize;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::agent::descriptor;

/// The largest announcement.
pub(super) const ANNOUNCEMENT: usize = 256;

/// How many descriptors an announcement is looked through for. Linux allows 253 in one packet, and closes what does not fit.
const DESCRIPTORS: usize = 4;

/// The agent's end of the socket over which twins of one kernel announce themselves.
#[derive(Debug)]
pub(crate) struct Nursery {
    socket: AsyncFd<OwnedFd>,
    /// Nothing comes any more.
    closed: bool,
}

/// A twin that has announced itself, and what it says.
#[derive(Debug)]
pub(super) struct Newborn {
    pub(super) pid: Pid,
    /// Whoever sends descriptors here wakes it. Closed, it ends.
    pub(super) door: OwnedFd,
    /// The last execution of which it knows.
    pub(super) after: u64,
    /// The request by which it was asked for.
    pub(super) hold: Option<u64>,
}

/// What a twin says of itself.
#[derive(Debug, Deserialize)]
struct Announcement {
    after: u64,
    #[serde(default)]
    hold: Option<u64>,
}

pub(super) enum Received {
    Twin(Newborn),
    Nonsense,
    Nothing,
}

impl Nursery {
    /// Makes both ends.
    pub(crate) fn create() -> io::Result<(Self, OwnedFd)> {
        let (socket, theirs) = pair()?;
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

    pub(super) fn next(&mut self) -> Received {
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

/// A pair of sockets of which ours is told who sends.
pub(super) fn pair() -> io::Result<(AsyncFd<OwnedFd>, OwnedFd)> {
    let (ours, theirs) = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?;
    rustix::net::sockopt::set_socket_passcred(&ours, true)?;
    Ok((descriptor::watched(ours, Interest::READABLE)?, theirs))
}

/// Who has sent a first word over such a socket; nobody if it was closed before. What was said is of no interest.
pub(super) fn sender(socket: &OwnedFd) -> rustix::io::Result<Option<Pid>> {
    let mut packet = [0; ANNOUNCEMENT];
    let received = receive_packet(socket.as_fd(), &mut packet)?;
    Ok(received.sender.filter(|_| received.bytes > 0))
}

fn receive(socket: BorrowedFd<'_>) -> rustix::io::Result<Received> {
    let mut packet = [0; ANNOUNCEMENT];
    let mut received = receive_packet(socket, &mut packet)?;
    if received.bytes == 0 {
        return Ok(Received::Nothing);
    }
    let said = serde_json::from_slice(&packet[..received.bytes]);
    Ok(match (received.doors.pop(), received.sender, said) {
        (Some(door), Some(pid), Ok(Announcement { after, hold }))
            if received.is_whole && received.doors.is_empty() =>
        {
            Received::Twin(Newborn {
                pid,
                door,
                after,
                hold,
            })
        }
        _ => Received::Nonsense,
    })
}

struct Packet {
    bytes: usize,
    doors: Vec<OwnedFd>,
    sender: Option<Pid>,
    /// Whether nothing of it was cut off.
    is_whole: bool,
}

fn receive_packet(socket: BorrowedFd<'_>, packet: &mut [u8]) -> rustix::io::Result<Packet> {
    let mut space =
        [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS), ScmCredentials(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::net::recvmsg(
        socket,
        &mut [IoSliceMut::new(packet)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT,
    )?;
    let (mut doors, mut sender) = (Vec::new(), None);
    for message in control.drain() {
        match message {
            RecvAncillaryMessage::ScmRights(fds) => doors.extend(fds),
            RecvAncillaryMessage::ScmCredentials(credentials) => sender = Some(credentials.pid),
            _ => {}
        }
    }
    let cut = ReturnFlags::TRUNC | ReturnFlags::CTRUNC;
    Ok(Packet {
        bytes: received.bytes,
        doors,
        sender,
        is_whole: !received.flags.intersects(cut),
    })
}
