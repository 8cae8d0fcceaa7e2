//! Goes on with the sessions that an earlier server has left open, however it came to its end.

use std::sync::Arc;

use super::{Beginning, Memory, Remains, Sessions};
use crate::model::event::Event;
use crate::model::id::SandboxId;
use crate::session::SessionError;
use crate::session::log::Batch;
use crate::store::Store;

/// What an earlier server has left open.
pub(super) async fn left_open(store: &Store) -> Result<Vec<Remains>, SessionError> {
    let open = store.open_sessions().await?;
    let remains = open.into_iter().map(|open| {
        let memory = open.memory.as_deref().map(serde_json::from_str::<Memory>);
        let memory = memory.transpose().unwrap_or_else(|error| {
            tracing::error!(session.id = %open.row.id, error = %error, "what was remembered of a session makes no sense");
            None
        });
        // A session that had only just been opened remembers nothing.
        let memory = memory.unwrap_or_default();
        Remains { open, memory }
    });
    Ok(remains.collect())
}

impl Remains {
    /// The sandbox that is taken up.
    pub(super) fn sandbox(&self) -> Option<SandboxId> {
        self.memory.kernel.sandbox()
    }
}

impl Sessions {
    /// Begins to take up a session. Its task does the rest.
    pub(super) async fn recover(&self, remains: Remains) -> Result<(), SessionError> {
        let row = remains.open.row.clone();
        let log = Arc::new(self.log_of(&row));
        if row.head == 0 {
            // The server died before it could say so.
            let session = row.id.clone();
            let opened = Event::SessionOpened {
                session,
                reopened: false,
            };
            log.append(&Batch {
                events: vec![opened],
                ..Batch::default()
            })
            .await?;
        }
        // There may be more than this server was told to have; they are no reason to lose any.
        let permit = self.permit().ok();
        let (slot, _door) = self.enter(&row.id).await;
        tracing::info!(session.id = %row.id, "session of an earlier server taken up");
        let beginning = Beginning::Adopted(Box::new(remains));
        slot.put(Some(self.spawn(row, log, permit, beginning)));
        Ok(())
    }
}
