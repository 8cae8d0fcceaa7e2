//! One sandbox as the server sees it: starting it, talking to its agent, changing its limits, destroying it.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::process::Command;
use tokio::time::{Instant, timeout};

use super::Shared;
use super::cgroup::{self, Cgroups};
use super::init::through;
use super::record::{AGENT_LOG, AGENT_SOCKET, Process, Record};
use super::rootfs;
use super::step::{Status, Step as _, StepError};
use crate::model::id::SandboxId;
use crate::model::limits::Limits;
use crate::sandbox::record::Recorded as _;
use crate::sandbox::{Sandbox, SandboxError, Stream, remove_tree};

/// How long making namespaces and mounts may take on a machine that is very busy.
const READY_WITHIN: Duration = Duration::from_secs(20);
/// How long everything in a sandbox may take to be gone after it was killed.
const GONE_WITHIN: Duration = Duration::from_secs(10);

/// A sandbox made of namespaces.
#[derive(Debug)]
pub(super) struct NativeSandbox {
    shared: Arc<Shared>,
    record: Record,
}

impl NativeSandbox {
    pub(super) fn new(shared: Arc<Shared>, record: Record) -> Self {
        Self { shared, record }
    }

    async fn open(&self) -> io::Result<UnixStream> {
        let place = rootfs::open_place(&self.shared.directory(self.record.id))?;
        UnixStream::connect(through(&place, AGENT_SOCKET)).await
    }
}

impl Sandbox for NativeSandbox {
    fn id(&self) -> SandboxId {
        self.record.id
    }

    fn connect(&self) -> BoxFuture<'_, Result<Box<dyn Stream>, SandboxError>> {
        async move {
            match self.open().await {
                Ok(stream) => Ok(Box::new(stream) as Box<dyn Stream>),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    Err(SandboxError::NotFound(self.id()))
                }
                Err(source) => Err(SandboxError::Step {
                    id: self.id(),
                    step: "connect to the agent".into(),
                    source,
                }),
            }
        }
        .boxed()
    }

    fn apply(&self, limits: &Limits) -> BoxFuture<'_, Result<(), SandboxError>> {
        let limited = self.record.cgroups.limit(limits);
        let id = self.id();
        async move {
            limited.map_err(|source| SandboxError::Step {
                id,
                step: "change the limits".into(),
                source,
            })
        }
        .boxed()
    }

    fn destroy(&self) -> BoxFuture<'_, Result<(), SandboxError>> {
        async move {
            destroy(&self.shared, self.id())
                .await
                .map_err(|error| SandboxError::Step {
                    id: self.id(),
                    step: error.step,
                    source: error.source,
                })
        }
        .boxed()
    }
}

/// Starts `sandbox-init` for a sandbox that is written down, and waits until its agent listens.
pub(super) async fn launch(
    shared: &Shared,
    record: &Record,
    house: io::Result<OwnedFd>,
) -> Result<(), StepError> {
    let directory = shared.directory(record.id);
    let log = fs::File::create(directory.join(AGENT_LOG)).step("make the log")?;
    let house = house.step("keep the house")?;
    let mut child = Command::new(&shared.config.program)
        .arg("sandbox-init")
        .arg(&directory)
        .stdin(house)
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .step_with(|| format!("start `{}`", shared.config.program.display()))?;
    let mut pipe = BufReader::new(child.stdout.take().expect("standard output is piped"));

    let told = timeout(READY_WITHIN, async {
        let mut line = Vec::new();
        pipe.read_until(b'\n', &mut line).await.map(|_| line)
    })
    .await;
    // The first process ends as soon as the second can go on; waiting for it leaves no zombie.
    let line = match told {
        Ok(line) => line.step("read the status")?,
        Err(_) => {
            let _ = child.kill().await;
            return Err(StepError {
                step: "make the namespaces in time".into(),
                source: io::ErrorKind::TimedOut.into(),
            });
        }
    };
    let ended = child.wait().await.step("wait for the first process")?;
    if line.is_empty() {
        return Err(StepError {
            step: "make the namespaces".into(),
            source: io::Error::other(match ended.signal() {
                Some(signal) => format!("the process was killed by signal {signal}"),
                None => format!("the process ended without a word ({ended})"),
            }),
        });
    }
    serde_json::from_slice::<Status>(&line)
        .map_err(io::Error::from)
        .step("understand the status")?
        .into_result()
}

/// Destroys what is left of a sandbox: processes, cgroups, directory. Mounts go with their namespace, namespaces with their processes.
pub(super) async fn destroy(shared: &Arc<Shared>, id: SandboxId) -> Result<(), StepError> {
    let shared = Arc::clone(shared);
    tokio::task::spawn_blocking(move || destroy_now(&shared, id))
        .await
        .expect("destroying does not panic")
}

fn destroy_now(shared: &Shared, id: SandboxId) -> Result<(), StepError> {
    let directory = shared.directory(id);
    if !rootfs::exists(&directory) {
        return Ok(());
    }
    let record = Record::read(&directory).ok();
    // Without a record nothing else can exist; but a host may have been changed by hand.
    let cgroups = record.as_ref().map_or_else(
        || shared.cgroups.groups(id),
        |record| record.cgroups.clone(),
    );

    // PID 1 takes all others of its pid namespace with it. A kernel that is on its way there is already in the cgroup.
    if let Ok(process) = Process::read(&directory) {
        let wait = i64::try_from(GONE_WITHIN.as_millis()).expect("seconds fit");
        if !process.kill(wait).step("kill the agent")? {
            return Err(StepError {
                step: "kill the agent in time".into(),
                source: io::ErrorKind::TimedOut.into(),
            });
        }
    }
    remove_cgroups(&cgroups)?;
    // Whoever removes it gives the id back, and nobody else: it may be another's by then.
    let removed = remove_tree(&directory).step("remove the directory")?;
    if removed && let Some(record) = record {
        shared.owners.give_back(record.id_in_house);
    }
    Ok(())
}

fn remove_cgroups(cgroups: &Cgroups) -> Result<(), StepError> {
    let deadline = Instant::now() + GONE_WITHIN;
    loop {
        if cgroups.destroy().step("remove the cgroups")? {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(StepError {
                step: "remove the cgroups in time".into(),
                source: io::ErrorKind::TimedOut.into(),
            });
        }
        std::thread::sleep(cgroup::PAUSE);
    }
}
