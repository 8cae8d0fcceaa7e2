//! What clients ask for, and how it is answered: cells and comm messages go to the session, and the log tells what became of them; everything else is
//! answered here, between a `busy` and an `idle` that only the asker sees.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::ws::Message;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::BoxFuture;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::clients::Connection;
use super::feed::Busy;
use super::header::{Client, VERSION, answer};
use super::history;
use super::kernels;
use super::room::{Room, Submitted};
use super::wire::{Channel, Frame, Framing, Object, text};
use crate::api::Api;
use crate::api::error::ApiError;
use crate::model::event::{CommAction, CommMessage};
use crate::model::id::SessionId;
use crate::session::{CellRequest, InputAnswer, SessionError, SessionHandle};

/// Where a client's requests arrive.
#[derive(Clone, Debug)]
pub(crate) struct Desk(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    api: Api,
    session: SessionHandle,
    connection: Arc<Connection>,
    framing: Framing,
    busy: Busy,
    /// Held by whoever submits a cell or a comm message: they reach the session in the order in which they came.
    turn: Mutex<Room>,
}

/// Why a request is not answered as it was meant: as an exception, since Jupyter knows no other way.
struct Refusal {
    ename: String,
    evalue: String,
}

impl From<SessionError> for Refusal {
    fn from(error: SessionError) -> Self {
        ApiError::from(error).into()
    }
}

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        Self {
            ename: error.code().as_str().to_owned(),
            evalue: error.message().to_owned(),
        }
    }
}

impl Refusal {
    fn bad(why: impl ToString) -> Self {
        Self {
            ename: "bad_request".to_owned(),
            evalue: why.to_string(),
        }
    }

    fn content(&self) -> Value {
        json!({
            "status": "error",
            "ename": self.ename,
            "evalue": self.evalue,
            "traceback": [format!("{}: {}", self.ename, self.evalue)],
        })
    }
}

/// The content of an `execute_request`.
#[derive(Deserialize)]
struct Execute {
    code: String,
    #[serde(default)]
    silent: bool,
    store_history: Option<bool>,
    #[serde(default)]
    user_expressions: Option<BTreeMap<String, String>>,
    #[serde(default)]
    allow_stdin: bool,
    stop_on_error: Option<bool>,
}

/// The content of a request about a place in a source.
#[derive(Deserialize)]
struct AtCursor {
    code: String,
    cursor_pos: Option<u64>,
    #[serde(default)]
    detail_level: u8,
}

impl AtCursor {
    fn cursor(&self) -> u64 {
        self.cursor_pos
            .unwrap_or_else(|| self.code.chars().count() as u64)
    }
}

/// The content of a comm message.
#[derive(Deserialize)]
struct Comm {
    comm_id: String,
    target_name: Option<String>,
    #[serde(default)]
    data: Value,
}

impl Desk {
    /// A desk for one connection.
    pub(crate) fn new(
        api: Api,
        session: SessionHandle,
        connection: Arc<Connection>,
        framing: Framing,
        busy: Busy,
    ) -> Self {
        Self(Arc::new(Shared {
            turn: Mutex::new(Room::new(session.clone())),
            api,
            session,
            connection,
            framing,
            busy,
        }))
    }

    /// Takes a message; what it is answered with.
    pub(crate) fn take(&self, message: Message) -> Option<BoxFuture<'static, Vec<Message>>> {
        let desk = self.0.clone();
        match message {
            Message::Pong(position) => {
                if let Ok(position) = <[u8; 8]>::try_from(position.as_ref()) {
                    desk.connection.saw(u64::from_be_bytes(position));
                }
                None
            }
            Message::Ping(_) | Message::Close(_) => None,
            message => match desk.framing.decode(&message) {
                Ok(frame) => Some(Box::pin(async move { desk.serve(frame).await })),
                Err(error) => {
                    tracing::debug!(session.id = %desk.session.id(), error = %error, "a Jupyter client sent nonsense");
                    let close = super::close(1007, &error.to_string());
                    Some(Box::pin(async { vec![close] }))
                }
            },
        }
    }
}

