//! Events: append a batch, read a range.

use bytes::Bytes;
use rusqlite::types::Null;
use rusqlite::{Connection, OptionalExtension, params};

use super::bulk::{BulkDir, BulkFiles, LARGE_BYTES};
use super::cells::{self, CellChange};
use super::crash::{self, Step};
use super::request::Refused;
use super::sessions::{self, SessionState, unsigned};
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
    /// What the session's task knows from now on, in its own words, if that has changed.
    pub memory: Option<String>,
}

impl Append {
    /// How much JSON it writes.
    pub(super) fn bytes(&self) -> usize {
        self.events.iter().map(|event| event.json.len()).sum()
    }

    /// How much of it goes to the bulk file.
    fn bulk_bytes(&self) -> u64 {
        let large = self.events.iter().filter(|event| event.is_large());
        large.map(|event| event.json.len() as u64).sum()
    }
}

impl StoredEvent {
    fn is_large(&self) -> bool {
        self.json.len() >= LARGE_BYTES
    }
}

/// How many bits of an event's row id are its seq; the rest is its session. 68 thousand million events a session, and 134 million
/// sessions.
const SEQ_BITS: u32 = 36;

/// The last seq that there can be.
const SEQ_MAX: Seq = (1 << SEQ_BITS) - 1;

impl SessionKey {
    /// Whether it leaves room for a seq in a row id.
    pub(super) fn is_possible(self) -> bool {
        self.0 < 1 << (i64::BITS - 1 - SEQ_BITS)
    }

    /// The row id of an event; of the last possible one, if there is none such.
    pub(super) fn row_id(self, seq: Seq) -> i64 {
        self.0 << SEQ_BITS | seq.min(SEQ_MAX).cast_signed()
    }
}

/// The seq in a row id.
pub(super) fn seq_of(row_id: i64) -> Seq {
    row_id.cast_unsigned() & SEQ_MAX
}

pub(super) fn append(
    db: &Connection,
    bulk: &mut BulkFiles,
    append: &Append,
) -> Result<(), Refused> {
    let session = append.session;
    check_order(append)?;
    let before = append.events.first().map_or(0, |event| event.seq - 1);
    let moved = db
        .prepare_cached(
            "UPDATE positions SET head = head + ?2, bytes = bytes + ?3, bulk_end = bulk_end + ?4, \
             kernel_frame = coalesce(?5, kernel_frame), active_at_ms = coalesce(?6, active_at_ms) \
             WHERE session = ?1 AND (?2 = 0 OR head = ?7) RETURNING bulk_end - ?4",
        )?
        .query_row(
            params![
                session.0,
                append.events.len().cast_signed(),
                append.bytes().cast_signed(),
                append.bulk_bytes().cast_signed(),
                append.kernel_frame.map(u64::cast_signed),
                append.active_at_ms.map(u64::cast_signed),
                before.cast_signed(),
            ],
            |row| unsigned(row, 0),
        )
        .optional()?;
    let Some(bulk_end) = moved else {
        return Err(match head(db, session)? {
            Some(head) => gap(session, head, before + 1),
            None => StoreError::NoSuchSession(session).into(),
        });
    };
    insert(db, bulk, append, bulk_end)?;
    for change in &append.cells {
        cells::apply(db, session, change)?;
    }
    if let Some(state) = append.state {
        db.prepare_cached("UPDATE sessions SET state = ?2 WHERE key = ?1")?
            .execute(params![session.0, state.as_str()])?;
    }
    if append.state == Some(SessionState::Ended) {
        db.prepare_cached("DELETE FROM memories WHERE session = ?1")?
            .execute([session.0])?;
    } else if let Some(memory) = &append.memory {
        sessions::remember(db, session, memory)?;
    }
    Ok(())
}

