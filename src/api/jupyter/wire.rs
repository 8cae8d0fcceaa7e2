//! Jupyter's messages as they go over a WebSocket, in both framings: JSON, which puts buffers behind it where there are some, and
//! `v1.kernel.websocket.jupyter.org`, in which header, parent, metadata and content lie side by side.
//!
//! What comes from a client is checked before anything is taken out of it: offsets ascend and lie within the message, and nothing is allocated
//! that the message has not brought.

use axum::body::Bytes;
use axum::extract::ws::{Message, Utf8Bytes};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The subprotocol of the second framing.
pub(crate) const V1: &str = "v1.kernel.websocket.jupyter.org";

/// The longest message of a client, in bytes.
pub(crate) const MESSAGE: usize = 32 * 1024 * 1024;

/// The most parts of a message: four, and buffers.
const PARTS: usize = 4096;

/// A JSON object.
pub(crate) type Object = Map<String, Value>;

/// How messages are put on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// JSON text; binary where there are buffers.
    Json,
    /// Binary, with a table of offsets.
    V1,
}

/// A channel of Jupyter's protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Channel {
    /// Requests, served in order.
    Shell,
    /// Requests that must not wait behind others.
    Control,
    /// The kernel asks the user.
    Stdin,
    /// What everybody sees.
    Iopub,
}

impl Channel {
    fn as_str(self) -> &'static str {
        match self {
            Self::Shell => "shell",
            Self::Control => "control",
            Self::Stdin => "stdin",
            Self::Iopub => "iopub",
        }
    }
}

/// A message.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Frame {
    /// On which channel.
    pub(crate) channel: Channel,
    /// Who says what.
    pub(crate) header: Object,
    /// The header of the message that caused it.
    pub(crate) parent: Object,
    /// Facts about it.
    pub(crate) metadata: Object,
    /// What it says.
    pub(crate) content: Object,
    /// Binary parts.
    pub(crate) buffers: Vec<Bytes>,
}

/// Why a message makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WireError {
    /// The table of offsets is not one.
    #[error("the offsets of the message make no sense")]
    Offsets,
    /// A part is not what it has to be.
    #[error("the message's {part} is not a JSON object: {why}")]
    Part {
        /// Which.
        part: &'static str,
        /// What is wrong.
        why: String,
    },
    /// There is no such channel.
    #[error("there is no channel `{0}`; there are `shell`, `control` and `stdin`")]
    Channel(String),
    /// Text in a framing that has none.
    #[error("messages of `{V1}` are binary")]
    Text,
}

impl Frame {
    /// The type of the message; empty if it says none.
    pub(crate) fn kind(&self) -> &str {
        text(&self.header, "msg_type")
    }
}

/// A text of an object; empty if there is none.
pub(crate) fn text<'a>(object: &'a Object, name: &str) -> &'a str {
    object.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// A message as JSON has it.
#[derive(Deserialize)]
struct JsonFrame {
    #[serde(default)]
    channel: Option<String>,
    header: Object,
    #[serde(default)]
    parent_header: Option<Object>,
    #[serde(default)]
    metadata: Option<Object>,
    #[serde(default)]
    content: Option<Object>,
}

impl Framing {
    /// Reads a message of a client.
    ///
    /// # Errors
    /// It makes no sense.
    pub(crate) fn decode(self, message: &Message) -> Result<Frame, WireError> {
        match (self, message) {
            (Self::Json, Message::Text(text)) => from_json(text.as_bytes(), Vec::new()),
            (Self::Json, Message::Binary(bytes)) => {
                let mut parts = parts_of_json(bytes)?.into_iter();
                let json = parts.next().ok_or(WireError::Offsets)?;
                from_json(&json, parts.collect())
            }
            (Self::V1, Message::Binary(bytes)) => from_v1(bytes),
            _ => Err(WireError::Text),
        }
    }

    /// Writes a message for a client.
    pub(crate) fn encode(self, frame: &Frame) -> Message {
        match self {
            Self::Json => to_json(frame),
            Self::V1 => to_v1(frame),
        }
    }
}

fn from_json(json: &[u8], buffers: Vec<Bytes>) -> Result<Frame, WireError> {
    let frame: JsonFrame = serde_json::from_slice(json).map_err(|error| WireError::Part {
        part: "text",
        why: error.to_string(),
    })?;
    // A message that names no channel is for the shell, says Jupyter's server.
    let channel = channel(frame.channel.as_deref().unwrap_or("shell"))?;
    Ok(Frame {
        channel,
        header: frame.header,
        parent: frame.parent_header.unwrap_or_default(),
        metadata: frame.metadata.unwrap_or_default(),
        content: frame.content.unwrap_or_default(),
        buffers,
    })
}

fn channel(name: &str) -> Result<Channel, WireError> {
    [
        Channel::Shell,
        Channel::Control,
        Channel::Stdin,
        Channel::Iopub,
    ]
    .into_iter()
    .find(|channel| channel.as_str() == name)
    .ok_or_else(|| WireError::Channel(name.chars().take(40).collect()))
}

