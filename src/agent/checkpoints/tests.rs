//! What is taken for a twin, and what is not.

use std::process::{Child, Command, Stdio};

use super::*;

/// A process that can be killed.
fn process() -> (Child, Pid) {
    #[expect(
        clippy::disallowed_methods,
        reason = "a twin is a process, and may be killed"
    )]
    let child = Command::new("sleep")
        .arg("1000")
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    (child, pid)
}

fn twin(pid: Pid, after: u64) -> Twin {
    let (door, _) = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .unwrap();
    Twin {
        pid,
        door,
        after,
        before: None,
    }
}

fn send(socket: &OwnedFd, packet: &[u8], fds: &[BorrowedFd<'_>]) {
    let message = SendAncillaryMessage::ScmRights(fds);
    let mut space = vec![MaybeUninit::uninit(); message.size()];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        assert!(control.push(message));
    }
    rustix::net::sendmsg(
        socket,
        &[IoSlice::new(packet)],
        &mut control,
        SendFlags::empty(),
    )
    .unwrap();
}

#[test]
fn a_twin_belongs_before_the_first_cell_that_it_does_not_know() {
    let (mut child, pid) = process();
    let mut checkpoints = Checkpoints::default();
    checkpoints.execution_began(1, br#"{"id": 1, "cell": "a"}"#);
    checkpoints.execution_began(2, br#"{"id": 2, "cell": "b"}"#);
    checkpoints.consider(twin(pid, 1), None);
    assert_eq!(checkpoints.newest(), Some(Some("b")));
    assert_eq!(
        (checkpoints.behind(1), checkpoints.behind(2)),
        (None, Some("b".to_owned()))
    );
    checkpoints.execution_began(3, br#"{"id": 3, "cell": "c"}"#);
    assert_eq!(checkpoints.behind(3), Some("b".to_owned()));
    checkpoints.clear();
    assert_eq!(checkpoints.newest(), None);
    assert!(!child.wait().unwrap().success());
}

#[test]
fn a_new_twin_takes_the_place_of_the_old_one() {
    let ((mut old, old_pid), (mut new, new_pid)) = (process(), process());
    let mut checkpoints = Checkpoints::default();
    checkpoints.consider(twin(old_pid, 0), None);
    checkpoints.execution_began(1, b"{\"cell\": \"a\"}");
    checkpoints.consider(twin(new_pid, 1), None);
    assert!(!old.wait().unwrap().success());
    assert_eq!(checkpoints.pids(), [new_pid]);
    assert_eq!(checkpoints.newest(), Some(None));
    checkpoints.ended(new_pid);
    assert_eq!(checkpoints.pids(), []);
    new.kill().unwrap();
    new.wait().unwrap();
}

#[test]
fn nobody_is_a_twin_who_cannot_be_one() {
    let (mut child, pid) = process();
    let init = Pid::INIT;
    let mut checkpoints = Checkpoints::default();
    // The kernel itself, PID 1, and one that knows of an execution that there was not.
    checkpoints.consider(twin(pid, 0), Some(pid));
    checkpoints.consider(twin(init, 0), None);
    checkpoints.consider(twin(pid, 7), None);
    child.kill().unwrap();
    child.wait().unwrap();
    // One that is gone.
    checkpoints.consider(twin(pid, 0), None);
    assert_eq!(checkpoints.pids(), []);
}

#[tokio::test]
async fn only_an_announcement_is_one() {
    let (mut nursery, theirs) = Nursery::create().unwrap();
    let fd = theirs.as_fd();
    let long = [b' '; 2 * ANNOUNCEMENT];
    let cases: [(&[u8], &[BorrowedFd<'_>]); 7] = [
        (b"{\"after\": 0}", &[]),
        (b"{\"after\": 0}", &[fd, fd]),
        (b"{\"after\": 0}", &[fd; 8]),
        (b"{\"after\": -1}", &[fd]),
        (b"{}", &[fd]),
        (b"\xff", &[fd]),
        (&long, &[fd]),
    ];
    for (packet, fds) in cases {
        send(&theirs, packet, fds);
        assert!(matches!(nursery.next(), Received::Nonsense));
    }
    assert!(matches!(nursery.next(), Received::Nothing));
    send(&theirs, b"{\"after\": 3}", &[fd]);
    let Received::Twin(found) = nursery.next() else {
        panic!("this is one");
    };
    assert_eq!((found.after, found.pid), (3, rustix::process::getpid()));
    // Somebody who sends nothing is not listened to any more, or he would keep us busy for ever.
    send(&theirs, b"", &[]);
    send(&theirs, b"{\"after\": 3}", &[fd]);
    assert!(matches!(nursery.next(), Received::Nothing));
    assert!(matches!(nursery.next(), Received::Nothing));
}
