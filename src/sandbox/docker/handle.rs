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
    async fn open(&self) -> io::Result<Box<dyn Stream>> {
        match self.link {
            Link::Socket => Ok(Box::new(dial(&self.shared.directory(self.id)).await?)),
            Link::Exec => {
                let (name, command) = (super::name(self.id), [AGENT, "container-relay"]);
                let mut relay = self.shared.engine.exec(&name, &command).await?;
                relay.write_all(&self.secret).await?;
                Ok(relay)
            }
        }
    }

    fn step(&self, step: &str, source: impl Into<io::Error>) -> SandboxError {
        SandboxError::Step {
            id: self.id,
            step: step.to_owned(),
            source: source.into(),
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
        async move {
            match self.open().await {
                Ok(stream) => Ok(stream),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    Err(SandboxError::NotFound(self.id))
                }
                Err(error) => Err(self.step("connect to the agent", error)),
            }
        }
        .boxed()
    }

    fn apply(&self, limits: &Limits) -> BoxFuture<'_, Result<(), SandboxError>> {
        let update = super::container::update(limits, self.link);
        async move {
            let updated = self
                .shared
                .engine
                .update(&super::name(self.id), update)
                .await;
            updated.map_err(|error| self.step("change the limits", error))
        }
        .boxed()
    }

    fn destroy(&self) -> BoxFuture<'_, Result<(), SandboxError>> {
        self.shared.destroy(self.id).boxed()
    }
}
