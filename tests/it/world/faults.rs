//! Bad input and faults: each has a stated answer, and the server goes on.

use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::server::{Server, TOKEN, program, repository};

const MIB: u64 = 1024 * 1024;

#[tokio::test]
async fn bad_requests_are_refused_with_a_stable_code() {
    let server = Server::start().await;
    server.open("s").await;
    let json_body = |text: &str| text.as_bytes().to_vec();
    let cell = "01890000-0000-7000-8000-000000000000";
    let cases: Vec<(&str, String, Vec<u8>, &str)> = vec![
        ("PUT", "/v1/sessions/a%20b".into(), vec![], "bad_session_id"),
        (
            "PUT",
            format!("/v1/sessions/{}", "x".repeat(129)),
            vec![],
            "bad_session_id",
        ),
        ("PUT", "/v1/sessions/a%2Fb".into(), vec![], "bad_session_id"),
        (
            "PUT",
            "/v1/sessions/t".into(),
            json_body("{\"memory\": 1}"),
            "unknown_field",
        ),
        (
            "PUT",
            "/v1/sessions/t".into(),
            json_body("{\"memory_bytes\": 1}"),
            "bad_settings",
        ),
        (
            "PUT",
            "/v1/sessions/t".into(),
            json_body("{\"memory_bytes\": 1"),
            "bad_json",
        ),
        (
            "POST",
            "/v1/sessions/s/cells".into(),
            json_body("\u{1}"),
            "bad_json",
        ),
        (
            "POST",
            "/v1/sessions/s/cells".into(),
            vec![b'{', b'"', 0xff, b'"'],
            "bad_json",
        ),
        (
            "POST",
            "/v1/sessions/s/cells".into(),
            json_body("{\"code\": \"1\", \"cod\": 2}"),
            "unknown_field",
        ),
        (
            "POST",
            "/v1/sessions/s/cells".into(),
            json_body("{\"code\": \"1\", \"limit_ms\": 0}"),
            "bad_field",
        ),
        (
            "POST",
            "/v1/sessions/s/cells".into(),
            json_body("{\"code\": \"1\", \"limit_ms\": 99999999}"),
            "bad_field",
        ),
        (
            "POST",
            "/v1/sessions/none/cells".into(),
            json_body("{\"code\": \"1\"}"),
            "unknown_session",
        ),
        ("GET", "/v1/sessions/none".into(), vec![], "unknown_session"),
        (
            "DELETE",
            "/v1/sessions/none".into(),
            vec![],
            "unknown_session",
        ),
        (
            "GET",
            "/v1/sessions/s/cells/nonsense".into(),
            vec![],
            "bad_cell_id",
        ),
        (
            "GET",
            format!("/v1/sessions/s/cells/{cell}"),
            vec![],
            "unknown_cell",
        ),
        (
            "POST",
            format!("/v1/sessions/s/cells/{cell}/extend"),
            json_body("{\"by_ms\": 1}"),
            "unknown_cell",
        ),
        (
            "POST",
            "/v1/sessions/s/extend".into(),
            json_body("{\"by_ms\": 1}"),
            "nothing_runs",
        ),
        (
            "POST",
            "/v1/sessions/s/input".into(),
            json_body("{\"value\": \"x\"}"),
            "no_input",
        ),
        (
            "GET",
            "/v1/sessions/s/events?after=99999".into(),
            vec![],
            "cursor_ahead",
        ),
        (
            "GET",
            "/v1/sessions/s/events?after=x".into(),
            vec![],
            "bad_parameter",
        ),
        ("GET", "/v1/nothing".into(), vec![], "unknown_route"),
        ("PATCH", "/v1/sessions".into(), vec![], "method_not_allowed"),
    ];
    for (method, path, body, code) in cases {
        let headers =
            format!("authorization: Bearer {TOKEN}\r\ncontent-type: application/json\r\n");
        let answer = server.raw(method, &path, &headers, &body).await;
        assert_eq!(answer.code(), code, "{method} {path}: {answer:?}");
        assert!((400..500).contains(&answer.status));
    }
    let long = json!({ "code": "#".repeat(5 << 20) });
    let answer = server.post("/v1/sessions/s/cells", &long).await;
    assert!(["cell_too_large", "too_large"].contains(&answer.code().as_str()));
    assert_eq!(server.prints("s", "print('fine')").await, "fine\n");
}

#[tokio::test]
async fn nobody_comes_in_without_the_token() {
    let server = Server::start().await;
    for headers in [
        "",
        "authorization: Bearer wrong\r\n",
        "authorization: Basic eDp5\r\n",
        "cookie: token=x\r\n",
    ] {
        let answer = server.raw("GET", "/v1/sessions", headers, b"").await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (401, "unauthorized"),
            "{headers}"
        );
    }
    for path in ["/v1/sessions?token=wrong", "/v1/sessions?token="] {
        assert_eq!(server.raw("GET", path, "", b"").await.status, 401);
    }
    assert_eq!(
        server
            .raw("GET", &format!("/v1/sessions?token={TOKEN}"), "", b"")
            .await
            .status,
        200
    );
    assert_eq!(
        server
            .raw(
                "GET",
                "/v1/sessions",
                &format!("authorization: token {TOKEN}\r\n"),
                b""
            )
            .await
            .status,
        200
    );
    for open in ["/healthz", "/readyz", "/version"] {
        assert_eq!(server.raw("GET", open, "", b"").await.status, 200);
    }
}

