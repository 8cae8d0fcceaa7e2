//! The walls: namespaces, mounts, filters. Tried for real, in a process of its own.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use super::{Check, Level};
use crate::sandbox::native::{Attempt, Part, landlock_abi};

pub(super) fn checks(program: &Path) -> Vec<Check> {
    let attempts = match attempts(program) {
        Ok(attempts) => attempts,
        Err(error) => {
            return vec![Check::lacking(
                Level::Fatal,
                "isolation",
                format!("`{}` cannot be started: {error}", program.display()),
                "nothing can be tried",
                "is the file there and executable?",
            )];
        }
    };
    let mut checks = Vec::new();
    for part in Part::ALL {
        let attempt = attempts.iter().find(|attempt| attempt.part == part);
        match attempt {
            Some(Attempt { error: None, .. }) => checks.push(Check::ok(name(part), "works")),
            Some(Attempt {
                error: Some(error), ..
            }) => {
                checks.push(Check::lacking(
                    Level::Fatal,
                    name(part),
                    error,
                    "sandboxes cannot be isolated, so `evercell serve` refuses to start",
                    hint(part),
                ));
                // What comes after was not tried, for want of this.
                break;
            }
            None => {
                checks.push(Check::lacking(
                    Level::Fatal,
                    name(part),
                    "the attempt ended without a result",
                    "sandboxes cannot be isolated, so `evercell serve` refuses to start",
                    hint(part),
                ));
                break;
            }
        }
    }
    checks.push(match landlock_abi() {
        Some(abi) => Check::ok("landlock", format!("version {abi}")),
        None => Check::lacking(
            Level::Degraded,
            "landlock",
            "not in this kernel, or switched off",
            "one of several walls around files is missing; mounts and ids still hold",
            "Linux 5.13 or newer with `landlock` in the list of the boot option `lsm=`",
        ),
    });
    checks
}

fn attempts(program: &Path) -> std::io::Result<Vec<Attempt>> {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the sandbox room, which may start processes"
    )]
    let output = Command::new(program)
        .arg("sandbox-probe")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()?;
    Ok(output
        .stdout
        .split(|byte| *byte == b'\n')
        .filter_map(|line| serde_json::from_slice(line).ok())
        .collect())
}

fn name(part: Part) -> &'static str {
    match part {
        Part::House => "user namespaces",
        Part::Namespaces => "pid, mount, network and other namespaces",
        Part::Mounts => "mounts in a namespace",
        Part::Proc => "a /proc of its own",
        Part::Capabilities => "giving up capabilities",
        Part::Seccomp => "system call filter",
    }
}

fn hint(part: Part) -> String {
    match part {
        Part::House | Part::Namespaces => namespaces_hint(),
        Part::Mounts => format!("Linux 5.14 or newer (this is {})", release()),
        Part::Proc if in_container() => {
            "this is a container that hides parts of /proc: start it with `--security-opt systempaths=unconfined` (Docker), \
             `--security-opt unmask=ALL` (Podman) or `procMount: Unmasked` (Kubernetes)"
                .into()
        }
        Part::Proc => "nothing may be mounted on top of parts of /proc".into(),
        Part::Capabilities => "is another security module in the way? see the kernel's log (`dmesg`)".into(),
        Part::Seccomp => "a kernel built with CONFIG_SECCOMP_FILTER".into(),
    }
}

fn namespaces_hint() -> String {
    if sysctl("user/max_user_namespaces") == Some(0) {
        return "sysctl -w user.max_user_namespaces=15000".into();
    }
    let root = rustix::process::geteuid().is_root();
    if !root && sysctl("kernel/unprivileged_userns_clone") == Some(0) {
        return "sysctl -w kernel.unprivileged_userns_clone=1, or run as root".into();
    }
    if !root && sysctl("kernel/apparmor_restrict_unprivileged_userns") == Some(1) {
        return "give the program an AppArmor profile with `userns,`, or sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, \
                or run as root"
            .into();
    }
    if in_container() {
        return "this is a container that denies namespaces: start it with `--privileged`, or with `--security-opt seccomp=unconfined \
                --security-opt apparmor=unconfined --security-opt systempaths=unconfined`"
            .into();
    }
    "a kernel built with CONFIG_USER_NS, and room for more namespaces (sysctl user.max_user_namespaces)".into()
}

fn sysctl(name: &str) -> Option<u64> {
    fs::read_to_string(Path::new("/proc/sys").join(name))
        .ok()?
        .trim()
        .parse()
        .ok()
}

fn release() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease")
        .map_or_else(|_| "unknown".into(), |text| text.trim().to_owned())
}

fn in_container() -> bool {
    Path::new("/.dockerenv").exists()
        || Path::new("/run/.containerenv").exists()
        || Path::new("/var/run/secrets/kubernetes.io").exists()
}
