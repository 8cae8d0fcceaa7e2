//! Everything a kernel puts out becomes frames: records of the ring, and what arrives in the pipes behind descriptors 1 and 2.
//!
//! Python's own output is in the ring; that of C code and child processes is in the pipes. The kernel says with `sync` records how
//! the two go together. Nothing is held back: what is there is framed at once, and text that is there at the same time is framed together.

mod rest;
#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

pub(crate) use self::rest::Rest;
use super::descriptor;
use super::outbox::Outbox;
use super::ring::{RECORD_HEAD, Record, Ring, Violation};
use crate::protocol::MAX_MESSAGE;
use crate::protocol::agent::{Kind, UsageReport};
use crate::protocol::codec::FLAG_MORE;

/// How much of the ring and the pipes is taken before anything else has its turn.
const BUDGET: usize = 1024 * 1024;

/// What a pipe holds at most: its size unless somebody changes it, and nobody does. An honest `sync` never says more.
/// It stays as the system makes it: larger ones count against a bound on all pipes of a user, beyond which all are made tiny.
const PIPE: u64 = 64 * 1024;

/// How much of a reply is looked at to find whose it is.
const PREFIX: usize = 4096;

const RING: usize = 1024 * 1024;

/// Tells whose reply it is that begins with these bytes, and what is to be reported before it.
pub(crate) type OnReply<'a> = dyn FnMut(&[u8]) -> Result<Option<UsageReport>, Violation> + 'a;

/// The agent's ends of a kernel's output.
#[derive(Debug)]
pub(crate) struct Capture {
    ring: Ring,
    /// Set once the kernel has broken its protocol: the ring is read no more.
    broken: bool,
    /// Waits for the kernel while there is nothing.
    pub(crate) rest: Rest,
    space: OwnedFd,
    pipes: [Pipe; 2],
    /// Up to where each pipe comes before the next record, in bytes since its beginning.
    sync: [u64; 2],
    parts: Option<Parts>,
}

/// A kernel's ends of the same.
#[derive(Debug)]
pub(crate) struct KernelEnds {
    /// The shared memory.
    pub(crate) ring: OwnedFd,
    /// Wakes the agent.
    pub(crate) doorbell: OwnedFd,
    /// Wakes the kernel.
    pub(crate) space: OwnedFd,
    /// Its standard output.
    pub(crate) stdout: OwnedFd,
    /// Its standard error.
    pub(crate) stderr: OwnedFd,
}

#[derive(Debug)]
struct Pipe {
    kind: Kind,
    fd: AsyncFd<OwnedFd>,
    open: bool,
    /// How much was read so far.
    read: u64,
}

#[derive(Clone, Copy, Debug)]
struct Parts {
    kind: u8,
    bytes: usize,
}

/// How a pipe was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Took {
    Bytes(usize),
    Nothing,
}

/// Who may write meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writers {
    /// The kernel, and what it has started.
    Alive,
    /// Nobody any more.
    Gone,
}

impl Pipe {
    fn new(kind: Kind) -> io::Result<(Self, OwnedFd)> {
        let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        // Only this end: the flags of the other belong to programs that expect to block.
        rustix::fs::fcntl_setfl(&read, rustix::fs::OFlags::NONBLOCK)?;
        let pipe = Self {
            kind,
            fd: descriptor::watched(read, Interest::READABLE)?,
            open: true,
            read: 0,
        };
        Ok((pipe, write))
    }

    /// How much lies in it, as far as the reactor has noticed.
    fn waiting(&mut self) -> usize {
        if !self.open {
            return 0;
        }
        let waiting = self.fd.try_io(Interest::READABLE, |fd| {
            match rustix::io::ioctl_fionread(fd)? {
                0 if is_hung_up(fd) => Ok(0),
                // Nothing yet: the reactor is to tell again.
                0 => Err(io::ErrorKind::WouldBlock.into()),
                waiting => Ok(waiting),
            }
        });
        match waiting {
            Ok(0) => self.open = false,
            Ok(waiting) => return usize::try_from(waiting).unwrap_or(usize::MAX),
            Err(error) => self.open = is_passing(&error),
        }
        0
    }

    /// Reads at once, whether or not the reactor has noticed that there is something.
    fn read(&mut self, outbox: &mut Outbox, most: usize) -> Took {
        if !self.open {
            return Took::Nothing;
        }
        // Room is asked for only when there may be something: asking ends the text of the other stream.
        let room = outbox.text_room(self.kind);
        let most = most.min(room.len());
        let read = rustix::io::read(self.fd.get_ref(), &mut room[..most]);
        outbox.commit_text(read.unwrap_or(0));
        match read {
            Ok(0) => self.open = false,
            Ok(length) => {
                self.read += length as u64;
                return Took::Bytes(length);
            }
            Err(error) => self.open = is_passing(&error.into()),
        }
        Took::Nothing
    }
}

