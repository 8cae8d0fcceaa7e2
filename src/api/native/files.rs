//! Files of the workspace: list, look at, download, upload, make directories, delete. Content passes through and is never held.

use std::pin::pin;
use std::time::{Duration, SystemTime};

use axum::Json;
use axum::body::{Body, BodyDataStream, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt as _, stream};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use tokio::time::timeout;

use super::range::{Wanted, wanted};
use super::wire::FileList;
use crate::api::Api;
use crate::api::error::{ApiError, Code};
use crate::api::extract::{BODY_PATIENCE, FilePath, Params, SessionPath, switch, workspace_path};
use crate::session::{Download, FileEntry, FileKind, Files, FilesError};

/// Which part of a directory is wanted.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListParams {
    /// The directory; the workspace if not said.
    #[serde(default)]
    path: String,
    /// Begin after this name.
    after: Option<String>,
    /// How many at most.
    limit: Option<u32>,
}

/// The entries of a directory, by name; also of a session that has ended.
#[utoipa::path(
    get, path = "/v1/sessions/{session}/files", tag = "files",
    params(
        ("session" = String, Path),
        ("path" = Option<String>, Query, description = "The directory; the workspace itself if not said"),
        ("after" = Option<String>, Query, description = "Begin after this name"),
        ("limit" = Option<u32>, Query, description = "How many at most, 1 to 1000; 1000 if not said"),
    ),
    responses(
        (status = 200, description = "Some of the entries", body = ref("#/components/schemas/FileList")),
        (status = 400, description = "`bad_path`, `bad_parameter`", body = ref("#/components/schemas/ErrorBody")),
        (status = 404, description = "`unknown_session`, `unknown_file`", body = ref("#/components/schemas/ErrorBody")),
        (status = 409, description = "`wrong_kind`, `no_kernel`", body = ref("#/components/schemas/ErrorBody")),
    )
)]
pub(crate) async fn list(
    State(api): State<Api>,
    SessionPath(id): SessionPath,
    Params(params): Params<ListParams>,
) -> Result<Json<FileList>, ApiError> {
    let limit = params.limit.unwrap_or(1000);
    if !(1..=1000).contains(&limit) {
        return Err(ApiError::new(Code::BadParameter, "`limit` is 1 to 1000"));
    }
    let path = match params.path.as_str() {
        "" | "." | "/" => String::new(),
        path => workspace_path(path)?,
    };
    let files = api.sessions.files_to_read(&id).await?;
    let (entries, more) = files.list(path, params.after, limit).await?;
    Ok(Json(FileList { entries, more }))
}

/// What to do with a file besides reading it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReadParams {
    /// Describe it instead of sending it.
    #[serde(default, deserialize_with = "switch")]
    stat: bool,
}

/// A file's content, or with `stat` what it is; also of a session that has ended.
///
/// One range is honoured, with `If-Range`; the entity tag changes with the file. It is sent as an attachment of no particular type, so that no browser renders it.
#[utoipa::path(
    get, path = "/v1/sessions/{session}/files/{path}", tag = "files",
    params(
        ("session" = String, Path),
        ("path" = String, Path, description = "Relative to the workspace; may hold `/`"),
        ("stat" = Option<bool>, Query, description = "Answer with a FileEntry instead of the content"),
        ("Range" = Option<String>, Header, description = "One range of bytes"),
    ),
    responses(
        (status = 200, description = "The content", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 206, description = "A part of it", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 304, description = "With `If-None-Match`: it has not changed"),
        (status = 400, description = "`bad_path`", body = ref("#/components/schemas/ErrorBody")),
        (status = 404, description = "`unknown_session`, `unknown_file`", body = ref("#/components/schemas/ErrorBody")),
        (status = 409, description = "`wrong_kind`, `no_kernel`", body = ref("#/components/schemas/ErrorBody")),
        (status = 416, description = "`bad_range` (with `bytes`)", body = ref("#/components/schemas/ErrorBody")),
    )
)]
pub(crate) async fn download(
    State(api): State<Api>,
    SessionPath(id): SessionPath,
    FilePath(path): FilePath,
    Params(params): Params<ReadParams>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let files = api.sessions.files_to_read(&id).await?;
    if params.stat {
        return Ok(Json(files.stat(path).await?).into_response());
    }
    if !headers.contains_key(header::RANGE) && !headers.contains_key(header::IF_NONE_MATCH) {
        return whole(files.read(path, 0, None).await?);
    }
    let entry = files.stat(path.clone()).await?;
    if is_unchanged(&headers, &entry) {
        return Ok((
            StatusCode::NOT_MODIFIED,
            [(header::ETAG, entity_tag(&entry))],
        )
            .into_response());
    }
    let range = headers
        .get(header::RANGE)
        .and_then(|value| value.to_str().ok())
        .filter(|_| may_resume(&headers, &entry));
    match wanted(range, entry.bytes) {
        Wanted::Whole => whole(files.read(path, 0, None).await?),
        Wanted::Part { start, length } => part(&files, path, &entry, start, length).await,
        Wanted::Nothing => {
            let text = format!(
                "the file has {} bytes; the range lies outside of them",
                entry.bytes
            );
            let error = ApiError::new(Code::BadRange, text).with("bytes", entry.bytes);
            Ok((
                [(header::CONTENT_RANGE, format!("bytes */{}", entry.bytes))],
                error,
            )
                .into_response())
        }
    }
}

