//! What the kernel and its children use: from the gauges that the host gave, or from `/proc`.

use std::fs;
use std::os::fd::OwnedFd;

use rustix::process::Pid;

use super::init;
use super::{CpuGauge, Gauges};

/// Reads gauges.
#[derive(Debug)]
pub(crate) struct Meter {
    gauges: Gauges,
    /// The most memory that [`Meter::census`] saw, where there is no gauge for it.
    seen: u64,
}

/// All processes of the sandbox, this one excepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Census {
    /// Processes and threads.
    pub(crate) tasks: u32,
    /// What they hold, each page they share counted in part.
    pub(crate) memory_bytes: u64,
    /// Whether that was counted page by page, and without what only twins use; else it is more rather than less.
    pub(crate) is_exact: bool,
}

impl Meter {
    /// Reads these gauges, as far as they are there.
    pub(crate) fn new(gauges: Gauges) -> Self {
        Self { gauges, seen: 0 }
    }

    /// Whether a cgroup bounds memory, so that nobody else has to.
    pub(crate) fn has_memory_gauge(&self) -> bool {
        self.gauges.memory.is_some()
    }

    /// Processor time so far, in microseconds.
    pub(crate) fn cpu_us(&self, kernel: Option<Pid>) -> u64 {
        let gauge = match &self.gauges.cpu {
            Some(CpuGauge::Stat(fd)) => {
                read(fd).and_then(|text| number_after(&text, "usage_usec "))
            }
            Some(CpuGauge::Acct(fd)) => read(fd)
                .and_then(|text| text.trim().parse::<u64>().ok())
                .map(|nanoseconds| nanoseconds / 1000),
            None => None,
        };
        gauge.unwrap_or_else(|| {
            let ticks: u64 = processes(kernel)
                .filter_map(stat)
                .map(|stat| stat.ticks)
                .sum();
            ticks * 1_000_000 / rustix::param::clock_ticks_per_second() + reaped_us()
        })
    }

    /// Memory in use at this moment.
    pub(crate) fn memory(&mut self, kernel: Option<Pid>) -> u64 {
        self.in_use()
            .unwrap_or_else(|| self.count(kernel, 0, &[]).memory_bytes)
    }

    /// Begins to look for the most memory in use anew.
    pub(crate) fn reset_peak(&mut self, kernel: Option<Pid>) {
        self.seen = 0;
        match &self.gauges.memory_peak {
            Some(fd) => {
                let _ = rustix::io::pwrite(fd, b"0", 0);
            }
            None => {
                if let Some(kernel) = kernel {
                    let _ = fs::write(format!("/proc/{}/clear_refs", number(kernel)), "5");
                }
            }
        }
    }

    /// The most memory in use since [`Meter::reset_peak`].
    pub(crate) fn peak(&self, kernel: Option<Pid>) -> Option<u64> {
        let beside = self.gauges.beside;
        if let Some(peak) = self.gauges.memory_peak.as_ref().and_then(read_number) {
            return Some(peak.saturating_sub(beside));
        }
        let own = kernel.and_then(high_water);
        own.map(|bytes| bytes.saturating_sub(beside))
            .max((self.seen > 0).then_some(self.seen))
    }

    /// How often a process was killed for lack of memory.
    pub(crate) fn oom_kills(&self) -> u64 {
        self.gauges
            .oom
            .as_ref()
            .and_then(read)
            .and_then(|text| number_after(&text, "oom_kill "))
            .unwrap_or(0)
    }

    /// What all processes use, but for what only `twins` do. It is asked for exactly only where it might be more than `exact_above`, since that
    /// takes a walk through their pages.
    pub(crate) fn census(
        &mut self,
        kernel: Option<Pid>,
        exact_above: u64,
        twins: &[Pid],
    ) -> Census {
        let mut census = match self.in_use() {
            // What lies in the cache of files is given back before anything fails.
            Some(bytes) if bytes > exact_above => Census {
                memory_bytes: self.lasting().unwrap_or(bytes).min(bytes),
                is_exact: true,
                ..Census::default()
            },
            Some(memory_bytes) => Census {
                memory_bytes,
                ..Census::default()
            },
            None => self.count(kernel, exact_above, twins),
        };
        self.seen = self.seen.max(census.memory_bytes);
        if census.memory_bytes > exact_above {
            let asleep = asleep(kernel, twins);
            census.memory_bytes = census.memory_bytes.saturating_sub(asleep);
        }
        census
    }

