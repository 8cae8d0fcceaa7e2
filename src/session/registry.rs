//! Which sessions there are: opens, finds, lists and deletes them, and puts right what a dead server has left.

mod recovery;
mod retention;
mod stopping;
mod workspaces;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use dashmap::DashMap;
use futures_util::FutureExt;
use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::actor::{Actor, Beginning, Remains};
use super::clock::unix_ms;
use super::command::{Denied, SessionError};
use super::handle::SessionHandle;
use super::log::{Batch, EventLog, LogMemory, MemoryConfig};
use super::memory::Memory;
use super::output::Output;
use super::queue::CellQueue;
use super::readers::Readers;
use super::view::{SessionView, Status};
use crate::kernel::Launcher;
use crate::model::event::{EndReason, Event};
use crate::model::id::{CellId, SandboxId, SessionId};
use crate::model::settings::{Settings, SettingsRequest};
use crate::store::{CellRow, NewSession, SessionRow, SessionState, SessionUpdate, Store};

/// Requests that wait for a session's task. When full, the asker is told at once.
const COMMANDS: usize = 256;

/// What sessions may be.
#[derive(Clone, Debug)]
pub struct Config {
    /// How many may be open at once.
    pub max_sessions: usize,
    /// How many cells of a session may wait.
    pub max_queued: usize,
    /// What a session is given when nothing is asked for.
    pub defaults: Settings,
    /// The most that may be asked for.
    pub ceilings: Settings,
}

/// What opening a session found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    /// There was none; it is new.
    Created,
    /// It was open already.
    Existing,
    /// It had ended; its log and files are still here, its variables are not.
    Reopened,
}

/// All sessions of this server. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Sessions {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    store: Store,
    /// What all logs together may keep in memory.
    memory: Arc<LogMemory>,
    launcher: Launcher,
    config: Config,
    slots: DashMap<SessionId, Arc<Slot>>,
    room: Arc<Semaphore>,
    /// Cancelled when the server is about to stop: no new sessions and no new cells from then on.
    stopping: CancellationToken,
    tasks: TaskTracker,
    /// The sandboxes of an earlier server that sessions have taken up.
    adopted: HashSet<SandboxId>,
}

/// The place of one session id. Whoever opens, ends or deletes it holds the door; so all of that is safe to race.
#[derive(Debug, Default)]
struct Slot {
    door: Arc<tokio::sync::Mutex<()>>,
    life: Mutex<Option<Life>>,
}

/// One life of a session.
#[derive(Clone, Debug)]
struct Life {
    handle: SessionHandle,
    /// Cancelled when everything of it is gone and recorded.
    over: CancellationToken,
}

impl Slot {
    /// The session, if it is open.
    fn open(&self) -> Option<SessionHandle> {
        self.life()
            .filter(|life| !life.handle.commands.is_closed())
            .map(|life| life.handle)
    }

    fn life(&self) -> Option<Life> {
        self.life
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Waits until a life that is ending is over.
    async fn rest(&self) {
        if let Some(life) = self.life() {
            life.over.cancelled().await;
        }
    }

    fn put(&self, life: Option<Life>) {
        *self.life.lock().unwrap_or_else(PoisonError::into_inner) = life;
    }
}

impl Sessions {
    /// The sessions of a store. Those that an earlier server left open go on: each takes up its sandbox by itself, and is there at once.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub async fn start(
        store: Store,
        launcher: Launcher,
        config: Config,
    ) -> Result<Self, SessionError> {
        let room = Arc::new(Semaphore::new(config.max_sessions));
        let memory = LogMemory::new(MemoryConfig::default());
        let left = recovery::left_open(&store).await?;
        let shared = Shared {
            store,
            memory,
            launcher,
            config,
            slots: DashMap::new(),
            room,
            stopping: CancellationToken::new(),
            tasks: TaskTracker::new(),
            adopted: left.iter().filter_map(Remains::sandbox).collect(),
        };
        let sessions = Self {
            shared: Arc::new(shared),
        };
        for remains in left {
            sessions.recover(remains).await?;
        }
        Ok(sessions)
    }

