//! The server is killed, at any moment, and started again: sessions go on where they were.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use evercell::model::event::{Cause, CellStatus, Envelope, Event, ExtendReason, Verdict};
use evercell::model::id::CellId;
use evercell::model::output::StreamName;
use futures_util::future::join_all;
use rustix::process::Pid;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::harness::backend::agent_of;
use crate::harness::server::{PATIENCE, Server, TOKEN};

fn is_finished(event: &Event, cell: CellId) -> bool {
    matches!(event, Event::CellFinished { cell: ended, .. } if *ended == cell)
}

/// The log has no gap, and what a cell printed.
#[track_caller]
fn text_of(log: &[Envelope], wanted: Option<CellId>) -> String {
    let seqs: Vec<u64> = log.iter().map(|envelope| envelope.seq).collect();
    let first = seqs.first().copied().unwrap_or(1);
    assert_eq!(seqs, (first..).take(seqs.len()).collect::<Vec<_>>());
    let texts = log.iter().filter_map(|envelope| match &envelope.event {
        Event::Stream {
            cell,
            name: StreamName::Stdout,
            text,
        } if *cell == wanted => Some(text.as_str()),
        _ => None,
    });
    texts.collect()
}

#[tokio::test]
async fn variables_and_files_and_a_printing_cell_survive_the_death_of_the_server() {
    let mut server = Server::start().await;
    server.open("s").await;
    server
        .run("s", "x = 41; open('file', 'w').write('kept')")
        .await;
    let mut socket = server.socket("s", 0).await;
    let cell = socket
        .execute("import time\nfor i in range(1500):\n    print('line', i)\n    time.sleep(0.002)\nx += 1")
        .await;
    let queued = socket.execute("print('behind', x)").await;
    socket
        .wait_until(|event| matches!(event, Event::Stream { cell: Some(of), .. } if *of == cell))
        .await;
    let seen = socket.cut();
    server.replace(&[]).await;
    let mut socket = server.socket("s", seen.last().unwrap().seq).await;
    socket.wait_until(|event| is_finished(event, queued)).await;
    let all: Vec<Envelope> = seen.into_iter().chain(socket.cut()).collect();
    let lines: String = (0..1500).map(|i| format!("line {i}\n")).collect();
    assert_eq!(text_of(&all, Some(cell)), lines);
    assert_eq!(text_of(&all, Some(queued)), "behind 42\n");
    assert!(all.iter().any(|envelope| envelope.event
        == Event::KernelAdopted {
            state: Verdict::Kept
        }));
    assert_eq!(all, server.log("s").await);
    // All that needs the zygote and the agent's other connections is there too.
    assert_eq!(server.get("/v1/sessions/s/files/file").await.body, b"kept");
    assert_eq!(
        server
            .post("/v1/sessions/s/restart", &json!({}))
            .await
            .status,
        202
    );
    assert_eq!(server.run("s", "x").await["error"]["ename"], "NameError");
    assert_eq!(
        server.prints("s", "print(open('file').read())").await,
        "kept\n"
    );
    server.replace(&[]).await;
    server.open("t").await;
    assert_eq!(server.prints("t", "print('new')").await, "new\n");
}