/// The headers of a file, as `GET` has them.
#[utoipa::path(
    head, path = "/v1/sessions/{session}/files/{path}", tag = "files", params(("session" = String, Path), ("path" = String, Path)),
    responses((status = 200, description = "It is there"), (status = 404, description = "It is not, or the session is not"))
)]
pub(crate) async fn head(
    State(api): State<Api>,
    SessionPath(id): SessionPath,
    FilePath(path): FilePath,
) -> Result<Response, ApiError> {
    let entry = api.sessions.files_to_read(&id).await?.stat(path).await?;
    if entry.kind != FileKind::File {
        return Err(ApiError::new(Code::WrongKind, "it is not a file"));
    }
    let length = [(header::CONTENT_LENGTH, entry.bytes)];
    Ok((
        length.map(|(name, bytes)| (name, bytes.to_string())),
        file_headers(&entry),
        Body::empty(),
    )
        .into_response())
}

/// Writes a file: it appears, or replaces the one before, when it is whole.
///
/// Missing directories are made. An upload that breaks off leaves nothing. With a `Content-Length` a file that cannot fit is refused at once.
#[utoipa::path(
    put, path = "/v1/sessions/{session}/files/{path}", tag = "files", params(("session" = String, Path), ("path" = String, Path)),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses(
        (status = 201, description = "It is there", body = ref("#/components/schemas/FileEntry")),
        (status = 400, description = "`bad_path`, `bad_parameter`", body = ref("#/components/schemas/ErrorBody")),
        (status = 404, description = "`unknown_session`", body = ref("#/components/schemas/ErrorBody")),
        (status = 408, description = "`request_timeout`", body = ref("#/components/schemas/ErrorBody")),
        (status = 409, description = "`wrong_kind`, `session_ended`, `no_kernel`", body = ref("#/components/schemas/ErrorBody")),
        (status = 413, description = "`too_large`", body = ref("#/components/schemas/ErrorBody")),
        (status = 507, description = "`quota_exceeded`, `disk_full`", body = ref("#/components/schemas/ErrorBody")),
    )
)]
pub(crate) async fn upload(
    State(api): State<Api>,
    SessionPath(id): SessionPath,
    FilePath(path): FilePath,
    request: Request,
) -> Result<(StatusCode, Json<FileEntry>), ApiError> {
    let length = content_length(request.headers())?;
    let bound = api.config.max_upload_bytes;
    if length.is_some_and(|length| length > bound) {
        return Err(too_large(bound));
    }
    let files = api.sessions.find(&id).await?.files().await?;
    let mut content = request.into_body().into_data_stream();
    match receive(&files, path, length, bound, &mut content).await {
        Ok(entry) => Ok((StatusCode::CREATED, Json(entry))),
        Err(error) => {
            drain(content).await;
            Err(error)
        }
    }
}

/// What to make.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MakeParams {
    /// A directory.
    #[serde(default, deserialize_with = "switch")]
    mkdir: bool,
}

/// Makes a directory and those above it.
#[utoipa::path(
    post, path = "/v1/sessions/{session}/files/{path}", tag = "files",
    params(("session" = String, Path), ("path" = String, Path), ("mkdir" = bool, Query, description = "Has to be there")),
    responses(
        (status = 201, description = "It is there", body = ref("#/components/schemas/FileEntry")),
        (status = 400, description = "`bad_path`, `bad_parameter`", body = ref("#/components/schemas/ErrorBody")),
        (status = 404, description = "`unknown_session`", body = ref("#/components/schemas/ErrorBody")),
        (status = 409, description = "`wrong_kind`, `session_ended`, `no_kernel`", body = ref("#/components/schemas/ErrorBody")),
    )
)]
pub(crate) async fn make_dir(
    State(api): State<Api>,
    SessionPath(id): SessionPath,
    FilePath(path): FilePath,
    Params(params): Params<MakeParams>,
) -> Result<(StatusCode, Json<FileEntry>), ApiError> {
    if !params.mkdir {
        return Err(ApiError::new(
            Code::BadParameter,
            "say `?mkdir` to make a directory; a file is written with PUT",
        ));
    }
    let files = api.sessions.find(&id).await?.files().await?;
    Ok((StatusCode::CREATED, Json(files.make_dir(path).await?)))
}