    /// Opens a session: gets it, makes it, or begins a new life of one that had ended. Safe to race.
    ///
    /// # Errors
    /// There are too many sessions, a wish cannot be had, or the session exists with other settings.
    pub async fn open(
        &self,
        id: SessionId,
        wish: &SettingsRequest,
    ) -> Result<(SessionHandle, Opened), SessionError> {
        if let Some(handle) = self.shared.slots.get(&id).and_then(|slot| slot.open()) {
            check_same(&handle.view().settings, wish)?;
            return Ok((handle, Opened::Existing));
        }
        let settings = wish
            .resolve(&self.shared.config.defaults, &self.shared.config.ceilings)
            .map_err(Denied::Settings)?;
        let (slot, _door) = self.enter(&id).await;
        if let Some(handle) = slot.open() {
            check_same(&handle.view().settings, wish)?;
            return Ok((handle, Opened::Existing));
        }
        slot.rest().await;
        let permit = self.permit()?;
        let (row, opened) = match self.shared.store.session(&id).await? {
            Some(row) => (self.reopen(row, wish, settings).await?, Opened::Reopened),
            None => {
                let new = NewSession {
                    id: id.clone(),
                    settings,
                    at_ms: unix_ms(),
                };
                (
                    self.shared.store.create_session(new).await?,
                    Opened::Created,
                )
            }
        };
        let log = Arc::new(self.log_of(&row));
        let reopened = opened == Opened::Reopened;
        let event = Event::SessionOpened {
            session: id.clone(),
            reopened,
        };
        log.append(&Batch {
            events: vec![event],
            is_activity: true,
            ..Batch::default()
        })
        .await?;
        tracing::info!(session.id = %id, "session opened");
        let life = self.spawn(row, log, Some(permit), Beginning::New);
        slot.put(Some(life.clone()));
        Ok((life.handle, opened))
    }

    /// An open session.
    ///
    /// # Errors
    /// It is unknown, or has ended.
    pub async fn find(&self, id: &SessionId) -> Result<SessionHandle, SessionError> {
        if let Some(handle) = self.shared.slots.get(id).and_then(|slot| slot.open()) {
            return Ok(handle);
        }
        let row = self.row(id).await?;
        // One that is left to another server has not ended.
        let is_left = self.is_stopping() && row.state == SessionState::Open;
        Err(if is_left {
            Denied::Stopping
        } else {
            Denied::Ended
        }
        .into())
    }

    /// What a session is doing, also one that has ended.
    ///
    /// # Errors
    /// It is unknown.
    pub async fn view(&self, id: &SessionId) -> Result<SessionView, SessionError> {
        if let Some(handle) = self.shared.slots.get(id).and_then(|slot| slot.open()) {
            return Ok(handle.view());
        }
        Ok(ended_view(self.row(id).await?))
    }

    /// The sessions after an id, by id, ended ones included.
    ///
    /// # Errors
    /// The store cannot read.
    pub async fn list(
        &self,
        after: Option<SessionId>,
        limit: usize,
    ) -> Result<Vec<SessionView>, SessionError> {
        let rows = self.shared.store.sessions(after, limit).await?;
        let view = |row: SessionRow| {
            let open = self.shared.slots.get(&row.id).and_then(|slot| slot.open());
            open.map_or_else(|| ended_view(row), |handle| handle.view())
        };
        Ok(rows.into_iter().map(view).collect())
    }

    /// What the sessions are doing that are open.
    pub fn open_ones(&self) -> Vec<SessionView> {
        let handles = self.shared.slots.iter().filter_map(|slot| slot.open());
        let handles: Vec<SessionHandle> = handles.collect();
        let mut views: Vec<SessionView> = handles.iter().map(SessionHandle::view).collect();
        views.sort_by(|one, other| one.id.cmp(&other.id));
        views
    }

    /// The cells of a session that were accepted last, the last one first.
    ///
    /// # Errors
    /// It is unknown.
    pub async fn last_cells(
        &self,
        id: &SessionId,
        limit: usize,
    ) -> Result<Vec<CellRow>, SessionError> {
        let key = self.row(id).await?.key;
        Ok(self.shared.store.last_cells(key, limit).await?)
    }

    /// The log of a session, also of one that has ended.
    ///
    /// # Errors
    /// It is unknown.
    pub async fn log(&self, id: &SessionId) -> Result<Arc<EventLog>, SessionError> {
        if let Some(handle) = self.shared.slots.get(id).and_then(|slot| slot.open()) {
            return Ok(handle.log().clone());
        }
        let row = self.row(id).await?;
        let log = self.log_of(&row);
        log.close();
        Ok(Arc::new(log))
    }

    /// Where in the log a cell's events lie.
    ///
    /// # Errors
    /// Session or cell are unknown.
    pub async fn cell(&self, id: &SessionId, cell: CellId) -> Result<CellRow, SessionError> {
        let key = self.row(id).await?.key;
        let row = self.shared.store.cell(key, cell).await?;
        row.ok_or_else(|| Denied::UnknownCell(cell).into())
    }

