//! Cells are submitted, waited for, extended and stopped.

use std::time::Duration;

use serde_json::json;

use super::{Server, request};
use crate::harness::house::pass;

#[tokio::test]
async fn running_a_cell_answers_with_its_result() {
    let server = Server::new().await;
    server.open("a").await;
    let result = server
        .run("a", "print hello\nwarn careful\nshow figure\nresult 42")
        .await;
    assert_eq!(result["status"], "ok");
    assert_eq!(result["text"]["stdout"]["preview"], "hello\n");
    assert_eq!(result["text"]["stderr"]["preview"], "careful\n");
    assert_eq!(result["result"]["data"]["text/plain"], "42");
    assert_eq!(result["displays"].as_array().unwrap().len(), 1);
    assert_eq!(result["state"]["verdict"], "kept");
}

#[tokio::test]
async fn an_exception_is_a_result_and_not_a_refusal() {
    let server = Server::new().await;
    server.open("a").await;
    let result = server.run("a", "error ValueError no such thing").await;
    assert_eq!(
        (&result["status"], &result["error"]["ename"]),
        (&json!("error"), &json!("ValueError"))
    );
}

#[tokio::test]
async fn submitting_answers_at_once_and_the_result_comes_later() {
    let server = Server::new().await;
    server.open("a").await;
    let answer = server
        .call(
            "POST",
            "/v1/sessions/a/cells",
            r#"{"code": "wait", "limit_ms": 20000}"#,
        )
        .await;
    assert_eq!(answer.outcome(), "202 -");
    let submitted = answer.json();
    assert_eq!(
        (&submitted["limit_ms"], &submitted["duplicate"]),
        (&json!(20_000), &json!(false))
    );
    let cell = format!(
        "/v1/sessions/a/cells/{}",
        submitted["cell"].as_str().unwrap()
    );
    let soon = server.call("GET", &format!("{cell}?wait_ms=50"), "").await;
    assert_eq!(
        (soon.outcome().as_str(), &soon.json()["status"]),
        ("202 -", &json!("running"))
    );
    assert_eq!(
        server
            .call("POST", &format!("{cell}/interrupt"), "")
            .await
            .outcome(),
        "202 -"
    );
    let later = server.call("GET", &format!("{cell}?wait"), "").await;
    assert_eq!(
        (later.outcome().as_str(), &later.json()["cause"]["kind"]),
        ("200 -", &json!("interrupted"))
    );
}

#[tokio::test]
async fn a_key_runs_a_cell_once() {
    let server = Server::new().await;
    server.open("a").await;
    let send = |key: &'static str, code: &'static str| {
        let body = json!({ "code": code }).to_string();
        server.send(request(
            "POST",
            "/v1/sessions/a/run",
            &body,
            &[("idempotency-key", key)],
        ))
    };
    let first = send("k", "print once").await.json();
    let second = send("k", "print once").await.json();
    assert_eq!(first["cell"], second["cell"]);
    assert_eq!(second["text"]["stdout"]["preview"], "once\n");
    assert_eq!(send("k", "print twice").await.outcome(), "409 key_reused");
}

