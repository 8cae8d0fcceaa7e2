//! System calls that have no safe wrapper elsewhere, each as one small function.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::mount::MountAttrFlags;

/// Which side of a fork this is.
pub(super) enum Fork {
    /// The new process.
    Child,
    /// The old process, with the pid of the new one as the old one sees it.
    Parent(i32),
}

/// Forks into new namespaces (`CLONE_NEW…` flags; 0 for none).
///
/// Must be called from a single-threaded process: the child goes on in this code, with all its locks.
pub(super) fn fork_into(flags: i32) -> io::Result<Fork> {
    if threads()? != 1 {
        return Err(io::Error::other("cannot fork: this process has threads"));
    }
    // SAFETY: without CLONE_VM and with a null stack, clone(2) is fork(2): the child continues on a copy of this stack. The
    // process has one thread (checked above), so no lock is held by anybody else in the copy. All pointer arguments are null.
    let pid = unsafe {
        libc::syscall(
            libc::SYS_clone,
            i64::from(flags | libc::SIGCHLD),
            0,
            0,
            0,
            0,
        )
    };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Fork::Child),
        pid => Ok(Fork::Parent(
            i32::try_from(pid).expect("a pid fits into 32 bits"),
        )),
    }
}

/// How many threads this process has. Unknown (no /proc) counts as one.
fn threads() -> io::Result<usize> {
    match std::fs::read_dir("/proc/self/task") {
        Ok(tasks) => Ok(tasks.count()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(1),
        Err(error) => Err(error),
    }
}

/// Adds attributes to a mount, and with `recursive` to all mounts below it. They can only be added: nothing is cleared.
pub(super) fn restrict_mount(
    mount: BorrowedFd<'_>,
    attributes: MountAttrFlags,
    recursive: bool,
) -> io::Result<()> {
    let attr = libc::mount_attr {
        attr_set: u64::from(attributes.bits()),
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a static C string, `attr` outlives the call and its size is passed with it.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// The user namespace that is the parent of this one.
pub(super) fn parent_user_namespace(namespace: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    /// `NS_GET_PARENT` of ioctl_ns(2): `_IO(0xb7, 0x2)`.
    const NS_GET_PARENT: libc::Ioctl = 0xb702;
    // SAFETY: this request takes no argument and returns a new descriptor.
    let fd = unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_PARENT) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made by the call above and belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Brings up the loopback interface of the current network namespace.
pub(super) fn loopback_up() -> io::Result<()> {
    let socket = rustix::net::socket_with(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )?;
    // SAFETY: `ifreq` is plain data for which all zeros is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    copy_name(&mut request.ifr_name, c"lo");
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(libc::IFF_UP).expect("IFF_UP is 1");
    // SAFETY: the request reads an `ifreq` and `request` is one that outlives the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn copy_name(to: &mut [libc::c_char], name: &CStr) {
    for (to, from) in to.iter_mut().zip(name.to_bytes_with_nul()) {
        *to = libc::c_char::from_ne_bytes([*from]);
    }
}

/// Takes every capability out of the bounding set.
pub(super) fn empty_bounding_set() -> io::Result<()> {
    for capability in 0..=63_u64 {
        // SAFETY: this operation takes numbers only.
        let result = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
        if result != 0 {
            let error = io::Error::last_os_error();
            // The first number this kernel does not know.
            if error.raw_os_error() == Some(libc::EINVAL) && capability > 0 {
                return Ok(());
            }
            return Err(error);
        }
    }
    Ok(())
}

/// Says whether others of the same user may look into this process, as far as their capabilities allow it.
pub(in crate::sandbox) fn set_dumpable(dumpable: bool) -> io::Result<()> {
    // SAFETY: this operation takes numbers only.
    let result = unsafe { libc::prctl(libc::PR_SET_DUMPABLE, u64::from(dumpable), 0, 0, 0) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// What happens to descriptors that nobody meant to hand to this process.
#[derive(Clone, Copy, Debug)]
pub(super) enum Inherited {
    /// They are closed now.
    Close,
    /// They are closed by `execve`.
    CloseLater,
}

/// Gets rid of all descriptors but 0, 1 and 2: whoever started the server may have left some open, on files of the host.
pub(super) fn forget_inherited(how: Inherited) -> io::Result<()> {
    let flags = match how {
        Inherited::Close => 0,
        Inherited::CloseLater => libc::CLOSE_RANGE_CLOEXEC,
    };
    // SAFETY: the call takes numbers only. It is made at the very start, when this process has not opened anything by itself yet.
    let result = unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, flags) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Makes a descriptor stay open over `execve`.
pub(super) fn keep_over_exec(fd: impl AsFd) -> io::Result<()> {
    Ok(rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty())?)
}

/// The Landlock ABI of this kernel; `None` where it has none or has it switched off.
pub(in crate::sandbox) fn landlock_abi() -> Option<u32> {
    /// `LANDLOCK_CREATE_RULESET_VERSION`.
    const VERSION: u32 = 1;
    // SAFETY: with this flag the call takes a null pointer and size 0, and makes nothing.
    let abi = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<libc::c_void>(),
            0_usize,
            VERSION,
        )
    };
    u32::try_from(abi).ok().filter(|abi| *abi > 0)
}

/// Installs a seccomp filter for this thread and what it starts.
pub(super) fn install_filter(filter: &[u8]) -> io::Result<()> {
    const INSTRUCTION: usize = size_of::<libc::sock_filter>();
    let mut program: Vec<libc::sock_filter> = filter
        .chunks_exact(INSTRUCTION)
        .map(|bytes| libc::sock_filter {
            code: u16::from_ne_bytes([bytes[0], bytes[1]]),
            jt: bytes[2],
            jf: bytes[3],
            k: u32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
        })
        .collect();
    let header = libc::sock_fprog {
        len: u16::try_from(program.len())
            .map_err(|_| io::Error::other("the filter is too long"))?,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: `header` points to `program`, which holds `len` instructions and outlives the call; the kernel checks them.
    let result = unsafe {
        libc::prctl(
            libc::PR_SET_SECCOMP,
            libc::SECCOMP_MODE_FILTER,
            &raw const header,
            0,
            0,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
