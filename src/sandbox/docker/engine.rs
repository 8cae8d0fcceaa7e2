//! The engine: every request to it has a deadline of its own, since an engine that hangs must hang nobody else.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use bollard::Docker;
use bollard::container::{AttachContainerResults, LogOutput};
use bollard::errors::Error;
use bollard::exec::{CreateExecOptions, StartExecOptions, StartExecResults};
use bollard::models::{
    ContainerCreateBody, ContainerUpdateBody, ImageInspect, SystemInfo, SystemVersion,
};
use bollard::query_parameters as query;
use futures_util::{StreamExt as _, TryStreamExt as _};
use tokio::time::{Instant, sleep, timeout};

use super::plotly::first_file;
use crate::model::id::SandboxId;
use crate::model::limits::MIB;
use crate::sandbox::{SandboxError, Stream};

/// How long a question may take.
const ANSWER: Duration = Duration::from_secs(10);
/// How long it may take to make, start or remove a container on a machine that is very busy.
const WORK: Duration = Duration::from_secs(60);
/// What a request may take that has no deadline by itself.
const LONGEST_S: u64 = 120;
/// The largest archive of a file that is taken out of a container, in bytes.
const LARGEST: usize = 32 * MIB as usize;
/// The engine's own socket.
const USUAL: &str = "unix:///var/run/docker.sock";

/// A connection to an engine. Each request connects anew.
#[derive(Clone, Debug)]
pub(super) struct Engine {
    docker: Docker,
    /// Where it is, for people.
    pub(super) host: String,
}

/// What a request came to.
pub(super) type Outcome<T> = Result<T, EngineError>;

/// Why an engine did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum EngineError {
    /// There is no such container or image.
    #[error("{0}")]
    NotFound(String),
    /// There is one of that name, or it is being changed.
    #[error("{0}")]
    Conflict(String),
    /// It says no.
    #[error("{0}")]
    Refused(String),
    /// It cannot be reached.
    #[error("the Docker engine does not answer: {0}")]
    Unreachable(String),
    /// It takes too long.
    #[error("the Docker engine took more than {0} s")]
    Slow(u64),
}

impl EngineError {
    /// Whether it says nothing of what was asked, so that it may do it yet, and later may answer.
    pub(super) fn is_away(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Slow(_))
    }

    /// As the failure of a step of a sandbox.
    pub(super) fn at(self, id: SandboxId, what: &str) -> SandboxError {
        match self {
            Self::NotFound(_) => SandboxError::NotFound(id),
            _ if self.is_away() => SandboxError::Away {
                id,
                step: what.to_owned(),
                source: self.into(),
            },
            _ => super::step(id, what, self.into()),
        }
    }
}

impl From<Error> for EngineError {
    fn from(error: Error) -> Self {
        match error {
            Error::DockerResponseServerError {
                status_code: 404,
                message,
            } => Self::NotFound(message),
            Error::DockerResponseServerError {
                status_code: 409,
                message,
            } => Self::Conflict(message),
            Error::DockerResponseServerError { message, .. } => Self::Refused(message),
            Error::RequestTimeoutError => Self::Slow(LONGEST_S),
            error => Self::Unreachable(chain(&error)),
        }
    }
}

impl From<EngineError> for io::Error {
    fn from(error: EngineError) -> Self {
        let kind = match error {
            EngineError::NotFound(_) => io::ErrorKind::NotFound,
            EngineError::Slow(_) => io::ErrorKind::TimedOut,
            EngineError::Unreachable(_) => io::ErrorKind::NotConnected,
            EngineError::Conflict(_) | EngineError::Refused(_) => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

/// An error with its causes; the engine's client often says the most in the last one.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let cause = error.to_string();
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
        source = error.source();
    }
    text
}

async fn within<T>(limit: Duration, asked: impl Future<Output = Result<T, Error>>) -> Outcome<T> {
    match timeout(limit, asked).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(EngineError::Slow(limit.as_secs())),
    }
}

impl Engine {
    /// The engine at this address, or at the usual one. Asks nothing yet.
    pub(super) fn at(host: Option<&str>) -> Outcome<Self> {
        let host = host.unwrap_or(USUAL);
        let docker = if host.starts_with("unix://") {
            Docker::connect_with_unix(host, LONGEST_S, bollard::API_DEFAULT_VERSION)
        } else if host.starts_with("tcp://") || host.starts_with("http://") {
            Docker::connect_with_http(host, LONGEST_S, bollard::API_DEFAULT_VERSION)
        } else {
            return Err(EngineError::Refused(format!(
                "`{host}` is neither `unix://…` nor `tcp://…`"
            )));
        };
        Ok(Self {
            docker: docker?,
            host: host.to_owned(),
        })
    }

    /// Agrees on a version of the API; to be called first.
    pub(super) async fn agree(self) -> Outcome<Self> {
        let host = self.host;
        let docker = within(ANSWER, self.docker.negotiate_version()).await?;
        Ok(Self { docker, host })
    }

    pub(super) async fn version(&self) -> Outcome<SystemVersion> {
        within(ANSWER, self.docker.version()).await
    }

    pub(super) async fn info(&self) -> Outcome<SystemInfo> {
        within(ANSWER, self.docker.info()).await
    }

    pub(super) async fn image(&self, name: &str) -> Outcome<ImageInspect> {
        within(ANSWER, self.docker.inspect_image(name)).await
    }

