//! A WebSocket client of a session.

use evercell::model::event::{Envelope, Event, Seq};
use evercell::model::id::CellId;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::server::{PATIENCE, TOKEN};
use super::transcript::transcript;

/// One who reads a session's log and sends commands.
pub struct Socket {
    stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// Every event that has come, in order.
    pub seen: Vec<Envelope>,
    /// Replies that have come and that nobody has taken.
    replies: Vec<Value>,
    next_ref: u64,
}

impl Socket {
    pub async fn open(address: &str, id: &str, after: Seq) -> Self {
        let url = format!("ws://{address}/v1/sessions/{id}/ws?after={after}");
        let mut request = url.into_client_request().unwrap();
        request
            .headers_mut()
            .insert("authorization", format!("Bearer {TOKEN}").parse().unwrap());
        let (stream, _) = timeout(PATIENCE, connect_async(request))
            .await
            .expect("the server answers")
            .unwrap();
        Self {
            stream,
            seen: Vec::new(),
            replies: Vec::new(),
            next_ref: 1,
        }
    }

    /// Sends a command and waits for its reply; events that come meanwhile are kept.
    pub async fn command(&mut self, mut command: Value) -> Value {
        let reference = self.next_ref.to_string();
        self.next_ref += 1;
        command["ref"] = json!(reference);
        self.stream
            .send(Message::text(command.to_string()))
            .await
            .unwrap();
        loop {
            if let Some(at) = self
                .replies
                .iter()
                .position(|reply| reply["ref"] == reference)
            {
                return self.replies.remove(at);
            }
            assert!(
                self.receive().await,
                "the server closed instead of replying to {command}"
            );
        }
    }

    /// Submits a cell.
    pub async fn execute(&mut self, code: &str) -> CellId {
        let reply = self.command(json!({ "op": "execute", "code": code })).await;
        assert_eq!(reply["ok"], true, "{reply}");
        reply["reply"]["cell"].as_str().unwrap().parse().unwrap()
    }

    /// Submits a cell and waits for its end.
    pub async fn run(&mut self, code: &str) -> CellId {
        let cell = self.execute(code).await;
        self.wait_until(
            |event| matches!(event, Event::CellFinished { cell: ended, .. } if *ended == cell),
        )
        .await;
        cell
    }

    /// Reads until such an event has come; it may have come before.
    pub async fn wait_until(&mut self, wanted: impl Fn(&Event) -> bool) {
        let mut looked = 0;
        let found = timeout(PATIENCE, async {
            loop {
                if self.seen[looked..]
                    .iter()
                    .any(|envelope| wanted(&envelope.event))
                {
                    return true;
                }
                looked = self.seen.len();
                if !self.receive().await {
                    return false;
                }
            }
        });
        let found = found.await;
        assert_eq!(
            found,
            Ok(true),
            "the event did not come; so far:\n{}",
            self.transcript()
        );
    }

    /// Reads one message; false at the end.
    pub async fn receive(&mut self) -> bool {
        let Ok(message) = timeout(PATIENCE, self.stream.next()).await else {
            panic!("nothing came; so far:\n{}", self.transcript());
        };
        match message {
            Some(Ok(Message::Text(text))) => {
                let value: Value = serde_json::from_str(&text).unwrap();
                if value.get("seq").is_some() {
                    self.seen.push(serde_json::from_value(value).unwrap());
                } else {
                    self.replies.push(value);
                }
                true
            }
            Some(Ok(Message::Close(_)) | Err(_)) | None => false,
            Some(Ok(_)) => true,
        }
    }

    /// Cuts the connection, without a word.
    pub fn cut(self) -> Vec<Envelope> {
        self.seen
    }

    /// The last position that was seen.
    pub fn position(&self) -> Seq {
        self.seen.last().map_or(0, |envelope| envelope.seq)
    }

    pub fn transcript(&self) -> String {
        transcript(&self.seen)
    }

    /// What a cell wrote, both streams together.
    pub fn text_of(&self, cell: CellId) -> String {
        let text = |envelope: &Envelope| match &envelope.event {
            Event::Stream {
                cell: Some(of),
                text,
                ..
            } if *of == cell => Some(text.clone()),
            _ => None,
        };
        self.seen.iter().filter_map(text).collect()
    }
}
