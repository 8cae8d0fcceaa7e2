//! Trimming: events go when they are old or too many, from a log's beginning, and never those of a cell that is not over.

use rusqlite::{Connection, OptionalExtension, params};

use super::bulk::BulkFiles;
use super::crash;
use super::events::seq_of;
use super::request::{Refused, Request};
use super::sessions::{SessionRow, unsigned};
use super::{SessionKey, Store, StoreError, sessions};
use crate::model::event::{Seq, UnixMillis};

/// About how many bytes of events one step removes: freeing a long event in the bulk file takes time too.
pub(super) const SLICE_BYTES: usize = 32 << 20;

/// The most events that one step removes.
const SLICE_EVENTS: i64 = 2048;

/// What is kept. What is `None` is kept without bound.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrimPolicy {
    /// Events written before this instant go.
    pub events_older_than_ms: Option<UnixMillis>,
    /// A log has at most about so many bytes of events.
    pub bytes_per_session: Option<u64>,
    /// All logs together have at most about so many. The largest are cut first, down to one common size.
    pub bytes_total: Option<u64>,
    /// Sessions that have ended, and were last active before this instant, are reported as expired.
    pub ended_older_than_ms: Option<UnixMillis>,
}

/// What trimming has done.
#[derive(Debug, Default)]
pub struct TrimReport {
    /// The logs that now begin later.
    pub trimmed: Vec<Trimmed>,
    /// How many events are gone.
    pub events: u64,
    /// How many bytes of JSON they had.
    pub bytes: u64,
    /// Sessions past their retention. They are still here: delete the workspace first, then call
    /// [`Store::delete_session`], so that a crash between leaves nothing behind that nobody knows of.
    pub expired: Vec<SessionRow>,
}

/// A log that begins later now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trimmed {
    /// The session.
    pub session: SessionKey,
    /// The first event that is still there.
    pub first: Seq,
    /// How many events are gone.
    pub events: u64,
    /// How many bytes of JSON they had.
    pub bytes: u64,
}

/// A step of trimming: events of one session up to this one, as many as a step may remove.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slice {
    session: SessionKey,
    upto: Seq,
}

/// A log as the planner sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Log {
    session: SessionKey,
    bytes: u64,
    /// The last event that may go.
    upto: Seq,
}

pub(super) async fn trim(store: &Store, policy: TrimPolicy) -> Result<TrimReport, StoreError> {
    let readers = &store.inner.readers;
    for session in readers.read("list what to sweep", doomed).await? {
        sweep(store, session).await?;
    }
    let mut report = TrimReport::default();
    let by_policy = policy.clone();
    let cuts = readers
        .read("plan trimming", move |db| plan(db, &by_policy))
        .await?;
    for (session, upto) in cuts {
        let mut total = Trimmed {
            session,
            first: 0,
            events: 0,
            bytes: 0,
        };
        loop {
            let slice = Slice { session, upto };
            let step = store.write(|reply| Request::Trim { slice, reply }).await?;
            total.first = step.first;
            total.events += step.events;
            total.bytes += step.bytes;
            if step.events == 0 || step.first > upto {
                break;
            }
        }
        report.events += total.events;
        report.bytes += total.bytes;
        if total.events > 0 {
            report.trimmed.push(total);
        }
    }
    if let Some(since) = policy.ended_older_than_ms {
        report.expired = readers
            .read("list expired sessions", move |db| {
                sessions::expired(db, since)
            })
            .await?;
    }
    Ok(report)
}

/// Removes the events of a session that was deleted.
pub(super) async fn sweep(store: &Store, session: SessionKey) -> Result<(), StoreError> {
    loop {
        let slice = Slice {
            session,
            upto: i64::MAX.cast_unsigned(),
        };
        let step = store.write(|reply| Request::Trim { slice, reply }).await?;
        if step.events == 0 {
            return Ok(());
        }
    }
}

fn doomed(db: &Connection) -> rusqlite::Result<Vec<SessionKey>> {
    db.prepare_cached("SELECT session FROM doomed")?
        .query_map([], |row| Ok(SessionKey(row.get(0)?)))?
        .collect()
}

/// What a step has done.
pub(super) struct Step {
    pub(super) trimmed: Trimmed,
    /// Up to where the session's bulk file is no longer needed, if that has changed.
    pub(super) bulk_end: Option<u64>,
}

