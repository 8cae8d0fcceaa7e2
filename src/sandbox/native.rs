//! The native backend: Linux namespaces, no daemon.
//!
//! ```text
//! server ── starts ──▶ zygote-init ▸ zygote       in the house: a user namespace without rights over the host
//!    │                                  │ forks
//!    └───── starts ──▶ sandbox-init ▸ agent ──▶ kernel    in a sandbox: a user namespace below the house, and all others
//! ```
//!
//! The server itself never forks or changes namespaces, since it has threads: it starts its own program anew, as `zygote-init` once and as
//! `sandbox-init` for each sandbox ([`zygote_init`], [`init()`]). What it knows of a sandbox is written down in a directory before it
//! exists, so that another server can find, take over or destroy it.
//!
//! Made by root, each sandbox has an id of its own on the host; made by an ordinary user, all have that user's. Needs Linux 5.14.

pub(super) mod cgroup;
mod handle;
mod house;
mod ids;
mod init;
mod jail;
mod probe;
mod record;
mod rootfs;
mod seccomp;
pub(super) mod step;
mod sys;
mod zygote;

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

pub use cgroup::Gauges;
pub use house::zygote_init;
pub use init::{Inside, Unbounded, init};
pub use probe::{Attempt, Part, probe};
pub use record::ORPHANED;
pub use step::StepError;

use self::handle::NativeSandbox;
use self::house::House;
use self::record::{Facts, Process, Record};
use self::rootfs::Layout;
use self::zygote::{Starter, Zygote};
use super::owners::{Owners, Taken};
use super::{Backend, Sandbox, SandboxError, SandboxSpec, check, ids_in, keep_others_out, name_of};
use crate::model::id::SandboxId;
use crate::sandbox::record::Recorded as _;

pub(super) use cgroup::{Controller, Host};
// What other backends have in common with this one.
pub(super) use init::{listen, through};
pub(super) use jail::{Memory, jail};
pub(super) use rootfs::{LIBRARY, PYTHON_ENV, WORKSPACE, inodes, open_place};
pub(super) use seccomp::{Audience, Condition, Group, filter, rules};
pub(super) use sys::{landlock_abi, set_dumpable};

/// What the native backend needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the server keeps everything; sandboxes are written down below `run/` in it.
    pub data_dir: PathBuf,
    /// This program, which knows `sandbox-init` and `zygote-init`.
    pub program: PathBuf,
    /// The Python environment.
    pub python_env: PathBuf,
    /// The Python package `pykernel`.
    pub pykernel_dir: PathBuf,
    /// The first of the ids that sandboxes get on the host, when the server is root.
    pub first_id: u32,
    /// How many there are, so how many sandboxes at once.
    pub ids: u32,
    /// How long an agent lives on without a server.
    pub orphan: Duration,
}

impl Config {
    /// The usual first id: far from those of people, services and containers.
    pub const FIRST_ID: u32 = 0x7000_0000;
    /// The usual number of ids.
    pub const IDS: u32 = 65_536;

    fn range(&self) -> ids::Range {
        ids::Range {
            first: self.first_id,
            count: self.ids,
        }
    }
}

/// Makes sandboxes out of namespaces.
#[derive(Debug)]
pub struct NativeBackend {
    shared: Arc<Shared>,
    zygote: Zygote,
}

/// What backend and sandboxes have in common.
#[derive(Debug)]
struct Shared {
    config: Config,
    run: PathBuf,
    layout: Layout,
    privileged: bool,
    cgroups: Host,
    /// How much of its address space the zygote may write to, in bytes.
    zygote_data: AtomicU64,
    /// The ids of sandboxes on the host, which the house numbers from 0.
    owners: Owners,
}

