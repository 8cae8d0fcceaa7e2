//! What only containers have: an engine that may be missing, an image that may be wrong, and hands that remove what is not theirs.
//!
//! Run by `tests/on_docker.sh`, which says so by name where there is no engine; in a run on the native backend they are ignored.

use std::path::Path;
use std::time::Duration;

use serde_json::json;
use tokio::time::timeout;

use crate::harness::backend::{container, docker};
use crate::harness::server::{PATIENCE, Server, program};

/// Why a server does not start.
async fn refusal(arguments: &[&str]) -> String {
    let directory = tempfile::tempdir().unwrap();
    refusal_at(directory.path(), arguments).await
}

/// Why a server does not start on this data.
pub(super) async fn refusal_at(data_dir: &Path, arguments: &[&str]) -> String {
    let mut command = program(data_dir, arguments);
    command
        .args(["--backend", "docker"])
        .stderr(std::process::Stdio::piped());
    let output = timeout(PATIENCE, command.output())
        .await
        .expect("it gives up")
        .unwrap();
    assert!(!output.status.success());
    String::from_utf8(output.stderr).unwrap()
}

#[tokio::test]
async fn a_server_without_an_engine_says_what_is_missing() {
    let text = refusal(&["--docker-host", "unix:///nonexistent/docker.sock"]).await;
    assert!(
        text.contains("error: the Docker backend cannot be used: docker engine:"),
        "{text}"
    );
    assert!(text.contains("\nhint: start it"), "{text}");
}

#[tokio::test]
#[ignore = "needs an engine: tests/on_docker.sh runs it"]
async fn an_image_that_is_not_there_or_speaks_otherwise_is_refused() {
    let text = refusal(&["--docker-image", "evercell-test:none"]).await;
    assert!(
        text.contains("docker image: `evercell-test:none` is not there"),
        "{text}"
    );
    assert!(text.contains("hint: build it with `make image`"), "{text}");

    let tag = format!("evercell-test:{}", std::process::id());
    let context = tempfile::tempdir().unwrap();
    let dockerfile = context.path().join("Dockerfile");
    for (label, told) in [
        ("evercell.protocol=0", "speaks generation 0 of the protocol"),
        ("evercell.version=0.0.1", ""),
    ] {
        std::fs::write(
            &dockerfile,
            format!("FROM evercell-kernel\nLABEL {label}\n"),
        )
        .unwrap();
        docker(&[
            "build",
            "--quiet",
            "--tag",
            &tag,
            context.path().to_str().unwrap(),
        ])
        .await;
        if told.is_empty() {
            // Of another version, but understood.
            let server = Server::start_with(&["--docker-image", &tag]).await;
            server.open("s").await;
            assert_eq!(server.prints("s", "print(1)").await, "1\n");
        } else {
            let text = refusal(&["--docker-image", &tag]).await;
            assert!(text.contains(told), "{text}");
        }
    }
    docker(&["rmi", "--force", &tag]).await;
}

#[tokio::test]
#[ignore = "needs an engine: tests/on_docker.sh runs it"]
async fn a_runtime_that_the_engine_does_not_know_is_refused() {
    let text = refusal(&["--docker-runtime", "nonsense"]).await;
    assert!(
        text.contains("runtime: the engine has no runtime `nonsense`"),
        "{text}"
    );
}

#[tokio::test]
#[ignore = "needs an engine: tests/on_docker.sh runs it"]
async fn a_server_touches_no_containers_but_its_own() {
    let first = Server::start_with(&[]).await;
    first.open("s").await;
    first.prints("s", "x = 41; print(x)").await;
    let mut second = Server::start_with(&["--pool", "1"]).await;
    let of_second = second.sandboxes();
    second.replace(&[]).await;
    eventually("what the second had left is gone", async || {
        let all = docker(&["ps", "--all", "--format", "{{.Names}}"]).await;
        !of_second
            .iter()
            .any(|sandbox| all.contains(&container(sandbox)))
    })
    .await;
    assert_eq!(first.prints("s", "print(x + 1)").await, "42\n");
}

#[tokio::test]
#[ignore = "needs an engine: tests/on_docker.sh runs it"]
async fn a_stop_while_kernels_are_made_leaves_no_container() {
    let mut server = Server::start_with(&["--pool", "2"]).await;
    server.open("s").await;
    let data = server.data_dir().join("run");
    assert!(server.stop().await.success());
    let sandboxes: Vec<_> = std::fs::read_dir(data)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert!(sandboxes.is_empty(), "{sandboxes:?}");
}

#[tokio::test]
#[ignore = "needs an engine: tests/on_docker.sh runs it"]
async fn a_server_takes_plotlys_script_out_of_the_image() {
    // However it reaches agents: as it finds out by trying, or as it is told.
    for link in [None, Some("exec")] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("data");
        let mut command = program(&path, &[]);
        command.env_remove("EVERCELL_DOCKER_LINK");
        if let Some(link) = link {
            command.args(["--docker-link", link]);
        }
        let server = Server::spawn(command, &path).await;
        let script = server.get("/libraries/plotly.js").await;
        server.open("s").await;
        let version = server
            .prints(
                "s",
                "from plotly.offline import get_plotlyjs_version as v; print(v())",
            )
            .await;
        let banner = format!("plotly.js v{}", version.trim());
        let script = String::from_utf8(script.body).unwrap();
        assert!(script.contains(&banner), "{banner}");
    }
}

#[tokio::test]
#[ignore = "needs an engine: tests/on_docker.sh runs it"]
async fn where_no_socket_leads_into_a_container_the_engine_does() {
    let arguments = ["--docker-link", "exec"];
    let mut server = Server::start_with(&arguments).await;
    server.open("s").await;
    server
        .prints("s", "import ctypes, os\nkept = 7\nprint(kept)")
        .await;
    // What ends a kernel ends neither the agent nor the way to it.
    for code in ["os._exit(3)", "ctypes.string_at(0)"] {
        server.protect("s").await;
        let result = server.run("s", code).await;
        assert_eq!(result["state"]["verdict"], "rolled_back", "{result:#}");
        assert_eq!(server.prints("s", "print(kept)").await, "7\n", "{code}");
    }
    server
        .request("PUT", "/v1/sessions/s/files/f", b"content")
        .await;
    assert_eq!(
        server.prints("s", "print(open('f').read())").await,
        "content\n"
    );
    // A kernel that calls at the agent's door is not let in.
    let knocks = "import socket\ns = socket.socket(socket.AF_UNIX)\n\
                  try:\n    s.connect('\\0evercell-agent'); print(s.recv(10))\nexcept OSError as e: print(b'')";
    assert_eq!(server.prints("s", knocks).await, "b''\n");
    server.replace(&arguments).await;
    assert_eq!(server.prints("s", "print(kept)").await, "7\n");
    assert_eq!(server.get("/v1/sessions/s/files/f").await.body, b"content");
    server.post("/v1/sessions/s/restart", &json!({})).await;
    assert_eq!(server.run("s", "kept").await["error"]["ename"], "NameError");
}

/// Waits until something is so that nobody tells of.
pub(super) async fn eventually(what: &str, is_so: impl AsyncFn() -> bool) {
    let waiting = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    assert!(
        timeout(PATIENCE, waiting).await.is_ok(),
        "it did not come to this: {what}"
    );
}
