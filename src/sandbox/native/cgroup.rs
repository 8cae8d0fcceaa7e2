//! Limits and usage of everything that runs in a sandbox but the agent, by control groups: version 2, version 1, or both mixed.
//!
//! Each sandbox has one group, `evercell-<server>/<id>` below our own group, in each hierarchy that has a controller we use and that we may write.
//! The agent is not in it, so that running out of memory takes a kernel and not the agent.

mod sweep;
mod v1;
mod v2;

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{CWD, Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::model::checkpoint;
use crate::model::id::SandboxId;
use crate::model::limits::Limits;

/// A controller that we use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::sandbox) enum Controller {
    /// Memory.
    Memory,
    /// Numbers of processes and threads.
    Pids,
    /// Shares and quotas of processor time.
    Cpu,
    /// Counting of processor time; a part of `cpu` in version 2.
    Cpuacct,
}

/// Which interface a hierarchy has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::sandbox) enum Version {
    /// One hierarchy for each controller.
    V1,
    /// One for all.
    V2,
}

/// One hierarchy of groups.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::sandbox) struct Hierarchy {
    /// Its interface.
    pub(in crate::sandbox) version: Version,
    /// What it controls. Version 2 without any still kills groups.
    pub(in crate::sandbox) controllers: Vec<Controller>,
    /// On the host: the group that holds all sandboxes. In a sandbox's record: that sandbox's group.
    pub(in crate::sandbox) path: PathBuf,
}

/// The hierarchies that this host lets us use, with the group for all sandboxes in each.
#[derive(Clone, Debug, Default)]
pub(in crate::sandbox) struct Host {
    /// Those that can be used.
    pub(in crate::sandbox) usable: Vec<Hierarchy>,
    /// Those that cannot, and why.
    pub(in crate::sandbox) refused: Vec<(Hierarchy, String)>,
}

impl Host {
    /// Finds out which groups we may make, by making one for all sandboxes in each hierarchy.
    ///
    /// `who` tells servers apart that are in the same group of the host, and stays the same when a server is started again.
    pub(in crate::sandbox) fn prepare(who: &str) -> Self {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let mut host = Self::default();
        for hierarchy in find(&mounts, &own) {
            let prepared = match hierarchy.version {
                Version::V1 => v1::prepare(hierarchy.clone(), who),
                Version::V2 => v2::prepare(hierarchy.clone(), who),
            };
            match prepared {
                Ok(hierarchy) => host.usable.push(hierarchy),
                Err(error) => {
                    let why = format!("{}: {error}", hierarchy.path.display());
                    host.refused.push((hierarchy, why));
                }
            }
        }
        host
    }

    /// Whether there is a controller.
    pub(in crate::sandbox) fn has(&self, controller: Controller) -> bool {
        self.usable
            .iter()
            .any(|hierarchy| hierarchy.controllers.contains(&controller))
    }

    /// Writes down in our groups whose they are, and removes those of servers whose directory is gone.
    pub(super) fn claim(&self, run: &Path) {
        for hierarchy in &self.usable {
            // Without it nothing breaks: our own groups are removed by name.
            if let Err(error) = sweep::claim(&hierarchy.path, run) {
                tracing::debug!(%error, group = %hierarchy.path.display(), "a group cannot be claimed");
            }
            sweep::sweep(&hierarchy.path);
        }
    }

    /// Why there is none, as far as it is known.
    pub(in crate::sandbox) fn why_not(&self, controller: Controller) -> Option<&str> {
        let (_, why) = self.refused.iter().find(|(hierarchy, _)| {
            // Which controllers version 2 has is only known when it can be used.
            hierarchy.version == Version::V2 || hierarchy.controllers.contains(&controller)
        })?;
        Some(why)
    }

    /// Takes away what [`Self::prepare`] has made, unless there are sandboxes in it.
    pub(in crate::sandbox) fn tidy(&self) {
        for hierarchy in &self.usable {
            // Busy: sandboxes live on, and whoever takes them over goes on using it.
            let _ = fs::remove_dir(&hierarchy.path);
        }
    }

