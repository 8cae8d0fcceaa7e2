//! Jupyter's sessions: a notebook's path beside the kernel that runs it. Each is kept as a label of the kernel's own session, so that they outlive a restart
//! of the server. A kernel may have several; it ends with any of them, and they with it, as with Jupyter's server.

use std::collections::BTreeMap;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::kernels::{self, Wanted};
use crate::api::Api;
use crate::api::error::{ApiError, Code};
use crate::model::id::SessionId;
use crate::session::view::SessionView;

/// What the name of a label begins with in which a session is kept; its id follows.
const LABEL: &str = "jupyter.session.";

/// What is kept of a session, beside its id.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Kept {
    path: String,
    name: String,
    #[serde(rename = "type")]
    kind: String,
}

/// A session, with the kernel that it is kept with.
struct Found {
    view: SessionView,
    id: String,
    kept: Kept,
}

impl Found {
    /// As Jupyter's clients know it.
    fn model(&self, api: &Api) -> Value {
        let Kept { path, name, kind } = &self.kept;
        let mut model = json!({
            "id": self.id,
            "path": path,
            "name": name,
            "type": kind,
            "kernel": kernels::model(api, &self.view),
        });
        if kind == "notebook" {
            model["notebook"] = json!({"path": path, "name": name});
        }
        model
    }
}

/// The label in which a session is kept.
fn label(id: &str, kept: &Kept) -> (String, String) {
    let kept = serde_json::to_string(kept).expect("a session is made of texts");
    (format!("{LABEL}{id}"), kept)
}

/// What a session is asked to be.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Body {
    path: Option<String>,
    name: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    kernel: Option<KernelBody>,
    /// As it was said before `path` and `type` were there.
    notebook: Option<NotebookBody>,
}

/// Which kernel.
#[derive(Debug, Default, Deserialize)]
struct KernelBody {
    id: Option<String>,
    name: Option<String>,
    #[serde(default)]
    env: Option<BTreeMap<String, Value>>,
}

#[derive(Debug, Deserialize)]
struct NotebookBody {
    path: Option<String>,
    name: Option<String>,
}

impl Body {
    fn read(bytes: &Bytes) -> Result<Self, ApiError> {
        if bytes.trim_ascii().is_empty() {
            return Err(ApiError::new(Code::BadJson, "No JSON data provided"));
        }
        let mut body: Self = kernels::body(bytes)?;
        if let Some(notebook) = body.notebook.take() {
            body.path = body.path.or(notebook.path).or(notebook.name);
            body.kind = body.kind.or(Some("notebook".to_owned()));
        }
        Ok(body)
    }
}

fn missing(field: &str) -> ApiError {
    ApiError::new(
        Code::BadField,
        format!("Missing field in JSON data: {field}"),
    )
}

/// The sessions that are open.
fn open_ones(api: &Api) -> impl Iterator<Item = Found> {
    api.sessions.open_ones().into_iter().flat_map(|view| {
        let labels = view.settings.labels.clone();
        labels.into_iter().filter_map(move |(label, kept)| {
            Some(Found {
                id: label.strip_prefix(LABEL)?.to_owned(),
                // Whoever else writes labels may write what he likes.
                kept: serde_json::from_str(&kept).ok()?,
                view: view.clone(),
            })
        })
    })
}

fn find(api: &Api, id: &str) -> Result<Found, ApiError> {
    open_ones(api).find(|found| found.id == id).ok_or_else(|| {
        ApiError::new(
            Code::UnknownSession,
            format!("Session not found: session_id='{id}'"),
        )
    })
}

/// The sessions that are open.
pub(crate) async fn list(State(api): State<Api>) -> Json<Vec<Value>> {
    Json(open_ones(&api).map(|found| found.model(&api)).collect())
}

