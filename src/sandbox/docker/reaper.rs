//! What the engine could not remove when it was asked to: tried again until it is gone.
//!
//! Such a container harms nobody meanwhile: nobody is connected to its agent, which ends it when no server comes back.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;

use super::Shared;
use super::engine::Outcome;
use crate::model::id::SandboxId;
use crate::sandbox::SandboxError;

/// How long the engine is left alone between two attempts.
const PAUSE: Duration = Duration::from_secs(2);
/// In how many rounds a container is looked for that an engine was asked to make and did not say whether it did: for five minutes, while it answers.
const ROUNDS: u32 = 150;

/// The sandboxes that are to go. There are no more of them than ids of users.
#[derive(Debug, Default)]
pub(super) struct Reaper {
    left: Mutex<BTreeMap<SandboxId, Left>>,
    more: Arc<Notify>,
}

/// One that is to go.
#[derive(Debug, Default)]
struct Left {
    /// In how many rounds more it may come to be.
    rounds: u32,
    /// The log says already why it cannot be removed.
    is_told: bool,
}

impl Reaper {
    /// Takes in a sandbox that could not be destroyed.
    pub(super) fn take(&self, id: SandboxId) {
        self.left().entry(id).or_default();
        self.more.notify_one();
    }

    /// Looks at what became of an order for a container: one that was not answered may be carried out yet, when it is wanted no more.
    pub(super) fn note(&self, id: SandboxId, created: &Outcome<()>) {
        if created.as_ref().is_err_and(|error| error.is_away()) {
            self.left().entry(id).or_default().rounds = ROUNDS;
            self.more.notify_one();
        }
    }

    fn left(&self) -> std::sync::MutexGuard<'_, BTreeMap<SandboxId, Left>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tries until everything is gone, whenever there is something, for as long as there is a backend.
    pub(super) async fn run(shared: Weak<Shared>) {
        let Some(more) = shared
            .upgrade()
            .map(|shared| Arc::clone(&shared.reaper.more))
        else {
            return;
        };
        loop {
            more.notified().await;
            loop {
                sleep(PAUSE).await;
                let Some(shared) = shared.upgrade() else {
                    return;
                };
                shared.reap().await;
                if shared.reaper.left().is_empty() {
                    break;
                }
            }
        }
    }
}

impl Shared {
    /// One round.
    async fn reap(&self) {
        let left: Vec<SandboxId> = self.reaper.left().keys().copied().collect();
        for id in left {
            match self.remove(id).await {
                Ok(()) => self.reaper.is_gone(id),
                // The others would fare no better.
                Err(SandboxError::Away { .. }) => return,
                Err(error) => self.reaper.stays(id, &error),
            }
        }
    }
}

impl Reaper {
    fn is_gone(&self, id: SandboxId) {
        let mut left = self.left();
        match left.get_mut(&id) {
            Some(Left {
                rounds: rounds @ 1..,
                ..
            }) => *rounds -= 1,
            _ => {
                tracing::info!(sandbox.id = %id, "a sandbox that could not be removed is gone now");
                left.remove(&id);
            }
        }
    }

    fn stays(&self, id: SandboxId, error: &SandboxError) {
        if let Some(left) = self.left().get_mut(&id)
            && !std::mem::replace(&mut left.is_told, true)
        {
            let error = super::engine::chain(error);
            tracing::warn!(sandbox.id = %id, error, "a sandbox cannot be removed; trying again and again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::docker::fake::FakeEngine;
    use crate::sandbox::docker::name;

    fn left(shared: &Shared) -> Vec<SandboxId> {
        shared.reaper.left().keys().copied().collect()
    }

    #[tokio::test]
    async fn a_container_that_cannot_be_removed_keeps_no_other() {
        let ids = [(); 3].map(|()| SandboxId::new());
        let engine = FakeEngine::start(move |request| {
            if request.contains(&name(ids[0])) {
                (500, r#"{"message": "device or resource busy"}"#)
            } else {
                (204, "")
            }
        });
        let shared = engine.shared();
        ids.iter().for_each(|id| shared.reaper.take(*id));
        shared.reap().await;
        assert_eq!(left(&shared), [ids[0]]);
    }

    #[tokio::test]
    async fn an_engine_that_is_away_is_asked_once_a_round() {
        let engine = FakeEngine::start(|_| (0, ""));
        let shared = engine.shared();
        let ids = [(); 3].map(|()| SandboxId::new());
        ids.iter().for_each(|id| shared.reaper.take(*id));
        shared.reap().await;
        assert_eq!(engine.requests().len(), 1);
        assert_eq!(left(&shared), ids);
    }

    #[tokio::test]
    async fn a_container_that_comes_late_is_removed() {
        let engine = FakeEngine::start(|request| match request.split_once(' ') {
            Some(("DELETE", _)) => (404, r#"{"message": "no such container"}"#),
            _ => (0, ""),
        });
        let shared = engine.shared();
        let id = SandboxId::new();
        let body = bollard::models::ContainerCreateBody::default();
        let created = shared.engine.create(&name(id), body).await;
        shared.reaper.note(id, &created);
        for _ in 0..ROUNDS {
            assert_eq!(left(&shared), [id], "it may come yet");
            shared.reap().await;
        }
        shared.reap().await;
        assert_eq!(left(&shared), []);
    }
}
