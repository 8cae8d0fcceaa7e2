//! Opens the database: is it ours, is it whole, is it of this version; and brings an older one up to date.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::{Durability, StoreError};

/// Every step from an empty database to the present schema, in order. A step that was released is never changed.
pub(super) const MIGRATIONS: &[&str] = &[
    include_str!("migrations/0001_sessions_events_cells.sql"),
    include_str!("migrations/0002_memories.sql"),
    include_str!("migrations/0003_log_ids.sql"),
];

/// Says that a database is ours: "evcl".
pub(super) const APPLICATION_ID: i64 = 0x6576_636c;

/// The size of a page. Small, because a commit writes whole pages and large events are not in the database. With a hundred
/// sessions appending at once, 8192 costs a third of the throughput, 16384 half.
pub(super) const PAGE_BYTES: i64 = 4096;

/// The connection that writes.
pub(super) fn open(file: &Path, durability: Durability) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut db = Connection::open_with_flags(file, flags)
        .map_err(|error| StoreError::from_sql("open", file, error))?;
    let opened = prepare(&mut db, file, durability);
    opened.map_err(|failure| match failure {
        Unusable::Sql(error) => StoreError::from_sql("open", file, error),
        Unusable::Known(error) => error,
    })?;
    Ok(db)
}

/// A connection that reads.
pub(super) fn open_reader(file: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(file, flags)?;
    db.set_prepared_statement_cache_capacity(16);
    db.busy_timeout(std::time::Duration::from_secs(5))?;
    // What is read here is read once: a small cache, and no memory map, whose page faults cost more than a copy.
    db.pragma_update(None, "cache_size", -512)?;
    Ok(db)
}

/// The connection that moves the write-ahead log into the database.
pub(super) fn open_for_checkpoints(file: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(file, flags)?;
    db.pragma_update(None, "synchronous", "normal")?;
    db.pragma_update(None, "wal_autocheckpoint", 0)?;
    Ok(db)
}

enum Unusable {
    Sql(rusqlite::Error),
    Known(StoreError),
}

impl From<rusqlite::Error> for Unusable {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

fn prepare(db: &mut Connection, file: &Path, durability: Durability) -> Result<(), Unusable> {
    db.set_prepared_statement_cache_capacity(48);
    // Nobody else writes; only a reader in the moment of a checkpoint can be in the way.
    db.busy_timeout(std::time::Duration::from_secs(5))?;
    // Takes effect only in a database that is still empty.
    db.pragma_update(None, "page_size", PAGE_BYTES)?;
    check_owner(db, file)?;
    db.pragma_update(None, "journal_mode", "wal")?;
    let synchronous = match durability {
        // The end of a process loses nothing that was written. NORMAL, not OFF: checkpoints wait for the disk, so that a
        // power cut can cost the tail but never the database.
        Durability::Process => "normal",
        Durability::Power => "full",
    };
    db.pragma_update(None, "synchronous", synchronous)?;
    // The checkpoint is `checkpoint.rs`'s.
    db.pragma_update(None, "wal_autocheckpoint", 0)?;
    // As much as one transaction writes, so that its pages are neither spilled nor allocated anew each time.
    db.pragma_update(None, "cache_size", -16 * 1024)?;
    migrate(db)
}

fn check_owner(db: &Connection, file: &Path) -> Result<(), Unusable> {
    let pragma = |name| db.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let (owner, version) = (pragma("application_id")?, pragma("user_version")?);
    if owner != APPLICATION_ID {
        let tables: i64 =
            db.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        if tables > 0 || owner != 0 {
            return Err(Unusable::Known(StoreError::Foreign {
                file: file.to_owned(),
            }));
        }
    }
    let known = MIGRATIONS.len() as i64;
    if version > known {
        return Err(Unusable::Known(StoreError::Newer {
            file: file.to_owned(),
            found: version,
            known,
        }));
    }
    Ok(())
}

fn migrate(db: &mut Connection) -> Result<(), Unusable> {
    let version: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
    for (step, sql) in (1..)
        .zip(MIGRATIONS)
        .skip(version.max(0).unsigned_abs() as usize)
    {
        // One transaction a step, its number included: a crash leaves the schema at a step, never within one.
        let transaction = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        transaction.execute_batch(sql)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", step)?;
        transaction.commit()?;
    }
    Ok(())
}
