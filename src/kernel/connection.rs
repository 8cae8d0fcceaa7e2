//! The server's end of a kernel: one task per connection, frames in both directions, request ids, and the death of the peer as an event.
//!
//! A broken stream is reconnected and resumed after the last frame that was received: the agent keeps frames until they are acknowledged,
//! so nothing is lost and nothing comes twice.

mod link;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::mpsc;

use self::link::Link;
use super::KernelError;
use super::files::Files;
use crate::model::id::CheckpointName;
use crate::model::limits::Limits;
use crate::model::output::StreamName;
use crate::protocol::agent::{
    AgentConfig, AgentHello, CANCEL, CpuReport, DiskReport, KernelExit, KernelStart, Kind,
    MemoryReport, UsageReport,
};
use crate::protocol::checkpoints::{CheckpointReport, HeldOnes, Named, Target};
use crate::protocol::codec::Frame;
use crate::protocol::kernel::{Execute, Message, NumberedReply, NumberedRequest, Request};
use crate::sandbox::{Sandbox, SandboxError};

/// Frames that wait to be sent to the agent. When full, the agent is not reading, which a live one always does.
const OUTBOX: usize = 1024;
/// Events that wait for the session. When full, reading stops, the agent's outbox fills, and `print` waits.
const INBOX: usize = 256;

/// Numbers of executions begin here, far from those of other requests.
const EXECUTIONS: u64 = 1 << 48;

/// A kernel, as its session holds it. Dropping it ends the connection; the sandbox stays until [`Kernel::destroy`].
#[derive(Debug)]
pub struct Kernel {
    sandbox: Arc<dyn Sandbox>,
    outbox: mpsc::Sender<Frame>,
    next_id: AtomicU64,
}

/// Whom a connection leads to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Agent {
    /// One that was just started, and may have to be waited for.
    New,
    /// One of an earlier server, which has heard it up to this kept frame.
    Left(u64),
}

/// What a kernel says, in order.
#[derive(Debug)]
pub struct KernelEvents(mpsc::Receiver<KernelEvent>);

/// One thing that a kernel or its agent said.
#[derive(Debug)]
pub struct KernelEvent {
    /// Acknowledge this once it is stored; 0 for what is not kept.
    pub frame: u64,
    /// What it is.
    pub what: Occurrence,
}

/// What a kernel or its agent can say.
#[derive(Debug)]
pub enum Occurrence {
    /// The agent has greeted, on the first connection or on a later one: what it says is true after all frames up to its last, which follow.
    Greeted(AgentHello),
    /// Bytes were written. They may end within a character.
    Stream(StreamName, Bytes),
    /// A message, with its binary parts.
    Message(Box<Message>, Vec<Bytes>, u64),
    /// The reply to a request.
    Reply(NumberedReply),
    /// What the execution used whose reply comes next.
    Usage(UsageReport),
    /// A kernel has been started; what it says comes next.
    Started(KernelStart),
    /// The kernel's process has ended.
    Exited(KernelExit),
    /// The workspace is over its quota.
    DiskFull(DiskReport),
    /// Memory comes near its limit.
    MemoryHigh(MemoryReport),
    /// An execution has used as much time on the processors as it may.
    CpuSpent(CpuReport),
    /// Something became of a checkpoint with a name, or of the wish to go back.
    Checkpoint(CheckpointReport),
    /// The agent's answer to a request with this number.
    Answer(u64, Value),
    /// Something was said that cannot be understood; this says what.
    Nonsense(String),
    /// The agent is gone for good; this says why. Nothing comes after it.
    Lost(String),
}

impl Kernel {
    /// Connects to the agent of a sandbox, which lives on without a server for `orphan_limit`.
    pub(super) fn connect(
        sandbox: Arc<dyn Sandbox>,
        agent: Agent,
        orphan_limit: Duration,
    ) -> (Self, KernelEvents) {
        let (outbox, frames) = mpsc::channel(OUTBOX);
        let (inbox, events) = mpsc::channel(INBOX);
        let link = Link::new(sandbox.clone(), inbox, agent, orphan_limit);
        tokio::spawn(link.run(frames));
        (
            Self {
                sandbox,
                outbox,
                next_id: AtomicU64::new(1),
            },
            KernelEvents(events),
        )
    }

