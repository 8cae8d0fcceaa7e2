//! Control groups, version 2: one hierarchy, whose controllers have to be handed down level by level.

use std::fs;
use std::io;
use std::path::Path;

use rustix::fs::OFlags;

use super::{
    Controller, Gauges, Hierarchy, PERIOD_US, make, make_ours, memory, open, processes, quota,
};
use crate::model::limits::Limits;

/// The group into which the server itself moves, where it has to.
const SERVER: &str = "evercell-server";

/// What we use, as version 2 calls it.
const WANTED: [(&str, Controller); 3] = [
    ("memory", Controller::Memory),
    ("pids", Controller::Pids),
    ("cpu", Controller::Cpu),
];

/// Makes our groups and hands controllers down to them.
pub(super) fn prepare(mut hierarchy: Hierarchy, who: &str) -> io::Result<Hierarchy> {
    // An earlier server of the same delegated group moved into a group of its own, and we were started from there.
    if hierarchy.path.ends_with(SERVER) {
        hierarchy.path.pop();
    }
    let ours = make_ours(&hierarchy.path, who)?;
    hierarchy.controllers = hand_down(&hierarchy.path, &ours)?;
    hierarchy.path = ours;
    Ok(hierarchy)
}

/// Makes controllers available to the groups in `ours`. Returns those that are.
fn hand_down(base: &Path, ours: &Path) -> io::Result<Vec<Controller>> {
    // The file in a group lists what the level above has handed to it.
    let offered = fs::read_to_string(base.join("cgroup.controllers"))?;
    let offered: Vec<&str> = offered.split_whitespace().collect();
    let mut found = Vec::new();
    for (name, controller) in WANTED {
        if offered.contains(&name) && enable(base, ours, name).is_ok() {
            found.push(controller);
        }
    }
    Ok(found)
}

fn enable(base: &Path, ours: &Path, name: &str) -> io::Result<()> {
    const SUBTREE: &str = "cgroup.subtree_control";
    let enabled = fs::read_to_string(base.join(SUBTREE))?;
    if !enabled.split_whitespace().any(|enabled| enabled == name) {
        let hand_down = || fs::write(base.join(SUBTREE), format!("+{name}"));
        match hand_down() {
            // "No internal processes": only groups without members can hand controllers down. So we, the only member if this group was
            // delegated to us, move into one of our own. https://docs.kernel.org/admin-guide/cgroup-v2.html#no-internal-process-constraint
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                let server = base.join(SERVER);
                make(&server)?;
                fs::write(server.join("cgroup.procs"), "0")?;
                hand_down()?;
            }
            other => other?,
        }
    }
    fs::write(ours.join(SUBTREE), format!("+{name}"))
}

/// Sets limits.
pub(super) fn limit(hierarchy: &Hierarchy, limits: &Limits) -> io::Result<()> {
    let set = |file: &str, value: String| fs::write(hierarchy.path.join(file), value);
    for controller in &hierarchy.controllers {
        match controller {
            Controller::Memory => {
                set("memory.max", memory(limits).to_string())?;
                // Absent where the kernel has no swap.
                if hierarchy.path.join("memory.swap.max").exists() {
                    set("memory.swap.max", "0".into())?;
                }
            }
            Controller::Pids => set("pids.max", processes(limits).to_string())?,
            Controller::Cpu => set("cpu.max", format!("{} {PERIOD_US}", quota(limits)))?,
            Controller::Cpuacct => {}
        }
    }
    Ok(())
}

/// Opens what tells of usage.
pub(super) fn gauges(hierarchy: &Hierarchy, gauges: &mut Gauges) {
    let file = |name: &str, flags| open(&hierarchy.path.join(name), flags).ok();
    if hierarchy.controllers.contains(&Controller::Memory) {
        gauges.memory = file("memory.current", OFlags::RDONLY);
        // Writable since Linux 6.12; before, the peak is that of the group's whole life.
        gauges.memory_peak =
            file("memory.peak", OFlags::RDWR).or_else(|| file("memory.peak", OFlags::RDONLY));
        gauges.memory_stat = file("memory.stat", OFlags::RDONLY);
        gauges.oom = file("memory.events", OFlags::RDONLY);
    }
    // Counts without any controller, but only here and not for groups of version 1: whoever has `cpuacct` prefers it.
    if gauges.cpu_acct.is_none() {
        gauges.cpu_stat = file("cpu.stat", OFlags::RDONLY);
    }
}
