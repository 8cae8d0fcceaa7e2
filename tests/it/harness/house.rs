//! The whole server in this process: a fake backend, a real store, a held clock.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use evercell::kernel::{self, Launcher};
use evercell::model::event::{Envelope, Event};
use evercell::model::id::{CellId, SessionId};
use evercell::model::limits::Limits;
use evercell::model::settings::{Settings, SettingsRequest};
use evercell::session::command::Queued;
use evercell::session::log::Subscription;
use evercell::session::{CellRequest, Config, Opened, SessionError, SessionHandle, Sessions};
use evercell::store::{self, Store};

use super::fake_backend::FakeBackend;
use super::held_clock::HeldClock;
use super::transcript::transcript;

/// A server without front ends.
pub struct House {
    pub sessions: Sessions,
    pub backend: Arc<FakeBackend>,
    pub store: Store,
    pub launcher: Launcher,
    pub directory: tempfile::TempDir,
    config: Config,
    _clock: HeldClock,
}

impl House {
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// A server with a configuration of its own.
    pub async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let clock = HeldClock::new();
        let store = Store::open(store::Config::new(directory.path())).unwrap();
        let backend = Arc::new(FakeBackend::default());
        let launcher = launcher(backend.clone(), directory.path().join("workspaces"));
        let defaults = Settings::default();
        let mut config = Config {
            max_sessions: 10,
            max_queued: 4,
            ceilings: defaults.clone(),
            defaults,
        };
        change(&mut config);
        let sessions = Sessions::start(store.clone(), launcher.clone(), config.clone())
            .await
            .unwrap();
        Self {
            sessions,
            backend,
            store,
            launcher,
            directory,
            config,
            _clock: clock,
        }
    }

    /// Leaves all sessions, and has another server go on with them: as after a death at a moment when all that had happened was stored.
    pub async fn next(self) -> Self {
        let Self {
            sessions,
            backend,
            store,
            launcher: last,
            directory,
            config,
            _clock,
        } = self;
        sessions.leave().await;
        drop((sessions, last));
        store.close().await;
        let store = Store::open(store::Config::new(directory.path())).unwrap();
        let launcher = launcher(backend.clone(), directory.path().join("workspaces"));
        let sessions = Sessions::start(store.clone(), launcher.clone(), config.clone())
            .await
            .unwrap();
        Self {
            sessions,
            backend,
            store,
            launcher,
            directory,
            config,
            _clock,
        }
    }

    /// One who reads a session's log from its beginning.
    pub async fn client(&self, id: &str) -> Client {
        let handle = self.sessions.find(&id.parse().unwrap()).await.unwrap();
        let log = handle.log().subscribe(0);
        Client {
            handle,
            log,
            seen: Vec::new(),
        }
    }

    /// An open session whose kernel is ready.
    pub async fn session(&self, id: &str) -> Client {
        let mut client = self.open(id).await.unwrap();
        client.wait_for("kernel_started").await;
        client
    }

    /// A session that has just been opened.
    pub async fn open(&self, id: &str) -> Result<Client, SessionError> {
        self.open_with(id, &SettingsRequest::default())
            .await
            .map(|(client, _)| client)
    }

    pub async fn open_with(
        &self,
        id: &str,
        wish: &SettingsRequest,
    ) -> Result<(Client, Opened), SessionError> {
        let id: SessionId = id.parse().unwrap();
        let (handle, opened) = self.sessions.open(id, wish).await?;
        let after = if opened == Opened::Reopened {
            handle.log().head() - 1
        } else {
            0
        };
        let log = handle.log().subscribe(after);
        Ok((
            Client {
                handle,
                log,
                seen: Vec::new(),
            },
            opened,
        ))
    }
}

pub fn launcher(backend: Arc<FakeBackend>, workspaces: PathBuf) -> Launcher {
    let config = kernel::Config {
        workspaces,
        defaults: Limits::default(),
        pool_min: 0,
        pool_max: 4,
        orphan_limit: Duration::from_secs(60),
    };
    Launcher::new(backend, config)
}

/// One who uses a session and reads its log.
pub struct Client {
    pub handle: SessionHandle,
    log: Subscription,
    pub seen: Vec<Envelope>,
}

impl Client {
    /// Submits a script.
    pub async fn execute(&self, script: &str) -> Queued {
        self.handle.execute(CellRequest::new(script)).await.unwrap()
    }

    /// Submits a script and waits for its end.
    pub async fn run(&mut self, script: &str) -> CellId {
        let cell = self.execute(script).await.cell;
        self.wait_until(|event| matches!(event, Event::CellFinished { cell: c, .. } if *c == cell))
            .await;
        cell
    }

    /// Reads on until an event of this name has come.
    pub async fn wait_for(&mut self, name: &str) {
        self.wait_until(|event| serde_json::to_value(event).unwrap()["event"] == name)
            .await;
    }

    /// Reads on until such an event has come.
    pub async fn wait_until(&mut self, wanted: impl Fn(&Event) -> bool) {
        let mut found = false;
        while !found {
            let events = self
                .log
                .next()
                .await
                .unwrap()
                .expect("the log ended before the event that was waited for");
            for event in events {
                let envelope: Envelope = serde_json::from_slice(&event.json).unwrap();
                assert_eq!(
                    envelope.seq, event.seq,
                    "an event is stored under its own number"
                );
                found |= wanted(&envelope.event);
                self.seen.push(envelope);
            }
        }
    }

    /// Reads on until the log ends.
    pub async fn wait_end(&mut self) {
        while let Some(events) = self.log.next().await.unwrap() {
            self.seen.extend(
                events
                    .iter()
                    .map(|event| serde_json::from_slice::<Envelope>(&event.json).unwrap()),
            );
        }
    }

    /// What has been read so far.
    pub fn transcript(&self) -> String {
        transcript(&self.seen)
    }
}

/// Lets this much time pass, and whatever it wakes do its work up to the next wait.
pub async fn pass(time: Duration) {
    tokio::time::advance(time).await;
}
