//! What the host gives us to use: control groups, descriptors, memory, disk, and some newer calls of Linux.

use std::fs;
use std::io;
use std::path::Path;

use rustix::fs::{CWD, MemfdFlags, Mode, OFlags, ResolveFlags};
use rustix::process::{Resource, getrlimit};

use super::{Check, Level};
use crate::model::limits::MIB;
use crate::sandbox::native::{Config, Controller, Host};

const GIB: u64 = 1024 * MIB;

pub(super) fn checks(config: &Config) -> Vec<Check> {
    let mut checks = groups();
    checks.extend([calls(), devices()]);
    checks.extend(checks_of_server(&config.data_dir));
    checks
}

/// What the server needs, wherever sandboxes are.
pub(super) fn checks_of_server(data_dir: &Path) -> [Check; 3] {
    [descriptors(), memory(), disk(data_dir)]
}

fn groups() -> Vec<Check> {
    let host = Host::prepare(&format!("check-{}", std::process::id()));
    host.tidy();
    let hint = groups_hint(&host);
    let check = |name, controller, follows: &str| {
        if host.has(controller) {
            Check::ok(name, "bounded by a control group")
        } else {
            let found = match host.why_not(controller) {
                Some(why) => format!("no control group can be made ({why})"),
                None => "no control group has it".to_owned(),
            };
            Check::lacking(Level::Degraded, name, found, follows, hint.clone())
        }
    };
    vec![
        check(
            "memory limit",
            Controller::Memory,
            "memory is bounded for each process (RLIMIT_DATA), and the agent kills what exceeds the limit in sum: less exact",
        ),
        check(
            "process limit",
            Controller::Pids,
            "processes are bounded for each user namespace (RLIMIT_NPROC) instead: as good on Linux 5.14 or newer",
        ),
        check(
            "processor limit",
            Controller::Cpu,
            "a busy session can take all processors from the others",
        ),
    ]
}

fn groups_hint(host: &Host) -> String {
    let version_2 = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let root = rustix::process::geteuid().is_root();
    match (version_2, root) {
        (true, false) => "start it with `systemd-run --user --scope -p Delegate=yes evercell serve`, or in a service with `Delegate=yes`".into(),
        (true, true) => "start it in a service or scope with `Delegate=yes`; in a container, with a writable /sys/fs/cgroup and `--cgroupns=private`".into(),
        (false, false) => "run as root, or on a host with control groups of version 2".into(),
        (false, true) if host.usable.is_empty() => "mount the control groups writable; in a container, with `-v /sys/fs/cgroup:/sys/fs/cgroup:rw`".into(),
        (false, true) => "mount the controller that is missing (see /proc/cgroups)".into(),
    }
}

fn calls() -> Check {
    const NAME: &str = "files and memory calls";
    let openat2 = rustix::fs::openat2(
        CWD,
        ".",
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::BENEATH,
    );
    let memfd = rustix::fs::memfd_create("evercell", MemfdFlags::CLOEXEC);
    let missing = |name: &str, error: rustix::io::Errno| {
        Check::lacking(
            Level::Fatal,
            NAME,
            format!("`{name}` does not work: {}", io::Error::from(error)),
            "workspace files and output cannot be handled safely",
            "Linux 5.14 or newer, and no filter around us that denies the call",
        )
    };
    match (openat2, memfd) {
        (Err(error), _) => missing("openat2", error),
        (_, Err(error)) => missing("memfd_create", error),
        _ => Check::ok(NAME, "openat2 and memfd_create work"),
    }
}

fn devices() -> Check {
    const NAME: &str = "devices";
    let missing: Vec<&str> = ["null", "zero", "full", "random", "urandom"]
        .into_iter()
        .filter(|name| fs::File::open(Path::new("/dev").join(name)).is_err())
        .collect();
    if missing.is_empty() {
        return Check::ok(NAME, "null, zero, full, random, urandom");
    }
    Check::lacking(
        Level::Fatal,
        NAME,
        format!("missing in /dev: {}", missing.join(", ")),
        "sandboxes cannot be made",
        "mount a usual /dev",
    )
}

fn descriptors() -> Check {
    const NAME: &str = "open files";
    /// What a hundred sessions with some clients each take.
    const GOOD: u64 = 4096;
    match getrlimit(Resource::Nofile).maximum {
        Some(most) if most < GOOD => Check::lacking(
            Level::Degraded,
            NAME,
            format!("at most {most}"),
            "room for few sessions and clients",
            "ulimit -n 20000, or `LimitNOFILE=` in the service",
        ),
        Some(most) => Check::ok(NAME, format!("at most {most}")),
        None => Check::ok(NAME, "no limit"),
    }
}

fn memory() -> Check {
    const NAME: &str = "memory";
    let info = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available = info
        .lines()
        .find_map(|line| {
            line.strip_prefix("MemAvailable:")?
                .trim()
                .strip_suffix(" kB")?
                .parse::<u64>()
                .ok()
        })
        .map_or(0, |kib| kib * 1024);
    let found = format!("{:.1} GiB available", in_gib(available));
    if available >= GIB {
        return Check::ok(NAME, found);
    }
    Check::lacking(
        Level::Degraded,
        NAME,
        found,
        "the libraries take 300 MB once, a session from 8 MB up to its limit",
        "a machine with at least 2 GB",
    )
}

fn disk(data_dir: &Path) -> Check {
    const NAME: &str = "data directory";
    // It may not have been made yet; then its file system is that of the directory it will be in.
    let existing = data_dir
        .ancestors()
        .find(|path| path.exists())
        .unwrap_or(Path::new("/"));
    if rustix::fs::access(existing, rustix::fs::Access::WRITE_OK).is_err() {
        return Check::lacking(
            Level::Fatal,
            NAME,
            format!("`{}` is not writable", existing.display()),
            "sessions cannot be kept",
            "name another with `--data-dir`",
        );
    }
    match rustix::fs::statvfs(existing) {
        Ok(stat) => {
            let free = stat.f_bavail.saturating_mul(stat.f_frsize);
            let found = format!("`{}`, {:.1} GiB free", data_dir.display(), in_gib(free));
            if free >= GIB {
                Check::ok(NAME, found)
            } else {
                Check::lacking(
                    Level::Degraded,
                    NAME,
                    found,
                    "logs and workspaces may find no room",
                    "name another with `--data-dir`",
                )
            }
        }
        Err(error) => Check::lacking(
            Level::Degraded,
            NAME,
            format!("`{}`: {}", existing.display(), io::Error::from(error)),
            "its free space is not known",
            "name another with `--data-dir`",
        ),
    }
}

#[expect(clippy::cast_precision_loss, reason = "for people, to one decimal")]
fn in_gib(bytes: u64) -> f64 {
    bytes as f64 / GIB as f64
}
