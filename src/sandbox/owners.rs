//! Who owns workspaces: each sandbox has an id of its own on the host, out of a range that belongs to nobody else.
//!
//! So no sandbox can use up what Linux bounds for each user, and what one writes no other may read, should it ever get that far.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// Gives ids to sandboxes, and workspaces to ids.
#[derive(Debug)]
pub(super) struct Owners {
    /// The first of them on the host.
    first: u32,
    /// How many there are. The first is not given out: it is the zygote's.
    count: u32,
    /// Those in use, counted from the first.
    used: Mutex<BTreeSet<u32>>,
}

impl Owners {
    /// With those that sandboxes of an earlier server have.
    pub(super) fn new(first: u32, count: u32, used: impl IntoIterator<Item = u32>) -> Self {
        Self {
            first,
            count,
            used: Mutex::new(used.into_iter().collect()),
        }
    }

    /// Chooses an id, counted from the first, and gives it the workspace: the owner it has, if an earlier sandbox left it and nobody has that now.
    pub(super) fn take(&self, workspace: &Path) -> io::Result<u32> {
        let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(workspace)?);
        let chosen = {
            let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
            let before = owner
                .checked_sub(self.first)
                .filter(|id| (1..self.count).contains(id) && !used.contains(id));
            // Beginning anywhere makes it unlikely that two servers of one host give out the same.
            let offset = std::process::id();
            let free = || {
                (0..self.count - 1)
                    .map(|n| 1 + (n + offset) % (self.count - 1))
                    .find(|id| !used.contains(id))
            };
            let chosen = before
                .or_else(free)
                .ok_or_else(|| io::Error::other("all ids for sandboxes are in use"))?;
            used.insert(chosen);
            chosen
        };
        let host = self.first + chosen;
        if host != owner {
            give_to(workspace, host)?;
        }
        Ok(chosen)
    }

    /// Takes an id back.
    pub(super) fn give_back(&self, id: u32) {
        self.used
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&id);
    }
}

/// Gives a directory and everything in it to a user. Follows no link.
pub(super) fn give_to(path: &Path, owner: u32) -> io::Result<()> {
    std::os::unix::fs::lchown(path, Some(owner), Some(owner))?;
    if fs::symlink_metadata(path)?.is_dir() {
        for entry in fs::read_dir(path)? {
            give_to(&entry?.path(), owner)?;
        }
    }
    Ok(())
}