#[tokio::test]
async fn a_foreign_page_cannot_use_the_server_even_with_the_token() {
    let server = Server::start().await;
    let with = |origin: &str| format!("authorization: Bearer {TOKEN}\r\norigin: {origin}\r\n");
    let foreign = server
        .raw("PUT", "/v1/sessions/x", &with("https://evil.example"), b"")
        .await;
    assert_eq!(
        (foreign.status, foreign.code().as_str()),
        (403, "foreign_origin")
    );
    let own = server
        .raw(
            "PUT",
            "/v1/sessions/x",
            &with(&format!("http://{}", server.address)),
            b"",
        )
        .await;
    assert_eq!(own.status, 201);
    let upgrade = format!(
        "{}connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
        with("https://evil.example")
    );
    assert_eq!(
        server
            .raw("GET", "/v1/sessions/x/ws", &upgrade, b"")
            .await
            .status,
        403
    );
}

#[tokio::test]
async fn a_socket_answers_what_it_cannot_do_and_goes_on() {
    let server = Server::start().await;
    server.open("s").await;
    let mut socket = server.socket("s", 0).await;
    for (command, code) in [
        (json!({ "op": "fly" }), "unknown_op"),
        (json!({ "op": "execute" }), "bad_field"),
        (
            json!({ "op": "execute", "code": "1", "extra": 1 }),
            "unknown_field",
        ),
        (
            json!({ "op": "cancel", "cell": "01890000-0000-7000-8000-000000000000" }),
            "unknown_cell",
        ),
        (json!({ "op": "extend", "by_ms": 5 }), "nothing_runs"),
    ] {
        let reply = socket.command(command.clone()).await;
        assert_eq!(reply["ok"], false, "{command}: {reply}");
        let got = reply["error"]["code"].as_str().unwrap();
        assert!(
            got == code || (code == "bad_field" && got == "bad_json"),
            "{command}: {reply}"
        );
    }
    let cell = socket.run("print('fine')").await;
    assert_eq!(socket.text_of(cell), "fine\n");
}

#[tokio::test]
async fn file_names_lead_nowhere_but_into_the_workspace() {
    let server = Server::start().await;
    server.open("s").await;
    let links = "import os\nos.symlink('/etc', 'out'); os.symlink('/etc/passwd', 'passwd'); os.mkfifo('pipe'); os.symlink('loop', 'loop')";
    assert_eq!(server.run("s", links).await["status"], "ok");
    for path in [
        "..%2F..%2Fetc%2Fpasswd",
        "a%2F..%2F..%2Fx",
        "%2Fetc%2Fpasswd",
        "out%2Fpasswd",
        "passwd",
        "pipe",
        "loop",
        "a%00b",
        ".",
        "..",
    ] {
        for method in ["GET", "PUT"] {
            let answer = server
                .request(method, &format!("/v1/sessions/s/files/{path}"), b"x")
                .await;
            let replaced = method == "PUT" && ["passwd", "pipe", "loop"].contains(&path);
            assert!(
                (400..500).contains(&answer.status) || replaced,
                "{method} {path}: {} {}",
                answer.status,
                String::from_utf8_lossy(&answer.body)
            );
            assert!(!answer.body.starts_with(b"root:"), "{method} {path}");
        }
    }
    assert_eq!(
        server
            .prints(
                "s",
                "print(open('/etc/passwd').read().count('evercell') >= 0)"
            )
            .await,
        "True\n"
    );
}

#[tokio::test]
async fn files_go_in_and_out_and_a_quota_holds() {
    let server = Server::start().await;
    server
        .open_with("s", json!({ "workspace_bytes": 8 * MIB }))
        .await;
    let content: Vec<u8> = (0..3 * MIB)
        .map(|n| u8::try_from(n % 251).unwrap())
        .collect();
    let put = server
        .request("PUT", "/v1/sessions/s/files/data/raw.bin", &content)
        .await;
    assert!(matches!(put.status, 200 | 201), "{put:?}");
    let get = server.get("/v1/sessions/s/files/data/raw.bin").await;
    assert_eq!((get.status, get.body == content), (200, true));
    assert_eq!(get.header("x-content-type-options"), Some("nosniff"));
    let range = format!("authorization: Bearer {TOKEN}\r\nrange: bytes=1000-1009\r\n");
    let part = server
        .raw("GET", "/v1/sessions/s/files/data/raw.bin", &range, b"")
        .await;
    assert_eq!(
        (part.status, part.body.as_slice()),
        (206, &content[1000..1010])
    );
    let beyond = format!("authorization: Bearer {TOKEN}\r\nrange: bytes=99999999-\r\n");
    assert_eq!(
        server
            .raw("GET", "/v1/sessions/s/files/data/raw.bin", &beyond, b"")
            .await
            .code(),
        "bad_range"
    );
    assert_eq!(
        server
            .prints("s", "import os; print(os.path.getsize('data/raw.bin'))")
            .await,
        format!("{}\n", 3 * MIB)
    );
    let much = vec![0; usize::try_from(9 * MIB).unwrap()];
    assert_eq!(
        server
            .request("PUT", "/v1/sessions/s/files/much", &much)
            .await
            .code(),
        "quota_exceeded"
    );
    let listed = server.get("/v1/sessions/s/files").await.json();
    assert_eq!(listed["entries"].as_array().unwrap().len(), 1, "{listed}");
    assert_eq!(
        server
            .request("DELETE", "/v1/sessions/s/files/data", b"")
            .await
            .status,
        204
    );
    assert_eq!(
        server.get("/v1/sessions/s/files/data/raw.bin").await.code(),
        "unknown_file"
    );
}

