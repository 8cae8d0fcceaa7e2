//! What is taken for a twin, and what is not.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Child, Command, Stdio};

use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

use super::nursery::ANNOUNCEMENT;
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

fn twin(pid: Pid, after: u64) -> Newborn {
    let (door, _) = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .unwrap();
    Newborn {
        pid,
        door,
        after,
        hold: None,
    }
}

/// Twins whose processes end with the test.
#[derive(Default)]
struct Twins {
    checkpoints: Checkpoints,
    children: Vec<Child>,
}

impl Twins {
    /// One that comes by itself.
    fn comes(&mut self, after: u64) -> Pid {
        self.comes_for(after, None)
    }

    fn comes_for(&mut self, after: u64, hold: Option<u64>) -> Pid {
        let (child, pid) = process();
        self.children.push(child);
        let newborn = Newborn {
            hold,
            ..twin(pid, after)
        };
        self.checkpoints.consider(newborn, None);
        pid
    }

    /// One that is held.
    fn hold(&mut self, request: u64, held: &str, after: u64) -> Pid {
        self.checkpoints.want(request, name(held));
        self.comes_for(after, Some(request))
    }

    fn runs(&mut self, id: u64, cell: &str) {
        let request = format!(r#"{{"id": {id}, "cell": "{cell}"}}"#);
        self.checkpoints.execution_began(id, request.as_bytes());
    }

    fn runs_silently(&mut self, id: u64) {
        let request = br#"{"cell": "s", "silent": true}"#;
        self.checkpoints.execution_began(id, request);
    }

    /// What the server is told.
    fn told(&mut self) -> Vec<(Option<u64>, Fate)> {
        let reports = self.checkpoints.take_reports().into_iter();
        reports
            .map(|report| (report.request, report.fate))
            .collect()
    }

    /// The process of the one by which the last cell would be undone.
    fn undoing(&self) -> Result<Pid, Refusal> {
        self.checkpoints.undoing().map(|twin| twin.pid)
    }
}

impl Drop for Twins {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn name(name: &str) -> CheckpointName {
    name.parse().unwrap()
}

fn dropped(held: &str, reason: DropReason) -> Fate {
    let name = name(held);
    Fate::Dropped { name, reason }
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
    checkpoints.clear(HeldOnes::End);
    assert_eq!(checkpoints.newest(), None);
    assert!(!child.wait().unwrap().success());
}

#[test]
fn between_cells_there_is_one_more_from_before_the_last_cell() {
    let mut twins = Twins::default();
    assert_eq!(twins.undoing(), Err(Refusal::NothingRan));
    let first = twins.comes(0);
    twins.runs(1, "a");
    assert_eq!(twins.undoing(), Ok(first));
    let second = twins.comes(1);
    assert_eq!(twins.checkpoints.pids(), [first, second]);
    assert_eq!(twins.undoing(), Ok(first));
    assert_eq!(twins.checkpoints.newest(), Some(None));
    // One more that knows no more than the second takes its place.
    let third = twins.comes(1);
    assert_eq!(twins.checkpoints.pids(), [first, third]);
    // A silent cell is nothing to undo.
    twins.runs_silently(2);
    assert_eq!(twins.undoing(), Ok(first));
    assert_eq!(twins.checkpoints.behind(2), Some("s".to_owned()));
    let fourth = twins.comes(2);
    assert_eq!(twins.checkpoints.pids(), [first, fourth]);
    // Beside a cell that runs there is one.
    twins.runs(3, "b");
    assert_eq!(twins.checkpoints.pids(), [fourth]);
    assert_eq!(twins.undoing(), Ok(fourth));
    // Nothing was made between this one and the next.
    twins.runs(4, "c");
    assert_eq!(twins.undoing(), Err(Refusal::NotMade));
    twins.checkpoints.ended(fourth);
    assert_eq!(twins.checkpoints.pids(), []);
}

#[test]
fn one_that_comes_when_its_cell_has_begun_is_the_only_one_beside_it() {
    let mut twins = Twins::default();
    twins.comes(0);
    twins.runs(1, "a");
    let late = twins.comes(0);
    assert_eq!(twins.checkpoints.pids(), [late]);
    assert_eq!(twins.undoing(), Ok(late));
    // Beside a silent one, what undoes the cell before that is kept.
    twins.runs_silently(2);
    let silent = twins.comes(1);
    assert_eq!(twins.checkpoints.pids(), [late, silent]);
    assert_eq!(twins.undoing(), Ok(late));
}

#[test]
fn a_name_stays_until_it_is_dropped_or_given_to_another() {
    let mut twins = Twins::default();
    let one = twins.hold(7, "a", 0);
    twins.runs(1, "x");
    let two = twins.hold(8, "b", 1);
    twins.comes(1);
    assert_eq!(
        twins.told(),
        [
            (Some(7), Fate::Held(name("a"))),
            (Some(8), Fate::Held(name("b")))
        ]
    );
    assert_eq!(twins.checkpoints.pids()[..2], [one, two]);
    let three = twins.hold(9, "a", 1);
    assert_eq!(twins.checkpoints.pids()[..2], [two, three]);
    twins.checkpoints.release(10, name("b"));
    twins.checkpoints.release(11, name("b"));
    twins.checkpoints.ended(three);
    let none = Refusal::Failed("there is none of this name".to_owned());
    assert_eq!(
        twins.told(),
        [
            (Some(9), Fate::Held(name("a"))),
            (Some(10), dropped("b", DropReason::Asked)),
            (Some(11), Fate::Refused(none)),
            (None, dropped("a", DropReason::ProcessEnded)),
        ]
    );
}

#[test]
fn nobody_gets_a_name_who_was_not_asked() {
    let mut twins = Twins::default();
    twins.comes_for(0, Some(7));
    assert_eq!(twins.checkpoints.pids(), []);
    twins.hold(7, "a", 0);
    twins.comes_for(0, Some(7));
    assert_eq!(twins.checkpoints.pids().len(), 1);
    // A kernel that answers has made it before.
    twins.checkpoints.want(8, name("b"));
    twins.checkpoints.want(9, name("c"));
    twins
        .checkpoints
        .await_only(|request| request == 9, "no memory");
    let why = Refusal::Failed("no memory".to_owned());
    assert_eq!(
        twins.told(),
        [
            (Some(7), Fate::Held(name("a"))),
            (Some(8), Fate::Refused(why))
        ]
    );
    for request in 20..40 {
        twins.hold(request, &format!("n{request}"), 0);
    }
    assert_eq!(twins.checkpoints.pids().len(), MOST_HELD);
}

#[test]
fn what_comes_after_going_back_belongs_to_that_past() {
    let mut twins = Twins::default();
    twins.comes(0);
    twins.runs(1, "a");
    let held = twins.hold(7, "kept", 1);
    twins.comes(1);
    twins.runs(2, "b");
    twins.comes(2);
    let (_, twin) = twins.checkpoints.held.pop().unwrap();
    twins.checkpoints.choose(twin);
    assert!(twins.checkpoints.pids().contains(&held));
    assert_eq!(
        twins.checkpoints.take_chosen().map(|twin| twin.pid),
        Some(held)
    );
    // What was made later is not of its past, and what was made earlier is gone.
    assert_eq!(twins.checkpoints.pids(), []);
    assert_eq!(twins.undoing(), Err(Refusal::NotMade));
    // It knows of the first cell only.
    twins.comes(2);
    assert_eq!(twins.checkpoints.pids(), []);
    let next = twins.comes(1);
    assert_eq!(twins.checkpoints.newest(), Some(None));
    twins.runs(3, "c");
    assert_eq!(twins.undoing(), Ok(next));
    // A crash goes back without a wish.
    twins.checkpoints.take_newest();
    assert_eq!(twins.checkpoints.last_cell(u64::MAX), Some("a"));
}

#[test]
fn room_is_made_by_what_is_missed_least() {
    let mut twins = Twins::default();
    let before = twins.comes(0);
    twins.runs(1, "a");
    twins.hold(7, "one", 1);
    twins.hold(8, "two", 1);
    let newest = twins.comes(1);
    assert_eq!(twins.undoing(), Ok(before));
    twins.told();
    twins.checkpoints.make_room();
    assert_eq!(twins.undoing(), Err(Refusal::Memory));
    assert_eq!(twins.told(), []);
    twins.checkpoints.make_room();
    twins.checkpoints.make_room();
    assert_eq!(
        twins.told(),
        [
            (None, dropped("one", DropReason::Memory)),
            (None, dropped("two", DropReason::Memory))
        ]
    );
    assert!(!twins.checkpoints.can_make_room());
    twins.checkpoints.make_room();
    assert_eq!(twins.checkpoints.pids(), [newest]);
}

#[test]
fn a_new_kernel_begins_without_names_unless_the_old_one_was_lost() {
    let mut twins = Twins::default();
    twins.runs(5, "a");
    let held = twins.hold(7, "a", 5);
    twins.comes(5);
    twins.told();
    twins.checkpoints.clear(HeldOnes::Stay);
    assert_eq!(twins.checkpoints.pids(), [held]);
    assert_eq!(twins.undoing(), Err(Refusal::NothingRan));
    twins.checkpoints.clear(HeldOnes::End);
    assert_eq!(twins.checkpoints.pids(), []);
    assert_eq!(twins.told(), [(None, dropped("a", DropReason::Restarted))]);
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
