//! Reading a log as it grows.

use std::sync::Arc;

use tokio::sync::watch;

use super::{EventLog, Position};
use crate::model::event::Seq;
use crate::store::{StoreError, StoredEvent};

/// The most events that are handed over at once.
const BATCH_EVENTS: usize = 256;

/// About the most bytes that are handed over at once; a single event may have more.
const BATCH_BYTES: usize = 1 << 20;

/// Why events cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The next event is gone.
    #[error("the events before {first_available} are gone: they were trimmed")]
    Trimmed {
        /// The first event that is still there, or the next that will come.
        first_available: Seq,
    },
    /// There is no such place in the log.
    #[error("the log ends at {head}")]
    Ahead {
        /// The last event.
        head: Seq,
    },
    /// The store cannot be read.
    #[error("the events cannot be read")]
    Store(#[source] StoreError),
}

/// A reader of a log. It pulls at its own pace: a slow one falls behind, and neither slows the session down nor loses an event.
#[derive(Debug)]
pub struct Subscription {
    log: Arc<EventLog>,
    position: watch::Receiver<Position>,
    last: Seq,
}

impl Subscription {
    pub(super) fn new(log: Arc<EventLog>, after: Seq) -> Self {
        let position = log.shared.position.subscribe();
        Self {
            log,
            position,
            last: after,
        }
    }

    /// The events that follow, at least one, a bounded number; waits for them. `None` when the log is closed and all is read.
    ///
    /// May be dropped and called again: no event is lost by that.
    ///
    /// # Errors
    /// [`ReadError::Trimmed`] when what follows is gone: the reader may go on with a new subscription from there.
    /// [`ReadError::Ahead`] when it began at a place that the log had not reached by then.
    pub async fn next(&mut self) -> Result<Option<Vec<StoredEvent>>, ReadError> {
        let last = self.last;
        let head = self.log.head();
        if last > head {
            return Err(ReadError::Ahead { head });
        }
        // Level-triggered: waits for a state, not for a change. We hold the log, hence the sender.
        let Ok(position) = self
            .position
            .wait_for(|position| position.head > last || position.closed)
            .await
            .map(|position| *position)
        else {
            return Ok(None);
        };
        if position.head <= last {
            return Ok(None);
        }
        if last + 1 < position.first {
            return Err(ReadError::Trimmed {
                first_available: position.first,
            });
        }
        let events = self
            .log
            .pull(last, position.head, BATCH_EVENTS, BATCH_BYTES)
            .await?;
        if let Some(event) = events.last() {
            self.last = event.seq;
        }
        Ok(Some(events))
    }

    /// The last event that was handed over.
    pub fn position(&self) -> Seq {
        self.last
    }
}
