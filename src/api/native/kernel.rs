//! What is asked of the kernel itself: restart, `input()`, completion, inspection, variables, comms.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::Value;

use super::wire::{
    CommBody, CompleteBody, DoneBody, InputBody, InspectBody, IsCompleteBody, SessionBody,
};
use crate::api::Api;
use crate::api::error::ApiError;
use crate::api::extract::{JsonBody, SessionPath};
use crate::session::{CellRequest, Completions, Inspection, Namespace};

/// The longest body with a source that does not run, in bytes.
const SOURCE: usize = 3 * CellRequest::MAX_CODE + 64 * 1024;

/// The longest comm message, in bytes.
const COMM: usize = 16 * 1024 * 1024;

/// Replaces the kernel by a new one, in the same session with the same files. Aborts what runs and waits.
#[utoipa::path(
    post, path = "/v1/sessions/{session}/restart", tag = "kernel", params(("session" = String, Path)),
    responses(
        (status = 202, description = "It is under way; the event `kernel_started` tells when it is done", body = ref("#/components/schemas/SessionBody")),
        (status = 404, description = "`unknown_session`", body = ref("#/components/schemas/ErrorBody")),
        (status = 409, description = "`session_ended`", body = ref("#/components/schemas/ErrorBody")),
    )
)]
pub(crate) async fn restart(
    State(api): State<Api>,
    SessionPath(id): SessionPath,
) -> Result<(StatusCode, Json<SessionBody>), ApiError> {
    let handle = api.sessions.find(&id).await?;
    handle.restart().await?;
    Ok((StatusCode::ACCEPTED, Json(handle.view().into())))
}

/// Answers an `input()` that waits.
#[utoipa::path(
    post, path = "/v1/sessions/{session}/input", tag = "kernel", params(("session" = String, Path)),
    request_body(content = ref("#/components/schemas/InputBody")),
    responses(
        (status = 202, description = "It was passed on", body = ref("#/components/schemas/DoneBody")),
        (status = 404, description = "`unknown_session`", body = ref("#/components/schemas/ErrorBody")),
        (status = 409, description = "`no_input`, `session_ended`", body = ref("#/components/schemas/ErrorBody")),
    )
)]
pub(crate) async fn answer_input(
    State(api): State<Api>,
    SessionPath(id): SessionPath,
    JsonBody(body): JsonBody<InputBody>,
) -> Result<(StatusCode, Json<DoneBody>), ApiError> {
    let answer = body.try_into()?;
    api.sessions.find(&id).await?.answer_input(answer).await?;
    Ok((StatusCode::ACCEPTED, Json(DoneBody {})))
}

/// Completions at a cursor.
#[utoipa::path(
    post, path = "/v1/sessions/{session}/complete", tag = "kernel", params(("session" = String, Path)),
    request_body(content = ref("#/components/schemas/CompleteBody")),
    responses(
        (status = 200, description = "What fits", body = ref("#/components/schemas/Completions")),
        (status = 404, description = "`unknown_session`", body = ref("#/components/schemas/ErrorBody")),
        (status = 409, description = "`kernel_busy`, `no_kernel`, `kernel_refused`, `session_ended`", body = ref("#/components/schemas/ErrorBody")),
    )
)]
pub(crate) async fn complete(
    State(api): State<Api>,
    SessionPath(id): SessionPath,
    JsonBody(body): JsonBody<CompleteBody, SOURCE>,
) -> Result<Json<Completions>, ApiError> {
    let (code, cursor) = body.into_parts();
    Ok(Json(
        api.sessions.find(&id).await?.complete(code, cursor).await?,
    ))
}

