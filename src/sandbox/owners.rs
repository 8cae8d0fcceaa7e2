//! Who owns workspaces: each sandbox has an id of its own on the host, out of a range that belongs to nobody else.
//!
//! So no sandbox can use up what Linux bounds for each user, and what one writes no other may read, should it ever get that far.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::tree;

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

    /// Chooses an id, and gives it the workspace: the owner it has, if an earlier sandbox left it and nobody has that now.
    pub(super) fn take(&self, workspace: &Path) -> io::Result<Taken<'_>> {
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
        let taken = Taken {
            owners: self,
            id: chosen,
        };
        let host = self.first + chosen;
        if host != owner {
            tree::give_to(workspace, host)?;
        }
        Ok(taken)
    }

    /// Takes an id back.
    pub(super) fn give_back(&self, id: u32) {
        self.used
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&id);
    }
}

/// An id that was given out. Dropping it gives it back, until it is written down whose it is.
#[derive(Debug)]
pub(super) struct Taken<'a> {
    owners: &'a Owners,
    id: u32,
}

impl Taken<'_> {
    /// It, counted from the first.
    pub(super) fn id(&self) -> u32 {
        self.id
    }

    /// It is written down: from now on it is given back with what is written.
    pub(super) fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.owners.give_back(self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As if this user's own id, and the next, were those of sandboxes: so anybody can give workspaces to one of them.
    fn owners() -> Owners {
        let own = rustix::process::geteuid().as_raw();
        Owners::new(own.saturating_sub(1), 3, [])
    }

    #[test]
    fn an_id_that_was_not_written_down_is_given_back() {
        let workspace = tempfile::tempdir().unwrap();
        let owners = owners();
        drop(owners.take(workspace.path()).unwrap());
        assert!(owners.used.lock().unwrap().is_empty());
        let taken = owners.take(workspace.path()).unwrap();
        let id = taken.id();
        taken.keep();
        assert_eq!(*owners.used.lock().unwrap(), BTreeSet::from([id]));
    }

    #[test]
    fn an_id_whose_workspace_cannot_be_given_is_given_back() {
        let directory = tempfile::tempdir().unwrap();
        // A file is no workspace, and one that belongs to an id already is not given: so the ids begin elsewhere.
        let file = directory.path().join("file");
        fs::write(&file, "").unwrap();
        let owners = Owners::new(0x7000_0000, 16, []);
        assert!(owners.take(&file).is_err());
        assert!(owners.used.lock().unwrap().is_empty());
    }
}
