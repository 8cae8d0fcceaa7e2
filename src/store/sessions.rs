//! Rows of sessions.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::cells::{self, UnfinishedCell};
use super::request::Refused;
use super::{SessionKey, StoreError};
use crate::model::event::{Seq, UnixMillis};
use crate::model::id::SessionId;
use crate::model::settings::Settings;

/// A session that is to be recorded.
#[derive(Clone, Debug)]
pub struct NewSession {
    /// Its id.
    pub id: SessionId,
    /// What it was given.
    pub settings: Settings,
    /// Now.
    pub at_ms: UnixMillis,
}

/// Whether a session goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionState {
    /// It does.
    Open,
    /// It does not; its log and its files are still there.
    Ended,
}

impl SessionState {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Ended => "ended",
        }
    }
}

/// What the store knows of a session.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionRow {
    /// Its key here.
    pub key: SessionKey,
    /// Its id.
    pub id: SessionId,
    /// Whether it goes on.
    pub state: SessionState,
    /// What it was given.
    pub settings: Settings,
    /// When it was opened, or opened again.
    pub opened_at_ms: UnixMillis,
    /// When it last did something.
    pub active_at_ms: UnixMillis,
    /// The last event of its log; 0 before the first.
    pub head: Seq,
    /// The first event that is still there; `head + 1` if none is.
    pub first: Seq,
    /// The name of its directory below `workspaces`.
    pub workspace: String,
    /// Which log it has, as nothing else that ever had its id.
    pub log: String,
    /// The last frame of its kernel whose events are in the log.
    pub kernel_frame: u64,
}

/// What is to change in a session's row; what is `None` stays.
#[derive(Clone, Debug, Default)]
pub struct SessionUpdate {
    /// Whether it goes on.
    pub state: Option<SessionState>,
    /// What it is given.
    pub settings: Option<Settings>,
    /// The last frame of its kernel whose events are in the log.
    pub kernel_frame: Option<u64>,
    /// When it was opened again.
    pub opened_at_ms: Option<UnixMillis>,
    /// When it last did something.
    pub active_at_ms: Option<UnixMillis>,
}

const COLUMNS: &str = "SELECT s.key, s.id, s.state, s.settings, s.opened_at_ms, s.workspace, \
     p.active_at_ms, p.head, p.first, p.kernel_frame, s.log \
     FROM sessions s JOIN positions p ON p.session = s.key";

pub(super) fn by_id(db: &Connection, id: &SessionId) -> rusqlite::Result<Option<SessionRow>> {
    db.prepare_cached(&format!("{COLUMNS} WHERE s.id = ?1"))?
        .query_row([id.as_str()], from_row)
        .optional()
}

fn by_key(db: &Connection, key: SessionKey) -> rusqlite::Result<SessionRow> {
    db.prepare_cached(&format!("{COLUMNS} WHERE s.key = ?1"))?
        .query_row([key.0], from_row)
}

/// Sessions in the order of their ids.
pub(super) fn list(
    db: &Connection,
    after: Option<&SessionId>,
    limit: usize,
) -> rusqlite::Result<Vec<SessionRow>> {
    db.prepare_cached(&format!("{COLUMNS} WHERE s.id > ?1 ORDER BY s.id LIMIT ?2"))?
        .query_map(
            params![
                after.map_or("", SessionId::as_str),
                i64::try_from(limit).unwrap_or(i64::MAX)
            ],
            from_row,
        )?
        .collect()
}

/// A session that was open when its server stopped, with what it takes to go on with it.
#[derive(Clone, Debug, PartialEq)]
pub struct OpenSession {
    /// The session.
    pub row: SessionRow,
    /// What its task knew, in its own words; none before it has begun.
    pub memory: Option<String>,
    /// Its cells that are not over, in the order in which they were accepted.
    pub cells: Vec<UnfinishedCell>,
}

/// All sessions that are open.
pub(super) fn open(db: &Connection) -> rusqlite::Result<Vec<OpenSession>> {
    let rows: Vec<SessionRow> = db
        .prepare_cached(&format!("{COLUMNS} WHERE s.state = 'open' ORDER BY s.key"))?
        .query_map([], from_row)?
        .collect::<Result<_, _>>()?;
    rows.into_iter()
        .map(|row| {
            let memory = db
                .prepare_cached("SELECT memory FROM memories WHERE session = ?1")?
                .query_row([row.key.0], |memory| memory.get(0))
                .optional()?;
            let cells = cells::unfinished(db, row.key)?;
            Ok(OpenSession { row, memory, cells })
        })
        .collect()
}

/// Keeps what a session's task knows, in place of what it knew before.
pub(super) fn remember(db: &Connection, session: SessionKey, memory: &str) -> rusqlite::Result<()> {
    db.prepare_cached(
        "INSERT INTO memories (session, memory) VALUES (?1, ?2) \
         ON CONFLICT (session) DO UPDATE SET memory = excluded.memory",
    )?
    .execute(params![session.0, memory])?;
    Ok(())
}

