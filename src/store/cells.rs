//! Rows of cells: where in the log a cell begins and ends, and under which key its caller knows it.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::request::Refused;
use super::sessions::{parsed, unsigned};
use super::{SessionKey, StoreError};
use crate::model::event::Seq;
use crate::model::id::CellId;

/// What an append means for a cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CellChange {
    /// It was accepted.
    Queued {
        /// The cell.
        cell: CellId,
        /// The caller's idempotency key.
        key: Option<String>,
        /// How it is to be run; kept until it is over.
        request: String,
        /// The event that says so.
        seq: Seq,
    },
    /// It is over.
    Finished {
        /// The cell.
        cell: CellId,
        /// The event that says so.
        seq: Seq,
    },
}

/// What the store knows of a cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CellRow {
    /// The cell.
    pub cell: CellId,
    /// The caller's idempotency key.
    pub key: Option<String>,
    /// The event by which it was accepted.
    pub queued: Seq,
    /// The event by which it was over, if it is.
    pub finished: Option<Seq>,
}

pub(super) fn apply(
    db: &Connection,
    session: SessionKey,
    change: &CellChange,
) -> Result<(), Refused> {
    match change {
        CellChange::Queued {
            cell,
            key,
            request,
            seq,
        } => {
            let added = db
                .prepare_cached(
                    "INSERT INTO cells (session, cell, key, request, queued) VALUES (?1, ?2, ?3, ?4, ?5) \
                     ON CONFLICT DO NOTHING",
                )?
                .execute(params![
                    session.0,
                    cell.to_string(),
                    key,
                    request,
                    seq.cast_signed()
                ])?;
            if added == 0 {
                return Err(StoreError::CellExists {
                    session,
                    cell: *cell,
                }
                .into());
            }
        }
        CellChange::Finished { cell, seq } => {
            let finished = db
                .prepare_cached(
                    "UPDATE cells SET finished = ?3, request = NULL \
                     WHERE session = ?1 AND cell = ?2 AND finished IS NULL",
                )?
                .execute(params![session.0, cell.to_string(), seq.cast_signed()])?;
            if finished == 0 {
                return Err(StoreError::NoSuchCell {
                    session,
                    cell: *cell,
                }
                .into());
            }
        }
    }
    Ok(())
}

pub(super) fn by_id(
    db: &Connection,
    session: SessionKey,
    cell: CellId,
) -> rusqlite::Result<Option<CellRow>> {
    db.prepare_cached(
        "SELECT cell, key, queued, finished FROM cells WHERE session = ?1 AND cell = ?2",
    )?
    .query_row(params![session.0, cell.to_string()], from_row)
    .optional()
}

/// By their ids, which sort by the time at which they were made.
pub(super) fn last(
    db: &Connection,
    session: SessionKey,
    limit: usize,
) -> rusqlite::Result<Vec<CellRow>> {
    db.prepare_cached(
        "SELECT cell, key, queued, finished FROM cells WHERE session = ?1 \
         ORDER BY cell DESC LIMIT ?2",
    )?
    .query_map(
        params![session.0, i64::try_from(limit).unwrap_or(i64::MAX)],
        from_row,
    )?
    .collect()
}

pub(super) fn by_key(
    db: &Connection,
    session: SessionKey,
    key: &str,
) -> rusqlite::Result<Option<CellRow>> {
    db.prepare_cached(
        "SELECT cell, key, queued, finished FROM cells WHERE session = ?1 AND key = ?2",
    )?
    .query_row(params![session.0, key], from_row)
    .optional()
}

/// A cell that is not over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnfinishedCell {
    /// The cell.
    pub cell: CellId,
    /// The event by which it was accepted.
    pub queued: Seq,
    /// How it is to be run, as [`CellChange::Queued`] said; none for one that was accepted before that was kept.
    pub request: Option<String>,
}

/// Cells that are not over, in the order in which they were accepted.
pub(super) fn unfinished(
    db: &Connection,
    session: SessionKey,
) -> rusqlite::Result<Vec<UnfinishedCell>> {
    db.prepare_cached(
        "SELECT cell, queued, request FROM cells WHERE session = ?1 AND finished IS NULL \
         ORDER BY queued",
    )?
    .query_map([session.0], |row| {
        Ok(UnfinishedCell {
            cell: parsed(row, 0, str::parse)?,
            queued: unsigned(row, 1)?,
            request: row.get(2)?,
        })
    })?
    .collect()
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<CellRow> {
    Ok(CellRow {
        cell: parsed(row, 0, str::parse)?,
        key: row.get(1)?,
        queued: unsigned(row, 2)?,
        finished: row.get::<_, Option<i64>>(3)?.map(i64::cast_unsigned),
    })
}
