//! The agent as a whole, with a kernel played by the test, and with the real one where it is installed.

mod client;
mod fake_kernel;
mod kernel;
mod limits;
mod pid_one;
mod python;
mod server;

use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::thread::JoinHandle;

use serde_json::{Value, json};
use tempfile::TempDir;

use self::client::Client;
pub(crate) use self::fake_kernel::Writer;
use self::fake_kernel::{FakeKernel, FakeZygote};
use super::*;
use crate::protocol::agent::{AgentHello, Kind, Purpose};
use crate::protocol::files::{FileAnswer, FileRequest};

/// An agent in a thread, with a zygote played by the test.
struct TestAgent {
    directory: TempDir,
    zygote: FakeZygote,
    starts: std::cell::Cell<u64>,
    thread: Option<JoinHandle<Result<ExitReason, AgentError>>>,
}

fn config() -> AgentConfig {
    AgentConfig {
        workspace_bytes: 64 * 1024 * 1024,
        memory_bytes: u64::MAX,
        processes: u32::MAX,
        cell_cpu_ms: None,
        orphan_ms: 60_000,
    }
}

impl TestAgent {
    fn start() -> Self {
        Self::start_with(config(), None)
    }

    fn start_with(config: AgentConfig, kernels: Option<(KernelSource, Value)>) -> Self {
        let directory = TempDir::new().unwrap();
        let listener = UnixListener::bind(directory.path().join("agent.sock")).unwrap();
        let zygote = FakeZygote::listen(directory.path());
        let workspace = directory.path().join("workspace");
        std::fs::create_dir(&workspace).unwrap();
        let (kernels, jail) = kernels.unwrap_or_else(|| {
            let directory = std::fs::File::open(directory.path()).unwrap().into();
            let source = KernelSource::Zygote {
                directory,
                namespaces: Vec::new(),
                cgroups: Vec::new(),
            };
            (source, json!({ "cwd": "/workspace" }))
        });
        let setup = Setup {
            sandbox: SandboxId::new(),
            listener: OwnedFd::from(listener),
            kernels,
            jail,
            workspace,
            visitors: Visitors::All,
            gauges: Gauges::default(),
            config,
        };
        let thread = std::thread::spawn(move || run(setup));
        Self {
            directory,
            zygote,
            starts: std::cell::Cell::new(100),
            thread: Some(thread),
        }
    }

    fn workspace(&self) -> PathBuf {
        self.directory.path().join("workspace")
    }

    fn stream(&self) -> UnixStream {
        UnixStream::connect(self.directory.path().join("agent.sock")).unwrap()
    }

    /// A control connection that has stored everything up to `resume_after`.
    fn connect(&self, resume_after: u64) -> (Client, AgentHello) {
        Client::greet(self.stream(), Purpose::Control, resume_after)
    }

    /// A control connection, and a kernel that was started over it.
    fn connect_with_kernel(&self) -> (Client, FakeKernel) {
        let (mut client, _) = self.connect(0);
        let kernel = self.start_kernel(&mut client);
        (client, kernel)
    }

    fn start_kernel(&self, client: &mut Client) -> FakeKernel {
        // Numbers of requests grow over the whole life of an agent.
        let number = self.starts.get() + 1;
        self.starts.set(number);
        client.send(Kind::StartKernel, number, b"");
        let kernel = self.zygote.next();
        let answer = client.wait_answer(number);
        assert_eq!(answer["error"], Value::Null, "{answer}");
        assert_eq!(client.started().request, number);
        kernel
    }

    /// One operation on files.
    fn files(&self, request: &FileRequest) -> FileAnswer {
        let (mut client, _) = Client::greet(self.stream(), Purpose::Files, 0);
        client.send_json(Kind::FileRequest, 0, request);
        client.file_answer()
    }

    fn join(mut self) -> ExitReason {
        self.thread.take().unwrap().join().unwrap().unwrap()
    }
}

impl Drop for TestAgent {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            let (mut client, _) = self.connect(u64::MAX);
            client.send(Kind::Shutdown, 0, b"");
            let ended = thread.join();
            if !std::thread::panicking() {
                assert_eq!(ended.unwrap().unwrap(), ExitReason::Shutdown);
            }
        }
    }
}
