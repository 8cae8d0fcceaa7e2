//! Jupyter's sessions: a notebook's path beside the kernel that runs it. Kept as labels of the kernel's own session, so that they outlive a restart of the server.

use std::collections::BTreeMap;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::kernels::{self, Wanted};
use crate::api::Api;
use crate::api::error::{ApiError, Code};
use crate::model::id::SessionId;
use crate::session::view::SessionView;

/// The labels in which a session is kept.
const ID: &str = "jupyter.session";
const PATH: &str = "jupyter.path";
const NAME: &str = "jupyter.name";
const TYPE: &str = "jupyter.type";

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

/// A session, as Jupyter's clients know one; none for a kernel that has none.
fn model(api: &Api, view: &SessionView) -> Option<Value> {
    let labels = &view.settings.labels;
    let label = |name: &str| labels.get(name).map_or("", String::as_str);
    let id = labels.get(ID)?;
    let mut model = json!({
        "id": id,
        "path": label(PATH),
        "name": label(NAME),
        "type": label(TYPE),
        "kernel": kernels::model(api, view),
    });
    if label(TYPE) == "notebook" {
        model["notebook"] = json!({"path": label(PATH), "name": label(NAME)});
    }
    Some(model)
}

/// The kernel of the session whose label has this value.
fn kernel_of(api: &Api, label: &str, value: &str) -> Option<SessionView> {
    let open = api.sessions.open_ones();
    let has = |view: &SessionView| {
        let labels = &view.settings.labels;
        labels.contains_key(ID) && labels.get(label).is_some_and(|has| has == value)
    };
    open.into_iter().find(has)
}

fn find(api: &Api, id: &str) -> Result<SessionView, ApiError> {
    kernel_of(api, ID, id).ok_or_else(|| {
        ApiError::new(
            Code::UnknownSession,
            format!("Session not found: session_id='{id}'"),
        )
    })
}

fn shown(api: &Api, view: &SessionView) -> Value {
    model(api, view).unwrap_or_default()
}

/// The sessions that are open.
pub(crate) async fn list(State(api): State<Api>) -> Json<Vec<Value>> {
    let open = api.sessions.open_ones();
    Json(open.iter().filter_map(|view| model(&api, view)).collect())
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
    if let Some(view) = kernel_of(&api, PATH, &path) {
        return Ok(made(&shown(&api, &view)));
    }
    let labels = BTreeMap::from([
        (ID.to_owned(), uuid::Uuid::new_v4().to_string()),
        (PATH.to_owned(), path),
        (NAME.to_owned(), body.name.unwrap_or_default()),
        (TYPE.to_owned(), kind),
    ]);
    let kernel = body.kernel.unwrap_or_default();
    let view = match with_kernel(&api, kernel, &headers, labels).await {
        Ok(view) => view,
        Err(error) if error.code() == Code::UnknownRoute => return Ok(no_kernel(&error)),
        Err(error) => return Err(error),
    };
    Ok(made(&shown(&api, &view)))
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

/// Labels as what is to be changed.
fn changes(labels: BTreeMap<String, String>) -> BTreeMap<String, Option<String>> {
    labels
        .into_iter()
        .map(|(name, text)| (name, Some(text)))
        .collect()
}

/// Takes the kernel that is named, or makes one, and notes the session with it.
async fn with_kernel(
    api: &Api,
    kernel: KernelBody,
    headers: &HeaderMap,
    labels: BTreeMap<String, String>,
) -> Result<SessionView, ApiError> {
    let Some(id) = kernel.id.filter(|id| !id.is_empty()) else {
        let wanted = Wanted {
            name: kernel.name,
            env: kernel.env,
        };
        return Ok(kernels::open(api, &wanted, headers, labels).await?.view());
    };
    let gone = || ApiError::new(Code::BadField, format!("No such kernel: {id}"));
    let id: SessionId = id.parse().map_err(|_| gone())?;
    let handle = kernels::find(api, &id).await.map_err(|_| gone())?;
    handle.label(changes(labels)).await?;
    Ok(handle.view())
}

/// What a session is.
pub(crate) async fn get(
    State(api): State<Api>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let view = find(&api, &id)?;
    Ok(Json(shown(&api, &view)))
}

/// Changes a session: where its notebook lies, what it is called, which kernel it has.
pub(crate) async fn change(
    State(api): State<Api>,
    Path(id): Path<String>,
    headers: HeaderMap,
    bytes: Bytes,
) -> Result<Response, ApiError> {
    let body = Body::read(&bytes)?;
    let before = find(&api, &id)?;
    let named = [(PATH, body.path), (NAME, body.name), (TYPE, body.kind)];
    let named: BTreeMap<String, String> = named
        .into_iter()
        .filter_map(|(label, value)| Some((label.to_owned(), value?)))
        .collect();
    let wanted = body.kernel.filter(|kernel| {
        let other = kernel.id.as_deref().filter(|id| !id.is_empty());
        match other {
            Some(id) => id != before.id.as_str(),
            None => kernel.name.is_some(),
        }
    });
    let Some(kernel) = wanted else {
        let handle = kernels::find(&api, &before.id).await?;
        handle.label(changes(named)).await?;
        return Ok(Json(shown(&api, &handle.view())).into_response());
    };
    let mut labels = before.settings.labels.clone();
    labels.extend(named);
    let view = match with_kernel(&api, kernel, &headers, labels).await {
        Ok(view) => view,
        Err(error) if error.code() == Code::UnknownRoute => return Ok(no_kernel(&error)),
        Err(error) => return Err(error),
    };
    // Only now: a new kernel that cannot be had leaves the old one.
    kernels::remove(&api, &before.id).await?;
    Ok(Json(shown(&api, &view)).into_response())
}

/// Ends a session and its kernel.
pub(crate) async fn delete(
    State(api): State<Api>,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    let view = find(&api, &id)?;
    kernels::remove(&api, &view.id).await?;
    Ok(StatusCode::NO_CONTENT)
}
