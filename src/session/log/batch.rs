//! From events to the bytes that are stored, replayed and sent.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde::Serialize;

use super::memory::LogMemory;
use crate::model::event::{Event, Seq, UnixMillis};
use crate::model::id::CellId;
use crate::session::command::CellRequest;
use crate::store::{Append, CellChange, SessionKey, SessionState, StoredEvent};

/// Events that are written together.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// The events, in order.
    pub events: Vec<Event>,
    /// How the cells are to be run that are queued in this batch.
    pub requests: Vec<(CellId, CellRequest)>,
    /// The last frame of the kernel that is in these events.
    pub kernel_frame: Option<u64>,
    /// Whether this is activity, by which idleness and retention are counted.
    pub is_activity: bool,
    /// What the session's task has to know to go on from here after the death of the server, if that has changed.
    pub memory: Option<String>,
}

/// A batch with its numbers, in the bytes that will be stored. A clone shares them.
#[derive(Clone, Debug)]
pub struct Prepared {
    pub(super) append: Append,
    pub(super) last: Seq,
}

impl Prepared {
    /// The events as they will be in the log. Nobody may see them before they are committed.
    pub fn events(&self) -> &[StoredEvent] {
        &self.append.events
    }

    /// The seq of the last of them.
    pub fn last(&self) -> Seq {
        self.last
    }
}

/// An `Envelope` whose event is elsewhere; the same JSON.
#[derive(Serialize)]
struct EnvelopeOf<'a> {
    seq: Seq,
    at_ms: UnixMillis,
    #[serde(flatten)]
    event: &'a Event,
}

pub(super) fn prepare(
    session: SessionKey,
    batch: &Batch,
    first: Seq,
    memory: &LogMemory,
) -> Prepared {
    let at_ms = now_ms();
    // One buffer for all of them: its pages are there already, those of a new one would have to be got from the system.
    let mut buffer = memory.buffer();
    let mut ends = Vec::with_capacity(batch.events.len());
    for (seq, event) in (first..).zip(&batch.events) {
        let envelope = EnvelopeOf { seq, at_ms, event };
        serde_json::to_writer(&mut *buffer, &envelope)
            .expect("events have text keys only, and a Vec takes everything");
        ends.push(buffer.len());
    }
    let bytes: Bytes = buffer.freeze();
    let mut start = 0;
    let events = (first..)
        .zip(ends)
        .map(|(seq, end)| {
            let json = bytes.slice(start..end);
            start = end;
            StoredEvent { seq, json }
        })
        .collect();
    Prepared {
        last: first + batch.events.len() as u64 - 1,
        append: Append {
            session,
            at_ms,
            events,
            cells: changes(batch, first),
            state: state(&batch.events),
            kernel_frame: batch.kernel_frame,
            active_at_ms: batch.is_activity.then_some(at_ms),
            memory: batch.memory.clone(),
        },
    }
}

fn changes(batch: &Batch, first: Seq) -> Vec<CellChange> {
    let request_of = |cell| {
        let found = batch.requests.iter().find(|(queued, _)| queued == cell);
        found.map(|(_, request)| request)
    };
    (first..)
        .zip(&batch.events)
        .filter_map(|(seq, event)| match event {
            Event::CellQueued { cell, .. } => Some(CellChange::Queued {
                cell: *cell,
                key: request_of(cell).and_then(|request| request.key.clone()),
                request: request_of(cell).map_or(String::new(), |request| {
                    serde_json::to_string(request).expect("a request has text keys only")
                }),
                seq,
            }),
            Event::CellFinished { cell, .. } => Some(CellChange::Finished { cell: *cell, seq }),
            _ => None,
        })
        .collect()
}

/// Whether the session goes on after these events, if they say so.
fn state(events: &[Event]) -> Option<SessionState> {
    events.iter().rev().find_map(|event| match event {
        Event::SessionOpened { .. } => Some(SessionState::Open),
        Event::SessionEnded { .. } => Some(SessionState::Ended),
        _ => None,
    })
}

/// By the wall clock, which only the log and the store read.
fn now_ms() -> UnixMillis {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as UnixMillis)
}
