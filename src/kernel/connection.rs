//! The server's end of a kernel: one task per connection, frames in both directions, request ids, and the death of the peer as an event.
//!
//! A broken stream is reconnected and resumed after the last frame that was received: the agent keeps frames until they are acknowledged,
//! so nothing is lost and nothing comes twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::codec::Framed;

use super::KernelError;
use super::files::Files;
use super::parts::{Parts, Whole};
use crate::model::limits::Limits;
use crate::model::output::StreamName;
use crate::protocol::agent::{
    AgentConfig, AgentHello, CANCEL, CpuReport, DiskReport, Hello, KernelExit, Kind, MemoryReport,
    Purpose, UsageReport,
};
use crate::protocol::codec::{Frame, FrameCodec};
use crate::protocol::kernel::{Execute, Message, NumberedReply, NumberedRequest, Request};
use crate::protocol::{GENERATION, OLDEST_GENERATION};
use crate::sandbox::{Sandbox, SandboxError, Stream};

/// Frames that wait to be sent to the agent. When full, the agent is not reading, which a live one always does.
const OUTBOX: usize = 1024;
/// Events that wait for the session. When full, reading stops, the agent's outbox fills, and `print` waits.
const INBOX: usize = 256;
/// How often the agent is asked whether it is there, and how often in a row it may fail to show it.
const PING_EVERY: Duration = Duration::from_secs(10);
const PINGS_UNANSWERED: u32 = 3;
/// How often a broken connection is tried again, and how long to wait in between.
const RECONNECTS: u32 = 5;
const RECONNECT_AFTER: Duration = Duration::from_millis(50);
const HELLO_LIMIT: Duration = Duration::from_secs(10);

/// Numbers of executions begin here, far from those of other requests.
const EXECUTIONS: u64 = 1 << 48;

/// A kernel, as its session holds it. Dropping it ends the connection; the sandbox stays until [`Kernel::destroy`].
#[derive(Debug)]
pub struct Kernel {
    sandbox: Arc<dyn Sandbox>,
    outbox: mpsc::Sender<Frame>,
    next_id: AtomicU64,
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
    Message(Box<Message>, Vec<Bytes>),
    /// The reply to a request.
    Reply(NumberedReply),
    /// What the execution used whose reply comes next.
    Usage(UsageReport),
    /// The kernel's process has ended.
    Exited(KernelExit),
    /// The workspace is over its quota.
    DiskFull(DiskReport),
    /// Memory comes near its limit.
    MemoryHigh(MemoryReport),
    /// An execution has used as much time on the processors as it may.
    CpuSpent(CpuReport),
    /// The agent's answer to a request with this number.
    Answer(u64, Value),
    /// Something was said that cannot be understood; this says what.
    Nonsense(String),
    /// The agent is gone for good; this says why. Nothing comes after it.
    Lost(String),
}

impl Kernel {
    /// Connects to the agent of a sandbox, after the kept frame `resume_after`.
    pub(super) fn connect(sandbox: Arc<dyn Sandbox>, resume_after: u64) -> (Self, KernelEvents) {
        let (outbox, frames) = mpsc::channel(OUTBOX);
        let (inbox, events) = mpsc::channel(INBOX);
        let link = Link {
            sandbox: sandbox.clone(),
            inbox,
            received: resume_after,
            parts: Parts::default(),
            begun: None,
        };
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
        self.start_as(id)?;
        Ok(id)
    }

    /// The same, under a number that was taken before.
    ///
    /// # Errors
    /// The agent is gone or does not read.
    pub fn start_as(&self, id: u64) -> Result<(), KernelError> {
        self.send(Kind::StartKernel, id, Bytes::new())
    }

    /// The newest checkpoint in place of the kernel that is there, or was, under a number that was taken before. The answer carries it.
    ///
    /// # Errors
    /// The agent is gone or does not read.
    pub fn restore_as(&self, id: u64) -> Result<(), KernelError> {
        self.send(Kind::Restore, id, Bytes::new())
    }

