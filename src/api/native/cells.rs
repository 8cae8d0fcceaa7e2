//! Cells: submit, wait for, look at, extend, interrupt, cancel.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use tokio::time::Instant;

use super::follow::{Patience, follow};
use super::result::{CellResult, Extent};
use super::wire::{DeadlineBody, ExecuteBody, ExtendBody, InterruptedBody, SubmittedBody};
use crate::api::Api;
use crate::api::error::{ApiError, Code};
use crate::api::extract::{CellPath, JsonBody, Params, SessionPath, switch};
use crate::session::CellRequest;

/// The longest body with a cell, in bytes: JSON can make three times of a source.
const CELL: usize = 3 * CellRequest::MAX_CODE + 64 * 1024;

/// The longest a call may be asked to wait.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 3600);

/// Whether to wait for the result, and how much of it is wanted.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ResultParams {
    /// Wait for the cell to end.
    #[serde(default, deserialize_with = "switch")]
    wait: bool,
    /// Wait at most so long.
    wait_ms: Option<u64>,
    /// How much of a long text to give.
    preview_bytes: Option<usize>,
    /// The longest value of a mime bundle to give.
    value_bytes: Option<usize>,
}

impl ResultParams {
    fn extent(&self) -> Result<Extent, ApiError> {
        let default = Extent::default();
        let extent = Extent {
            preview_bytes: self.preview_bytes.unwrap_or(default.preview_bytes),
            value_bytes: self.value_bytes.unwrap_or(default.value_bytes),
            ..default
        };
        if extent.preview_bytes.max(extent.value_bytes) > default.total_bytes {
            let text = format!(
                "`preview_bytes` and `value_bytes` are at most {}",
                default.total_bytes
            );
            return Err(ApiError::new(Code::BadParameter, text));
        }
        Ok(extent)
    }

    fn patience(&self) -> Result<Patience, ApiError> {
        let Some(wait_ms) = self.wait_ms else {
            return Ok(if self.wait {
                Patience::Endless
            } else {
                Patience::None
            });
        };
        match Duration::from_millis(wait_ms) {
            Duration::ZERO => Ok(Patience::None),
            wait if wait <= LONGEST_WAIT => Ok(Patience::Until(Instant::now() + wait)),
            _ => Err(ApiError::new(
                Code::BadParameter,
                format!("`wait_ms` is at most {}", LONGEST_WAIT.as_millis()),
            )),
        }
    }
}

/// Submits a cell.
///
/// When this answers, the cell is in the log, on disk, and it runs whatever becomes of the connection. With `wait` or `wait_ms` it answers when the
/// cell has ended, with the result, as `run` does.
#[utoipa::path(
    post, path = "/v1/sessions/{session}/cells", tag = "cells",
    params(
        ("session" = String, Path),
        ("wait" = Option<bool>, Query, description = "Answer when the cell has ended, with its result"),
        ("wait_ms" = Option<u64>, Query, description = "Wait at most so long for that"),
        ("preview_bytes" = Option<u64>, Query, description = "How much of a long text the result holds; 16384 if not said"),
        ("value_bytes" = Option<u64>, Query, description = "The longest value of a mime bundle that the result holds; 1048576 if not said"),
        ("Idempotency-Key" = Option<String>, Header, description = "As `key` in the body"),
    ),
    request_body(content = ref("#/components/schemas/ExecuteBody")),
    responses(
        (status = 202, description = "It is in the log. (With `wait_ms`: it has not ended yet; the body is a CellResult.)", body = ref("#/components/schemas/SubmittedBody")),
        (status = 200, description = "With `wait`: it has ended", body = ref("#/components/schemas/CellResult")),
        (status = 400, description = "`bad_json`, `unknown_field`, `bad_field`, `bad_parameter`", body = ref("#/components/schemas/ErrorBody")),
        (status = 404, description = "`unknown_session`", body = ref("#/components/schemas/ErrorBody")),
        (status = 409, description = "`session_ended`, `key_reused`", body = ref("#/components/schemas/ErrorBody")),
        (status = 413, description = "`cell_too_large`, `too_large`", body = ref("#/components/schemas/ErrorBody")),
        (status = 429, description = "`queue_full`, `busy`", body = ref("#/components/schemas/ErrorBody")),
        (status = 507, description = "`store_full`", body = ref("#/components/schemas/ErrorBody")),
    )
)]
pub(crate) async fn submit(
    State(api): State<Api>,
    SessionPath(id): SessionPath,
    Params(params): Params<ResultParams>,
    headers: HeaderMap,
    JsonBody(body): JsonBody<ExecuteBody, CELL>,
) -> Result<Response, ApiError> {
    let (patience, extent) = (params.patience()?, params.extent()?);
    let waits = !matches!(patience, Patience::None);
    let request = body.into_request(idempotency_key(&headers)?, !waits)?;
    let handle = api.sessions.find(&id).await?;
    let queued = handle.execute(request).await?;
    if !waits {
        return Ok((StatusCode::ACCEPTED, Json(SubmittedBody::from(queued))).into_response());
    }
    let result = follow(
        handle.log(),
        queued.cell,
        queued.seq,
        None,
        extent,
        patience,
        &api.config.stopping,
    )
    .await?;
    Ok(answer(result))
}

