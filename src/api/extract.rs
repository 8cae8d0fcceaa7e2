//! From a request to typed values, with every refusal in our own shape.

use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody as _};
use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequest, FromRequestParts, Query, RawPathParams, Request};
use axum::http::request::Parts;
use futures_util::StreamExt as _;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::error::{ApiError, Code};
use crate::model::id::{CellId, CheckpointName, CheckpointNameError, SessionId};

/// How long a body of JSON may take to arrive, and how long an upload may pause.
pub(crate) const BODY_PATIENCE: Duration = Duration::from_secs(30);

/// A body of JSON of at most `MAX` bytes. An empty body is `{}`. The content type is not looked at, so that a bare
/// `curl -d` works; what that header would protect from is refused by its origin.
#[derive(Debug)]
pub(crate) struct JsonBody<T, const MAX: usize = { 1024 * 1024 }>(pub(crate) T);

impl<T: DeserializeOwned, S: Sync, const MAX: usize> FromRequest<S> for JsonBody<T, MAX> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let bytes = timeout(BODY_PATIENCE, collect(request.into_body(), MAX))
            .await
            .map_err(|_| ApiError::new(Code::RequestTimeout, "the body did not come in time"))??;
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return parse_json(b"{}").map(Self);
        }
        parse_json(&bytes).map(Self)
    }
}

async fn collect(body: Body, max: usize) -> Result<Bytes, ApiError> {
    let too_large = || {
        ApiError::new(
            Code::TooLarge,
            format!("at most {max} bytes are accepted here"),
        )
        .with("bound", max)
    };
    if body.size_hint().lower() > max as u64 {
        return Err(too_large());
    }
    let mut pieces = body.into_data_stream();
    let mut all = Vec::new();
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|_| ApiError::new(Code::BadJson, "the body broke off"))?;
        if all.len() + piece.len() > max {
            return Err(too_large());
        }
        all.extend_from_slice(&piece);
    }
    Ok(all.into())
}

/// Parses an object of JSON from outside, and says what is wrong with it in a way that helps.
pub(crate) fn parse_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    // A list would be taken for the fields in their order, which is nobody's promise.
    if bytes
        .trim_ascii_start()
        .first()
        .is_some_and(|first| *first != b'{')
        && serde_json::from_slice::<serde::de::IgnoredAny>(bytes).is_ok()
    {
        return Err(ApiError::new(
            Code::BadField,
            "this is JSON, but not an object",
        ));
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| bad_json(&error))?;
    json.end()
        .map_err(|error| ApiError::new(Code::BadJson, format!("the body is not JSON: {error}")))?;
    Ok(value)
}

/// As [`parse_json`], from JSON that is parsed already.
pub(crate) fn parse_value<T: DeserializeOwned>(value: serde_json::Value) -> Result<T, ApiError> {
    serde_path_to_error::deserialize(value).map_err(|error| bad_json(&error))
}

fn bad_json(error: &serde_path_to_error::Error<serde_json::Error>) -> ApiError {
    let inner = error.inner();
    let text = inner.to_string();
    if !inner.is_data() {
        return ApiError::new(Code::BadJson, format!("this is not JSON: {text}"));
    }
    if text.starts_with("unknown field") {
        return ApiError::new(Code::UnknownField, text);
    }
    match error.path().to_string().as_str() {
        "." => ApiError::new(Code::BadField, text),
        path => ApiError::new(Code::BadField, format!("`{path}`: {text}")).with("field", path),
    }
}

/// The parameters of the query. The token is not among them any more.
#[derive(Debug)]
pub(crate) struct Params<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let Query(params) =
            Query::try_from_uri(&parts.uri).map_err(|rejection| bad_query(&rejection))?;
        Ok(Self(params))
    }
}

fn bad_query(rejection: &QueryRejection) -> ApiError {
    let text = rejection.body_text();
    let text = text.trim_start_matches("Failed to deserialize query string: ");
    let code = if text.contains("unknown field") {
        Code::UnknownField
    } else {
        Code::BadParameter
    };
    ApiError::new(code, format!("the query: {text}"))
}

/// The session that the path names.
#[derive(Debug)]
pub(crate) struct SessionPath(pub(crate) SessionId);

impl<S: Send + Sync> FromRequestParts<S> for SessionPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let raw = segment(parts, state, "session", Code::BadSessionId).await?;
        raw.parse()
            .map(Self)
            .map_err(|error| ApiError::new(Code::BadSessionId, format!("{error}")))
    }
}

/// The cell that the path names.
#[derive(Debug)]
pub(crate) struct CellPath(pub(crate) CellId);

impl<S: Send + Sync> FromRequestParts<S> for CellPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let raw = segment(parts, state, "cell", Code::BadCellId).await?;
        raw.parse().map(Self).map_err(|_| {
            ApiError::new(
                Code::BadCellId,
                "a cell id is the UUID that submitting the cell returned",
            )
        })
    }
}