impl NativeBackend {
    /// Checks what can be had here and starts the zygote. Returns when it is ready: seconds, on a cold disk. Where sandboxes of an earlier server
    /// live, which can be used without it, returns before.
    pub async fn start(config: Config) -> Result<Self, SandboxError> {
        let shared = tokio::task::spawn_blocking(move || {
            check::isolates(&config)?;
            Shared::prepare(config)
        })
        .await
        .expect("preparing does not panic")?;
        let range = shared.config.range();
        let spec = House::new(shared.layout.clone(), shared.privileged, range);
        let starter = Starter {
            program: shared.config.program.clone(),
            directory: shared.zygote_directory(),
        };
        let house = shared.house_of_survivors();
        let zygote = Zygote::start(starter, &spec, house).await?;
        Ok(Self {
            shared: Arc::new(shared),
            zygote,
        })
    }

    /// The pid of the zygote, for those who measure it.
    pub fn zygote_pid(&self) -> Result<u32, SandboxError> {
        self.zygote.pid()
    }

    async fn make(&self, spec: SandboxSpec) -> Result<Arc<dyn Sandbox>, SandboxError> {
        self.zygote.begun().await;
        self.zygote.pid()?;
        // The same for each zygote of an environment, near enough.
        if self.shared.zygote_data.load(Ordering::Relaxed) == 0 {
            let bytes = self.zygote.data_bytes();
            self.shared.zygote_data.store(bytes, Ordering::Relaxed);
        }
        let id = spec.id;
        let shared = Arc::clone(&self.shared);
        let prepared = tokio::task::spawn_blocking(move || shared.write_down(spec))
            .await
            .expect("writing down does not panic");
        let launched = match prepared {
            Ok(record) => handle::launch(&self.shared, &record, self.zygote.house())
                .await
                .map(|()| record),
            Err(error) => Err(error),
        };
        match launched {
            Ok(record) => Ok(Arc::new(NativeSandbox::new(
                Arc::clone(&self.shared),
                record,
            ))),
            Err(error) => {
                let log = zygote::tail(&self.shared.directory(id).join(record::AGENT_LOG));
                if let Err(error) = handle::destroy(&self.shared, id).await {
                    tracing::error!(sandbox.id = %id, %error, "what was made of a sandbox could not be destroyed");
                }
                if let Some(log) = log {
                    tracing::warn!(sandbox.id = %id, %log, "a sandbox could not be made");
                }
                Err(SandboxError::Step {
                    id,
                    step: error.step,
                    source: error.source,
                })
            }
        }
    }
}

impl Backend for NativeBackend {
    fn name(&self) -> &'static str {
        "native"
    }

    fn create(&self, spec: SandboxSpec) -> BoxFuture<'_, Result<Arc<dyn Sandbox>, SandboxError>> {
        self.make(spec).boxed()
    }

    fn adopt(&self, id: SandboxId) -> BoxFuture<'_, Result<Arc<dyn Sandbox>, SandboxError>> {
        async move {
            let gone = |why: &str| SandboxError::Gone {
                id,
                why: why.to_owned(),
            };
            let directory = self.shared.directory(id);
            let record = Record::read(&directory).map_err(|_| gone("nothing is left of it"))?;
            let process = Process::read(&directory).map_err(|_| gone("it was never complete"))?;
            if !process.is_of_this_boot() {
                return Err(gone("the machine was started again"));
            }
            if !process.runs().is_ok_and(|runs| runs) {
                return Err(gone(
                    match zygote::tail(&directory.join(record::AGENT_LOG)) {
                        Some(log) if log.ends_with(record::ORPHANED) => record::ORPHANED,
                        _ => "it was ended from outside",
                    },
                ));
            }
            let sandbox: Arc<dyn Sandbox> =
                Arc::new(NativeSandbox::new(Arc::clone(&self.shared), record));
            Ok(sandbox)
        }
        .boxed()
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<SandboxId>, SandboxError>> {
        async move { Ok(self.shared.list()) }.boxed()
    }

    fn destroy(&self, id: SandboxId) -> BoxFuture<'_, Result<(), SandboxError>> {
        async move {
            handle::destroy(&self.shared, id)
                .await
                .map_err(|error| SandboxError::Step {
                    id,
                    step: error.step,
                    source: error.source,
                })
        }
        .boxed()
    }

    fn shut_down(&self) -> BoxFuture<'_, ()> {
        async move {
            self.zygote.stop().await;
            self.shared.cgroups.tidy();
        }
        .boxed()
    }
}

