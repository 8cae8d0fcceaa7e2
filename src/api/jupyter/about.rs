//! What this server is, who asks, and which kernels there are to be had.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::kernels;
use super::time::iso;
use crate::api::Api;
use crate::api::error::{ApiError, Code};

/// The one kernel that there is.
pub(crate) const SPEC: &str = "python3";

/// Whose API this is, by its version.
const LIKE: &str = "2.17.0";

const LOGO: &str = include_str!("logo.svg");

/// The version of Jupyter Server that this speaks like.
pub(crate) async fn version() -> Json<Value> {
    Json(json!({"version": LIKE}))
}

/// What the server is doing.
pub(crate) async fn status(State(api): State<Api>) -> Json<Value> {
    let open = api.sessions.open_ones();
    let connected =
        |view: &crate::session::view::SessionView| api.jupyter.clients.connected(&view.id);
    let active = open.iter().map(|view| view.active_at_ms).max();
    Json(json!({
        "connections": open.iter().map(connected).sum::<usize>(),
        "kernels": open.len(),
        "last_activity": active.map_or_else(|| api.jupyter.started.clone(), iso),
        "started": api.jupyter.started,
    }))
}

/// Who asks: whoever has the token.
pub(crate) async fn me() -> Json<Value> {
    Json(json!({
        "identity": {
            "username": "evercell",
            "name": "Evercell",
            "display_name": "Evercell",
            "initials": "E",
            "avatar_url": null,
            "color": null,
        },
        "permissions": {},
    }))
}

fn spec() -> Value {
    json!({
        "name": SPEC,
        "spec": {
            "argv": [],
            "env": {},
            "display_name": "Python 3 (Evercell)",
            "language": "python",
            "interrupt_mode": "message",
            "metadata": {"debugger": false},
        },
        "resources": {"logo-svg": format!("/kernelspecs/{SPEC}/logo-svg.svg")},
    })
}

/// Which kernels there are to be had.
pub(crate) async fn kernelspecs() -> Json<Value> {
    Json(json!({"default": SPEC, "kernelspecs": {SPEC: spec()}}))
}

/// One of them.
pub(crate) async fn kernelspec(Path(name): Path<String>) -> Result<Json<Value>, ApiError> {
    if name == SPEC {
        Ok(Json(spec()))
    } else {
        Err(kernels::no_such_spec(&name))
    }
}

/// What belongs to it.
pub(crate) async fn resource(
    Path((name, file)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    if name == SPEC && file == "logo-svg.svg" {
        let kind = HeaderValue::from_static("image/svg+xml");
        return Ok(([(header::CONTENT_TYPE, kind)], LOGO).into_response());
    }
    let text = format!("there is no resource `{file}` of a kernel spec `{name}`");
    Err(ApiError::new(Code::UnknownFile, text))
}