/// Removes a file, or a directory with all it holds.
#[utoipa::path(
    delete, path = "/v1/sessions/{session}/files/{path}", tag = "files", params(("session" = String, Path), ("path" = String, Path)),
    responses(
        (status = 204, description = "It is gone"),
        (status = 400, description = "`bad_path`", body = ref("#/components/schemas/ErrorBody")),
        (status = 404, description = "`unknown_session`, `unknown_file`", body = ref("#/components/schemas/ErrorBody")),
        (status = 409, description = "`session_ended`, `no_kernel`", body = ref("#/components/schemas/ErrorBody")),
    )
)]
pub(crate) async fn delete(
    State(api): State<Api>,
    SessionPath(id): SessionPath,
    FilePath(path): FilePath,
) -> Result<StatusCode, ApiError> {
    api.sessions
        .find(&id)
        .await?
        .files()
        .await?
        .delete(path)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

fn whole(download: Download) -> Result<Response, ApiError> {
    let entry = download.entry().clone();
    if entry.kind != FileKind::File {
        return Err(ApiError::new(Code::WrongKind, "it is not a file"));
    }
    let length = [(header::CONTENT_LENGTH, entry.bytes.to_string())];
    Ok((length, file_headers(&entry), content(download, entry.bytes)).into_response())
}

async fn part(
    files: &Files,
    path: String,
    seen: &FileEntry,
    start: u64,
    length: u64,
) -> Result<Response, ApiError> {
    let download = files.read(path.clone(), start, Some(length)).await?;
    let entry = download.entry().clone();
    if entity_tag(&entry) != entity_tag(seen) {
        // It was changed in between; what was asked for may not be there any more.
        return whole(files.read(path, 0, None).await?);
    }
    let range = format!("bytes {start}-{}/{}", start + length - 1, entry.bytes);
    let headers = [
        (header::CONTENT_LENGTH, length.to_string()),
        (header::CONTENT_RANGE, range),
    ];
    Ok((
        StatusCode::PARTIAL_CONTENT,
        headers,
        file_headers(&entry),
        content(download, length),
    )
        .into_response())
}

/// The content as a body of exactly so many bytes: a file that grows is cut, one that shrinks breaks the connection.
fn content(download: Download, length: u64) -> Body {
    Body::from_stream(stream::try_unfold(
        (download, length),
        async |(mut download, left)| {
            if left == 0 {
                return Ok(None);
            }
            let Some(mut piece) = download.next().await? else {
                return Ok::<_, FilesError>(None);
            };
            piece.truncate(usize::try_from(left).unwrap_or(usize::MAX));
            let left = left - piece.len() as u64;
            Ok(Some((piece, (download, left))))
        },
    ))
}

/// Headers that keep a browser from making a page of a file, on this server's origin.
fn file_headers(entry: &FileEntry) -> HeaderMap {
    let name = entry.path.rsplit('/').next().unwrap_or_default();
    let name = utf8_percent_encode(name, NON_ALPHANUMERIC);
    let disposition = format!("attachment; filename*=UTF-8''{name}");
    let modified = SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(entry.modified_ms));
    let mut headers = HeaderMap::from_iter([
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/octet-stream"),
        ),
        (
            header::CONTENT_DISPOSITION,
            HeaderValue::try_from(disposition).expect("percent-encoded text is a header value"),
        ),
        (header::ACCEPT_RANGES, HeaderValue::from_static("bytes")),
        (header::ETAG, entity_tag(entry)),
        // A cache may keep it, but has to ask each time.
        (
            header::CACHE_CONTROL,
            HeaderValue::from_static("private, no-cache"),
        ),
    ]);
    // Years that a date cannot express come from a sandbox that sets the time of a file at will.
    if let Some(modified) = modified.filter(|_| entry.modified_ms < 253_402_300_800_000) {
        let date = httpdate::fmt_http_date(modified);
        headers.insert(
            header::LAST_MODIFIED,
            HeaderValue::try_from(date).expect("a date is a header value"),
        );
    }
    headers
}

fn entity_tag(entry: &FileEntry) -> HeaderValue {
    HeaderValue::try_from(format!("\"{:x}-{:x}\"", entry.modified_ms, entry.bytes))
        .expect("hexadecimal is a header value")
}

fn is_unchanged(headers: &HeaderMap, entry: &FileEntry) -> bool {
    let tag = entity_tag(entry);
    let tag = tag.to_str().expect("hexadecimal is text");
    let known = headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok());
    known
        .flat_map(|value| value.split(','))
        .any(|known| known.trim().trim_start_matches("W/") == tag)
}

