//! How all sessions come to their end when the server stops.

use super::Sessions;
use crate::model::event::EndReason;
use crate::session::SessionHandle;
use crate::session::view::SessionView;

impl Sessions {
    /// Whether it takes no new sessions and no new cells any more.
    pub fn is_stopping(&self) -> bool {
        self.shared.stopping.is_cancelled()
    }

    /// Takes no new sessions and no new cells, and waits until those that were accepted are over.
    pub async fn drain(&self) {
        self.shared.room.close();
        self.shared.stopping.cancel();
        for mut handle in self.open_handles() {
            let is_done = |view: &SessionView| view.running.is_none() && view.queued.is_empty();
            // A session that has ended is done as well.
            let _ = handle.view.wait_for(is_done).await;
        }
    }

    /// Ends all sessions, for the server stops. Their logs and files stay.
    pub async fn stop(&self) {
        self.shared.room.close();
        self.shared.stopping.cancel();
        let handles = self.open_handles();
        let ends = handles
            .iter()
            .map(|handle| handle.end(EndReason::ServerStopped));
        futures_util::future::join_all(ends).await;
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }

    /// Leaves all sessions to the next server: their kernels live on and cells run on. Takes no new sessions and no new cells.
    pub async fn leave(&self) {
        self.shared.room.close();
        self.shared.stopping.cancel();
        let handles = self.open_handles();
        futures_util::future::join_all(handles.iter().map(SessionHandle::leave)).await;
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }

    fn open_handles(&self) -> Vec<SessionHandle> {
        let slots = self.shared.slots.iter();
        slots.filter_map(|slot| slot.open()).collect()
    }
}
