//! The rules of `seccomp.json` as a profile that an engine reads.
//!
//! It holds for everything in the container, the agent included. A kernel has besides, as in the native backend, the exact filter: what a profile
//! cannot say is left to that.

use serde_json::{Value, json};

use crate::sandbox::native::{Condition, Group, rules};

/// The lower half of an argument: what Linux looks at where a call takes 32 bits.
const LOWER: u64 = 0xffff_ffff;

/// The profile, as JSON in the form of an engine's `--security-opt seccomp`.
pub(super) fn profile() -> Value {
    let rules = rules();
    let names = |groups: &[Group]| -> Vec<String> {
        let calls = groups
            .iter()
            .flat_map(|group| group.calls.iter().chain(&group.legacy));
        calls.filter(|call| !of_agent(call)).cloned().collect()
    };
    let mut calls = vec![
        json!({ "names": names(&rules.allow), "action": "SCMP_ACT_ALLOW" }),
        json!({ "names": names(&rules.refuse), "action": "SCMP_ACT_ERRNO", "errnoRet": libc::EPERM }),
        json!({ "names": AGENT, "action": "SCMP_ACT_ALLOW" }),
    ];
    for rule in &rules.when {
        let names: Vec<&String> = rule.calls.iter().filter(|call| !of_agent(call)).collect();
        for all in rule.any.iter().filter(|_| !names.is_empty()) {
            let arguments: Option<Vec<Value>> = all.iter().map(argument).collect();
            let arguments = arguments.unwrap_or_default();
            calls.push(json!({ "names": names, "action": "SCMP_ACT_ALLOW", "args": arguments }));
        }
    }
    calls
        .push(json!({ "names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": libc::ENOSYS }));
    json!({
        // As if it were not there, so that a libc falls back to an older call. Engines that do not know this word answer EPERM; so `clone3`,
        // which every program tries, is named.
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": libc::ENOSYS,
        "syscalls": calls,
    })
}

/// What the agent needs without conditions.
const AGENT: [&str; 1] = ["prlimit64"];

fn of_agent(call: &str) -> bool {
    AGENT.contains(&call)
}

/// A condition; none where a profile cannot say it, and the call is left to the kernel's own filter.
fn argument(condition: &Condition) -> Option<Value> {
    let whole = if condition.size == "dword" {
        LOWER
    } else {
        u64::MAX
    };
    let value = condition.equals?;
    let mask = condition.mask.unwrap_or(whole) & whole;
    Some(
        json!({ "index": condition.arg, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ" }),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the profile says of a call.
    fn verdicts<'a>(profile: &'a Value, call: &str) -> Vec<&'a Value> {
        let rules = profile["syscalls"].as_array().unwrap().iter();
        rules
            .filter(|rule| rule["names"].as_array().unwrap().contains(&json!(call)))
            .collect()
    }

    #[test]
    fn an_engine_allows_no_more_than_the_rules_do() {
        let profile = profile();
        for call in [
            "mount",
            "unshare",
            "setns",
            "ptrace",
            "bpf",
            "keyctl",
            "io_uring_setup",
            "userfaultfd",
        ] {
            let said = verdicts(&profile, call);
            assert!(
                said.iter().all(|rule| rule["action"] == "SCMP_ACT_ERRNO"),
                "{call}"
            );
        }
        for call in ["clone", "socket", "personality"] {
            let said = verdicts(&profile, call);
            assert!(
                !said.is_empty()
                    && said
                        .iter()
                        .all(|rule| !rule["args"].as_array().unwrap().is_empty()),
                "{call}"
            );
        }
        assert_eq!(profile["defaultAction"], "SCMP_ACT_ERRNO");
        assert_eq!(verdicts(&profile, "clone3")[0]["errnoRet"], libc::ENOSYS);
    }

    #[test]
    fn no_call_is_named_twice_without_conditions() {
        let profile = profile();
        let mut seen = std::collections::BTreeSet::new();
        for rule in profile["syscalls"].as_array().unwrap() {
            if rule
                .get("args")
                .is_some_and(|args| !args.as_array().unwrap().is_empty())
            {
                continue;
            }
            for name in rule["names"].as_array().unwrap() {
                assert!(seen.insert(name.as_str().unwrap().to_owned()), "{name}");
            }
        }
    }
}
