//! Limits that the agent enforces by itself: disk of the workspace, memory, and, where no cgroup does it, processes.
//!
//! A cgroup bounds memory too, but leaves room for what only twins hold, which must not count: else a cell would fail beside a twin that fits without
//! one. What the kernel holds is bounded here.
//!
//! It looks often while a cell runs, once when it has ended, and then rarely, as long as there is a kernel: what a cell has left running in the
//! background may write too. Looking at the workspace takes a share of the processor that is bounded, however much lies in it.

mod scan;
mod tripwire;

use std::sync::Arc;

use rustix::process::{Pid, Resource, Rlimit};
use tokio::time::{Duration, Instant};

pub(crate) use self::scan::Scan;
use self::tripwire::Tripwire;
use super::requests::Executing;
use super::usage::{self, Meter};
use super::workspace::Workspace;
use crate::model::checkpoint;
use crate::protocol::agent::{
    AgentConfig, CpuReport, DiskReport, MemoryReport, WORKSPACE_ENTRIES, WatchedLimit,
};

/// How often it looks while a cell runs.
const OFTEN: Duration = Duration::from_millis(250);

/// The same where memory is not bounded by a cgroup: it can grow fast.
const MORE_OFTEN: Duration = Duration::from_millis(100);

/// The same when memory is nearly used up.
const CLOSELY: Duration = Duration::from_millis(25);

/// For how long memory has to be over its limit beside several twins. One that was just forked is not known until it has announced itself, and as long as the
/// kernel shares its memory with a stranger, what the others hold looks like the kernel's. The kernel waits no longer for an announcement.
const UNBORN: Duration = Duration::from_millis(500);

/// How often it looks while no cell runs.
const RARELY: Duration = Duration::from_secs(10);

/// After a scan the next one waits this many times as long as it took.
const PAUSE: u32 = 20;

/// More processor time than this between two rare looks means that something runs.
const ACTIVE_US: u64 = 20_000;

/// Watches the limits.
#[derive(Debug)]
pub(crate) struct Watch {
    workspace: Arc<Workspace>,
    next: Option<Instant>,
    scan: Option<Scan>,
    scan_wanted: bool,
    scan_after: Instant,
    last_cpu_us: u64,
    tripwire: Tripwire,
    /// Since when memory is over its limit.
    over_since: Option<Instant>,
    /// The execution whose processor time was last said to be used up.
    spent: Option<u64>,
    /// Whether the workspace is over its quota, and files were stopped from growing for it.
    full: bool,
    /// Whether it was ever found out what the workspace holds.
    has_looked: bool,
    /// What the workspace held, in bytes and entries, at the first look, or when a kernel was last killed for it. The next kernel is not killed for what it finds, or
    /// nobody could delete anything; it is for making more of it.
    tolerated: (u64, u64),
    /// The limit of file sizes from before that.
    file_size: Option<Option<u64>>,
}

/// What the server, or the kernel, is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Finding {
    /// The workspace has come over its quota.
    DiskFull(DiskReport),
    /// Memory comes near its limit while a cell runs.
    MemoryHigh(MemoryReport),
    /// The execution has used as much processor time as it may.
    CpuSpent(CpuReport),
    /// The kernel is to be killed.
    Exceeded(WatchedLimit),
}

impl Watch {
    /// Watches that workspace.
    pub(crate) fn new(workspace: Arc<Workspace>) -> Self {
        let now = Instant::now();
        Self {
            workspace,
            next: Some(now),
            scan: None,
            scan_wanted: true,
            scan_after: now,
            last_cpu_us: 0,
            tripwire: Tripwire::default(),
            over_since: None,
            spent: None,
            full: false,
            has_looked: false,
            tolerated: (0, 0),
            file_size: None,
        }
    }