    /// The groups that a sandbox has or will have.
    pub(super) fn groups(&self, id: SandboxId) -> Cgroups {
        Cgroups(
            self.usable
                .iter()
                .map(|hierarchy| Hierarchy {
                    path: hierarchy.path.join(id.to_string()),
                    ..hierarchy.clone()
                })
                .collect(),
        )
    }
}

/// The groups of one sandbox.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Cgroups(Vec<Hierarchy>);

impl Cgroups {
    /// Whether something bounds this.
    pub(super) fn has(&self, controller: Controller) -> bool {
        self.0
            .iter()
            .any(|hierarchy| hierarchy.controllers.contains(&controller))
    }

    /// Makes them, with their limits.
    pub(super) fn create(&self, limits: &Limits) -> io::Result<()> {
        for hierarchy in &self.0 {
            make(&hierarchy.path)?;
        }
        self.limit(limits)
    }

    /// Sets limits, also while it is in use.
    pub(super) fn limit(&self, limits: &Limits) -> io::Result<()> {
        self.0
            .iter()
            .try_for_each(|hierarchy| match hierarchy.version {
                Version::V1 => v1::limit(hierarchy, limits),
                Version::V2 => v2::limit(hierarchy, limits),
            })
    }

    /// Opens the files into which a process writes `0` to become a member.
    ///
    /// Linux checks the right to do so against who opened the file (since 5.16), so a process without rights can be given them.
    pub(super) fn doors(&self) -> io::Result<Vec<OwnedFd>> {
        self.0
            .iter()
            .map(|hierarchy| open(&hierarchy.path.join("cgroup.procs"), OFlags::WRONLY))
            .collect()
    }

    /// Opens the files from which usage is read.
    pub(super) fn gauges(&self) -> Gauges {
        let mut gauges = Gauges::default();
        for hierarchy in &self.0 {
            match hierarchy.version {
                Version::V1 => v1::gauges(hierarchy, &mut gauges),
                Version::V2 => v2::gauges(hierarchy, &mut gauges),
            }
        }
        gauges
    }

    /// Kills everything in them and removes them. Returns whether nothing is left; may have to be called again.
    pub(super) fn destroy(&self) -> io::Result<bool> {
        let mut gone = true;
        for hierarchy in &self.0 {
            kill(&hierarchy.path)?;
        }
        for hierarchy in &self.0 {
            match fs::remove_dir(&hierarchy.path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                // Processes that are about to end still count.
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => gone = false,
                Err(error) => return Err(error),
            }
        }
        Ok(gone)
    }
}

/// Open files from which usage is read, each where the host has it.
#[derive(Debug, Default)]
pub struct Gauges {
    /// Bytes in use.
    pub memory: Option<OwnedFd>,
    /// The most of it; writable, a write sets it back.
    pub memory_peak: Option<OwnedFd>,
    /// What the memory is made of.
    pub memory_stat: Option<OwnedFd>,
    /// Holds a line `oom_kill N`.
    pub oom: Option<OwnedFd>,
    /// Holds a line `usage_usec N` (version 2).
    pub cpu_stat: Option<OwnedFd>,
    /// Nanoseconds of processor time (version 1).
    pub cpu_acct: Option<OwnedFd>,
}

