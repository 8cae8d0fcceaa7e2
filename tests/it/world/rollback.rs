//! A cell that goes wrong costs that cell only: whatever it does to its kernel, the variables are as they were before.

use evercell::model::event::{Event, Protection, Verdict};
use evercell::model::id::CellId;
use serde_json::{Value, json};

use crate::harness::server::Server;
use crate::harness::socket::Socket;

const MIB: u64 = 1024 * 1024;

/// Runs a cell that loses the kernel, and returns its result.
async fn lose(server: &Server, id: &str, code: &str) -> Value {
    server.protect(id).await;
    let result = server.run(id, code).await;
    assert_eq!(
        result["state"]["verdict"], "rolled_back",
        "{code}: {result:#}"
    );
    result
}

#[tokio::test]
async fn variables_survive_whatever_ends_the_kernel() {
    let server = Server::start().await;
    server
        .open_with("s", json!({ "memory_bytes": 256 * MIB }))
        .await;
    server
        .prints(
            "s",
            "import numpy as np, os, signal, ctypes\nkept = np.arange(1000)\nlost = []",
        )
        .await;
    for (code, cause) in [
        ("lost.append(1); ctypes.string_at(0)", "killed_by_signal"),
        ("lost.append(1); os._exit(3)", "exited"),
        ("lost.append(1); os.abort()", "killed_by_signal"),
        (
            "lost.append(1); os.kill(os.getpid(), signal.SIGKILL)",
            "killed_by_signal",
        ),
        (
            "lost.append(1)\nwhile True: lost.append(bytearray(b'x') * (8 << 20))",
            "out_of_memory",
        ),
    ] {
        let result = lose(&server, "s", code).await;
        assert_eq!(result["cause"]["kind"], cause, "{code}: {result:#}");
        assert_eq!(
            server.prints("s", "print(kept.sum(), lost)").await,
            "499500 []\n",
            "{code}"
        );
    }
}

#[tokio::test]
async fn when_memory_runs_out_the_kernel_goes_first_and_its_twin_last() {
    let server = Server::start().await;
    server.open("s").await;
    server.protect("s").await;
    let scores = "import os
others = [int(p) for p in os.listdir('/proc') if p.isdigit() and p != '1']\n\
                  print({p == os.getpid(): int(open(f'/proc/{p}/oom_score_adj').read()) for p in others})";
    let printed = server.prints("s", scores).await;
    assert!(
        ["{True: 1000, False: 100}\n", "{False: 100, True: 1000}\n"].contains(&printed.as_str()),
        "{printed}"
    );
}

#[tokio::test]
async fn a_cell_that_cannot_be_stopped_is_killed_and_its_variables_are_back() {
    let server = Server::start().await;
    server.open_with("s", json!({ "cell_ms": 1000 })).await;
    server
        .prints("s", "import collections, itertools, time\nkept = 7")
        .await;
    for code in [
        // C code that never comes to its end, nor looks at signals.
        "kept = 8; collections.deque(itertools.repeat(1), maxlen=0)",
        "kept = 8\nwhile True:\n    try:\n        while True: time.sleep(1)\n    except KeyboardInterrupt: pass",
    ] {
        let result = lose(&server, "s", code).await;
        assert_eq!(result["cause"]["kind"], "deadline", "{result:#}");
        assert_eq!(server.prints("s", "print(kept)").await, "7\n");
    }
}

#[tokio::test]
async fn twenty_crashes_in_a_row_leave_nothing_behind() {
    let server = Server::start().await;
    server.open("s").await;
    server.prints("s", "import os; kept = []").await;
    for n in 0..20 {
        server.prints("s", &format!("kept.append({n})")).await;
        lose(&server, "s", "kept.clear(); os._exit(1)").await;
    }
    server.protect("s").await;
    let code =
        "print(kept == list(range(20)), len([p for p in os.listdir('/proc') if p.isdigit()]) <= 3)";
    assert_eq!(server.prints("s", code).await, "True True\n");
}

