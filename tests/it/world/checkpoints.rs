//! Checkpoints that a client holds: by name, as often as wanted, across crashes and servers; and undo of the last cell.

use evercell::model::checkpoint::{DropReason, MOST_HELD};
use evercell::model::event::{Cause, Event, StartReason, Verdict};
use serde_json::{Value, json};

use crate::harness::server::{Answer, Server};

const MIB: u64 = 1024 * 1024;

async fn hold(server: &Server, id: &str, name: &str) -> Answer {
    let path = format!("/v1/sessions/{id}/checkpoints/{name}");
    server.put(&path, &json!({})).await
}

async fn held(server: &Server, id: &str) -> Vec<String> {
    let list = server
        .get(&format!("/v1/sessions/{id}/checkpoints"))
        .await
        .json();
    assert_eq!(list["bound"], MOST_HELD, "{list}");
    let names = list["checkpoints"].as_array().unwrap().iter();
    names
        .map(|held| held["name"].as_str().unwrap().to_owned())
        .collect()
}

async fn roll_back(server: &Server, id: &str, name: &str) -> Answer {
    let path = format!("/v1/sessions/{id}/rollback");
    server.post(&path, &json!({ "checkpoint": name })).await
}

async fn undo(server: &Server, id: &str) -> Answer {
    server
        .post(&format!("/v1/sessions/{id}/undo"), &json!({}))
        .await
}

/// Runs a cell, that computes enough to pay for a checkpoint, again and again until there was a checkpoint from right before it. Returns its result.
async fn run_protected(server: &Server, id: &str, code: &str) -> Value {
    loop {
        let result = server.run(id, code).await;
        let after = result["last_seq"].as_u64().unwrap() - 1;
        let path = format!("/v1/sessions/{id}/events?after={after}");
        let page = server.get(&path).await.json();
        if page["events"][0]["checkpoint"]["before"] == result["cell"] {
            return result;
        }
    }
}

/// The checkpoints that were dropped, and why.
async fn dropped(server: &Server, id: &str) -> Vec<(String, DropReason)> {
    let log = server.log(id).await;
    let dropped = log.iter().filter_map(|envelope| match &envelope.event {
        Event::CheckpointDropped { name, reason } => Some((name.to_string(), *reason)),
        _ => None,
    });
    dropped.collect()
}

#[tokio::test]
async fn a_name_brings_back_all_there_was_as_often_as_wanted() {
    let server = Server::start().await;
    server.open("s").await;
    server
        .run("s", "import random; random.seed(3); kept = [1]; kept")
        .await;
    let answer = hold(&server, "s", "clean").await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let clean = answer.json();
    assert_eq!(clean["execution_count"], 1, "{clean}");
    let draw = "print(random.random(), kept, len(In), sorted(Out))";
    let first = server.prints("s", draw).await;
    for round in 0..3 {
        server.run("s", "kept.append(2); extra = 1; kept").await;
        let went = roll_back(&server, "s", "clean").await;
        assert_eq!(went.status, 200, "{went:?}");
        let state = json!({ "verdict": "restored", "checkpoint": "clean" });
        assert_eq!(went.json()["state"], state);
        // The random stream, the history and the count are as they were: so it is the same cell again.
        assert_eq!(server.prints("s", draw).await, first, "{round}");
        let result = server.run("s", "extra").await;
        assert_eq!(result["error"]["ename"], "NameError", "{result:#}");
        assert_eq!(result["execution_count"], 3, "{result:#}");
        assert_eq!(held(&server, "s").await, ["clean"]);
    }
    let log = server.log("s").await;
    let said = |wanted: &dyn Fn(&Event) -> bool| {
        log.iter()
            .filter(|envelope| wanted(&envelope.event))
            .map(|envelope| envelope.seq)
            .collect::<Vec<_>>()
    };
    let name = "clean".parse().unwrap();
    assert_eq!(
        said(&|event| matches!(event, Event::CheckpointHeld { .. })),
        [clean["seq"].as_u64().unwrap()]
    );
    let lost = said(&|event| {
        let (to, checkpoint) = (Clone::clone(&name), Clone::clone(&name));
        *event
            == Event::KernelLost {
                cause: Cause::RolledBack { to },
                state: Verdict::Restored { checkpoint },
            }
    });
    let started = said(
        &|event| matches!(event, Event::KernelStarted { reason: StartReason::RolledBack, restored: Some(restored), .. } if *restored == name),
    );
    assert_eq!((lost.len(), started.len()), (3, 3));
}

