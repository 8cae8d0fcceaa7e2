//! Which clients are connected to which kernels. A client that connects again under the same `session_id` takes the place of its older connection.
//!
//! How far a client has come is what it has acknowledged: behind what it is sent goes a WebSocket ping with the position, and whoever gets so far
//! answers it by itself. The session remembers it. What was sent and not acknowledged when a connection broke is sent again, with the same ids.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::model::event::Seq;
use crate::model::id::SessionId;
use crate::session::SessionHandle;

/// The clients of a kernel by their names, each with what ends its connection.
type Connected = HashMap<Arc<str>, CancellationToken>;

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
}

impl Clients {
    /// A client connects. If it is not known it begins at the end of the log.
    pub(crate) fn connect(self: &Arc<Self>, session: SessionHandle, name: &str) -> Connection {
        let replaced = CancellationToken::new();
        let name: Arc<str> = name.into();
        let stale = self
            .lock()
            .entry(session.id().clone())
            .or_default()
            .insert(name.clone(), replaced.clone());
        if let Some(stale) = stale {
            stale.cancel();
        }
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
        // What was never said cannot have been heard.
        if seq <= self.session.log().head() {
            self.session.saw(&self.name, seq);
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let mut kernels = self.clients.lock();
        let Some(clients) = kernels.get_mut(self.session.id()) else {
            return;
        };
        // Not if another connection has taken the place.
        if !self.replaced.is_cancelled() {
            clients.remove(&self.name);
        }
        if clients.is_empty() {
            kernels.remove(self.session.id());
        }
    }
}
