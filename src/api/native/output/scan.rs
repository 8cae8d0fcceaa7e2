//! Reads what a cell wrote out of the log, page by page.

use super::marks::{Mark, Marks};
use crate::api::error::{ApiError, Code};
use crate::api::native::glance::{Glance, What};
use crate::model::output::StreamName;
use crate::session::log::{EventLog, ReadError};
use crate::store::CellRow;

/// How much of the log is read at a time.
const EVENTS: usize = 1000;
const BYTES: usize = 1024 * 1024;

/// A place in what was written to a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// How many bytes come before it.
    pub(super) bytes: u64,
    /// How many line ends come before it.
    pub(super) lines: u64,
}

impl Place {
    /// Moves behind a text that follows.
    pub(super) fn advance(&mut self, text: &str) {
        self.bytes += text.len() as u64;
        self.lines += lines(text);
    }
}

/// How many line ends a text has.
pub(super) fn lines(text: &str) -> u64 {
    text.bytes().filter(|byte| *byte == b'\n').count() as u64
}

/// Who is given a text bit by bit.
pub(super) trait TakesText {
    /// The next bit, and where it stands.
    fn take(&mut self, at: Place, text: &str);

    /// Whether what follows does not matter.
    fn has_enough(&self) -> bool;
}

/// How much a stream has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Total {
    /// In bytes, so far.
    pub(super) bytes: u64,
    /// Whether the cell is over, so that it stays at that.
    pub(super) complete: bool,
}

/// Gives what a cell wrote to a stream, from `from` or from somewhere before it, as far as it is in the log; and says how much there is.
///
/// # Errors
/// The beginning was trimmed, or the log cannot be read.
pub(super) async fn scan(
    log: &EventLog,
    marks: &Marks,
    cell: &CellRow,
    stream: StreamName,
    from: u64,
    reader: &mut impl TakesText,
) -> Result<Total, ApiError> {
    let begin = cell.queued.saturating_sub(1);
    if begin + 1 < log.first() {
        return Err(trimmed(log.first()));
    }
    let head = log.head();
    let mut at = marks
        .before(cell.cell, stream, from)
        .unwrap_or(Mark::at(begin));
    while !at.is_over && at.seq < head {
        if reader.has_enough()
            && let Some(last) = marks.last(cell.cell)
            && last.seq > at.seq
        {
            at = last;
            continue;
        }
        let page = match log.read(at.seq, EVENTS, BYTES).await {
            Err(ReadError::Trimmed { first_available }) => return Err(trimmed(first_available)),
            page => page?,
        };
        for event in page.events {
            let glance = Glance::at(&event).map_err(|error| ApiError::internal(&error))?;
            at.seq = event.seq;
            if glance.cell != Some(cell.cell) {
                continue;
            }
            match glance.what {
                What::Text(name, text) => {
                    let place = at.place_mut(name);
                    if name == stream {
                        reader.take(*place, &text);
                    }
                    place.advance(&text);
                }
                What::Finished => {
                    at.is_over = true;
                    break;
                }
                What::Started | What::Else => {}
            }
        }
        marks.note(cell.cell, at);
    }
    Ok(Total {
        bytes: at.place(stream).bytes,
        complete: at.is_over,
    })
}

fn trimmed(first_available: u64) -> ApiError {
    let text = format!(
        "the beginning of this cell's output was trimmed; what is left of it is in the events, from {first_available} on"
    );
    ApiError::new(Code::EventsTrimmed, text).with("first_available", first_available)
}
