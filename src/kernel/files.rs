//! Files of a workspace, over a connection of their own, so that a gigabyte does not delay a line of output.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::sync::Semaphore;
use tokio_util::codec::Framed;

use super::KernelError;
use crate::protocol::agent::{Hello, Kind, Purpose};
use crate::protocol::codec::{Frame, FrameCodec};
use crate::protocol::files::{FileAnswer, FileEntry, FileErrorCode, FileRequest};
use crate::protocol::{GENERATION, MAX_PAYLOAD};
use crate::sandbox::{Sandbox, Stream, read_left};

/// The largest piece of content in one frame, in bytes.
pub const PIECE: usize = 256 * 1024;

/// Access to one workspace.
#[derive(Clone, Debug)]
pub struct Files {
    way: Way,
}

/// How a workspace is reached.
#[derive(Clone, Debug)]
enum Way {
    /// Through the agent of the sandbox that has it.
    Sandbox(Arc<dyn Sandbox>),
    /// By ourselves, for reading: there is no sandbox any more.
    Left {
        directory: PathBuf,
        /// For each operation at once.
        slots: Arc<Semaphore>,
    },
}

/// Why an operation on files did not happen.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// It was refused.
    #[error("{message}")]
    Refused {
        /// Which kind of refusal.
        code: FileErrorCode,
        /// What, why, and what to do.
        message: String,
    },
    /// The sandbox could not be spoken to, or went away.
    #[error("the sandbox did not answer")]
    Lost(#[source] KernelError),
}

impl Files {
    pub(crate) fn new(sandbox: Arc<dyn Sandbox>) -> Self {
        Self {
            way: Way::Sandbox(sandbox),
        }
    }

    /// Those that a sandbox has left. They can be read, and not changed.
    pub(crate) fn left(directory: PathBuf, slots: Arc<Semaphore>) -> Self {
        Self {
            way: Way::Left { directory, slots },
        }
    }

    /// The entries of a directory after a name, and whether there are more.
    ///
    /// # Errors
    /// Refused, or the sandbox is gone.
    pub async fn list(
        &self,
        path: String,
        after: Option<String>,
        limit: u32,
    ) -> Result<(Vec<FileEntry>, bool), FilesError> {
        match self
            .simple(FileRequest::List { path, after, limit })
            .await?
        {
            FileAnswer::Entries { entries, more } => Ok((entries, more)),
            other => Err(unexpected(&other)),
        }
    }

    /// One entry.
    ///
    /// # Errors
    /// Refused, or the sandbox is gone.
    pub async fn stat(&self, path: String) -> Result<FileEntry, FilesError> {
        entry(self.simple(FileRequest::Stat { path }).await?)
    }

    /// Makes a directory and those above it.
    ///
    /// # Errors
    /// Refused, or the sandbox is gone.
    pub async fn make_dir(&self, path: String) -> Result<FileEntry, FilesError> {
        entry(self.simple(FileRequest::MakeDir { path }).await?)
    }