fn insert(
    db: &Connection,
    bulk: &mut BulkFiles,
    append: &Append,
    mut bulk_end: u64,
) -> Result<(), Refused> {
    let mut statement = db.prepare_cached(
        "INSERT INTO events (id, at_ms, bytes, json, bulk) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?;
    for event in &append.events {
        let row_id = append.session.row_id(event.seq);
        let (at_ms, bytes) = (append.at_ms.cast_signed(), event.json.len().cast_signed());
        if event.is_large() {
            bulk.write(append.session, bulk_end, &event.json)?;
            crash::step(Step::BulkWritten);
            statement.execute(params![row_id, at_ms, bytes, Null, bulk_end.cast_signed()])?;
            bulk_end += event.json.len() as u64;
        } else {
            statement.execute(params![row_id, at_ms, bytes, &event.json[..], Null])?;
        }
    }
    Ok(())
}

/// The order within a batch; that it follows the head is for the database to say.
fn check_order(append: &Append) -> Result<(), Refused> {
    let Some(first) = append.events.first() else {
        return Ok(());
    };
    for (expected, event) in (first.seq..).zip(&append.events) {
        if event.seq != expected || expected == 0 {
            return Err(gap(append.session, expected.saturating_sub(1), event.seq));
        }
        if event.seq > SEQ_MAX {
            return Err(StoreError::Exhausted {
                what: "event numbers of a session",
            }
            .into());
        }
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

/// Where an event's JSON is.
enum Json {
    Here(Bytes),
    Bulk { offset: u64, length: usize },
}

/// Events after `after`, at least one if there is one, else within both bounds.
pub(super) fn read(
    db: &Connection,
    bulk: &BulkDir,
    session: SessionKey,
    after: Seq,
    max_events: usize,
    max_bytes: usize,
) -> Result<Vec<StoredEvent>, Refused> {
    let rows = rows(db, session, after, max_events, max_bytes)?;
    let has_bulk = rows
        .iter()
        .any(|(_, json)| matches!(json, Json::Bulk { .. }));
    let mut events = Vec::with_capacity(rows.len());
    let mut missing = None;
    for (seq, json) in rows {
        let json = match json {
            Json::Here(json) => json,
            Json::Bulk { offset, length } => match bulk.read(session, offset, length)? {
                Some(json) => json.into(),
                None => {
                    missing = Some(seq);
                    continue;
                }
            },
        };
        events.push(StoredEvent { seq, json });
    }
    if has_bulk {
        // The file is read outside of the transaction. What is trimmed after the rows were read may have been gone from it
        // already; then the log says by now that it begins later.
        let first = first(db, session)?;
        if let Some(seq) = missing
            && first.is_some_and(|first| seq >= first)
        {
            return Err(StoreError::Missing { session, seq }.into());
        }
        let first = first.unwrap_or(Seq::MAX);
        events.retain(|event| event.seq >= first);
    }
    Ok(events)
}

fn rows(
    db: &Connection,
    session: SessionKey,
    after: Seq,
    max_events: usize,
    max_bytes: usize,
) -> rusqlite::Result<Vec<(Seq, Json)>> {
    let mut statement = db.prepare_cached(
        "SELECT id, bytes, bulk, json FROM events WHERE id > ?1 AND id <= ?2 ORDER BY id LIMIT ?3",
    )?;
    let mut rows = statement.query(params![
        session.row_id(after),
        session.row_id(SEQ_MAX),
        i64::try_from(max_events.max(1)).unwrap_or(i64::MAX),
    ])?;
    let mut events = Vec::new();
    let mut bytes = 0usize;
    while let Some(row) = rows.next()? {
        let length = row.get::<_, u32>(1)? as usize;
        bytes = bytes.saturating_add(length);
        if bytes > max_bytes && !events.is_empty() {
            break;
        }
        let json = match row.get::<_, Option<i64>>(2)? {
            Some(offset) => Json::Bulk {
                offset: offset.cast_unsigned(),
                length,
            },
            None => Json::Here(Bytes::copy_from_slice(row.get_ref(3)?.as_blob()?)),
        };
        events.push((seq_of(row.get(0)?), json));
    }
    Ok(events)
}

fn first(db: &Connection, session: SessionKey) -> rusqlite::Result<Option<Seq>> {
    db.prepare_cached("SELECT first FROM positions WHERE session = ?1")?
        .query_row([session.0], |row| unsigned(row, 0))
        .optional()
}