#[tokio::test]
async fn a_client_that_hangs_up_changes_nothing() {
    let server = Server::new().await;
    server.open("a").await;
    let call = server.call(
        "POST",
        "/v1/sessions/a/run",
        r#"{"code": "ask Name?", "allow_stdin": true}"#,
    );
    assert!(
        tokio::time::timeout(Duration::from_millis(300), call)
            .await
            .is_err(),
        "it waits for an answer"
    );
    let session = server.call("GET", "/v1/sessions/a", "").await.json();
    let cell = session["running"]["cell"].as_str().unwrap().to_owned();
    assert_eq!(session["running"]["input"]["prompt"], "Name?");
    assert_eq!(
        server
            .call("POST", "/v1/sessions/a/input", r#"{"value": "Ada"}"#)
            .await
            .outcome(),
        "202 -"
    );
    let result = server
        .call("GET", &format!("/v1/sessions/a/cells/{cell}?wait"), "")
        .await
        .json();
    assert_eq!(
        (&result["status"], &result["text"]["stdout"]["preview"]),
        (&json!("ok"), &json!("Ada\n"))
    );
}

#[tokio::test]
async fn a_deadline_is_extended_up_to_its_ceiling() {
    let server = Server::new().await;
    server.open("a").await;
    assert_eq!(
        server
            .call("POST", "/v1/sessions/a/extend", r#"{"by_ms": 1}"#)
            .await
            .outcome(),
        "409 nothing_runs"
    );
    let cell = server.submit("a", "wait").await;
    let path = format!("/v1/sessions/a/cells/{cell}/extend");
    let answer = server.call("POST", &path, r#"{"by_ms": 1000}"#).await;
    assert_eq!(
        (answer.outcome().as_str(), &answer.json()["limit_ms"]),
        ("200 -", &json!(31_000))
    );
    let refused = server.call("POST", &path, r#"{"by_ms": 99999999}"#).await;
    assert_eq!(refused.outcome(), "409 beyond_ceiling");
    assert_eq!(refused.json()["error"]["grantable_ms"], 569_000);
    server.call("POST", "/v1/sessions/a/interrupt", "").await;
    server
        .call("GET", &format!("/v1/sessions/a/cells/{cell}?wait"), "")
        .await;
    assert_eq!(
        server
            .call("POST", &path, r#"{"by_ms": 1}"#)
            .await
            .outcome(),
        "409 cell_finished"
    );
}

#[tokio::test]
async fn a_waiting_cell_is_taken_out_of_the_queue() {
    let server = Server::new().await;
    server.open("a").await;
    let running = server.submit("a", "wait").await;
    let waiting = server.submit("a", "print never").await;
    assert_eq!(
        server
            .call("DELETE", &format!("/v1/sessions/a/cells/{waiting}"), "")
            .await
            .outcome(),
        "204 -"
    );
    let result = server
        .call("GET", &format!("/v1/sessions/a/cells/{waiting}"), "")
        .await;
    assert_eq!(
        (result.outcome().as_str(), &result.json()["status"]),
        ("200 -", &json!("aborted"))
    );
    server
        .call(
            "GET",
            &format!("/v1/sessions/a/cells/{running}?wait_ms=100"),
            "",
        )
        .await;
    assert_eq!(
        server
            .call("DELETE", &format!("/v1/sessions/a/cells/{running}"), "")
            .await
            .outcome(),
        "409 cell_runs"
    );
    for n in 0..4 {
        server.submit("a", &format!("print {n}")).await;
    }
    let full = server
        .call("POST", "/v1/sessions/a/cells", r#"{"code": ""}"#)
        .await;
    assert_eq!(
        (full.outcome().as_str(), &full.json()["error"]["bound"]),
        ("429 queue_full", &json!(4))
    );
    assert!(full.headers.contains_key("retry-after"));
}

#[tokio::test]
async fn a_wait_ends_when_the_server_stops() {
    let server = Server::new().await;
    server.open("a").await;
    let stop = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        server.stopping.cancel();
    };
    let (answer, ()) = tokio::join!(
        server.call("POST", "/v1/sessions/a/run", r#"{"code": "wait"}"#),
        stop
    );
    assert_eq!(
        (answer.outcome().as_str(), &answer.json()["status"]),
        ("202 -", &json!("running"))
    );
    assert_eq!(
        server.call("GET", "/readyz", "").await.outcome(),
        "503 stopping"
    );
}

#[tokio::test]
async fn the_first_result_after_a_loss_says_what_was_lost() {
    let server = Server::new().await;
    server.open("a").await;
    server.run("a", "die 11").await;
    let view = server.call("GET", "/v1/sessions/a", "").await.json();
    let note = json!({
        "verdict": "lost", "why": "the kernel was killed by SIGSEGV", "at_seq": view["state_note"]["at_seq"],
        "cause": { "kind": "killed_by_signal", "signal": 11, "name": "SIGSEGV" },
    });
    assert_eq!(view["state_note"], note);
    assert_eq!(server.run("a", "print 1").await["state_note"], note);
    assert_eq!(server.run("a", "print 2").await.get("state_note"), None);
    let view = server.call("GET", "/v1/sessions/a", "").await.json();
    assert_eq!(view.get("state_note"), None);
}

#[tokio::test(start_paused = true)]
async fn a_kernel_that_could_not_be_killed_is_named_in_the_result_and_in_the_next_answer() {
    let server = Server::new().await;
    server.open("a").await;
    let mut client = server.house.client("a").await;
    let cell = client.execute("immortal").await.cell;
    client.wait_for("cell_started").await;
    client.handle.interrupt(None).await.unwrap();
    client.wait_for("interrupted").await;
    for seconds in [2, 1, 1] {
        pass(Duration::from_secs(seconds)).await;
        client.wait_for("interrupted").await;
    }
    pass(Duration::from_secs(5)).await;
    client.wait_for("kernel_started").await;
    let path = format!("/v1/sessions/a/cells/{cell}");
    let result = server.call("GET", &path, "").await.json();
    assert_eq!(result["cause"], json!({ "kind": "unresponsive" }));
    assert_eq!(result["state"]["verdict"], "lost");
    let next = server.run("a", "print 1").await;
    assert_eq!(next["state_note"]["cause"], result["cause"], "{next:#}");
    assert_eq!(next["state_note"]["verdict"], "lost", "{next:#}");
    assert!(next["checkpoint"]["unprotected"].is_string(), "{next:#}");
    let seen = server.run("a", "print 2").await;
    assert_eq!(seen["state_note"], json!(null), "{seen:#}");
}
