//! Which clients are connected to which kernels. A client that connects again under the same `session_id` takes the place of its older connection. But not
//! right after that: clients connect again by themselves, and two under one name would take the place of each other for ever. Such a connection is a
//! guest's, who is told the same, and does not move the position of whoever has the place.
//!
//! How far a client has come is what it has acknowledged: behind what it is sent goes a WebSocket ping with the position, and whoever gets so far
//! answers it by itself. The session remembers it. What was sent and not acknowledged when a connection broke is sent again, with the same ids.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::model::event::Seq;
use crate::model::id::SessionId;
use crate::session::SessionHandle;

/// How long a place that was taken from another connection is not taken again.
const PEACE: Duration = Duration::from_secs(10);

/// Who is connected under a name.
#[derive(Debug)]
struct Place {
    /// What ends the connection.
    replaced: CancellationToken,
    /// When it took the place of another one.
    taken: Option<Instant>,
}

/// The clients of a kernel by their names.
type Connected = HashMap<Arc<str>, Place>;

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Clients(Mutex<HashMap<SessionId, Connected>>);

/// The connection of a client.
#[derive(Debug)]
pub(crate) struct Connection {
    clients: Arc<Clients>,
    session: SessionHandle,
    /// Its `session_id`.
    pub(crate) name: Arc<str>,
    /// Where it goes on reading the log.
    pub(crate) from: Seq,
    /// Cancelled when the same client has connected again.
    pub(crate) replaced: CancellationToken,
    is_guest: bool,
}

impl Clients {
    /// A client connects. If it is not known it begins at the end of the log.
    pub(crate) fn connect(self: &Arc<Self>, session: SessionHandle, name: &str) -> Connection {
        let replaced = CancellationToken::new();
        let name: Arc<str> = name.into();
        let is_guest = {
            let mut kernels = self.lock();
            let places = kernels.entry(session.id().clone()).or_default();
            let stale = places.get(&name);
            let is_guest = stale
                .and_then(|place| place.taken)
                .is_some_and(|taken| taken.elapsed() < PEACE);
            if !is_guest {
                let taken = stale.map(|stale| {
                    stale.replaced.cancel();
                    Instant::now()
                });
                let place = Place {
                    replaced: replaced.clone(),
                    taken,
                };
                places.insert(name.clone(), place);
            }
            is_guest
        };
        let head = session.log().head();
        // A log that was deleted and begun anew does not reach so far.
        let from = session.seen(&name).map_or(head, |seen| seen.min(head));
        session.saw(&name, from);
        Connection {
            clients: self.clone(),
            session,
            name,
            from,
            replaced,
            is_guest,
        }
    }

    /// How many clients of a kernel are connected.
    pub(crate) fn connected(&self, kernel: &SessionId) -> usize {
        self.lock().get(kernel).map_or(0, HashMap::len)
    }

    /// What a panic elsewhere leaves behind the lock is whole: every change is one step.
    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, Connected>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connection {
    /// The client has acknowledged so much.
    pub(crate) fn saw(&self, seq: Seq) {
        // What was never said cannot have been heard; and what a guest has heard, the one whose place it is may not have.
        if seq <= self.session.log().head() && !(self.is_guest && self.is_host_there()) {
            self.session.saw(&self.name, seq);
        }
    }

    fn is_host_there(&self) -> bool {
        let kernels = self.clients.lock();
        kernels
            .get(self.session.id())
            .is_some_and(|places| places.contains_key(&self.name))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let mut kernels = self.clients.lock();
        let Some(clients) = kernels.get_mut(self.session.id()) else {
            return;
        };
        // Not if another connection has taken the place, or had it all the time.
        if !self.is_guest && !self.replaced.is_cancelled() {
            clients.remove(&self.name);
        }
        if clients.is_empty() {
            kernels.remove(self.session.id());
        }
    }
}