/// Opens a session, or finds the one of the same path.
pub(crate) async fn create(
    State(api): State<Api>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<Response, ApiError> {
    let body = Body::read(&bytes)?;
    let path = body.path.ok_or_else(|| missing("path"))?;
    let kind = body.kind.ok_or_else(|| missing("type"))?;
    if let Some(found) = open_ones(&api).find(|found| found.kept.path == path) {
        return Ok(made(&found.model(&api)));
    }
    let id = uuid::Uuid::new_v4().to_string();
    let kept = Kept {
        path,
        name: body.name.unwrap_or_default(),
        kind,
    };
    let kernel = body.kernel.unwrap_or_default();
    let view = match with_kernel(&api, kernel, &headers, label(&id, &kept)).await {
        Ok(view) => view,
        Err(error) if error.code() == Code::UnknownRoute => return Ok(no_kernel(&error)),
        Err(error) => return Err(error),
    };
    Ok(made(&Found { view, id, kept }.model(&api)))
}

fn made(model: &Value) -> Response {
    let id = model["id"].as_str().unwrap_or_default();
    kernels::created(&format!("/api/sessions/{id}"), model.clone())
}

/// As Jupyter's server says it: 501, with a shorter message beside.
fn no_kernel(error: &ApiError) -> Response {
    let body = json!({"message": error.message(), "short_message": "kernel not found", "error": error.detail()});
    (StatusCode::NOT_IMPLEMENTED, Json(body)).into_response()
}

/// Takes the kernel that is named, or makes one, and notes the session with it.
async fn with_kernel(
    api: &Api,
    kernel: KernelBody,
    headers: &HeaderMap,
    (label, kept): (String, String),
) -> Result<SessionView, ApiError> {
    let Some(id) = kernel.id.filter(|id| !id.is_empty()) else {
        let wanted = Wanted {
            name: kernel.name,
            env: kernel.env,
        };
        let labels = BTreeMap::from([(label, kept)]);
        return Ok(kernels::open(api, &wanted, headers, labels).await?.view());
    };
    let gone = || ApiError::new(Code::BadField, format!("No such kernel: {id}"));
    let id: SessionId = id.parse().map_err(|_| gone())?;
    let handle = kernels::find(api, &id).await.map_err(|_| gone())?;
    handle.label(BTreeMap::from([(label, Some(kept))])).await?;
    Ok(handle.view())
}

/// What a session is.
pub(crate) async fn get(
    State(api): State<Api>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    Ok(Json(find(&api, &id)?.model(&api)))
}

/// Changes a session: where its notebook lies, what it is called, which kernel it has.
pub(crate) async fn change(
    State(api): State<Api>,
    Path(id): Path<String>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<Response, ApiError> {
    let body = Body::read(&bytes)?;
    let Found {
        view: before, kept, ..
    } = find(&api, &id)?;
    let kept = Kept {
        path: body.path.unwrap_or(kept.path),
        name: body.name.unwrap_or(kept.name),
        kind: body.kind.unwrap_or(kept.kind),
    };
    let other = |kernel: &KernelBody| match kernel.id.as_deref().filter(|id| !id.is_empty()) {
        Some(id) => id != before.id.as_str(),
        None => kernel.name.is_some(),
    };
    let wanted = body.kernel.filter(other);
    let goes = wanted.is_some();
    let kernel = wanted.unwrap_or_else(|| KernelBody {
        id: Some(before.id.to_string()),
        ..KernelBody::default()
    });
    let view = match with_kernel(&api, kernel, &headers, label(&id, &kept)).await {
        Ok(view) => view,
        Err(error) if error.code() == Code::UnknownRoute => return Ok(no_kernel(&error)),
        Err(error) => return Err(error),
    };
    if goes {
        // Only now: a new kernel that cannot be had leaves the old one.
        kernels::remove(&api, &before.id).await?;
    }
    Ok(Json(Found { view, id, kept }.model(&api)).into_response())
}

/// Ends a session and its kernel.
pub(crate) async fn delete(
    State(api): State<Api>,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    kernels::remove(&api, &find(&api, &id)?.view.id).await?;
    Ok(StatusCode::NO_CONTENT)
}
