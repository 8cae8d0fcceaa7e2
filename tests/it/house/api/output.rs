//! A cell's output is read by range and searched, and a late reader gets a view of it that can be taken in.

use evercell::store::TrimPolicy;
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::socket::{connect, hear, listen};
use super::{Server, request};

/// A script that prints so many numbered lines, and the text that it prints.
fn flood(lines: usize) -> (String, String) {
    let padding = "x".repeat(100);
    let script = (0..lines).map(|n| format!("print {n} {padding}\n"));
    let text = (0..lines).map(|n| format!("{n} {padding}\n"));
    (script.collect(), text.collect())
}

/// Reads a cell's whole output, range by range.
async fn read_all(server: &Server, path: &str) -> String {
    let (mut text, mut from) = (String::new(), 0);
    loop {
        let part = server
            .call("GET", &format!("{path}?from={from}&bytes=100000"), "")
            .await
            .json();
        assert_eq!(part["from"], from);
        text.push_str(part["text"].as_str().unwrap());
        from = part["next"].as_u64().unwrap();
        if part["total_bytes"] == from {
            assert_eq!(part["complete"], true);
            return text;
        }
    }
}

#[tokio::test]
async fn a_long_output_is_read_in_parts() {
    let server = Server::new().await;
    server.open("a").await;
    let (script, text) = flood(8000);
    let result = server.run("a", &script).await;
    let cell = result["cell"].as_str().unwrap();
    let path = format!("/v1/sessions/a/cells/{cell}/output");
    assert!(read_all(&server, &path).await == text, "every byte once");
    let empty = server
        .call("GET", &format!("{path}?stream=stderr"), "")
        .await;
    assert_eq!(
        empty.json(),
        json!({"stream": "stderr", "from": 0, "next": 0, "total_bytes": 0, "complete": true, "text": ""})
    );
    let beyond = server
        .call("GET", &format!("{path}?from=99999999"), "")
        .await;
    assert_eq!(beyond.outcome(), "416 bad_range");
    assert_eq!(beyond.json()["error"]["total_bytes"], text.len());
    // After the session has ended as well.
    server.house.sessions.stop().await;
    assert!(read_all(&server, &path).await == text, "every byte once");
}

