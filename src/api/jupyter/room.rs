//! Submits a cell to a queue that may be full. A Jupyter client sends a whole notebook at once and knows of no such bound, so what finds no room waits
//! for it here, and is not read on from.

use tokio::time::{Duration, sleep};

use crate::model::event::{Cause, CellStatus, Envelope, Event};
use crate::session::log::ReadError;
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

/// Submits a cell; waits for room.
///
/// # Errors
/// As [`SessionHandle::execute`].
pub(crate) async fn submit(
    session: &SessionHandle,
    request: CellRequest,
) -> Result<Submitted, SessionError> {
    loop {
        // Before the question, so that what makes room after it is not missed.
        let mut log = session.log().subscribe(session.log().head());
        match session.execute(request.clone()).await {
            Ok(_) => return Ok(Submitted::Accepted),
            Err(SessionError::Denied(Denied::QueueFull { .. })) => {}
            Err(SessionError::Denied(Denied::Busy)) => {
                sleep(AGAIN).await;
                continue;
            }
            Err(error) => return Err(error),
        }
        'room: loop {
            let events = match log.next().await {
                Ok(Some(events)) => events,
                Ok(None) => return Err(Denied::Ended.into()),
                Err(ReadError::Store(error)) => return Err(error.into()),
                Err(_) => break 'room,
            };
            let ends = events
                .iter()
                .filter_map(|event| serde_json::from_slice::<Envelope>(&event.json).ok())
                .filter_map(|envelope| match envelope.event {
                    Event::CellFinished { status, cause, .. } => Some((status, cause)),
                    _ => None,
                });
            let mut is_room = false;
            for (status, cause) in ends {
                is_room = true;
                if status == CellStatus::Aborted && cause != Some(Cause::Cancelled) {
                    return Ok(Submitted::Aborted);
                }
            }
            if is_room {
                break 'room;
            }
        }
    }
}
