//! Jupyter's front end before the whole server: what its clients see, whatever happens to them.

mod client;
mod contents;
mod rest;

use serde_json::json;

use super::socket::listen;
use super::{House, Server};
use client::{Framing, Lab};

/// A server with a kernel that was made by a Jupyter client.
async fn with_kernel() -> (Server, String, String) {
    let server = Server::new().await;
    let kernel = server.call("POST", "/api/kernels", "").await.json();
    let kernel = kernel["id"].as_str().unwrap().to_owned();
    let address = listen(&server).await;
    // Who connects after the kernel's start is not told of it.
    let mut head = 0;
    loop {
        let path = format!("/v1/sessions/{kernel}/events?after={head}&wait_ms=60000");
        let page = server.call("GET", &path, "").await.json();
        let mut events = page["events"].as_array().unwrap().iter();
        if events.any(|event| event["event"] == "kernel_started") {
            break;
        }
        head = page["head"].as_u64().unwrap();
    }
    (server, address, kernel)
}

#[tokio::test]
async fn a_cell_is_answered_in_both_framings() {
    for framing in [Framing::Json, Framing::V1] {
        let (_server, address, kernel) = with_kernel().await;
        let mut lab = Lab::connect_with(&address, &kernel, "lab", framing).await;
        let told = lab.run("print hi\nresult 3").await;
        let told: Vec<&str> = told
            .lines()
            .map(|line| line.split_once(' ').unwrap().1)
            .collect();
        insta::allow_duplicates! {
            insta::assert_snapshot!(told.join("\n"), @r#"
            iopub status {"execution_state":"busy"}
            iopub execute_input {"code":"print hi\nresult 3","execution_count":1}
            iopub stream {"name":"stdout","text":"hi\n"}
            iopub execute_result {"data":{"text/plain":"3"},"execution_count":1,"metadata":{}}
            shell execute_reply {"execution_count":1,"payload":[],"status":"ok","user_expressions":{}}
            iopub status {"execution_state":"idle"}
            "#);
        }
    }
}

#[tokio::test]
async fn every_client_sees_a_cell_and_its_sender_is_answered() {
    let (server, address, kernel) = with_kernel().await;
    let mut one = Lab::connect(&address, &kernel, "one").await;
    let mut other = Lab::connect(&address, &kernel, "other").await;
    let id = one
        .send("execute_request", json!({"code": "print hi"}))
        .await;
    let mine = one.until_idle(&id).await;
    let theirs = other.until_idle(&id).await;
    assert!(mine.contains("execute_reply"), "{mine}");
    let without_reply: String = mine
        .lines()
        .filter(|line| !line.contains("execute_reply"))
        .map(|line| format!("{line}\n"))
        .collect();
    assert_eq!(theirs, without_reply);

    // A cell of another front end is seen by both, under a parent that is its own.
    let cell = server.submit(&kernel, "print native").await;
    assert!(one.until_idle(&cell).await.contains("native"));
    assert!(other.until_idle(&cell).await.contains("native"));
}

#[tokio::test]
async fn a_client_that_comes_back_gets_what_it_has_not_seen_once() {
    let (server, address, kernel) = with_kernel().await;
    let mut lab = Lab::connect(&address, &kernel, "lab").await;
    let first = lab.run("print seen").await;
    assert!(first.contains("seen"));
    let id = lab
        .send(
            "execute_request",
            json!({"code": "print before\nask name\nprint after", "allow_stdin": true}),
        )
        .await;
    lab.until("input_request").await;
    // What was acknowledged has arrived when what was sent behind it is answered.
    for _ in 0..2 {
        lab.run_request("kernel_info_request", json!({})).await;
    }
    lab.cut().await;

    let answer = json!({"value": "n"}).to_string();
    let path = format!("/v1/sessions/{kernel}/input");
    server.call("POST", &path, &answer).await;
    server.run(&kernel, "print meanwhile").await;

    let mut lab = Lab::connect(&address, &kernel, "lab").await;
    let missed = lab.until_idle(&id).await;
    assert!(
        !missed.contains("before") && missed.contains("after"),
        "{missed}"
    );
    assert_eq!(missed.matches("execute_reply").count(), 1, "{missed}");
    let rest = lab.run("print next").await;
    assert_eq!(rest.matches("\"text\":\"meanwhile").count(), 1, "{rest}");
    assert!(!rest.contains("after"), "{rest}");
}

#[tokio::test]
async fn a_client_that_comes_back_after_the_servers_restart_is_answered() {
    let (server, address, kernel) = with_kernel().await;
    let mut lab = Lab::connect(&address, &kernel, "lab").await;
    let id = lab
        .send("execute_request", json!({"code": "print before\nwait"}))
        .await;
    lab.until("stream").await;
    drop(lab);

    let Server {
        house,
        stopping,
        router,
    } = server;
    stopping.cancel();
    drop(router);
    let server = Server::over(House::next(house).await, |_| {});
    let address = listen(&server).await;
    let mut lab = Lab::connect(&address, &kernel, "lab").await;
    // The kernel is the same and still busy with the cell of before.
    let busy = lab.until("status").await;
    assert!(busy.contains(&id) && busy.contains("busy"), "{busy}");
    server
        .call("POST", &format!("/api/kernels/{kernel}/interrupt"), "")
        .await;
    let told = lab.until_idle(&id).await;
    assert!(
        told.contains("KeyboardInterrupt") && told.contains("execute_reply"),
        "{told}"
    );
}

#[tokio::test]
async fn a_rollback_is_seen_as_text_an_error_and_a_restart() {
    let (_server, address, kernel) = with_kernel().await;
    let mut lab = Lab::connect(&address, &kernel, "lab").await;
    lab.run("checkpoint").await;
    let told = lab.run("print before\ndie 11").await;
    assert!(
        told.contains(
            "evercell: the kernel was ended by SIGSEGV; variables are as they were before this cell"
        ),
        "{told}"
    );
    assert!(told.contains("\"ename\":\"KernelDied\""), "{told}");
    let told = lab.until("restarting").await + &lab.until("\"idle\"").await;
    assert!(!told.contains("\"starting\""), "{told}");
    assert!(lab.run("print on").await.contains("\"status\":\"ok\""));
}

#[tokio::test]
async fn a_whole_notebook_may_be_sent_at_once() {
    // Four cells may wait, and there are twenty.
    let (_server, address, kernel) = with_kernel().await;
    let mut lab = Lab::connect(&address, &kernel, "lab").await;
    let mut ids = Vec::new();
    for n in 0..20 {
        ids.push(
            lab.send("execute_request", json!({"code": format!("print {n}")}))
                .await,
        );
    }
    for (n, id) in ids.iter().enumerate() {
        let told = lab.until_idle(id).await;
        assert!(told.contains(&format!("\"text\":\"{n}\\n\"")), "{told}");
    }
}

#[tokio::test]
async fn an_error_aborts_also_what_found_no_room() {
    let (server, address, kernel) = with_kernel().await;
    let mut lab = Lab::connect(&address, &kernel, "lab").await;
    let first = lab.send("execute_request", json!({"code": "wait"})).await;
    let mut ids = Vec::new();
    for n in 0..10 {
        ids.push(
            lab.send("execute_request", json!({"code": format!("print {n}")}))
                .await,
        );
    }
    // All of them have come when what was sent behind them is answered.
    lab.run_request("kernel_info_request", json!({})).await;
    server
        .call("POST", &format!("/api/kernels/{kernel}/interrupt"), "")
        .await;
    // Those that waited for room are answered at once, the others when the log says it: maybe before what was sent before them.
    ids.insert(0, first);
    let told = lab.until_all_idle(&ids).await;
    assert!(told[0].contains("KeyboardInterrupt"), "{}", told[0]);
    for told in &told[1..] {
        assert!(told.contains("\"status\":\"aborted\""), "{told}");
    }
    assert!(lab.run("print on").await.contains("\"status\":\"ok\""));
}

#[tokio::test]
async fn a_notebook_longer_than_the_queue_is_read_to_its_end_and_aborted_with_its_first_cell() {
    let (_server, address, kernel) = with_kernel().await;
    let mut lab = Lab::connect(&address, &kernel, "lab").await;
    let mut ids = vec![lab.send("execute_request", json!({"code": "wait"})).await];
    // More than may wait in the session, and than other clients may have under way.
    for n in 0..4 + 64 + 40 {
        let code = format!("print {n}");
        ids.push(lab.send("execute_request", json!({"code": code})).await);
    }
    // Nothing of what was sent behind them waits for them, so that nobody is cut off.
    lab.run_request("kernel_info_request", json!({})).await;
    lab.send_on("control", "interrupt_request", json!({})).await;
    let told = lab.until_all_idle(&ids).await;
    assert!(told[0].contains("KeyboardInterrupt"), "{}", told[0]);
    for told in &told[1..] {
        assert!(told.contains("\"status\":\"aborted\""), "{told}");
    }
    assert!(lab.run("print on").await.contains("\"status\":\"ok\""));
}

#[tokio::test]
async fn input_is_answered_by_whoever_has_sent_a_notebook_behind_it() {
    let (_server, address, kernel) = with_kernel().await;
    let mut lab = Lab::connect(&address, &kernel, "lab").await;
    let ask = json!({"code": "ask name?", "allow_stdin": true});
    let mut ids = vec![lab.send("execute_request", ask).await];
    for n in 0..100 {
        let code = format!("print {n}");
        ids.push(lab.send("execute_request", json!({"code": code})).await);
    }
    lab.until("input_request").await;
    lab.send_on("stdin", "input_reply", json!({"value": "Ada"}))
        .await;
    for told in lab.until_all_idle(&ids).await {
        assert!(told.contains("\"status\":\"ok\""), "{told}");
    }
}

#[tokio::test]
async fn a_silent_cell_that_fails_aborts_nothing() {
    let (_server, address, kernel) = with_kernel().await;
    let mut lab = Lab::connect(&address, &kernel, "lab").await;
    let ask = json!({"code": "ask go?\nerror E no", "silent": true, "allow_stdin": true});
    let silent = lab.send("execute_request", ask).await;
    let cell = lab
        .send("execute_request", json!({"code": "print on"}))
        .await;
    lab.until("input_request").await;
    lab.send_on("stdin", "input_reply", json!({"value": ""}))
        .await;
    let told = lab.until_all_idle(&[silent, cell]).await;
    assert!(told[0].contains("\"status\":\"error\""), "{}", told[0]);
    assert!(told[1].contains("\"status\":\"ok\""), "{}", told[1]);
}

#[tokio::test]
async fn a_question_does_not_wait_for_the_cells_that_wait() {
    let (_server, address, kernel) = with_kernel().await;
    let mut lab = Lab::connect(&address, &kernel, "lab").await;
    let ask = json!({"code": "ask go?", "allow_stdin": true});
    lab.send("execute_request", ask).await;
    lab.send("execute_request", json!({"code": "wait"})).await;
    let question = lab
        .send("complete_request", json!({"code": "pr", "cursor_pos": 2}))
        .await;
    // It has come when what was sent behind it is answered.
    lab.run_request("kernel_info_request", json!({})).await;
    lab.send_on("stdin", "input_reply", json!({"value": ""}))
        .await;
    let told = lab.until_idle(&question).await;
    assert!(told.contains("\"matches\":[\"print\"]"), "{told}");
}

#[tokio::test]
async fn a_page_that_comes_while_a_cell_prints_is_told_that_the_kernel_is_busy() {
    let (server, address, kernel) = with_kernel().await;
    let mut lab = Lab::connect(&address, &kernel, "lab").await;
    // So much that the cell's beginning is not among what is read first, and more to come.
    let code =
        "show x\n".repeat(300) + "ask more?\n" + &"show y\n".repeat(300) + "print done\nask again?";
    let id = lab
        .send(
            "execute_request",
            json!({"code": code, "allow_stdin": true}),
        )
        .await;
    lab.until("input_request").await;
    // What was acknowledged has arrived when what was sent behind it is answered.
    for _ in 0..2 {
        lab.run_request("kernel_info_request", json!({})).await;
    }
    lab.cut().await;
    let mut other = Lab::connect(&address, &kernel, "other").await;
    let answer = json!({"value": ""}).to_string();
    let path = format!("/v1/sessions/{kernel}/input");
    server.call("POST", &path, &answer).await;
    other.until("done").await;

    // One that comes back stands before the end of the log, and is told all the same.
    let mut lab = Lab::connect(&address, &kernel, "lab").await;
    let busy = lab.until("status").await;
    assert!(busy.contains(&id) && busy.contains("busy"), "{busy}");
}

#[tokio::test]
async fn a_question_waits_for_the_cell_and_what_needs_no_kernel_does_not() {
    let (server, address, kernel) = with_kernel().await;
    let mut lab = Lab::connect(&address, &kernel, "lab").await;
    let cell = lab.send("execute_request", json!({"code": "wait"})).await;
    lab.until("execute_input").await;
    let question = lab
        .send("complete_request", json!({"code": "pr", "cursor_pos": 2}))
        .await;
    let told = lab.run_request("kernel_info_request", json!({})).await;
    assert!(
        told.contains("\"protocol_version\":\"5.4\"") && !told.contains("complete_reply"),
        "{told}"
    );
    // The `idle` of that is not the cell's: it is said to be busy again.
    let again = lab.until("status").await;
    assert!(again.contains(&cell) && again.contains("busy"), "{again}");
    server
        .call("POST", &format!("/api/kernels/{kernel}/interrupt"), "")
        .await;
    let told = lab.until_all_idle(&[cell, question]).await;
    assert!(told[0].contains("KeyboardInterrupt"), "{}", told[0]);
    assert!(told[1].contains("\"matches\":[\"print\"]"), "{}", told[1]);
}

#[tokio::test]
async fn input_is_asked_of_the_sender_and_answered_by_it() {
    let (_server, address, kernel) = with_kernel().await;
    let mut lab = Lab::connect(&address, &kernel, "lab").await;
    let mut other = Lab::connect(&address, &kernel, "other").await;
    let id = lab
        .send(
            "execute_request",
            json!({"code": "ask name?", "allow_stdin": true}),
        )
        .await;
    assert!(lab.until("input_request").await.contains("name?"));
    lab.send_on("stdin", "input_reply", json!({"value": "Ada"}))
        .await;
    assert!(lab.until_idle(&id).await.contains("Ada"));
    assert!(!other.until_idle(&id).await.contains("input_request"));
}

#[tokio::test]
async fn a_restart_while_a_cell_runs_answers_the_cell() {
    let (server, address, kernel) = with_kernel().await;
    let mut lab = Lab::connect(&address, &kernel, "lab").await;
    let id = lab.send("execute_request", json!({"code": "wait"})).await;
    lab.until("execute_input").await;
    let answer = server
        .call("POST", &format!("/api/kernels/{kernel}/restart"), "")
        .await;
    assert_eq!(answer.status, 200);
    let told = lab.until_idle(&id).await;
    assert!(told.contains("KernelRestarted"), "{told}");
    let told = lab.until("\"starting\"").await + &lab.run("print on").await;
    assert!(
        told.contains("\"status\":\"ok\"") && !told.contains("restarting"),
        "{told}"
    );
}

#[tokio::test]
async fn nonsense_ends_the_connection_with_its_reason_and_no_other() {
    let (_server, address, kernel) = with_kernel().await;
    let mut other = Lab::connect(&address, &kernel, "other").await;
    for (framing, nonsense) in [
        (Framing::Json, &b"{"[..]),
        (Framing::Json, b"\0\0\0\xff"),
        (Framing::V1, b""),
        (Framing::V1, b"\xff\xff\xff\xff\xff\xff\xff\xff"),
    ] {
        let mut lab = Lab::connect_with(&address, &kernel, "lab", framing).await;
        lab.send_bytes(nonsense).await;
        assert_eq!(lab.closed().await, 1007);
    }
    assert!(other.run("print on").await.contains("\"status\":\"ok\""));
}

#[tokio::test]
async fn what_cannot_be_meant_is_passed_over_or_refused_but_never_left_open() {
    let (_server, address, kernel) = with_kernel().await;
    let mut lab = Lab::connect(&address, &kernel, "lab").await;
    // Only kernels say this, or nobody does.
    lab.send_on("iopub", "execute_request", json!({"code": "print no"}))
        .await;
    lab.send_on("shell", "hello", json!({})).await;
    lab.send_on("stdin", "input_reply", json!({"value": "nobody asked"}))
        .await;
    lab.send_text(r#"{"header": {}, "content": {}}"#).await;
    for (kind, content) in [
        ("execute_request", json!({})),
        ("execute_request", json!({"code": 1})),
        ("complete_request", json!({})),
        ("history_request", json!({"hist_access_type": "nothing"})),
        ("create_subshell_request", json!({})),
    ] {
        let told = lab.run_request(kind, content).await;
        assert!(told.contains("\"status\":\"error\""), "{kind}: {told}");
        assert!(!told.contains("print no"));
    }
    assert!(lab.run("print on").await.contains("\"status\":\"ok\""));
}

#[tokio::test]
async fn a_client_that_never_reads_holds_up_nobody() {
    let (server, address, kernel) = with_kernel().await;
    let _deaf = Lab::connect(&address, &kernel, "deaf").await;
    let mut lab = Lab::connect(&address, &kernel, "lab").await;
    let big = format!("print {}", "x".repeat(200_000));
    for _ in 0..50 {
        server.run(&kernel, &big).await;
    }
    assert!(lab.run("print last").await.contains("last"));
}

#[tokio::test]
async fn a_shutdown_ends_the_session_and_its_connections() {
    let (server, address, kernel) = with_kernel().await;
    let mut lab = Lab::connect(&address, &kernel, "lab").await;
    let mut other = Lab::connect(&address, &kernel, "other").await;
    lab.send_on("control", "shutdown_request", json!({"restart": false}))
        .await;
    let told = lab.until("shutdown_reply").await;
    assert!(told.contains("\"status\":\"ok\""), "{told}");
    assert_eq!(lab.closed().await, 1000);
    assert_eq!(other.closed().await, 1000);
    // Nothing is left of it, not only its kernel.
    for path in ["/api/kernels", "/v1/sessions"] {
        let answer = server.call("GET", &format!("{path}/{kernel}"), "").await;
        assert_eq!(answer.outcome(), "404 unknown_session");
    }
}

#[tokio::test]
async fn a_second_connection_of_a_client_takes_the_place_of_the_first() {
    let (server, address, kernel) = with_kernel().await;
    let mut stale = Lab::connect(&address, &kernel, "lab").await;
    stale.run("print once").await;
    let mut lab = Lab::connect(&address, &kernel, "lab").await;
    assert_eq!(stale.closed().await, 4412);
    assert!(lab.run("print on").await.contains("\"status\":\"ok\""));
    // Clients connect again by themselves. It does not go on like this for ever: both are served.
    let mut again = Lab::connect(&address, &kernel, "lab").await;
    assert!(again.run("print one").await.contains("\"status\":\"ok\""));
    assert!(lab.run("print two").await.contains("\"status\":\"ok\""));
    let model = server
        .call("GET", &format!("/api/kernels/{kernel}"), "")
        .await
        .json();
    assert_eq!(model["connections"], 1);
}

#[tokio::test]
async fn a_comm_message_is_framed_by_busy_and_idle() {
    let (_server, address, kernel) = with_kernel().await;
    let mut lab = Lab::connect(&address, &kernel, "lab").await;
    lab.run("print 1").await;
    let told = lab
        .run_request("comm_msg", json!({"comm_id": "c", "data": {}}))
        .await;
    let states: Vec<bool> = told.lines().map(|line| line.contains("busy")).collect();
    assert_eq!(states, [true, false], "{told}");
}
