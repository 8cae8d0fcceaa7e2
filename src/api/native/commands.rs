//! The commands of the WebSocket: what a message may say, and what is asked of the session for it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::checkpoints::{CheckpointList, HeldBody, RollbackBody, WentBackBody};
use super::wire::{
    CommBody, CompleteBody, DeadlineBody, DoneBody, ExecuteBody, InputBody, InspectBody,
    InterruptedBody, IsCompleteBody, SessionBody, SubmittedBody,
};
use crate::api::error::{ApiError, Code};
use crate::api::extract::{parse_json, parse_value};
use crate::model::id::{CellId, CheckpointName};
use crate::session::SessionHandle;

/// A command. Each is answered by one reply with the same `ref`; replies may overtake each other.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(tag = "op", rename_all = "snake_case")]
pub(crate) enum Op {
    /// Submits a cell.
    Execute(Box<ExecuteBody>),
    /// Moves the deadline of a cell; of the running one if none is named.
    Extend(ExtendOp),
    /// Interrupts the running cell, if it is the one that is named or none is.
    Interrupt(MaybeCell),
    /// Takes a waiting cell out of the queue.
    Cancel(OneCell),
    /// Replaces the kernel by a new one.
    Restart(Nothing),
    /// Holds the variables as they are, under a name.
    Checkpoint(OneCheckpoint),
    /// The checkpoints that are held.
    Checkpoints(Nothing),
    /// Drops a checkpoint that is held.
    DropCheckpoint(OneCheckpoint),
    /// Goes back to a checkpoint that is held.
    Rollback(RollbackBody),
    /// Goes back to before the last cell.
    Undo(Nothing),
    /// Answers an `input()` that waits.
    Input(InputBody),
    /// Completions at a cursor.
    Complete(CompleteBody),
    /// What is known about the name at a cursor.
    Inspect(InspectBody),
    /// Whether a source is complete.
    IsComplete(IsCompleteBody),
    /// The variables of the user's namespace.
    Variables(Nothing),
    /// Sends a comm message.
    Comm(CommBody),
    /// The comms that are open.
    CommInfo(Nothing),
    /// What the session is doing.
    Session(Nothing),
    /// Are you there?
    Ping(Nothing),
}

/// The names of all commands, as the schema has them.
const OPS: [&str; 19] = [
    "execute",
    "extend",
    "interrupt",
    "cancel",
    "restart",
    "checkpoint",
    "checkpoints",
    "drop_checkpoint",
    "rollback",
    "undo",
    "input",
    "complete",
    "inspect",
    "is_complete",
    "variables",
    "comm",
    "comm_info",
    "session",
    "ping",
];

/// No fields.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Nothing {}

/// A cell.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct OneCell {
    /// The cell.
    cell: CellId,
}

/// A cell, or whichever runs.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct MaybeCell {
    /// The cell; whichever runs if not said.
    cell: Option<CellId>,
}

/// A checkpoint.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct OneCheckpoint {
    /// Its name.
    name: CheckpointName,
}

/// A cell and how far to move its deadline.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExtendOp {
    /// The cell; whichever runs if not said.
    cell: Option<CellId>,
    /// By how much, in milliseconds.
    by_ms: u64,
}

/// What a client said: its own name for the command, and the command.
#[derive(Debug)]
pub(crate) struct Message {
    /// Comes back in the reply.
    pub(crate) reference: Option<Value>,
    /// The command, or why it is none.
    pub(crate) op: Result<Op, ApiError>,
}

/// A reply, as it is sent.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct Reply {
    /// The command's own; null if it had none.
    #[serde(rename = "ref")]
    pub(crate) reference: Option<Value>,
    /// Whether it was done.
    pub(crate) ok: bool,
    /// What is answered, as by the REST route of the same name; if it was done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reply: Option<Value>,
    /// Why not; if it was not done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<crate::api::error::ErrorDetail>,
}

impl Reply {
    /// The reply to a command.
    pub(crate) fn new(reference: Option<Value>, answer: Result<Value, ApiError>) -> Self {
        match answer {
            Ok(reply) => Self {
                reference,
                ok: true,
                reply: Some(reply),
                error: None,
            },
            Err(error) => Self {
                reference,
                ok: false,
                reply: None,
                error: Some(error.detail()),
            },
        }
    }
}

/// The longest `ref` that comes back, in bytes of JSON.
const REFERENCE: usize = 256;

/// Reads a message. Whatever it is, there is something to reply.
pub(crate) fn parse(text: &str) -> Message {
    let mut fields: Map<String, Value> = match parse_json(text.as_bytes()) {
        Ok(fields) => fields,
        Err(error) => {
            return Message {
                reference: None,
                op: Err(error),
            };
        }
    };
    let reference = fields.remove("ref");
    let length = |value: &Value| value.to_string().len();
    if reference
        .as_ref()
        .is_some_and(|value| !(value.is_string() || value.is_number()) || length(value) > REFERENCE)
    {
        let error = ApiError::new(
            Code::BadField,
            format!("`ref` is a string or a number of at most {REFERENCE} bytes"),
        )
        .with("field", "ref");
        return Message {
            reference: None,
            op: Err(error),
        };
    }
    Message {
        op: parse_op(fields),
        reference,
    }
}