#[tokio::test]
async fn the_output_of_a_running_cell_is_read_so_far() {
    let server = Server::new().await;
    server.open("a").await;
    let cell = server
        .submit("a", "write grüße\nwarn careful\nask More?\nprint end")
        .await;
    while server.call("GET", "/v1/sessions/a", "").await.json()["running"]["input"].is_null() {
        tokio::task::yield_now().await;
    }
    let path = format!("/v1/sessions/a/cells/{cell}/output");
    let part = server
        .call("GET", &format!("{path}?from=3"), "")
        .await
        .json();
    // Byte 3 lies within the `ü`.
    assert_eq!(
        part,
        json!({"stream": "stdout", "from": 2, "next": 7, "total_bytes": 7, "complete": false, "text": "üße"})
    );
    let part = server
        .call("GET", &format!("{path}?stream=stderr&bytes=4"), "")
        .await
        .json();
    assert_eq!((&part["text"], &part["next"]), (&json!("care"), &json!(4)));
    server
        .call("POST", "/v1/sessions/a/input", r#"{"value": "x"}"#)
        .await;
    server
        .call("GET", &format!("/v1/sessions/a/cells/{cell}?wait"), "")
        .await;
    let part = server
        .call("GET", &format!("{path}?from=7"), "")
        .await
        .json();
    assert_eq!(
        (&part["text"], &part["complete"]),
        (&json!("x\nend\n"), &json!(true))
    );
}

#[tokio::test]
async fn an_output_is_searched() {
    let server = Server::new().await;
    server.open("a").await;
    let (script, text) = flood(5000);
    let result = server.run("a", &script).await;
    let path = format!(
        "/v1/sessions/a/cells/{}/output",
        result["cell"].as_str().unwrap()
    );
    let found = server
        .call("GET", &format!("{path}?find=999%20x&limit=2"), "")
        .await
        .json();
    let byte = text.find("999 x").unwrap();
    assert_eq!(
        (&found["total"], found["matches"].as_array().unwrap().len()),
        (&json!(5), 2)
    );
    let first = &found["matches"][0];
    assert_eq!(
        (&first["byte"], &first["line"]),
        (&json!(byte), &json!(1000))
    );
    assert!(first["text"].as_str().unwrap().starts_with("999 xxx"));
    let next = &found["next"];
    let found = server
        .call("GET", &format!("{path}?find=999%20x&from={next}"), "")
        .await
        .json();
    let lines: Vec<_> = found["matches"]
        .as_array()
        .unwrap()
        .iter()
        .map(|found| found["line"].as_u64().unwrap())
        .collect();
    assert_eq!(lines, [3000, 4000, 5000]);
    assert_eq!(
        (&found["next"], &found["complete"]),
        (&json!(text.len() - 4), &json!(true))
    );
}

#[tokio::test]
async fn what_cannot_be_is_refused() {
    let server = Server::new().await;
    server.open("a").await;
    let cell = server.run("a", "print x").await["cell"]
        .as_str()
        .unwrap()
        .to_owned();
    for (query, outcome) in [
        ("bytes=0", "400 bad_parameter"),
        ("bytes=1048577", "400 bad_parameter"),
        ("find=", "400 bad_parameter"),
        ("find=x&bytes=1", "400 bad_parameter"),
        ("find=x&limit=0", "400 bad_parameter"),
        ("limit=1", "400 bad_parameter"),
        ("stream=stdin", "400 bad_parameter"),
        ("form=1", "400 unknown_field"),
    ] {
        let answer = server
            .call(
                "GET",
                &format!("/v1/sessions/a/cells/{cell}/output?{query}"),
                "",
            )
            .await;
        assert_eq!(answer.outcome(), outcome, "{query}");
    }
    let other = "/v1/sessions/a/cells/0190b0c0-0000-7000-8000-000000000000/output";
    assert_eq!(
        server.call("GET", other, "").await.outcome(),
        "404 unknown_cell"
    );
    for path in ["events?view=dead", "ws?view=dead"] {
        let answer = server
            .call("GET", &format!("/v1/sessions/a/{path}"), "")
            .await;
        assert_eq!(answer.outcome(), "400 bad_parameter", "{path}");
    }
}

#[tokio::test]
async fn an_output_whose_beginning_was_trimmed_says_so() {
    let server = Server::new().await;
    server.open("a").await;
    let (script, _) = flood(8000);
    let result = server.run("a", &script).await;
    let cell = result["cell"].as_str().unwrap();
    let policy = TrimPolicy {
        bytes_per_session: Some(600_000),
        ..TrimPolicy::default()
    };
    server.house.sessions.trim(policy).await.unwrap();
    let answer = server
        .call("GET", &format!("/v1/sessions/a/cells/{cell}/output"), "")
        .await;
    assert_eq!(answer.outcome(), "410 events_trimmed");
    let first = &server.call("GET", "/v1/sessions/a", "").await.json()["first"];
    assert_eq!(&answer.json()["error"]["first_available"], first);
}

/// The text of one stream in some events, and how much of it is elided.
fn text_of(events: &[Value]) -> (String, u64) {
    let text = events
        .iter()
        .filter_map(|event| event["text"].as_str())
        .collect();
    let streams = events
        .iter()
        .filter_map(|event| event["streams"].as_array());
    let elided = streams
        .flatten()
        .map(|stream| stream["bytes"].as_u64().unwrap())
        .sum();
    (text, elided)
}

#[tokio::test]
async fn a_late_reader_of_the_live_view_gets_head_and_tail_however_it_reads() {
    let server = Server::new().await;
    server.open("a").await;
    let (script, text) = flood(8000);
    server.run("a", &script).await;
    let head = server.call("GET", "/v1/sessions/a", "").await.json()["head"]
        .as_u64()
        .unwrap();

    let page = server
        .call("GET", "/v1/sessions/a/events?view=live", "")
        .await
        .json();
    assert_eq!(
        (&page["more"], &page["head"]),
        (&json!(false), &json!(head))
    );
    let paged = page["events"].as_array().unwrap().clone();

    let address = listen(&server).await;
    let mut socket = connect(&address, "/v1/sessions/a/ws?view=live").await;
    let mut heard = Vec::new();
    while heard
        .last()
        .is_none_or(|event: &Value| event["seq"] != head)
    {
        heard.push(hear(&mut socket).await);
    }

    let streamed = request(
        "GET",
        "/v1/sessions/a/events?view=live",
        "",
        &[("accept", "text/event-stream")],
    );
    let response = server.router.clone().oneshot(streamed).await.unwrap();
    let mut body = response.into_body().into_data_stream();
    let mut told = String::new();
    while !told.contains("event: cell_finished\n") || !told.ends_with("\n\n") {
        told.push_str(std::str::from_utf8(&body.next().await.unwrap().unwrap()).unwrap());
    }
    let told: Vec<Value> = told
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|data| serde_json::from_str(data).unwrap())
        .collect();

    for sent in [paged, heard, told] {
        let (shown, elided) = text_of(&sent);
        assert!(shown.len() < 600_000, "{}", shown.len());
        assert!(elided > 0 && shown.len() as u64 + elided == text.len() as u64);
        assert!(
            text.starts_with(&shown[..100_000]) && text.ends_with(&shown[shown.len() - 30_000..])
        );
        let seqs: Vec<_> = sent
            .iter()
            .map(|event| event["seq"].as_u64().unwrap())
            .collect();
        assert!(seqs.is_sorted_by(|a, b| a < b), "{seqs:?}");
        assert_eq!(seqs.last(), Some(&head));
    }
}