/// The parts of a binary message of the JSON framing: their number and where each begins, 32 bits each, in the network's order.
fn parts_of_json(bytes: &Bytes) -> Result<Vec<Bytes>, WireError> {
    let word = |at: usize| {
        let four = bytes.get(4 * at..4 * at + 4)?;
        Some(u32::from_be_bytes(four.try_into().ok()?) as usize)
    };
    let count = word(0)
        .filter(|count| (1..=PARTS).contains(count))
        .ok_or(WireError::Offsets)?;
    let begins: Option<Vec<usize>> = (1..=count).map(word).collect();
    let mut edges = begins.ok_or(WireError::Offsets)?;
    edges.push(bytes.len());
    cut(bytes, &edges, 4 * (count + 1))
}

/// The pieces between edges, which ascend from `least` on.
fn cut(bytes: &Bytes, edges: &[usize], least: usize) -> Result<Vec<Bytes>, WireError> {
    let ascends = edges.is_sorted() && edges.first().is_some_and(|first| *first >= least);
    if !ascends || edges.last().is_none_or(|last| *last > bytes.len()) {
        return Err(WireError::Offsets);
    }
    Ok(edges
        .windows(2)
        .map(|edge| bytes.slice(edge[0]..edge[1]))
        .collect())
}

/// A message of the second framing: the number of offsets and the offsets, 64 bits each, little end first; then channel, header, parent, metadata,
/// content and buffers, each from its offset to the next.
fn from_v1(bytes: &Bytes) -> Result<Frame, WireError> {
    let word = |at: usize| {
        let eight = bytes.get(8 * at..8 * at + 8)?;
        usize::try_from(u64::from_le_bytes(eight.try_into().ok()?)).ok()
    };
    // Channel, four parts, and the end.
    let count = word(0)
        .filter(|count| (6..=PARTS + 2).contains(count))
        .ok_or(WireError::Offsets)?;
    let edges: Option<Vec<usize>> = (1..=count).map(word).collect();
    let parts = cut(bytes, &edges.ok_or(WireError::Offsets)?, 8 * (count + 1))?;
    let [name, header, parent, metadata, content, buffers @ ..] = parts.as_slice() else {
        return Err(WireError::Offsets);
    };
    Ok(Frame {
        channel: channel(&String::from_utf8_lossy(name))?,
        header: object(header, "header")?,
        parent: object(parent, "parent header")?,
        metadata: object(metadata, "metadata")?,
        content: object(content, "content")?,
        buffers: buffers.to_vec(),
    })
}

fn object(json: &[u8], part: &'static str) -> Result<Object, WireError> {
    let read: Result<Option<Object>, _> = serde_json::from_slice(json);
    match read {
        // `null` is what some clients say for nothing.
        Ok(object) => Ok(object.unwrap_or_default()),
        Err(error) => Err(WireError::Part {
            part,
            why: error.to_string(),
        }),
    }
}

/// A message as it is written in JSON: some clients look for its id and type outside of the header.
#[derive(Serialize)]
struct JsonOut<'a> {
    header: &'a Object,
    msg_id: &'a str,
    msg_type: &'a str,
    parent_header: &'a Object,
    metadata: &'a Object,
    content: &'a Object,
    buffers: [(); 0],
    channel: Channel,
}

fn to_json(frame: &Frame) -> Message {
    let message = JsonOut {
        header: &frame.header,
        msg_id: text(&frame.header, "msg_id"),
        msg_type: frame.kind(),
        parent_header: &frame.parent,
        metadata: &frame.metadata,
        content: &frame.content,
        buffers: [],
        channel: frame.channel,
    };
    let json = serde_json::to_string(&message).expect("a message has text keys only");
    if frame.buffers.is_empty() {
        return Message::Text(Utf8Bytes::from(json));
    }
    let count = frame.buffers.len() + 1;
    let mut offset = 4 * (count + 1);
    let total: usize = frame.buffers.iter().map(Bytes::len).sum();
    let mut bytes = Vec::with_capacity(offset + json.len() + total);
    let mut put = |number: usize| {
        let number = u32::try_from(number).expect("a message of a kernel is shorter than 4 GiB");
        bytes.extend_from_slice(&number.to_be_bytes());
    };
    put(count);
    put(offset);
    offset += json.len();
    for buffer in &frame.buffers[..frame.buffers.len() - 1] {
        put(offset);
        offset += buffer.len();
    }
    put(offset);
    bytes.extend_from_slice(json.as_bytes());
    for buffer in &frame.buffers {
        bytes.extend_from_slice(buffer);
    }
    Message::Binary(bytes.into())
}

fn to_v1(frame: &Frame) -> Message {
    let json = |object: &Object| {
        Bytes::from(serde_json::to_vec(object).expect("an object has text keys only"))
    };
    let mut parts = vec![
        Bytes::from_static(frame.channel.as_str().as_bytes()),
        json(&frame.header),
        json(&frame.parent),
        json(&frame.metadata),
        json(&frame.content),
    ];
    parts.extend(frame.buffers.iter().cloned());
    let mut offset = 8 * (parts.len() + 2);
    let total: usize = parts.iter().map(Bytes::len).sum();
    let mut bytes = Vec::with_capacity(offset + total);
    let mut put = |number: usize| bytes.extend_from_slice(&(number as u64).to_le_bytes());
    put(parts.len() + 1);
    put(offset);
    for part in &parts {
        offset += part.len();
        put(offset);
    }
    for part in &parts {
        bytes.extend_from_slice(part);
    }
    Message::Binary(bytes.into())
}

#[cfg(test)]
mod tests;
