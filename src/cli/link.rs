//! A session's events as one unbroken sequence, whatever happens to connections: each event once, each command until it is answered.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, anyhow};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_tungstenite::tungstenite::Message;

use super::client::{Refusal, Server, Socket};
use crate::model::event::{Envelope, Seq};
use crate::model::id::SessionId;

/// What comes over a link.
#[derive(Debug)]
pub(super) enum Incoming {
    /// The next event.
    Event(Box<Envelope>),
    /// The answer to a command: its number, and what came of it or why not.
    Reply(u64, Result<Value, String>),
    /// The connection broke; it is tried again.
    Lost,
    /// It is there again.
    Back,
    /// The session is over, and all of its log has come. Nothing more comes.
    Ended,
    /// The connection is not to be had again. Nothing more comes.
    Failed(anyhow::Error),
}

/// A session's events and commands.
#[derive(Debug)]
pub(super) struct Link {
    commands: mpsc::Sender<(u64, Value)>,
    incoming: mpsc::Receiver<Incoming>,
    next_ref: u64,
    task: JoinHandle<()>,
}

/// How long a lost connection is tried again.
const PATIENCE: Duration = Duration::from_secs(300);
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(2);
/// How often the server is asked for a sign of life, and how long it may give none.
const PING: Duration = Duration::from_secs(20);
const SILENCE: Duration = Duration::from_secs(65);

impl Link {
    /// Connects to a session's events after a position.
    pub(super) async fn open(server: Server, session: SessionId, after: Seq) -> Result<Self> {
        let socket = match server.connect(&session, after).await {
            Ok(socket) => socket,
            Err(Refusal::ForNow(error) | Refusal::ForGood(error)) => return Err(error),
        };
        let (commands, asked) = mpsc::channel(16);
        let (out, incoming) = mpsc::channel(64);
        let mut wire = Wire {
            server,
            session,
            after,
            asked,
            out,
            unanswered: BTreeMap::new(),
            last_words: None,
        };
        let task = tokio::spawn(async move {
            if let Err(error) = wire.run(socket).await {
                // Nobody listens any more when this fails.
                let _ = wire.out.send(Incoming::Failed(error)).await;
            }
        });
        Ok(Self {
            commands,
            incoming,
            next_ref: 0,
            task,
        })
    }

    /// Sends a command, again after every broken connection until it is answered, and returns its number.
    ///
    /// So a command has to be one that does no harm when it is carried out twice.
    pub(super) async fn send(&mut self, mut command: Value) -> u64 {
        self.next_ref += 1;
        command["ref"] = json!(self.next_ref.to_string());
        // The task has ended only after it said `Failed`, which is read next.
        let _ = self.commands.send((self.next_ref, command)).await;
        self.next_ref
    }

