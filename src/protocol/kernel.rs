//! The words of the Python kernel: requests, replies and messages. Their meaning is in `kernel-image/PROTOCOL.md`.
//!
//! Unknown fields are passed over, so that a newer kernel can speak to an older server.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::model::event::Unprotected;
use crate::model::output::{ErrorOutput, Metadata, MimeBundle, Variable, VariableChanges};

/// A request to the kernel. Each is answered by one reply, but for [`Request::InputReply`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Request {
    /// Sets environment variables, before the first cell.
    Configure {
        /// The variables.
        env: BTreeMap<String, String>,
    },
    /// Runs a cell.
    Execute(Box<Execute>),
    /// Completions at a cursor.
    Complete {
        /// The source.
        code: String,
        /// Where in it, in code points.
        cursor: u64,
    },
    /// Documentation of what is at a cursor.
    Inspect {
        /// The source.
        code: String,
        /// Where in it, in code points.
        cursor: u64,
        /// 0 for little, 1 for much.
        detail: u8,
    },
    /// Whether a source is complete.
    IsComplete {
        /// The source.
        code: String,
    },
    /// Runs what every first cell runs, and forgets it. For a kernel that waits for its session.
    Rehearse {},
    /// The user's namespace.
    Variables {},
    /// The comms that are open.
    CommInfo {},
    /// A client opens a comm.
    CommOpen {
        /// Which.
        comm_id: String,
        /// What for.
        target_name: String,
        /// The content.
        data: Value,
        /// Facts about it.
        metadata: Metadata,
        /// Binary parts, base64.
        buffers: Vec<String>,
        /// What the front end keeps with it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        client: Option<Metadata>,
    },
    /// A client's message.
    CommMsg {
        /// Which.
        comm_id: String,
        /// The content.
        data: Value,
        /// Facts about it.
        metadata: Metadata,
        /// Binary parts, base64.
        buffers: Vec<String>,
        /// What the front end keeps with it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        client: Option<Metadata>,
    },
    /// A client closes a comm.
    CommClose {
        /// Which.
        comm_id: String,
        /// The content.
        data: Value,
        /// Facts about it.
        metadata: Metadata,
        /// Binary parts, base64.
        buffers: Vec<String>,
        /// What the front end keeps with it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        client: Option<Metadata>,
    },
    /// The answer to an [`Message::InputRequest`]; it has no reply.
    InputReply {
        /// Which request.
        request: String,
        /// What was typed; none is the end of the file.
        #[serde(skip_serializing_if = "Option::is_none")]
        value: Option<String>,
        /// Whether there is nobody to answer.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        eof: bool,
    },
}

/// A cell to run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Execute {
    /// Comes back in every message of this cell.
    pub cell: String,
    /// The source.
    pub code: String,
    /// Leaves no trace and shows no result.
    pub silent: bool,
    /// Counts, and goes into `In` and `Out`.
    pub store_history: bool,
    /// Whether `input()` may ask; it raises at once otherwise.
    pub allow_stdin: bool,
    /// Expressions to evaluate afterwards.
    pub user_expressions: BTreeMap<String, String>,
    /// What the front end keeps with it: whoever asks in the kernel for the message that runs is told from this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<Metadata>,
}

/// A [`Request`] with its id, as it goes over the wire.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NumberedRequest {
    /// Comes back in the reply.
    pub id: u64,
    /// What is asked.
    #[serde(flatten)]
    pub request: Request,
}

/// A reply. Which fields it has depends on the request; all are optional, since nothing from a sandbox is believed to be whole.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NumberedReply {
    /// The request's.
    pub id: u64,
    /// Everything else.
    #[serde(flatten)]
    pub body: serde_json::Map<String, Value>,
}

/// The reply to [`Request::Execute`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExecuteReply {
    /// How it went.
    pub status: ReplyStatus,
    /// The cell's number.
    #[serde(default)]
    pub execution_count: Option<u32>,
    /// The exception, where there was one.
    #[serde(default)]
    pub error: Option<ErrorOutput>,
    /// What was asked for with it.
    #[serde(default)]
    pub user_expressions: Option<Value>,
    /// What it did to the namespace.
    #[serde(default)]
    pub variables: Option<VariableChanges>,
    /// What it asks of whoever edits the cell.
    #[serde(default)]
    pub payload: Vec<Value>,
    /// Why there is no checkpoint, if there is none.
    #[serde(default)]
    pub unprotected: Option<Unprotected>,
}

/// How an execution went, as the kernel sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplyStatus {
    /// Well.
    Ok,
    /// With an exception.
    Error,
}

/// A completion.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Completion {
    /// What to put in.
    pub text: String,
    /// What it is, such as `function`; empty when unknown.
    #[serde(default, rename = "type")]
    pub type_name: String,
}

/// The reply to [`Request::Complete`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Completions {
    /// What fits.
    pub matches: Vec<Completion>,
    /// The first code point that is replaced.
    pub start: u64,
    /// The code point after the last that is replaced.
    pub end: u64,
}

/// The reply to [`Request::Inspect`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Inspection {
    /// Whether there was something.
    pub found: bool,
    /// What is known about it.
    #[serde(default)]
    pub data: MimeBundle,
}

/// The reply to [`Request::Variables`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Namespace {
    /// The variables, by name.
    pub variables: Vec<Variable>,
    /// How many there are.
    pub total: u64,
    /// Whether the list is cut short.
    #[serde(default)]
    pub truncated: bool,
}

/// What the kernel says by itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Message {
    /// It is ready for requests. Its first message, once.
    Ready {
        /// Python's version.
        python: String,
        /// Its generation of the protocol.
        generation: u32,
        /// How many cells its variables have seen, if it is a checkpoint that was woken.
        #[serde(default)]
        execution_count: u32,
    },
    /// Something is shown.
    DisplayData(Display),
    /// Something is shown differently.
    UpdateDisplayData(Display),
    /// The value of the last expression.
    ExecuteResult {
        /// Its number.
        execution_count: u32,
        /// The value.
        data: MimeBundle,
        /// Facts about it.
        #[serde(default)]
        metadata: Metadata,
    },
    /// An exception of the cell.
    Error(ErrorOutput),
    /// An exception of a task that ran between cells.
    AsynchronousError(ErrorOutput),
    /// Output is to be cleared.
    ClearOutput {
        /// When the next output comes.
        #[serde(default)]
        wait: bool,
    },
    /// A line is asked for.
    InputRequest {
        /// To be named in the answer.
        request: String,
        /// What the user is shown.
        #[serde(default)]
        prompt: String,
        /// Whether it is secret.
        #[serde(default)]
        password: bool,
    },
    /// A comm is opened.
    CommOpen(Comm),
    /// A comm is used.
    CommMsg(Comm),
    /// A comm is closed.
    CommClose(Comm),
}

/// The content of [`Message::DisplayData`] and [`Message::UpdateDisplayData`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Display {
    /// What is shown.
    pub data: MimeBundle,
    /// Facts about it.
    #[serde(default)]
    pub metadata: Metadata,
    /// What is not part of the document.
    #[serde(default)]
    pub transient: Transient,
}

/// See [`Display::transient`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transient {
    /// By which id it can be updated.
    #[serde(default)]
    pub display_id: Option<String>,
}

/// The content of a comm message of the kernel; its buffers follow the JSON.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Comm {
    /// Which comm.
    pub comm_id: String,
    /// What it is for; when opened.
    #[serde(default)]
    pub target_name: Option<String>,
    /// The content.
    #[serde(default)]
    pub data: Value,
    /// Facts about it.
    #[serde(default)]
    pub metadata: Metadata,
}
