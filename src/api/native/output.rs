//! The whole output of a cell, however long: by range, and searched. Read through the log page by page, never held.

mod marks;
mod scan;
mod search;
mod slice;

use axum::Json;
use axum::extract::State;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub(crate) use self::marks::Marks;
use self::scan::{Total, scan};
use self::search::Search;
use self::slice::Slice;
use crate::api::Api;
use crate::api::error::{ApiError, Code};
use crate::api::extract::{CellPath, Params, SessionPath};
use crate::model::output::StreamName;
use crate::session::Denied;

/// How much text an answer has if not said otherwise, and at most, in bytes.
const BYTES: usize = 64 * 1024;
const MOST_BYTES: usize = 1024 * 1024;

/// The longest text that can be searched for, in bytes.
const LONGEST_FIND: usize = 1000;

/// How many matches an answer has if not said otherwise, and at most.
const MATCHES: usize = 100;
const MOST_MATCHES: usize = 1000;

/// Which part of the output is wanted, or what is searched for in it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OutputParams {
    /// Of which stream.
    stream: Option<StreamName>,
    /// From which byte on.
    #[serde(default)]
    from: u64,
    /// How much text, at most.
    bytes: Option<usize>,
    /// The text to be found.
    find: Option<String>,
    /// How many matches, at most.
    limit: Option<usize>,
}

/// A part of a cell's output, or what was found in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum OutputAnswer {
    /// Without `find`.
    Part(OutputPart),
    /// With `find`.
    Found(OutputFound),
}

/// A part of a cell's output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct OutputPart {
    /// Of which stream.
    pub(crate) stream: StreamName,
    /// Where it begins, in bytes: where it was asked for, or at the beginning of the character there.
    pub(crate) from: u64,
    /// Where it ends: ask on from here.
    pub(crate) next: u64,
    /// How much there is in all, so far.
    pub(crate) total_bytes: u64,
    /// Whether the cell is over, so that no more comes.
    pub(crate) complete: bool,
    /// The text, as it was written.
    pub(crate) text: String,
}

/// What was found in a cell's output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct OutputFound {
    /// In which stream.
    pub(crate) stream: StreamName,
    /// From which byte on was searched.
    pub(crate) from: u64,
    /// The first matches from there on; they do not overlap.
    pub(crate) matches: Vec<OutputMatch>,
    /// How many there are from there on.
    pub(crate) total: u64,
    /// Where to search on.
    pub(crate) next: u64,
    /// How much was written in all, so far.
    pub(crate) total_bytes: u64,
    /// Whether the cell is over, so that no more comes.
    pub(crate) complete: bool,
}

/// A place where the text was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct OutputMatch {
    /// Where it begins, in bytes.
    pub(crate) byte: u64,
    /// In which line, from 1.
    pub(crate) line: u64,
    /// The line; of a long one what is around the match.
    pub(crate) text: String,
}

/// A cell's whole output, by range; or where in it a text is found.
///
/// Also while the cell runs, and after the session has ended. Bytes are those of the text in UTF-8, as the `stream` events have it.
#[utoipa::path(
    get, path = "/v1/sessions/{session}/cells/{cell}/output", tag = "cells",
    params(
        ("session" = String, Path),
        ("cell" = String, Path),
        ("stream" = Option<String>, Query, description = "`stdout` or `stderr`; `stdout` if not said"),
        ("from" = Option<u64>, Query, description = "From which byte on; 0, the beginning, if not said"),
        ("bytes" = Option<u32>, Query, description = "How much text at most, 1 to 1048576; 65536 if not said; not with `find`"),
        ("find" = Option<String>, Query, description = "The text to be found, as it stands, at most 1000 bytes"),
        ("limit" = Option<u32>, Query, description = "How many matches at most, 1 to 1000; 100 if not said; only with `find`"),
    ),
    responses(
        (status = 200, description = "A part, or with `find` the matches", body = ref("#/components/schemas/OutputAnswer")),
        (status = 400, description = "`bad_parameter`", body = ref("#/components/schemas/ErrorBody")),
        (status = 404, description = "`unknown_session`, `unknown_cell`", body = ref("#/components/schemas/ErrorBody")),
        (status = 410, description = "`events_trimmed` (with `first_available`): its beginning is gone", body = ref("#/components/schemas/ErrorBody")),
        (status = 416, description = "`bad_range` (with `total_bytes`): there is not so much", body = ref("#/components/schemas/ErrorBody")),
    )
)]
pub(crate) async fn get(
    State(api): State<Api>,
    SessionPath(id): SessionPath,
    CellPath(cell): CellPath,
    Params(params): Params<OutputParams>,
) -> Result<Json<OutputAnswer>, ApiError> {
    params.check()?;
    let row = api.sessions.cell(&id, cell).await?;
    let log = api.sessions.log(&id).await?;
    if row.finished.is_some_and(|finished| finished < log.first()) {
        return Err(Denied::UnknownCell(cell).into());
    }
    let (stream, from) = (params.stream.unwrap_or(StreamName::Stdout), params.from);
    let answer = match params.find {
        None => {
            let mut slice = Slice::new(from, params.bytes.unwrap_or(BYTES));
            let total = scan(&log, &api.outputs, &row, stream, from, &mut slice).await?;
            check_range(from, total)?;
            let (from, text) = slice.finish();
            OutputAnswer::Part(OutputPart {
                stream,
                from,
                next: from + text.len() as u64,
                total_bytes: total.bytes,
                complete: total.complete,
                text,
            })
        }
        Some(find) => {
            let mut search = Search::new(from, find, params.limit.unwrap_or(MATCHES));
            let begin = search.begin();
            let total = scan(&log, &api.outputs, &row, stream, begin, &mut search).await?;
            check_range(from, total)?;
            let found = search.finish();
            OutputAnswer::Found(OutputFound {
                stream,
                from,
                matches: found.matches,
                total: found.total,
                next: found.next.max(from),
                total_bytes: total.bytes,
                complete: total.complete,
            })
        }
    };
    Ok(Json(answer))
}

impl OutputParams {
    fn check(&self) -> Result<(), ApiError> {
        let text = match (&self.find, self.bytes, self.limit) {
            (Some(_), Some(_), _) => "`bytes` does not go with `find`",
            (None, _, Some(_)) => "`limit` goes with `find` only",
            (Some(find), ..) if !(1..=LONGEST_FIND).contains(&find.len()) => {
                "`find` has 1 to 1000 bytes"
            }
            (_, Some(bytes), _) if !(1..=MOST_BYTES).contains(&bytes) => "`bytes` is 1 to 1048576",
            (.., Some(limit)) if !(1..=MOST_MATCHES).contains(&limit) => "`limit` is 1 to 1000",
            _ => return Ok(()),
        };
        Err(ApiError::new(Code::BadParameter, text))
    }
}

fn check_range(from: u64, total: Total) -> Result<(), ApiError> {
    let bytes = total.bytes;
    if from <= bytes {
        return Ok(());
    }
    let text = format!("the output has {bytes} bytes so far; `from` is beyond that");
    Err(ApiError::new(Code::BadRange, text).with("total_bytes", bytes))
}
