//! The durable log of one session: appended by its actor, pulled by whoever reads.
//!
//! An event is in the store before anybody can see it: commit, then move the head, then wake. The `watch` says that there is more,
//! the log says what. So resuming is the same code as reading, and a reader that is slow or gone holds nobody up.

mod batch;
mod memory;
mod subscription;
mod tail;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

pub use batch::{Batch, Prepared};
pub use memory::{LogMemory, MemoryConfig};
pub use subscription::{ReadError, Subscription};

use crate::model::event::Seq;
use crate::store::{SessionKey, SessionRow, Store, StoreError, StoredEvent, Trimmed};
use tail::Tail;

/// The durable log of one session.
pub struct EventLog {
    store: Store,
    key: SessionKey,
    /// Which log it is.
    id: String,
    memory: Arc<LogMemory>,
    /// The last seq that was given out; ahead of the head while a commit is under way.
    prepared: Mutex<Seq>,
    shared: Arc<Shared>,
}

/// What whoever commits moves on after the commit.
struct Shared {
    position: watch::Sender<Position>,
    tail: Mutex<Tail>,
}

/// Where a log stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Position {
    /// The last event that may be seen.
    head: Seq,
    /// The first event that is still there.
    first: Seq,
    /// Whether nothing more comes.
    closed: bool,
}

/// Some events of a log, and where it stood.
#[derive(Clone, Debug)]
pub struct Page {
    /// The events, without gaps from `after + 1` on.
    pub events: Vec<StoredEvent>,
    /// The last event of the log.
    pub head: Seq,
    /// The first event that is still there.
    pub first: Seq,
}

impl EventLog {
    /// The log of this session, as the store has it.
    pub fn new(store: Store, memory: Arc<LogMemory>, row: &SessionRow) -> Self {
        let position = Position {
            head: row.head,
            first: row.first,
            closed: false,
        };
        Self {
            store,
            key: row.key,
            id: row.log.clone(),
            prepared: Mutex::new(row.head),
            shared: Arc::new(Shared {
                position: watch::Sender::new(position),
                tail: Mutex::new(Tail::new(Arc::clone(&memory))),
            }),
            memory,
        }
    }

    /// The last event that is in the store and may be seen; 0 before the first.
    pub fn head(&self) -> Seq {
        self.position().head
    }

    /// The first event that is still there; one after the head if none is.
    pub fn first(&self) -> Seq {
        self.position().first
    }

    /// Which log it is: no other session has it, also none of the same id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The session's key in the store.
    pub fn key(&self) -> SessionKey {
        self.key
    }

    /// Writes a batch, and returns the last seq when it is in the store and readers are being woken.
    ///
    /// Only the session's actor may call it, one at a time. When the future is dropped the batch may be written all the same.
    ///
    /// # Errors
    /// Nothing of the batch is in the log then; the same batch may be given again.
    pub async fn append(&self, batch: &Batch) -> Result<Seq, StoreError> {
        let prepared = self.prepare(batch);
        let result = self.commit(&prepared).await;
        if result.is_err() {
            *lock(&self.prepared) = self.head();
        }
        result
    }

    /// Numbers and serialises a batch, without writing it: work that can be done while the batch before is being committed.
    ///
    /// Every batch that was prepared must be committed, in the same order, each after the one before has succeeded; a commit that
    /// failed is to be repeated. The numbers of those behind it depend on it.
    pub fn prepare(&self, batch: &Batch) -> Prepared {
        let mut prepared = lock(&self.prepared);
        let result = batch::prepare(self.key, batch, *prepared + 1, &self.memory);
        *prepared += batch.events.len() as u64;
        result
    }

    /// Writes a prepared batch, and returns the last seq when it is in the store and readers are being woken.
    ///
    /// # Errors
    /// Nothing of it is in the log then; it may be committed again.
    pub async fn commit(&self, prepared: &Prepared) -> Result<Seq, StoreError> {
        let shared = Arc::clone(&self.shared);
        // By whoever commits, at once after the commit: readers need not wait until the actor has been woken, and
        // the head is right even if the actor no longer waits.
        let publish = Box::new(move |events: Vec<StoredEvent>| shared.publish(events));
        self.store
            .append_then(prepared.append.clone(), Some(publish))
            .await?;
        Ok(prepared.last)
    }

    /// A page of events after `after`, within both bounds, but at least one if there is one.
    ///
    /// # Errors
    /// [`ReadError::Trimmed`] when events after `after` are gone, [`ReadError::Ahead`] when there never was an event `after`.
    pub async fn read(
        &self,
        after: Seq,
        max_events: usize,
        max_bytes: usize,
    ) -> Result<Page, ReadError> {
        let position = self.position();
        let Position { head, first, .. } = position;
        if after > head {
            return Err(ReadError::Ahead { head });
        }
        if after + 1 < first {
            return Err(ReadError::Trimmed {
                first_available: first,
            });
        }
        let events = self.pull(after, head, max_events, max_bytes).await?;
        Ok(Page {
            events,
            head,
            first: self.first(),
        })
    }

    /// Reads on from `after`, event by event, as they come.
    pub fn subscribe(self: &Arc<Self>, after: Seq) -> Subscription {
        Subscription::new(Arc::clone(self), after)
    }

    /// Says that nothing more comes: subscriptions end when they have read all.
    pub fn close(&self) {
        self.shared
            .position
            .send_modify(|position| position.closed = true);
    }

    /// Takes note of what [`Store::trim`] has removed.
    pub fn trimmed(&self, trimmed: &Trimmed) {
        if trimmed.session == self.key {
            self.begins_at(trimmed.first);
        }
    }

    fn position(&self) -> Position {
        *self.shared.position.borrow()
    }

    fn begins_at(&self, first: Seq) {
        self.shared.position.send_if_modified(|position| {
            position.first = position.first.max(first);
            // Nobody waits for this.
            false
        });
    }

    /// Events between `after` and `head`, from memory if they are there, else from the store.
    async fn pull(
        &self,
        after: Seq,
        head: Seq,
        max_events: usize,
        max_bytes: usize,
    ) -> Result<Vec<StoredEvent>, ReadError> {
        if after >= head {
            return Ok(Vec::new());
        }
        let recent = lock(&self.shared.tail).after(after, head, max_events, max_bytes);
        if let Some(events) = recent {
            return Ok(events);
        }
        let mut events = self
            .store
            .read(self.key, after, max_events, max_bytes)
            .await
            .map_err(ReadError::Store)?;
        // The store may already have what is committed but not yet announced.
        events.retain(|event| event.seq <= head);
        let first_available = events.first().map_or(head + 1, |event| event.seq);
        if first_available != after + 1 {
            self.begins_at(first_available);
            return Err(ReadError::Trimmed { first_available });
        }
        Ok(events)
    }
}

impl Shared {
    fn publish(&self, events: Vec<StoredEvent>) {
        let Some(last) = events.last().map(|event| event.seq) else {
            return;
        };
        let watched = self.position.receiver_count() > 0;
        // First the tail, then the head: who is woken finds the events.
        lock(&self.tail).push(events, watched);
        self.position.send_modify(|position| position.head = last);
    }
}

impl fmt::Debug for EventLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventLog")
            .field("key", &self.key)
            .field("position", &self.position())
            .finish_non_exhaustive()
    }
}

/// What a panic elsewhere leaves behind these locks is whole: every change is one step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
