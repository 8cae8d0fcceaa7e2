//! An engine that goes away, hangs, refuses, or leaves things behind: what a session has stays, and who waits is told.
//!
//! The engine is real; between it and the server stands a way that a test can block.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use evercell::model::event::{Event, Verdict};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::containers::eventually;
use crate::harness::backend::{container, docker, engine_socket};
use crate::harness::server::Server;

/// What becomes of a request.
#[derive(Clone, Copy, Debug)]
enum Traffic {
    Flows,
    /// It is taken and never answered.
    Hangs,
    /// What has to do with containers that are there breaks off.
    Breaks,
    /// What would make a container is answered like this.
    Refused(&'static str, &'static str),
}

/// A way to the engine.
struct Way {
    directory: TempDir,
    open: Option<DropGuard>,
    /// How many requests broke off.
    broken: Arc<AtomicUsize>,
}

impl Way {
    /// Where the engine seems to be.
    fn socket(&self) -> PathBuf {
        self.directory.path().join("docker.sock")
    }

    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut way = Self {
            directory,
            open: None,
            broken: Arc::default(),
        };
        way.becomes(Traffic::Flows);
        way
    }

    /// Nobody is there any more, and what was being asked breaks off.
    fn ends(&mut self) {
        self.open = None;
        let _ = std::fs::remove_file(self.socket());
    }

    /// What was being asked breaks off, and what is asked from now on goes like this.
    fn becomes(&mut self, traffic: Traffic) {
        self.ends();
        let listener = UnixListener::bind(self.socket()).unwrap();
        let end = CancellationToken::new();
        let (ended, broken) = (end.clone(), Arc::clone(&self.broken));
        tokio::spawn(async move {
            let mut carried = JoinSet::new();
            while let Some(Ok((client, _))) = ended.run_until_cancelled(listener.accept()).await {
                carried.spawn(carry(client, traffic, Arc::clone(&broken)));
            }
        });
        self.open = Some(end.drop_guard());
    }

    fn arguments(&self) -> [String; 2] {
        [
            "--docker-host".to_owned(),
            format!("unix://{}", self.socket().display()),
        ]
    }

    /// Waits until more requests have broken off than a connection is tried again that breaks by itself.
    async fn broke(&self) {
        eventually("requests have broken off", async || {
            self.broken.load(Ordering::Relaxed) > 8
        })
        .await;
    }

    /// A server that makes each container when it is wanted, but for the one that a start is proved with.
    async fn server(&self) -> Server {
        let [flag, host] = self.arguments();
        Server::start_with(&[&flag, &host, "--pool-max", "0"]).await
    }
}