#[tokio::test]
async fn whatever_a_session_was_doing_it_goes_on() {
    let mut server = Server::start_with(&["--pool", "4"]).await;
    for id in ["deadline", "extended", "input", "interrupt"] {
        let settings = json!({ "cell_ms": 3000, "warning_ms": 500 });
        server.open_with(id, settings).await;
    }
    let endless = "import time\nprint('begun')\nwhile True: time.sleep(0.01)";
    let mut cells = BTreeMap::new();
    for (id, code) in [
        ("deadline", endless),
        (
            "extended",
            "import time\nprint('begun')\ntime.sleep(4)\nprint('done')",
        ),
        ("input", "print('begun')\nprint('hello', input('who? '))"),
        ("interrupt", endless),
    ] {
        let mut socket = server.socket(id, 0).await;
        cells.insert(id, socket.execute(code).await);
        socket
            .wait_until(|event| matches!(event, Event::Stream { .. }))
            .await;
        if id == "extended" {
            let reply = socket
                .command(json!({ "op": "extend", "by_ms": 20_000 }))
                .await;
            assert_eq!(reply["ok"], true, "{reply}");
        }
    }
    server.replace(&[]).await;
    let answer = server
        .post("/v1/sessions/interrupt/interrupt", &json!({}))
        .await;
    assert_eq!(answer.status, 202, "{answer:?}");
    let answer = server
        .post("/v1/sessions/input/input", &json!({ "value": "Ada" }))
        .await;
    assert_eq!(answer.status, 202, "{answer:?}");
    for (id, cell) in cells {
        let mut socket = server.socket(id, 0).await;
        socket.wait_until(|event| is_finished(event, cell)).await;
        let log = socket.cut();
        let (status, cause) = log
            .iter()
            .find_map(|envelope| match &envelope.event {
                Event::CellFinished {
                    status,
                    cause,
                    state: Verdict::Kept,
                    ..
                } => Some((*status, cause.clone())),
                _ => None,
            })
            .expect("the variables are kept");
        let (expected, text) = match id {
            "deadline" => ((CellStatus::Error, Some(Cause::Deadline)), "begun\n"),
            "interrupt" => ((CellStatus::Error, Some(Cause::Interrupted)), "begun\n"),
            "extended" => ((CellStatus::Ok, None), "begun\ndone\n"),
            _ => ((CellStatus::Ok, None), "begun\nhello Ada\n"),
        };
        assert_eq!((status, cause), expected, "{id}");
        assert_eq!(text_of(&log, Some(cell)).replace("who? ", ""), text, "{id}");
    }
}

