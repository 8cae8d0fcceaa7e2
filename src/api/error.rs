//! From what went wrong to a status, a stable code and a text: the only such place.
//!
//! Three kinds arrive here. The request was not understood ([`ApiError::new`], by the extractors and the wire types), the
//! session refused ([`Denied`]), or we could not ([`ApiError::internal`]): then the client gets an id, and the log has the chain with it.

use std::error::Error as StdError;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::model::id::CheckpointName;
use crate::session::log::ReadError;
use crate::session::{Denied, FileErrorCode, FilesError, SessionError};

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $name:ident $code:literal $status:ident,)+) => {
        /// What went wrong, as a word that clients may rely on.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Code {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Code {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The word.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $code),+ }
            }

            /// The HTTP status that goes with it.
            pub fn status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$status),+ }
            }

            /// What it means, in a sentence.
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc),+).trim_ascii()),+ }
            }
        }
    };
}

codes! {
    /// The body is not JSON, or not UTF-8.
    BadJson "bad_json" BAD_REQUEST,
    /// The body or the query has a field that does not exist.
    UnknownField "unknown_field" BAD_REQUEST,
    /// A field is missing, of the wrong type, or has a value that is not possible.
    BadField "bad_field" BAD_REQUEST,
    /// A query parameter or a header is not acceptable.
    BadParameter "bad_parameter" BAD_REQUEST,
    /// The session id is not 1 to 128 of letters, digits, `.`, `_`, `:`, `-`.
    BadSessionId "bad_session_id" BAD_REQUEST,
    /// The cell id is not a UUID.
    BadCellId "bad_cell_id" BAD_REQUEST,
    /// The checkpoint's name is not 1 to 128 of letters, digits, `.`, `_`, `:`, `-`.
    BadCheckpointName "bad_checkpoint_name" BAD_REQUEST,
    /// The file path is not one inside of the workspace, or leads over a link.
    BadPath "bad_path" BAD_REQUEST,
    /// A setting is outside of what this server allows.
    BadSettings "bad_settings" BAD_REQUEST,
    /// A WebSocket command has an `op` that does not exist, or none.
    UnknownOp "unknown_op" BAD_REQUEST,
    /// A WebSocket message is binary, which has no meaning here.
    BinaryMessage "binary_message" BAD_REQUEST,
    /// The request for a WebSocket is not one.
    BadUpgrade "bad_upgrade" BAD_REQUEST,
    /// There is no token, or a wrong one.
    Unauthorized "unauthorized" UNAUTHORIZED,
    /// The request comes from a web page of an origin that is not allowed.
    ForeignOrigin "foreign_origin" FORBIDDEN,
    /// The `Host` header names a host that is not this one.
    ForeignHost "foreign_host" FORBIDDEN,
    /// There is no such route.
    UnknownRoute "unknown_route" NOT_FOUND,
    /// There is no such session.
    UnknownSession "unknown_session" NOT_FOUND,
    /// There is no such cell in this session, or its events were trimmed.
    UnknownCell "unknown_cell" NOT_FOUND,
    /// No checkpoint of this name is held.
    UnknownCheckpoint "unknown_checkpoint" NOT_FOUND,
    /// There is no event with this number yet.
    UnknownEvent "unknown_event" NOT_FOUND,
    /// There is no such file or directory.
    UnknownFile "unknown_file" NOT_FOUND,
    /// The route exists, but not with this method.
    MethodNotAllowed "method_not_allowed" METHOD_NOT_ALLOWED,
    /// The body did not come in time.
    RequestTimeout "request_timeout" REQUEST_TIMEOUT,
    /// The session has ended.
    SessionEnded "session_ended" CONFLICT,
    /// The session exists with other settings.
    SettingsDiffer "settings_differ" CONFLICT,
    /// The idempotency key was used for another source.
    KeyReused "key_reused" CONFLICT,
    /// The cell after which this one was to run has failed or was not run.
    EarlierFailed "earlier_failed" CONFLICT,
    /// No cell is running.
    NothingRuns "nothing_runs" CONFLICT,
    /// The cell has finished.
    CellFinished "cell_finished" CONFLICT,
    /// The cell is running.
    CellRuns "cell_runs" CONFLICT,
    /// The deadline cannot be extended so far.
    BeyondCeiling "beyond_ceiling" CONFLICT,
    /// No input is asked for, or another one.
    NoInput "no_input" CONFLICT,
    /// The kernel is running a cell, and this is possible only between cells.
    KernelBusy "kernel_busy" CONFLICT,
    /// The session has no kernel at the moment.
    NoKernel "no_kernel" CONFLICT,
    /// The kernel refused.
    KernelRefused "kernel_refused" CONFLICT,
    /// As many checkpoints are held in this session as may.
    TooManyCheckpoints "too_many_checkpoints" CONFLICT,
    /// There is no checkpoint from right before the last cell.
    NothingToUndo "nothing_to_undo" CONFLICT,
    /// The checkpoint could not be made or used; nothing has changed.
    CheckpointFailed "checkpoint_failed" CONFLICT,
    /// The log does not reach so far: the cursor is of another log, or made up.
    CursorAhead "cursor_ahead" CONFLICT,
    /// The session has another log than the cursor is of: it was deleted and made anew.
    OtherLog "other_log" CONFLICT,
    /// It is not a file, or not a directory, where one is needed.
    WrongKind "wrong_kind" CONFLICT,
    /// The events after the cursor were trimmed.
    EventsTrimmed "events_trimmed" GONE,
    /// The body or message is longer than is accepted.
    TooLarge "too_large" PAYLOAD_TOO_LARGE,
    /// The source of the cell is longer than is accepted.
    CellTooLarge "cell_too_large" PAYLOAD_TOO_LARGE,
    /// The range lies outside of the file, or of the cell's output.
    BadRange "bad_range" RANGE_NOT_SATISFIABLE,
    /// As many cells wait in this session as may.
    QueueFull "queue_full" TOO_MANY_REQUESTS,
    /// The session, or this connection, has too many requests at once.
    Busy "busy" TOO_MANY_REQUESTS,
    /// The server has as many sessions as it may.
    TooManySessions "too_many_sessions" TOO_MANY_REQUESTS,
    /// We could not; the server's log tells more under the `id` that comes with it.
    Internal "internal" INTERNAL_SERVER_ERROR,
    /// The server is stopping.
    Stopping "stopping" SERVICE_UNAVAILABLE,
    /// The sandbox went away while it was spoken to.
    SandboxLost "sandbox_lost" SERVICE_UNAVAILABLE,
    /// The workspace has no room for this.
    QuotaExceeded "quota_exceeded" INSUFFICIENT_STORAGE,
    /// The disk under the workspaces is full.
    DiskFull "disk_full" INSUFFICIENT_STORAGE,
    /// The server's data directory is full.
    StoreFull "store_full" INSUFFICIENT_STORAGE,
}

