//! The log is read as pages, as a stream, and event by event.

use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::{Server, request};

fn names(page: &Value) -> Vec<&str> {
    page["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["event"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn a_log_is_read_page_by_page() {
    let server = Server::new().await;
    server.open("a").await;
    server.run("a", "print 1").await;
    let page = server
        .call("GET", "/v1/sessions/a/events?limit=2", "")
        .await
        .json();
    assert_eq!(names(&page), ["session_opened", "kernel_started"]);
    assert_eq!(
        (&page["head"], &page["first"], &page["more"]),
        (&json!(6), &json!(1), &json!(true))
    );
    let page = server
        .call("GET", "/v1/sessions/a/events?after=2", "")
        .await
        .json();
    assert_eq!(
        names(&page),
        ["cell_queued", "cell_started", "stream", "cell_finished"]
    );
    assert_eq!(page["more"], false);
    let event = server
        .call("GET", "/v1/sessions/a/events/5", "")
        .await
        .json();
    assert_eq!(event, page["events"][2]);
}

#[tokio::test]
async fn a_page_can_be_waited_for() {
    let server = Server::new().await;
    server.open("a").await;
    server.run("a", "").await;
    let after = server.call("GET", "/v1/sessions/a", "").await.json()["head"]
        .as_u64()
        .unwrap();
    let path = format!("/v1/sessions/a/events?after={after}&wait_ms=60000");
    let (page, _) = tokio::join!(server.call("GET", &path, ""), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        server.submit("a", "print 1").await
    });
    assert_eq!(page.json()["events"][0]["event"], "cell_queued");
    // Nothing comes: it answers all the same.
    server.run("a", "").await;
    let head = server.call("GET", "/v1/sessions/a", "").await.json()["head"].clone();
    let page = server
        .call(
            "GET",
            &format!("/v1/sessions/a/events?after={head}&wait_ms=1"),
            "",
        )
        .await
        .json();
    assert_eq!(
        (page["events"].as_array().unwrap().len(), &page["more"]),
        (0, &json!(false))
    );
}

#[tokio::test]
async fn a_cursor_that_cannot_be_is_refused() {
    let server = Server::new().await;
    server.open("a").await;
    server.run("a", "").await;
    for headers in [&[][..], &[("accept", "text/event-stream")]] {
        let answer = server
            .send(request(
                "GET",
                "/v1/sessions/a/events?after=99",
                "",
                headers,
            ))
            .await;
        assert_eq!(
            (answer.outcome().as_str(), &answer.json()["error"]["head"]),
            ("409 cursor_ahead", &json!(5))
        );
    }
    for seq in ["0", "99", "18446744073709551615"] {
        let answer = server
            .call("GET", &format!("/v1/sessions/a/events/{seq}"), "")
            .await;
        assert_eq!(answer.outcome(), "404 unknown_event", "{seq}");
    }
}

/// Reads from a stream until it holds this text.
async fn read_until(body: &mut BodyDataStream, wanted: &str) -> String {
    let mut text = String::new();
    while !text.contains(wanted) {
        let piece = body.next().await.expect("the stream goes on").unwrap();
        text.push_str(std::str::from_utf8(&piece).unwrap());
    }
    text
}

async fn stream(server: &Server, path: &str, headers: &[(&str, &str)]) -> BodyDataStream {
    let headers = [&[("accept", "text/event-stream")], headers].concat();
    let response = server
        .router
        .clone()
        .oneshot(request("GET", path, "", &headers))
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    Body::into_data_stream(response.into_body())
}

#[tokio::test]
async fn a_stream_goes_on_with_what_happens_and_resumes() {
    let server = Server::new().await;
    server.open("a").await;
    let mut body = stream(&server, "/v1/sessions/a/events", &[]).await;
    read_until(&mut body, "event: kernel_started\n").await;
    server.submit("a", "print 1").await;
    let text = read_until(&mut body, "event: cell_finished\n").await;
    assert!(
        text.starts_with("id: 3\nevent: cell_queued\ndata: {\"seq\":3,"),
        "{text}"
    );
    drop(body);
    let mut body = stream(
        &server,
        "/v1/sessions/a/events?after=0",
        &[("last-event-id", "4")],
    )
    .await;
    let text = read_until(&mut body, "event: cell_finished\n").await;
    assert!(text.starts_with("id: 5\nevent: stream\n"), "{text}");
}

#[tokio::test]
async fn a_stream_ends_with_the_server() {
    let server = Server::new().await;
    server.open("a").await;
    let mut body = stream(&server, "/v1/sessions/a/events", &[]).await;
    read_until(&mut body, "event: kernel_started\n").await;
    server.stopping.cancel();
    assert!(body.next().await.is_none());
}

#[tokio::test]
async fn a_stream_ends_with_the_session_and_is_not_to_be_resumed() {
    let server = Server::new().await;
    server.open("a").await;
    server.run("a", "").await;
    let mut body = stream(&server, "/v1/sessions/a/events", &[]).await;
    server.house.sessions.stop().await;
    let mut text = String::new();
    while let Some(piece) = body.next().await {
        text.push_str(std::str::from_utf8(&piece.unwrap()).unwrap());
    }
    assert!(text.contains("event: session_ended\n"), "{text}");
    let head = server.call("GET", "/v1/sessions/a", "").await.json()["head"].to_string();
    let headers = [
        ("accept", "text/event-stream"),
        ("last-event-id", head.as_str()),
    ];
    let answer = server
        .send(request("GET", "/v1/sessions/a/events", "", &headers))
        .await;
    assert_eq!(answer.outcome(), "204 -");
}
