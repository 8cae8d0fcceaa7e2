//! The task behind a connection: it greets, passes frames on in both directions, and connects again where that breaks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::codec::Framed;

use super::{Agent, KernelEvent, Occurrence};
use crate::kernel::KernelError;
use crate::kernel::parts::{Parts, Whole};
use crate::model::output::StreamName;
use crate::protocol::agent::{AgentHello, Hello, Kind, Purpose};
use crate::protocol::codec::{Frame, FrameCodec};
use crate::protocol::{GENERATION, OLDEST_GENERATION};
use crate::sandbox::{Sandbox, SandboxError, Stream};

/// How often the agent is asked whether it is there, and how often in a row it may fail to show it.
const PING_EVERY: Duration = Duration::from_secs(10);
const PINGS_UNANSWERED: u32 = 3;
/// How often a broken connection is tried again, and how long to wait in between.
const RECONNECTS: u32 = 5;
const RECONNECT_AFTER: Duration = Duration::from_millis(50);
const HELLO_LIMIT: Duration = Duration::from_secs(10);
/// How long to wait before an agent is called again that could not be reached through no fault of its own.
const AWAY_PAUSE: Duration = Duration::from_millis(500);

/// The task's side of a connection.
pub(super) struct Link {
    sandbox: Arc<dyn Sandbox>,
    inbox: mpsc::Sender<KernelEvent>,
    /// How long the agent lives on without being reached.
    orphan_limit: Duration,
    /// It was left by an earlier server, and has not greeted this one: whether it lives is not known.
    is_in_doubt: bool,
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
    /// The side of a task that has not connected yet.
    pub(super) fn new(
        sandbox: Arc<dyn Sandbox>,
        inbox: mpsc::Sender<KernelEvent>,
        agent: Agent,
        orphan_limit: Duration,
    ) -> Self {
        Self {
            sandbox,
            inbox,
            orphan_limit,
            is_in_doubt: matches!(agent, Agent::Left(_)),
            received: match agent {
                Agent::New => 0,
                Agent::Left(after) => after,
            },
            parts: Parts::default(),
            begun: None,
        }
    }

    /// Passes frames on until the session has let go of the kernel, or the agent is gone.
    pub(super) async fn run(mut self, mut outgoing: mpsc::Receiver<Frame>) {
        let mut failures = 0;
        let mut away_since = None;
        let mut unsent = None;
        let inbox = self.inbox.clone();
        loop {
            let opened = tokio::select! {
                opened = self.open() => opened,
                () = inbox.closed() => return,
            };
            let error = match opened {
                Ok((frames, hello)) => {
                    (failures, away_since) = (0, None);
                    self.is_in_doubt = false;
                    let greeted = KernelEvent {
                        frame: 0,
                        what: Occurrence::Greeted(hello),
                    };
                    if inbox.send(greeted).await.is_err() {
                        return;
                    }
                    match self.relay(frames, &mut outgoing, &mut unsent).await {
                        Ok(()) => return,
                        Err(error) => error,
                    }
                }
                Err(error) => error,
            };
            let pause = if matches!(error, KernelError::Sandbox(SandboxError::Away { .. })) {
                // It is not the agent that does not answer: it is as well as it was, as long as it waits.
                let since: Instant = *away_since.get_or_insert_with(Instant::now);
                (since.elapsed() < self.orphan_limit).then_some(AWAY_PAUSE)
            } else {
                failures += 1;
                let is_final = match error {
                    KernelError::Generation(_)
                    | KernelError::Sandbox(SandboxError::NotFound(_)) => true,
                    KernelError::TimedOut { .. } => self.is_in_doubt,
                    _ => false,
                };
                (!is_final && failures <= RECONNECTS).then_some(RECONNECT_AFTER * failures)
            };
            let Some(pause) = pause else {
                tracing::debug!(sandbox.id = %self.sandbox.id(), error = %error, "the agent is gone");
                let lost = KernelEvent {
                    frame: 0,
                    what: Occurrence::Lost(error.to_string()),
                };
                // Nobody may be there to hear it.
                let _ = inbox.send(lost).await;
                return;
            };
            tokio::select! {
                () = sleep(pause) => {}
                () = inbox.closed() => return,
            }
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
                Some(Ok(whole)) if kind == Kind::Message => {
                    let bytes = whole.bytes();
                    match serde_json::from_slice(&whole.json) {
                        Ok(message) => Occurrence::Message(Box::new(message), whole.buffers, bytes),
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
            Kind::KernelStarted => Occurrence::Started(parse(&frame)?),
            Kind::KernelExited => {
                // What the dead kernel had half said is never completed.
                self.parts = Parts::default();
                self.begun = None;
                Occurrence::Exited(parse(&frame)?)
            }
            Kind::DiskFull => Occurrence::DiskFull(parse(&frame)?),
            Kind::CpuSpent => Occurrence::CpuSpent(parse(&frame)?),
            Kind::Checkpoint => Occurrence::Checkpoint(parse(&frame)?),
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
