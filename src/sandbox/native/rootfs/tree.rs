//! A root while it is being built.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountAttrFlags, MoveMountFlags};

use super::HOME;
use super::mounts::{filesystem, processes};
use super::sources::Source;
use crate::sandbox::native::step::{Step, StepError};

/// What else is in /etc.
const ETC: [(&str, &str); 6] = [
    (
        "passwd",
        "root:x:0:0:root:/root:/usr/sbin/nologin\nuser:x:1000:1000:user:/home/user:/bin/bash\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    ),
    ("group", "root:x:0:\nuser:x:1000:\nnogroup:x:65534:\n"),
    ("hosts", "127.0.0.1 localhost evercell\n::1 localhost\n"),
    ("hostname", "evercell\n"),
    (
        "nsswitch.conf",
        "passwd: files\ngroup: files\nhosts: files dns\n",
    ),
    ("shells", "/bin/sh\n/bin/bash\n"),
];

/// How many files a /tmp of this size may hold.
pub(in crate::sandbox) fn inodes(size: u64) -> u64 {
    (size / 4096).clamp(1024, 1 << 20)
}

/// The new root while it is being built, reached by its descriptor only.
pub(super) struct Tree<'a> {
    pub(super) root: BorrowedFd<'a>,
}

impl Tree<'_> {
    pub(super) fn attach(&self, source: &Source) -> io::Result<()> {
        if source.is_directory {
            self.directories(&source.target)?;
        } else {
            self.file(&source.target, "")?;
        }
        self.put(&source.mount, inside(&source.target))
    }

    pub(super) fn put(&self, mount: &OwnedFd, at: impl AsRef<Path>) -> io::Result<()> {
        Ok(rustix::mount::move_mount(
            mount,
            "",
            self.root,
            at.as_ref(),
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
        )?)
    }

    /// Makes a directory and those above it.
    fn directories(&self, path: &Path) -> io::Result<()> {
        let mut so_far = PathBuf::new();
        for part in path.components() {
            if let Component::Normal(name) = part {
                so_far.push(name);
                match rustix::fs::mkdirat(self.root, &so_far, Mode::from_raw_mode(0o755)) {
                    Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    fn file(&self, path: &Path, content: &str) -> io::Result<()> {
        if let Some(above) = path.parent() {
            self.directories(above)?;
        }
        let file = rustix::fs::openat(
            self.root,
            inside(path),
            OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC,
            Mode::from_raw_mode(0o644),
        )?;
        rustix::io::write(&file, content.as_bytes())?;
        Ok(())
    }

    pub(super) fn link(&self, at: &Path, to: &Path) -> io::Result<()> {
        if let Some(above) = at.parent() {
            self.directories(above)?;
        }
        Ok(rustix::fs::symlinkat(to, self.root, inside(at))?)
    }

    /// Everything that is the same in every root.
    pub(super) fn fill(&self) -> io::Result<()> {
        for directory in [
            "/dev/shm",
            "/dev/pts",
            "/proc",
            "/tmp",
            "/workspace",
            "/home",
            "/var",
            "/run",
            "/root",
        ] {
            self.directories(Path::new(directory))?;
        }
        for (name, content) in ETC {
            self.file(&Path::new("/etc").join(name), content)?;
        }
        for (at, to) in [
            ("/dev/fd", "/proc/self/fd"),
            ("/dev/stdin", "/proc/self/fd/0"),
            ("/dev/stdout", "/proc/self/fd/1"),
            ("/dev/stderr", "/proc/self/fd/2"),
            ("/dev/ptmx", "pts/ptmx"),
            ("/var/tmp", "/tmp"),
            (HOME, "/tmp/.home"),
        ] {
            self.link(Path::new(at), Path::new(to))?;
        }
        Ok(())
    }

    /// What a sandbox has for itself: /proc, /tmp, /dev/shm and terminals.
    pub(super) fn mount_own(&self, tmp: u64, shared_memory: u64) -> Result<(), StepError> {
        let quiet = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
        let data = quiet | MountAttrFlags::MOUNT_ATTR_NOEXEC;

        // `subset=pid`: only processes, nothing of the machine. `hidepid`: only those one may look into, so not the agent. Mounting it
        // needs a /proc in this mount namespace of which nothing is hidden (`mount_too_revealing` in Linux' fs/namespace.c), so
        // this comes before the host's mounts go.
        let proc = processes().step("make /proc")?;
        self.put(&proc, "proc").step("mount /proc")?;

        let size = tmp.to_string();
        let inodes = inodes(tmp).to_string();
        let tmp = filesystem(
            "tmpfs",
            &[("size", &size), ("nr_inodes", &inodes), ("mode", "1777")],
            quiet,
        )
        .step("make /tmp")?;
        self.put(&tmp, "tmp").step("mount /tmp")?;
        rustix::fs::mkdirat(&tmp, ".home", Mode::from_raw_mode(0o755))
            .step("make the home directory")?;

        let size = shared_memory.to_string();
        let shm = filesystem(
            "tmpfs",
            &[("size", &size), ("nr_inodes", "8192"), ("mode", "1777")],
            data,
        )
        .step("make /dev/shm")?;
        self.put(&shm, "dev/shm").step("mount /dev/shm")?;

        // Not nodev, or no terminal could be opened.
        let pts = filesystem(
            "devpts",
            &[("mode", "620"), ("ptmxmode", "666")],
            MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC,
        )
        .step("make /dev/pts")?;
        self.put(&pts, "dev/pts").step("mount /dev/pts")
    }
}

/// An absolute path of the new root, relative to it.
fn inside(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}
