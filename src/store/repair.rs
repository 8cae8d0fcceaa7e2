//! After a power cut: cuts every log before the first large event that is not whole in its bulk file.
//!
//! The end of a process never leaves such a log: the file is written before the commit. A power cut can, unless
//! [`Durability::Power`](super::Durability::Power) is chosen, when the system had saved the row and not yet the file.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, params};

use super::bulk::BulkDir;
use super::events::seq_of;
use super::sessions::unsigned;
use super::{SessionKey, StoreError};
use crate::model::event::Seq;

/// Looks at every log that has a bulk file: a `stat` each.
pub(super) fn repair(db: &Connection, file: &Path, bulk: &BulkDir) -> Result<(), StoreError> {
    let failed = |error| StoreError::from_sql("repair logs", file, error);
    for (session, bulk_end) in with_bulk(db).map_err(failed)? {
        let length = bulk.length(session)?;
        if length < bulk_end {
            cut(db, session, length).map_err(failed)?;
        }
    }
    Ok(())
}

fn with_bulk(db: &Connection) -> rusqlite::Result<Vec<(SessionKey, u64)>> {
    db.prepare("SELECT session, bulk_end FROM positions WHERE bulk_end > 0")?
        .query_map([], |row| Ok((SessionKey(row.get(0)?), unsigned(row, 1)?)))?
        .collect()
}

/// Cuts a log before what lies beyond this length in its bulk file.
fn cut(db: &Connection, session: SessionKey, length: u64) -> rusqlite::Result<()> {
    let transaction = db.unchecked_transaction()?;
    let (from, upto) = (session.row_id(0), session.row_id(Seq::MAX));
    let torn: Option<(i64, i64)> = transaction
        .query_row(
            "SELECT id, bulk FROM events WHERE id BETWEEN ?1 AND ?2 AND bulk + bytes > ?3 ORDER BY id LIMIT 1",
            params![from, upto, length.cast_signed()],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .optional()?;
    let Some((torn, bulk_end)) = torn else {
        // Only what was trimmed is missing.
        return Ok(());
    };
    let seq = seq_of(torn).cast_signed();
    tracing::warn!(
        session.key = session.0,
        event.seq = seq,
        "the log is cut before an event that a power cut has torn"
    );
    transaction.execute(
        "UPDATE positions SET head = ?2 - 1, first = min(first, ?2), bulk_end = ?3, \
         bytes = bytes - (SELECT sum(e.bytes) FROM events e WHERE e.id BETWEEN ?4 AND ?5) WHERE session = ?1",
        params![session.0, seq, bulk_end, torn, upto],
    )?;
    transaction.execute(
        "DELETE FROM cells WHERE session = ?1 AND queued >= ?2",
        params![session.0, seq],
    )?;
    transaction.execute(
        "UPDATE cells SET finished = NULL WHERE session = ?1 AND finished >= ?2",
        params![session.0, seq],
    )?;
    transaction.execute(
        "DELETE FROM events WHERE id BETWEEN ?1 AND ?2",
        [torn, upto],
    )?;
    transaction.commit()
}