    /// Ends a session and removes all that is left of it: kernel, files and log.
    ///
    /// # Errors
    /// It is unknown.
    pub async fn delete(&self, id: &SessionId) -> Result<(), SessionError> {
        let (slot, _door) = self.enter(id).await;
        if let Some(handle) = slot.open() {
            match handle.end(EndReason::Deleted).await {
                // It ended by itself just now: there is still something to remove.
                Ok(()) | Err(SessionError::Denied(Denied::Ended)) => {}
                Err(error) => return Err(error),
            }
        }
        slot.rest().await;
        let row = self.row(id).await;
        self.shared.slots.remove(id);
        let row = row?;
        // The files first: the death of the server in between leaves a session that can be deleted again, not files that nobody knows of.
        self.remove_workspace(&row.workspace).await;
        self.shared.store.delete_session(row.key).await?;
        Ok(())
    }

    /// The sandboxes of an earlier server that sessions have taken up. All others that it left are nobody's.
    pub fn adopted(&self) -> &HashSet<SandboxId> {
        &self.shared.adopted
    }

    /// How many sessions are open.
    pub fn open_count(&self) -> usize {
        self.shared.config.max_sessions - self.shared.room.available_permits()
    }

    fn permit(&self) -> Result<OwnedSemaphorePermit, Denied> {
        use tokio::sync::TryAcquireError;
        self.shared
            .room
            .clone()
            .try_acquire_owned()
            .map_err(|error| match error {
                TryAcquireError::NoPermits => Denied::TooManySessions {
                    bound: self.shared.config.max_sessions,
                },
                TryAcquireError::Closed => Denied::Stopping,
            })
    }

    /// The slot of an id, its door held.
    async fn enter(&self, id: &SessionId) -> (Arc<Slot>, OwnedMutexGuard<()>) {
        loop {
            let slot = self.shared.slots.entry(id.clone()).or_default().clone();
            let door = slot.door.clone().lock_owned().await;
            // Whoever held the door before may have removed the slot; then there is another, or none.
            if self
                .shared
                .slots
                .get(id)
                .is_some_and(|there| Arc::ptr_eq(&there, &slot))
            {
                return (slot, door);
            }
        }
    }

    fn log_of(&self, row: &SessionRow) -> EventLog {
        EventLog::new(self.shared.store.clone(), self.shared.memory.clone(), row)
    }

    async fn row(&self, id: &SessionId) -> Result<SessionRow, SessionError> {
        let row = self.shared.store.session(id).await?;
        row.ok_or_else(|| Denied::UnknownSession(id.clone()).into())
    }

    /// A new life of an ended session. Settings that were named replace the old ones.
    async fn reopen(
        &self,
        mut row: SessionRow,
        wish: &SettingsRequest,
        settings: Settings,
    ) -> Result<SessionRow, SessionError> {
        if *wish != SettingsRequest::default() {
            row.settings = settings;
        }
        row.state = SessionState::Open;
        // That it is open again is written with the event that says so.
        let update = SessionUpdate {
            settings: Some(row.settings.clone()),
            ..SessionUpdate::default()
        };
        self.shared.store.update_session(row.key, update).await?;
        Ok(row)
    }