/// Submits a cell and waits for its result.
///
/// If the connection drops the cell runs on; its result is then to be had from its own address, or by the same call with the same key.
#[utoipa::path(
    post, path = "/v1/sessions/{session}/run", tag = "cells",
    params(
        ("session" = String, Path),
        ("wait_ms" = Option<u64>, Query, description = "Wait at most so long"),
        ("preview_bytes" = Option<u64>, Query, description = "How much of a long text the result holds; 16384 if not said"),
        ("value_bytes" = Option<u64>, Query, description = "The longest value of a mime bundle that the result holds; 1048576 if not said"),
        ("Idempotency-Key" = Option<String>, Header, description = "As `key` in the body"),
    ),
    request_body(content = ref("#/components/schemas/ExecuteBody")),
    responses(
        (status = 200, description = "It has ended, well or not", body = ref("#/components/schemas/CellResult")),
        (status = 202, description = "It has not ended within `wait_ms`, or the server stops", body = ref("#/components/schemas/CellResult")),
        (status = "default", description = "As for `cells`", body = ref("#/components/schemas/ErrorBody")),
    )
)]
pub(crate) async fn run(
    state: State<Api>,
    session: SessionPath,
    Params(params): Params<ResultParams>,
    headers: HeaderMap,
    body: JsonBody<ExecuteBody, CELL>,
) -> Result<Response, ApiError> {
    submit(
        state,
        session,
        Params(ResultParams {
            wait: true,
            ..params
        }),
        headers,
        body,
    )
    .await
}

/// A cell's state and result so far.
#[utoipa::path(
    get, path = "/v1/sessions/{session}/cells/{cell}", tag = "cells",
    params(
        ("session" = String, Path),
        ("cell" = String, Path),
        ("wait" = Option<bool>, Query, description = "Answer when the cell has ended"),
        ("wait_ms" = Option<u64>, Query, description = "Wait at most so long for that"),
        ("preview_bytes" = Option<u64>, Query, description = "How much of a long text the result holds; 16384 if not said"),
        ("value_bytes" = Option<u64>, Query, description = "The longest value of a mime bundle that the result holds; 1048576 if not said"),
    ),
    responses(
        (status = 200, description = "It has ended, well or not", body = ref("#/components/schemas/CellResult")),
        (status = 202, description = "It has not ended yet", body = ref("#/components/schemas/CellResult")),
        (status = 404, description = "`unknown_session`, `unknown_cell`", body = ref("#/components/schemas/ErrorBody")),
    )
)]
pub(crate) async fn get(
    State(api): State<Api>,
    SessionPath(id): SessionPath,
    CellPath(cell): CellPath,
    Params(params): Params<ResultParams>,
) -> Result<Response, ApiError> {
    let (patience, extent) = (params.patience()?, params.extent()?);
    let row = api.sessions.cell(&id, cell).await?;
    let log = api.sessions.log(&id).await?;
    let result = follow(
        &log,
        cell,
        row.queued,
        row.finished,
        extent,
        patience,
        &api.config.stopping,
    )
    .await?;
    Ok(answer(result))
}

fn answer(result: CellResult) -> Response {
    let status = if result.is_finished() {
        StatusCode::OK
    } else {
        StatusCode::ACCEPTED
    };
    (status, Json(result)).into_response()
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let Some(value) = headers.get("idempotency-key") else {
        return Ok(None);
    };
    let text = value.to_str().map_err(|_| {
        ApiError::new(
            Code::BadParameter,
            "the header `Idempotency-Key` is not plain text",
        )
    })?;
    Ok(Some(text.to_owned()))
}

