//! Whatever a cell does, an interrupt ends it in bounded time, and the log says by which rung of the ladder.

use evercell::model::event::{Cause, CellStatus, Event, InterruptReason, Rung, Verdict};
use evercell::model::id::CellId;
use serde_json::json;

use crate::harness::server::Server;
use crate::harness::socket::Socket;

const LADDER: [Rung; 4] = [Rung::Sigint, Rung::Cancel, Rung::SecondSigint, Rung::Kill];

/// What a cell is doing, and the first rung that can end it. Each prints `go` when nothing that follows can be missed.
///
/// A machine that is slow may take longer than a rung's grace to do what it was told, so a later rung is not wrong; an earlier one would be.
const DOING: [(&str, &str, Rung); 12] = [
    ("a busy loop", "print('go')\nwhile True: pass", Rung::Sigint),
    (
        "time.sleep",
        "import time\nprint('go'); time.sleep(600)",
        Rung::Sigint,
    ),
    (
        "await",
        "import asyncio\nprint('go'); await asyncio.sleep(600)",
        Rung::Sigint,
    ),
    (
        "a child process",
        "import subprocess\nprint('go'); subprocess.run(['sleep', '600'])",
        Rung::Sigint,
    ),
    (
        "a child process that ignores SIGINT",
        "print('go')\n!trap '' INT; sleep 600 & wait",
        Rung::Sigint,
    ),
    ("input()", "print('go'); input('?')", Rung::Sigint),
    (
        "all processors busy",
        "import os\nfor _ in range(4):\n    if os.fork() == 0:\n        while True: pass\nprint('go')\nwhile True: pass",
        Rung::Sigint,
    ),
    (
        "SIGINT ignored, in an await",
        "import asyncio, signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nprint('go'); await asyncio.sleep(600)",
        Rung::Cancel,
    ),
    (
        "SIGINT ignored",
        "import signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nprint('go')\nwhile True: time.sleep(0.1)",
        Rung::SecondSigint,
    ),
    (
        "KeyboardInterrupt swallowed once",
        "import time\ntry:\n    print('go'); time.sleep(600)\nexcept KeyboardInterrupt:\n    pass\ntime.sleep(600)",
        Rung::SecondSigint,
    ),
    (
        "KeyboardInterrupt swallowed for ever",
        "import time\nwhile True:\n    try:\n        print('go')\n        while True: time.sleep(1)\n    except KeyboardInterrupt: pass",
        Rung::Kill,
    ),
    (
        "C code that never returns to Python",
        "import collections, itertools\nwhile True:\n    try:\n        print('go')\n        collections.deque(itertools.repeat(1), maxlen=0)\n    except KeyboardInterrupt: pass",
        Rung::Kill,
    ),
];

/// The rungs that were tried on a cell, and why.
fn rungs(socket: &Socket, cell: CellId) -> Vec<(InterruptReason, Rung)> {
    let rung = |event: &Event| match event {
        Event::Interrupted {
            cell: of,
            reason,
            rung,
        } if *of == Some(cell) => Some((*reason, *rung)),
        _ => None,
    };
    socket
        .seen
        .iter()
        .filter_map(|envelope| rung(&envelope.event))
        .collect()
}

/// How a cell ended.
async fn end(socket: &mut Socket, cell: CellId) -> (CellStatus, Option<Cause>, Verdict) {
    socket
        .wait_until(
            |event| matches!(event, Event::CellFinished { cell: ended, .. } if *ended == cell),
        )
        .await;
    let ends = |event: &Event| match event {
        Event::CellFinished {
            cell: of,
            status,
            cause,
            state,
            ..
        } if *of == cell => Some((*status, cause.clone(), state.clone())),
        _ => None,
    };
    let mut events = socket.seen.iter().map(|envelope| &envelope.event);
    events.find_map(ends).expect("it has ended")
}

/// Waits until a cell is where it cannot be missed.
async fn going(socket: &mut Socket, cell: CellId) {
    let is_input = |event: &Event| matches!(event, Event::InputRequested { .. });
    let prints = |event: &Event| matches!(event, Event::Stream { cell: Some(of), text, .. } if *of == cell && text.starts_with("go"));
    socket
        .wait_until(|event| prints(event) || is_input(event))
        .await;
}

/// Stops each of those, in a session of its own.
async fn each(wanted: impl Fn(Rung) -> bool) {
    let server = Server::start().await;
    let doing = DOING.into_iter().filter(|(_, _, first)| wanted(*first));
    for (n, (what, code, first)) in doing.enumerate() {
        let id = format!("s{n}");
        server.open(&id).await;
        stop(&server, &id, what, code, first).await;
        let path = format!("/v1/sessions/{id}");
        server.request("DELETE", &path, b"").await;
    }
}

/// Stops what a cell is doing, and checks what the log says of it.
async fn stop(server: &Server, id: &str, what: &str, code: &str, first: Rung) {
    server.prints(id, "kept = 7").await;
    server.protect(id).await;
    let after = server.log(id).await.last().expect("it is open").seq;
    let mut socket = server.socket(id, after).await;
    let cell = socket.execute(&format!("kept = 8\n{code}")).await;
    going(&mut socket, cell).await;
    let reply = socket
        .command(json!({ "op": "interrupt", "cell": cell }))
        .await;
    assert_eq!(reply["ok"], true, "{what}: {reply}");
    let (status, cause, state) = end(&mut socket, cell).await;
    let tried = rungs(&socket, cell);
    let ladder: Vec<_> = LADDER.map(|rung| (InterruptReason::Requested, rung)).into();
    assert_eq!(tried, ladder[..tried.len()], "{what}: in order, each once");
    let last = tried.last().expect("it was interrupted").1;
    assert!(last >= first, "{what}: {last:?} before {first:?}");
    assert_eq!(
        (status, cause),
        (CellStatus::Error, Some(Cause::Interrupted)),
        "{what}"
    );
    let (verdict, kept) = match last {
        Rung::Kill => ("rolled_back", "7\n"),
        _ => ("kept", "8\n"),
    };
    assert_eq!(json!(state)["verdict"], verdict, "{what}: {state:?}");
    assert_eq!(server.prints(id, "print(kept)").await, kept, "{what}");
}

#[tokio::test]
async fn an_interrupt_ends_whatever_a_cell_is_doing() {
    each(|first| first == Rung::Sigint).await;
}

#[tokio::test]
async fn an_interrupt_ends_a_cell_that_keeps_sigint_for_itself() {
    each(|first| first == Rung::Cancel || first == Rung::SecondSigint).await;
}

#[tokio::test]
async fn a_cell_that_nothing_else_ends_is_killed_and_rolled_back() {
    each(|first| first == Rung::Kill).await;
}

#[tokio::test]
async fn an_interrupt_ends_a_cell_that_has_taken_nearly_all_memory() {
    let server = Server::start().await;
    server
        .open_with("s", json!({ "memory_bytes": 256 << 20 }))
        .await;
    let code = "hoard = bytearray(b'x') * (120 << 20)\nprint('go')\nwhile True: pass";
    stop(&server, "s", "memory", code, Rung::Sigint).await;
}