/// What is known about the name at a cursor.
#[utoipa::path(
    post, path = "/v1/sessions/{session}/inspect", tag = "kernel", params(("session" = String, Path)),
    request_body(content = ref("#/components/schemas/InspectBody")),
    responses(
        (status = 200, description = "What is known", body = ref("#/components/schemas/Inspection")),
        (status = 404, description = "`unknown_session`", body = ref("#/components/schemas/ErrorBody")),
        (status = 409, description = "`kernel_busy`, `no_kernel`, `kernel_refused`, `session_ended`", body = ref("#/components/schemas/ErrorBody")),
    )
)]
pub(crate) async fn inspect(
    State(api): State<Api>,
    SessionPath(id): SessionPath,
    JsonBody(body): JsonBody<InspectBody, SOURCE>,
) -> Result<Json<Inspection>, ApiError> {
    let (code, cursor, detail) = body.into_parts()?;
    Ok(Json(
        api.sessions
            .find(&id)
            .await?
            .inspect(code, cursor, detail)
            .await?,
    ))
}

/// Whether a source is complete.
#[utoipa::path(
    post, path = "/v1/sessions/{session}/is_complete", tag = "kernel", params(("session" = String, Path)),
    request_body(content = ref("#/components/schemas/IsCompleteBody")),
    responses(
        (status = 200, description = "`status`: `complete`, `incomplete` (with `indent`), `invalid` or `unknown`", body = Object),
        (status = 404, description = "`unknown_session`", body = ref("#/components/schemas/ErrorBody")),
        (status = 409, description = "`kernel_busy`, `no_kernel`, `session_ended`", body = ref("#/components/schemas/ErrorBody")),
    )
)]
pub(crate) async fn is_complete(
    State(api): State<Api>,
    SessionPath(id): SessionPath,
    JsonBody(body): JsonBody<IsCompleteBody, SOURCE>,
) -> Result<Json<Value>, ApiError> {
    Ok(Json(
        api.sessions.find(&id).await?.is_complete(body.code).await?,
    ))
}

/// The variables of the user's namespace, described without running any of their code.
#[utoipa::path(
    get, path = "/v1/sessions/{session}/variables", tag = "kernel", params(("session" = String, Path)),
    responses(
        (status = 200, description = "The variables, by name", body = ref("#/components/schemas/Namespace")),
        (status = 404, description = "`unknown_session`", body = ref("#/components/schemas/ErrorBody")),
        (status = 409, description = "`kernel_busy`, `no_kernel`, `session_ended`", body = ref("#/components/schemas/ErrorBody")),
    )
)]
pub(crate) async fn variables(
    State(api): State<Api>,
    SessionPath(id): SessionPath,
) -> Result<Json<Namespace>, ApiError> {
    Ok(Json(api.sessions.find(&id).await?.variables().await?))
}

/// The comms that are open, by id.
#[utoipa::path(
    get, path = "/v1/sessions/{session}/comms", tag = "kernel", params(("session" = String, Path)),
    responses(
        (status = 200, description = "The comms", body = Object),
        (status = 404, description = "`unknown_session`", body = ref("#/components/schemas/ErrorBody")),
        (status = 409, description = "`kernel_busy`, `no_kernel`, `session_ended`", body = ref("#/components/schemas/ErrorBody")),
    )
)]
pub(crate) async fn list_comms(
    State(api): State<Api>,
    SessionPath(id): SessionPath,
) -> Result<Json<Value>, ApiError> {
    Ok(Json(api.sessions.find(&id).await?.comm_info().await?))
}

/// Sends a comm message to the kernel. It is in the log when this answers.
#[utoipa::path(
    post, path = "/v1/sessions/{session}/comms", tag = "kernel", params(("session" = String, Path)),
    request_body(content = ref("#/components/schemas/CommBody")),
    responses(
        (status = 202, description = "It is in the log", body = ref("#/components/schemas/DoneBody")),
        (status = 404, description = "`unknown_session`", body = ref("#/components/schemas/ErrorBody")),
        (status = 409, description = "`no_kernel`, `session_ended`", body = ref("#/components/schemas/ErrorBody")),
    )
)]
pub(crate) async fn send_comm(
    State(api): State<Api>,
    SessionPath(id): SessionPath,
    JsonBody(body): JsonBody<CommBody, COMM>,
) -> Result<(StatusCode, Json<DoneBody>), ApiError> {
    let message = body.try_into()?;
    api.sessions.find(&id).await?.comm(message, None).await?;
    Ok((StatusCode::ACCEPTED, Json(DoneBody {})))
}