/// Takes a waiting cell out of the queue.
#[utoipa::path(
    delete, path = "/v1/sessions/{session}/cells/{cell}", tag = "cells", params(("session" = String, Path), ("cell" = String, Path)),
    responses(
        (status = 204, description = "It will not run"),
        (status = 404, description = "`unknown_session`, `unknown_cell`", body = ref("#/components/schemas/ErrorBody")),
        (status = 409, description = "`cell_runs`, `cell_finished`, `session_ended`", body = ref("#/components/schemas/ErrorBody")),
    )
)]
pub(crate) async fn cancel(
    State(api): State<Api>,
    SessionPath(id): SessionPath,
    CellPath(cell): CellPath,
) -> Result<StatusCode, ApiError> {
    api.sessions.find(&id).await?.cancel(cell).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Moves the deadline of a cell that runs or waits.
#[utoipa::path(
    post, path = "/v1/sessions/{session}/cells/{cell}/extend", tag = "cells", params(("session" = String, Path), ("cell" = String, Path)),
    request_body(content = ref("#/components/schemas/ExtendBody")),
    responses(
        (status = 200, description = "The new deadline", body = ref("#/components/schemas/DeadlineBody")),
        (status = 404, description = "`unknown_session`, `unknown_cell`", body = ref("#/components/schemas/ErrorBody")),
        (status = 409, description = "`beyond_ceiling` (with `grantable_ms`), `cell_finished`, `session_ended`", body = ref("#/components/schemas/ErrorBody")),
    )
)]
pub(crate) async fn extend(
    State(api): State<Api>,
    SessionPath(id): SessionPath,
    CellPath(cell): CellPath,
    JsonBody(ExtendBody { by_ms }): JsonBody<ExtendBody>,
) -> Result<Json<DeadlineBody>, ApiError> {
    let deadlines = api
        .sessions
        .find(&id)
        .await?
        .extend(Some(cell), Duration::from_millis(by_ms))
        .await?;
    Ok(Json(deadlines.into()))
}

/// Moves the deadline of the cell that runs.
#[utoipa::path(
    post, path = "/v1/sessions/{session}/extend", tag = "cells", params(("session" = String, Path)),
    request_body(content = ref("#/components/schemas/ExtendBody")),
    responses(
        (status = 200, description = "The new deadline", body = ref("#/components/schemas/DeadlineBody")),
        (status = 404, description = "`unknown_session`", body = ref("#/components/schemas/ErrorBody")),
        (status = 409, description = "`nothing_runs`, `beyond_ceiling` (with `grantable_ms`), `session_ended`", body = ref("#/components/schemas/ErrorBody")),
    )
)]
pub(crate) async fn extend_running(
    State(api): State<Api>,
    SessionPath(id): SessionPath,
    JsonBody(ExtendBody { by_ms }): JsonBody<ExtendBody>,
) -> Result<Json<DeadlineBody>, ApiError> {
    let deadlines = api
        .sessions
        .find(&id)
        .await?
        .extend(None, Duration::from_millis(by_ms))
        .await?;
    Ok(Json(deadlines.into()))
}

/// Interrupts a cell, if it is the one that runs, and aborts the cells behind it.
#[utoipa::path(
    post, path = "/v1/sessions/{session}/cells/{cell}/interrupt", tag = "cells", params(("session" = String, Path), ("cell" = String, Path)),
    responses(
        (status = 202, description = "It is being interrupted; the log tells how that goes", body = ref("#/components/schemas/InterruptedBody")),
        (status = 404, description = "`unknown_session`, `unknown_cell`", body = ref("#/components/schemas/ErrorBody")),
        (status = 409, description = "`nothing_runs`, `cell_finished`, `session_ended`", body = ref("#/components/schemas/ErrorBody")),
    )
)]
pub(crate) async fn interrupt(
    State(api): State<Api>,
    SessionPath(id): SessionPath,
    CellPath(cell): CellPath,
) -> Result<(StatusCode, Json<InterruptedBody>), ApiError> {
    let interruption = api.sessions.find(&id).await?.interrupt(Some(cell)).await?;
    Ok((StatusCode::ACCEPTED, Json(interruption.into())))
}

/// Interrupts the cell that runs, if one does, and aborts the cells behind it.
#[utoipa::path(
    post, path = "/v1/sessions/{session}/interrupt", tag = "cells", params(("session" = String, Path)),
    responses(
        (status = 202, description = "What ran is being interrupted; `cell` is null if nothing did", body = ref("#/components/schemas/InterruptedBody")),
        (status = 404, description = "`unknown_session`", body = ref("#/components/schemas/ErrorBody")),
        (status = 409, description = "`session_ended`", body = ref("#/components/schemas/ErrorBody")),
    )
)]
pub(crate) async fn interrupt_running(
    State(api): State<Api>,
    SessionPath(id): SessionPath,
) -> Result<(StatusCode, Json<InterruptedBody>), ApiError> {
    let interruption = api.sessions.find(&id).await?.interrupt(None).await?;
    Ok((StatusCode::ACCEPTED, Json(interruption.into())))
}
