//! Checkpoints that a client holds: hold one, list them, go back to one, drop one; and undo the last cell.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::Api;
use crate::api::error::ApiError;
use crate::api::extract::{CheckpointPath, JsonBody, SessionPath};
use crate::model::checkpoint::{HeldCheckpoint, MOST_HELD};
use crate::model::event::{Seq, Verdict};
use crate::model::id::CheckpointName;
use crate::session::view::SessionView;
use crate::session::{Held, WentBack};

/// The checkpoints that are held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct CheckpointList {
    /// The oldest first.
    checkpoints: Vec<HeldCheckpoint>,
    /// How many there may be.
    bound: usize,
}

/// A checkpoint that was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct HeldBody {
    /// The checkpoint.
    #[serde(flatten)]
    checkpoint: HeldCheckpoint,
    /// Whether another one had the name before, which is not there any more.
    replaced: bool,
}

/// Which checkpoint to go back to.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RollbackBody {
    /// Its name.
    pub(crate) checkpoint: CheckpointName,
}

/// The kernel went back to a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct WentBackBody {
    /// What became of the variables.
    state: Verdict,
    /// The event `kernel_started` that says so.
    seq: Seq,
}

/// Holds the variables as they are now, under a name. A checkpoint that had the name is replaced, once the new one is there.
#[utoipa::path(
    put, path = "/v1/sessions/{session}/checkpoints/{checkpoint}", tag = "checkpoints",
    params(("session" = String, Path), ("checkpoint" = String, Path, description = "The caller's own name: 1 to 128 of letters, digits, `.`, `_`, `:`, `-`")),
    responses(
        (status = 200, description = "It is held, in place of another one that had the name", body = ref("#/components/schemas/HeldBody")),
        (status = 201, description = "It is held", body = ref("#/components/schemas/HeldBody")),
        (status = 400, description = "`bad_checkpoint_name`", body = ref("#/components/schemas/ErrorBody")),
        (status = 404, description = "`unknown_session`", body = ref("#/components/schemas/ErrorBody")),
        (status = 409, description = "`kernel_busy`, `no_kernel`, `too_many_checkpoints`, `checkpoint_failed`, `session_ended`", body = ref("#/components/schemas/ErrorBody")),
    )
)]
pub(crate) async fn hold(
    State(api): State<Api>,
    SessionPath(id): SessionPath,
    CheckpointPath(name): CheckpointPath,
) -> Result<(StatusCode, Json<HeldBody>), ApiError> {
    let held = HeldBody::from(api.sessions.find(&id).await?.hold(name).await?);
    let status = if held.replaced {
        StatusCode::OK
    } else {
        StatusCode::CREATED
    };
    Ok((status, Json(held)))
}

/// The checkpoints that are held.
#[utoipa::path(
    get, path = "/v1/sessions/{session}/checkpoints", tag = "checkpoints", params(("session" = String, Path)),
    responses(
        (status = 200, description = "The checkpoints, the oldest first", body = ref("#/components/schemas/CheckpointList")),
        (status = 404, description = "`unknown_session`", body = ref("#/components/schemas/ErrorBody")),
    )
)]
pub(crate) async fn list(
    State(api): State<Api>,
    SessionPath(id): SessionPath,
) -> Result<Json<CheckpointList>, ApiError> {
    Ok(Json(api.sessions.view(&id).await?.into()))
}

/// Drops a checkpoint that is held.
#[utoipa::path(
    delete, path = "/v1/sessions/{session}/checkpoints/{checkpoint}", tag = "checkpoints", params(("session" = String, Path), ("checkpoint" = String, Path)),
    responses(
        (status = 204, description = "It is not there any more"),
        (status = 400, description = "`bad_checkpoint_name`", body = ref("#/components/schemas/ErrorBody")),
        (status = 404, description = "`unknown_session`, `unknown_checkpoint`", body = ref("#/components/schemas/ErrorBody")),
        (status = 409, description = "`session_ended`", body = ref("#/components/schemas/ErrorBody")),
    )
)]
pub(crate) async fn release(
    State(api): State<Api>,
    SessionPath(id): SessionPath,
    CheckpointPath(name): CheckpointPath,
) -> Result<StatusCode, ApiError> {
    api.sessions.find(&id).await?.release(name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Goes back to a checkpoint that is held; it stays held. When this answers, the variables are as they were in it.
#[utoipa::path(
    post, path = "/v1/sessions/{session}/rollback", tag = "checkpoints", params(("session" = String, Path)),
    request_body(content = ref("#/components/schemas/RollbackBody")),
    responses(
        (status = 200, description = "It is done", body = ref("#/components/schemas/WentBackBody")),
        (status = 400, description = "`bad_json`, `unknown_field`, `bad_field`", body = ref("#/components/schemas/ErrorBody")),
        (status = 404, description = "`unknown_session`, `unknown_checkpoint`", body = ref("#/components/schemas/ErrorBody")),
        (status = 409, description = "`kernel_busy`, `no_kernel`, `checkpoint_failed`, `session_ended`", body = ref("#/components/schemas/ErrorBody")),
    )
)]
pub(crate) async fn rollback(
    State(api): State<Api>,
    SessionPath(id): SessionPath,
    JsonBody(body): JsonBody<RollbackBody>,
) -> Result<Json<WentBackBody>, ApiError> {
    let handle = api.sessions.find(&id).await?;
    Ok(Json(handle.roll_back(body.checkpoint).await?.into()))
}

/// Goes back to before the last cell that was not silent. When this answers, the variables are as they were.
#[utoipa::path(
    post, path = "/v1/sessions/{session}/undo", tag = "checkpoints", params(("session" = String, Path)),
    responses(
        (status = 200, description = "It is done", body = ref("#/components/schemas/WentBackBody")),
        (status = 404, description = "`unknown_session`", body = ref("#/components/schemas/ErrorBody")),
        (status = 409, description = "`kernel_busy`, `no_kernel`, `nothing_to_undo`, `checkpoint_failed`, `session_ended`", body = ref("#/components/schemas/ErrorBody")),
    )
)]
pub(crate) async fn undo(
    State(api): State<Api>,
    SessionPath(id): SessionPath,
) -> Result<Json<WentBackBody>, ApiError> {
    let handle = api.sessions.find(&id).await?;
    Ok(Json(handle.undo().await?.into()))
}

impl From<SessionView> for CheckpointList {
    fn from(view: SessionView) -> Self {
        Self {
            checkpoints: view.checkpoints,
            bound: MOST_HELD,
        }
    }
}

impl From<Held> for HeldBody {
    fn from(held: Held) -> Self {
        let Held {
            checkpoint,
            replaced,
        } = held;
        Self {
            checkpoint,
            replaced,
        }
    }
}

impl From<WentBack> for WentBackBody {
    fn from(WentBack { state, seq }: WentBack) -> Self {
        Self { state, seq }
    }
}
