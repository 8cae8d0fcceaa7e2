//! From an order to a container whose agent listens.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bollard::container::AttachContainerResults;
use futures_util::{SinkExt as _, StreamExt as _};
use rustix::rand::GetRandomFlags;
use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;
use tokio_util::codec::Framed;

use super::container::{BESIDE, Container};
use super::handle::{self, DockerSandbox};
use super::inside::Order;
use super::record::Record;
use super::{AGENT, AGENT_SOCKET, Link, Shared, engine, name, step};
use crate::agent::Secret;
use crate::model::id::SandboxId;
use crate::model::limits::Limits;
use crate::protocol::GENERATION;
use crate::protocol::agent::{Hello, Kind, Purpose};
use crate::protocol::codec::{Frame, FrameCodec};
use crate::sandbox::native::step::{Step as _, StepError};
use crate::sandbox::owners::Taken;
use crate::sandbox::record::Recorded as _;
use crate::sandbox::{Sandbox as _, SandboxError, SandboxSpec, remove_tree, tree};

/// How long an agent may take to listen, once its container has been started.
const READY_WITHIN: Duration = Duration::from_secs(20);

impl Shared {
    /// How agents are reached: as the operator says, or else as a trial shows.
    pub(super) async fn find_link(self: &Arc<Self>) -> Result<Link, SandboxError> {
        if let Some(link) = self.config.link {
            return Ok(link);
        }
        let unreachable = match self.try_link(Link::Socket).await {
            Ok(()) => return Ok(Link::Socket),
            Err(error) => error,
        };
        let error = engine::chain(&unreachable);
        tracing::warn!(
            error,
            "agents cannot be reached by a socket: trying to reach them by programs that the engine starts, which is slower"
        );
        // That should have worked: what it said is what is to be told.
        let tried = self.try_link(Link::Exec).await;
        tried.map(|()| Link::Exec).map_err(|_| unreachable)
    }

    async fn try_link(self: &Arc<Self>, link: Link) -> Result<(), SandboxError> {
        let id = SandboxId::new();
        let workspace = self.run.join(format!("trial-{id}"));
        let made = async {
            fs::create_dir(&workspace).map_err(|source| step(id, "make a directory", source))?;
            let spec = SandboxSpec {
                id,
                limits: Limits::default(),
                workspace: workspace.clone(),
            };
            let sandbox = self.create(spec, link).await?;
            let reached = greet(&sandbox).await;
            sandbox.destroy().await?;
            reached
        }
        .await;
        // It holds nothing.
        let _ = remove_tree(&workspace);
        made
    }

    /// Makes a container. To be waited for to its end: what is given up half-way nobody would destroy.
    pub(super) async fn create(
        self: &Arc<Self>,
        spec: SandboxSpec,
        link: Link,
    ) -> Result<Arc<DockerSandbox>, SandboxError> {
        let id = spec.id;
        let shared = Arc::clone(self);
        let written = tokio::task::spawn_blocking(move || {
            let written = shared.write_down(&spec, link);
            written.map(|(user, secret)| (spec, user, secret))
        })
        .await
        .expect("writing down does not panic");
        let launched = match written {
            Ok((spec, user, secret)) => {
                let launched = self.launch(&spec, link, user, &secret).await;
                launched.map(|()| secret)
            }
            Err(error) => Err(error),
        };
        match launched {
            Ok(secret) => Ok(Arc::new(DockerSandbox {
                shared: Arc::clone(self),
                id,
                link,
                secret,
            })),
            Err(error) => {
                if let Err(error) = self.destroy(id).await {
                    tracing::error!(sandbox.id = %id, %error, "what was made of a sandbox could not be destroyed");
                }
                Err(step(id, &error.step, error.source))
            }
        }
    }

    /// Makes what of a sandbox lies in the server's own directory, and gives the workspace to its user, which is returned with the secret.
    fn write_down(&self, spec: &SandboxSpec, link: Link) -> Result<(u32, Secret), StepError> {
        let directory = self.directory(spec.id);
        fs::create_dir(&directory).step("make the directory")?;
        let taken = match &self.owners {
            Some(owners) => Some(
                owners
                    .take(&spec.workspace)
                    .step("give the workspace to the sandbox")?,
            ),
            None => None,
        };
        let owner = taken.as_ref().map(Taken::id);
        let user = owner.map_or_else(
            || rustix::process::geteuid().as_raw(),
            |owner| self.config.first_id + owner,
        );
        // First the record, then what it tells of: so it can be found after a crash in between.
        let mut secret = Secret::default();
        rustix::rand::getrandom(&mut secret, GetRandomFlags::empty()).step("make a secret")?;
        Record::new(link, owner, secret)
            .write(&directory)
            .step("write the record")?;
        if let Some(taken) = taken {
            taken.keep();
        }
        for (file, content) in names(user) {
            fs::write(directory.join(file), content).step("name the user")?;
        }
        if link == Link::Socket {
            let door = directory.join("door");
            fs::create_dir(&door).step("make the door")?;
            if owner.is_some() {
                tree::give_to(&door, user).step("make the door")?;
            }
        }
        Ok((user, secret))
    }

