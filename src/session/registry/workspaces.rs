//! The directories of sessions: read also when the session has ended, and removed with it.

use super::Sessions;
use crate::kernel::files::Files;
use crate::model::id::SessionId;
use crate::session::{Denied, SessionError};

impl Sessions {
    /// Access to the workspace of a session for reading, also of one that has ended.
    ///
    /// # Errors
    /// It is unknown, or there is no sandbox and none can be made.
    pub async fn files_to_read(&self, id: &SessionId) -> Result<Files, SessionError> {
        let open = match self.find(id).await {
            Ok(handle) => handle.files().await,
            Err(error) => Err(error),
        };
        if !matches!(open, Err(SessionError::Denied(Denied::Ended))) {
            return open;
        }
        let row = self.row(id).await?;
        Ok(self.shared.launcher.left_files(&row.workspace))
    }

    /// Removes what a session that is no longer kept has left on disk.
    pub async fn remove_workspace(&self, name: &str) {
        if name.is_empty() {
            return;
        }
        if let Err(error) = self.shared.launcher.remove_workspace(name).await {
            tracing::warn!(error = %error, "a workspace could not be removed");
        }
    }
}