#[tokio::test]
async fn names_are_replaced_dropped_and_refused_for_a_reason() {
    let server = Server::start().await;
    server.open("s").await;
    server.run("s", "x = 1").await;
    assert_eq!(hold(&server, "s", "a").await.status, 201);
    server.run("s", "x = 2").await;
    let again = hold(&server, "s", "a").await;
    assert_eq!(
        (again.status, &again.json()["replaced"]),
        (200, &json!(true))
    );
    server.run("s", "x = 3").await;
    assert_eq!(roll_back(&server, "s", "a").await.status, 200);
    assert_eq!(server.prints("s", "print(x)").await, "2\n");
    for n in 1..MOST_HELD {
        assert_eq!(hold(&server, "s", &format!("n{n}")).await.status, 201);
    }
    let refused = hold(&server, "s", "one-too-many").await;
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (409, "too_many_checkpoints")
    );
    // A name that is there is no more than there were.
    assert_eq!(hold(&server, "s", "n3").await.status, 200);
    let gone = server
        .request("DELETE", "/v1/sessions/s/checkpoints/n1", b"")
        .await;
    assert_eq!(gone.status, 204);
    let unknown = roll_back(&server, "s", "n1").await;
    assert_eq!(
        (unknown.status, unknown.code().as_str()),
        (404, "unknown_checkpoint")
    );
    assert_eq!(
        unknown.json()["error"]["held"],
        json!(held(&server, "s").await)
    );
    let path = "/v1/sessions/s/checkpoints/n1";
    assert_eq!(
        server.request("DELETE", path, b"").await.code(),
        "unknown_checkpoint"
    );
    for bad in ["a%20b", "%C3%A4", &"x".repeat(129)] {
        assert_eq!(
            hold(&server, "s", bad).await.code(),
            "bad_checkpoint_name",
            "{bad}"
        );
    }
    assert_eq!(roll_back(&server, "s", "a b").await.code(), "bad_field");
    assert_eq!(
        dropped(&server, "s").await,
        [("n1".to_owned(), DropReason::Asked)]
    );
    // A restart ends them all.
    server.post("/v1/sessions/s/restart", &json!({})).await;
    assert_eq!(
        server.prints("s", "print('x' in globals())").await,
        "False\n"
    );
    assert_eq!(held(&server, "s").await, Vec::<String>::new());
    assert_eq!(
        roll_back(&server, "s", "a").await.code(),
        "unknown_checkpoint"
    );
    let restarted = dropped(&server, "s").await;
    assert_eq!(restarted.len(), MOST_HELD, "{restarted:?}");
    assert!(
        restarted[1..]
            .iter()
            .all(|(_, reason)| *reason == DropReason::Restarted)
    );
}

#[tokio::test]
async fn while_a_cell_runs_nothing_is_held_or_taken_back() {
    let server = Server::start().await;
    server.open("s").await;
    server.run("s", "x = 1").await;
    assert_eq!(hold(&server, "s", "a").await.status, 201);
    let mut socket = server.socket("s", 0).await;
    let cell = socket.execute("print('on'); line = input()").await;
    socket
        .wait_until(|event| matches!(event, Event::InputRequested { .. }))
        .await;
    for refused in [
        hold(&server, "s", "b").await,
        roll_back(&server, "s", "a").await,
        undo(&server, "s").await,
    ] {
        assert_eq!(
            (refused.status, refused.code().as_str()),
            (409, "kernel_busy")
        );
    }
    // What does not touch the kernel needs not wait.
    let path = "/v1/sessions/s/checkpoints/a";
    assert_eq!(server.request("DELETE", path, b"").await.status, 204);
    server
        .post("/v1/sessions/s/input", &json!({ "value": "" }))
        .await;
    socket
        .wait_until(|event| matches!(event, Event::CellFinished { cell: of, .. } if *of == cell))
        .await;
    assert_eq!(held(&server, "s").await, Vec::<String>::new());
}