    /// Removes a file, or a directory with all it holds.
    ///
    /// # Errors
    /// Refused, or the sandbox is gone.
    pub async fn delete(&self, path: String) -> Result<(), FilesError> {
        match self.simple(FileRequest::Delete { path }).await? {
            FileAnswer::Deleted => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Begins to read a file.
    ///
    /// # Errors
    /// Refused, or the sandbox is gone.
    pub async fn read(
        &self,
        path: String,
        offset: u64,
        length: Option<u64>,
    ) -> Result<Download, FilesError> {
        let mut connection = self
            .open(FileRequest::Read {
                path,
                offset,
                length,
            })
            .await?;
        let entry = entry(connection.answer().await?)?;
        Ok(Download { entry, connection })
    }

    /// Begins to write a file. It appears when [`Upload::finish`] returns; dropped before that, nothing of it stays.
    ///
    /// # Errors
    /// The sandbox is gone.
    pub async fn write(&self, path: String, length: Option<u64>) -> Result<Upload, FilesError> {
        let connection = self.open(FileRequest::Write { path, length }).await?;
        Ok(Upload { connection })
    }

    async fn simple(&self, request: FileRequest) -> Result<FileAnswer, FilesError> {
        self.open(request).await?.answer().await
    }

    async fn open(&self, request: FileRequest) -> Result<Connection, FilesError> {
        let mut connection = match &self.way {
            Way::Sandbox(sandbox) => {
                let stream = sandbox
                    .connect()
                    .await
                    .map_err(|source| FilesError::Lost(KernelError::Sandbox(source)))?;
                let mut connection = Connection::new(stream);
                let hello = Hello {
                    generation: GENERATION,
                    purpose: Purpose::Files,
                    resume_after: 0,
                };
                connection.send(Kind::Hello, json(&hello)).await?;
                connection
            }
            Way::Left { directory, slots } => {
                let slot = slots.clone().acquire_owned().await;
                let slot = slot.map_err(|_| FilesError::Lost(KernelError::Closed))?;
                Connection::new(read_left(directory, slot).map_err(|error| not_left(&error))?)
            }
        };
        connection.send(Kind::FileRequest, json(&request)).await?;
        Ok(connection)
    }
}

/// A file that is being read.
#[derive(Debug)]
pub struct Download {
    entry: FileEntry,
    connection: Connection,
}

impl Download {
    /// The file.
    pub fn entry(&self) -> &FileEntry {
        &self.entry
    }

    /// The next piece of content; none at the end.
    ///
    /// # Errors
    /// It could not be read further, or the sandbox is gone.
    pub async fn next(&mut self) -> Result<Option<Bytes>, FilesError> {
        let frame = self.connection.receive().await?;
        match Kind::try_from(frame.kind) {
            Ok(Kind::Data) => Ok(Some(frame.payload)),
            Ok(Kind::End) => Ok(None),
            Ok(Kind::FileAnswer) => Err(unexpected(&parse(&frame)?)),
            _ => Err(nonsense()),
        }
    }
}

/// A file that is being written.
#[derive(Debug)]
pub struct Upload {
    connection: Connection,
}

impl Upload {
    /// Sends content, of any length.
    ///
    /// # Errors
    /// The quota or the disk is full, the path is refused, or the sandbox is gone.
    pub async fn send(&mut self, mut content: Bytes) -> Result<(), FilesError> {
        while !content.is_empty() {
            let piece = content.split_to(content.len().min(PIECE));
            if let Err(lost) = self.connection.send(Kind::Data, piece).await {
                // A refusal closes the agent's side: its reason is what the caller wants to know.
                return match self.connection.answer().await {
                    Ok(answer) => Err(unexpected(&answer)),
                    Err(_) => Err(lost),
                };
            }
        }
        Ok(())
    }

    /// Ends the file and moves it into place.
    ///
    /// # Errors
    /// As [`Upload::send`].
    pub async fn finish(mut self) -> Result<FileEntry, FilesError> {
        // If this cannot be sent the agent has refused; the answer says why.
        let sent = self.connection.send(Kind::End, Bytes::new()).await;
        match self.connection.answer().await {
            Ok(answer) => entry(answer),
            Err(lost) => Err(sent.err().unwrap_or(lost)),
        }
    }
}

struct Connection {
    frames: Framed<Box<dyn Stream>, FrameCodec>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}

impl Connection {
    fn new(stream: Box<dyn Stream>) -> Self {
        Self {
            frames: Framed::new(stream, FrameCodec),
        }
    }

    async fn send(&mut self, kind: Kind, payload: Bytes) -> Result<(), FilesError> {
        let frame = Frame {
            kind: kind as u8,
            flags: 0,
            number: 0,
            payload,
        };
        self.frames
            .send(frame)
            .await
            .map_err(|source| FilesError::Lost(KernelError::Codec(source)))
    }

    async fn receive(&mut self) -> Result<Frame, FilesError> {
        match self.frames.next().await {
            Some(Ok(frame)) => Ok(frame),
            Some(Err(source)) => Err(FilesError::Lost(KernelError::Codec(source))),
            None => Err(FilesError::Lost(KernelError::Closed)),
        }
    }

    async fn answer(&mut self) -> Result<FileAnswer, FilesError> {
        loop {
            let frame = self.receive().await?;
            match Kind::try_from(frame.kind) {
                Ok(Kind::AgentHello) => {}
                Ok(Kind::FileAnswer) => return parse(&frame),
                _ => return Err(nonsense()),
            }
        }
    }
}

fn not_left(error: &std::io::Error) -> FilesError {
    let code = match error.kind() {
        std::io::ErrorKind::NotFound => FileErrorCode::NotFound,
        _ => FileErrorCode::Io,
    };
    FilesError::Refused {
        code,
        message: format!("the session has left no files: {error}"),
    }
}

fn json(value: &impl serde::Serialize) -> Bytes {
    let bytes = serde_json::to_vec(value).expect("our own words are JSON");
    assert!(
        bytes.len() <= MAX_PAYLOAD,
        "front ends bound what they pass on"
    );
    bytes.into()
}

fn parse(frame: &Frame) -> Result<FileAnswer, FilesError> {
    serde_json::from_slice(&frame.payload).map_err(|_| nonsense())
}

fn entry(answer: FileAnswer) -> Result<FileEntry, FilesError> {
    match answer {
        FileAnswer::Entry { entry } => Ok(entry),
        other => Err(unexpected(&other)),
    }
}

fn unexpected(answer: &FileAnswer) -> FilesError {
    match answer {
        FileAnswer::Error { code, message } => FilesError::Refused {
            code: *code,
            message: message.clone(),
        },
        _ => nonsense(),
    }
}

fn nonsense() -> FilesError {
    FilesError::Lost(KernelError::Nonsense(
        "an answer that does not fit the request",
    ))
}