    /// What the cgroup counts and is the session's.
    fn in_use(&self) -> Option<u64> {
        let bytes = self.gauges.memory.as_ref().and_then(read_number)?;
        Some(bytes.saturating_sub(self.gauges.beside))
    }

    /// What the kernel and all twins hold together that cannot be given back. Counted exactly only where it might be more than `exact_above`.
    pub(crate) fn held(&mut self, kernel: Option<Pid>, exact_above: u64) -> u64 {
        match self.in_use() {
            Some(bytes) if bytes > exact_above => self.lasting().unwrap_or(bytes).min(bytes),
            Some(bytes) => bytes,
            None => self.count(kernel, exact_above, &[]).memory_bytes,
        }
    }

    /// How many processes and threads there are.
    pub(crate) fn tasks(&mut self, kernel: Option<Pid>) -> u32 {
        self.count(kernel, u64::MAX, &[]).tasks
    }

    /// The part of the memory in the cgroup that can only be freed by those who use it.
    fn lasting(&self) -> Option<u64> {
        let text = self.gauges.memory_stat.as_ref().and_then(read)?;
        let lasting: Option<u64> = ["inactive_anon ", "active_anon ", "unevictable "]
            .into_iter()
            .map(|word| number_after(&text, word))
            .sum();
        Some(lasting?.saturating_sub(self.gauges.beside))
    }

    /// Counts all processes, and the memory of all, twins included.
    fn count(&mut self, kernel: Option<Pid>, exact_above: u64, twins: &[Pid]) -> Census {
        let is_twin = |pid: u32| twins.iter().any(|twin| number(*twin) as u32 == pid);
        let pids: Vec<u32> = processes(kernel).collect();
        let mut census = Census::default();
        for (pid, stat) in pids.iter().filter_map(|pid| Some((*pid, stat(*pid)?))) {
            census.tasks += if is_twin(pid) { 0 } else { stat.threads };
            census.memory_bytes += stat.resident_bytes;
        }
        if census.memory_bytes > exact_above {
            census.is_exact = true;
            census.memory_bytes = pids
                .iter()
                .filter_map(|pid| match share(*pid) {
                    // gVisor does not tell what processes share: then a twin is taken for what the kernel has anyway.
                    None if is_twin(*pid) => None,
                    None => Some(stat(*pid)?.resident_bytes),
                    share => share,
                })
                .sum::<u64>()
                .saturating_sub(self.gauges.beside);
        }
        self.seen = self.seen.max(census.memory_bytes);
        census
    }
}

/// The number of a process, as it stands in paths.
pub(crate) fn number(pid: Pid) -> i32 {
    pid.as_raw_nonzero().get()
}

/// The processes of the sandbox but this one; the kernel alone when this is not PID 1.
pub(crate) fn processes(kernel: Option<Pid>) -> impl Iterator<Item = u32> {
    let all = init::is_pid_one();
    let listed = all.then(|| fs::read_dir("/proc").ok()).flatten();
    let listed = listed
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| *pid != 1);
    let kernel = kernel.filter(|_| !all).map(|pid| number(pid) as u32);
    listed.chain(kernel)
}

struct ProcessStat {
    /// Of itself and the children it has waited for.
    ticks: u64,
    threads: u32,
    resident_bytes: u64,
}

/// See proc_pid_stat(5).
fn stat(pid: u32) -> Option<ProcessStat> {
    let text = fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The name is the process's own choice and may hold anything; what follows the last parenthesis is the system's.
    let end = text.iter().rposition(|byte| *byte == b')')?;
    let text = str::from_utf8(&text[end + 1..]).ok()?;
    let fields: Vec<&str> = text.split_ascii_whitespace().collect();
    // The first of these is field 3.
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    Some(ProcessStat {
        ticks: field(14)? + field(15)? + field(16)? + field(17)?,
        threads: field(20)? as u32,
        resident_bytes: field(24)? * rustix::param::page_size() as u64,
    })
}