/// What a client is told when something went wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiError {
    code: Code,
    message: String,
    details: Map<String, Value>,
}

/// The body of every answer that is not a success.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct ErrorBody {
    /// What went wrong.
    pub(crate) error: ErrorDetail,
}

/// What went wrong.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct ErrorDetail {
    /// A word that does not change; see the list of codes.
    pub(crate) code: &'static str,
    /// What, why, and what to do about it. For people; it may change.
    pub(crate) message: String,
    /// Facts that go with the code.
    #[serde(flatten)]
    pub(crate) details: Map<String, Value>,
}

impl ApiError {
    /// An error with its text.
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            details: Map::new(),
        }
    }

    /// Adds a fact that a program can act on.
    pub(crate) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.details.insert(name.to_owned(), value.into());
        self
    }

    /// A failure of ours: logs it with all its sources, and tells the client an id by which the log line is found.
    pub(crate) fn internal(error: &(dyn StdError + 'static)) -> Self {
        let id = Uuid::now_v7().to_string();
        tracing::error!(error.id = %id, error = %chain(error), "a request failed");
        Self::new(
            Code::Internal,
            "internal error; the server's log has it under this id",
        )
        .with("id", id)
    }

    /// Its code.
    pub fn code(&self) -> Code {
        self.code
    }

    /// Its text.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// It as JSON, in the one shape that all front doors use.
    pub(crate) fn detail(&self) -> ErrorDetail {
        ErrorDetail {
            code: self.code.as_str(),
            message: self.message.clone(),
            details: self.details.clone(),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (
            self.code.status(),
            Json(ErrorBody {
                error: self.detail(),
            }),
        )
            .into_response();
        let header = match self.code {
            Code::Unauthorized => Some((
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer realm=\"evercell\""),
            )),
            Code::QueueFull | Code::Busy | Code::TooManySessions | Code::Stopping => {
                Some((header::RETRY_AFTER, HeaderValue::from_static("1")))
            }
            _ => None,
        };
        response.headers_mut().extend(header);
        // For a front end whose errors look different.
        response.extensions_mut().insert(self);
        response
    }
}

impl From<SessionError> for ApiError {
    fn from(error: SessionError) -> Self {
        match error {
            SessionError::Denied(denied) => denied.into(),
            error @ (SessionError::Store(_) | SessionError::Kernel(_)) => Self::internal(&error),
        }
    }
}

impl From<Denied> for ApiError {
    fn from(denied: Denied) -> Self {
        let error = Self::new(code_of(&denied), denied.to_string());
        match denied {
            Denied::TooManySessions { bound } | Denied::QueueFull { bound } => {
                error.with("bound", bound)
            }
            Denied::UnknownCheckpoint { names, .. } => error.with("held", list(&names)),
            Denied::TooManyCheckpoints { bound, names } => {
                error.with("bound", bound).with("held", list(&names))
            }
            Denied::SettingsDiffer { field } => error.with("field", field),
            Denied::CellTooLarge { bytes, bound } => {
                error.with("bytes", bytes).with("bound", bound)
            }
            Denied::BadField { field, .. } => error.with("field", field),
            Denied::BeyondCeiling { grantable_ms, .. } => error.with("grantable_ms", grantable_ms),
            _ => error,
        }
    }
}