impl Shared {
    async fn serve(&self, frame: Frame) -> Vec<Message> {
        let kind = frame.kind().to_owned();
        match (frame.channel, kind.as_str()) {
            (Channel::Stdin, "input_reply") => {
                let value = frame.content.get("value").and_then(Value::as_str);
                let value = value.map(str::to_owned);
                let answered = self.session.answer_input(InputAnswer {
                    request: None,
                    value,
                });
                // An answer that nobody waits for any more is nobody's.
                let _ = answered.await;
                Vec::new()
            }
            // What only a kernel says.
            (Channel::Stdin | Channel::Iopub, _) => Vec::new(),
            (_, "execute_request") => match self.execute(&frame).await {
                Ok(Submitted::Accepted) => Vec::new(),
                Ok(Submitted::Aborted) => {
                    self.framed(&frame, "execute_reply", json!({"status": "aborted"}))
                }
                Err(refusal) => self.refuse_cell(&frame, &refusal),
            },
            (_, "comm_open" | "comm_msg" | "comm_close") => match self.comm(&frame, &kind).await {
                Ok(()) => Vec::new(),
                Err(refusal) => self.refuse_comm(&frame, &kind, &refusal),
            },
            (_, kind) => match kind.strip_suffix("_request") {
                Some(name) => {
                    let content = match self.answer(name, &frame).await {
                        Ok(content) => content,
                        Err(refusal) => refusal.content(),
                    };
                    let mut messages = self.framed(&frame, &format!("{name}_reply"), content);
                    if name == "shutdown" && !is_restart(&frame) {
                        messages.push(super::close(1000, "the kernel was shut down"));
                    }
                    messages
                }
                // As ipykernel does with a type that it does not know.
                None => Vec::new(),
            },
        }
    }

    async fn answer(&self, name: &str, frame: &Frame) -> Result<Value, Refusal> {
        let content = || Value::Object(frame.content.clone());
        match name {
            "kernel_info" => {
                self.session.started().await;
                Ok(kernel_info(&self.session.view().python))
            }
            "complete" => {
                let at: AtCursor = serde_json::from_value(content()).map_err(Refusal::bad)?;
                let cursor = at.cursor();
                let found = self.between_cells().await.complete(at.code, cursor).await?;
                let (start, end) = (found.start, found.end);
                let texts: Vec<&str> = found.matches.iter().map(|one| one.text.as_str()).collect();
                let typed = |one: &crate::session::Completion| {
                    let kind = if one.type_name.is_empty() {
                        "<unknown>"
                    } else {
                        &one.type_name
                    };
                    json!({"text": one.text, "type": kind, "start": start, "end": end})
                };
                let typed: Vec<Value> = found.matches.iter().map(typed).collect();
                Ok(json!({
                    "status": "ok",
                    "matches": texts,
                    "cursor_start": start,
                    "cursor_end": end,
                    "metadata": {"_jupyter_types_experimental": typed},
                }))
            }
            "inspect" => {
                let at: AtCursor = serde_json::from_value(content()).map_err(Refusal::bad)?;
                let (cursor, detail) = (at.cursor(), at.detail_level.min(1));
                let found = self
                    .between_cells()
                    .await
                    .inspect(at.code, cursor, detail)
                    .await?;
                Ok(
                    json!({"status": "ok", "found": found.found, "data": found.data, "metadata": {}}),
                )
            }
            "is_complete" => {
                let code = text(&frame.content, "code").to_owned();
                Ok(self.between_cells().await.is_complete(code).await?)
            }
            "comm_info" => {
                let found = self.between_cells().await.comm_info().await?;
                let target = frame.content.get("target_name").and_then(Value::as_str);
                let all = found["comms"].as_object().into_iter().flatten();
                let comms: Object = all
                    .filter(|(_, name)| target.is_none_or(|target| name.as_str() == Some(target)))
                    .map(|(id, name)| (id.clone(), json!({"target_name": name})))
                    .collect();
                Ok(json!({"status": "ok", "comms": comms}))
            }
            "history" => {
                let wanted = serde_json::from_value(content()).map_err(Refusal::bad)?;
                let found = history::find(&self.api.sessions, self.session.id(), &wanted).await?;
                Ok(json!({"status": "ok", "history": found}))
            }
            // Its sockets are not to be reached from here, and a reply may leave them out.
            "connect" => Ok(json!({"status": "ok"})),
            "interrupt" => {
                self.session.interrupt(None).await?;
                Ok(json!({"status": "ok"}))
            }
            "shutdown" => {
                if is_restart(frame) {
                    self.session.restart().await?;
                } else {
                    // On its own: the session's end is that of this connection, and what is left is removed all the same.
                    let (api, id) = (self.api.clone(), self.session.id().clone());
                    let removing = tokio::spawn(async move { kernels::remove(&api, &id).await });
                    removing.await.map_err(Refusal::bad)??;
                }
                Ok(json!({"status": "ok", "restart": is_restart(frame)}))
            }
            "debug" => Ok(json!({
                "type": "response",
                "request_seq": frame.content.get("seq"),
                "command": frame.content.get("command"),
                "success": false,
                "message": "this kernel has no debugger",
                "body": {},
                "seq": 0,
            })),
            other => Err(Refusal::bad(format!(
                "this kernel knows no `{other}_request`"
            ))),
        }
    }

    /// Whom to ask what the kernel answers between cells: after the one that runs, as in the queue of the shell.
    async fn between_cells(&self) -> SessionHandle {
        self.session.started().await;
        self.session.patient()
    }