/// The checkpoint that the path names.
#[derive(Debug)]
pub(crate) struct CheckpointPath(pub(crate) CheckpointName);

impl<S: Send + Sync> FromRequestParts<S> for CheckpointPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let raw = segment(parts, state, "checkpoint", Code::BadCheckpointName).await?;
        raw.parse().map(Self).map_err(|error: CheckpointNameError| {
            ApiError::new(Code::BadCheckpointName, error.to_string())
        })
    }
}

/// The position in the log that the path names.
#[derive(Debug)]
pub(crate) struct SeqPath(pub(crate) u64);

impl<S: Send + Sync> FromRequestParts<S> for SeqPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let raw = segment(parts, state, "seq", Code::BadParameter).await?;
        raw.parse()
            .map(Self)
            .map_err(|_| ApiError::new(Code::BadParameter, "an event is named by its number"))
    }
}

/// The path inside of the workspace that the address names.
#[derive(Debug)]
pub(crate) struct FilePath(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for FilePath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let raw = segment(parts, state, "path", Code::BadPath).await?;
        workspace_path(&raw).map(Self)
    }
}

/// A segment of the path, percent-decoded, once.
async fn segment<S: Send + Sync>(
    parts: &mut Parts,
    state: &S,
    name: &str,
    code: Code,
) -> Result<String, ApiError> {
    let params = RawPathParams::from_request_parts(parts, state)
        .await
        .map_err(|rejection| {
            let text = rejection.body_text();
            // One segment that is not UTF-8 fails them all, whichever is asked for first.
            let code = if text.contains("`path`") {
                Code::BadPath
            } else {
                code
            };
            ApiError::new(code, text)
        })?;
    let value = params
        .iter()
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value.to_owned());
    Ok(value.expect("the route has this segment"))
}

/// Checks a path of a client. The agent makes sure of it; this refuses early, before a sandbox is asked.
///
/// # Errors
/// It is empty or too long, or has a part that is empty, `.` or `..`, or a NUL.
pub(crate) fn workspace_path(raw: &str) -> Result<String, ApiError> {
    let path = raw.strip_suffix('/').unwrap_or(raw);
    let why = if path.is_empty() {
        "it is empty"
    } else if path.len() > 4095 {
        "it is longer than 4095 bytes"
    } else if path.contains('\0') {
        "it has a NUL"
    } else if path.starts_with('/') {
        "it begins with `/`; paths are relative to the workspace"
    } else if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        "it has a part that is empty, `.` or `..`"
    } else if path.split('/').any(|part| part.len() > 255) {
        "it has a part that is longer than 255 bytes"
    } else {
        return Ok(path.to_owned());
    };
    Err(ApiError::new(
        Code::BadPath,
        format!("this path cannot be in the workspace: {why}"),
    ))
}

/// A switch in a query: `?wait`, `?wait=true` and `?wait=1` all turn it on.
pub(crate) fn switch<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    let text: std::borrow::Cow<'de, str> = serde::Deserialize::deserialize(deserializer)?;
    match text.as_ref() {
        "" | "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        other => Err(serde::de::Error::custom(format!(
            "`{other}` is neither `true` nor `false`"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Body {
        #[expect(dead_code, reason = "only how it is refused matters")]
        by_ms: u64,
    }

    #[test]
    fn bad_json_is_told_apart_and_explained() {
        for (text, code, says) in [
            (&b"{"[..], Code::BadJson, "EOF"),
            (b"{} x", Code::BadField, "missing field `by_ms`"),
            (b"{\"by_ms\": 1} x", Code::BadJson, "trailing characters"),
            (b"\xff", Code::BadJson, "line 1 column 1"),
            (
                b"{\"by\": 1}",
                Code::UnknownField,
                "unknown field `by`, expected `by_ms`",
            ),
            (
                b"{\"by_ms\": -1}",
                Code::BadField,
                "`by_ms`: invalid value: integer `-1`",
            ),
            (b"[]", Code::BadField, ""),
        ] {
            let error = parse_json::<Body>(text).unwrap_err();
            assert_eq!(error.code(), code, "{error:?}");
            assert!(error.message().contains(says), "{error:?}");
        }
    }

    #[test]
    fn a_path_stays_in_the_workspace() {
        for good in [
            "a",
            "a/b.csv",
            "data/",
            "..a",
            "a..",
            "ü/日本.png",
            ".hidden",
        ] {
            assert!(workspace_path(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "/",
            "/etc/passwd",
            "..",
            "../a",
            "a/../b",
            "a//b",
            "./a",
            "a/.",
            "a\0b",
            &"x".repeat(256),
        ] {
            assert!(workspace_path(bad).is_err(), "{bad}");
        }
    }
}