/// Kills all members of a group, in one go where Linux can (5.14).
fn kill(group: &Path) -> io::Result<()> {
    if fs::write(group.join("cgroup.kill"), "1").is_ok() {
        return Ok(());
    }
    let members = match fs::read_to_string(group.join("cgroup.procs")) {
        Ok(members) => members,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        // The group went away between open and read.
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => return Ok(()),
        Err(error) => return Err(error),
    };
    for pid in members.lines().filter_map(|line| line.parse().ok()) {
        // A member may start others while we go through them: whoever calls us calls again until the group can be removed.
        if let Some(pid) = rustix::process::Pid::from_raw(pid) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
    Ok(())
}

fn open(path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(
        CWD,
        path,
        flags | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

/// The processes of checkpoints: the newest and the one before the last cell, those that are held, one that is about to be woken, and the one that
/// makes one beside threads.
pub(super) const CHECKPOINT_PROCESSES: u32 = 4 + checkpoint::MOST_HELD as u32;

/// The bound of memory for a limit: with room for checkpoints, while the agent keeps the kernel itself within the limit.
pub(in crate::sandbox) fn memory(limits: &Limits) -> u64 {
    limits
        .memory_bytes
        .saturating_add(checkpoint::room(limits.memory_bytes))
}

/// The bound of processes and threads for a limit.
pub(in crate::sandbox) fn processes(limits: &Limits) -> u64 {
    u64::from(limits.processes.saturating_add(CHECKPOINT_PROCESSES))
}

/// Processor time per period for a limit, in microseconds; the period is 100 ms.
pub(in crate::sandbox) fn quota(limits: &Limits) -> u64 {
    const SMALLEST: u64 = 1000;
    (u64::from(limits.cpu_millis) * PERIOD_US / 1000).max(SMALLEST)
}

/// As long as it may take until a throttled process goes on.
pub(in crate::sandbox) const PERIOD_US: u64 = 100_000;

/// How long to wait between two attempts to remove a group.
pub(super) const PAUSE: Duration = Duration::from_millis(2);

/// Makes the group for all sandboxes, and tries whether we may make groups in it: it may be there already and be another user's.
fn make_ours(base: &Path, who: &str) -> io::Result<PathBuf> {
    let ours = base.join(format!("evercell-{who}"));
    make(&ours)?;
    let attempt = ours.join(format!("attempt-{}", std::process::id()));
    make(&attempt)?;
    fs::remove_dir(&attempt)?;
    Ok(ours)
}

fn make(directory: &Path) -> io::Result<()> {
    match fs::create_dir(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// The hierarchies that are mounted and have something for us, with our own group in each.
fn find(mountinfo: &str, own: &str) -> Vec<Hierarchy> {
    mountinfo
        .lines()
        .filter_map(|line| {
            // proc_pid_mountinfo(5): "36 35 98:0 /root /mount/point options… - type source superoptions"
            let (front, back) = line.split_once(" - ")?;
            let mut front = front.split(' ').skip(3);
            let (root, point) = (front.next()?, front.next()?);
            let mut back = back.split(' ');
            let (kind, options) = (back.next()?, back.nth(1)?);
            let version = match kind {
                "cgroup" => Version::V1,
                "cgroup2" => Version::V2,
                _ => return None,
            };
            let (controllers, own) = match version {
                Version::V1 => {
                    let controllers: Vec<Controller> =
                        options.split(',').filter_map(v1::controller).collect();
                    (controllers, own_group(own, options)?)
                }
                Version::V2 => (Vec::new(), own_group(own, "")?),
            };
            if version == Version::V1 && controllers.is_empty() {
                return None;
            }
            let below = own.strip_prefix(root).ok()?;
            Some(Hierarchy {
                version,
                controllers,
                path: Path::new(point).join(below),
            })
        })
        .collect()
}

/// Our own group in the hierarchy of one of these controllers; with none, in that of version 2.
fn own_group<'a>(own: &'a str, options: &str) -> Option<&'a Path> {
    own.lines().find_map(|line| {
        // cgroups(7): "5:cpuacct,cpu:/path", "0::/path"
        let mut fields = line.splitn(3, ':');
        let (_, names, path) = (fields.next()?, fields.next()?, fields.next()?);
        let fits = if options.is_empty() {
            names.is_empty()
        } else {
            names
                .split(',')
                .any(|name| !name.is_empty() && options.split(',').any(|option| option == name))
        };
        fits.then(|| Path::new(path))
    })
}

#[cfg(test)]
mod tests;
