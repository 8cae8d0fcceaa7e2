//! Mounts that are not attached anywhere yet, and whether this host lets us make them.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
};

use crate::sandbox::native::step::{Step, StepError};
use crate::sandbox::native::sys;

/// Cuts this mount namespace off from others.
pub(super) fn make_private() -> Result<(), StepError> {
    // Or what we mount shows up in the host, and what the host mounts later shows up here.
    rustix::mount::mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )
    .step("make mounts private")
}

/// A copy of a part of the file system, mounted nowhere yet, with more restrictions.
pub(super) fn take(source: &Path, attributes: MountAttrFlags) -> io::Result<OwnedFd> {
    // Recursive, since without it the kernel refuses a tree from whose mounts it keeps us from taking some away (`MNT_LOCKED`).
    let mount = rustix::mount::open_tree(
        CWD,
        source,
        OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_RECURSIVE,
    )?;
    sys::restrict_mount(mount.as_fd(), attributes, true)?;
    Ok(mount)
}

/// A new file system, mounted nowhere yet.
pub(super) fn filesystem(
    kind: &str,
    options: &[(&str, &str)],
    attributes: MountAttrFlags,
) -> io::Result<OwnedFd> {
    let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        rustix::mount::fsconfig_set_string(&context, *key, *value)?;
    }
    rustix::mount::fsconfig_create(&context)?;
    Ok(rustix::mount::fsmount(
        &context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        attributes,
    )?)
}

/// A /proc of the processes of this pid namespace.
pub(super) fn processes() -> io::Result<OwnedFd> {
    filesystem(
        "proc",
        &[("hidepid", "ptraceable"), ("subset", "pid")],
        MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC,
    )
}

/// Tries whether parts of the host can be taken and attached in this mount namespace.
pub(in crate::sandbox::native) fn try_mounts(part: &Path) -> Result<(), StepError> {
    make_private()?;
    let tree = take(part, MountAttrFlags::MOUNT_ATTR_RDONLY)
        .step_with(|| format!("take `{}`", part.display()))?;
    let root = filesystem("tmpfs", &[("size", "64k")], MountAttrFlags::empty())
        .step("make a file system")?;
    rustix::fs::mkdirat(&root, "part", Mode::from_raw_mode(0o755)).step("make a directory")?;
    rustix::mount::move_mount(
        &root,
        "",
        CWD,
        part,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )
    .step("mount a file system")?;
    rustix::mount::move_mount(
        &tree,
        "",
        &root,
        "part",
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )
    .step("mount a part of the host")
}

/// Tries whether a /proc of its own can be had in this pid namespace.
pub(in crate::sandbox::native) fn try_proc() -> Result<(), StepError> {
    processes().map(drop).step("mount /proc")
}
