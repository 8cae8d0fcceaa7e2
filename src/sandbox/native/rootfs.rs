//! The file system of a sandbox: a small tmpfs, read-only, into which parts of the host are mounted read-only, and little else.
//!
//! Uses the mount calls that came with Linux 5.2 to 5.12 throughout, because they work on descriptors: parts of the host are taken as
//! detached mounts while we still may see them, and attached when we no longer do.

mod layout;
mod mounts;
mod sources;
mod tree;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::mount::{MountAttrFlags, MoveMountFlags, UnmountFlags};

pub(super) use layout::Layout;
pub(super) use mounts::{try_mounts, try_proc};
pub(super) use sources::Sources;
pub(in crate::sandbox) use tree::inodes;

use self::mounts::{filesystem, make_private};
use self::tree::Tree;
use super::step::{Step, StepError};
use super::sys;

/// Where the Python environment is in a sandbox.
pub(in crate::sandbox) const PYTHON_ENV: &str = "/opt/evercell/python";
/// Where the package `pykernel` is found in a sandbox.
pub(in crate::sandbox) const LIBRARY: &str = "/opt/evercell/lib";
/// Where the workspace is in a sandbox.
pub(in crate::sandbox) const WORKSPACE: &str = "/workspace";
/// The home directory of a sandbox's user; a part of /tmp.
pub(super) const HOME: &str = "/home/user";

/// What a root is for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Root {
    /// A sandbox.
    Sandbox {
        /// The size of /tmp.
        tmp: u64,
        /// The size of /dev/shm.
        shared_memory: u64,
    },
    /// The zygote: nothing to write to but a little /tmp and /dev/shm.
    House,
}

/// Builds the root and makes it the only file system of this mount namespace.
///
/// Everything created here belongs to the current user, who must be mapped in the user namespace that owns the mounts: to others the
/// kernel answers EOVERFLOW.
pub(super) fn enter(sources: Sources, kind: Root) -> Result<(), StepError> {
    make_private()?;
    let quiet = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    let root = filesystem(
        "tmpfs",
        &[("size", "1m"), ("nr_inodes", "256"), ("mode", "755")],
        quiet,
    )
    .step("make the root file system")?;
    // Anywhere on a directory that every host has. Everything we need from below it has been taken by now.
    rustix::mount::move_mount(
        &root,
        "",
        CWD,
        "/usr",
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )
    .step("mount the root file system")?;

    let tree = Tree { root: root.as_fd() };
    for source in &sources.mounts {
        tree.attach(source)
            .step_with(|| format!("mount {}", source.target.display()))?;
    }
    for (at, to) in &sources.links {
        tree.link(at, to)
            .step_with(|| format!("link {}", at.display()))?;
    }
    tree.fill().step("fill the root file system")?;

    if let Root::Sandbox { tmp, shared_memory } = kind {
        tree.mount_own(tmp, shared_memory)?;
    } else {
        let tmp = filesystem(
            "tmpfs",
            &[("size", "16m"), ("nr_inodes", "1024"), ("mode", "1777")],
            quiet,
        )
        .step("make /tmp")?;
        tree.put(&tmp, "tmp").step("mount /tmp")?;
        // Libraries try whether semaphores work when they are imported, and remember it in all kernels.
        let shm = filesystem(
            "tmpfs",
            &[("size", "1m"), ("nr_inodes", "64"), ("mode", "1777")],
            quiet,
        )
        .step("make /dev/shm")?;
        tree.put(&shm, "dev/shm").step("mount /dev/shm")?;
    }
    sys::restrict_mount(root.as_fd(), MountAttrFlags::MOUNT_ATTR_RDONLY, false)
        .step("make the root file system read-only")?;

    // pivot_root(2), "pivot_root(".", ".")": the old root ends up on top of the new one, from where it is taken away.
    rustix::process::fchdir(&root).step("enter the new root")?;
    rustix::process::pivot_root(".", ".").step("pivot the root")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).step("detach the host's file systems")?;
    rustix::process::chdir("/").step("enter the new root")
}

/// Opens a file or directory only as a place.
pub(in crate::sandbox) fn open_place(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(
        CWD,
        path,
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

/// Whether something is there, without following a link at the end.
pub(super) fn exists(path: &Path) -> bool {
    rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW).is_ok()
}