    pub(super) async fn create(&self, name: &str, body: ContainerCreateBody) -> Outcome<()> {
        let options = query::CreateContainerOptionsBuilder::default()
            .name(name)
            .build();
        within(WORK, self.docker.create_container(Some(options), body)).await?;
        Ok(())
    }

    pub(super) async fn start(&self, name: &str) -> Outcome<()> {
        within(WORK, self.docker.start_container(name, None)).await
    }

    /// Whether there is such a container and it runs.
    pub(super) async fn is_running(&self, name: &str) -> Outcome<bool> {
        match within(ANSWER, self.docker.inspect_container(name, None)).await {
            Ok(found) => Ok(found.state.and_then(|state| state.running) == Some(true)),
            Err(EngineError::NotFound(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn update(&self, name: &str, body: ContainerUpdateBody) -> Outcome<()> {
        within(WORK, self.docker.update_container(name, body)).await
    }

    /// Kills and removes a container. Succeeds when there is none any more.
    pub(super) async fn remove(&self, name: &str) -> Outcome<()> {
        const AGAIN: Duration = Duration::from_millis(20);
        let options = query::RemoveContainerOptionsBuilder::default()
            .force(true)
            .v(true)
            .build();
        let began = Instant::now();
        loop {
            let removed = self.docker.remove_container(name, Some(options.clone()));
            match within(WORK, removed).await {
                // Removed now, or by whoever was quicker.
                Ok(()) | Err(EngineError::NotFound(_)) => return Ok(()),
                // Somebody else removes it just now. There is nothing that tells when it is gone.
                Err(EngineError::Conflict(_)) if began.elapsed() < WORK => sleep(AGAIN).await,
                Err(error) => return Err(error),
            }
        }
    }

    /// The containers, running or not, that carry this label: their labels.
    pub(super) async fn list(&self, label: &str) -> Outcome<Vec<HashMap<String, String>>> {
        let filters = HashMap::from([("label", vec![label])]);
        let options = query::ListContainersOptionsBuilder::default()
            .all(true)
            .filters(&filters)
            .build();
        let found = within(ANSWER, self.docker.list_containers(Some(options))).await?;
        Ok(found
            .into_iter()
            .filter_map(|container| container.labels)
            .collect())
    }

    /// Waits until a container does not run any more. Succeeds when there is none.
    pub(super) async fn wait(&self, name: &str) -> Outcome<()> {
        let mut ends = self.docker.wait_container(name, None);
        let ended = async {
            match ends.try_next().await {
                // What the client of the engine calls an error is an exit code other than 0.
                Ok(_) | Err(Error::DockerContainerWaitError { .. }) => Ok(()),
                Err(error) => Err(error),
            }
        };
        match within(ANSWER, ended).await {
            Err(EngineError::NotFound(_)) => Ok(()),
            waited => waited,
        }
    }

    /// The exit code of a container that has ended; none if it is not there any more.
    pub(super) async fn exit_code(&self, name: &str) -> Outcome<Option<i64>> {
        match within(ANSWER, self.docker.inspect_container(name, None)).await {
            Ok(found) => Ok(found.state.and_then(|state| state.exit_code)),
            Err(EngineError::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What a container says on standard error, from before its start on, and its standard input.
    pub(super) async fn attach(&self, name: &str) -> Outcome<AttachContainerResults> {
        let options = query::AttachContainerOptionsBuilder::default()
            .stdin(true)
            .stderr(true)
            .stream(true)
            .build();
        within(ANSWER, self.docker.attach_container(name, Some(options))).await
    }

    /// A file of a container, running or not; none if it is not there.
    pub(super) async fn file(&self, name: &str, path: &str) -> Outcome<Option<Vec<u8>>> {
        let options = query::DownloadFromContainerOptionsBuilder::default()
            .path(path)
            .build();
        let mut pieces = self.docker.download_from_container(name, Some(options));
        let taken = async {
            let mut archive = Vec::new();
            while let Some(piece) = pieces.try_next().await? {
                archive.extend_from_slice(&piece);
                if archive.len() > LARGEST {
                    break;
                }
            }
            Ok(archive)
        };
        match within(WORK, taken).await {
            Ok(archive) if archive.len() > LARGEST => {
                Err(EngineError::Refused(format!("`{path}` is too large")))
            }
            Ok(archive) => match first_file(&archive) {
                Some(file) => Ok(Some(file.to_vec())),
                None => Err(EngineError::Refused(format!("`{path}` is no file"))),
            },
            Err(EngineError::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Runs a program in a container as another user than its own, and gives its standard input and output.
    pub(super) async fn exec(&self, name: &str, command: &[&str]) -> Outcome<Box<dyn Stream>> {
        let options = CreateExecOptions {
            attach_stdin: Some(true),
            attach_stdout: Some(true),
            user: Some("0:0"),
            cmd: Some(command.to_vec()),
            ..CreateExecOptions::default()
        };
        let made = within(WORK, self.docker.create_exec(name, options)).await?;
        let started = within(
            WORK,
            self.docker.start_exec(&made.id, None::<StartExecOptions>),
        )
        .await?;
        let StartExecResults::Attached { output, input } = started else {
            return Err(EngineError::Refused("it gives no stream".to_owned()));
        };
        let output = output
            .map_err(|error| io::Error::other(chain(&error)))
            .try_filter_map(async |piece| {
                Ok(match piece {
                    LogOutput::StdOut { message } => Some(message),
                    _ => None,
                })
            })
            .boxed();
        let reader = tokio_util::io::StreamReader::new(output);
        Ok(Box::new(tokio::io::join(reader, input)))
    }
}