/// Whether nobody is left who could write, and nothing is left to read.
fn is_hung_up(pipe: &OwnedFd) -> bool {
    let mut poll = [PollFd::new(pipe, PollFlags::IN)];
    let now = rustix::event::Timespec::default();
    rustix::event::poll(&mut poll, Some(&now)).is_ok()
        && poll[0].revents().contains(PollFlags::HUP)
        && !poll[0].revents().contains(PollFlags::IN)
}

fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

impl Capture {
    /// Makes both ends.
    pub(crate) fn create() -> io::Result<(Self, KernelEnds)> {
        let (ring, ring_memory) = Ring::create(RING)?;
        let (rest, doorbell) = Rest::create()?;
        // A pipe, where the protocol's other bell is an eventfd: both ends of an eventfd are one open file, whose flags the kernel could change
        // so that ringing it blocks.
        let (space_read, space) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        rustix::fs::fcntl_setfl(&space, rustix::fs::OFlags::NONBLOCK)?;
        let (stdout, stdout_write) = Pipe::new(Kind::Stdout)?;
        let (stderr, stderr_write) = Pipe::new(Kind::Stderr)?;
        let capture = Self {
            ring,
            broken: false,
            rest,
            space,
            pipes: [stdout, stderr],
            sync: [0; 2],
            parts: None,
        };
        let ends = KernelEnds {
            ring: ring_memory,
            doorbell,
            space: space_read,
            stdout: stdout_write,
            stderr: stderr_write,
        };
        Ok((capture, ends))
    }

    /// Waits until a pipe has something. Never ends when both are closed.
    pub(crate) async fn readable(&self) {
        let [stdout, stderr] = &self.pipes;
        // A message's parts must not be torn apart, so the pipes wait for the rest of it.
        let take = self.parts.is_none();
        tokio::select! {
            _ = stdout.fd.readable(), if take && stdout.open => {}
            _ = stderr.fd.readable(), if take && stderr.open => {}
            else => std::future::pending().await,
        }
    }

    /// Frames what is there, a bounded amount. Returns whether there is more.
    pub(crate) fn pump(
        &mut self,
        outbox: &mut Outbox,
        on_reply: &mut OnReply<'_>,
    ) -> Result<bool, Violation> {
        let result = self.pump_some(outbox, on_reply, Writers::Alive);
        if result.is_err() {
            self.broken = true;
            self.parts = None;
        }
        if self.ring.publish() {
            self.wake_writer();
        }
        result
    }

    /// The same, when nobody is left who writes. Once it returns `false`, and the outbox is not full, that was all.
    pub(crate) fn pump_rest(
        &mut self,
        outbox: &mut Outbox,
        on_reply: &mut OnReply<'_>,
    ) -> Result<bool, Violation> {
        if !self.broken && self.ring.has_data() && !outbox.is_full() {
            let result = self.pump_some(outbox, on_reply, Writers::Gone);
            self.broken = result.is_err();
            return result.map(|_| true);
        }
        // What follows the parts of a message that will never be whole is the pipes.
        self.parts = None;
        Ok(self.pump_pipes(outbox, Writers::Gone))
    }

    /// Prepares for a wait: nothing was there when [`Capture::pump`] looked. Returns `false` when something is there now.
    pub(crate) fn settle(&mut self, within_line: bool) -> bool {
        // A nap lets text of C code and text of Python meet in the wrong order; without one the kernel says `sync` often enough.
        let may_nap = !self.pipes.iter().any(|pipe| pipe.read > 0);
        self.broken || self.rest.settle(&self.ring, may_nap, within_line)
    }

    /// Lets the kernel write without ringing, because nothing is read for now anyway.
    pub(crate) fn ignore_doorbell(&mut self) {
        self.ring.announce_awake();
        self.rest.cancel();
    }

    fn pump_some(
        &mut self,
        outbox: &mut Outbox,
        on_reply: &mut OnReply<'_>,
        writers: Writers,
    ) -> Result<bool, Violation> {
        let mut budget = BUDGET;
        while !self.broken {
            if outbox.is_full() {
                return Ok(false);
            }
            if !self.take_synced(outbox) {
                return Ok(false);
            }
            let Some(record) = self.ring.next()? else {
                break;
            };
            self.rest.found_something();
            self.take(record, outbox, on_reply)?;
            self.ring.consume(RECORD_HEAD + record.length);
            if self.ring.is_publish_due() && self.ring.publish() {
                self.wake_writer();
            }
            match budget.checked_sub(RECORD_HEAD + record.length) {
                Some(rest) => budget = rest,
                None => return Ok(true),
            }
        }
        // Only when the ring is empty: what lies in it was printed before.
        if self.parts.is_some() {
            return Ok(false);
        }
        Ok(self.pump_pipes(outbox, writers))
    }

