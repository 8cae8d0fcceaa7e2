//! One container as the server sees it.

use std::io;
use std::path::Path;
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;

use super::{AGENT, AGENT_SOCKET, Link, Shared};
use crate::agent::Secret;
use crate::model::id::SandboxId;
use crate::model::limits::Limits;
use crate::sandbox::native;
use crate::sandbox::{Sandbox, SandboxError, Stream};

/// A sandbox that is a container.
#[derive(Debug)]
pub(super) struct DockerSandbox {
    pub(super) shared: Arc<Shared>,
    pub(super) id: SandboxId,
    pub(super) link: Link,
    /// What connections begin with, where the engine brings them to the agent.
    pub(super) secret: Secret,
}

impl DockerSandbox {
    async fn open(&self) -> Result<Box<dyn Stream>, SandboxError> {
        const STEP: &str = "connect to the agent";
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => SandboxError::NotFound(self.id),
            _ => super::step(self.id, STEP, error),
        };
        match self.link {
            Link::Socket => {
                let stream = dial(&self.shared.directory(self.id)).await;
                Ok(Box::new(stream.map_err(failed)?))
            }
            Link::Exec => {
                let (name, command) = (super::name(self.id), [AGENT, "container-relay"]);
                let relay = self.shared.engine.exec(&name, &command).await;
                let mut relay = relay.map_err(|error| error.at(self.id, STEP))?;
                relay.write_all(&self.secret).await.map_err(failed)?;
                Ok(relay)
            }
        }
    }
}

/// Connects to the agent whose socket lies in this directory.
pub(super) async fn dial(directory: &Path) -> io::Result<UnixStream> {
    let place = native::open_place(directory)?;
    UnixStream::connect(native::through(&place, AGENT_SOCKET)).await
}

impl Sandbox for DockerSandbox {
    fn id(&self) -> SandboxId {
        self.id
    }

    fn connect(&self) -> BoxFuture<'_, Result<Box<dyn Stream>, SandboxError>> {
        self.open().boxed()
    }

    fn apply(&self, limits: &Limits) -> BoxFuture<'_, Result<(), SandboxError>> {
        let update = super::container::update(limits, self.link);
        async move {
            let updated = self
                .shared
                .engine
                .update(&super::name(self.id), update)
                .await;
            updated.map_err(|error| error.at(self.id, "change the limits"))
        }
        .boxed()
    }

    fn destroy(&self) -> BoxFuture<'_, Result<(), SandboxError>> {
        self.shared.destroy(self.id).boxed()
    }
}