#[tokio::test]
async fn the_last_cell_is_undone_and_only_that() {
    let server = Server::start().await;
    server.open("s").await;
    let nothing = undo(&server, "s").await;
    assert_eq!(
        (nothing.status, nothing.code().as_str()),
        (409, "nothing_to_undo")
    );
    server.run("s", "x = 0").await;
    for _ in 0..3 {
        let last = run_protected(&server, "s", "x += 1; sum(range(10**6)); print(x)").await;
        let text = last["text"]["stdout"]["preview"].as_str().unwrap();
        let x: u32 = text.trim().parse().unwrap();
        // What a program asks behind the user's back is no cell to undo.
        let silent = json!({ "code": "y = 1", "silent": true });
        server.post("/v1/sessions/s/run", &silent).await;
        let went = undo(&server, "s").await;
        assert_eq!(went.status, 200, "{went:?}");
        let state = json!({ "verdict": "rolled_back", "before": last["cell"] });
        assert_eq!(went.json()["state"], state);
        let again = undo(&server, "s").await;
        assert_eq!(
            (again.status, again.code().as_str()),
            (409, "nothing_to_undo")
        );
        let now = server.prints("s", "print(x, 'y' in globals())").await;
        assert_eq!(now, format!("{} False\n", x - 1));
        server.run("s", "pass").await;
    }
    let log = server.log("s").await;
    let undone = log.iter().filter(|envelope| {
        matches!(
            envelope.event,
            Event::KernelStarted {
                reason: StartReason::Undone,
                restored: None,
                ..
            }
        )
    });
    assert_eq!(undone.count(), 3);
}

#[tokio::test]
async fn an_undo_that_cannot_be_says_why() {
    let server = Server::start().await;
    let off = json!({ "env": { "EVERCELL_CHECKPOINTS": "off" } });
    server.open_with("s", off).await;
    server.run("s", "x = 1").await;
    server.run("s", "x = 2").await;
    let refused = undo(&server, "s").await;
    assert_eq!(refused.code(), "nothing_to_undo");
    let message = refused.json()["error"]["message"].to_string();
    assert!(message.contains("EVERCELL_CHECKPOINTS=off"), "{message}");
    // What somebody asks for is made all the same.
    assert_eq!(hold(&server, "s", "two").await.status, 201);
    server.run("s", "x = 3").await;
    assert_eq!(roll_back(&server, "s", "two").await.status, 200);
    assert_eq!(server.prints("s", "print(x)").await, "2\n");
}

#[tokio::test]
async fn names_outlive_crashes_and_the_server() {
    let mut server = Server::start().await;
    server
        .open_with("s", json!({ "memory_bytes": 256 * MIB }))
        .await;
    server.run("s", "import os; x = 'held'").await;
    assert_eq!(hold(&server, "s", "a").await.status, 201);
    server.run("s", "x = 'later'").await;
    let before = server.get("/v1/sessions/s/checkpoints").await.json();
    server.replace(&["--pool", "1"]).await;
    server.open("s").await;
    assert_eq!(
        server.get("/v1/sessions/s/checkpoints").await.json(),
        before
    );
    for loss in [
        "os._exit(3)",
        "fill = []\nwhile True: fill.append(bytearray(b'x') * (8 << 20))",
        "import ctypes; ctypes.string_at(0)",
    ] {
        let result = server.run("s", loss).await;
        assert_eq!(result["status"], "error", "{result:#}");
        assert_eq!(held(&server, "s").await, ["a"], "{loss}");
        let went = roll_back(&server, "s", "a").await;
        assert_eq!(went.status, 200, "{went:?}");
        assert_eq!(server.prints("s", "print(x)").await, "held\n", "{loss}");
        server.run("s", "x = 'later'").await;
        server.replace(&["--pool", "1"]).await;
        server.open("s").await;
    }
    assert_eq!(held(&server, "s").await, ["a"]);
}

