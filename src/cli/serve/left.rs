//! What an earlier server has left and no session takes up: sandboxes that were kept warm, half made or being ended, and their workspaces.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use futures_util::{StreamExt, stream};
use tracing::{info, warn};

use crate::model::id::SandboxId;
use crate::sandbox::{Backend, remove_tree};

/// It, as it was found.
#[derive(Debug)]
pub(super) struct Left {
    sandboxes: Vec<SandboxId>,
    /// Those of the pool carry the name of their sandbox until a session has them.
    workspaces: Vec<PathBuf>,
}

impl Left {
    /// Looks for it. To be called before anything new is made, which would be found too.
    pub(super) async fn find(backend: &dyn Backend, workspaces: &Path) -> Self {
        let sandboxes = backend.list().await.unwrap_or_else(|error| {
            warn!(error = %error, "cannot look for sandboxes of an earlier server");
            Vec::new()
        });
        let entries = fs::read_dir(workspaces).into_iter().flatten().flatten();
        let is_of_pool = |name: &str| name.parse::<SandboxId>().is_ok();
        let workspaces = entries
            .filter(|entry| entry.file_name().to_str().is_some_and(is_of_pool))
            .map(|entry| entry.path())
            .collect();
        Self {
            sandboxes,
            workspaces,
        }
    }

    /// The same, but for what is used.
    pub(super) fn without(mut self, used: &HashSet<SandboxId>) -> Self {
        self.sandboxes.retain(|sandbox| !used.contains(sandbox));
        self
    }

    /// Destroys it.
    pub(super) async fn remove(self, backend: &dyn Backend) {
        if !self.sandboxes.is_empty() {
            let sandboxes = self.sandboxes.len();
            info!(sandboxes, "removing what an earlier server left");
        }
        stream::iter(self.sandboxes)
            .for_each_concurrent(16, |sandbox| async move {
                if let Err(error) = backend.destroy(sandbox).await {
                    let error = format!("{:#}", anyhow::Error::from(error));
                    warn!(sandbox.id = %sandbox, error, "a sandbox of an earlier server could not be removed");
                }
            })
            .await;
        for workspace in self.workspaces {
            if let Err(error) = remove_tree(&workspace) {
                warn!(error = %error, "a workspace of an earlier server could not be removed");
            }
        }
    }
}
