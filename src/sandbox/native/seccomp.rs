//! Turns the reviewed rules of `seccomp.json` into filters.
//!
//! A filter is three programs of `seccompiler` one behind the other: the refused calls (EPERM), those allowed with certain arguments only
//! (EPERM otherwise), those allowed (ENOSYS otherwise). Each but the last ends in a return that is left out, so that what it does not
//! decide falls through to the next.

use std::io;

use seccompiler::TargetArch;
use serde::Deserialize;
use serde_json::{Value, json};

use super::step::{Step, StepError};

const RULES: &str = include_str!("seccomp.json");

/// Whom a filter is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sandbox) enum Audience {
    /// A kernel and everything that users run.
    Kernel,
    /// The zygote.
    House,
    /// The agent.
    Agent,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::sandbox) struct Rules {
    #[serde(rename = "about")]
    _about: String,
    pub(in crate::sandbox) allow: Vec<Group>,
    pub(in crate::sandbox) when: Vec<Conditional>,
    pub(in crate::sandbox) refuse: Vec<Group>,
    house: Vec<Group>,
    agent: Vec<Group>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(
    not(test),
    expect(dead_code, reason = "some fields are for readers and a test")
)]
pub(in crate::sandbox) struct Group {
    group: String,
    why: String,
    pub(in crate::sandbox) calls: Vec<String>,
    #[serde(default)]
    pub(in crate::sandbox) legacy: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(
    not(test),
    expect(dead_code, reason = "some fields are for readers and a test")
)]
pub(in crate::sandbox) struct Conditional {
    group: String,
    why: String,
    pub(in crate::sandbox) calls: Vec<String>,
    /// One of these has to hold.
    pub(in crate::sandbox) any: Vec<Vec<Condition>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::sandbox) struct Condition {
    pub(in crate::sandbox) arg: u8,
    pub(in crate::sandbox) size: String,
    #[serde(default)]
    pub(in crate::sandbox) mask: Option<u64>,
    #[serde(default)]
    pub(in crate::sandbox) equals: Option<u64>,
    #[serde(default)]
    differs: Option<u64>,
    meaning: String,
}

impl Group {
    fn calls(&self, arch: TargetArch) -> impl Iterator<Item = &str> {
        let legacy: &[String] = if arch == TargetArch::x86_64 {
            &self.legacy
        } else {
            &[]
        };
        self.calls.iter().chain(legacy).map(String::as_str)
    }
}

impl Condition {
    fn as_json(&self) -> Value {
        let (op, value) = match (self.mask, self.equals, self.differs) {
            (None, Some(value), None) => (json!("eq"), value),
            (None, None, Some(value)) => (json!("ne"), value),
            (Some(mask), Some(value), None) => (json!({ "masked_eq": mask }), value),
            _ => unreachable!("checked by a test: `equals`, `differs`, or `mask` with `equals`"),
        };
        json!({ "index": self.arg, "type": self.size, "op": op, "val": value, "comment": self.meaning })
    }
}

/// The filter as the bytes of a BPF program, for the architecture this runs on.
pub(in crate::sandbox) fn filter(audience: Audience) -> Result<Vec<u8>, StepError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)
        .map_err(io::Error::other)
        .step("find seccomp rules for this architecture")?;
    compile(&rules(), audience, arch).step("compile the seccomp filter")
}

pub(in crate::sandbox) fn rules() -> Rules {
    serde_json::from_str(RULES).expect("a test reads these rules")
}

fn compile(rules: &Rules, audience: Audience, arch: TargetArch) -> io::Result<Vec<u8>> {
    const EPERM: i32 = libc::EPERM;
    const ENOSYS: i32 = libc::ENOSYS;
    let besides: &[Group] = match audience {
        Audience::Kernel => &[],
        Audience::House => &rules.house,
        Audience::Agent => &rules.agent,
    };
    let besides: Vec<&str> = besides.iter().flat_map(|group| group.calls(arch)).collect();
    let plain = |call: &str| json!({ "syscall": call });

    let refuse: Vec<Value> = rules
        .refuse
        .iter()
        .flat_map(|group| group.calls(arch))
        .filter(|call| !besides.contains(call))
        .map(plain)
        .collect();
    let when: Vec<Value> = rules
        .when
        .iter()
        .flat_map(|rule| rule.calls.iter().map(move |call| (call, &rule.any)))
        .filter(|(call, _)| !besides.contains(&call.as_str()))
        .flat_map(|(call, any)| {
            any.iter().map(move |all| {
                let args: Vec<Value> = all.iter().map(Condition::as_json).collect();
                json!({ "syscall": call, "args": args })
            })
        })
        .collect();
    let allow: Vec<Value> = rules
        .allow
        .iter()
        .flat_map(|group| group.calls(arch))
        .chain(besides.iter().copied())
        .map(plain)
        .collect();

    let mut program = part(refuse, json!({ "errno": EPERM }), json!("allow"), arch)?;
    program.pop();
    program.extend(part(when, json!("allow"), json!({ "errno": EPERM }), arch)?);
    program.pop();
    program.extend(part(
        allow,
        json!("allow"),
        json!({ "errno": ENOSYS }),
        arch,
    )?);

    let mut bytes = Vec::with_capacity(program.len() * 8);
    for instruction in program {
        bytes.extend(instruction.code.to_ne_bytes());
        bytes.push(instruction.jt);
        bytes.push(instruction.jf);
        bytes.extend(instruction.k.to_ne_bytes());
    }
    Ok(bytes)
}