/// Numbers that are the same in each run; see xorshift.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// Submits a cell under a key; none if the server went away meanwhile.
async fn submit(address: &str, n: u64) -> Option<Value> {
    use tokio::io::AsyncReadExt;
    let code = format!(
        "import time\nseen.append({n})\nprint('cell', {n})\ntime.sleep(0.00{})",
        n % 7
    );
    let body = json!({ "code": code, "key": format!("k{n}") }).to_string();
    let head = format!(
        "POST /v1/sessions/s/cells HTTP/1.0\r\nhost: {address}\r\nauthorization: Bearer {TOKEN}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let mut stream = TcpStream::connect(address).await.ok()?;
    stream.write_all(head.as_bytes()).await.ok()?;
    stream.write_all(body.as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.ok()?;
    let text = String::from_utf8(answer).ok()?;
    serde_json::from_str(text.split_once("\r\n\r\n")?.1).ok()
}

#[tokio::test]
async fn a_server_killed_thirty_times_at_any_moment_runs_each_cell_exactly_once() {
    let mut random = Random(0x5eed_cafe_f00d_0001);
    let mut server = Server::start().await;
    server.open("s").await;
    server.run("s", "seen = []").await;
    let mut next = 0;
    for _ in 0..30 {
        let until = Duration::from_micros(random.below(60_000));
        let address = server.address.clone();
        // The moment is what is random here: nothing is waited for.
        let _ = timeout(until, async {
            loop {
                match submit(&address, next).await {
                    Some(answer) if answer["cell"].is_string() => next += 1,
                    Some(answer) if answer["error"]["code"] == "queue_full" => {}
                    answer => panic!("the server lives, and says {answer:?}"),
                }
            }
        })
        .await;
        server.replace(&[]).await;
    }
    let mut socket = server.socket("s", 0).await;
    let last: CellId = loop {
        let reply = socket
            .command(json!({ "op": "execute", "code": "print(seen)" }))
            .await;
        match reply["reply"]["cell"].as_str() {
            Some(cell) => break cell.parse().unwrap(),
            None => assert_eq!(reply["error"]["code"], "queue_full", "{reply:#}"),
        }
        // There is room when a cell has ended.
        socket
            .wait_until(|event| matches!(event, Event::CellFinished { .. }))
            .await;
    };
    socket.wait_until(|event| is_finished(event, last)).await;
    let log = socket.cut();
    let seen: Vec<u64> = serde_json::from_str(&text_of(&log, Some(last))).unwrap();
    let submitted = seen.len() as u64;
    assert!(
        submitted == next || submitted == next + 1,
        "{submitted} of {next}"
    );
    assert_eq!(seen, (0..submitted).collect::<Vec<_>>());
    let mut ends: BTreeMap<CellId, u32> = BTreeMap::new();
    for envelope in &log {
        match &envelope.event {
            Event::CellFinished {
                cell,
                status: CellStatus::Ok,
                state: Verdict::Kept,
                ..
            } => {
                *ends.entry(*cell).or_default() += 1;
            }
            Event::CellFinished { .. } | Event::KernelLost { .. } => panic!("{envelope:?}"),
            _ => {}
        }
    }
    assert!(ends.values().all(|ends| *ends == 1));
    assert_eq!(ends.len() as u64, submitted + 2);
    let printed: String = (0..submitted).map(|n| format!("cell {n}\n")).collect();
    let texts: String = log
        .iter()
        .filter_map(|envelope| match &envelope.event {
            Event::Stream { cell, text, .. } if *cell != Some(last) => Some(text.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(texts, printed);
    show(&format!("{submitted} cells, 30 kills"));
}

#[tokio::test]
async fn what_cannot_be_taken_up_is_told_and_leaves_nothing() {
    let mut server = Server::start_with(&["--pool", "3"]).await;
    server.open("s").await;
    let mut socket = server.socket("s", 0).await;
    let cell = socket
        .execute("import time\nprint('begun')\ntime.sleep(60)")
        .await;
    socket
        .wait_until(|event| matches!(event, Event::Stream { .. }))
        .await;
    let head = format!(
        "PUT /v1/sessions/s/files/half HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {TOKEN}\r\ncontent-length: 2000000\r\n\r\n",
        server.address
    );
    let mut upload = TcpStream::connect(&server.address).await.unwrap();
    upload.write_all(head.as_bytes()).await.unwrap();
    upload.write_all(&[b'x'; 1_000_000]).await.unwrap();
    let workspace = std::fs::read_dir(server.data_dir().join("workspaces")).unwrap();
    let workspace = workspace
        .map(|entry| entry.unwrap().path())
        .find(|path| path.file_name().unwrap().to_str().unwrap().starts_with('s'))
        .unwrap();
    let names = || std::fs::read_dir(&workspace).unwrap().count();
    eventually("the upload has begun", || names() == 1).await;
    let before = server.sandboxes();
    server.kill().await;
    // Kernels and all: their agents are the first processes of their sandboxes.
    for agent in before.iter().filter_map(|sandbox| agent_of(sandbox)) {
        rustix::process::kill_process(agent, rustix::process::Signal::KILL).unwrap();
    }
    let path = server.data_dir().to_owned();
    let next = Server::start_at(&path, &[]).await;
    let mut socket = next.socket("s", 0).await;
    socket
        .wait_until(|event| matches!(event, Event::KernelLost { .. }))
        .await;
    let lost = socket
        .seen
        .iter()
        .find(|envelope| is_finished(&envelope.event, cell))
        .unwrap();
    let Event::CellFinished {
        cause: Some(Cause::SandboxLost),
        state: Verdict::Lost { why },
        ..
    } = &lost.event
    else {
        panic!("{lost:?}");
    };
    assert_eq!(
        why,
        "the sandbox could not be taken up when the server was started again: it was ended from outside"
    );
    assert_eq!(next.prints("s", "print('goes on')").await, "goes on\n");
    eventually("nothing is left of the upload", || names() == 0).await;
    eventually("nothing is left of the sandboxes", || {
        !before.iter().any(|path| path.exists())
    })
    .await;
}

/// Linux accepts the connection to it, and nothing comes.
#[tokio::test]
async fn a_sandbox_whose_agent_hangs_is_ended_and_the_verdict_says_so() {
    let mut server = Server::start_with(&["--pool", "0"]).await;
    server.open("s").await;
    let mut socket = server.socket("s", 0).await;
    let cell = socket
        .execute("import time\nprint('begun')\ntime.sleep(600)")
        .await;
    socket
        .wait_until(|event| matches!(event, Event::Stream { .. }))
        .await;
    let before = server.sandboxes();
    server.kill().await;
    let agents: Vec<Pid> = before
        .iter()
        .filter_map(|sandbox| agent_of(sandbox))
        .collect();
    // That of the warm kernel too.
    for agent in &agents {
        rustix::process::kill_process(*agent, rustix::process::Signal::STOP).unwrap();
    }

    let path = server.data_dir().to_owned();
    let next = Server::start_at(&path, &["--pool", "0"]).await;
    let mut socket = next.socket("s", 0).await;
    socket
        .wait_until(|event| matches!(event, Event::KernelLost { .. }))
        .await;
    let lost = socket
        .seen
        .iter()
        .find(|envelope| is_finished(&envelope.event, cell))
        .unwrap();
    let Event::CellFinished {
        cause: Some(Cause::SandboxLost),
        state: Verdict::Lost { why },
        ..
    } = &lost.event
    else {
        panic!("{lost:?}");
    };
    assert!(why.ends_with("did not greet within 10 s"), "{why}");
    assert_eq!(next.prints("s", "print('goes on')").await, "goes on\n");
    let is_there = |agent: &Pid| rustix::process::test_kill_process(*agent).is_ok();
    eventually("nothing is left of the sandboxes", || {
        !before.iter().any(|path| path.exists()) && !agents.iter().any(is_there)
    })
    .await;
}

#[tokio::test]
async fn kernels_that_nobody_has_do_not_outlive_their_server() {
    let mut server = Server::start_with(&["--pool", "2"]).await;
    server.open("s").await;
    server.run("s", "kept = 1").await;
    eventually("the pool is full", || server.sandboxes().len() == 3).await;
    let before = server.sandboxes();
    server.replace(&["--pool", "0"]).await;
    eventually("the pool's are gone", || {
        before.iter().filter(|path| path.exists()).count() == 1
    })
    .await;
    let workspaces = || {
        std::fs::read_dir(server.data_dir().join("workspaces"))
            .unwrap()
            .count()
    };
    eventually("their workspaces are gone", || workspaces() == 1).await;
    assert_eq!(server.prints("s", "print(kept)").await, "1\n");
}

#[tokio::test]
async fn a_stop_that_keeps_sessions_loses_nothing() {
    let mut server = Server::start_with(&["--keep-sessions"]).await;
    server.open("s").await;
    let mut socket = server.socket("s", 0).await;
    let cell = socket
        .execute("import time\nfor i in range(300):\n    print(i)\n    time.sleep(0.005)\nkept = 1")
        .await;
    socket
        .wait_until(|event| matches!(event, Event::Stream { .. }))
        .await;
    assert!(server.stop().await.success());
    let seen = socket.cut();
    let path = server.data_dir().to_owned();
    let next = Server::start_at(&path, &[]).await;
    let mut socket = next.socket("s", seen.last().unwrap().seq).await;
    socket.wait_until(|event| is_finished(event, cell)).await;
    let lines: String = (0..300).map(|i| format!("{i}\n")).collect();
    assert_eq!(text_of(&next.log("s").await, Some(cell)), lines);
    assert_eq!(next.prints("s", "print(kept)").await, "1\n");
}

#[tokio::test]
async fn a_sandbox_whose_server_does_not_come_back_ends_itself_and_the_next_one_says_so() {
    let mut server = Server::start_with(&["--orphan-limit", "5s"]).await;
    server.open("s").await;
    server.run("s", "x = 1").await;
    server.kill().await;
    let sandboxes = server.sandboxes();
    let lives = |sandbox: &PathBuf| {
        agent_of(sandbox).is_some_and(|pid| rustix::process::test_kill_process(pid).is_ok())
    };
    eventually("the agents end themselves", || !sandboxes.iter().any(lives)).await;
    let path = server.data_dir().to_owned();
    let next = Server::start_at(&path, &[]).await;
    let mut socket = next.socket("s", 0).await;
    socket
        .wait_until(|event| matches!(event, Event::KernelLost { .. }))
        .await;
    let text = socket.transcript();
    assert!(text.contains("no server came back in time"), "{text}");
}

#[tokio::test]
async fn a_hundred_sessions_are_attached_again_after_the_server_was_killed() {
    let arguments = ["--pool", "4", "--max-sessions", "120"];
    let mut server = Server::start_with(&arguments).await;
    let ids: Vec<String> = (0..100).map(|n| format!("s{n}")).collect();
    let printing =
        "import time\ni = 0\nwhile True:\n    print(i)\n    i += 1\n    time.sleep(0.02)";
    for ids in ids.chunks(10) {
        join_all(ids.iter().map(async |id| {
            server.open_with(id, json!({ "cell_ms": 600_000 })).await;
            server.run(id, &format!("mine = '{id}'")).await;
        }))
        .await;
    }
    let mut cells = Vec::new();
    for id in &ids[..20] {
        let mut socket = server.socket(id, 0).await;
        cells.push(socket.execute(printing).await);
        socket
            .wait_until(|event| matches!(event, Event::Stream { .. }))
            .await;
    }
    server.kill().await;
    let address = server.address.clone();
    let began = Instant::now();
    let mut all = vec!["--listen", address.as_str()];
    all.extend(arguments);
    let next = Server::start_at(server.data_dir(), &all).await;
    let ready = began.elapsed();
    let attached = async {
        loop {
            let list = next.get("/v1/sessions?limit=200").await.json();
            let sessions = list["sessions"].as_array().unwrap().clone();
            let busy = sessions
                .iter()
                .filter(|session| session["status"] == "busy")
                .count();
            let idle = sessions
                .iter()
                .filter(|session| session["status"] == "idle")
                .count();
            if (busy, idle) == (20, 80) {
                return;
            }
        }
    };
    timeout(PATIENCE, attached)
        .await
        .expect("all are attached again");
    let all = began.elapsed();
    show(&format!(
        "100 sessions: ready after {ready:?}, all attached after {all:?}"
    ));
    for (id, cell) in ids.iter().zip(cells) {
        assert_eq!(
            next.post(&format!("/v1/sessions/{id}/interrupt"), &json!({}))
                .await
                .status,
            202
        );
        let mut socket = next.socket(id, 0).await;
        socket.wait_until(|event| is_finished(event, cell)).await;
        let text = text_of(&socket.cut(), Some(cell));
        // The interrupt may come before the end of the last line.
        let all: String = (0..text.lines().count())
            .map(|i| format!("{i}\n"))
            .collect();
        assert_eq!(text.trim_end(), all.trim_end());
    }
    for ids in ids.chunks(10) {
        join_all(ids.iter().map(async |id| {
            assert_eq!(next.prints(id, "print(mine)").await, format!("{id}\n"));
        }))
        .await;
    }
}

/// Shows a measurement, for those who look.
#[expect(
    clippy::print_stdout,
    reason = "what was measured is told, and not judged: machines differ"
)]
fn show(measured: &str) {
    println!("{measured}");
}

/// Waits until something is so that nobody tells of.
async fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let came = timeout(PATIENCE, waiting).await;
    assert!(came.is_ok(), "it did not come to this: {what}");
}

#[tokio::test]
async fn what_a_cell_shows_while_no_server_is_there_is_progress() {
    let mut server = Server::start().await;
    server.open("s").await;
    let code = "import os, time\nopen('begun', 'w').close()\nend = time.time() + 7\nwhile time.time() < end: time.sleep(0.1)\n\
                print('meanwhile', flush=True)\nopen('late', 'w').close()\nwhile not os.path.exists('go'): time.sleep(0.1)";
    let body = json!({ "code": code, "limit_ms": 6000, "extend_on_progress_ms": 60_000 });
    let cell = server.post("/v1/sessions/s/cells", &body).await.json()["cell"].clone();
    let workspaces = server.data_dir().join("workspaces");
    appears(&workspaces, "begun").await;
    server.kill().await;
    // The deadline passes while nobody looks.
    appears(&workspaces, "late").await;
    server.replace(&[]).await;
    server.request("PUT", "/v1/sessions/s/files/go", b"").await;
    let cell = format!("/v1/sessions/s/cells/{}", cell.as_str().unwrap());
    let result = server.get(&format!("{cell}?wait_ms=60000")).await.json();
    assert_eq!(result["status"], "ok", "{result:#}");
    let mut log = server.log("s").await.into_iter();
    assert!(log.any(|envelope| matches!(
        envelope.event,
        Event::DeadlineExtended {
            reason: ExtendReason::Progress,
            ..
        }
    )));
}

/// Waits until a file is in one of the directories of that one.
async fn appears(directory: &Path, name: &str) {
    let there = || {
        let mut entries = std::fs::read_dir(directory).unwrap();
        entries.any(|entry| entry.unwrap().path().join(name).exists())
    };
    let look = async {
        while !there() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, look).await.expect("the cell gets there");
}