#[tokio::test]
async fn pages_of_the_live_view_follow_each_other() {
    let server = Server::new().await;
    server.open("a").await;
    server
        .run(
            "a",
            "print one\nshow figure\nwarn two\nshow figure\nprint three",
        )
        .await;
    let whole = server
        .call("GET", "/v1/sessions/a/events?view=live", "")
        .await
        .json();
    let (mut events, mut after) = (Vec::new(), 0);
    loop {
        let page = server
            .call(
                "GET",
                &format!("/v1/sessions/a/events?view=live&limit=2&after={after}"),
                "",
            )
            .await
            .json();
        events.extend(page["events"].as_array().unwrap().clone());
        after = events.last().unwrap()["seq"].as_u64().unwrap();
        if page["more"] == false {
            break;
        }
    }
    assert_eq!(Value::from(events), whole["events"]);
    // Where nothing is to be merged it is the log itself.
    let exact = server.call("GET", "/v1/sessions/a/events", "").await.json();
    assert_eq!(exact["events"], whole["events"]);
    let ahead = server
        .call("GET", "/v1/sessions/a/events?view=live&after=99", "")
        .await;
    assert_eq!(ahead.outcome(), "409 cursor_ahead");
}

#[tokio::test]
async fn who_follows_the_live_view_gets_each_event_at_once() {
    let server = Server::new().await;
    server.open("a").await;
    let address = listen(&server).await;
    let mut socket = connect(&address, "/v1/sessions/a/ws?view=live").await;
    while hear(&mut socket).await["event"] != "kernel_started" {}
    server.submit("a", "print one\nask More?").await;
    let mut heard = Vec::new();
    while heard
        .last()
        .is_none_or(|event: &Value| event["event"] != "input_requested")
    {
        heard.push(hear(&mut socket).await);
    }
    let exact = server
        .call("GET", "/v1/sessions/a/events?after=2", "")
        .await
        .json();
    assert_eq!(Value::from(heard), exact["events"]);
}