/// One step, within the writer's transaction.
pub(super) fn apply(db: &Connection, bulk: &mut BulkFiles, slice: &Slice) -> Result<Step, Refused> {
    let session = slice.session;
    let mut trimmed = Trimmed {
        session,
        first: 0,
        events: 0,
        bytes: 0,
    };
    let mut bulk_end = None;
    let mut statement = db.prepare_cached(
        "SELECT id, bytes, bulk FROM events WHERE id BETWEEN ?1 AND ?2 ORDER BY id LIMIT ?3",
    )?;
    let (from, upto) = (session.row_id(0), session.row_id(slice.upto));
    let mut rows = statement.query(params![from, upto, SLICE_EVENTS])?;
    let mut last = 0;
    while trimmed.bytes < SLICE_BYTES as u64
        && let Some(row) = rows.next()?
    {
        last = seq_of(row.get(0)?);
        let bytes = unsigned(row, 1)?;
        trimmed.events += 1;
        trimmed.bytes += bytes;
        if let Some(offset) = row.get::<_, Option<i64>>(2)? {
            bulk_end = Some(offset.cast_unsigned() + bytes);
        }
    }
    drop(rows);
    trimmed.first = last + 1;
    if trimmed.events > 0 {
        db.prepare_cached("DELETE FROM events WHERE id BETWEEN ?1 AND ?2")?
            .execute(params![from, session.row_id(last)])?;
        // No row for a session that was deleted.
        db.prepare_cached(
            "UPDATE positions SET first = ?2, bytes = bytes - ?3 WHERE session = ?1",
        )?
        .execute(params![
            session.0,
            trimmed.first.cast_signed(),
            trimmed.bytes.cast_signed()
        ])?;
    } else if db
        .prepare_cached("DELETE FROM doomed WHERE session = ?1")?
        .execute([session.0])?
        > 0
    {
        // Its last event went in an earlier transaction. If this one fails, the next sweep finds nothing to delete.
        bulk.delete(session)?;
        crash::step(crash::Step::BulkDeleted);
    }
    Ok(Step { trimmed, bulk_end })
}

/// Up to which event each log is to be trimmed. A snapshot is enough: logs grow at their end, and a cell that is over stays so.
fn plan(db: &Connection, policy: &TrimPolicy) -> rusqlite::Result<Vec<(SessionKey, Seq)>> {
    let logs = logs(db)?;
    let mut most = policy.bytes_per_session.unwrap_or(u64::MAX);
    if let Some(total) = policy.bytes_total {
        most = most.min(common_size(logs.iter().map(|log| log.bytes), total));
    }
    let mut cuts = Vec::new();
    for log in logs {
        let old = match policy.events_older_than_ms {
            Some(since) => last_before(db, log.session, since)?,
            None => 0,
        };
        let many = match log.bytes.checked_sub(most) {
            None | Some(0) => 0,
            Some(excess) => last_within(db, log.session, excess, log.upto)?,
        };
        let upto = old.max(many).min(log.upto);
        if upto > 0 {
            cuts.push((log.session, upto));
        }
    }
    Ok(cuts)
}

/// Every log that has events, and how far it may be trimmed.
fn logs(db: &Connection) -> rusqlite::Result<Vec<Log>> {
    db.prepare_cached(
        "SELECT p.session, p.bytes, \
         min(p.head, coalesce((SELECT min(c.queued) - 1 FROM cells c \
                               WHERE c.session = p.session AND c.finished IS NULL), p.head)) \
         FROM positions p WHERE p.first <= p.head ORDER BY p.session",
    )?
    .query_map([], |row| {
        Ok(Log {
            session: SessionKey(row.get(0)?),
            bytes: unsigned(row, 1)?,
            upto: unsigned(row, 2)?,
        })
    })?
    .collect()
}

/// The last of the events at a log's beginning that were written before this instant.
fn last_before(db: &Connection, session: SessionKey, since: UnixMillis) -> rusqlite::Result<Seq> {
    // The first that stays, not the last that is older: a clock that was set back must not tear a hole.
    let stays: Option<Seq> = db
        .prepare_cached(
            "SELECT id FROM events WHERE id BETWEEN ?1 AND ?2 AND at_ms >= ?3 ORDER BY id LIMIT 1",
        )?
        .query_row(
            params![
                session.row_id(0),
                session.row_id(Seq::MAX),
                i64::try_from(since).unwrap_or(i64::MAX),
            ],
            |row| Ok(seq_of(row.get(0)?)),
        )
        .optional()?;
    Ok(stays.map_or(Seq::MAX, |seq| seq - 1))
}

/// The event with which the log's beginning has this many bytes.
fn last_within(
    db: &Connection,
    session: SessionKey,
    bytes: u64,
    upto: Seq,
) -> rusqlite::Result<Seq> {
    let mut statement =
        db.prepare_cached("SELECT id, bytes FROM events WHERE id BETWEEN ?1 AND ?2 ORDER BY id")?;
    let mut rows = statement.query([session.row_id(0), session.row_id(upto)])?;
    let (mut last, mut sum) = (0, 0);
    while sum < bytes
        && let Some(row) = rows.next()?
    {
        last = seq_of(row.get(0)?);
        sum += unsigned(row, 1)?;
    }
    Ok(last)
}

/// The size to which the largest logs are cut, so that all together have no more than `total`.
fn common_size(sizes: impl Iterator<Item = u64>, total: u64) -> u64 {
    let mut sizes: Vec<u64> = sizes.collect();
    sizes.sort_unstable();
    let mut left = total;
    for (index, size) in sizes.iter().enumerate() {
        let share = left / (sizes.len() - index) as u64;
        if *size > share {
            return share;
        }
        left -= size;
    }
    u64::MAX
}