#[tokio::test]
async fn an_upload_that_breaks_off_leaves_nothing() {
    let server = Server::start().await;
    server.open("s").await;
    let mut stream = tokio::net::TcpStream::connect(&server.address)
        .await
        .unwrap();
    let head = format!(
        "PUT /v1/sessions/s/files/half HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {TOKEN}\r\ncontent-length: 1000000\r\n\r\n",
        server.address
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&vec![b'x'; 500_000]).await.unwrap();
    drop(stream);
    // The agent notices when the server lets go of the connection; a file that is there now was not whole.
    loop {
        let entries = server
            .prints("s", "import os; print(os.listdir('.'))")
            .await;
        assert!(!entries.contains("'half'"), "{entries}");
        if entries == "[]\n" {
            break;
        }
    }
}

#[tokio::test]
async fn a_second_server_on_the_same_data_is_refused() {
    let server = Server::start().await;
    let output = program(server.data_dir(), &[])
        .stderr(Stdio::piped())
        .output()
        .await
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && text.contains(&server.pid().to_string()),
        "{text}"
    );
    assert!(
        output.stdout.is_empty(),
        "no ready line without being ready"
    );
}

#[tokio::test]
async fn a_missing_or_broken_environment_is_said_at_start() {
    let directory = tempfile::tempdir().unwrap();
    let empty = directory.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_evercell"))
        .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(directory.path().join("data"))
        .arg("--python-env")
        .arg(&empty)
        .arg("--kernel-lib")
        .arg(repository().join("kernel-image"))
        .output()
        .await
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains("hint:"), "{text}");
    assert!(output.stdout.is_empty());
}

#[tokio::test]
async fn a_data_directory_that_cannot_be_written_is_said_at_start() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a-file");
    std::fs::write(&file, "x").unwrap();
    let output = program(&file, &[])
        .stderr(Stdio::piped())
        .output()
        .await
        .unwrap();
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("a-file"), "{text}");
}

#[tokio::test]
async fn another_address_needs_a_token_of_ones_own() {
    let directory = tempfile::tempdir().unwrap();
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_evercell"))
        .args(["serve", "--listen", "0.0.0.0:0", "--data-dir"])
        .arg(directory.path())
        .env_remove("EVERCELL_TOKEN")
        .output()
        .await
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && text.contains("EVERCELL_TOKEN"),
        "{text}"
    );
}

#[tokio::test]
async fn a_stop_during_a_cell_is_graceful_and_bounded_and_the_log_is_true() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data");
    let mut server = Server::start_at(&path, &["--pool", "1", "--grace", "1s"]).await;
    server.open("s").await;
    let mut socket = server.socket("s", 0).await;
    socket
        .execute("kept = 1\nimport time\nwhile True: time.sleep(0.1)")
        .await;
    socket
        .wait_until(|event| matches!(event, evercell::model::event::Event::CellStarted { .. }))
        .await;
    let status = server.stop().await;
    assert!(status.success(), "{status}");
    let server = Server::start_at(&path, &["--pool", "1"]).await;
    let page = server.get("/v1/sessions/s/events?after=0").await.json();
    let events: Vec<&Value> = page["events"].as_array().unwrap().iter().collect();
    let finished = events
        .iter()
        .find(|event| event["event"] == "cell_finished")
        .expect("the cell's end is in the log");
    assert_eq!(finished["cause"]["kind"], "server_stopped", "{finished}");
    assert_eq!(events.last().unwrap()["event"], "session_ended");
    assert_eq!(server.get("/v1/sessions/s").await.json()["status"], "ended");
    // The conversation goes on: same log, same files, a new kernel, and no pretence about the variables.
    server.open("s").await;
    assert_eq!(server.run("s", "kept").await["error"]["ename"], "NameError");
}

#[tokio::test]
async fn a_slow_head_of_a_request_is_cut_off() {
    let server = Server::start().await;
    let mut stream = tokio::net::TcpStream::connect(&server.address)
        .await
        .unwrap();
    stream.write_all(b"GET / HTT").await.unwrap();
    let mut answer = Vec::new();
    let ended = tokio::time::timeout(
        crate::harness::server::PATIENCE,
        stream.read_to_end(&mut answer),
    )
    .await;
    assert!(
        ended.is_ok(),
        "the server lets go of a client that does not come to the point"
    );
}