    /// What comes next.
    pub(super) async fn next(&mut self) -> Incoming {
        let next = self.incoming.recv().await;
        next.unwrap_or_else(|| Incoming::Failed(anyhow!("the connection was closed")))
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Wire {
    server: Server,
    session: SessionId,
    after: Seq,
    asked: mpsc::Receiver<(u64, Value)>,
    out: mpsc::Sender<Incoming>,
    unanswered: BTreeMap<u64, Value>,
    /// Why the server is about to close, as it said.
    last_words: Option<String>,
}

/// Why a connection is over.
enum Over {
    /// Nobody listens to us any more.
    Done,
    /// The session is over.
    Ended,
    Broken,
}

impl Wire {
    async fn run(&mut self, mut socket: Socket) -> Result<()> {
        loop {
            match self.pump(&mut socket).await? {
                Over::Done => {
                    // A server sees us go; if it cannot be told, it finds out by itself.
                    let _ = socket.close(None).await;
                    return Ok(());
                }
                Over::Ended => {
                    let _ = self.out.send(Incoming::Ended).await;
                    return Ok(());
                }
                Over::Broken => {
                    let _ = self.out.send(Incoming::Lost).await;
                    socket = self.reconnect().await?;
                    let _ = self.out.send(Incoming::Back).await;
                }
            }
        }
    }

    async fn reconnect(&self) -> Result<Socket> {
        let since = Instant::now();
        let mut pause = RETRY_MIN;
        loop {
            match self.server.connect(&self.session, self.after).await {
                Ok(socket) => return Ok(socket),
                Err(Refusal::ForGood(error)) => return Err(error),
                Err(Refusal::ForNow(error)) if since.elapsed() > PATIENCE => return Err(error),
                Err(Refusal::ForNow(_)) => {}
            }
            sleep(pause).await;
            pause = (pause * 2).min(RETRY_MAX);
        }
    }

    /// Carries messages both ways until one side is over.
    async fn pump(&mut self, socket: &mut Socket) -> Result<Over> {
        for command in self.unanswered.values() {
            if socket
                .send(Message::text(command.to_string()))
                .await
                .is_err()
            {
                return Ok(Over::Broken);
            }
        }
        let mut pings = interval(PING);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = Instant::now();
        loop {
            tokio::select! {
                message = socket.next() => {
                    heard = Instant::now();
                    match message {
                        Some(Ok(Message::Text(text))) => {
                            let Some(incoming) = self.understand(&text)? else { continue };
                            // A terminal that is slow holds up only us.
                            if self.out.send(incoming).await.is_err() {
                                return Ok(Over::Done);
                            }
                        }
                        Some(Ok(Message::Close(Some(frame)))) => return self.closed(u16::from(frame.code)),
                        Some(Ok(Message::Close(None)) | Err(_)) | None => return Ok(Over::Broken),
                        Some(Ok(_)) => {}
                    }
                }
                command = self.asked.recv() => {
                    let Some((number, command)) = command else { return Ok(Over::Done) };
                    let sent = socket.send(Message::text(command.to_string())).await;
                    self.unanswered.insert(number, command);
                    if sent.is_err() {
                        return Ok(Over::Broken);
                    }
                }
                _ = pings.tick() => {
                    if heard.elapsed() > SILENCE || socket.send(Message::Ping(Vec::new().into())).await.is_err() {
                        return Ok(Over::Broken);
                    }
                }
            }
        }
    }

    /// What the server's last word means: `docs/api.md` lists the codes.
    fn closed(&mut self, code: u16) -> Result<Over> {
        match code {
            1000 => Ok(Over::Ended),
            // There is no such position in the log; what went before says which there are.
            4409 | 4410 => {
                Err(anyhow!(self.last_words.take().unwrap_or_else(|| format!(
                    "the server closed with {code}"
                ))))
            }
            _ => Ok(Over::Broken),
        }
    }

    fn understand(&mut self, text: &str) -> Result<Option<Incoming>> {
        let message: Value = serde_json::from_str(text).map_err(|_| self.nonsense())?;
        if let Some(seq) = message["seq"].as_u64() {
            // A log has no gaps, but its beginning may have been trimmed. What came before a connection broke does not come again.
            if seq <= self.after {
                return Ok(None);
            }
            self.after = seq;
            // A newer server may have events that this client does not know.
            return Ok(serde_json::from_value(message)
                .ok()
                .map(|event| Incoming::Event(Box::new(event))));
        }
        if message["ok"].is_null() {
            self.last_words = message["error"]["message"].as_str().map(str::to_owned);
        }
        let Some(number) = message["ref"].as_str().and_then(|text| text.parse().ok()) else {
            return Ok(None);
        };
        self.unanswered.remove(&number);
        let outcome = if message["ok"] == Value::Bool(true) {
            Ok(message["reply"].clone())
        } else {
            Err(message["error"]["message"]
                .as_str()
                .unwrap_or("no reason was given")
                .to_owned())
        };
        Ok(Some(Incoming::Reply(number, outcome)))
    }

    fn nonsense(&self) -> anyhow::Error {
        anyhow!(
            "`{}` does not speak like an evercell server",
            self.server.url()
        )
    }
}
