//! The life of a WebSocket, as a function over any sink and stream of messages: events out, commands in. What they look like is each front
//! end's own.
//!
//! Two loops in one task. The reading one carries out commands, also while the writing one waits for a slow client: an interrupt gets
//! through a flood. The writing one sends replies before events. Both are bounded: a client that sends more commands at once than
//! it may is not read from until some are answered; one that does not read delays itself alone, since events are pulled from the log.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::{Mutex, PoisonError};
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

/// How many commands of one client may be under way.
const COMMANDS: usize = 64;

/// How many replies may wait to be sent.
const REPLIES: usize = 64;

/// How often a client is asked whether it is there.
pub(crate) const PING: Duration = Duration::from_secs(20);

/// How long a client may say nothing at all.
pub(crate) const SILENCE: Duration = Duration::from_secs(60);

/// After how long a send is taken to have waited for the client.
const STUCK: Duration = Duration::from_millis(20);

/// How long the last words may take.
const FAREWELL: Duration = Duration::from_secs(2);

/// Why the connection is over, as the client is told.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum End {
    /// The client closed it, or vanished.
    ClientLeft,
    /// The session is over: 1000.
    SessionEnded,
    /// The server stops: 1001.
    Stopping,
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
/// with messages, or not at all; what it does before it first waits is done in that order.
pub(crate) async fn serve<Socket, E, C, Answer>(
    socket: Socket,
    mut events: E,
    carry_out: C,
    stopping: &CancellationToken,
) -> End
where
    Socket: Stream<Item = Result<Message, ReadFailure>> + Sink<Message> + Send,
    E: Events + Send + Sync,
    C: Fn(Message) -> Option<Answer> + Sync,
    Answer: Future<Output = Vec<Message>> + Send,
{
    let (mut sink, stream) = socket.split();
    let (replies, outbox) = mpsc::channel(REPLIES);
    let heard = Heard(Mutex::new(Instant::now()));
    let end = {
        let reading = read(stream, &carry_out, replies, &heard);
        let writing = write(&mut sink, &mut events, outbox, &heard);
        tokio::select! {
            biased;
            end = reading => end,
            end = writing => end,
            () = heard.silence() => End::Silent,
            () = stopping.cancelled() => End::Stopping,
        }
    };
    // A client that reads nothing cannot be told.
    let _ = timeout(FAREWELL, say_goodbye(&mut sink, &end, &events)).await;
    end
}

/// Carries out what the client says.
async fn read<S, C, Answer>(
    stream: S,
    carry_out: &C,
    replies: mpsc::Sender<Vec<Message>>,
    heard: &Heard,
) -> End
where
    S: Stream<Item = Result<Message, ReadFailure>>,
    C: Fn(Message) -> Option<Answer>,
    Answer: Future<Output = Vec<Message>> + Send,
{
    tokio::pin!(stream);
    let mut under_way = FuturesUnordered::new();
    loop {
        let message = tokio::select! {
            biased;
            Some(reply) = under_way.next() => {
                // The outbox is gone only when writing has ended, and with it all this.
                let _ = replies.send(reply).await;
                continue;
            }
            message = stream.next(), if under_way.len() < COMMANDS => message,
        };
        heard.now();
        match understand(message) {
            ControlFlow::Continue(message) => {
                let Some(answer) = carry_out(message) else {
                    continue;
                };
                let mut answer = Box::pin(answer);
                // Begun here, so that commands reach the session in the order in which they came.
                match (&mut answer).now_or_never() {
                    Some(reply) => drop(replies.send(reply).await),
                    None => under_way.push(answer),
                }
            }
            ControlFlow::Break(end) => return end,
        }
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
) -> End
where
    S: Sink<Message> + Unpin + Send,
    E: Events,
{
    let mut pings = interval_at(Instant::now() + PING, PING);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut batch: VecDeque<Message> = VecDeque::new();
    loop {
        let messages = tokio::select! {
            biased;
            Some(reply) = outbox.recv() => reply,
            _ = pings.tick() => vec![Message::Ping(Bytes::new())],
            event = next_event(&mut batch, events) => match event {
                Ok(message) => vec![message],
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
        End::BadText => (1007, "messages are UTF-8".to_owned()),
        End::TooLarge => (1009, "the message is too long".to_owned()),
        End::Silent => (4408, "nothing was heard for a minute".to_owned()),
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
struct Heard(Mutex<Instant>);

impl Heard {
    fn now(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Waits until the client has said nothing for too long.
    async fn silence(&self) {
        loop {
            let until = *self.0.lock().unwrap_or_else(PoisonError::into_inner) + SILENCE;
            if until <= Instant::now() {
                return;
            }
            sleep_until(until).await;
        }
    }
}

#[cfg(test)]
mod tests;