fn code_of(denied: &Denied) -> Code {
    match denied {
        Denied::UnknownSession(_) => Code::UnknownSession,
        Denied::Ended => Code::SessionEnded,
        Denied::TooManySessions { .. } => Code::TooManySessions,
        Denied::SettingsDiffer { .. } => Code::SettingsDiffer,
        Denied::Settings(_) => Code::BadSettings,
        Denied::QueueFull { .. } => Code::QueueFull,
        Denied::Busy => Code::Busy,
        Denied::CellTooLarge { .. } => Code::CellTooLarge,
        Denied::BadField { .. } => Code::BadField,
        Denied::KeyReused => Code::KeyReused,
        Denied::EarlierFailed(_) => Code::EarlierFailed,
        Denied::UnknownCell(_) => Code::UnknownCell,
        Denied::NothingRuns => Code::NothingRuns,
        Denied::CellFinished(_) => Code::CellFinished,
        Denied::CellRuns(_) => Code::CellRuns,
        Denied::BeyondCeiling { .. } => Code::BeyondCeiling,
        Denied::NoInput => Code::NoInput,
        Denied::KernelBusy => Code::KernelBusy,
        Denied::NoKernel(_) => Code::NoKernel,
        Denied::Kernel(_) => Code::KernelRefused,
        Denied::UnknownCheckpoint { .. } => Code::UnknownCheckpoint,
        Denied::TooManyCheckpoints { .. } => Code::TooManyCheckpoints,
        Denied::NothingToUndo(_) => Code::NothingToUndo,
        Denied::CheckpointFailed(_) => Code::CheckpointFailed,
        Denied::StoreFull => Code::StoreFull,
        Denied::Stopping => Code::Stopping,
    }
}

fn list(names: &[CheckpointName]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

impl From<FilesError> for ApiError {
    fn from(error: FilesError) -> Self {
        match error {
            FilesError::Refused { code, message } => match code {
                FileErrorCode::NotFound => Self::new(Code::UnknownFile, message),
                FileErrorCode::BadPath => Self::new(Code::BadPath, message),
                FileErrorCode::WrongKind => Self::new(Code::WrongKind, message),
                FileErrorCode::QuotaExceeded => Self::new(Code::QuotaExceeded, message),
                FileErrorCode::DiskFull => Self::new(Code::DiskFull, message),
                FileErrorCode::Io => Self::internal(&FilesError::Refused { code, message }),
            },
            // Most often the session was ended meanwhile: nobody has to act.
            error @ FilesError::Lost(_) => {
                tracing::warn!(error = %chain(&error), "a workspace went away while it was used");
                Self::new(
                    Code::SandboxLost,
                    "the sandbox went away; look at the session's log, and try again",
                )
            }
        }
    }
}

impl From<ReadError> for ApiError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Trimmed { first_available } => Self::new(
                Code::EventsTrimmed,
                format!("the events after this cursor were trimmed; the first that is there is {first_available}: read on with after={}", first_available.saturating_sub(1)),
            )
            .with("first_available", first_available),
            ReadError::Ahead { head } => Self::new(
                Code::CursorAhead,
                format!("the log ends at {head}; this cursor belongs to another log, so begin again with after=0"),
            )
            .with("head", head),
            ReadError::Store(_) => Self::internal(&error),
        }
    }
}

/// An error and all its sources in one line.
fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::log::ReadError;

    #[test]
    fn the_codes_are_a_contract() {
        let list: String = Code::ALL
            .iter()
            .map(|code| format!("{} {}\n", code.status().as_u16(), code.as_str()))
            .collect();
        insta::assert_snapshot!("error_codes", list);
    }

    #[test]
    fn every_code_is_documented() {
        let page = include_str!("../../docs/api.md");
        for code in Code::ALL {
            let row = format!("| `{}` | {} |", code.as_str(), code.status().as_u16());
            assert!(
                page.contains(&row),
                "docs/api.md has no row that begins with {row}"
            );
        }
    }

    #[test]
    fn a_refusal_carries_the_facts_to_act_on() {
        let error = ApiError::from(Denied::BeyondCeiling {
            asked_ms: 5000,
            grantable_ms: 700,
        });
        insta::assert_json_snapshot!(error.detail(), @r#"
        {
          "code": "beyond_ceiling",
          "message": "the deadline can be extended by 700 ms more, not by 5000 ms",
          "grantable_ms": 700
        }
        "#);
        let error = ApiError::from(ReadError::Trimmed {
            first_available: 41,
        });
        insta::assert_json_snapshot!(error.detail(), @r#"
        {
          "code": "events_trimmed",
          "message": "the events after this cursor were trimmed; the first that is there is 41: read on with after=40",
          "first_available": 41
        }
        "#);
    }

    #[test]
    fn an_internal_error_tells_an_id_and_nothing_else() {
        let error = ApiError::internal(&std::io::Error::other("/secret/path"));
        let text = serde_json::to_string(&error.detail()).unwrap();
        assert!(!text.contains("secret"), "{text}");
        assert!(text.contains("\"id\""), "{text}");
    }
}
