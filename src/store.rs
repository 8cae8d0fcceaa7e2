//! The store: what must outlive the server, in one SQLite database below the data directory.
//!
//! Separate, because it is the one room that decides what is durable and when. [`session`](crate::session) calls it. It knows rows
//! and bytes, not what an event means.
//!
//! There is one writing connection. Requests reach its thread through a bounded channel; it takes one, takes what else waits (bounded),
//! writes all of it in one transaction, and answers when that is committed. So a hundred sessions share a commit. A lone small append
//! does not even wake the thread: its caller commits it (`writer.rs`). Reading is done by a few connections of its own, on blocking threads: in WAL mode neither waits for
//! the other.
//!
//! Large events stand in files beside the database (`bulk.rs`), which is many times cheaper than to write them twice.

mod bulk;
mod cells;
mod checkpoint;
mod crash;
mod directory;
mod error;
mod events;
mod readers;
mod repair;
mod request;
mod reserve;
mod schema;
mod sessions;
mod trim;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use cells::{CellChange, CellRow, UnfinishedCell};
pub use error::StoreError;
pub use events::{Append, StoredEvent};
pub use sessions::{NewSession, OpenSession, SessionRow, SessionState, SessionUpdate};
pub use trim::{TrimPolicy, TrimReport, Trimmed};

use crate::model::event::Seq;
use crate::model::id::{CellId, SessionId};
use bulk::{BulkDir, BulkFiles};
use readers::Readers;
use request::{Committed, Request};
use writer::Writer;

/// How to keep things.
#[derive(Clone, Debug)]
pub struct Config {
    /// The directory that holds everything; made if it is not there.
    pub data_dir: PathBuf,
    /// What a commit survives.
    pub durability: Durability,
    /// How many requests may wait for the writer; who comes later waits for a place.
    pub queue: usize,
    /// How many connections read at a time.
    pub readers: usize,
}

impl Config {
    /// The defaults, below this directory.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            durability: Durability::Process,
            queue: 256,
            readers: 4,
        }
    }
}

/// What a commit survives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// The end of this process, however it comes. A power cut may cost the last moments, never the rest.
    #[default]
    Process,
    /// A power cut too: every commit waits for the disk.
    Power,
}

/// A session's key in the store: never reused, not even after the session was deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionKey(i64);

/// The store. Clones are handles to the same one.
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    data_dir: PathBuf,
    writer: Writer,
    readers: Readers,
    bulk: BulkDir,
}

impl Store {
    /// Opens the store, and makes it if it is not there.
    ///
    /// # Errors
    /// When the directory is in use or cannot be written, and when the database is damaged, of a newer version or not ours.
    pub fn open(config: Config) -> Result<Self, StoreError> {
        let lock = directory::claim(&config.data_dir)?;
        let file = directory::database(&config.data_dir);
        let db = schema::open(&file, config.durability)?;
        let bulk = BulkDir::open(&config.data_dir)?;
        repair::repair(&db, &file, &bulk)?;
        let readers = Readers::new(file.clone(), config.readers.max(1));
        let files = BulkFiles::new(bulk.clone(), config.durability);
        let queue = config.queue.max(1);
        let writer = Writer::start(db, file, files, lock, config.durability, queue)?;
        let inner = Inner {
            data_dir: config.data_dir,
            writer,
            readers,
            bulk,
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// The directory that holds everything.
    pub fn data_dir(&self) -> &Path {
        &self.inner.data_dir
    }

    /// Records a new session, open and with an empty log.
    ///
    /// # Errors
    /// [`StoreError::SessionExists`] when there is one with this id, ended or not.
    pub async fn create_session(&self, new: NewSession) -> Result<SessionRow, StoreError> {
        self.write(|reply| Request::Create { new, reply }).await
    }

    /// A session by its id.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn session(&self, id: &SessionId) -> Result<Option<SessionRow>, StoreError> {
        let id = id.clone();
        self.inner
            .readers
            .read("find a session", move |db| sessions::by_id(db, &id))
            .await
    }

    /// Sessions in the order of their ids, after this one.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn sessions(
        &self,
        after: Option<SessionId>,
        limit: usize,
    ) -> Result<Vec<SessionRow>, StoreError> {
        self.inner
            .readers
            .read("list sessions", move |db| {
                sessions::list(db, after.as_ref(), limit)
            })
            .await
    }

