//! Users, groups and capabilities: who a process of ours is, in which user namespace, and what it gives up.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::process::{Gid, Uid};
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, CapabilitySets, LinkNameSpaceType,
    move_into_link_name_space, set_capabilities, set_capabilities_secure_bits, set_no_new_privs,
    set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

use super::step::{Step, StepError};
use super::sys;

/// What the user namespace of the house maps, and so what all sandboxes of a server can use.
#[derive(Clone, Copy, Debug)]
pub(super) struct Range {
    /// The first id, as the host numbers them.
    pub(super) first: u32,
    /// How many.
    pub(super) count: u32,
}

/// Writes the user and group map of the user namespace of a process: `inside` there is `outside` here.
///
/// The writer needs `CAP_SETUID` and `CAP_SETGID` in the parent user namespace, or maps its own ids only; see user_namespaces(7).
pub(super) fn write_maps(pid: u32, inside: u32, outside: Range) -> io::Result<()> {
    let line = format!("{inside} {} {}\n", outside.first, outside.count);
    // Without this an ordinary user may not write a group map. And nobody inside has a reason to change groups.
    if outside.count == 1 {
        fs::write(format!("/proc/{pid}/setgroups"), "deny")?;
    }
    fs::write(format!("/proc/{pid}/uid_map"), &line)?;
    fs::write(format!("/proc/{pid}/gid_map"), &line)
}

/// Enters the user namespace of the house and becomes its user 0, who owns all user namespaces below it.
pub(super) fn enter_house(namespace: BorrowedFd<'_>, privileged: bool) -> Result<(), StepError> {
    move_into_link_name_space(namespace, Some(LinkNameSpaceType::User))
        .step("enter the user namespace of the house")?;
    become_owner(privileged)
}

/// Becomes user 0 of the current user namespace, with all its capabilities.
pub(super) fn become_owner(privileged: bool) -> Result<(), StepError> {
    if privileged {
        // An ordinary user cannot: `setgroups` is denied in user namespaces that such a user makes.
        set_thread_groups(&[]).step("leave all groups")?;
    }
    become_user(0)
}

/// Becomes this user and group of the current user namespace.
pub(super) fn become_user(id: u32) -> Result<(), StepError> {
    let (uid, gid) = (Uid::from_raw(id), Gid::from_raw(id));
    // The group first: it needs a capability that the change of user may take.
    set_thread_res_gid(gid, gid, gid).step("change the group")?;
    set_thread_res_uid(uid, uid, uid).step("change the user")?;
    // A change of ids makes Linux give this process's files in /proc to the host's root, which nobody here is. What keeps kernels of
    // the same user out of an agent is that it has capabilities and they have none (ptrace(2), "Ptrace access mode checking").
    sys::set_dumpable(true).step("stay visible to the server")
}

/// Gives up all capabilities but these, for good.
pub(super) fn keep_only(keep: CapabilitySet) -> Result<(), StepError> {
    // Root's ids give nothing any more, and a change of ids takes and gives nothing.
    set_capabilities_secure_bits(
        CapabilitiesSecureBits::NO_ROOT
            | CapabilitiesSecureBits::NO_ROOT_LOCKED
            | CapabilitiesSecureBits::NO_SETUID_FIXUP
            | CapabilitiesSecureBits::NO_SETUID_FIXUP_LOCKED
            | CapabilitiesSecureBits::KEEP_CAPS_LOCKED
            | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE
            | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED,
    )
    .step("lock the secure bits")?;
    // Before the rest: it needs CAP_SETPCAP.
    sys::empty_bounding_set().step("empty the bounding set")?;
    set_capabilities(
        None,
        CapabilitySets {
            effective: keep,
            permitted: keep,
            inheritable: CapabilitySet::empty(),
        },
    )
    .step("drop capabilities")?;
    set_no_new_privs(true).step("set no_new_privs")
}

/// Whether this process may give these ids to sandboxes, as root may. In a container that has only some ids, root may not.
pub(super) fn is_privileged(range: Range) -> bool {
    let last = range.first.saturating_add(range.count.saturating_sub(1));
    rustix::process::geteuid().is_root()
        && is_mapped(range.first)
        && is_mapped(last)
        && rustix::thread::capabilities(None).is_ok_and(|sets| {
            sets.effective.contains(
                CapabilitySet::SYS_ADMIN
                    | CapabilitySet::SETUID
                    | CapabilitySet::SETGID
                    | CapabilitySet::CHOWN,
            )
        })
}

/// A duplicate of a descriptor that does not survive `execve`.
pub(super) fn keep_private(fd: impl AsFd) -> io::Result<std::os::fd::OwnedFd> {
    Ok(rustix::io::fcntl_dupfd_cloexec(fd, 3)?)
}

/// Whether this id exists in the current user namespace.
pub(super) fn is_mapped(id: u32) -> bool {
    let maps = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    maps.lines().any(|line| {
        let numbers: Vec<u32> = line.split_whitespace().filter_map(|number| number.parse().ok()).collect();
        matches!(numbers[..], [first, _, count] if (first..first.saturating_add(count)).contains(&id))
    })
}