/// One program: what happens to calls that match, and to all others.
fn part(
    filter: Vec<Value>,
    matched: Value,
    otherwise: Value,
    arch: TargetArch,
) -> io::Result<seccompiler::BpfProgram> {
    let text = json!({ "part": {
        "mismatch_action": otherwise, "match_action": matched, "filter": filter,
    }})
    .to_string();
    let mut programs =
        seccompiler::compile_from_json(text.as_bytes(), arch).map_err(io::Error::other)?;
    programs
        .remove("part")
        .ok_or_else(|| io::Error::other("the filter came out empty"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// What happens to each call that a rule names.
    fn verdicts(rules: &Rules) -> BTreeMap<&str, Vec<&'static str>> {
        let mut verdicts: BTreeMap<&str, Vec<&'static str>> = BTreeMap::new();
        for (verdict, groups) in [("allow", &rules.allow), ("refuse", &rules.refuse)] {
            for call in groups
                .iter()
                .flat_map(|group| group.calls(TargetArch::x86_64))
            {
                verdicts.entry(call).or_default().push(verdict);
            }
        }
        for call in rules.when.iter().flat_map(|rule| &rule.calls) {
            verdicts.entry(call).or_default().push("when");
        }
        verdicts
    }

    #[test]
    fn every_call_is_named_once_and_every_group_says_why() {
        let rules = rules();
        for (call, verdicts) in verdicts(&rules) {
            assert_eq!(verdicts.len(), 1, "{call} is named more than once");
        }
        for group in rules
            .allow
            .iter()
            .chain(&rules.refuse)
            .chain(&rules.house)
            .chain(&rules.agent)
        {
            assert!(group.why.len() > 20, "{} has no reason", group.group);
        }
        for rule in &rules.when {
            assert!(rule.why.len() > 20, "{} has no reason", rule.group);
            for condition in rule.any.iter().flatten() {
                condition.as_json();
                assert!(
                    condition
                        .mask
                        .is_none_or(|mask| condition.equals.unwrap() & !mask == 0)
                );
            }
        }
    }

    #[test]
    fn what_breaks_out_is_not_allowed() {
        let rules = rules();
        let verdicts = verdicts(&rules);
        for call in [
            "mount",
            "umount2",
            "pivot_root",
            "chroot",
            "unshare",
            "setns",
            "open_tree",
            "move_mount",
            "fsopen",
            "fsmount",
            "mount_setattr",
            "ptrace",
            "process_vm_readv",
            "process_vm_writev",
            "pidfd_getfd",
            "kcmp",
            "add_key",
            "request_key",
            "keyctl",
            "bpf",
            "perf_event_open",
            "userfaultfd",
            "io_uring_setup",
            "io_uring_enter",
            "io_uring_register",
            "open_by_handle_at",
            "name_to_handle_at",
            "kexec_load",
            "kexec_file_load",
            "init_module",
            "finit_module",
            "delete_module",
            "reboot",
            "swapon",
            "swapoff",
            "acct",
            "quotactl",
            "syslog",
            "settimeofday",
            "clock_settime",
            "sethostname",
            "iopl",
            "ioperm",
            "modify_ldt",
            "fanotify_init",
        ] {
            assert_eq!(verdicts[call], ["refuse"], "{call}");
        }
        assert!(
            !verdicts.contains_key("clone3"),
            "clone3 must look absent, or libc will not fall back to clone"
        );
        for call in [
            "clone",
            "socket",
            "prlimit64",
            "sched_setaffinity",
            "sched_setattr",
            "sched_setparam",
            "sched_setscheduler",
            "setpriority",
            "ioprio_set",
        ] {
            assert_eq!(verdicts[call], ["when"], "{call}");
        }
    }

    #[test]
    fn filters_compile_for_both_architectures_within_the_kernels_bound() {
        for arch in [TargetArch::x86_64, TargetArch::aarch64] {
            for audience in [Audience::Kernel, Audience::House, Audience::Agent] {
                let program = compile(&rules(), audience, arch).unwrap();
                assert!(program.len() / 8 < 4096, "BPF_MAXINSNS");
            }
        }
    }
}
