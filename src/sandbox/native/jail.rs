//! What a kernel gives up before it runs anything, as the `JAIL` of `kernel-image/PROTOCOL.md`.

use serde_json::{Map, Value, json};

use super::cgroup::CHECKPOINT_PROCESSES;
use super::rootfs::{HOME, PYTHON_ENV, WORKSPACE};
use super::sys;
use crate::model::limits::{Limits, MIB};

/// The one user of a sandbox.
pub(super) const USER: u32 = 1000;

/// What bounds the memory of a kernel.
#[derive(Clone, Copy, Debug)]
pub(in crate::sandbox) enum Memory {
    /// A cgroup.
    Group,
    /// Each process for itself: what it may write to, beside so many bytes that it has from the zygote.
    Process {
        /// Those bytes.
        beside: u64,
    },
}

/// The jail of a sandbox's kernels. `filter` is base64.
pub(in crate::sandbox) fn jail(limits: &Limits, memory: Memory, filter: &str) -> Value {
    json!({
        "uid": USER,
        "gid": USER,
        "cwd": WORKSPACE,
        "home": HOME,
        "hostname": null,
        "env": environment(limits),
        "rlimits": rlimits(limits, memory),
        // The kernel and what it starts go first when memory is short: before the agent, and before anything of the host.
        "oom_score_adj": 500,
        "landlock": landlock(),
        "seccomp": filter,
    })
}

fn environment(limits: &Limits) -> Value {
    let processors = limits.cpu_millis.div_ceil(1000).max(1).to_string();
    json!({
        "PATH": format!("{PYTHON_ENV}/bin:/usr/local/bin:/usr/bin:/bin"),
        "HOME": HOME,
        "USER": "user",
        "LOGNAME": "user",
        "SHELL": "/bin/bash",
        "LANG": "C.UTF-8",
        "TERM": "xterm-256color",
        "VIRTUAL_ENV": PYTHON_ENV,
        // Libraries that ask /proc or /sys how many processors there are find nothing there, and say so at length.
        "LOKY_MAX_CPU_COUNT": processors,
        "OMP_NUM_THREADS": processors,
        "OPENBLAS_NUM_THREADS": processors,
    })
}

fn rlimits(limits: &Limits, memory: Memory) -> Value {
    let mut rlimits = Map::new();
    let mut set = |name: &str, soft: u64, hard: u64| {
        rlimits.insert(name.into(), json!([soft, hard]));
    };
    set("NOFILE", 4096, 16384);
    set("CORE", 0, 0);
    // Counted in the sandbox's own user namespace (Linux 5.14), the agent included.
    let processes = u64::from(limits.processes) + 1 + u64::from(CHECKPOINT_PROCESSES);
    set("NPROC", processes, processes);
    set("FSIZE", limits.workspace_bytes, limits.workspace_bytes);
    set("MEMLOCK", 8 * MIB, 8 * MIB);
    set("MSGQUEUE", MIB, MIB);
    set("SIGPENDING", 4096, 4096);
    if let Memory::Process { beside } = memory {
        // Most programs get an error from this, and no signal; the agent watches the sum.
        let data = limits.memory_bytes + beside;
        set("DATA", data, data);
    }
    Value::Object(rlimits)
}

/// Rights of landlock(7), by their numbers in linux/landlock.h.
mod right {
    pub(super) const EXECUTE: u64 = 1;
    pub(super) const WRITE_FILE: u64 = 1 << 1;
    pub(super) const READ_FILE: u64 = 1 << 2;
    pub(super) const READ_DIR: u64 = 1 << 3;
    pub(super) const ALL_OF_ABI_1: u64 = (1 << 13) - 1;
    pub(super) const REFER: u64 = 1 << 13;
    pub(super) const TRUNCATE: u64 = 1 << 14;
    pub(super) const IOCTL_DEV: u64 = 1 << 15;
}

/// The walls once more, in another part of Linux: reading everywhere, writing only where data belongs.
fn landlock() -> Value {
    let Some(abi) = sys::landlock_abi() else {
        return Value::Null;
    };
    // What the newest ABI that we know can do; the kernel leaves out what an older one does not know.
    let abi = abi.min(7);
    let read = right::EXECUTE | right::READ_FILE | right::READ_DIR;
    let all = right::ALL_OF_ABI_1 | right::REFER | right::TRUNCATE;
    let device = right::READ_FILE | right::WRITE_FILE | right::IOCTL_DEV;
    let rule = |path: &str, access: u64| json!({ "path": path, "access": access });
    json!({
        "abi": abi,
        "rules": [
            rule("/", read),
            rule(WORKSPACE, all),
            rule("/tmp", all),
            rule("/dev/shm", all),
            rule("/dev/null", device | right::TRUNCATE),
            rule("/dev/zero", device),
            rule("/dev/full", device),
            rule("/dev/random", device),
            rule("/dev/urandom", device),
            rule("/dev/pts", device),
            // oom_score_adj, comm, clear_refs and the like of one's own processes.
            rule("/proc", read | right::WRITE_FILE),
        ],
    })
}