    fn spawn(
        &self,
        row: SessionRow,
        log: Arc<EventLog>,
        permit: Option<OwnedSemaphorePermit>,
        beginning: Beginning,
    ) -> Life {
        let (commands, inbox) = mpsc::channel(COMMANDS);
        let id = row.id.clone();
        let key = row.key;
        let mut first = ended_view(row.clone());
        first.status = Status::Starting;
        let (view, watcher) = watch::channel(first);
        let readers = Readers::default();
        let actor = Actor {
            id: id.clone(),
            key,
            log: log.clone(),
            readers: readers.clone(),
            store: self.shared.store.clone(),
            launcher: self.shared.launcher.clone(),
            settings: row.settings,
            workspace: row.workspace,
            commands: inbox,
            view,
            kernel: super::actor::unborn(),
            leaving: None,
            queue: CellQueue::new(self.shared.config.max_queued),
            running: None,
            asks: std::collections::HashMap::new(),
            comms: std::collections::BTreeMap::new(),
            between: super::actor::Between::default(),
            wishes: std::collections::HashMap::new(),
            later: std::collections::VecDeque::new(),
            checkpoints: Vec::new(),
            unprotected: None,
            waiting_for_files: Vec::new(),
            idle_since: Instant::now(),
            execution_count: 0,
            python: String::new(),
            output: Output::default(),
            pending: Vec::new(),
            frame: 0,
            acknowledged: 0,
            acts: Vec::new(),
            remembered: Memory::default(),
            silent_until: None,
            note: None,
            retry_at: None,
            inbox: Vec::new(),
        };
        let handle = SessionHandle {
            id: id.clone(),
            commands,
            view: watcher,
            log: log.clone(),
            readers,
            stopping: self.shared.stopping.clone(),
            patience: super::command::Patience::default(),
        };
        let over = CancellationToken::new();
        let life = Life {
            handle,
            over: over.clone(),
        };
        let sessions = self.clone();
        self.shared.tasks.spawn(async move {
            // A broken invariant ends this session only, and its log says so.
            let reason = match std::panic::AssertUnwindSafe(actor.run(beginning)).catch_unwind().await {
                Ok(Some(reason)) => reason,
                Ok(None) => {
                    tracing::info!(session.id = %id, "session left to the next server");
                    return over.cancel();
                }
                Err(_) => {
                    let event = Event::SessionEnded { reason: EndReason::Internal };
                    let _ = log.append(&Batch { events: vec![event], ..Batch::default() }).await;
                    log.close();
                    EndReason::Internal
                }
            };
            let update = SessionUpdate {
                state: Some(SessionState::Ended),
                active_at_ms: Some(unix_ms()),
                ..SessionUpdate::default()
            };
            if let Err(error) = sessions.shared.store.update_session(key, update).await {
                tracing::warn!(session.id = %id, error = %error, "the session's end could not be recorded; the next start will");
            }
            tracing::info!(session.id = %id, reason = ?reason, "session ended");
            drop(permit);
            over.cancel();
            sessions.forget(&id).await;
        });
        life
    }

    /// Removes the slot of a session that has ended, unless it was opened again.
    async fn forget(&self, id: &SessionId) {
        if self.shared.slots.contains_key(id) {
            let (slot, _door) = self.enter(id).await;
            if slot.open().is_none() {
                self.shared.slots.remove(id);
            }
        }
    }
}

/// Whether what is asked for is what the session has.
fn check_same(settings: &Settings, wish: &SettingsRequest) -> Result<(), Denied> {
    let (limits, times) = (&settings.limits, &settings.timeouts);
    let differs = |wish: Option<u64>, has: u64| wish.is_some_and(|wish| wish != has);
    let fields = [
        (
            "memory_bytes",
            differs(wish.memory_bytes, limits.memory_bytes),
        ),
        (
            "cpu_millis",
            differs(wish.cpu_millis.map(u64::from), u64::from(limits.cpu_millis)),
        ),
        (
            "processes",
            differs(wish.processes.map(u64::from), u64::from(limits.processes)),
        ),
        ("disk_bytes", differs(wish.disk_bytes, limits.disk_bytes)),
        (
            "workspace_bytes",
            differs(wish.workspace_bytes, limits.workspace_bytes),
        ),
        (
            "cell_cpu_ms",
            wish.cell_cpu_ms.is_some() && wish.cell_cpu_ms != limits.cell_cpu_ms,
        ),
        (
            "cell_output_bytes",
            differs(wish.cell_output_bytes, limits.cell_output_bytes),
        ),
        ("cell_ms", differs(wish.cell_ms, times.cell_ms)),
        ("ceiling_ms", differs(wish.ceiling_ms, times.ceiling_ms)),
        ("warning_ms", differs(wish.warning_ms, times.warning_ms)),
        ("input_ms", differs(wish.input_ms, times.input_ms)),
        ("idle_ms", differs(wish.idle_ms, times.idle_ms)),
        (
            "env",
            wish.env
                .iter()
                .any(|(name, value)| settings.env.get(name) != Some(value)),
        ),
    ];
    match fields.into_iter().find(|(_, differs)| *differs) {
        Some((field, _)) => Err(Denied::SettingsDiffer {
            field: field.to_owned(),
        }),
        None => Ok(()),
    }
}

fn ended_view(row: SessionRow) -> SessionView {
    SessionView {
        id: row.id,
        status: Status::Ended,
        opened_at_ms: row.opened_at_ms,
        active_at_ms: row.active_at_ms,
        idle_end_at_ms: None,
        settings: row.settings,
        log: row.log.into(),
        head: row.head,
        first: row.first,
        execution_count: 0,
        python: String::new(),
        running: None,
        queued: Vec::new(),
        checkpoints: Vec::new(),
        problem: None,
        state_note: None,
    }
}