#[tokio::test]
async fn what_was_held_is_dropped_before_it_takes_memory_from_a_cell() {
    let server = Server::start().await;
    server
        .open_with("s", json!({ "memory_bytes": 512 * MIB }))
        .await;
    server
        .run("s", "import numpy as np; full = np.ones(200 << 17)")
        .await;
    assert_eq!(hold(&server, "s", "one").await.status, 201);
    server.run("s", "x = 1").await;
    assert_eq!(hold(&server, "s", "two").await.status, 201);
    // 40 % lie in checkpoints only once this has begun; 80 % fit, and are measured several times.
    let code =
        "import time; del full; full = np.ones(400 << 17); time.sleep(1); print(full.nbytes >> 20)";
    assert_eq!(server.prints("s", code).await, "400\n");
    let log = server.log("s").await;
    let warned = log
        .iter()
        .filter(|envelope| matches!(envelope.event, Event::MemoryWarning { .. }));
    assert_eq!(warned.count(), 0);
    // Between cells all together is too much: both held the same, so that both go.
    let mut socket = server.socket("s", 0).await;
    socket
        .wait_until(|event| matches!(event, Event::CheckpointDropped { name, .. } if name.to_string() == "two"))
        .await;
    let names = dropped(&server, "s").await;
    let names: Vec<&str> = names.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["one", "two"]);
    assert_eq!(
        server.prints("s", "print(full.sum() == full.size)").await,
        "True\n"
    );
}

#[tokio::test]
async fn whoever_kills_checkpoints_costs_no_variables() {
    let server = Server::start().await;
    server.open("s").await;
    let hunt = "import asyncio, os, signal\n\
        def others(): return [int(p) for p in os.listdir('/proc') if p.isdigit() and int(p) not in (1, os.getpid())]\n\
        def kill():\n    for pid in others():\n        try: os.kill(pid, signal.SIGKILL)\n        except ProcessLookupError: pass\n\
        x = 0";
    server.run("s", hunt).await;
    assert_eq!(hold(&server, "s", "a").await.status, 201);
    server.run("s", "kill()").await;
    let mut socket = server.socket("s", 0).await;
    socket
        .wait_until(|event| {
            matches!(
                event,
                Event::CheckpointDropped {
                    reason: DropReason::ProcessEnded,
                    ..
                }
            )
        })
        .await;
    assert_eq!(
        roll_back(&server, "s", "a").await.code(),
        "unknown_checkpoint"
    );
    // At any moment of going back: it is done or refused, and the variables are as the answer says.
    server
        .run(
            "s",
            "async def hunter():\n    while True:\n        kill(); await asyncio.sleep(0.001)",
        )
        .await;
    for round in 1..=20 {
        let result = server
            .run(
                "s",
                &format!("x = {round}; task = asyncio.ensure_future(hunter()); x"),
            )
            .await;
        assert_eq!(result["status"], "ok", "{result:#}");
        let went = undo(&server, "s").await;
        let now = server
            .prints("s", "'task' in globals() and task.cancel(); print(x)")
            .await;
        let before = server.log("s").await;
        let lost = before.iter().any(|envelope| {
            matches!(
                &envelope.event,
                Event::KernelLost {
                    state: Verdict::Lost { .. },
                    ..
                }
            )
        });
        assert!(!lost, "{round}: {went:?}");
        let expected = if went.status == 200 { round - 1 } else { round };
        assert_eq!(now, format!("{expected}\n"), "{round}: {went:?}");
        server.run("s", &format!("x = {round}")).await;
    }
}
