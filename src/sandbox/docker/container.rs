//! What an engine is told about a container: everything that hardens it stands here.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use bollard::models::{
    ContainerCreateBody, ContainerUpdateBody, HealthConfig, HostConfig, HostConfigCgroupnsModeEnum,
    HostConfigLogConfig, Mount, MountType, ResourcesUlimits,
};

use super::inside::Order;
use super::profile::profile;
use super::{AGENT, DOOR, LABEL_SANDBOX, LABEL_SERVER, Link};
use crate::model::id::SandboxId;
use crate::model::limits::{Limits, MIB};
use crate::sandbox::native::{self, LIBRARY, PYTHON_ENV, WORKSPACE, cgroup};

/// What of a container's memory is not the session's: the libraries, which no zygote shares here, and the agent. A kernel that has rehearsed, and done
/// nothing yet, holds 180 MiB with its agent.
pub(super) const BESIDE: u64 = 176 * MIB;

/// What of its processes is not the session's: the agent, and relays with what an engine starts them with.
fn processes_beside(link: Link) -> u64 {
    match link {
        Link::Socket => 1,
        Link::Exec => 9,
    }
}

/// Parts of /proc and /sys that tell of the machine and nothing that a program needs. Engines hide the first few by themselves, unless somebody
/// names others: so all are named.
const MASKED: [&str; 34] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/kallsyms",
    "/proc/kmsg",
    "/proc/modules",
    "/proc/cmdline",
    "/proc/config.gz",
    "/proc/iomem",
    "/proc/ioports",
    "/proc/interrupts",
    "/proc/softirqs",
    "/proc/diskstats",
    "/proc/partitions",
    "/proc/swaps",
    "/proc/vmallocinfo",
    "/proc/slabinfo",
    "/proc/pagetypeinfo",
    "/proc/zoneinfo",
    "/sys/firmware",
    "/sys/block",
    "/sys/bus",
    "/sys/class",
    "/sys/dev",
    "/sys/devices",
    "/sys/kernel",
    "/sys/module",
    "/sys/power",
];

/// Parts of /proc that nobody may write to, as engines have them by themselves.
const READONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// One container to be.
#[derive(Debug)]
pub(super) struct Container<'a> {
    pub(super) image: &'a str,
    pub(super) runtime: Option<&'a str>,
    /// Whose it is.
    pub(super) server: &'a str,
    /// Its user and group.
    pub(super) user: u32,
    /// The directory of the session.
    pub(super) workspace: &'a Path,
    /// What else of the host is seen inside, read-only: from where, to where.
    pub(super) shows: Vec<(PathBuf, String)>,
    /// The directory in which the agent puts its socket.
    pub(super) door: Option<PathBuf>,
    pub(super) order: Order,
}

