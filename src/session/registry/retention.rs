//! What is not kept for ever: old events, and sessions that ended long ago.

use super::Sessions;
use crate::session::SessionError;
use crate::store::{SessionRow, SessionState, TrimPolicy};

impl Sessions {
    /// Removes what the policy no longer keeps: events from the beginning of logs, and expired sessions with their files.
    ///
    /// # Errors
    /// The store cannot be read or written; what was removed by then stays removed.
    pub async fn trim(&self, policy: TrimPolicy) -> Result<(), SessionError> {
        let report = self.shared.store.trim(policy).await?;
        for slot in &self.shared.slots {
            if let Some(handle) = slot.open() {
                // A log takes only what is its own.
                report
                    .trimmed
                    .iter()
                    .for_each(|trimmed| handle.log().trimmed(trimmed));
            }
        }
        let expired = report.expired.len();
        for row in report.expired {
            self.expire(row).await?;
        }
        if report.events > 0 || expired > 0 {
            tracing::info!(
                events = report.events,
                bytes = report.bytes,
                sessions = expired,
                "old events and sessions were removed"
            );
        }
        Ok(())
    }

    /// Removes an expired session, unless it was opened again meanwhile.
    async fn expire(&self, row: SessionRow) -> Result<(), SessionError> {
        let (slot, _door) = self.enter(&row.id).await;
        slot.rest().await;
        let now = self.shared.store.session(&row.id).await?;
        let Some(now) = now.filter(|now| now.key == row.key && now.state == SessionState::Ended)
        else {
            return Ok(());
        };
        self.shared.slots.remove(&row.id);
        // The files first: a crash in between leaves a session that expires again, not files that nobody knows of.
        self.remove_workspace(&now.workspace).await;
        self.shared.store.delete_session(now.key).await?;
        Ok(())
    }
}
