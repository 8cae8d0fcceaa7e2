//! Shared notebooks over REST, as JupyterLab and VS Code keep them: files in one directory of the server, which no sandbox sees.
//!
//! Every path is checked before it is used: it stays below the directory, and no link is followed. What is written is there as a whole or not at all.

mod files;
mod path;

use axum::Json;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Deserialize;
use serde_json::{Value, json};

use super::kernels::{body, created};
use crate::api::Api;
use crate::api::error::{ApiError, Code};
use crate::api::extract::Params;
use files::{Files, Format, Kind};
use path::{Place, PlacePath};

/// The longest body, in bytes: a notebook with its figures.
const LONGEST: usize = 128 * 1024 * 1024;

/// Its routes.
pub(crate) fn router() -> Router<Api> {
    let all = || {
        get(look)
            .post(make)
            .put(save)
            .patch(rename)
            .delete(delete)
            .layer(DefaultBodyLimit::max(LONGEST))
    };
    Router::new()
        .route("/api/contents", all())
        .route("/api/contents/", all())
        .route("/api/contents/{*path}", all())
}

/// How something is looked at.
#[derive(Debug, Deserialize)]
pub(crate) struct LookParams {
    #[serde(rename = "type")]
    kind: Option<Kind>,
    format: Option<Format>,
    content: Option<u8>,
}

/// What is made, renamed or saved.
#[derive(Debug, Default, Deserialize)]
struct Model {
    path: Option<String>,
    #[serde(rename = "type")]
    kind: Option<Kind>,
    format: Option<Format>,
    content: Option<Value>,
    copy_from: Option<String>,
    ext: Option<String>,
    chunk: Option<i64>,
}

fn files(api: &Api) -> Result<Files, ApiError> {
    let Some(directory) = &api.jupyter.config.notebooks else {
        return Err(ApiError::new(
            Code::UnknownRoute,
            "this server keeps no notebooks",
        ));
    };
    Ok(Files::new(directory.clone()))
}

/// A file or directory, or its checkpoints.
async fn look(
    State(api): State<Api>,
    PlacePath(place): PlacePath,
    Params(params): Params<LookParams>,
) -> Result<Json<Value>, ApiError> {
    let files = files(&api)?;
    match place {
        Place::File(path) => {
            let with_content = params.content != Some(0);
            let model = files.model(&path, params.kind, params.format, with_content);
            Ok(Json(model.await?))
        }
        Place::Checkpoints(path) => Ok(Json(files.checkpoints(&path).await?)),
        Place::Checkpoint(_) => Err(method_not_allowed()),
    }
}

/// Makes a file without a name, a copy, or a checkpoint; goes back to one.
async fn make(
    State(api): State<Api>,
    PlacePath(place): PlacePath,
    bytes: Bytes,
) -> Result<Response, ApiError> {
    let files = files(&api)?;
    match place {
        Place::File(directory) => {
            let model: Model = body(&bytes)?;
            let path = match &model.copy_from {
                Some(from) => files.copy(&path::check(from)?, &directory).await?,
                None => {
                    let kind = model.kind.unwrap_or(Kind::File);
                    let ext = model.ext.as_deref().unwrap_or_default();
                    files.make(&directory, kind, ext).await?
                }
            };
            let model = files.model(&path, None, None, false).await?;
            Ok(created(&format!("/api/contents/{path}"), model))
        }
        Place::Checkpoints(path) => {
            let checkpoint = files.checkpoint(&path).await?;
            let at = format!("/api/contents/{path}/checkpoints/checkpoint");
            Ok(created(&at, checkpoint))
        }
        Place::Checkpoint(path) => {
            files.restore(&path).await?;
            Ok(StatusCode::NO_CONTENT.into_response())
        }
    }
}

/// Saves a file, or makes a directory.
async fn save(
    State(api): State<Api>,
    PlacePath(place): PlacePath,
    bytes: Bytes,
) -> Result<Response, ApiError> {
    let files = files(&api)?;
    let Place::File(path) = place else {
        return Err(method_not_allowed());
    };
    let model: Model = body(&bytes)?;
    if model.chunk.is_some() {
        let text = "files are saved whole here; leave out `chunk`";
        return Err(ApiError::new(Code::BadField, text).with("field", "chunk"));
    }
    let is_new = !files.exists(&path).await;
    let kind = model.kind.unwrap_or(Kind::File);
    files.save(&path, kind, model.format, model.content).await?;
    let model = files.model(&path, None, None, false).await?;
    if is_new {
        return Ok(created(&format!("/api/contents/{path}"), model));
    }
    Ok(Json(model).into_response())
}

/// Gives a file another path.
async fn rename(
    State(api): State<Api>,
    PlacePath(place): PlacePath,
    bytes: Bytes,
) -> Result<Json<Value>, ApiError> {
    let files = files(&api)?;
    let Place::File(path) = place else {
        return Err(method_not_allowed());
    };
    let model: Model = body(&bytes)?;
    let to = model
        .path
        .ok_or_else(|| ApiError::new(Code::BadField, "Missing field in JSON data: path"))?;
    let to = path::check(&to)?;
    files.rename(&path, &to).await?;
    Ok(Json(files.model(&to, None, None, false).await?))
}

/// Deletes a file, a directory with all that is in it, or a checkpoint.
async fn delete(
    State(api): State<Api>,
    PlacePath(place): PlacePath,
) -> Result<StatusCode, ApiError> {
    let files = files(&api)?;
    match place {
        Place::File(path) => files.delete(&path).await?,
        Place::Checkpoint(path) => files.delete_checkpoint(&path).await?,
        Place::Checkpoints(_) => return Err(method_not_allowed()),
    }
    Ok(StatusCode::NO_CONTENT)
}

fn method_not_allowed() -> ApiError {
    ApiError::new(Code::MethodNotAllowed, "this is not to be done here")
}

/// A notebook without cells.
fn empty_notebook() -> Value {
    json!({"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5})
}