#[tokio::test]
async fn what_a_twin_holds_does_not_make_a_cell_fail_that_fits_without_it() {
    let server = Server::start().await;
    server
        .open_with("s", json!({ "memory_bytes": 512 * MIB }))
        .await;
    server
        .prints("s", "import numpy as np\nheld = np.ones(300 << 17)")
        .await;
    server.protect("s").await;
    // 60 % lie in the twin only once this has begun; 80 % fit.
    let code =
        "import time\ndel held\nfull = np.ones(400 << 17); time.sleep(1); print(full.nbytes >> 20)";
    assert_eq!(server.prints("s", code).await, "400\n");
    let result = server
        .run("s", "more = np.ones(400 << 17); time.sleep(5)")
        .await;
    assert_eq!(result["cause"]["kind"], "out_of_memory", "{result:#}");
    assert_ne!(result["state"]["verdict"], "lost", "{result:#}");
}

#[tokio::test]
async fn when_memory_runs_out_linux_takes_the_kernel_before_anything_else() {
    let server = Server::start().await;
    server.open("s").await;
    server.protect("s").await;
    let code = "import os\nscores = {int(pid): int(open(f'/proc/{pid}/oom_score_adj').read()) for pid in os.listdir('/proc') if pid.isdigit()}\n\
                own = scores.pop(os.getpid())\nprint(own, all(own > other for other in scores.values()))";
    assert_eq!(server.prints("s", code).await, "1000 True\n");
}

#[tokio::test]
async fn the_log_says_what_was_rolled_back_and_the_count_goes_on() {
    let server = Server::start().await;
    server.open("s").await;
    let mut socket = server.socket("s", 0).await;
    socket.run("import os, random\nrandom.seed(1)").await;
    server.protect("s").await;
    let cell = socket.run("'in the log'; os._exit(1)").await;
    socket
        .wait_until(|event| matches!(event, Event::KernelLost { .. }))
        .await;
    let verdicts: Vec<&Verdict> = socket
        .seen
        .iter()
        .filter_map(|envelope| match &envelope.event {
            Event::CellFinished {
                cell: of, state, ..
            } if *of == cell => Some(state),
            Event::KernelLost { state, .. } => Some(state),
            _ => None,
        })
        .collect();
    assert_eq!(verdicts.len(), 2);
    let Verdict::RolledBack { before } = verdicts[0] else {
        panic!("{verdicts:?}");
    };
    assert_eq!(verdicts[0], verdicts[1]);
    // The number of the first cell that is not remembered is given again.
    let number = |cell| {
        socket
            .seen
            .iter()
            .find_map(|envelope| match envelope.event {
                Event::CellStarted {
                    cell: of,
                    execution_count,
                    ..
                } if of == cell => execution_count,
                _ => None,
            })
    };
    let result = server.run("s", "len(In)").await;
    assert_eq!(
        result["execution_count"],
        json!(number(*before)),
        "{result:#}"
    );
}

#[tokio::test]
async fn a_cell_says_whether_it_was_protected() {
    let server = Server::start().await;
    server.open("s").await;
    let mut socket = server.socket("s", 0).await;
    // Each kernel of the pool has a checkpoint; here it gets no other.
    let first = socket
        .run("import os; os.environ['EVERCELL_CHECKPOINTS'] = 'off'")
        .await;
    let second = socket.run("1").await;
    for cell in [first, second] {
        assert_eq!(
            protection(&socket, cell),
            Some(Protection::Before(first)),
            "{:?}",
            socket.seen
        );
    }
}

fn protection(socket: &Socket, cell: CellId) -> Option<Protection> {
    socket
        .seen
        .iter()
        .find_map(|envelope| match &envelope.event {
            Event::CellFinished {
                cell: of,
                checkpoint,
                ..
            } if *of == cell => checkpoint.clone(),
            _ => None,
        })
}