    /// Takes one piece of each pipe. Returns whether there may be more to do.
    fn pump_pipes(&mut self, outbox: &mut Outbox, writers: Writers) -> bool {
        let waiting = match writers {
            Writers::Alive => {
                let waiting = self.pipes.each_mut().map(Pipe::waiting);
                // What lies in the pipes beyond that may have been written after a record that lies in the ring by now.
                if waiting != [0; 2] && self.ring.has_data() {
                    return true;
                }
                waiting
            }
            Writers::Gone => [usize::MAX; 2],
        };
        let mut any = false;
        for (pipe, waiting) in waiting.into_iter().enumerate() {
            if outbox.is_full() {
                return any;
            }
            any |= waiting > 0 && self.read_pipe(pipe, outbox, waiting) != Took::Nothing;
        }
        any
    }

    /// Takes from the pipes what comes before the next record. Returns whether that is done: not when the outbox is full.
    fn take_synced(&mut self, outbox: &mut Outbox) -> bool {
        for pipe in 0..self.pipes.len() {
            while let Some(rest @ 1..) = self.sync[pipe].checked_sub(self.pipes[pipe].read) {
                if outbox.is_full() {
                    return false;
                }
                let most = usize::try_from(rest).unwrap_or(usize::MAX);
                if self.read_pipe(pipe, outbox, most) == Took::Nothing {
                    // It was never written.
                    self.sync[pipe] = 0;
                }
            }
        }
        true
    }

    /// Reads a pipe, and tells the kernel how far.
    fn read_pipe(&mut self, pipe: usize, outbox: &mut Outbox, most: usize) -> Took {
        self.ring.begin_pipe_read();
        let took = self.pipes[pipe].read(outbox, most);
        self.ring
            .end_pipe_read(self.pipes.each_ref().map(|pipe| pipe.read));
        took
    }

    fn take(
        &mut self,
        record: Record,
        outbox: &mut Outbox,
        on_reply: &mut OnReply<'_>,
    ) -> Result<(), Violation> {
        if let Some(parts) = self.parts
            && record.kind != parts.kind
        {
            return Err(Violation::Parts {
                expected: parts.kind,
                found: record.kind,
            });
        }
        match record.kind {
            1 => self.take_text(Kind::Stdout, record, outbox),
            2 => self.take_text(Kind::Stderr, record, outbox),
            3 => return self.take_message(Kind::Message, record, outbox),
            4 => return self.take_sync(record),
            5 => {
                if self.parts.is_none() {
                    self.take_reply_head(record, outbox, on_reply)?;
                }
                return self.take_message(Kind::Reply, record, outbox);
            }
            kind => return Err(Violation::Kind(kind)),
        }
        Ok(())
    }

    fn take_text(&mut self, kind: Kind, record: Record, outbox: &mut Outbox) {
        let mut at = 0;
        while at < record.length {
            let room = outbox.text_room(kind);
            let length = room.len().min(record.length - at);
            self.ring.copy(RECORD_HEAD + at, &mut room[..length]);
            outbox.commit_text(length);
            at += length;
        }
    }

    fn take_message(
        &mut self,
        kind: Kind,
        record: Record,
        outbox: &mut Outbox,
    ) -> Result<(), Violation> {
        let more = record.flags & FLAG_MORE != 0;
        let bytes = self.parts.map_or(0, |parts| parts.bytes) + record.length;
        if bytes > MAX_MESSAGE {
            return Err(Violation::Message(MAX_MESSAGE));
        }
        self.parts = more.then_some(Parts {
            kind: record.kind,
            bytes,
        });
        let flags = if more { FLAG_MORE } else { 0 };
        outbox.push_with(kind, flags, record.length, |room| {
            self.ring.copy(RECORD_HEAD, room);
        });
        Ok(())
    }

    fn take_sync(&mut self, record: Record) -> Result<(), Violation> {
        let mut payload = [0; 16];
        if record.length != payload.len() {
            return Err(Violation::Content("sync"));
        }
        self.ring.copy(RECORD_HEAD, &mut payload);
        let positions = payload.chunks_exact(8);
        for ((until, pipe), position) in self.sync.iter_mut().zip(&self.pipes).zip(positions) {
            let position = position.try_into().expect("the chunks have eight bytes");
            *until = u64::from_le_bytes(position).min(pipe.read + PIPE);
        }
        Ok(())
    }

    /// Reports what an execution used, before its reply.
    fn take_reply_head(
        &mut self,
        record: Record,
        outbox: &mut Outbox,
        on_reply: &mut OnReply<'_>,
    ) -> Result<(), Violation> {
        let mut prefix = [0; PREFIX];
        let prefix = &mut prefix[..record.length.min(PREFIX)];
        self.ring.copy(RECORD_HEAD, prefix);
        if let Some(report) = on_reply(prefix)? {
            let json = serde_json::to_vec(&report).expect("a report is made of numbers");
            outbox.push(Kind::Usage, &json);
        }
        Ok(())
    }

    fn wake_writer(&self) {
        match rustix::io::write(&self.space, &1u64.to_le_bytes()) {
            // Full: then there is something in it that wakes the kernel.
            Ok(_) | Err(Errno::AGAIN) => {}
            // The kernel is gone, which is noticed elsewhere.
            Err(_) => {}
        }
    }
}
