//! A real server as a process of its own, on a data directory of its own, with real kernels in real sandboxes.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use evercell::model::event::Envelope;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::backend::{in_containers, in_gvisor};
use super::socket::Socket;

/// The token of every test server.
pub const TOKEN: &str = "a-token-for-tests";
/// How long anything may take before a test says what it waited for. Generous: it bounds a deadlock, it measures nothing.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A running server. Dropped, it is killed; what it left is then the agents' own business to end.
pub struct Server {
    child: Child,
    pub address: String,
    directory: Option<tempfile::TempDir>,
    path: PathBuf,
}

/// An answer over HTTP.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| {
            panic!(
                "{error}: {} {}",
                self.status,
                String::from_utf8_lossy(&self.body)
            )
        })
    }

    /// The stable code of a refusal.
    #[track_caller]
    pub fn code(&self) -> String {
        self.json()["error"]["code"]
            .as_str()
            .expect("a refusal has a code")
            .to_owned()
    }

    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }
}

/// The repository.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The server's program with what every test gives it; the rest is the test's.
pub fn program(data_dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_evercell"));
    command
        .arg("serve")
        .args(["--listen", "127.0.0.1:0", "--token", TOKEN])
        .arg("--data-dir")
        .arg(data_dir)
        .arg("--python-env")
        .arg(repository().join(".venv"))
        .arg("--kernel-lib")
        .arg(repository().join("kernel-image"))
        .args([
            "--backend",
            if in_containers() { "docker" } else { "native" },
        ])
        // Found out by a trial otherwise, which takes a container for each server.
        .env(
            "EVERCELL_DOCKER_LINK",
            if in_gvisor() { "exec" } else { "socket" },
        )
        // Without a zygote, a warm kernel takes seconds of a processor.
        .env("EVERCELL_POOL", if in_containers() { "0" } else { "1" })
        .args(arguments)
        // A server that is dropped is killed, and nobody takes up what it leaves.
        .env("EVERCELL_ORPHAN_LIMIT", "30s")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    command
}

impl Server {
    /// A server with the defaults and a small pool.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// A server with arguments of its own.
    pub async fn start_with(arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("data");
        let mut server = Self::start_at(&path, arguments).await;
        server.directory = Some(directory);
        server
    }

    /// A server on a data directory that is there.
    pub async fn start_at(path: &Path, arguments: &[&str]) -> Self {
        Self::spawn(program(path, arguments), path).await
    }

    /// A server whose data directory is a disk of its own, so large; only root can make one.
    pub async fn start_on_disk(path: &Path, mebibytes: u32, arguments: &[&str]) -> Self {
        let program = program(path, arguments);
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--propagation", "private", "sh", "-c"])
            .arg(format!(
                "mount -t tmpfs -o size={mebibytes}m,mode=700 tmpfs \"$0\" && exec \"$@\""
            ))
            .arg(path)
            .arg(program.as_std().get_program())
            .args(program.as_std().get_args())
            .envs(
                program
                    .as_std()
                    .get_envs()
                    .filter_map(|(name, value)| Some((name, value?))),
            )
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        Self::spawn(command, path).await
    }

    /// A server as this command starts it, on this data directory.
    pub async fn spawn(mut command: Command, path: &Path) -> Self {
        let mut child = command.spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        let mut lines = BufReader::new(stdout).lines();
        let ready = timeout(2 * PATIENCE, lines.next_line())
            .await
            .expect("the server gets ready")
            .unwrap();
        let ready = ready.expect("a server that can serve says so");
        let url = ready
            .split_whitespace()
            .find(|word| word.starts_with("http://"))
            .expect("the ready line has the URL");
        let address = url["http://".len()..]
            .split(['/', '?'])
            .next()
            .unwrap()
            .to_owned();
        Self {
            child,
            address,
            directory: None,
            path: path.to_owned(),
        }
    }

    /// Its data directory.
    pub fn data_dir(&self) -> &Path {
        &self.path
    }