    /// Changes a session's row.
    ///
    /// # Errors
    /// [`StoreError::NoSuchSession`] when it was deleted.
    pub async fn update_session(
        &self,
        key: SessionKey,
        update: SessionUpdate,
    ) -> Result<(), StoreError> {
        self.write(|reply| Request::Update { key, update, reply })
            .await
    }

    /// Forgets a session, its cells and its log. Its id is free at once; its workspace is the caller's to delete before.
    ///
    /// Events are swept in small steps between other requests. When this is cut short, the next [`Store::trim`] does the rest.
    ///
    /// # Errors
    /// [`StoreError::NoSuchSession`] when it was deleted.
    pub async fn delete_session(&self, key: SessionKey) -> Result<(), StoreError> {
        self.write(|reply| Request::Delete { key, reply }).await?;
        trim::sweep(self, key).await
    }

    /// Writes events and what they mean, all or nothing. Returns when it is committed.
    ///
    /// # Errors
    /// [`StoreError::Gap`] when the events do not follow the head, [`StoreError::Full`] when there is no room. Nothing was written then.
    pub async fn append(&self, append: Append) -> Result<(), StoreError> {
        self.append_then(append, None).await
    }

    /// The same, and has the writer call `committed` between the commit and the answer, even if the caller is gone by then.
    pub(crate) async fn append_then(
        &self,
        append: Append,
        committed: Option<Committed>,
    ) -> Result<(), StoreError> {
        self.write(|reply| Request::Append {
            append,
            committed,
            reply,
        })
        .await
    }

    /// Events after `after`: at least one if there is one, else within both bounds. They may begin later than at `after + 1`, when
    /// those between were trimmed.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn read(
        &self,
        key: SessionKey,
        after: Seq,
        max_events: usize,
        max_bytes: usize,
    ) -> Result<Vec<StoredEvent>, StoreError> {
        let bulk = self.inner.bulk.clone();
        self.inner
            .readers
            .read("read events", move |db| {
                events::read(db, &bulk, key, after, max_events, max_bytes)
            })
            .await
    }

    /// A cell of a session.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn cell(&self, key: SessionKey, cell: CellId) -> Result<Option<CellRow>, StoreError> {
        self.inner
            .readers
            .read("find a cell", move |db| cells::by_id(db, key, cell))
            .await
    }

    /// The cells of a session that were accepted last, the last one first.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn last_cells(
        &self,
        key: SessionKey,
        limit: usize,
    ) -> Result<Vec<CellRow>, StoreError> {
        self.inner
            .readers
            .read("list cells", move |db| cells::last(db, key, limit))
            .await
    }

    /// A cell of a session by the idempotency key that its caller gave.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn cell_by_key(
        &self,
        key: SessionKey,
        cell_key: &str,
    ) -> Result<Option<CellRow>, StoreError> {
        let cell_key = cell_key.to_owned();
        self.inner
            .readers
            .read("find a cell by its key", move |db| {
                cells::by_key(db, key, &cell_key)
            })
            .await
    }

    /// All sessions that are open, with what it takes to go on with them.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn open_sessions(&self) -> Result<Vec<OpenSession>, StoreError> {
        self.inner
            .readers
            .read("list open sessions", sessions::open)
            .await
    }

    /// Removes what the policy no longer keeps, in small steps between other requests.
    ///
    /// # Errors
    /// When the database cannot be read or written; what was trimmed by then stays trimmed.
    pub async fn trim(&self, policy: TrimPolicy) -> Result<TrimReport, StoreError> {
        trim::trim(self, policy).await
    }

    /// Writes what was asked for by now, moves it into the database proper, and lets go of the directory.
    ///
    /// Other handles get [`StoreError::Closed`] from now on.
    pub async fn close(self) {
        self.inner.readers.close().await;
        self.inner.writer.close().await;
    }

    async fn write<T>(
        &self,
        request: impl FnOnce(request::Reply<T>) -> Request,
    ) -> Result<T, StoreError> {
        let (reply, answer) = tokio::sync::oneshot::channel();
        self.inner.writer.send(request(reply)).await?;
        answer.await.map_err(|_gone| StoreError::Closed)?
    }
}

#[cfg(test)]
mod tests;