    /// When it wants to look next.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.next
    }

    /// Whether it has begun to look at the workspace.
    pub(crate) fn is_scanning(&self) -> bool {
        self.scan.is_some()
    }

    /// Looks soon: a cell has ended, or files have come.
    pub(crate) fn soon(&mut self) {
        self.scan_wanted = true;
        let at = Instant::now().max(self.scan_after);
        self.next = Some(self.next.map_or(at, |next| next.min(at)));
    }

    /// Looks more often from now on: a cell runs.
    pub(crate) fn cell_began(&mut self) {
        let at = Instant::now() + MORE_OFTEN;
        self.next = Some(self.next.map_or(at, |next| next.min(at)));
    }

    /// A kernel begins. One that was asleep may have been made while files were kept from growing.
    pub(crate) fn kernel_began(&mut self, kernel: Pid) {
        set_file_size(usage::number(kernel) as u32, |now| now.maximum);
        self.soon();
    }

    /// The limits of a kernel end with it.
    pub(crate) fn kernel_ended(&mut self) {
        self.file_size = None;
        self.full = false;
        self.over_since = None;
        self.soon();
    }

    /// Looks, if it is time. What only `twins` use does not count.
    pub(crate) fn look(
        &mut self,
        kernel: Option<Pid>,
        executing: Option<Executing>,
        meter: &mut Meter,
        config: &AgentConfig,
        twins: &[Pid],
    ) -> Option<Finding> {
        let now = Instant::now();
        if self.next.is_none_or(|next| next > now) {
            return None;
        }
        let is_executing = executing.is_some();
        let cpu_us = meter.cpu_us(kernel);
        let is_active = is_executing || cpu_us.saturating_sub(self.last_cpu_us) > ACTIVE_US;
        self.last_cpu_us = cpu_us;
        self.scan_wanted |= is_active;
        if self.scan_wanted && self.scan.is_none() && self.scan_after <= now {
            self.scan_wanted = false;
            self.scan = Scan::new(self.workspace.root()).ok();
        }
        self.next = match (kernel, is_executing, meter.has_memory_gauge()) {
            (None, ..) => None,
            (_, false, _) => Some(now + RARELY),
            (_, true, true) => Some(now + OFTEN),
            (_, true, false) => Some(now + MORE_OFTEN),
        };
        if self.scan_wanted {
            let at = self.scan_after.max(now + Duration::from_millis(1));
            self.next = Some(self.next.map_or(at, |next| next.min(at)));
        }
        kernel?;
        let (limit, tasks) = (config.memory_bytes, config.processes);
        let execution = executing.map(|execution| execution.id);
        let exact_above = self.tripwire.exact_above(execution, limit, now);
        let census = meter.census(kernel, exact_above.unwrap_or(limit), twins);
        if census.memory_bytes > limit {
            let since = *self.over_since.get_or_insert(now);
            let bound = limit.saturating_add(checkpoint::room(limit));
            if twins.len() < 2 || now - since >= UNBORN || census.memory_bytes > bound {
                return Some(Finding::Exceeded(WatchedLimit::Memory));
            }
            self.next = Some(now + CLOSELY);
            return None;
        }
        self.over_since = None;
        if is_executing && census.memory_bytes > limit - limit / 5 {
            self.next = Some(now + CLOSELY);
        }
        if let (Some(executing), Some(limit_ms)) = (executing, config.cell_cpu_ms)
            && let Some(report) = self.processor_time(executing, cpu_us, limit_ms)
        {
            return Some(Finding::CpuSpent(report));
        }
        if self.tripwire.has_tripped(execution, &census, limit, now) {
            return execution.map(|id| {
                Finding::MemoryHigh(MemoryReport {
                    id,
                    used_bytes: census.memory_bytes,
                    limit_bytes: limit,
                })
            });
        }
        // With a gauge there is a cgroup, which counts them better.
        (!meter.has_memory_gauge() && census.tasks > tasks)
            .then_some(Finding::Exceeded(WatchedLimit::Processes))
    }

    /// Whether an execution has now used up its processor time. If not, looks again before it can have.
    fn processor_time(
        &mut self,
        executing: Executing,
        cpu_us: u64,
        limit_ms: u64,
    ) -> Option<CpuReport> {
        if self.spent == Some(executing.id) {
            return None;
        }
        let used_ms = cpu_us.saturating_sub(executing.cpu_us) / 1000;
        if let Some(left @ 1..) = limit_ms.checked_sub(used_ms) {
            // Several processors use it up faster than the clock on the wall goes.
            let soon = Instant::now() + Duration::from_millis(left / 4).clamp(CLOSELY, OFTEN);
            self.next = self.next.map(|next| next.min(soon));
            return None;
        }
        self.spent = Some(executing.id);
        Some(CpuReport {
            id: executing.id,
            used_ms,
        })
    }

    /// Goes on looking at the workspace. Returns whether that has come to its end.
    pub(crate) fn go_on(&mut self) -> bool {
        let Some(scan) = &mut self.scan else {
            return false;
        };
        if !scan.step(&self.workspace) {
            return false;
        }
        self.scan_after = Instant::now() + scan.took() * PAUSE;
        self.workspace.set_used(scan.bytes());
        true
    }

    /// Draws the conclusions from a scan that has come to its end.
    pub(crate) fn conclude(
        &mut self,
        kernel: Option<Pid>,
        config: &AgentConfig,
        twins: &[Pid],
    ) -> Option<Finding> {
        let scan = self.scan.take()?;
        let used_bytes = scan.bytes();
        let limit_bytes = config.workspace_bytes;
        let holds = (used_bytes, scan.entries());
        if !self.has_looked {
            // What was there before is not this sandbox's doing: its kernels could never start.
            self.has_looked = true;
            self.tolerated = holds;
        }
        let far_over = used_bytes > limit_bytes.saturating_add(limit_bytes / 10)
            || scan.entries() > WORKSPACE_ENTRIES
            || scan.has_blind_spots();
        if used_bytes <= limit_bytes && !far_over {
            self.tolerated = (0, 0);
            if self.full {
                self.full = false;
                self.let_files_grow(kernel);
            }
            return None;
        }
        kernel?;
        if far_over && self.full {
            if holds.0 <= self.tolerated.0 && holds.1 <= self.tolerated.1 {
                return None;
            }
            self.tolerated = holds;
            return Some(Finding::Exceeded(WatchedLimit::Disk));
        }
        if far_over {
            // Reported first, killed for in the next look.
            self.soon();
        }
        // Each time: there may be new processes.
        self.stop_files(kernel, twins);
        if self.full {
            return None;
        }
        self.full = true;
        Some(Finding::DiskFull(DiskReport {
            used_bytes,
            limit_bytes,
            entries: holds.1,
        }))
    }

    /// Lets writes fail with `EFBIG`, so that a program hears of it before it is killed.
    fn stop_files(&mut self, kernel: Option<Pid>, twins: &[Pid]) {
        let is_awake = |pid: &u32| twins.iter().all(|twin| usage::number(*twin) as u32 != *pid);
        for pid in usage::processes(kernel).filter(is_awake) {
            if let Some(before) = set_file_size(pid, |_| Some(0)) {
                let is_kernel = kernel.is_some_and(|kernel| usage::number(kernel) as u32 == pid);
                if is_kernel && self.file_size.is_none() {
                    self.file_size = Some(before.current);
                }
            }
        }
    }

    fn let_files_grow(&mut self, kernel: Option<Pid>) {
        let before = self.file_size.take();
        for pid in usage::processes(kernel) {
            set_file_size(pid, |now| before.unwrap_or(now.maximum));
        }
    }
}