impl Shared {
    fn prepare(config: Config) -> Result<Self, SandboxError> {
        let environment = |why: String| SandboxError::Environment {
            why,
            hint: "make it with `make env`, or name another with `--python-env`".into(),
        };
        let layout = Layout::new(&config.python_env, &config.pykernel_dir)
            .map_err(|error| environment(format!("`{}`: {error}", config.python_env.display())))?;
        let run = config.data_dir.join("run");
        let directory = |error: io::Error| SandboxError::CannotIsolate {
            missing: format!("cannot use the directory `{}`: {error}", run.display()),
            hint: "name another with `--data-dir`, on a local disk and writable".into(),
        };
        fs::create_dir_all(&run).map_err(directory)?;
        // Absolute, since it is written down for others; and nobody else's business.
        let run = run.canonicalize().map_err(directory)?;
        keep_others_out(&config.data_dir).map_err(directory)?;
        fs::set_permissions(&run, std::os::unix::fs::PermissionsExt::from_mode(0o700))
            .map_err(directory)?;
        let shared = Self {
            layout,
            privileged: ids::is_privileged(config.range()),
            cgroups: Host::prepare(&name_of(&run)),
            zygote_data: AtomicU64::new(0),
            owners: Owners::new(
                config.first_id,
                config.ids,
                written_down(&run).map(|record| record.id_in_house),
            ),
            run,
            config,
        };
        shared.cgroups.claim(&shared.run);
        Ok(shared)
    }

    fn directory(&self, id: SandboxId) -> PathBuf {
        self.run.join(id.to_string())
    }

    fn zygote_directory(&self) -> PathBuf {
        self.run.join("zygote")
    }

    /// The sandboxes that are written down, whatever is left of them.
    fn list(&self) -> Vec<SandboxId> {
        ids_in(&self.run).collect()
    }

    /// The house in which sandboxes of an earlier server live: a new zygote has to move into it, or it could not enter them.
    fn house_of_survivors(&self) -> Option<OwnedFd> {
        use std::os::fd::AsFd as _;
        self.list().into_iter().find_map(|id| {
            let process = Process::read(&self.directory(id)).ok()?;
            process.open().ok()??;
            let own = fs::File::open(format!("/proc/{}/ns/user", process.pid())).ok()?;
            sys::parent_user_namespace(own.as_fd()).ok()
        })
    }

    /// Makes everything of a sandbox that lies on the host: its directory, record, cgroups, and the owner of its workspace.
    fn write_down(&self, spec: SandboxSpec) -> Result<Record, StepError> {
        use step::Step as _;
        let directory = self.directory(spec.id);
        fs::create_dir(&directory).step("make the directory")?;
        let workspace = spec.workspace.canonicalize().step("find the workspace")?;
        let taken = if self.privileged {
            let taken = self.owners.take(&workspace);
            Some(taken.step("give the workspace to the sandbox")?)
        } else {
            None
        };
        // 0 is the one id that an ordinary user's house maps.
        let id_in_house = taken.as_ref().map_or(0, Taken::id);
        let record = Record::from(Facts {
            id: spec.id,
            layout: self.layout.clone(),
            house: self.zygote_directory(),
            privileged: self.privileged,
            id_in_house,
            cgroups: self.cgroups.groups(spec.id),
            limits: spec.limits,
            workspace,
            // What the zygote has allocated, each kernel has from the start.
            shared_data_bytes: self.zygote_data.load(Ordering::Relaxed),
            orphan_ms: u64::try_from(self.config.orphan.as_millis()).unwrap_or(u64::MAX),
        });
        // First the record, then what it tells of: so it can be found after a crash in between.
        record.write(&directory).step("write the record")?;
        if let Some(taken) = taken {
            taken.keep();
        }
        record
            .cgroups
            .create(&record.limits)
            .step("make the cgroups")?;
        Ok(record)
    }
}

/// The records in a directory.
fn written_down(run: &Path) -> impl Iterator<Item = Record> {
    ids_in(run).filter_map(|id| Record::read(&run.join(id.to_string())).ok())
}
