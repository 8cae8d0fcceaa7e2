//! What is to be seen on the host: sandboxes, their processes, and what is left of them.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal};

use crate::harness::backend::agent_of;

/// The agent whose workspace holds this file, by its pid.
pub fn agent(data_dir: &Path, marker: &str) -> Option<i32> {
    sandboxes(data_dir).into_iter().find_map(|sandbox| {
        let pid = agent_of(&data_dir.join("run").join(sandbox))?
            .as_raw_nonzero()
            .get();
        let found = format!("/proc/{pid}/root/workspace/{marker}");
        fs::exists(found).ok()?.then_some(pid)
    })
}

/// The child of an agent that has this pid in its sandbox.
pub fn kernel(agent: i32, inside: i64) -> Option<i32> {
    let children = fs::read_to_string(format!("/proc/{agent}/task/{agent}/children")).ok()?;
    children.split_whitespace().find_map(|child| {
        let status = fs::read_to_string(format!("/proc/{child}/status")).ok()?;
        let pids = status
            .lines()
            .find_map(|line| line.strip_prefix("NSpid:"))?;
        let innermost = pids.split_whitespace().next_back()?;
        (innermost.parse() == Ok(inside)).then(|| child.parse().ok())?
    })
}

/// Ends a process at once.
pub fn kill(pid: i32) {
    // It may have ended by itself.
    let _ = rustix::process::kill_process(Pid::from_raw(pid).expect("a pid"), Signal::KILL);
}

/// The sandboxes that are written down.
pub fn sandboxes(data_dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(data_dir.join("run")).into_iter().flatten();
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter(|name| name.len() == 36).collect()
}

/// Everything that still tells of these sandboxes: records, processes, cgroups.
pub fn leftovers(data_dir: &Path, sandboxes: &[String]) -> Vec<String> {
    let mut left = self::sandboxes(data_dir);
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        if command.contains(&*data_dir.to_string_lossy()) {
            left.push(format!("{}: {command}", entry.path().display()));
        }
    }
    for group in groups(Path::new("/sys/fs/cgroup"), 4) {
        let name = group.file_name().unwrap_or_default().to_string_lossy();
        if sandboxes.iter().any(|sandbox| *sandbox == name) {
            left.push(group.display().to_string());
        }
    }
    left
}

/// Directories below a directory, so many levels deep.
fn groups(root: &Path, depth: usize) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        if depth > 0 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(groups(&entry.path(), depth - 1));
            found.push(entry.path());
        }
    }
    found
}
