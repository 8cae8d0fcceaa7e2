//! The bodies of the native API, and how they turn into the words of a session and back.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::api::error::{ApiError, Code};
use crate::model::event::{CommAction, CommMessage, Seq, UnixMillis};
use crate::model::id::{CellId, SessionId};
use crate::model::limits::{Limits, Timeouts};
use crate::model::note::StateNote;
use crate::model::output::Metadata;
use crate::protocol::agent::Stat;
use crate::session::view::{InputView, RunningView, SessionView, Status};
use crate::session::{
    CellRequest, Deadlines, FileEntry, InputAnswer, Interruption, Opened, Queued,
};

/// A session at a moment.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub(crate) struct SessionBody {
    /// Its id.
    pub(crate) id: SessionId,
    /// What opening it found; only in the answer to that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) opened: Option<OpenedBody>,
    /// What its kernel is doing.
    pub(crate) status: Status,
    /// Why there is no kernel, where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) problem: Option<String>,
    /// What became of the variables, if they were rolled back or lost and no cell has begun since that says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) state_note: Option<StateNote>,
    /// The cell that runs.
    pub(crate) running: Option<RunningBody>,
    /// The cells that wait, in order.
    pub(crate) queued: Vec<CellId>,
    /// The number of the last counted cell.
    pub(crate) execution_count: u32,
    /// Which log it has: another one if the session was deleted and made anew. To be given with a cursor.
    pub(crate) log: String,
    /// The last position of its log.
    pub(crate) head: Seq,
    /// The first position of its log that is still there.
    pub(crate) first: Seq,
    /// When it was opened.
    pub(crate) opened_at_ms: UnixMillis,
    /// When its last cell ended, or it was opened.
    pub(crate) active_at_ms: UnixMillis,
    /// When it will be ended for idleness; none while a cell runs or waits.
    pub(crate) idle_end_at_ms: Option<UnixMillis>,
    /// What it was given.
    pub(crate) settings: SettingsBody,
}

/// What opening a session found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OpenedBody {
    /// There was none; it is new.
    Created,
    /// It was open already.
    Existing,
    /// It had ended; its log and files are still here, its variables are not.
    Reopened,
}

/// What a session was given.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub(crate) struct SettingsBody {
    /// What its sandbox may use.
    pub(crate) limits: Limits,
    /// How long things may take.
    pub(crate) timeouts: Timeouts,
    /// The names of its environment variables. Values are often secrets, and are not shown.
    pub(crate) env: Vec<String>,
    /// What clients have noted about it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) labels: BTreeMap<String, String>,
}

/// Labels to change.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LabelsBody {
    /// The new texts by name; null takes a label away.
    pub(crate) labels: BTreeMap<String, Option<String>>,
}

/// What a session uses at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct UsageBody {
    /// Memory of all its processes, checkpoints included; null where it cannot be told.
    pub(crate) memory_bytes: Option<u64>,
    /// Time on the processors since its sandbox began, in milliseconds: two of these, and the time between them, make a load.
    pub(crate) cpu_ms: u64,
    /// Processes and threads.
    pub(crate) processes: u32,
    /// What the workspace holds, as it was counted last.
    pub(crate) workspace_bytes: u64,
}

impl From<Stat> for UsageBody {
    fn from(stat: Stat) -> Self {
        Self {
            memory_bytes: stat.memory_bytes,
            cpu_ms: stat.cpu_us / 1000,
            processes: stat.processes,
            workspace_bytes: stat.workspace_bytes,
        }
    }
}

/// The cell that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct RunningBody {
    /// The cell.
    pub(crate) cell: CellId,
    /// Since when.
    pub(crate) started_at_ms: UnixMillis,
    /// When it will be stopped.
    pub(crate) deadline_at_ms: UnixMillis,
    /// The latest instant to which that can be moved.
    pub(crate) ceiling_at_ms: UnixMillis,
    /// The `input()` that waits for an answer.
    pub(crate) input: Option<super::result::OpenInput>,
}

/// Some of the sessions.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub(crate) struct SessionList {
    /// By id.
    pub(crate) sessions: Vec<SessionBody>,
    /// Whether there are more: ask again with `after` set to the last id.
    pub(crate) more: bool,
}

