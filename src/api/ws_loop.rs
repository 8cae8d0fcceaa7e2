//! The life of a WebSocket, as a function over any sink and stream of messages: events out, commands in. What they look like is each front
//! end's own.
//!
//! Two loops in one task. The reading one carries out commands, also while the writing one waits for a slow client: an interrupt gets
//! through a flood. The writing one sends replies before events. Both are bounded: a client that sends more commands at once than
//! it may is not read from until some are answered; one that does not read delays itself alone, since events are pulled from the log. When the session
//! is over, what was under way is answered before the connection is closed.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::ws::{CloseFrame, Message};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, Sink, SinkExt as _, Stream, StreamExt as _};
use tokio::sync::mpsc;
use tokio::task::yield_now;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::error::{ApiError, Code};

/// How many replies may wait to be sent.
const REPLIES: usize = 64;

/// How often a client is asked whether it is there.
pub(crate) const PING: Duration = Duration::from_secs(20);

/// After how long a send is taken to have waited for the client.
const STUCK: Duration = Duration::from_millis(20);

/// How long the last words may take.
const FAREWELL: Duration = Duration::from_secs(2);

/// How long what is under way when the session is over may take to be answered.
const LAST_ANSWERS: Duration = Duration::from_secs(10);

/// What is borne from a client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// How many commands may be under way. With more it is not read from.
    pub(crate) commands: usize,
    /// How long they may be together, in bytes. One more is read as long as they are shorter.
    pub(crate) bytes: usize,
    /// How long it may say nothing at all, while it is read from.
    pub(crate) silence: Duration,
}

/// Why the connection is over, as the client is told.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum End {
    /// The client closed it, or vanished.
    ClientLeft,
    /// The session is over: 1000.
    SessionEnded,
    /// The server stops: 1001.
    Stopping,
    /// The same client has connected once more: 4412.
    Replaced,
    /// The client sent what is not UTF-8: 1007.
    BadText,
    /// The client sent a longer message than is accepted: 1009.
    TooLarge,
    /// The client has not been heard of for a while: 4408.
    Silent,
    /// The log cannot be read on; the error says why: 4409 ahead, 4410 trimmed, 1011 internal.
    LogError(ApiError),
}

/// What reading a message failed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReadFailure {
    /// It is not UTF-8.
    BadText,
    /// It is too long.
    TooLarge,
    /// The connection broke.
    Broken,
}

/// The events to send, in batches.
pub(crate) trait Events {
    /// The next ones; none when the session is over. Loses nothing when it is not waited for to the end.
    fn next(&mut self) -> impl Future<Output = Result<Option<Vec<Message>>, ApiError>> + Send;

    /// What is said last when the log cannot be read on, beside the code that the connection is closed with.
    fn bad_news(&self, error: &ApiError) -> Option<Message>;
}

/// Serves one client until either side has enough, and says why it ended. `carry_out` is called with each message, in their order, and answers
/// with messages, or not at all; what it does before it first waits is done in that order. `leave` says when it is over for another reason.
pub(crate) async fn serve<Socket, E, C, Answer>(
    socket: Socket,
    mut events: E,
    carry_out: C,
    bounds: Bounds,
    leave: impl Future<Output = End> + Send,
) -> End
where
    Socket: Stream<Item = Result<Message, ReadFailure>> + Sink<Message> + Send,
    E: Events + Send + Sync,
    C: Fn(Message) -> Option<Answer> + Sync,
    Answer: Future<Output = Vec<Message>> + Send,
{
    let (mut sink, stream) = socket.split();
    let (replies, outbox) = mpsc::channel(REPLIES);
    let heard = Heard::default();
    let over = CancellationToken::new();
    let end = {
        let reading = read(stream, &carry_out, replies, bounds, &heard, &over);
        let writing = write(&mut sink, &mut events, outbox, &heard, &over);
        tokio::select! {
            biased;
            end = reading => end,
            end = writing => end,
            () = heard.silence(bounds.silence) => End::Silent,
            end = leave => end,
        }
    };
    // A client that reads nothing cannot be told.
    let _ = timeout(FAREWELL, say_goodbye(&mut sink, &end, &events)).await;
    end
}

