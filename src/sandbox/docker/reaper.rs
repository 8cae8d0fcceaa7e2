//! What the engine could not remove when it was asked to: tried again until it is gone.
//!
//! Such a container harms nobody meanwhile: nobody is connected to its agent, which ends it when no server comes back.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;

use super::Shared;
use crate::model::id::SandboxId;

/// How long the engine is left alone between two attempts.
const PAUSE: Duration = Duration::from_secs(2);

/// The sandboxes that are to go. There are no more of them than ids of users.
#[derive(Debug, Default)]
pub(super) struct Reaper {
    left: Mutex<BTreeSet<SandboxId>>,
    more: Arc<Notify>,
}

impl Reaper {
    /// Takes in a sandbox that could not be destroyed.
    pub(super) fn take(&self, id: SandboxId) {
        self.left().insert(id);
        self.more.notify_one();
    }

    fn left(&self) -> std::sync::MutexGuard<'_, BTreeSet<SandboxId>> {
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
                let left: Vec<SandboxId> = shared.reaper.left().iter().copied().collect();
                for id in left {
                    if shared.remove(id).await.is_ok() {
                        tracing::info!(sandbox.id = %id, "a sandbox that could not be removed is gone now");
                        shared.reaper.left().remove(&id);
                    } else {
                        // The engine is still away: the others would fare no better.
                        break;
                    }
                }
                if shared.reaper.left().is_empty() {
                    break;
                }
            }
        }
    }
}