async fn carry(mut client: UnixStream, traffic: Traffic, broken: Arc<AtomicUsize>) {
    let mut engine = UnixStream::connect(engine_socket()).await.unwrap();
    let mut head = vec![0; 4096];
    let length = client.read(&mut head).await.unwrap_or(0);
    head.truncate(length);
    match traffic {
        Traffic::Hangs => return std::future::pending().await,
        Traffic::Refused(status, message)
            if head.windows(18).any(|part| part == b"/containers/create") =>
        {
            let body = serde_json::json!({ "message": message }).to_string();
            let answer = format!(
                "HTTP/1.1 {status}\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            let _ = client.write_all(answer.as_bytes()).await;
            return;
        }
        Traffic::Breaks if head.windows(20).any(|part| part == b"/containers/evercell") => {
            broken.fetch_add(1, Ordering::Relaxed);
            return;
        }
        Traffic::Flows | Traffic::Breaks | Traffic::Refused(..) => {}
    }
    if engine.write_all(&head).await.is_ok() {
        let _ = copy_bidirectional(&mut client, &mut engine).await;
    }
}

/// Why a session has no kernel, once it has none.
async fn problem(server: &Server, id: &str) -> String {
    let mut socket = server.socket(id, 0).await;
    socket
        .wait_until(|event| matches!(event, Event::KernelFailed { .. }))
        .await;
    let failed = socket
        .seen
        .iter()
        .rev()
        .find_map(|envelope| match &envelope.event {
            Event::KernelFailed { message } => Some(message.clone()),
            _ => None,
        });
    failed.unwrap()
}

#[tokio::test]
#[ignore = "needs an engine: tests/on_docker.sh runs it"]
async fn an_engine_that_goes_away_takes_no_session_with_it() {
    let mut way = Way::new();
    let server = way.server().await;
    server.open("s").await;
    server.prints("s", "x = 41; print(x)").await;
    let of_s = server.sandboxes();
    way.ends();
    // What runs needs no engine, a crash included.
    server.protect("s").await;
    let result = server.run("s", "import os; os._exit(1)").await;
    assert_eq!(result["state"]["verdict"], "rolled_back", "{result:#}");
    assert_eq!(server.prints("s", "print(x + 1)").await, "42\n");
    server.open("u").await;
    let why = problem(&server, "u").await;
    assert!(why.contains("the Docker engine does not answer"), "{why}");
    assert_eq!(
        server.request("DELETE", "/v1/sessions/s", b"").await.status,
        204
    );

    way.becomes(Traffic::Flows);
    assert_eq!(server.prints("u", "print('goes on')").await, "goes on\n");
    eventually("what could not be removed is gone", async || {
        let all = docker(&["ps", "--all", "--format", "{{.Names}}"]).await;
        let left = server.sandboxes();
        !of_s
            .iter()
            .any(|sandbox| left.contains(sandbox) || all.contains(&container(sandbox)))
    })
    .await;
}

#[tokio::test]
#[ignore = "needs an engine: tests/on_docker.sh runs it"]
async fn a_server_takes_up_its_sessions_when_the_engine_is_back() {
    let mut way = Way::new();
    let mut server = way.server().await;
    server.open("s").await;
    server.prints("s", "x = 41; print(x)").await;
    server.kill().await;
    way.ends();
    let arguments = way.arguments();
    let arguments = arguments.each_ref().map(String::as_str);
    let text = super::containers::refusal_at(server.data_dir(), &arguments).await;
    assert!(
        text.contains("docker engine: the Docker engine does not answer"),
        "{text}"
    );
    way.becomes(Traffic::Flows);
    let next = Server::start_at(server.data_dir(), &arguments).await;
    assert_eq!(next.prints("s", "print(x + 1)").await, "42\n");
}

#[tokio::test]
#[ignore = "needs an engine: tests/on_docker.sh runs it"]
async fn where_an_engine_leads_to_the_agents_its_absence_costs_no_variables() {
    let mut way = Way::new();
    let host = way.arguments();
    let arguments = [
        &host[0],
        &host[1],
        "--docker-link",
        "exec",
        "--pool-max",
        "0",
    ];
    let mut server = Server::start_with(&arguments).await;
    server.open("s").await;
    server.prints("s", "x = 41; print(x)").await;
    // Every connection breaks off, and none can be made.
    way.becomes(Traffic::Breaks);
    way.broke().await;
    way.becomes(Traffic::Flows);
    assert_eq!(server.prints("s", "print(x + 1)").await, "42\n");

    // It is away when another server has just started.
    server.kill().await;
    way.broken.store(0, Ordering::Relaxed);
    way.becomes(Traffic::Breaks);
    let back = async {
        way.broke().await;
        way.becomes(Traffic::Flows);
    };
    let (next, ()) = tokio::join!(Server::start_at(server.data_dir(), &arguments), back);
    assert_eq!(next.prints("s", "print(x + 2)").await, "43\n");
}

#[tokio::test]
#[ignore = "needs an engine: tests/on_docker.sh runs it"]
async fn an_engine_that_hangs_hangs_nobody_who_does_not_need_it() {
    let mut way = Way::new();
    let server = way.server().await;
    server.open("s").await;
    server.prints("s", "x = 41; print(x)").await;
    way.becomes(Traffic::Hangs);
    // It waits for a container.
    server.open("t").await;
    assert_eq!(server.prints("s", "print(x + 1)").await, "42\n");
    assert_eq!(server.get("/v1/sessions").await.status, 200);
    // What was being asked breaks off.
    way.becomes(Traffic::Flows);
    problem(&server, "t").await;
    assert_eq!(server.prints("t", "print('goes on')").await, "goes on\n");
}

#[tokio::test]
#[ignore = "needs an engine: tests/on_docker.sh runs it"]
async fn what_an_engine_refuses_is_told_and_leaves_nothing() {
    let mut way = Way::new();
    let server = way.server().await;
    server.open("the-one-that-is-warm").await;
    // Has it, before another opens: sessions that open side by side take it in any order.
    server
        .prints("the-one-that-is-warm", "print('ready')")
        .await;
    for (id, status, message) in [
        (
            "full",
            "500 Internal Server Error",
            "write /var/lib/docker: no space left on device",
        ),
        (
            "named",
            "409 Conflict",
            "Conflict. The container name is already in use",
        ),
    ] {
        way.becomes(Traffic::Refused(status, message));
        server.open(id).await;
        let why = problem(&server, id).await;
        assert!(why.contains(message), "{why}");
        way.becomes(Traffic::Flows);
        assert_eq!(server.prints(id, "print('goes on')").await, "goes on\n");
    }
}

#[tokio::test]
#[ignore = "needs an engine: tests/on_docker.sh runs it"]
async fn what_an_engine_has_left_of_ours_is_removed_and_nothing_else() {
    let mut server = Server::start_with(&["--pool-max", "0"]).await;
    server.open("s").await;
    server.prints("s", "x = 41; print(x)").await;
    let [ours] = &server.sandboxes()[..] else {
        panic!("there is one session, and one sandbox");
    };
    let label = docker(&[
        "inspect",
        "--format",
        "{{index .Config.Labels \"evercell.server\"}}",
        &container(ours),
    ])
    .await;
    let left = |server: &str| {
        let id = evercell::model::id::SandboxId::new();
        (
            format!("evercell-{id}"),
            [
                format!("evercell.server={server}"),
                format!("evercell.sandbox={id}"),
            ],
        )
    };
    // One that was never started, and one that has ended and was not removed; and one of somebody else.
    let (of_ours, of_another) = ([left(&label), left(&label)], left("another"));
    for (name, [server, sandbox]) in of_ours.iter().chain([&of_another]) {
        docker(&[
            "create",
            "--name",
            name,
            "--label",
            server,
            "--label",
            sandbox,
            "evercell-kernel",
            "true",
        ])
        .await;
    }
    docker(&["start", &of_ours[1].0]).await;
    server.replace(&["--pool-max", "0"]).await;
    eventually("what was left is gone", async || {
        let all = docker(&["ps", "--all", "--format", "{{.Names}}"]).await;
        !of_ours.iter().any(|(name, _)| all.contains(name.as_str()))
    })
    .await;
    assert_eq!(server.prints("s", "print(x + 1)").await, "42\n");
    // Fails if it is not there any more.
    docker(&["rm", &of_another.0]).await;
}

#[tokio::test]
#[ignore = "needs an engine: tests/on_docker.sh runs it"]
async fn a_container_killed_by_a_third_hand_costs_its_variables_and_the_log_says_so() {
    for hand in [&["kill"][..], &["rm", "--force"]] {
        let server = Server::start_with(&["--pool-max", "0"]).await;
        server.open("s").await;
        server
            .prints("s", "x = 1; open('kept', 'w').write('file'); print(x)")
            .await;
        let mut socket = server.socket("s", 0).await;
        let [sandbox] = &server.sandboxes()[..] else {
            panic!("there is one session, and one sandbox");
        };
        docker(&[hand, &[container(sandbox).as_str()]].concat()).await;
        socket
            .wait_until(|event| {
                matches!(
                    event,
                    Event::KernelLost {
                        state: Verdict::Lost { .. },
                        ..
                    }
                )
            })
            .await;
        assert_eq!(server.run("s", "x").await["error"]["ename"], "NameError");
        assert_eq!(
            server.prints("s", "print(open('kept').read())").await,
            "file\n"
        );
    }
}