    /// Makes and starts the container, and waits until its agent listens.
    async fn launch(
        &self,
        spec: &SandboxSpec,
        link: Link,
        user: u32,
        secret: &Secret,
    ) -> Result<(), StepError> {
        let directory = self.directory(spec.id);
        let workspace = spec.workspace.canonicalize().step("find the workspace")?;
        let show = |file: &str, at: &str| (directory.join(file), at.to_owned());
        let container = Container {
            image: &self.config.image,
            runtime: self.config.runtime.as_deref(),
            server: &self.server,
            user,
            workspace: &workspace,
            shows: vec![
                (self.agent.clone(), AGENT.to_owned()),
                show("passwd", "/etc/passwd"),
                show("group", "/etc/group"),
            ],
            door: (link == Link::Socket).then(|| directory.join("door")),
            order: Order {
                id: spec.id,
                link,
                limits: spec.limits.clone(),
                beside: BESIDE,
                orphan_ms: u64::try_from(self.config.orphan.as_millis()).unwrap_or(u64::MAX),
            },
        };
        let name = name(spec.id);
        let created = self.engine.create(&name, container.body()).await;
        self.reaper.note(spec.id, &created);
        created.step("create the container")?;
        let AttachContainerResults {
            output: mut said,
            mut input,
        } = self
            .engine
            .attach(&name)
            .await
            .step("listen to the container")?;
        self.engine.start(&name).await.step("start the container")?;
        if link == Link::Exec {
            input.write_all(secret).await.step("tell it the secret")?;
            // Its relay waits for the agent.
            return Ok(());
        }
        let mut last_words = String::new();
        let listens = async {
            tokio::select! {
                listens = open_door(&directory) => listens,
                // The stream ends with the container.
                () = async {
                    while let Some(Ok(piece)) = said.next().await {
                        last_words.push_str(&piece.to_string());
                        last_words.truncate(last_words.floor_char_boundary(4096));
                    }
                } => Err(io::Error::other(format!("the agent ended: {}", last_words.trim()))),
            }
        };
        timeout(READY_WITHIN, listens)
            .await
            .unwrap_or(Err(io::ErrorKind::TimedOut.into()))
            .step("wait for the agent")
    }
}

/// Exchanges greetings with an agent.
async fn greet(sandbox: &DockerSandbox) -> Result<(), SandboxError> {
    let broken = |source| step(sandbox.id, "talk to the agent", source);
    let mut frames = Framed::new(sandbox.connect().await?, FrameCodec);
    let hello = Hello {
        generation: GENERATION,
        purpose: Purpose::Control,
        resume_after: 0,
    };
    let payload = serde_json::to_vec(&hello).expect("a hello is plain data");
    let hello = Frame {
        kind: Kind::Hello as u8,
        flags: 0,
        number: 0,
        payload: payload.into(),
    };
    let answer = async {
        frames.send(hello).await?;
        frames.next().await.transpose()
    };
    match timeout(READY_WITHIN, answer).await {
        Ok(Ok(Some(frame))) if frame.kind == Kind::AgentHello as u8 => Ok(()),
        Ok(Ok(_)) => Err(broken(io::ErrorKind::UnexpectedEof.into())),
        Ok(Err(error)) => Err(broken(io::Error::other(error))),
        Err(_) => Err(broken(io::ErrorKind::TimedOut.into())),
    }
}

/// Waits until the agent listens, and takes its socket, and the directory in which it was made, out of the sandbox: what runs there from now on finds
/// nothing to connect to and no place to write. A directory that is gone stays mounted, and nothing can be made in it.
async fn open_door(directory: &Path) -> io::Result<()> {
    const AGAIN: Duration = Duration::from_millis(2);
    let door = directory.join("door");
    loop {
        match fs::rename(door.join(AGENT_SOCKET), directory.join(AGENT_SOCKET)) {
            Ok(()) => break,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                tokio::time::sleep(AGAIN).await
            }
            Err(error) => return Err(error),
        }
    }
    remove_tree(&door)?;
    // It is there before it is listened to.
    while let Err(error) = handle::dial(directory).await {
        if error.kind() != io::ErrorKind::ConnectionRefused {
            return Err(error);
        }
        tokio::time::sleep(AGAIN).await;
    }
    Ok(())
}

/// What names the user of a sandbox in it.
fn names(user: u32) -> [(&'static str, String); 2] {
    [
        (
            "passwd",
            format!(
                "root:x:0:0:root:/root:/usr/sbin/nologin\nuser:x:{user}:{user}:user:/home/user:/bin/bash\n\
                 nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
            ),
        ),
        (
            "group",
            format!("root:x:0:\nuser:x:{user}:\nnogroup:x:65534:\n"),
        ),
    ]
}