/// A cell to run.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExecuteBody {
    /// The source, at most 4 MiB.
    code: String,
    /// Leaves no trace in history and execution count, and shows no result.
    #[serde(default)]
    silent: bool,
    /// Whether it counts, and goes into `In` and `Out`.
    #[serde(default = "yes")]
    store_history: bool,
    /// Whether an error aborts the cells that wait behind it.
    #[serde(default = "yes")]
    stop_on_error: bool,
    /// Whether `input()` may ask. If not said: no where the call waits for the result, yes elsewhere.
    allow_stdin: Option<bool>,
    /// Expressions to evaluate afterwards, by a name of the caller's.
    #[serde(default)]
    user_expressions: BTreeMap<String, String>,
    /// Wall-clock limit, in milliseconds; the session's if not said.
    limit_ms: Option<u64>,
    /// By how much it is extended when its time is nearly up and it has shown progress since the last time, as far as the ceiling allows: 0 for not at all,
    /// else at least 1000; the session's if not said.
    extend_on_progress_ms: Option<u64>,
    /// An idempotency key, at most 256 bytes: submitting it again returns the first cell instead of running it twice.
    key: Option<String>,
    /// Only if this cell runs, waits, ended well or was taken out of the queue; refused if it failed or was not run.
    after: Option<CellId>,
    /// Who sends it, at most 256 bytes; comes back in the event.
    origin: Option<String>,
}

fn yes() -> bool {
    true
}

impl ExecuteBody {
    /// The request to the session; `key` is one that was given beside the body, `stdin` whether somebody can answer.
    pub(crate) fn into_request(
        self,
        key: Option<String>,
        stdin: bool,
    ) -> Result<CellRequest, ApiError> {
        if let (Some(header), Some(body)) = (&key, &self.key)
            && header != body
        {
            return Err(ApiError::new(
                Code::BadField,
                "`key` and the header `Idempotency-Key` differ",
            )
            .with("field", "key"));
        }
        Ok(CellRequest {
            code: self.code,
            silent: self.silent,
            store_history: self.store_history,
            stop_on_error: self.stop_on_error,
            allow_stdin: self.allow_stdin.unwrap_or(stdin),
            user_expressions: self.user_expressions,
            limit: self.limit_ms.map(Duration::from_millis),
            extend_on_progress: self.extend_on_progress_ms.map(Duration::from_millis),
            key: key.or(self.key),
            after: self.after,
            origin: self.origin,
            client: None,
        })
    }
}

/// A cell was accepted, and is in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct SubmittedBody {
    /// The cell.
    pub(crate) cell: CellId,
    /// Where in the log it was accepted: all its events come after `seq - 1`.
    pub(crate) seq: Seq,
    /// How many cells run or wait before it.
    pub(crate) position: u32,
    /// How long it may run.
    pub(crate) limit_ms: u64,
    /// How long it may run with all extensions.
    pub(crate) ceiling_ms: u64,
    /// When it will be stopped; none while it waits.
    pub(crate) deadline_at_ms: Option<UnixMillis>,
    /// Whether it had been submitted before with the same key.
    pub(crate) duplicate: bool,
    /// What became of the variables, if they were rolled back or lost and no cell has begun before that says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) state_note: Option<StateNote>,
}

/// How far to move a deadline.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExtendBody {
    /// By how much, in milliseconds.
    pub(crate) by_ms: u64,
}

/// The deadline of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct DeadlineBody {
    /// The cell.
    pub(crate) cell: CellId,
    /// How long it may run.
    pub(crate) limit_ms: u64,
    /// How long it may run with all extensions.
    pub(crate) ceiling_ms: u64,
    /// When it will be stopped; none while it waits.
    pub(crate) deadline_at_ms: Option<UnixMillis>,
    /// By how much it can still be extended.
    pub(crate) extendable_ms: u64,
}

/// What an interrupt found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct InterruptedBody {
    /// The cell that is being interrupted; none if none ran.
    pub(crate) cell: Option<CellId>,
}

/// The answer to an `input()`: `value`, or `eof`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct InputBody {
    /// Which request, as its event says; the open one if not said.
    request: Option<String>,
    /// What was typed.
    value: Option<String>,
    /// `true` for the end of the file.
    #[serde(default)]
    eof: bool,
}

impl TryFrom<InputBody> for InputAnswer {
    type Error = ApiError;

    fn try_from(
        InputBody {
            request,
            value,
            eof,
        }: InputBody,
    ) -> Result<Self, ApiError> {
        if value.is_some() == eof {
            return Err(ApiError::new(
                Code::BadField,
                "an answer has either `value` or `\"eof\": true`",
            )
            .with("field", "value"));
        }
        Ok(Self { request, value })
    }
}

/// A source and a cursor in it.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CompleteBody {
    /// The source.
    pub(crate) code: String,
    /// Where in it, in code points; at its end if not said.
    cursor: Option<u64>,
}

impl CompleteBody {
    /// The source and the cursor.
    pub(crate) fn into_parts(self) -> (String, u64) {
        let cursor = self
            .cursor
            .unwrap_or_else(|| self.code.chars().count() as u64);
        (self.code, cursor)
    }
}

/// A source, a cursor in it, and how much is wanted.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct InspectBody {
    /// The source.
    code: String,
    /// Where in it, in code points; at its end if not said.
    cursor: Option<u64>,
    /// 0 for the documentation, 1 for the source too.
    #[serde(default)]
    #[schemars(range(max = 1))]
    detail: u8,
}