/// Ended sessions that have not been active since.
pub(super) fn expired(db: &Connection, since: UnixMillis) -> rusqlite::Result<Vec<SessionRow>> {
    db.prepare_cached(&format!(
        "{COLUMNS} WHERE s.state = 'ended' AND p.active_at_ms < ?1 ORDER BY s.key"
    ))?
    .query_map([i64::try_from(since).unwrap_or(i64::MAX)], from_row)?
    .collect()
}

pub(super) fn create(db: &Connection, new: &NewSession) -> Result<SessionRow, Refused> {
    if by_id(db, &new.id)?.is_some() {
        return Err(StoreError::SessionExists { id: new.id.clone() }.into());
    }
    let at_ms = new.at_ms.cast_signed();
    db.prepare_cached(
        "INSERT INTO sessions (id, state, settings, opened_at_ms, workspace, log) \
         VALUES (?1, 'open', ?2, ?3, '', lower(hex(randomblob(8))))",
    )?
    .execute(params![
        new.id.as_str(),
        settings_json(&new.settings),
        at_ms
    ])?;
    let key = SessionKey(db.last_insert_rowid());
    if !key.is_possible() {
        return Err(StoreError::Exhausted {
            what: "session keys",
        }
        .into());
    }
    // Named after the key, which is never reused: the id may be long, and must never be a path.
    db.prepare_cached("UPDATE sessions SET workspace = 's' || key WHERE key = ?1")?
        .execute([key.0])?;
    db.prepare_cached(
        "INSERT INTO positions (session, head, first, bytes, bulk_end, kernel_frame, active_at_ms) \
         VALUES (?1, 0, 1, 0, 0, 0, ?2)",
    )?
    .execute(params![key.0, at_ms])?;
    Ok(by_key(db, key)?)
}

pub(super) fn update(
    db: &Connection,
    key: SessionKey,
    update: &SessionUpdate,
) -> Result<(), Refused> {
    let SessionUpdate {
        state,
        settings,
        kernel_frame,
        opened_at_ms,
        active_at_ms,
    } = update;
    let known = db
        .prepare_cached(
            "UPDATE sessions SET state = coalesce(?2, state), settings = coalesce(?3, settings), \
             opened_at_ms = coalesce(?4, opened_at_ms) WHERE key = ?1",
        )?
        .execute(params![
            key.0,
            state.map(SessionState::as_str),
            settings.as_ref().map(settings_json),
            opened_at_ms.map(u64::cast_signed),
        ])?;
    if known == 0 {
        return Err(StoreError::NoSuchSession(key).into());
    }
    db.prepare_cached(
        "UPDATE positions SET kernel_frame = coalesce(?2, kernel_frame), \
         active_at_ms = coalesce(?3, active_at_ms) WHERE session = ?1",
    )?
    .execute(params![
        key.0,
        kernel_frame.map(u64::cast_signed),
        active_at_ms.map(u64::cast_signed),
    ])?;
    Ok(())
}

/// Removes a session at once; its events, which may be many, are left to be swept.
pub(super) fn delete(db: &Connection, key: SessionKey) -> Result<(), Refused> {
    let known = db
        .prepare_cached("DELETE FROM sessions WHERE key = ?1")?
        .execute([key.0])?;
    if known == 0 {
        return Err(StoreError::NoSuchSession(key).into());
    }
    for sql in [
        "DELETE FROM positions WHERE session = ?1",
        "DELETE FROM cells WHERE session = ?1",
        "DELETE FROM memories WHERE session = ?1",
        "INSERT INTO doomed (session) VALUES (?1)",
    ] {
        db.prepare_cached(sql)?.execute([key.0])?;
    }
    Ok(())
}

fn settings_json(settings: &Settings) -> String {
    serde_json::to_string(settings).expect("settings have text keys only")
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<SessionRow> {
    Ok(SessionRow {
        key: SessionKey(row.get(0)?),
        id: parsed(row, 1, str::parse)?,
        state: parsed(row, 2, |text| match text {
            "open" => Ok(SessionState::Open),
            "ended" => Ok(SessionState::Ended),
            _ => Err(rusqlite::types::FromSqlError::InvalidType),
        })?,
        settings: parsed(row, 3, |text| serde_json::from_str(text))?,
        opened_at_ms: unsigned(row, 4)?,
        workspace: row.get(5)?,
        active_at_ms: unsigned(row, 6)?,
        head: unsigned(row, 7)?,
        first: unsigned(row, 8)?,
        kernel_frame: unsigned(row, 9)?,
        log: row.get(10)?,
    })
}

/// A number that Rust counts from 0 and SQLite keeps with a sign.
pub(super) fn unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    Ok(row.get::<_, i64>(column)?.cast_unsigned())
}

/// A text column as what it stands for.
pub(super) fn parsed<T, E: std::error::Error + Send + Sync + 'static>(
    row: &Row<'_>,
    column: usize,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> rusqlite::Result<T> {
    let text = row.get_ref(column)?.as_str()?;
    parse(text).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(
            column,
            rusqlite::types::Type::Text,
            Box::new(error),
        )
    })
}
