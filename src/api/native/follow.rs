//! Follows a cell through the log until it is over, or patience is.

use std::sync::Arc;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::result::{CellResult, Extent, Reducer};
use crate::api::error::ApiError;
use crate::model::event::{Envelope, Seq};
use crate::model::id::CellId;
use crate::session::log::{EventLog, ReadError};
use crate::session::{Denied, StoredEvent};

/// How much of the log is read at a time.
const EVENTS: usize = 1000;
const BYTES: usize = 1024 * 1024;

/// How long to wait for the end of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Not at all.
    None,
    /// Until then.
    Until(Instant),
    /// For as long as it takes.
    Endless,
}

/// Reads the events of a cell, from where it was accepted, into a result. Answers with what there is when the cell is over, when patience is,
/// or when the server stops.
///
/// # Errors
/// The log cannot be read, or the cell's last event is not there any more.
pub(crate) async fn follow(
    log: &Arc<EventLog>,
    cell: CellId,
    queued: Seq,
    finished: Option<Seq>,
    extent: Extent,
    patience: Patience,
    stopping: &CancellationToken,
) -> Result<CellResult, ApiError> {
    if finished.is_some_and(|finished| finished < log.first()) {
        return Err(Denied::UnknownCell(cell).into());
    }
    let mut reducer = Reducer::new(cell, extent);
    let mut after = read_present(log, &mut reducer, queued.saturating_sub(1), finished).await?;
    if reducer.is_finished() || patience == Patience::None {
        return Ok(reducer.finish());
    }
    let out_of_patience = async {
        match patience {
            Patience::Until(instant) => sleep_until(instant).await,
            Patience::None | Patience::Endless => std::future::pending().await,
        }
    };
    tokio::pin!(out_of_patience);
    let mut subscription = log.subscribe(after);
    while !reducer.is_finished() {
        let batch = tokio::select! {
            biased;
            batch = subscription.next() => batch,
            () = &mut out_of_patience => break,
            () = stopping.cancelled() => break,
        };
        match batch {
            Ok(Some(events)) => after = apply(&mut reducer, &events)?.unwrap_or(after),
            // The session is over.
            Ok(None) => break,
            // We were slower than the trimming.
            Err(ReadError::Trimmed { first_available }) => {
                reducer.mark_trimmed();
                subscription = log.subscribe(first_available.saturating_sub(1));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(reducer.finish())
}

/// Reads what is in the log now, and says how far that is.
async fn read_present(
    log: &EventLog,
    reducer: &mut Reducer,
    mut after: Seq,
    finished: Option<Seq>,
) -> Result<Seq, ApiError> {
    let end = finished.unwrap_or_else(|| log.head());
    while after < end && !reducer.is_finished() {
        match log.read(after, EVENTS, BYTES).await {
            Ok(page) => match apply(reducer, &page.events)? {
                Some(last) => after = last,
                None => break,
            },
            Err(ReadError::Trimmed { first_available }) if first_available > after + 1 => {
                reducer.mark_trimmed();
                after = first_available - 1;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(after)
}

/// Takes in events, and says which was the last.
fn apply(reducer: &mut Reducer, events: &[StoredEvent]) -> Result<Option<Seq>, ApiError> {
    for event in events {
        let envelope: Envelope =
            serde_json::from_slice(&event.json).map_err(|error| ApiError::internal(&error))?;
        reducer.apply(envelope);
    }
    Ok(events.last().map(|event| event.seq))
}
