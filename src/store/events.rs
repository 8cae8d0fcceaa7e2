//! Events: append a batch, read a range.

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, params};

use super::cells::{self, CellChange};
use super::sessions::{SessionState, unsigned};
use super::writer::Refused;
use super::{SessionKey, StoreError};
use crate::model::event::{Seq, UnixMillis};

/// An event as it is stored, replayed and sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEvent {
    /// Where in the log it stands.
    pub seq: Seq,
    /// The JSON of its `Envelope`. A clone shares the bytes.
    pub json: Bytes,
}

/// What is written in one transaction: all of it or nothing.
#[derive(Clone, Debug)]
pub struct Append {
    /// The session.
    pub session: SessionKey,
    /// Now; by it events are trimmed when they are old.
    pub at_ms: UnixMillis,
    /// The events, following the last one in the log. There may be none.
    pub events: Vec<StoredEvent>,
    /// What they mean for cells.
    pub cells: Vec<CellChange>,
    /// Whether the session goes on, if they change it.
    pub state: Option<SessionState>,
    /// The last frame of the kernel that is in these events.
    pub kernel_frame: Option<u64>,
    /// When the session last did something.
    pub active_at_ms: Option<UnixMillis>,
}

impl Append {
    /// How much JSON it writes.
    pub(super) fn bytes(&self) -> usize {
        self.events.iter().map(|event| event.json.len()).sum()
    }
}

pub(super) fn append(db: &Connection, append: &Append) -> Result<(), Refused> {
    let session = append.session;
    let count = append.events.len() as u64;
    // Wrong order within the batch is found here, wrong order against the log by the statement below; both before
    // anything is written.
    let before = match append.events.first() {
        Some(event) => event.seq.wrapping_sub(1),
        None => 0,
    };
    for (expected, event) in (before + 1..).zip(&append.events) {
        if event.seq != expected {
            return Err(gap(session, expected - 1, event.seq));
        }
    }
    let moved = db
        .prepare_cached(
            "UPDATE positions SET head = head + ?2, bytes = bytes + ?3, \
             kernel_frame = coalesce(?4, kernel_frame), active_at_ms = coalesce(?5, active_at_ms) \
             WHERE session = ?1 AND (?2 = 0 OR head = ?6)",
        )?
        .execute(params![
            session.0,
            count.cast_signed(),
            (append.bytes() as u64).cast_signed(),
            append.kernel_frame.map(u64::cast_signed),
            append.active_at_ms.map(u64::cast_signed),
            before.cast_signed(),
        ])?;
    if moved == 0 {
        return Err(match head(db, session)? {
            Some(head) => gap(session, head, before + 1),
            None => StoreError::NoSuchSession(session).into(),
        });
    }
    let mut insert = db
        .prepare_cached("INSERT INTO events (session, seq, at_ms, json) VALUES (?1, ?2, ?3, ?4)")?;
    for event in &append.events {
        insert.execute(params![
            session.0,
            event.seq.cast_signed(),
            append.at_ms.cast_signed(),
            &event.json[..]
        ])?;
    }
    for change in &append.cells {
        cells::apply(db, session, change)?;
    }
    if let Some(state) = append.state {
        db.prepare_cached("UPDATE sessions SET state = ?2 WHERE key = ?1")?
            .execute(params![session.0, state.as_str()])?;
    }
    Ok(())
}

fn gap(session: SessionKey, head: Seq, first: Seq) -> Refused {
    StoreError::Gap {
        session,
        head,
        first,
    }
    .into()
}

fn head(db: &Connection, session: SessionKey) -> rusqlite::Result<Option<Seq>> {
    db.prepare_cached("SELECT head FROM positions WHERE session = ?1")?
        .query_row([session.0], |row| unsigned(row, 0))
        .optional()
}

/// Events after `after`, at least one if there is one, else within both bounds.
pub(super) fn read(
    db: &Connection,
    session: SessionKey,
    after: Seq,
    max_events: usize,
    max_bytes: usize,
) -> rusqlite::Result<Vec<StoredEvent>> {
    let mut statement = db.prepare_cached(
        "SELECT seq, json FROM events WHERE session = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3",
    )?;
    let mut rows = statement.query(params![
        session.0,
        after.min(i64::MAX as u64).cast_signed(),
        i64::try_from(max_events.max(1)).unwrap_or(i64::MAX),
    ])?;
    let mut events = Vec::new();
    let mut bytes = 0;
    while let Some(row) = rows.next()? {
        let json = row.get_ref(1)?.as_blob()?;
        bytes += json.len();
        if bytes > max_bytes && !events.is_empty() {
            break;
        }
        events.push(StoredEvent {
            seq: unsigned(row, 0)?,
            json: Bytes::copy_from_slice(json),
        });
    }
    Ok(events)
}
