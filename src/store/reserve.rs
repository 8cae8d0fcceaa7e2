//! A little room that is held back, so that trimming and deleting work on a disk that is full: they too have to write first.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};

/// Enough for the pages that one step of trimming changes.
const BYTES: u64 = 2 << 20;

/// Room on the disk that is taken until it is needed.
#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
    is_held: bool,
}

impl Reserve {
    /// Takes it, if there is room.
    pub(super) fn open(data_dir: &Path) -> Self {
        let mut reserve = Self {
            path: data_dir.join("reserve"),
            is_held: false,
        };
        reserve.take();
        reserve
    }

    /// Takes it again after it was given up. Without room, or on a file system that cannot, there is none: no harm until the disk is full.
    pub(super) fn take(&mut self) {
        if self.is_held {
            return;
        }
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&self.path);
        self.is_held =
            file.is_ok_and(|file| fallocate(&file, FallocateFlags::empty(), 0, BYTES).is_ok());
        if !self.is_held {
            // What was taken in part would only be missing elsewhere.
            let _ = std::fs::remove_file(&self.path);
        }
    }

    /// Gives it up; says whether there was anything to give.
    pub(super) fn give_up(&mut self) -> bool {
        let held = self.is_held;
        self.is_held = false;
        held && File::create(&self.path).is_ok()
    }
}
