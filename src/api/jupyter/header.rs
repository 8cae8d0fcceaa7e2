//! Headers of Jupyter's messages: ours, which follow from a position in the log, and those of clients, which the log keeps.

use std::sync::Arc;

use serde_json::{Value, json};

use super::time::iso;
use super::wire::{Channel, Frame, Object};
use crate::model::event::{Seq, UnixMillis};
use crate::model::id::{CellId, SessionId};
use crate::model::output::Metadata;

/// The version of Jupyter's messaging protocol.
pub(crate) const VERSION: &str = "5.4";

/// The longest header of a client that is kept, in bytes of JSON.
const HEADER: usize = 2048;

/// Whom a request came from, as the log keeps it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Client {
    /// The `session_id` of the connection; none where it came over another front end.
    pub(crate) connection: Option<Arc<str>>,
    /// The header of the message.
    pub(crate) header: Arc<Object>,
}

impl Client {
    /// What is kept of a request, so that everything it causes finds its way back, also after the server's restart.
    pub(crate) fn write(connection: &str, header: &Object) -> Metadata {
        let mut kept = header.clone();
        let is_long = |header: &Object| {
            serde_json::to_string(header).map_or(usize::MAX, |json| json.len()) > HEADER
        };
        if is_long(&kept) {
            // What a reply is told by. Whatever else is there is longer than a header is.
            kept.retain(|name, value| {
                let known = [
                    "msg_id", "msg_type", "session", "username", "version", "date",
                ];
                known.contains(&name.as_str())
                    && value.as_str().is_some_and(|text| text.len() <= 256)
            });
        }
        let mut client = Metadata::new();
        client.insert("connection".to_owned(), json!(connection));
        client.insert("header".to_owned(), Value::Object(kept));
        client
    }

    /// What was kept of it.
    pub(crate) fn read(client: Option<&Metadata>) -> Option<Self> {
        let client = client?;
        Some(Self {
            connection: Some(client.get("connection")?.as_str()?.into()),
            header: Arc::new(client.get("header")?.as_object()?.clone()),
        })
    }
}

/// Who speaks for a session. Ids and dates of what is said follow from the log, so that whoever is told twice can see it.
#[derive(Clone, Debug)]
pub(crate) struct Speaker {
    session: String,
    seq: Seq,
    at: String,
    said: u32,
}

impl Speaker {
    /// For this session.
    pub(crate) fn new(session: &SessionId) -> Self {
        Self {
            session: session.to_string(),
            seq: 0,
            at: iso(0),
            said: 0,
        }
    }

    /// What is said from now on is said of this event.
    pub(crate) fn at(&mut self, seq: Seq, at_ms: UnixMillis) {
        self.seq = seq;
        self.at = iso(at_ms);
        self.said = 0;
    }

    /// A message.
    pub(crate) fn frame(
        &mut self,
        channel: Channel,
        kind: &str,
        parent: &Object,
        content: Value,
    ) -> Frame {
        let id = format!("{}_{}_{}", self.session, self.seq, self.said);
        self.said += 1;
        frame(&self.session, id, &self.at, channel, kind, parent, content)
    }

    /// What the kernel is doing.
    pub(crate) fn status(&mut self, state: &str, parent: &Object) -> Frame {
        let content = json!({"execution_state": state});
        self.frame(Channel::Iopub, "status", parent, content)
    }

    /// Stands for the request of a cell that did not come from a Jupyter client.
    pub(crate) fn stranger(&self, cell: CellId, origin: Option<&str>, at_ms: UnixMillis) -> Client {
        self.made_up(&cell.to_string(), "execute_request", origin, at_ms)
    }

    /// Stands for a comm message that did not come from a Jupyter client.
    pub(crate) fn anonymous(&self, seq: Seq, at_ms: UnixMillis) -> Client {
        let id = format!("{}_{seq}", self.session);
        self.made_up(&id, "comm_msg", None, at_ms)
    }

    fn made_up(&self, id: &str, kind: &str, origin: Option<&str>, at_ms: UnixMillis) -> Client {
        let header = header(
            id,
            kind,
            &self.session,
            origin.unwrap_or("evercell"),
            &iso(at_ms),
        );
        Client {
            connection: None,
            header: Arc::new(header),
        }
    }
}

/// A message of the server's own, of which nothing is in the log.
pub(crate) fn answer(
    session: &SessionId,
    channel: Channel,
    kind: &str,
    parent: &Object,
    content: Value,
) -> Frame {
    let id = uuid::Uuid::new_v4().to_string();
    let now = iso(super::time::now_ms());
    frame(session.as_str(), id, &now, channel, kind, parent, content)
}

fn frame(
    session: &str,
    id: String,
    at: &str,
    channel: Channel,
    kind: &str,
    parent: &Object,
    content: Value,
) -> Frame {
    let Value::Object(content) = content else {
        unreachable!("a content is an object")
    };
    Frame {
        channel,
        header: header(&id, kind, session, "evercell", at),
        parent: parent.clone(),
        metadata: Object::new(),
        content,
        buffers: Vec::new(),
    }
}

fn header(id: &str, kind: &str, session: &str, username: &str, date: &str) -> Object {
    let header = json!({
        "msg_id": id,
        "msg_type": kind,
        "session": session,
        "username": username,
        "date": date,
        "version": VERSION,
    });
    match header {
        Value::Object(header) => header,
        _ => unreachable!("this is an object"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_of_a_client_is_read_as_it_was() {
        let header = json!({"msg_id": "m", "session": "s", "extra": {"subshell": null}});
        let header = header.as_object().unwrap();
        let client = Client::read(Some(&Client::write("c", header))).unwrap();
        assert_eq!(client.connection.as_deref(), Some("c"));
        assert_eq!(*client.header, *header);
    }

    #[test]
    fn a_header_that_is_too_long_keeps_what_replies_are_told_by() {
        let header = json!({"msg_id": "m", "date": "x".repeat(300), "extra": "x".repeat(9000)});
        let client = Client::write("c", header.as_object().unwrap());
        assert_eq!(client["header"], json!({"msg_id": "m"}));
    }
}
