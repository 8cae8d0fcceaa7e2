//! An engine for tests: it answers what a test says, and makes nothing.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

use super::engine::Engine;
use super::reaper::Reaper;
use super::{Config, Shared};

/// It runs until it is dropped.
pub(super) struct FakeEngine {
    directory: TempDir,
    requests: Arc<Mutex<Vec<String>>>,
}

impl FakeEngine {
    /// One that answers requests, given as `METHOD /path`, with a status and a body; with status 0 it hangs up.
    pub(super) fn start(
        answers: impl Fn(&str) -> (u16, &'static str) + Send + Sync + 'static,
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(socket(directory.path())).unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&requests);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                answer(client, &answers, &heard).await;
            }
        });
        Self {
            directory,
            requests,
        }
    }

    /// What it was asked for.
    pub(super) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    /// What a backend on this engine has.
    pub(super) fn shared(&self) -> Arc<Shared> {
        let data_dir = self.directory.path().to_owned();
        let host = format!("unix://{}", socket(&data_dir).display());
        Arc::new(Shared {
            engine: Engine::at(Some(&host)).unwrap(),
            run: data_dir.join("run"),
            server: "test".to_owned(),
            agent: data_dir.join("agent"),
            owners: None,
            reaper: Reaper::default(),
            config: Config {
                data_dir,
                host: Some(host),
                image: "image".to_owned(),
                runtime: None,
                link: None,
                first_id: 0,
                ids: 1,
                orphan: Duration::from_secs(1),
            },
        })
    }
}

fn socket(directory: &Path) -> std::path::PathBuf {
    directory.join("docker.sock")
}

async fn answer(
    mut client: UnixStream,
    answers: &(impl Fn(&str) -> (u16, &'static str) + Send + Sync),
    heard: &Mutex<Vec<String>>,
) {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        if client.read_buf(&mut head).await.unwrap_or(0) == 0 {
            return;
        }
    }
    let head = String::from_utf8_lossy(&head);
    let line = head.split(" HTTP/").next().unwrap_or_default().to_owned();
    let (status, body) = answers(&line);
    heard.lock().unwrap().push(line);
    if status == 0 {
        return;
    }
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    let _ = client.write_all(answer.as_bytes()).await;
}