fn parse_op(fields: Map<String, Value>) -> Result<Op, ApiError> {
    match fields.get("op") {
        Some(Value::String(op)) if OPS.contains(&op.as_str()) => parse_value(Value::Object(fields)),
        Some(Value::String(op)) => {
            let op: String = op.chars().take(64).collect();
            Err(ApiError::new(
                Code::UnknownOp,
                format!("there is no op `{op}`; there are {}", OPS.join(", ")),
            ))
        }
        _ => Err(ApiError::new(
            Code::UnknownOp,
            format!("`op` is missing; it is one of {}", OPS.join(", ")),
        )),
    }
}

/// Asks the session for it.
pub(crate) async fn carry_out(op: Op, session: &SessionHandle) -> Result<Value, ApiError> {
    match op {
        Op::Execute(body) => json(&SubmittedBody::from(
            session.execute(body.into_request(None, true)?).await?,
        )),
        Op::Extend(ExtendOp { cell, by_ms }) => json(&DeadlineBody::from(
            session
                .extend(cell, std::time::Duration::from_millis(by_ms))
                .await?,
        )),
        Op::Interrupt(MaybeCell { cell }) => {
            json(&InterruptedBody::from(session.interrupt(cell).await?))
        }
        Op::Cancel(OneCell { cell }) => {
            session.cancel(cell).await?;
            json(&DoneBody {})
        }
        Op::Restart(Nothing {}) => {
            session.restart().await?;
            json(&SessionBody::from(session.view()))
        }
        Op::Checkpoint(OneCheckpoint { name }) => json(&HeldBody::from(session.hold(name).await?)),
        Op::Checkpoints(Nothing {}) => json(&CheckpointList::from(session.view())),
        Op::DropCheckpoint(OneCheckpoint { name }) => {
            session.release(name).await?;
            json(&DoneBody {})
        }
        Op::Rollback(RollbackBody { checkpoint }) => {
            json(&WentBackBody::from(session.roll_back(checkpoint).await?))
        }
        Op::Undo(Nothing {}) => json(&WentBackBody::from(session.undo().await?)),
        Op::Input(body) => {
            session.answer_input(body.try_into()?).await?;
            json(&DoneBody {})
        }
        Op::Complete(body) => {
            let (code, cursor) = body.into_parts();
            json(&session.complete(code, cursor).await?)
        }
        Op::Inspect(body) => {
            let (code, cursor, detail) = body.into_parts()?;
            json(&session.inspect(code, cursor, detail).await?)
        }
        Op::IsComplete(body) => Ok(session.is_complete(body.code).await?),
        Op::Variables(Nothing {}) => json(&session.variables().await?),
        Op::Comm(body) => {
            session.comm(body.try_into()?, None).await?;
            json(&DoneBody {})
        }
        Op::CommInfo(Nothing {}) => Ok(session.comm_info().await?),
        Op::Session(Nothing {}) => json(&SessionBody::from(session.view())),
        Op::Ping(Nothing {}) => json(&DoneBody {}),
    }
}

fn json(value: &impl Serialize) -> Result<Value, ApiError> {
    serde_json::to_value(value).map_err(|error| ApiError::internal(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_read_with_its_ref() {
        let message = parse(r#"{"op": "execute", "ref": "a1", "code": "1+1"}"#);
        assert_eq!(message.reference, Some("a1".into()));
        assert!(matches!(message.op, Ok(Op::Execute(_))), "{message:?}");
        assert!(matches!(
            parse(r#"{"op": "ping", "ref": 7}"#).op,
            Ok(Op::Ping(_))
        ));
        assert!(matches!(
            parse(r#"{"op": "interrupt"}"#).op,
            Ok(Op::Interrupt(MaybeCell { cell: None }))
        ));
    }

    #[test]
    fn every_op_is_known() {
        for op in OPS {
            let error = parse(&format!(r#"{{"op": "{op}", "nonsense": 1}}"#))
                .op
                .unwrap_err();
            assert!(
                matches!(error.code(), Code::UnknownField | Code::BadField),
                "{op}: {error:?}"
            );
        }
    }

    #[test]
    fn nonsense_is_told_apart() {
        for (text, code) in [
            ("", Code::BadJson),
            ("{", Code::BadJson),
            ("[]", Code::BadField),
            ("{}", Code::UnknownOp),
            (r#"{"op": 1}"#, Code::UnknownOp),
            (r#"{"op": "explode"}"#, Code::UnknownOp),
            (r#"{"op": "ping", "x": 1}"#, Code::UnknownField),
            (r#"{"op": "execute"}"#, Code::BadField),
            (r#"{"op": "execute", "code": 1}"#, Code::BadField),
            (
                r#"{"op": "execute", "code": "", "cod": ""}"#,
                Code::UnknownField,
            ),
            (r#"{"op": "cancel", "cell": "x"}"#, Code::BadField),
            (r#"{"op": "ping", "ref": {}}"#, Code::BadField),
        ] {
            let message = parse(text);
            assert_eq!(message.op.unwrap_err().code(), code, "{text}");
        }
    }

    #[test]
    fn a_ref_comes_back_even_where_the_command_is_nonsense() {
        assert_eq!(
            parse(r#"{"op": "explode", "ref": 3}"#).reference,
            Some(3.into())
        );
    }

    proptest::proptest! {
        #[test]
        fn no_text_is_too_strange(text in "\\PC{0,200}") {
            parse(&text);
        }
    }
}
