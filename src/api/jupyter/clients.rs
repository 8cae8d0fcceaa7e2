//! The clients of kernels: how many are connected, and how far each has come in the log, so that one that comes back under the same
//! `session_id` goes on where it was.
//!
//! How far a client has come is what it has acknowledged: behind what it is sent goes a WebSocket ping with the position, and whoever gets so far
//! answers it by itself. What was sent and not acknowledged when a connection broke is sent again, with the same ids.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::model::event::Seq;
use crate::model::id::SessionId;

/// How many clients of a kernel are remembered after they have left.
const REMEMBERED: usize = 64;

/// How many kernels are remembered that nobody is connected to.
const KERNELS: usize = 4096;

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Clients(Mutex<HashMap<SessionId, VecDeque<Client>>>);

#[derive(Debug)]
struct Client {
    name: Arc<str>,
    seen: Seq,
    /// Its connection, if it has one; cancelled when another one takes its place.
    connection: Option<CancellationToken>,
}

/// The connection of a client.
#[derive(Debug)]
pub(crate) struct Connection {
    clients: Arc<Clients>,
    kernel: SessionId,
    /// Its `session_id`.
    pub(crate) name: Arc<str>,
    /// Where it goes on reading the log.
    pub(crate) from: Seq,
    /// Cancelled when the same client has connected again.
    pub(crate) replaced: CancellationToken,
}

impl Clients {
    /// A client connects. If it is not known it begins at `head`.
    pub(crate) fn connect(self: &Arc<Self>, kernel: &SessionId, name: &str, head: Seq) -> Connection {
        let replaced = CancellationToken::new();
        let name: Arc<str> = name.into();
        let mut kernels = self.lock();
        if kernels.len() >= KERNELS {
            kernels.retain(|_, clients| clients.iter().any(Client::is_connected));
        }
        let clients = kernels.entry(kernel.clone()).or_default();
        let known = clients.iter().position(|client| client.name == name);
        let mut client = known
            .and_then(|at| clients.remove(at))
            .unwrap_or_else(|| Client {
                name: name.clone(),
                seen: head,
                connection: None,
            });
        // A log that was deleted and begun anew does not reach so far.
        client.seen = client.seen.min(head);
        let from = client.seen;
        if let Some(stale) = client.connection.replace(replaced.clone()) {
            stale.cancel();
        }
        clients.push_back(client);
        if clients.len() > REMEMBERED
            && let Some(oldest) = clients.iter().position(|client| !client.is_connected())
        {
            clients.remove(oldest);
        }
        drop(kernels);
        Connection {
            clients: self.clone(),
            kernel: kernel.clone(),
            name,
            from,
            replaced,
        }
    }

    /// How many clients of a kernel are connected.
    pub(crate) fn connected(&self, kernel: &SessionId) -> usize {
        let kernels = self.lock();
        let clients = kernels.get(kernel).into_iter().flatten();
        clients.filter(|client| client.is_connected()).count()
    }

    /// Forgets the clients of a kernel that is gone.
    pub(crate) fn forget(&self, kernel: &SessionId) {
        self.lock().remove(kernel);
    }

    /// What a panic elsewhere leaves behind the lock is whole: every change is one step.
    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, VecDeque<Client>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Client {
    fn is_connected(&self) -> bool {
        self.connection.is_some()
    }
}

impl Connection {
    /// The client has acknowledged so much.
    pub(crate) fn saw(&self, seq: Seq) {
        self.mine(|client| client.seen = client.seen.max(seq));
    }

    fn mine(&self, change: impl FnOnce(&mut Client)) {
        let mut kernels = self.clients.lock();
        let mut clients = kernels.get_mut(&self.kernel).into_iter().flatten();
        // Not if another connection has taken the place.
        if let Some(client) = clients.find(|client| client.name == self.name)
            && !self.replaced.is_cancelled()
        {
            change(client);
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.mine(|client| client.connection = None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel() -> SessionId {
        "k".parse().unwrap()
    }

    #[test]
    fn a_client_that_comes_back_goes_on_where_it_was() {
        let clients = Arc::new(Clients::default());
        let first = clients.connect(&kernel(), "a", 10);
        assert_eq!(first.from, 10);
        first.saw(15);
        drop(first);
        assert_eq!(clients.connect(&kernel(), "a", 20).from, 15);
        assert_eq!(clients.connect(&kernel(), "b", 20).from, 20);
    }

    #[test]
    fn a_client_that_connects_twice_has_one_connection() {
        let clients = Arc::new(Clients::default());
        let stale = clients.connect(&kernel(), "a", 10);
        let fresh = clients.connect(&kernel(), "a", 20);
        assert!(stale.replaced.is_cancelled());
        stale.saw(18);
        drop(stale);
        assert_eq!((fresh.from, clients.connected(&kernel())), (10, 1));
        drop(fresh);
        assert_eq!(clients.connect(&kernel(), "a", 20).from, 10);
    }

    #[test]
    fn those_that_left_are_forgotten_before_those_that_are_here() {
        let clients = Arc::new(Clients::default());
        let stays = clients.connect(&kernel(), "stays", 1);
        for n in 0..2 * REMEMBERED {
            clients.connect(&kernel(), &n.to_string(), 1).saw(1);
        }
        stays.saw(1);
        assert_eq!(clients.connected(&kernel()), 1);
        assert!(clients.lock()[&kernel()].len() <= REMEMBERED + 1);
    }
}