impl InspectBody {
    /// The source, the cursor and the detail.
    pub(crate) fn into_parts(self) -> Result<(String, u64, u8), ApiError> {
        if self.detail > 1 {
            return Err(ApiError::new(Code::BadField, "`detail` is 0 or 1").with("field", "detail"));
        }
        let (code, cursor) = CompleteBody {
            code: self.code,
            cursor: self.cursor,
        }
        .into_parts();
        Ok((code, cursor, self.detail))
    }
}

/// A source.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct IsCompleteBody {
    /// The source.
    pub(crate) code: String,
}

/// A client's comm message.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CommBody {
    /// What it does.
    comm: CommAction,
    /// Which comm.
    comm_id: String,
    /// What it is for; with `open`.
    target_name: Option<String>,
    /// The content.
    #[serde(default)]
    data: Value,
    /// Facts about it.
    #[serde(default)]
    metadata: Metadata,
    /// Binary parts, as base64.
    #[serde(default)]
    buffers: Vec<String>,
}

impl TryFrom<CommBody> for CommMessage {
    type Error = ApiError;

    fn try_from(body: CommBody) -> Result<Self, ApiError> {
        if (body.comm == CommAction::Open) != body.target_name.is_some() {
            let text = "`target_name` goes with `open`, and only with that";
            return Err(ApiError::new(Code::BadField, text).with("field", "target_name"));
        }
        Ok(Self {
            comm: body.comm,
            comm_id: body.comm_id,
            target_name: body.target_name,
            data: body.data,
            metadata: body.metadata,
            buffers: body.buffers,
        })
    }
}

/// Some of the entries of a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct FileList {
    /// By name.
    pub(crate) entries: Vec<FileEntry>,
    /// Whether there are more: ask again with `after` set to the last name.
    pub(crate) more: bool,
}

/// What this server is.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
pub(crate) struct VersionBody {
    /// Its name.
    pub(crate) name: &'static str,
    /// Its version.
    pub(crate) version: &'static str,
    /// The version of this API.
    pub(crate) api: &'static str,
}

/// Nothing more to say.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
pub(crate) struct DoneBody {}

impl From<SessionView> for SessionBody {
    fn from(view: SessionView) -> Self {
        Self {
            id: view.id,
            opened: None,
            status: view.status,
            problem: view.problem,
            state_note: view.state_note,
            running: view.running.map(Into::into),
            queued: view.queued,
            execution_count: view.execution_count,
            log: view.log.to_string(),
            head: view.head,
            first: view.first,
            opened_at_ms: view.opened_at_ms,
            active_at_ms: view.active_at_ms,
            idle_end_at_ms: view.idle_end_at_ms,
            settings: SettingsBody {
                limits: view.settings.limits,
                timeouts: view.settings.timeouts,
                env: view.settings.env.into_keys().collect(),
                labels: view.settings.labels,
            },
        }
    }
}

impl From<Opened> for OpenedBody {
    fn from(opened: Opened) -> Self {
        match opened {
            Opened::Created => Self::Created,
            Opened::Existing => Self::Existing,
            Opened::Reopened => Self::Reopened,
        }
    }
}

impl From<RunningView> for RunningBody {
    fn from(view: RunningView) -> Self {
        Self {
            cell: view.cell,
            started_at_ms: view.started_at_ms,
            deadline_at_ms: view.deadline_at_ms,
            ceiling_at_ms: view.ceiling_at_ms,
            input: view.input.map(Into::into),
        }
    }
}

impl From<InputView> for super::result::OpenInput {
    fn from(
        InputView {
            request,
            prompt,
            password,
            deadline_at_ms,
        }: InputView,
    ) -> Self {
        Self {
            request,
            prompt,
            password,
            deadline_at_ms,
        }
    }
}

impl From<Queued> for SubmittedBody {
    fn from(
        Queued {
            cell,
            seq,
            position,
            deadlines,
            duplicate,
            state_note,
        }: Queued,
    ) -> Self {
        let DeadlineBody {
            limit_ms,
            ceiling_ms,
            deadline_at_ms,
            ..
        } = deadlines.into();
        Self {
            cell,
            seq,
            position,
            limit_ms,
            ceiling_ms,
            deadline_at_ms,
            duplicate,
            state_note,
        }
    }
}

impl From<Deadlines> for DeadlineBody {
    fn from(deadlines: Deadlines) -> Self {
        Self {
            cell: deadlines.cell,
            limit_ms: millis(deadlines.limit),
            ceiling_ms: millis(deadlines.ceiling),
            deadline_at_ms: deadlines.deadline_at_ms,
            extendable_ms: millis(deadlines.extendable),
        }
    }
}

impl From<Interruption> for InterruptedBody {
    fn from(Interruption { cell }: Interruption) -> Self {
        Self { cell }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