/// Carries out what the client says, until the session is over; then only what has begun.
async fn read<S, C, Answer>(
    stream: S,
    carry_out: &C,
    replies: mpsc::Sender<Vec<Message>>,
    bounds: Bounds,
    heard: &Heard,
    over: &CancellationToken,
) -> End
where
    S: Stream<Item = Result<Message, ReadFailure>>,
    C: Fn(Message) -> Option<Answer>,
    Answer: Future<Output = Vec<Message>> + Send,
{
    tokio::pin!(stream);
    let mut under_way = FuturesUnordered::new();
    let mut bytes = 0;
    while !over.is_cancelled() {
        let has_room = under_way.len() < bounds.commands && bytes < bounds.bytes;
        heard.listens(has_room);
        let message = tokio::select! {
            biased;
            Some((length, reply)) = under_way.next() => {
                bytes -= length;
                // The outbox is gone only when writing has ended, and with it all this.
                let _ = replies.send(reply).await;
                continue;
            }
            message = stream.next(), if has_room => message,
            () = over.cancelled() => break,
        };
        heard.now();
        match understand(message) {
            ControlFlow::Continue(message) => {
                let length = length(&message);
                let Some(answer) = carry_out(message) else {
                    continue;
                };
                let mut answer = Box::pin(answer);
                // Begun here, so that commands reach the session in the order in which they came.
                match (&mut answer).now_or_never() {
                    Some(reply) => drop(replies.send(reply).await),
                    None => {
                        bytes += length;
                        under_way.push(async move { (length, answer.await) });
                    }
                }
            }
            ControlFlow::Break(end) => return end,
        }
    }
    while let Some((_, reply)) = under_way.next().await {
        let _ = replies.send(reply).await;
    }
    // By this whoever writes knows that there is no more.
    drop(replies);
    std::future::pending().await
}

fn length(message: &Message) -> usize {
    match message {
        Message::Text(text) => text.len(),
        Message::Binary(bytes) | Message::Ping(bytes) | Message::Pong(bytes) => bytes.len(),
        Message::Close(_) => 0,
    }
}

fn understand(message: Option<Result<Message, ReadFailure>>) -> ControlFlow<End, Message> {
    match message {
        Some(Ok(Message::Close(_)) | Err(ReadFailure::Broken)) | None => {
            ControlFlow::Break(End::ClientLeft)
        }
        Some(Ok(message)) => ControlFlow::Continue(message),
        Some(Err(ReadFailure::BadText)) => ControlFlow::Break(End::BadText),
        Some(Err(ReadFailure::TooLarge)) => ControlFlow::Break(End::TooLarge),
    }
}

/// Sends replies, pings and events, in this order of importance.
async fn write<S, E>(
    sink: &mut S,
    events: &mut E,
    mut outbox: mpsc::Receiver<Vec<Message>>,
    heard: &Heard,
    over: &CancellationToken,
) -> End
where
    S: Sink<Message> + Unpin + Send,
    E: Events,
{
    let mut pings = interval_at(Instant::now() + PING, PING);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut batch: VecDeque<Message> = VecDeque::new();
    // Until when, once the session is over.
    let mut last_answers = None;
    loop {
        let messages = tokio::select! {
            biased;
            reply = outbox.recv() => match reply {
                Some(reply) => reply,
                None => return End::SessionEnded,
            },
            () = sleep_until(last_answers.unwrap_or_else(Instant::now)), if last_answers.is_some() => {
                return End::SessionEnded;
            }
            _ = pings.tick() => vec![Message::Ping(Bytes::new())],
            event = next_event(&mut batch, events), if last_answers.is_none() => match event {
                Ok(message) => vec![message],
                Err(End::SessionEnded) => {
                    over.cancel();
                    last_answers = Some(Instant::now() + LAST_ANSWERS);
                    continue;
                }
                Err(end) => return end,
            },
        };
        let began = Instant::now();
        for message in messages {
            let is_last = matches!(message, Message::Close(_));
            if sink.feed(message).await.is_err() || is_last && sink.flush().await.is_ok() {
                return End::ClientLeft;
            }
        }
        // Within a batch nothing is flushed: the sink does so by itself when it has enough.
        if batch.is_empty() && sink.flush().await.is_err() {
            return End::ClientLeft;
        }
        if began.elapsed() > STUCK {
            // It had to wait for room and got it: the client takes what it is given, however slowly. That is as good as
            // an answer, and pings must not take the room of events.
            heard.now();
            pings.reset();
        }
        if batch.is_empty() {
            // A flood to a fast client never waits; commands must get their turn.
            yield_now().await;
        }
    }
}

