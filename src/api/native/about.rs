//! What the server says of itself: that it lives, that it is ready, its version and its schemas.

use std::sync::LazyLock;

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use super::schema;
use super::wire::{DoneBody, VersionBody};
use crate::api::Api;
use crate::api::error::{ApiError, Code};

/// That the server lives.
#[utoipa::path(get, path = "/healthz", tag = "about", security(()), responses((status = 200, description = "It lives", body = ref("#/components/schemas/DoneBody"))))]
pub(crate) async fn health() -> Json<DoneBody> {
    Json(DoneBody {})
}

/// That the server takes requests.
#[utoipa::path(
    get, path = "/readyz", tag = "about", security(()),
    responses(
        (status = 200, description = "It is ready", body = ref("#/components/schemas/DoneBody")),
        (status = 503, description = "`stopping`", body = ref("#/components/schemas/ErrorBody")),
    )
)]
pub(crate) async fn ready(State(api): State<Api>) -> Result<Json<DoneBody>, ApiError> {
    if api.sessions.is_stopping() || api.config.stopping.is_cancelled() {
        return Err(ApiError::new(Code::Stopping, "the server is stopping"));
    }
    Ok(Json(DoneBody {}))
}

/// What this server is.
#[utoipa::path(get, path = "/version", tag = "about", security(()), responses((status = 200, description = "Name and version", body = ref("#/components/schemas/VersionBody"))))]
pub(crate) async fn version() -> Json<VersionBody> {
    Json(VersionBody {
        name: env!("CARGO_PKG_NAME"),
        version: env!("CARGO_PKG_VERSION"),
        api: "v1",
    })
}

/// This API, as OpenAPI.
#[utoipa::path(get, path = "/openapi.json", tag = "about", responses((status = 200, description = "An OpenAPI 3.1 document", body = Object)))]
pub(crate) async fn openapi() -> Response {
    static TEXT: LazyLock<String> = LazyLock::new(|| schema::openapi().to_string());
    json(&TEXT)
}

/// The events, as JSON Schema.
#[utoipa::path(get, path = "/v1/schema/events.json", tag = "about", responses((status = 200, description = "A JSON Schema, draft 2020-12", body = Object)))]
pub(crate) async fn events_schema() -> Response {
    static TEXT: LazyLock<String> = LazyLock::new(|| schema::events().to_string());
    json(&TEXT)
}

/// What the live view sends, as JSON Schema.
#[utoipa::path(get, path = "/v1/schema/live.json", tag = "about", responses((status = 200, description = "A JSON Schema, draft 2020-12", body = Object)))]
pub(crate) async fn live_schema() -> Response {
    static TEXT: LazyLock<String> = LazyLock::new(|| schema::live().to_string());
    json(&TEXT)
}

/// The commands and replies of the WebSocket, as JSON Schema.
#[utoipa::path(get, path = "/v1/schema/commands.json", tag = "about", responses((status = 200, description = "A JSON Schema, draft 2020-12", body = Object)))]
pub(crate) async fn commands_schema() -> Response {
    static TEXT: LazyLock<String> = LazyLock::new(|| schema::commands().to_string());
    json(&TEXT)
}

fn json(text: &'static str) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}