    /// Tells the agent which limits to watch.
    ///
    /// # Errors
    /// The agent is gone or does not read.
    pub fn configure(&self, config: &AgentConfig) -> Result<(), KernelError> {
        let id = self.number();
        self.send(
            Kind::Configure,
            id,
            serde_json::to_vec(config)
                .expect("our own words are JSON")
                .into(),
        )
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

/// The task's side of a connection.
struct Link {
    sandbox: Arc<dyn Sandbox>,
    inbox: mpsc::Sender<KernelEvent>,
    /// The last kept frame that was received.
    received: u64,
    parts: Parts,
    /// The first frame of a message that has not come to its end. Until then nothing after it may be acknowledged: another server would get the
    /// rest without the beginning.
    begun: Option<u64>,
}

type Frames = Framed<Box<dyn Stream>, FrameCodec>;

/// Whether the peer shows signs of life.
///
/// Shared by the two halves of one task; atomic only because that task may move between threads.
struct Pulse {
    /// How many pings were sent since the peer was last heard. Counted, not timed: a server that was itself stopped for a while must not
    /// believe that everybody else was.
    unanswered: AtomicU32,
    /// Set while the session is slow to take events: then silence is ours, not the agent's.
    busy: AtomicBool,
}

impl Pulse {
    fn beat(&self, busy: bool) {
        self.unanswered.store(0, Ordering::Relaxed);
        self.busy.store(busy, Ordering::Relaxed);
    }

    /// Another ping goes out. Says whether it is one too many.
    fn ping(&self) -> bool {
        let unanswered = self.unanswered.fetch_add(1, Ordering::Relaxed);
        !self.busy.load(Ordering::Relaxed) && unanswered >= PINGS_UNANSWERED
    }
}

impl Link {
    async fn run(mut self, mut outgoing: mpsc::Receiver<Frame>) {
        let mut failures = 0;
        let mut unsent = None;
        loop {
            let error = match self.open().await {
                Ok((frames, hello)) => {
                    failures = 0;
                    let greeted = KernelEvent {
                        frame: 0,
                        what: Occurrence::Greeted(hello),
                    };
                    if self.inbox.send(greeted).await.is_err() {
                        return;
                    }
                    match self.relay(frames, &mut outgoing, &mut unsent).await {
                        Ok(()) => return,
                        Err(error) => error,
                    }
                }
                Err(error) => error,
            };
            failures += 1;
            let is_final = matches!(
                error,
                KernelError::Generation(_) | KernelError::Sandbox(SandboxError::NotFound(_))
            );
            if is_final || failures > RECONNECTS || self.inbox.is_closed() {
                tracing::debug!(sandbox.id = %self.sandbox.id(), error = %error, "the agent is gone");
                let lost = KernelEvent {
                    frame: 0,
                    what: Occurrence::Lost(error.to_string()),
                };
                // Nobody may be there to hear it.
                let _ = self.inbox.send(lost).await;
                return;
            }
            tokio::time::sleep(RECONNECT_AFTER * failures).await;
        }
    }

    async fn open(&mut self) -> Result<(Frames, AgentHello), KernelError> {
        let stream = self.sandbox.connect().await.map_err(KernelError::Sandbox)?;
        let mut frames = Framed::with_capacity(stream, FrameCodec, 64 * 1024);
        let hello = Hello {
            generation: GENERATION,
            purpose: Purpose::Control,
            resume_after: self.received,
        };
        let payload = serde_json::to_vec(&hello)
            .expect("our own words are JSON")
            .into();
        frames
            .send(Frame {
                kind: Kind::Hello as u8,
                flags: 0,
                number: 0,
                payload,
            })
            .await
            .map_err(KernelError::Codec)?;
        let first = timeout(HELLO_LIMIT, frames.next())
            .await
            .map_err(|_| KernelError::TimedOut {
                what: "greet",
                seconds: HELLO_LIMIT.as_secs(),
            })?
            .ok_or(KernelError::Closed)?
            .map_err(KernelError::Codec)?;
        if first.kind != Kind::AgentHello as u8 {
            return Err(KernelError::Nonsense("something before its greeting"));
        }
        let hello: AgentHello = serde_json::from_slice(&first.payload)
            .map_err(|_| KernelError::Nonsense("a greeting that is none"))?;
        if !(OLDEST_GENERATION..=GENERATION).contains(&hello.generation) {
            return Err(KernelError::Generation(hello.generation));
        }
        if hello.sandbox != self.sandbox.id() || hello.last < self.received {
            return Err(KernelError::Nonsense("the greeting of another sandbox"));
        }
        Ok((frames, hello))
    }

    /// Passes frames on in both directions until one of them fails; `Ok` when the session has let go of the kernel.
    async fn relay(
        &mut self,
        frames: Frames,
        outgoing: &mut mpsc::Receiver<Frame>,
        unsent: &mut Option<Frame>,
    ) -> Result<(), KernelError> {
        let (sink, stream) = frames.split();
        let pulse = Pulse {
            unanswered: AtomicU32::new(0),
            busy: AtomicBool::new(false),
        };
        tokio::select! {
            result = write(sink, outgoing, unsent, &pulse) => result,
            result = self.read(stream, &pulse) => result,
        }
    }

    async fn read(
        &mut self,
        mut stream: SplitStream<Frames>,
        pulse: &Pulse,
    ) -> Result<(), KernelError> {
        loop {
            let frame = stream
                .next()
                .await
                .ok_or(KernelError::Closed)?
                .map_err(KernelError::Codec)?;
            pulse.beat(false);
            let Some(event) = self.understand(frame)? else {
                continue;
            };
            pulse.beat(true);
            if self.inbox.send(event).await.is_err() {
                return Ok(());
            }
            pulse.beat(false);
        }
    }

    /// The event that a frame completes, if any.
    fn understand(&mut self, frame: Frame) -> Result<Option<KernelEvent>, KernelError> {
        let kind = Kind::try_from(frame.kind)
            .map_err(|_| KernelError::Nonsense("a frame of an unknown kind"))?;
        let kept = frame.kind < Kind::AgentHello as u8;
        if kept {
            if frame.number != self.received + 1 {
                return Err(KernelError::Nonsense("frames out of order"));
            }
            self.received = frame.number;
        }
        let number = frame.number;
        let what = match kind {
            Kind::Stdout => Occurrence::Stream(StreamName::Stdout, frame.payload),
            Kind::Stderr => Occurrence::Stream(StreamName::Stderr, frame.payload),
            Kind::Message | Kind::Reply => match self.parts.add(frame) {
                None => {
                    self.begun.get_or_insert(number);
                    return Ok(None);
                }
                Some(Ok(Whole { json, buffers })) if kind == Kind::Message => {
                    match serde_json::from_slice(&json) {
                        Ok(message) => Occurrence::Message(Box::new(message), buffers),
                        Err(error) => Occurrence::Nonsense(format!(
                            "the kernel sent a message that is none: {error}"
                        )),
                    }
                }
                Some(Ok(Whole { json, .. })) => match serde_json::from_slice(&json) {
                    Ok(reply) => Occurrence::Reply(reply),
                    Err(error) => Occurrence::Nonsense(format!(
                        "the kernel sent a reply that is none: {error}"
                    )),
                },
                Some(Err(why)) => Occurrence::Nonsense(why),
            },
            Kind::Usage => Occurrence::Usage(parse(&frame)?),
            Kind::KernelExited => {
                // What the dead kernel had half said is never completed.
                self.parts = Parts::default();
                self.begun = None;
                Occurrence::Exited(parse(&frame)?)
            }
            Kind::DiskFull => Occurrence::DiskFull(parse(&frame)?),
            Kind::CpuSpent => Occurrence::CpuSpent(parse(&frame)?),
            Kind::MemoryHigh => Occurrence::MemoryHigh(parse(&frame)?),
            Kind::Answer => Occurrence::Answer(number, parse(&frame)?),
            Kind::Pong => return Ok(None),
            _ => return Err(KernelError::Nonsense("a frame that only a server sends")),
        };
        if matches!(kind, Kind::Message | Kind::Reply) {
            self.begun = None;
        }
        let frame = match self.begun {
            Some(begun) if kept => begun - 1,
            _ if kept => number,
            _ => 0,
        };
        Ok(Some(KernelEvent { frame, what }))
    }
}

async fn write(
    mut sink: SplitSink<Frames, Frame>,
    outgoing: &mut mpsc::Receiver<Frame>,
    unsent: &mut Option<Frame>,
    pulse: &Pulse,
) -> Result<(), KernelError> {
    let mut ping = interval(PING_EVERY);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        // A frame that was taken when the connection broke goes first on the next one. Interrupts, kills and acknowledgements may arrive
        // twice; a request that was on its way is in doubt, and if it comes twice the agent, which knows its number, passes over it.
        let frame = match unsent.take() {
            Some(frame) => Some(frame),
            None => tokio::select! {
                frame = outgoing.recv() => frame,
                _ = ping.tick() => {
                    if pulse.ping() {
                        return Err(KernelError::TimedOut { what: "answer a ping", seconds: PING_EVERY.as_secs() * u64::from(PINGS_UNANSWERED) });
                    }
                    Some(Frame { kind: Kind::Ping as u8, flags: 0, number: 0, payload: Bytes::new() })
                }
            },
        };
        let Some(frame) = frame else { return Ok(()) };
        *unsent = Some(frame.clone());
        sink.feed(frame).await.map_err(KernelError::Codec)?;
        while let Ok(more) = outgoing.try_recv() {
            *unsent = Some(more.clone());
            sink.feed(more).await.map_err(KernelError::Codec)?;
        }
        sink.flush().await.map_err(KernelError::Codec)?;
        *unsent = None;
    }
}

fn parse<T: serde::de::DeserializeOwned>(frame: &Frame) -> Result<T, KernelError> {
    serde_json::from_slice(&frame.payload)
        .map_err(|_| KernelError::Nonsense("a report that is none"))
}
