//! Sessions: open, look at, list, delete.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;

use super::wire::{LabelsBody, OpenedBody, SessionBody, SessionList, UsageBody};
use crate::api::Api;
use crate::api::error::{ApiError, Code};
use crate::api::extract::{JsonBody, Params, SessionPath};
use crate::model::id::SessionId;
use crate::model::settings::SettingsRequest;

/// The longest settings, in bytes: environment variables have 64 KiB, which JSON can double.
const SETTINGS: usize = 128 * 1024;

/// Opens a session: gets it, makes it, or begins a new life of one that had ended.
///
/// Safe to repeat and to race. Settings that are left out are the server's defaults; settings that differ from those of an open session are refused.
#[utoipa::path(
    put, path = "/v1/sessions/{session}", tag = "sessions", params(("session" = String, Path, description = "The caller's own id: 1 to 128 of letters, digits, `.`, `_`, `:`, `-`")),
    request_body(content = ref("#/components/schemas/SettingsRequest"), description = "Wishes; may be left out"),
    responses(
        (status = 200, description = "It was there (`existing`), or had ended and lives again (`reopened`)", body = ref("#/components/schemas/SessionBody")),
        (status = 201, description = "It is new (`created`)", body = ref("#/components/schemas/SessionBody")),
        (status = 400, description = "`bad_session_id`, `bad_json`, `unknown_field`, `bad_field`, `bad_settings`", body = ref("#/components/schemas/ErrorBody")),
        (status = 409, description = "`settings_differ`", body = ref("#/components/schemas/ErrorBody")),
        (status = 429, description = "`too_many_sessions`", body = ref("#/components/schemas/ErrorBody")),
        (status = 507, description = "`store_full`", body = ref("#/components/schemas/ErrorBody")),
    )
)]
pub(crate) async fn open(
    State(api): State<Api>,
    SessionPath(id): SessionPath,
    JsonBody(wish): JsonBody<SettingsRequest, SETTINGS>,
) -> Result<(StatusCode, Json<SessionBody>), ApiError> {
    let (handle, opened) = api.sessions.open(id, &wish).await?;
    let opened = OpenedBody::from(opened);
    let status = if opened == OpenedBody::Created {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    Ok((
        status,
        Json(SessionBody {
            opened: Some(opened),
            ..handle.view().into()
        }),
    ))
}

/// What a session is doing, also one that has ended.
#[utoipa::path(
    get, path = "/v1/sessions/{session}", tag = "sessions", params(("session" = String, Path)),
    responses(
        (status = 200, description = "The session", body = ref("#/components/schemas/SessionBody")),
        (status = 404, description = "`unknown_session`", body = ref("#/components/schemas/ErrorBody")),
    )
)]
pub(crate) async fn get(
    State(api): State<Api>,
    SessionPath(id): SessionPath,
) -> Result<Json<SessionBody>, ApiError> {
    Ok(Json(api.sessions.view(&id).await?.into()))
}

/// Changes labels of a session that is open: those that are named, and no others.
#[utoipa::path(
    patch, path = "/v1/sessions/{session}", tag = "sessions", params(("session" = String, Path)),
    request_body(content = ref("#/components/schemas/LabelsBody")),
    responses(
        (status = 200, description = "They are changed", body = ref("#/components/schemas/SessionBody")),
        (status = 400, description = "`bad_json`, `unknown_field`, `bad_field`, `bad_settings`", body = ref("#/components/schemas/ErrorBody")),
        (status = 404, description = "`unknown_session`", body = ref("#/components/schemas/ErrorBody")),
        (status = 409, description = "`session_ended`", body = ref("#/components/schemas/ErrorBody")),
        (status = 507, description = "`store_full`", body = ref("#/components/schemas/ErrorBody")),
    )
)]
pub(crate) async fn label(
    State(api): State<Api>,
    SessionPath(id): SessionPath,
    JsonBody(body): JsonBody<LabelsBody, SETTINGS>,
) -> Result<Json<SessionBody>, ApiError> {
    let handle = api.sessions.find(&id).await?;
    handle.label(body.labels).await?;
    Ok(Json(handle.view().into()))
}

/// What a session uses at this moment, also while a cell runs. Nothing of it goes into the log.
#[utoipa::path(
    get, path = "/v1/sessions/{session}/usage", tag = "sessions", params(("session" = String, Path)),
    responses(
        (status = 200, description = "What it uses", body = ref("#/components/schemas/UsageBody")),
        (status = 404, description = "`unknown_session`", body = ref("#/components/schemas/ErrorBody")),
        (status = 409, description = "`no_kernel`, `session_ended`", body = ref("#/components/schemas/ErrorBody")),
    )
)]
pub(crate) async fn usage(
    State(api): State<Api>,
    SessionPath(id): SessionPath,
) -> Result<Json<UsageBody>, ApiError> {
    Ok(Json(api.sessions.find(&id).await?.usage().await?.into()))
}

/// Which part of a list is wanted.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListParams {
    /// Begin after this id.
    after: Option<SessionId>,
    /// How many at most.
    limit: Option<usize>,
}

/// The sessions by id, ended ones included.
#[utoipa::path(
    get, path = "/v1/sessions", tag = "sessions",
    params(("after" = Option<String>, Query, description = "Begin after this id"), ("limit" = Option<u32>, Query, description = "How many at most, 1 to 1000; 100 if not said")),
    responses(
        (status = 200, description = "Some of them", body = ref("#/components/schemas/SessionList")),
        (status = 400, description = "`bad_parameter`, `unknown_field`", body = ref("#/components/schemas/ErrorBody")),
    )
)]
pub(crate) async fn list(
    State(api): State<Api>,
    Params(params): Params<ListParams>,
) -> Result<Json<SessionList>, ApiError> {
    let limit = params.limit.unwrap_or(100);
    if !(1..=1000).contains(&limit) {
        return Err(ApiError::new(Code::BadParameter, "`limit` is 1 to 1000"));
    }
    let mut views = api.sessions.list(params.after, limit + 1).await?;
    let more = views.len() > limit;
    views.truncate(limit);
    Ok(Json(SessionList {
        sessions: views.into_iter().map(Into::into).collect(),
        more,
    }))
}

/// Ends a session and removes all that is left of it: kernel, files and log.
#[utoipa::path(
    delete, path = "/v1/sessions/{session}", tag = "sessions", params(("session" = String, Path)),
    responses(
        (status = 204, description = "It is gone"),
        (status = 404, description = "`unknown_session`", body = ref("#/components/schemas/ErrorBody")),
    )
)]
pub(crate) async fn delete(
    State(api): State<Api>,
    SessionPath(id): SessionPath,
) -> Result<StatusCode, ApiError> {
    api.sessions.delete(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}
