//! Adds up what a workspace holds, step by step, so that nothing waits for it; and sweeps away what an agent that was killed has half received.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use tokio::time::{Duration, Instant};

use crate::agent::workspace::Workspace;
use crate::protocol::agent::WORKSPACE_DEPTH;

/// How many entries are looked at in one step: less than a millisecond.
const STEP: usize = 256;

/// A walk through a workspace.
pub(crate) struct Scan {
    levels: Vec<Dir>,
    bytes: u64,
    entries: u64,
    out_of_sight: bool,
    took: Duration,
}

impl std::fmt::Debug for Scan {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Scan")
            .field("bytes", &self.bytes)
            .field("entries", &self.entries)
            .finish_non_exhaustive()
    }
}

impl Scan {
    /// Begins at that directory.
    pub(crate) fn new(root: &OwnedFd) -> rustix::io::Result<Self> {
        Ok(Self {
            levels: vec![look_into(root, c".")?],
            bytes: 0,
            entries: 0,
            out_of_sight: false,
            took: Duration::ZERO,
        })
    }

    /// Goes on. Returns whether it has come to its end.
    pub(crate) fn step(&mut self, workspace: &Workspace) -> bool {
        let began = Instant::now();
        for _ in 0..STEP {
            let depth = self.levels.len();
            let Some(level) = self.levels.last_mut() else {
                break;
            };
            let Some(Ok(entry)) = level.read() else {
                self.levels.pop();
                continue;
            };
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let directory = level.fd().expect("a directory on Linux has a descriptor");
            if workspace.is_left_over(name.to_bytes()) {
                // A directory of that name is nobody's upload, and stays.
                let _ = rustix::fs::unlinkat(directory, name, AtFlags::empty());
            }
            let stat = match stat(directory, name) {
                Ok(stat) => stat,
                Err(error) => {
                    self.out_of_sight |= error == Errno::ACCESS;
                    continue;
                }
            };
            self.entries += 1;
            let bytes = stat.st_blocks as u64 * 512;
            let type_ = FileType::from_raw_mode(stat.st_mode);
            if type_ == FileType::Directory {
                self.bytes += bytes;
                if depth >= WORKSPACE_DEPTH {
                    self.out_of_sight = true;
                } else {
                    match look_into(directory, name) {
                        Ok(below) => self.levels.push(below),
                        Err(error) => self.out_of_sight |= error == Errno::ACCESS,
                    }
                }
            } else {
                // All links of a file together count once.
                // Not the same integer on every processor.
                let links = u64::try_from(i128::from(stat.st_nlink)).unwrap_or(1);
                self.bytes += bytes / links.max(1);
            }
        }
        self.took += began.elapsed();
        self.levels.is_empty()
    }

    /// What was found, in bytes on the disk.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many files and directories were found.
    pub(crate) fn entries(&self) -> u64 {
        self.entries
    }

    /// Whether there are directories that were not looked at: they lie too deep, or somebody locks them again and again.
    pub(crate) fn has_blind_spots(&self) -> bool {
        self.out_of_sight
    }

    /// How long it took, waiting not included.
    pub(crate) fn took(&self) -> Duration {
        self.took
    }
}

/// What its owner needs to look into a directory. Where the agent is that owner and has no right to pass over locks, it opens what is locked: what
/// cannot be counted cannot be bounded.
const OWNER: Mode = Mode::RWXU;

fn stat(directory: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<Stat> {
    let look = || rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW);
    match look() {
        Err(Errno::ACCESS) => {
            let mode = Mode::from_raw_mode(rustix::fs::fstat(directory)?.st_mode);
            rustix::fs::fchmod(directory, mode | OWNER)?;
            look()
        }
        looked => looked,
    }
}

fn look_into(directory: impl AsFd, name: &CStr) -> rustix::io::Result<Dir> {
    let directory = directory.as_fd();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = || rustix::fs::openat(directory, name, flags, Mode::empty());
    let opened = match open() {
        Err(Errno::ACCESS) => {
            let mode = Mode::from_raw_mode(stat(directory, name)?.st_mode);
            rustix::fs::chmodat(directory, name, mode | OWNER, AtFlags::empty())?;
            open()
        }
        opened => opened,
    };
    Dir::new(opened?)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn scan(path: &std::path::Path) -> Scan {
        let workspace = Workspace::open(path, u64::MAX, &serde_json::Value::Null).unwrap();
        let mut scan = Scan::new(workspace.root()).unwrap();
        while !scan.step(&workspace) {}
        scan
    }

    #[test]
    fn what_a_killed_agent_has_half_received_is_swept_away() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        fs::create_dir(path("below")).unwrap();
        let workspace = Workspace::open(root.path(), u64::MAX, &serde_json::Value::Null).unwrap();
        let own = workspace.upload_name();
        for name in [
            ".evercell-upload-1",
            "below/.evercell-upload-2",
            &own,
            "file",
        ] {
            fs::write(path(name), "x").unwrap();
        }
        let mut scan = Scan::new(workspace.root()).unwrap();
        while !scan.step(&workspace) {}
        assert!(path(&own).exists() && path("file").exists());
        assert!(!path(".evercell-upload-1").exists());
        assert!(!path("below/.evercell-upload-2").exists());
    }

    #[test]
    fn everything_is_counted_once_and_links_are_not_followed() {
        let root = tempfile::tempdir().unwrap();
        let empty = scan(root.path()).bytes();
        fs::create_dir(root.path().join("below")).unwrap();
        let directory = scan(root.path()).bytes() - empty;
        let file = root.path().join("below/file");
        fs::write(&file, vec![1; 100 * 1024]).unwrap();
        fs::hard_link(&file, root.path().join("again")).unwrap();
        std::os::unix::fs::symlink("/usr", root.path().join("link")).unwrap();
        let found = scan(root.path());
        assert_eq!(found.entries(), 4);
        let bytes = found.bytes() - empty - directory;
        assert!((100 * 1024..110 * 1024).contains(&bytes), "{bytes}");
    }

    #[test]
    fn a_deep_tree_is_noticed() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("d/".repeat(WORKSPACE_DEPTH + 1))).unwrap();
        assert!(scan(root.path()).has_blind_spots());
        assert!(!scan(&root.path().join("d/d")).has_blind_spots());
    }
}
