//! New connections, up to the point where it is known what they are for.

use std::sync::Arc;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Duration;
use tokio_util::codec::{Decoder, Encoder};

use super::files;
use super::workspace::Workspace;
use super::{Secret, Visitors};
use crate::protocol::agent::{AgentHello, Hello, Kind, Purpose};
use crate::protocol::codec::{Frame, FrameCodec};

/// Connections at one time; more wait to be accepted.
const MOST_CONNECTIONS: usize = 128;

/// Operations on files at one time; more wait to be served.
const MOST_FILES: usize = 16;

/// How long a peer may take to say hello.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long to wait when a connection cannot be accepted.
const PAUSE: Duration = Duration::from_millis(50);

/// The largest hello.
const HELLO: usize = 4096;

/// Accepts connections.
#[derive(Debug)]
pub(crate) struct Door {
    listener: UnixListener,
    visitors: Visitors,
    connections: Arc<Semaphore>,
    files: Arc<Semaphore>,
    /// Told when an operation on files has ended.
    pub(crate) files_done: Arc<Notify>,
    sender: mpsc::Sender<Guest>,
    guests: mpsc::Receiver<Guest>,
}

/// A connection that has said hello.
#[derive(Debug)]
pub(crate) struct Guest {
    /// The connection.
    pub(crate) stream: UnixStream,
    /// What it said.
    pub(crate) hello: Hello,
    /// What it has sent after that.
    pub(crate) received: BytesMut,
    slot: OwnedSemaphorePermit,
}

/// Held by an operation on files.
struct FilesSlot {
    _connection: OwnedSemaphorePermit,
    _files: OwnedSemaphorePermit,
    done: Arc<Notify>,
}

impl Drop for FilesSlot {
    fn drop(&mut self) {
        self.done.notify_one();
    }
}

impl Door {
    /// Accepts them at that socket.
    pub(crate) fn new(listener: UnixListener, visitors: Visitors) -> Self {
        let (sender, guests) = mpsc::channel(8);
        Self {
            listener,
            visitors,
            connections: Arc::new(Semaphore::new(MOST_CONNECTIONS)),
            files: Arc::new(Semaphore::new(MOST_FILES)),
            files_done: Arc::default(),
            sender,
            guests,
        }
    }

    /// Waits for the next connection that says hello.
    pub(crate) async fn next(&mut self) -> Guest {
        loop {
            tokio::select! {
                (stream, slot) = accept(&self.listener, &self.connections) => {
                    let (visitors, sender) = (self.visitors, self.sender.clone());
                    tokio::spawn(async move {
                        let greeted = tokio::time::timeout(PATIENCE, greet(visitors, stream, slot)).await;
                        // Whoever does not say hello is not worth a word.
                        if let Ok(Some(guest)) = greeted {
                            let _ = sender.send(guest).await;
                        }
                    });
                }
                Some(guest) = self.guests.recv() => return guest,
            }
        }
    }

    /// Serves a guest that came for files.
    pub(crate) fn serve_files(&self, guest: Guest, hello: &AgentHello, workspace: Arc<Workspace>) {
        let slots = Arc::clone(&self.files);
        let done = Arc::clone(&self.files_done);
        let hello = serde_json::to_vec(hello).expect("a hello is plain data");
        tokio::spawn(async move {
            let Guest {
                mut stream,
                received,
                slot,
                hello: Hello { .. },
            } = guest;
            let Ok(files) = slots.acquire_owned().await else {
                return;
            };
            let mut frame = BytesMut::new();
            let encoded = FrameCodec.encode(
                Frame {
                    kind: Kind::AgentHello as u8,
                    flags: 0,
                    number: 0,
                    payload: hello.into(),
                },
                &mut frame,
            );
            if encoded.is_err() || stream.write_all(&frame).await.is_err() {
                return;
            }
            if let Ok(stream) = stream.into_std() {
                let slot = FilesSlot {
                    _connection: slot,
                    _files: files,
                    done,
                };
                files::serve(
                    stream,
                    received.to_vec(),
                    workspace,
                    files::Access::Full,
                    slot,
                );
            }
        });
    }
}

async fn accept(
    listener: &UnixListener,
    connections: &Arc<Semaphore>,
) -> (UnixStream, OwnedSemaphorePermit) {
    let slot = Arc::clone(connections)
        .acquire_owned()
        .await
        .expect("nobody closes it");
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return (stream, slot),
            // No descriptors left, say: that must not become a loop without a pause.
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

async fn greet(
    visitors: Visitors,
    mut stream: UnixStream,
    slot: OwnedSemaphorePermit,
) -> Option<Guest> {
    if let Visitors::Knowing(secret) = visitors {
        let mut said = Secret::default();
        stream.read_exact(&mut said).await.ok()?;
        // One answer for all that are wrong, in the same time.
        let differences = said
            .iter()
            .zip(&secret)
            .fold(0, |all, (a, b)| all | (a ^ b));
        if differences != 0 {
            return None;
        }
    }
    let mut received = BytesMut::new();
    let frame = loop {
        if let Some(frame) = FrameCodec.decode(&mut received).ok()? {
            break frame;
        }
        if received.len() > HELLO || stream.read_buf(&mut received).await.ok()? == 0 {
            return None;
        }
    };
    if frame.kind != Kind::Hello as u8 {
        return None;
    }
    let hello: Hello = serde_json::from_slice(&frame.payload).ok()?;
    // The one connection of the server's own needs no slot among many.
    Some(Guest {
        stream,
        hello,
        received,
        slot,
    })
}

impl Guest {
    /// Whether it comes for control.
    pub(crate) fn wants_control(&self) -> bool {
        self.hello.purpose == Purpose::Control
    }
}
