//! What was run before: the session's log, as Jupyter asks for it.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::model::event::{Envelope, Event, Seq};
use crate::model::id::SessionId;
use crate::session::log::{EventLog, ReadError};
use crate::session::{CellRow, SessionError, Sessions};

/// How many cells are looked through.
const MOST: usize = 1000;

/// How many are given if nothing is said.
const SOME: usize = 10;

/// The content of a `history_request`.
#[derive(Debug, Deserialize)]
pub(crate) struct Wanted {
    /// Outputs too.
    #[serde(default)]
    output: bool,
    /// Which cells.
    hist_access_type: Access,
    /// How many, of the last.
    n: Option<usize>,
    /// From which number on.
    start: Option<i64>,
    /// Up to which number, which is not meant any more.
    stop: Option<i64>,
    /// What they look like, with `*` and `?`.
    pattern: Option<String>,
    /// Each source once.
    #[serde(default)]
    unique: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Access {
    Range,
    Tail,
    Search,
}

/// A cell that counted.
struct Line {
    number: u32,
    code: String,
}

/// The cells that are wanted, the oldest first: session, number, source. There is one session here, the first.
///
/// # Errors
/// The session is unknown, or the store cannot read.
pub(crate) async fn find(
    sessions: &Sessions,
    id: &SessionId,
    wanted: &Wanted,
) -> Result<Vec<Value>, SessionError> {
    let log = sessions.log(id).await?;
    let most = match wanted.hist_access_type {
        // Those that do not count lie between.
        Access::Tail => (4 * wanted.n.unwrap_or(SOME)).min(MOST),
        Access::Range | Access::Search => MOST,
    };
    let mut lines = Vec::new();
    for row in sessions.last_cells(id, most).await? {
        if let Some(line) = line(&log, &row).await? {
            lines.push(line);
        }
    }
    let mut lines = choose(lines, wanted);
    lines.reverse();
    let entry = |line: Line| {
        if wanted.output {
            json!([1, line.number, [line.code, null]])
        } else {
            json!([1, line.number, line.code])
        }
    };
    Ok(lines.into_iter().map(entry).collect())
}

/// Of lines that begin with the last one, those that are wanted.
fn choose(mut lines: Vec<Line>, wanted: &Wanted) -> Vec<Line> {
    match wanted.hist_access_type {
        Access::Tail => lines.truncate(wanted.n.unwrap_or(SOME)),
        Access::Range => {
            let (start, stop) = (wanted.start.unwrap_or(1), wanted.stop.unwrap_or(i64::MAX));
            // Numbers begin anew with a kernel; the last that had one is meant.
            let mut last = u32::MAX;
            lines.retain(|line| {
                let counts = line.number < last;
                last = last.min(line.number);
                counts && (start..stop).contains(&i64::from(line.number))
            });
        }
        Access::Search => {
            let pattern: Vec<char> = wanted.pattern.as_deref().unwrap_or("*").chars().collect();
            lines.retain(|line| {
                let code: Vec<char> = line.code.chars().collect();
                matches(&pattern, &code)
            });
            if wanted.unique {
                let mut seen = std::collections::HashSet::new();
                lines.retain(|line| seen.insert(line.code.clone()));
            }
            lines.truncate(wanted.n.unwrap_or(MOST));
        }
    }
    lines
}

/// A cell, if it has run and counted.
async fn line(log: &EventLog, row: &CellRow) -> Result<Option<Line>, SessionError> {
    let Some(finished) = row.finished else {
        return Ok(None);
    };
    let Some(Event::CellQueued { code, .. }) = event(log, row.queued).await? else {
        return Ok(None);
    };
    let Some(Event::CellFinished {
        execution_count: Some(number),
        ..
    }) = event(log, finished).await?
    else {
        return Ok(None);
    };
    Ok(Some(Line { number, code }))
}

async fn event(log: &EventLog, seq: Seq) -> Result<Option<Event>, SessionError> {
    match log.read(seq - 1, 1, usize::MAX).await {
        Ok(page) => Ok(page
            .events
            .first()
            .and_then(|event| serde_json::from_slice::<Envelope>(&event.json).ok())
            .map(|envelope| envelope.event)),
        // Trimmed.
        Err(ReadError::Trimmed { .. } | ReadError::Ahead { .. }) => Ok(None),
        Err(ReadError::Store(error)) => Err(error.into()),
    }
}

/// Whether a text fits a pattern in which `*` stands for anything and `?` for one character. Takes no longer than the one times the other.
fn matches(pattern: &[char], text: &[char]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == '?' || *c == text[t] => (p, t) = (p + 1, t + 1),
            _ => match star {
                Some((at, taken)) => {
                    (p, t) = (at + 1, taken + 1);
                    star = Some((at, t));
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_fits_as_in_a_shell() {
        let fits = |pattern: &str, text: &str| {
            matches(
                &pattern.chars().collect::<Vec<_>>(),
                &text.chars().collect::<Vec<_>>(),
            )
        };
        for (pattern, text) in [
            ("*", ""),
            ("1?2*", "1+2"),
            ("*x*y*", "axbyc"),
            ("ü?", "ü\n"),
            ("a*a*b", "aaab"),
        ] {
            assert!(fits(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [("", "a"), ("?", ""), ("a*b", "acbd"), ("*aab", "aaaaaaac")] {
            assert!(!fits(pattern, text), "{pattern} {text}");
        }
    }
}
