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

/// Submits a cell that came when the log ended at `arrived`; waits for room.
///
/// # Errors
/// As [`SessionHandle::execute`].
pub(crate) async fn submit(
    session: &SessionHandle,
    request: CellRequest,
    arrived: Seq,
) -> Result<Submitted, SessionError> {
    let mut meanwhile = session.log().subscribe(arrived);
    loop {
        while meanwhile.position() < session.log().head() {
            if read(session, &mut meanwhile).await? == Ends::Aborted {
                return Ok(Submitted::Aborted);
            }
        }
        match session.execute(request.clone()).await {
            Ok(_) => return Ok(Submitted::Accepted),
            Err(SessionError::Denied(Denied::QueueFull { .. })) => loop {
                match read(session, &mut meanwhile).await? {
                    Ends::None => {}
                    Ends::Some => break,
                    Ends::Aborted => return Ok(Submitted::Aborted),
                }
            },
            Err(SessionError::Denied(Denied::Busy)) => sleep(AGAIN).await,
            Err(error) => return Err(error),
        }
    }
}

/// Whether cells have ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ends {
    None,
    Some,
    /// Some of them without having run, since something befell the queue.
    Aborted,
}

/// Reads on; waits for something to read.
async fn read(session: &SessionHandle, log: &mut Subscription) -> Result<Ends, SessionError> {
    let events = match log.next().await {
        Ok(Some(events)) => events,
        Ok(None) => return Err(Denied::Ended.into()),
        Err(ReadError::Store(error)) => return Err(error.into()),
        Err(ReadError::Trimmed { .. } | ReadError::Ahead { .. }) => {
            *log = session.log().subscribe(session.log().head());
            return Ok(Ends::Some);
        }
    };
    let mut ends = Ends::None;
    for event in events {
        let envelope = serde_json::from_slice::<Envelope>(&event.json).ok();
        if let Some(Event::CellFinished { status, cause, .. }) =
            envelope.map(|envelope| envelope.event)
        {
            if status == CellStatus::Aborted && cause != Some(Cause::Cancelled) {
                return Ok(Ends::Aborted);
            }
            ends = Ends::Some;
        }
    }
    Ok(ends)
}
