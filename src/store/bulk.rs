//! Large events stand in a file of their session beside the database.
//!
//! SQLite writes every byte twice, first into its log and then into the database, a page at a time; for a flood of output that is ten
//! times the work of writing it once. So the JSON of a large event is appended to the session's bulk file, and its row says where.
//! The file is written before the transaction commits, and what lies beyond the committed end does not count, so both change
//! together. Trimming gives the space at the file's beginning back to the file system.

use std::collections::HashMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};

use super::{Durability, SessionKey, StoreError};

/// From this size on an event is large.
pub(super) const LARGE_BYTES: usize = 8 << 10;

/// The most files that are kept open.
const OPEN_FILES: usize = 128;

/// Where a session's bulk file is.
#[derive(Clone, Debug)]
pub(super) struct BulkDir(PathBuf);

impl BulkDir {
    pub(super) fn open(data_dir: &Path) -> Result<Self, StoreError> {
        let dir = data_dir.join("bulk");
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)
            .map_err(|source| StoreError::from_bulk("make the directory of", &dir, source))?;
        Ok(Self(dir))
    }

    /// Reads a run of bytes. `None` when they are not there: trimmed, or deleted with their session.
    pub(super) fn read(
        &self,
        session: SessionKey,
        offset: u64,
        length: usize,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.file(session);
        let mut bytes = vec![0; length];
        let read = File::open(&path).and_then(|file| file.read_exact_at(&mut bytes, offset));
        match read {
            Ok(()) => Ok(Some(bytes)),
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::UnexpectedEof) =>
            {
                Ok(None)
            }
            Err(source) => Err(StoreError::from_bulk("read", &path, source)),
        }
    }

    /// How long a session's file is.
    pub(super) fn length(&self, session: SessionKey) -> Result<u64, StoreError> {
        let path = self.file(session);
        match path.metadata() {
            Ok(metadata) => Ok(metadata.len()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(0),
            Err(source) => Err(StoreError::from_bulk("look at", &path, source)),
        }
    }

    fn file(&self, session: SessionKey) -> PathBuf {
        self.0.join(session.0.to_string())
    }
}

/// The bulk files as the writer has them.
#[derive(Debug)]
pub(super) struct BulkFiles {
    dir: BulkDir,
    durability: Durability,
    open: HashMap<SessionKey, File>,
    /// Written since the last [`BulkFiles::sync`].
    dirty: Vec<SessionKey>,
}

impl BulkFiles {
    pub(super) fn new(dir: BulkDir, durability: Durability) -> Self {
        Self {
            dir,
            durability,
            open: HashMap::new(),
            dirty: Vec::new(),
        }
    }

    /// Writes at this place, over whatever an append that failed has left there.
    pub(super) fn write(
        &mut self,
        session: SessionKey,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), StoreError> {
        let result = self
            .get(session)
            .and_then(|file| file.write_all_at(bytes, offset));
        if self.durability == Durability::Power && !self.dirty.contains(&session) {
            self.dirty.push(session);
        }
        result.map_err(|source| self.error("write", session, source))
    }

    /// Waits for the disk, if a commit has to.
    pub(super) fn sync(&mut self) -> Result<(), StoreError> {
        for session in std::mem::take(&mut self.dirty) {
            let synced = self.get(session).and_then(|file| file.sync_data());
            synced.map_err(|source| self.error("sync", session, source))?;
        }
        Ok(())
    }

    /// Gives back the space before this place.
    pub(super) fn release(&mut self, session: SessionKey, end: u64) {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let released = self
            .get(session)
            .and_then(|file| Ok(fallocate(file, flags, 0, end)?));
        match released {
            Ok(()) => {}
            // This file system cannot; the space comes back when the session is deleted.
            Err(error) if error.kind() == ErrorKind::Unsupported => {}
            Err(error) => tracing::warn!(%error, "cannot give back the space of trimmed events"),
        }
    }

    /// Deletes a session's file.
    pub(super) fn delete(&mut self, session: SessionKey) -> Result<(), StoreError> {
        self.open.remove(&session);
        match std::fs::remove_file(self.dir.file(session)) {
            Err(source) if source.kind() != ErrorKind::NotFound => {
                Err(self.error("delete", session, source))
            }
            _ => Ok(()),
        }
    }

    fn get(&mut self, session: SessionKey) -> io::Result<&File> {
        if self.open.len() >= OPEN_FILES && !self.open.contains_key(&session) {
            // All of them: it takes microseconds to open one again, and so many sessions that flood have other worries.
            self.open.clear();
        }
        match self.open.entry(session) {
            std::collections::hash_map::Entry::Occupied(entry) => Ok(entry.into_mut()),
            std::collections::hash_map::Entry::Vacant(entry) => {
                let file = OpenOptions::new()
                    .read(true)
                    .write(true)
                    .create(true)
                    .truncate(false)
                    .mode(0o600)
                    .open(self.dir.file(session))?;
                if self.durability == Durability::Power {
                    // The file's name too must survive.
                    File::open(&self.dir.0)?.sync_all()?;
                }
                Ok(entry.insert(file))
            }
        }
    }

    fn error(&self, what: &'static str, session: SessionKey, source: io::Error) -> StoreError {
        StoreError::from_bulk(what, &self.dir.file(session), source)
    }
}