/// Whether a range still fits what the client has of the file.
fn may_resume(headers: &HeaderMap, entry: &FileEntry) -> bool {
    match headers.get(header::IF_RANGE) {
        None => true,
        Some(value) => {
            *value == entity_tag(entry)
                || file_headers(entry).get(header::LAST_MODIFIED) == Some(value)
        }
    }
}

fn content_length(headers: &HeaderMap) -> Result<Option<u64>, ApiError> {
    let Some(value) = headers.get(header::CONTENT_LENGTH) else {
        return Ok(None);
    };
    let length = value.to_str().ok().and_then(|text| text.parse().ok());
    length
        .map(Some)
        .ok_or_else(|| ApiError::new(Code::BadParameter, "`Content-Length` is not a length"))
}

fn too_large(bound: u64) -> ApiError {
    ApiError::new(
        Code::TooLarge,
        format!("at most {bound} bytes can be uploaded at once"),
    )
    .with("bound", bound)
}

/// Passes an upload on, piece by piece. Whatever fails, nothing of the file stays.
async fn receive(
    files: &Files,
    path: String,
    length: Option<u64>,
    bound: u64,
    content: &mut BodyDataStream,
) -> Result<FileEntry, ApiError> {
    let mut upload = files.write(path, length).await?;
    let mut sent = 0_u64;
    loop {
        let piece: Option<Result<Bytes, axum::Error>> =
            timeout(BODY_PATIENCE, content.next()).await.map_err(|_| {
                ApiError::new(
                    Code::RequestTimeout,
                    format!("nothing came for {} s", BODY_PATIENCE.as_secs()),
                )
            })?;
        match piece {
            None => break,
            Some(Ok(piece)) => {
                sent += piece.len() as u64;
                if sent > bound {
                    return Err(too_large(bound));
                }
                upload.send(piece).await?;
            }
            Some(Err(_)) => {
                return Err(ApiError::new(
                    Code::BadParameter,
                    "the upload broke off; nothing of it was kept",
                ));
            }
        }
    }
    Ok(upload.finish().await?)
}

/// Reads on for a little after a refusal: a client that is busy sending would otherwise find the connection closed, and not the answer.
async fn drain(content: BodyDataStream) {
    const MOST: usize = 16 * 1024 * 1024;
    let mut content = pin!(content);
    let reading = async {
        let mut read = 0;
        while let Some(Ok(piece)) = content.next().await {
            read += piece.len();
            if read > MOST {
                break;
            }
        }
    };
    let _ = timeout(Duration::from_secs(2), reading).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str) -> FileEntry {
        FileEntry {
            path: path.to_owned(),
            kind: FileKind::File,
            bytes: 255,
            modified_ms: 1_700_000_000_123,
        }
    }

    #[test]
    fn a_file_is_never_a_page() {
        let headers = file_headers(&entry("out/a\"b\r\n日.html"));
        assert_eq!(headers[header::CONTENT_TYPE], "application/octet-stream");
        assert_eq!(
            headers[header::CONTENT_DISPOSITION],
            "attachment; filename*=UTF-8''a%22b%0D%0A%E6%97%A5%2Ehtml"
        );
        assert_eq!(headers[header::ETAG], "\"18bcfe5687b-ff\"");
        assert_eq!(
            headers[header::LAST_MODIFIED],
            "Tue, 14 Nov 2023 22:13:20 GMT"
        );
    }

    #[test]
    fn a_time_that_makes_no_sense_is_passed_over() {
        let headers = file_headers(&FileEntry {
            modified_ms: u64::MAX,
            ..entry("a")
        });
        assert!(!headers.contains_key(header::LAST_MODIFIED));
    }

    #[test]
    fn a_range_is_honoured_only_for_the_same_file() {
        let with = |value: &str| HeaderMap::from_iter([(header::IF_RANGE, value.parse().unwrap())]);
        assert!(may_resume(&HeaderMap::new(), &entry("a")));
        assert!(may_resume(&with("\"18bcfe5687b-ff\""), &entry("a")));
        assert!(may_resume(
            &with("Tue, 14 Nov 2023 22:13:20 GMT"),
            &entry("a")
        ));
        assert!(!may_resume(&with("\"other\""), &entry("a")));
        assert!(!may_resume(&with("W/\"18bcfe5687b-ff\""), &entry("a")));
    }

    #[test]
    fn a_known_file_is_not_sent_again() {
        let with =
            |value: &str| HeaderMap::from_iter([(header::IF_NONE_MATCH, value.parse().unwrap())]);
        assert!(is_unchanged(
            &with("\"x\", W/\"18bcfe5687b-ff\""),
            &entry("a")
        ));
        assert!(!is_unchanged(&with("\"x\""), &entry("a")));
    }
}