/// Sets the soft limit. Returns what it was, if that worked.
fn set_file_size(pid: u32, to: impl FnOnce(&Rlimit) -> Option<u64>) -> Option<Rlimit> {
    let pid = Pid::from_raw(i32::try_from(pid).ok()?)?;
    let before = limits_of(pid)?;
    let wanted = Rlimit {
        current: to(&before),
        maximum: before.maximum,
    };
    rustix::process::prlimit(Some(pid), Resource::Fsize, wanted).ok()
}

/// The limits of file sizes that a process has.
fn limits_of(pid: Pid) -> Option<Rlimit> {
    let mut limits = libc::rlimit64 {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: nothing is set, and the pointer to what is read is valid.
    let result = unsafe {
        libc::prlimit64(
            usage::number(pid),
            libc::RLIMIT_FSIZE,
            std::ptr::null(),
            &raw mut limits,
        )
    };
    let limit = |value: u64| (value != libc::RLIM64_INFINITY).then_some(value);
    (result == 0).then(|| Rlimit {
        current: limit(limits.rlim_cur),
        maximum: limit(limits.rlim_max),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Looks at the whole workspace, and draws the conclusions.
    fn look(watch: &mut Watch, kernel: Pid, config: &AgentConfig) -> Option<Finding> {
        watch.scan = Some(Scan::new(watch.workspace.root()).unwrap());
        while !watch.go_on() {}
        watch.conclude(Some(kernel), config, &[])
    }

    #[test]
    fn a_kernel_is_not_killed_for_what_it_finds_but_for_making_more_of_it() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("before"), vec![1; 3_000_000]).unwrap();
        let config = AgentConfig {
            workspace_bytes: 1_000_000,
            memory_bytes: u64::MAX,
            processes: 100,
            orphan_ms: 1000,
            cell_cpu_ms: None,
        };
        let workspace = Workspace::open(directory.path(), 1_000_000, &json!({})).unwrap();
        let mut watch = Watch::new(Arc::new(workspace));
        #[expect(
            clippy::disallowed_methods,
            reason = "the kernel of a test has a process"
        )]
        let mut process = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let kernel = Pid::from_raw(process.id() as i32).unwrap();
        let told = look(&mut watch, kernel, &config);
        assert!(matches!(told, Some(Finding::DiskFull(_))), "{told:?}");
        assert_eq!(look(&mut watch, kernel, &config), None);
        std::fs::write(directory.path().join("more"), vec![1; 100_000]).unwrap();
        let exceeded = Some(Finding::Exceeded(WatchedLimit::Disk));
        assert_eq!(look(&mut watch, kernel, &config), exceeded);
        process.kill().unwrap();
        process.wait().unwrap();
    }
}