    /// A number for a request that is to be sent with [`Kernel::request_as`] or [`Kernel::start_as`], before any that gets its number later:
    /// the agent passes over what has a lower number than it has seen.
    pub fn number(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Numbers what is asked for from now on after what an earlier server has asked for.
    pub fn number_after(&self, last: u64) {
        self.next_id
            .fetch_max(last.saturating_add(1), Ordering::Relaxed);
    }

    /// Sends a request; its reply carries the returned id.
    ///
    /// # Errors
    /// The agent is gone or does not read.
    pub fn request(&self, request: Request) -> Result<u64, KernelError> {
        let id = self.number();
        self.request_as(id, request)?;
        Ok(id)
    }

    /// Sends a request under a number that was taken before.
    ///
    /// # Errors
    /// The agent is gone or does not read.
    pub fn request_as(&self, id: u64, request: Request) -> Result<(), KernelError> {
        let kind = if matches!(request, Request::Execute(_)) {
            Kind::Execute
        } else {
            Kind::Request
        };
        let bytes =
            serde_json::to_vec(&NumberedRequest { id, request }).expect("our own words are JSON");
        self.send_in_parts(kind, id, bytes.into())
    }

    /// The number of the execution of the cell with this place in its session's order. Known without asking anybody, so that another server
    /// knows it too.
    pub fn execution(order: u64) -> u64 {
        EXECUTIONS + order
    }

    /// Runs a cell, under the number that [`Kernel::execution`] gives it. What comes twice is run once.
    ///
    /// # Errors
    /// The agent is gone or does not read.
    pub fn execute(&self, order: u64, execute: Execute) -> Result<u64, KernelError> {
        let id = Self::execution(order);
        self.request_as(id, Request::Execute(Box::new(execute)))?;
        Ok(id)
    }

    /// SIGINT to the kernel's process.
    ///
    /// # Errors
    /// The agent is gone or does not read.
    pub fn interrupt(&self) -> Result<(), KernelError> {
        self.send(Kind::Interrupt, 0, Bytes::new())
    }

    /// Cancels what the cell awaits, and takes SIGINT back from code that has it.
    ///
    /// # Errors
    /// The agent is gone or does not read.
    pub fn cancel(&self) -> Result<(), KernelError> {
        self.send(Kind::Interrupt, 0, Bytes::from_static(CANCEL))
    }

    /// SIGKILL to the kernel and all that it has started.
    ///
    /// # Errors
    /// The agent is gone or does not read.
    pub fn kill(&self) -> Result<(), KernelError> {
        self.send(Kind::KillKernel, 0, Bytes::new())
    }

    /// A new kernel in the same sandbox, in place of the one that is there. The answer carries the returned number.
    ///
    /// # Errors
    /// The agent is gone or does not read.
    pub fn start(&self) -> Result<u64, KernelError> {
        let id = self.number();
        self.start_as(id, HeldOnes::End)?;
        Ok(id)
    }

    /// The same, under a number that was taken before, and whether checkpoints with names stay.
    ///
    /// # Errors
    /// The agent is gone or does not read.
    pub fn start_as(&self, id: u64, held: HeldOnes) -> Result<(), KernelError> {
        self.send_json(Kind::StartKernel, id, &held)
    }

    /// A checkpoint in place of the kernel that is there, or was, under a number that was taken before. The answer carries it.
    ///
    /// # Errors
    /// The agent is gone or does not read.
    pub fn restore_as(&self, id: u64, target: &Target) -> Result<(), KernelError> {
        self.send_json(Kind::Restore, id, target)
    }

    /// A checkpoint of the kernel as it is when it comes to this request, to be held under a name. A report tells, by this number, what became of it.
    ///
    /// # Errors
    /// The agent is gone or does not read.
    pub fn hold_as(&self, id: u64, name: CheckpointName) -> Result<(), KernelError> {
        self.send_json(Kind::Hold, id, &Named { name })
    }

    /// Drops a checkpoint that is held. A report tells, by this number, what became of it.
    ///
    /// # Errors
    /// The agent is gone or does not read.
    pub fn release_as(&self, id: u64, name: CheckpointName) -> Result<(), KernelError> {
        self.send_json(Kind::Release, id, &Named { name })
    }

    /// Tells the agent which limits to watch.
    ///
    /// # Errors
    /// The agent is gone or does not read.
    pub fn configure(&self, config: &AgentConfig) -> Result<(), KernelError> {
        self.send_json(Kind::Configure, self.number(), config)
    }

    /// Asks the agent what the sandbox uses; its answer carries the returned number.
    ///
    /// # Errors
    /// The agent is gone or does not read.
    pub fn stat(&self) -> Result<u64, KernelError> {
        let number = self.number();
        self.send(Kind::Stat, number, Bytes::new())?;
        Ok(number)
    }

    /// Everything up to this frame is stored.
    ///
    /// # Errors
    /// The agent is gone or does not read.
    pub fn acknowledge(&self, frame: u64) -> Result<(), KernelError> {
        self.send(Kind::Ack, frame, Bytes::new())
    }

    /// Access to the files of its workspace.
    pub fn files(&self) -> Files {
        Files::new(self.sandbox.clone())
    }

    /// The sandbox's id.
    pub fn sandbox(&self) -> crate::model::id::SandboxId {
        self.sandbox.id()
    }

    /// Changes what the sandbox may use.
    ///
    /// # Errors
    /// The host refuses.
    pub async fn apply(&self, limits: &Limits) -> Result<(), SandboxError> {
        self.sandbox.apply(limits).await
    }

    /// Destroys the sandbox with all that is in it.
    ///
    /// # Errors
    /// Something of it could not be removed; the reaper will try again.
    pub async fn destroy(self) -> Result<(), SandboxError> {
        self.sandbox.destroy().await
    }

    fn send_in_parts(
        &self,
        kind: Kind,
        number: u64,
        mut payload: Bytes,
    ) -> Result<(), KernelError> {
        use crate::protocol::MAX_PAYLOAD;
        use crate::protocol::codec::FLAG_MORE;
        while payload.len() > MAX_PAYLOAD {
            let part = payload.split_to(MAX_PAYLOAD);
            self.send_frame(Frame {
                kind: kind as u8,
                flags: FLAG_MORE,
                number,
                payload: part,
            })?;
        }
        self.send(kind, number, payload)
    }

    fn send_json(
        &self,
        kind: Kind,
        number: u64,
        content: &impl Serialize,
    ) -> Result<(), KernelError> {
        let json = serde_json::to_vec(content).expect("our own words are JSON");
        self.send(kind, number, json.into())
    }

    fn send(&self, kind: Kind, number: u64, payload: Bytes) -> Result<(), KernelError> {
        self.send_frame(Frame {
            kind: kind as u8,
            flags: 0,
            number,
            payload,
        })
    }

    fn send_frame(&self, frame: Frame) -> Result<(), KernelError> {
        self.outbox.try_send(frame).map_err(|_| KernelError::Closed)
    }
}

impl KernelEvents {
    /// Waits for events and takes those that are there, at most `limit`. 0 means that nothing comes any more.
    pub async fn receive(&mut self, into: &mut Vec<KernelEvent>, limit: usize) -> usize {
        self.0.recv_many(into, limit).await
    }

    /// Waits for the next event.
    pub(super) async fn next(&mut self) -> Option<KernelEvent> {
        self.0.recv().await
    }

    /// Whether nothing has been said since the last look, as it should be with a kernel that nobody uses.
    pub(super) fn is_quiet(&mut self) -> bool {
        matches!(self.0.try_recv(), Err(mpsc::error::TryRecvError::Empty))
    }
}