    async fn execute(&self, frame: &Frame) -> Result<Submitted, Refusal> {
        let content = Value::Object(frame.content.clone());
        let execute: Execute = serde_json::from_value(content).map_err(Refusal::bad)?;
        let request = CellRequest {
            silent: execute.silent,
            store_history: execute.store_history.unwrap_or(!execute.silent),
            // Nobody sees that a silent one has failed.
            stop_on_error: execute.stop_on_error.unwrap_or(true) && !execute.silent,
            allow_stdin: execute.allow_stdin,
            user_expressions: execute.user_expressions.unwrap_or_default(),
            client: Some(Client::write(&self.connection.name, &frame.header)),
            ..CellRequest::new(execute.code)
        };
        let arrived = self.session.log().head();
        let mut room = self.turn.lock().await;
        Ok(room.submit(request, arrived).await?)
    }

    async fn comm(&self, frame: &Frame, kind: &str) -> Result<(), Refusal> {
        let content = Value::Object(frame.content.clone());
        let comm: Comm = serde_json::from_value(content).map_err(Refusal::bad)?;
        let message = CommMessage {
            comm: match kind {
                "comm_open" => CommAction::Open,
                "comm_msg" => CommAction::Msg,
                _ => CommAction::Close,
            },
            comm_id: comm.comm_id,
            target_name: comm.target_name.filter(|_| kind == "comm_open"),
            data: comm.data,
            metadata: frame.metadata.clone(),
            buffers: frame
                .buffers
                .iter()
                .map(|buffer| STANDARD.encode(buffer))
                .collect(),
        };
        let client = Client::write(&self.connection.name, &frame.header);
        let _turn = self.turn.lock().await;
        self.session.started().await;
        Ok(self.session.comm(message, Some(client)).await?)
    }

    // --- saying it -------------------------------------------------------------------------------------------------

    fn say(&self, channel: Channel, kind: &str, parent: &Object, content: Value) -> Message {
        let frame = answer(self.session.id(), channel, kind, parent, content);
        self.framing.encode(&frame)
    }

    fn status(&self, state: &str, parent: &Object) -> Message {
        let content = json!({"execution_state": state});
        self.say(Channel::Iopub, "status", parent, content)
    }

    /// A reply as a kernel frames it. While a cell runs, its client must not take the `idle` for that cell's.
    fn framed(&self, frame: &Frame, kind: &str, content: Value) -> Vec<Message> {
        let parent = &frame.header;
        let mut messages = vec![
            self.status("busy", parent),
            self.say(frame.channel, kind, parent, content),
            self.status("idle", parent),
        ];
        if let Some(running) = self.busy.with() {
            messages.push(self.status("busy", &running));
        }
        messages
    }

    fn refuse_cell(&self, frame: &Frame, refusal: &Refusal) -> Vec<Message> {
        let content = refusal.content();
        let error = json!({
            "ename": content["ename"],
            "evalue": content["evalue"],
            "traceback": content["traceback"],
        });
        let error = self.say(Channel::Iopub, "error", &frame.header, error);
        let mut reply = content;
        reply["execution_count"] = json!(self.session.view().execution_count);
        let mut messages = self.framed(frame, "execute_reply", reply);
        messages.insert(1, error);
        messages
    }

    fn refuse_comm(&self, frame: &Frame, kind: &str, refusal: &Refusal) -> Vec<Message> {
        tracing::debug!(session.id = %self.session.id(), why = %refusal.evalue, "a comm message was refused");
        let parent = &frame.header;
        let mut messages = vec![self.status("busy", parent)];
        if kind == "comm_open" {
            let content = json!({"comm_id": text(&frame.content, "comm_id"), "data": {}});
            messages.push(self.say(Channel::Iopub, "comm_close", parent, content));
        }
        messages.push(self.status("idle", parent));
        messages
    }
}

fn is_restart(frame: &Frame) -> bool {
    frame
        .content
        .get("restart")
        .is_some_and(|restart| *restart == Value::Bool(true))
}

/// What a kernel says of itself.
fn kernel_info(python: &str) -> Value {
    json!({
        "status": "ok",
        "protocol_version": VERSION,
        "implementation": "evercell",
        "implementation_version": env!("CARGO_PKG_VERSION"),
        "language_info": {
            "name": "python",
            "version": python,
            "mimetype": "text/x-python",
            "codemirror_mode": {"name": "ipython", "version": 3},
            "pygments_lexer": "ipython3",
            "nbconvert_exporter": "python",
            "file_extension": ".py",
        },
        "banner": format!("Python {python} in an Evercell session"),
        "help_links": [],
        "debugger": false,
        "supported_features": [],
    })
}

/// The id of a kernel that a client asks for.
pub(crate) fn new_kernel() -> SessionId {
    let id = uuid::Uuid::new_v4().to_string();
    id.parse().expect("a UUID is a session's id")
}
