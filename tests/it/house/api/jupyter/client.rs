//! A client of Jupyter's, in either framing, that writes down what it is told.

use std::fmt::Write as _;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Bytes, Message};

use super::super::TOKEN;
use super::super::socket::Stream;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Framing {
    Json,
    V1,
}

/// A client that is connected to a kernel.
pub struct Lab {
    stream: Stream,
    framing: Framing,
    sent: usize,
    name: String,
}

impl Lab {
    pub async fn connect(address: &str, kernel: &str, name: &str) -> Self {
        Self::connect_with(address, kernel, name, Framing::Json).await
    }

    pub async fn connect_with(address: &str, kernel: &str, name: &str, framing: Framing) -> Self {
        let url =
            format!("ws://{address}/api/kernels/{kernel}/channels?session_id={name}&token={TOKEN}");
        let mut request = url.into_client_request().unwrap();
        if framing == Framing::V1 {
            let protocol = "v1.kernel.websocket.jupyter.org".parse().unwrap();
            request
                .headers_mut()
                .insert("sec-websocket-protocol", protocol);
        }
        let (stream, _) = connect_async(request).await.unwrap();
        Self {
            stream,
            framing,
            sent: 0,
            name: name.to_owned(),
        }
    }

    /// Sends a request on the shell; returns its id.
    pub async fn send(&mut self, kind: &str, content: Value) -> String {
        self.send_on("shell", kind, content).await
    }

    pub async fn send_on(&mut self, channel: &str, kind: &str, content: Value) -> String {
        self.sent += 1;
        let id = format!("{}-{}-{:?}", self.name, self.sent, self.framing);
        let header = json!({"msg_id": id, "msg_type": kind, "session": self.name});
        let message = match self.framing {
            Framing::Json => {
                let message = json!({"channel": channel, "header": header, "parent_header": {}, "metadata": {}, "content": content});
                Message::text(message.to_string())
            }
            Framing::V1 => Message::binary(pack(channel, &[header, json!({}), json!({}), content])),
        };
        self.stream.send(message).await.unwrap();
        id
    }

    pub async fn send_text(&mut self, text: &str) {
        self.stream.send(Message::text(text)).await.unwrap();
    }

    pub async fn send_bytes(&mut self, bytes: &'static [u8]) {
        let message = Message::binary(Bytes::from_static(bytes));
        self.stream.send(message).await.unwrap();
    }

    /// Runs a cell, and returns what was told of it.
    pub async fn run(&mut self, code: &str) -> String {
        self.run_request("execute_request", json!({"code": code}))
            .await
    }

    pub async fn run_request(&mut self, kind: &str, content: Value) -> String {
        let id = self.send(kind, content).await;
        self.until_idle(&id).await
    }

    /// Reads until the kernel is idle with a request.
    pub async fn until_idle(&mut self, id: &str) -> String {
        let mut told = String::new();
        loop {
            let line = self.line().await;
            writeln!(told, "{line}").unwrap();
            if line.starts_with(id) && line.contains("\"idle\"") {
                return told;
            }
        }
    }

    /// Reads until the kernel is idle with all of these requests, in whatever order; what was told of each.
    pub async fn until_all_idle(&mut self, ids: &[String]) -> Vec<String> {
        let mut told = vec![String::new(); ids.len()];
        let mut left = ids.len();
        while left > 0 {
            let line = self.line().await;
            let parent = line.split(' ').next();
            if let Some(n) = ids.iter().position(|id| Some(id.as_str()) == parent) {
                writeln!(told[n], "{line}").unwrap();
                left -= usize::from(line.contains("\"idle\""));
            }
        }
        told
    }

    /// Reads until a message that has this in it; returns that one.
    pub async fn until(&mut self, what: &str) -> String {
        loop {
            let line = self.line().await;
            if line.contains(what) {
                return line;
            }
        }
    }

    /// Reads to the end; returns the code that the server closed with.
    pub async fn closed(&mut self) -> u16 {
        loop {
            match self.stream.next().await {
                Some(Ok(Message::Close(Some(frame)))) => return frame.code.into(),
                Some(Ok(_)) => {}
                other => panic!("the server says why it closes: {other:?}"),
            }
        }
    }

    /// Is gone, without a word.
    pub async fn cut(self) {
        drop(self.stream);
    }

    /// A message: its parent's id, channel, type and content.
    async fn line(&mut self) -> String {
        let message = loop {
            match self
                .stream
                .next()
                .await
                .expect("the connection is open")
                .unwrap()
            {
                Message::Text(text) => break serde_json::from_str::<Value>(&text).unwrap(),
                Message::Binary(bytes) => break unpack(&bytes),
                _ => {}
            }
        };
        format!(
            "{} {} {} {}",
            message["parent_header"]["msg_id"].as_str().unwrap_or("-"),
            message["channel"].as_str().unwrap(),
            message["header"]["msg_type"].as_str().unwrap(),
            message["content"],
        )
    }
}

fn pack(channel: &str, parts: &[Value]) -> Vec<u8> {
    let mut pieces = vec![channel.as_bytes().to_vec()];
    pieces.extend(parts.iter().map(|part| part.to_string().into_bytes()));
    let mut offset = 8 * (pieces.len() + 2);
    let mut message = ((pieces.len() + 1) as u64).to_le_bytes().to_vec();
    message.extend_from_slice(&(offset as u64).to_le_bytes());
    for piece in &pieces {
        offset += piece.len();
        message.extend_from_slice(&(offset as u64).to_le_bytes());
    }
    message.extend(pieces.concat());
    message
}

fn unpack(bytes: &[u8]) -> Value {
    let word = |at: usize| {
        let eight = bytes[8 * at..8 * at + 8].try_into().unwrap();
        usize::try_from(u64::from_le_bytes(eight)).unwrap()
    };
    let part = |n: usize| &bytes[word(n + 1)..word(n + 2)];
    let json = |n: usize| serde_json::from_slice::<Value>(part(n)).unwrap();
    json!({
        "channel": String::from_utf8_lossy(part(0)),
        "header": json(1),
        "parent_header": json(2),
        "metadata": json(3),
        "content": json(4),
    })
}
