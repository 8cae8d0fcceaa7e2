//! Control groups, version 1: a hierarchy for each controller.

use std::fs;
use std::io;

use rustix::fs::OFlags;

use super::{Controller, Gauges, Hierarchy, PERIOD_US, make_ours, memory, open, processes, quota};
use crate::model::limits::Limits;

/// What a mount option says is controlled.
pub(super) fn controller(option: &str) -> Option<Controller> {
    Some(match option {
        "memory" => Controller::Memory,
        "pids" => Controller::Pids,
        "cpu" => Controller::Cpu,
        "cpuacct" => Controller::Cpuacct,
        _ => return None,
    })
}

/// Tries whether we may make groups here.
pub(super) fn prepare(hierarchy: Hierarchy, who: &str) -> io::Result<Hierarchy> {
    Ok(Hierarchy {
        path: make_ours(&hierarchy.path, who)?,
        ..hierarchy
    })
}

/// Sets limits.
pub(super) fn limit(hierarchy: &Hierarchy, limits: &Limits) -> io::Result<()> {
    let set = |file: &str, value: u64| fs::write(hierarchy.path.join(file), value.to_string());
    for controller in &hierarchy.controllers {
        match controller {
            Controller::Memory => {
                // With swap may never be less than without: when limits rise, this one has to rise first; when they fall, last. So it is
                // tried before and after, and only the second time counts.
                const WITH_SWAP: &str = "memory.memsw.limit_in_bytes";
                let counts_swap = hierarchy.path.join(WITH_SWAP).exists();
                if counts_swap {
                    let _ = set(WITH_SWAP, memory(limits));
                }
                set("memory.limit_in_bytes", memory(limits))?;
                if counts_swap {
                    set(WITH_SWAP, memory(limits))?;
                }
            }
            Controller::Pids => set("pids.max", processes(limits))?,
            Controller::Cpu => {
                set("cpu.cfs_period_us", PERIOD_US)?;
                set("cpu.cfs_quota_us", quota(limits))?;
            }
            Controller::Cpuacct => {}
        }
    }
    Ok(())
}

/// Opens what tells of usage.
pub(super) fn gauges(hierarchy: &Hierarchy, gauges: &mut Gauges) {
    let file = |name: &str, flags| open(&hierarchy.path.join(name), flags).ok();
    for controller in &hierarchy.controllers {
        match controller {
            Controller::Memory => {
                gauges.memory = file("memory.usage_in_bytes", OFlags::RDONLY);
                gauges.memory_peak = file("memory.max_usage_in_bytes", OFlags::RDWR);
                gauges.memory_stat = file("memory.stat", OFlags::RDONLY);
                gauges.oom = file("memory.oom_control", OFlags::RDONLY);
            }
            Controller::Cpuacct => gauges.cpu_acct = file("cpuacct.usage", OFlags::RDONLY),
            Controller::Pids | Controller::Cpu => {}
        }
    }
}
