//! Errors as Jupyter's clients read them: `message` and `reason`, with our stable code beside them.

use axum::Json;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::api::error::ApiError;

/// Gives every error below Jupyter's routes their shape, whoever found it.
pub(crate) async fn reshape(request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let is_ours = path == "/api" || path.starts_with("/api/") || path.starts_with("/kernelspecs/");
    let mut response = next.run(request).await;
    if !is_ours {
        return response;
    }
    let Some(error) = response.extensions_mut().remove::<ApiError>() else {
        return response;
    };
    let status = response.status();
    let body = json!({
        "message": error.message(),
        "reason": status.canonical_reason(),
        "error": error.detail(),
    });
    let mut shaped = (status, Json(body)).into_response();
    for (name, value) in response.headers() {
        if !shaped.headers().contains_key(name) && name != axum::http::header::CONTENT_LENGTH {
            shaped.headers_mut().append(name, value.clone());
        }
    }
    shaped
}
