//! Asks the zygote for a kernel: one packet with descriptors, one packet back.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType,
};
use rustix::process::Pid;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::Duration;

use super::{Ends, StartError};
use crate::agent::descriptor;

/// How long the zygote may take.
pub(super) const LIMIT: Duration = Duration::from_secs(10);

/// How long to wait when its queue is full.
const BUSY: Duration = Duration::from_millis(2);

/// How long to wait when there is none.
const GONE: Duration = Duration::from_millis(20);

/// The largest answer.
const ANSWER: usize = 64 * 1024;

#[derive(Serialize)]
struct Spawn<'a> {
    op: &'static str,
    fds: Vec<String>,
    jail: &'a Value,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Answer {
    Spawned { pid: i32 },
    Refused { error: Value },
}

/// See the module.
pub(super) async fn ask(
    directory: &OwnedFd,
    namespaces: &[(&'static str, OwnedFd)],
    cgroups: &[OwnedFd],
    jail: &Value,
    ends: &Ends,
) -> Result<Pid, StartError> {
    let socket = connect(directory).await.map_err(StartError::Zygote)?;
    send(&socket, namespaces, cgroups, jail, ends)
        .await
        .map_err(StartError::Zygote)?;
    let mut answer = vec![0; ANSWER];
    let length = socket
        .async_io(Interest::READABLE, |socket| {
            Ok(rustix::net::recv(socket, &mut answer[..], RecvFlags::empty())?.0)
        })
        .await
        .map_err(StartError::Zygote)?;
    if length == 0 {
        return Err(StartError::Refused("it hung up without an answer".into()));
    }
    match serde_json::from_slice(&answer[..length]) {
        Ok(Answer::Spawned { pid }) => match Pid::from_raw(pid) {
            Some(pid) if !pid.is_init() && pid.as_raw_nonzero().get() > 0 => Ok(pid),
            _ => Err(StartError::Refused(format!("it says `{pid}` is a process"))),
        },
        Ok(Answer::Refused { error }) => Err(StartError::Refused(match &error["message"] {
            Value::String(message) => match &error["step"] {
                Value::String(step) => format!("{step}: {message}"),
                _ => message.clone(),
            },
            _ => error.to_string(),
        })),
        Err(_) => Err(StartError::Refused("its answer cannot be read".into())),
    }
}

async fn connect(directory: &OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )?;
    // The directory is outside of our root: there is no other path to it.
    let address = SocketAddrUnix::new(format!("{}/zygote.sock", descriptor::path_of(directory)))?;
    loop {
        match rustix::net::connect(&socket, &address) {
            Ok(()) => return descriptor::watched(socket, Interest::READABLE | Interest::WRITABLE),
            // Its queue of connections is full, and nothing tells when it is not (connect(2)).
            Err(Errno::AGAIN) => tokio::time::sleep(BUSY).await,
            // It has died, and its successor does not listen yet: a server that was started again brings one.
            Err(Errno::CONNREFUSED | Errno::NOENT) => tokio::time::sleep(GONE).await,
            Err(error) => return Err(error.into()),
        }
    }
}

async fn send(
    socket: &AsyncFd<OwnedFd>,
    namespaces: &[(&'static str, OwnedFd)],
    cgroups: &[OwnedFd],
    jail: &Value,
    ends: &Ends,
) -> io::Result<()> {
    let mut names = Vec::new();
    let mut fds: Vec<BorrowedFd<'_>> = Vec::new();
    for (name, fd) in namespaces {
        names.push((*name).to_owned());
        fds.push(fd.as_fd());
    }
    for (index, fd) in cgroups.iter().enumerate() {
        names.push(format!("cgroup_procs.{index}"));
        fds.push(fd.as_fd());
    }
    for (name, fd) in ends.named() {
        names.push(name.to_owned());
        fds.push(fd.as_fd());
    }
    let packet = serde_json::to_vec(&Spawn {
        op: "spawn",
        fds: names,
        jail,
    })?;
    let message = SendAncillaryMessage::ScmRights(&fds);
    let mut space = vec![MaybeUninit::uninit(); message.size()];
    socket
        .async_io(Interest::WRITABLE, |socket| {
            let mut control = SendAncillaryBuffer::new(&mut space);
            assert!(
                control.push(SendAncillaryMessage::ScmRights(&fds)),
                "the space was made for it"
            );
            rustix::net::sendmsg(
                socket,
                &[IoSlice::new(&packet)],
                &mut control,
                SendFlags::NOSIGNAL,
            )?;
            Ok(())
        })
        .await
}