impl Container<'_> {
    /// As the engine wants to hear it.
    pub(super) fn body(&self) -> ContainerCreateBody {
        let order = serde_json::to_string(&self.order).expect("an order is plain data");
        ContainerCreateBody {
            hostname: Some("evercell".to_owned()),
            user: Some(format!("{0}:{0}", self.user)),
            env: Some(environment()),
            entrypoint: Some(vec![AGENT.to_owned()]),
            cmd: Some(vec!["container-init".to_owned(), order]),
            image: Some(self.image.to_owned()),
            working_dir: Some(WORKSPACE.to_owned()),
            network_disabled: Some(true),
            open_stdin: Some(true),
            stdin_once: Some(true),
            labels: Some(labels(self.server, self.order.id)),
            // The server is connected to the agent and asks it.
            healthcheck: Some(HealthConfig {
                test: Some(vec!["NONE".to_owned()]),
                ..HealthConfig::default()
            }),
            host_config: Some(self.host()),
            ..ContainerCreateBody::default()
        }
    }

    fn host(&self) -> HostConfig {
        let limits = &self.order.limits;
        let bounds = Bounds::of(limits, self.order.link);
        let owned =
            |list: &[&str]| Some(list.iter().map(|&item| item.to_owned()).collect::<Vec<_>>());
        HostConfig {
            memory: Some(bounds.memory),
            // Memory and swap together: no swap.
            memory_swap: Some(bounds.memory),
            pids_limit: Some(bounds.processes),
            cpu_period: Some(bounds.cpu_period),
            cpu_quota: Some(bounds.cpu_quota),
            ulimits: Some(ulimits()),
            mounts: Some(self.mounts()),
            tmpfs: Some(HashMap::from([(
                "/tmp".to_owned(),
                tmpfs(limits.disk_bytes),
            )])),
            shm_size: Some(int(limits.memory_bytes / 2)),
            log_config: Some(HostConfigLogConfig {
                typ: Some("none".to_owned()),
                config: None,
            }),
            network_mode: Some("none".to_owned()),
            ipc_mode: Some("private".to_owned()),
            cgroupns_mode: Some(HostConfigCgroupnsModeEnum::PRIVATE),
            // An engine that is started again removes such containers even if they run (`live-restore` notwithstanding). Who ends one removes it; the
            // next server removes one that has ended by itself, and learns why it did.
            auto_remove: Some(false),
            init: Some(false),
            cap_drop: owned(&["ALL"]),
            readonly_rootfs: Some(true),
            security_opt: Some(vec![
                "no-new-privileges".to_owned(),
                format!("seccomp={}", profile()),
            ]),
            masked_paths: owned(&MASKED),
            readonly_paths: owned(&READONLY),
            runtime: self.runtime.map(str::to_owned),
            ..HostConfig::default()
        }
    }

    fn mounts(&self) -> Vec<Mount> {
        let mount = |source: &Path, target: &str, read_only| Mount {
            source: Some(source.display().to_string()),
            target: Some(target.to_owned()),
            // Unlike `Binds`, it is an error if the source is not there.
            typ: Some(MountType::BIND),
            read_only: Some(read_only),
            ..Mount::default()
        };
        let mut mounts = vec![mount(self.workspace, WORKSPACE, false)];
        mounts.extend(self.door.iter().map(|door| mount(door, DOOR, false)));
        mounts.extend(self.shows.iter().map(|(from, to)| mount(from, to, true)));
        mounts
    }
}

/// By what a container is known to be ours, and whose.
pub(super) fn labels(server: &str, id: SandboxId) -> HashMap<String, String> {
    HashMap::from([
        (LABEL_SERVER.to_owned(), server.to_owned()),
        (LABEL_SANDBOX.to_owned(), id.to_string()),
    ])
}

/// Limits as cgroups have them.
struct Bounds {
    memory: i64,
    processes: i64,
    cpu_period: i64,
    cpu_quota: i64,
}

impl Bounds {
    fn of(limits: &Limits, link: Link) -> Self {
        Self {
            memory: int(cgroup::memory(limits).saturating_add(BESIDE)),
            processes: int(cgroup::processes(limits) + processes_beside(link)),
            cpu_period: int(cgroup::PERIOD_US),
            cpu_quota: int(cgroup::quota(limits)),
        }
    }
}

/// Other limits for a container that is there.
pub(super) fn update(limits: &Limits, link: Link) -> ContainerUpdateBody {
    let bounds = Bounds::of(limits, link);
    ContainerUpdateBody {
        memory: Some(bounds.memory),
        memory_swap: Some(bounds.memory),
        pids_limit: Some(bounds.processes),
        cpu_period: Some(bounds.cpu_period),
        cpu_quota: Some(bounds.cpu_quota),
        ..ContainerUpdateBody::default()
    }
}

/// What the agent, and Python until it has its jail, finds in its environment.
fn environment() -> Vec<String> {
    vec![
        format!("PATH={PYTHON_ENV}/bin:/usr/local/bin:/usr/bin:/bin"),
        format!("PYTHONPATH={LIBRARY}"),
        "PYTHONDONTWRITEBYTECODE=1".to_owned(),
        "HOME=/tmp/.home".to_owned(),
        "LANG=C.UTF-8".to_owned(),
    ]
}

fn tmpfs(size: u64) -> String {
    let inodes = native::inodes(size);
    format!("rw,exec,nosuid,nodev,mode=1777,size={size},nr_inodes={inodes}")
}

/// For the agent too. A kernel gets the rest from its jail, which takes what is lower: an engine that may not raise a limit of its own refuses one that
/// is higher.
fn ulimits() -> Vec<ResourcesUlimits> {
    let ulimit = |name: &str, soft: u64, hard: u64| ResourcesUlimits {
        name: Some(name.to_owned()),
        soft: Some(int(soft)),
        hard: Some(int(hard)),
    };
    vec![ulimit("nofile", 4096, 16384), ulimit("core", 0, 0)]
}

fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