    /// Its data directory, as it is where the server has mounted something over it.
    pub fn disk(&self) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.pid()));
        root.join(self.path.strip_prefix("/").expect("it is absolute"))
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// Asks it to stop, and waits until it has.
    pub async fn stop(&mut self) -> std::process::ExitStatus {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.pid()).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        timeout(PATIENCE, self.child.wait())
            .await
            .expect("the server stops when asked to")
            .unwrap()
    }

    /// Kills it at once.
    pub async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    /// Kills it at once, without waiting for its end.
    pub fn kill_now(&self) {
        let pid = i32::try_from(self.pid()).unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }

    /// Kills it, and starts another one in its place: on the same data, at the same address.
    pub async fn replace(&mut self, arguments: &[&str]) {
        self.kill().await;
        let address = self.address.clone();
        let mut all = vec!["--listen", address.as_str()];
        all.extend(arguments);
        let mut next = Self::start_at(&self.path, &all).await;
        next.directory = self.directory.take();
        *self = next;
    }

    /// The sandboxes that are written down in its data directory.
    pub fn sandboxes(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.path.join("run")).unwrap();
        entries
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.join("record.json").exists())
            .collect()
    }

    /// A request with the right token.
    pub async fn request(&self, method: &str, path: &str, body: &[u8]) -> Answer {
        let token = format!("authorization: Bearer {TOKEN}\r\n");
        self.raw(method, path, &token, body).await
    }

    /// A request with exactly these headers besides `host` and `content-length`.
    pub async fn raw(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> Answer {
        // HTTP/1.0, so that the answer's end is the connection's.
        let address = &self.address;
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.0\r\nhost: {address}\r\ncontent-length: {length}\r\n{headers}\r\n"
        );
        let exchange = async {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(head.as_bytes()).await.unwrap();
            // A refusal may come, and the connection go, before all of the body was sent.
            let _ = stream.write_all(body).await;
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer).await;
            answer
        };
        let answer = timeout(PATIENCE, exchange)
            .await
            .unwrap_or_else(|_| panic!("no answer to {method} {path}"));
        let end = answer
            .windows(4)
            .position(|four| four == b"\r\n\r\n")
            .expect("an answer has a head");
        let head = String::from_utf8(answer[..end].to_vec()).unwrap();
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .expect("an answer has a status");
        Answer {
            status,
            head,
            body: answer[end + 4..].to_vec(),
        }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.request("GET", path, b"").await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.json("POST", path, body).await
    }

    pub async fn put(&self, path: &str, body: &Value) -> Answer {
        self.json("PUT", path, body).await
    }

    async fn json(&self, method: &str, path: &str, body: &Value) -> Answer {
        let headers =
            format!("authorization: Bearer {TOKEN}\r\ncontent-type: application/json\r\n");
        self.raw(method, path, &headers, body.to_string().as_bytes())
            .await
    }

    /// Opens a session.
    pub async fn open(&self, id: &str) {
        self.open_with(id, json!({})).await;
    }

    /// Opens a session with settings.
    pub async fn open_with(&self, id: &str, settings: Value) {
        let answer = self.put(&format!("/v1/sessions/{id}"), &settings).await;
        assert!(matches!(answer.status, 200 | 201), "{answer:?}");
    }

    /// Runs code and waits for its result.
    pub async fn run(&self, id: &str, code: &str) -> Value {
        let answer = self
            .post(&format!("/v1/sessions/{id}/run"), &json!({ "code": code }))
            .await;
        assert_eq!(
            answer.status,
            200,
            "{}",
            String::from_utf8_lossy(&answer.body)
        );
        answer.json()
    }

    /// Runs code that must end well, and returns what it printed.
    pub async fn prints(&self, id: &str, code: &str) -> String {
        let result = self.run(id, code).await;
        assert_eq!(result["status"], "ok", "{result:#}");
        let text = result["text"]["stdout"]["preview"]
            .as_str()
            .unwrap_or_default();
        format!("{}\n", text.trim_end())
    }

    /// Runs cells that change nothing until one of them was protected: from then on there is a checkpoint with all that was before.
    pub async fn protect(&self, id: &str) {
        loop {
            let result = self.run(id, "sum(range(10**6));").await;
            if result["checkpoint"]["before"] == result["cell"] {
                return;
            }
        }
    }

    /// The whole log of a session.
    pub async fn log(&self, id: &str) -> Vec<Envelope> {
        let mut log: Vec<Envelope> = Vec::new();
        loop {
            let after = log.last().map_or(0, |envelope| envelope.seq);
            let path = format!("/v1/sessions/{id}/events?after={after}&limit=1000");
            let page = self.get(&path).await.json();
            let events: Vec<Envelope> = serde_json::from_value(page["events"].clone()).unwrap();
            if events.is_empty() {
                return log;
            }
            log.extend(events);
        }
    }

    /// A WebSocket on a session's log.
    pub async fn socket(&self, id: &str, after: u64) -> Socket {
        Socket::open(&self.address, id, after).await
    }
}
