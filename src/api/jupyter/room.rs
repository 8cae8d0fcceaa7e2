//! Submits a cell to a queue that may be full. A Jupyter client sends a whole notebook at once and knows of no such bound, so what finds no room waits
//! for it here, and is aborted here, if the queue before it is.

use tokio::time::{Duration, sleep};

use crate::model::event::{Cause, CellStatus, Envelope, Event, Seq};
use crate::session::log::{ReadError, Subscription};
use crate::session::{CellRequest, Denied, SessionError, SessionHandle};

/// How long after a refusal for too many requests the next try is.
const AGAIN: Duration = Duration::from_millis(20);

/// What became of a cell that was to be submitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Submitted {
    /// It is in the log.
    Accepted,
    /// The cells before it were aborted while it waited for room, and it with them.
    Aborted,
}

/// Where the cells of one connection wait, one after the other.
#[derive(Debug)]
pub(crate) struct Room {
    session: SessionHandle,
    /// What has become of cells, read on from one that waits to the next.
    log: Subscription,
    /// Where the log said last that the queue was aborted.
    aborted: Seq,
}

impl Room {
    /// A room in which nobody waits.
    pub(crate) fn new(session: SessionHandle) -> Self {
        Self {
            log: session.log().subscribe(session.log().head()),
            session,
            aborted: 0,
        }
    }

    /// Submits a cell that came when the log ended at `arrived`; waits until the queue has room. Whoever is let in came after those before.
    ///
    /// # Errors
    /// As [`SessionHandle::execute`].
    pub(crate) async fn submit(
        &mut self,
        request: CellRequest,
        arrived: Seq,
    ) -> Result<Submitted, SessionError> {
        if self.log.position() < arrived {
            // What was before it does not concern it, nor those behind.
            self.log = self.session.log().subscribe(arrived);
        }
        loop {
            while self.log.position() < self.session.log().head() {
                self.read().await?;
            }
            if self.aborted > arrived {
                return Ok(Submitted::Aborted);
            }
            match self.session.execute(request.clone()).await {
                Ok(_) => return Ok(Submitted::Accepted),
                // Until a cell has ended.
                Err(SessionError::Denied(Denied::QueueFull { .. })) => while !self.read().await? {},
                Err(SessionError::Denied(Denied::Busy)) => sleep(AGAIN).await,
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads on; waits for something to read. Says whether cells may have ended.
    async fn read(&mut self) -> Result<bool, SessionError> {
        let events = match self.log.next().await {
            Ok(Some(events)) => events,
            Ok(None) => return Err(Denied::Ended.into()),
            Err(ReadError::Store(error)) => return Err(error.into()),
            Err(ReadError::Trimmed { .. } | ReadError::Ahead { .. }) => {
                self.log = self.session.log().subscribe(self.session.log().head());
                return Ok(true);
            }
        };
        let mut ended = false;
        for event in events {
            let envelope = serde_json::from_slice::<Envelope>(&event.json).ok();
            if let Some(Event::CellFinished { status, cause, .. }) =
                envelope.map(|envelope| envelope.event)
            {
                ended = true;
                // Something has befallen the queue; more than one cell that somebody took out.
                if status == CellStatus::Aborted && cause != Some(Cause::Cancelled) {
                    self.aborted = event.seq;
                }
            }
        }
        Ok(ended)
    }
}