/// The next event, from the batch or else from the log. Nothing is lost when this is not waited for to the end.
async fn next_event<E: Events>(
    batch: &mut VecDeque<Message>,
    events: &mut E,
) -> Result<Message, End> {
    loop {
        if let Some(event) = batch.pop_front() {
            return Ok(event);
        }
        match events.next().await {
            Ok(Some(next)) => batch.extend(next),
            Ok(None) => return Err(End::SessionEnded),
            Err(error) => return Err(End::LogError(error)),
        }
    }
}

/// Says why the connection ends, as far as the client still listens.
async fn say_goodbye<S: Sink<Message> + Unpin>(sink: &mut S, end: &End, events: &impl Events) {
    let (code, reason) = match end {
        End::ClientLeft => {
            let _ = sink.close().await;
            return;
        }
        End::SessionEnded => (1000, "the session has ended".to_owned()),
        End::Stopping => (
            1001,
            "the server is stopping; come back with the last seq".to_owned(),
        ),
        End::Replaced => (
            4412,
            "another connection under this session_id has taken the place".to_owned(),
        ),
        End::BadText => (1007, "messages are UTF-8".to_owned()),
        End::TooLarge => (1009, "the message is too long".to_owned()),
        End::Silent => (4408, "nothing was heard for too long".to_owned()),
        End::LogError(error) => {
            // The reason of a close frame is too short for the facts.
            if let Some(message) = events.bad_news(error) {
                let _ = sink.feed(message).await;
            }
            let code = match error.code() {
                Code::EventsTrimmed => 4410,
                Code::CursorAhead | Code::OtherLog => 4409,
                _ => 1011,
            };
            (code, error.code().as_str().to_owned())
        }
    };
    let _ = sink
        .send(Message::Close(Some(CloseFrame {
            code,
            reason: reason.into(),
        })))
        .await;
    let _ = sink.close().await;
}

/// When the client was last heard of.
#[derive(Default)]
struct Heard(Mutex<Ear>);

struct Ear {
    last: Instant,
    /// Whether anything could be heard at all.
    listens: bool,
}

impl Default for Ear {
    fn default() -> Self {
        Self {
            last: Instant::now(),
            listens: true,
        }
    }
}

impl Heard {
    fn ear(&self) -> MutexGuard<'_, Ear> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) {
        self.ear().last = Instant::now();
    }

    /// The client is read from, or it is not: then its silence is ours.
    fn listens(&self, listens: bool) {
        let mut ear = self.ear();
        if listens && !ear.listens {
            ear.last = Instant::now();
        }
        ear.listens = listens;
    }

    /// Waits until the client has said nothing for so long.
    async fn silence(&self, limit: Duration) {
        loop {
            let now = Instant::now();
            let until = {
                let ear = self.ear();
                let since = if ear.listens { ear.last } else { now };
                since + limit
            };
            if until <= now {
                return;
            }
            sleep_until(until).await;
        }
    }
}

#[cfg(test)]
mod tests;