fn share(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    number_after(&text, "Pss:").map(|kilobytes| kilobytes * 1024)
}

/// What only twins hold, of which the newest is the last. Of one twin that is exact. Of more it is rather too much than too little: what several of them have
/// in common, and no longer with the kernel, is not to be seen from the outside.
fn asleep(kernel: Option<Pid>, twins: &[Pid]) -> u64 {
    let Some((newest, older)) = twins.split_last() else {
        return 0;
    };
    let rollups = |pid: &Pid| Rollup::read(*pid);
    let Some(newest) = rollups(newest) else {
        return older
            .iter()
            .filter_map(rollups)
            .map(|own| own.private)
            .sum();
    };
    match older {
        [] => newest.private,
        older => {
            let shared = kernel.and_then(Rollup::read);
            let shared = shared.map(|own| own.anonymous.saturating_sub(own.private_dirty));
            // What the kernel shares with anybody it shares with the newest twin: that was the last to be like it.
            let left = shared.map_or(0, |shared| newest.anonymous.saturating_sub(shared));
            let others = older.iter().filter_map(rollups);
            let others: u64 = match older.len() {
                1 => others.map(|own| own.private).sum(),
                _ => others.map(|own| own.proportional).sum(),
            };
            left.max(newest.private) + others
        }
    }
}

/// The memory of a process, in bytes; see proc_pid_smaps(5).
struct Rollup {
    anonymous: u64,
    /// Anonymous memory, each page divided by how many processes have it.
    proportional: u64,
    private: u64,
    private_dirty: u64,
}

impl Rollup {
    fn read(pid: Pid) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", number(pid))).ok()?;
        let bytes = |word: &str| number_after(&text, word).unwrap_or(0) * 1024;
        let private_dirty = bytes("Private_Dirty:");
        Some(Self {
            anonymous: bytes("Anonymous:"),
            proportional: bytes("Pss_Anon:"),
            private: bytes("Private_Clean:") + private_dirty,
            private_dirty,
        })
    }
}

fn high_water(pid: Pid) -> Option<u64> {
    let text = fs::read(format!("/proc/{}/status", number(pid))).ok()?;
    number_after(&String::from_utf8_lossy(&text), "VmHWM:").map(|kilobytes| kilobytes * 1024)
}

/// Processor time of children that were waited for.
fn reaped_us() -> u64 {
    // SAFETY: the structure consists of numbers, and the pointer to it is valid.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage);
        usage
    };
    let micros = |time: libc::timeval| time.tv_sec as u64 * 1_000_000 + time.tv_usec as u64;
    micros(usage.ru_utime) + micros(usage.ru_stime)
}

fn read(fd: &OwnedFd) -> Option<String> {
    let mut buffer = [0; 8192];
    let length = rustix::io::pread(fd, &mut buffer, 0).ok()?;
    str::from_utf8(&buffer[..length]).ok().map(str::to_owned)
}

fn read_number(fd: &OwnedFd) -> Option<u64> {
    read(fd)?.trim().parse().ok()
}

/// The number that follows a word at the beginning of a line.
fn number_after(text: &str, word: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(word))?
        .split_ascii_whitespace()
        .next()?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_found_behind_its_word_only() {
        let text = "low 0\noom 3\noom_kill 2\noom_group_kill 9\n";
        assert_eq!(number_after(text, "oom_kill "), Some(2));
        assert_eq!(number_after(text, "max "), None);
        assert_eq!(number_after("Pss:       12 kB", "Pss:"), Some(12));
    }

    #[test]
    fn this_process_has_a_stat() {
        let stat = stat(std::process::id()).unwrap();
        assert!(stat.threads >= 1);
        assert!(stat.resident_bytes > 0);
    }

    #[test]
    fn without_gauges_usage_comes_from_proc() {
        let this = Some(rustix::process::getpid());
        let mut meter = Meter::new(Gauges::default());
        assert!(meter.memory(this) > 0);
        assert!(meter.peak(this) > Some(0));
        assert_eq!(meter.oom_kills(), 0);
    }
}
