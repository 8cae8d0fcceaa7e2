//! Sessions are opened, looked at, listed and deleted.

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::Server;

#[tokio::test]
async fn opening_is_idempotent_and_says_what_it_found() {
    let server = Server::new().await;
    let first = server
        .call(
            "PUT",
            "/v1/sessions/chat:1",
            r#"{"cell_ms": 1000, "env": {"KEY": "secret"}}"#,
        )
        .await;
    assert_eq!(
        (first.outcome().as_str(), &first.json()["opened"]),
        ("201 -", &json!("created"))
    );
    let again = server.call("PUT", "/v1/sessions/chat:1", "").await;
    assert_eq!(
        (again.outcome().as_str(), &again.json()["opened"]),
        ("200 -", &json!("existing"))
    );
    let other = server
        .call("PUT", "/v1/sessions/chat:1", r#"{"cell_ms": 2000}"#)
        .await;
    assert_eq!(
        (other.outcome().as_str(), &other.json()["error"]["field"]),
        ("409 settings_differ", &json!("cell_ms"))
    );
    let text = String::from_utf8(first.body).unwrap();
    assert!(
        text.contains("\"env\":[\"KEY\"]") && !text.contains("secret"),
        "{text}"
    );
}

#[tokio::test]
async fn labels_are_changed_one_by_one() {
    let server = Server::new().await;
    server
        .call(
            "PUT",
            "/v1/sessions/a",
            r#"{"labels": {"team": "blue", "old": "x"}}"#,
        )
        .await;
    let changed = server
        .call(
            "PATCH",
            "/v1/sessions/a",
            r#"{"labels": {"title": "Sales", "old": null}}"#,
        )
        .await;
    assert_eq!(changed.outcome(), "200 -");
    let session = server.call("GET", "/v1/sessions/a", "").await.json();
    assert_eq!(
        session["settings"]["labels"],
        json!({"team": "blue", "title": "Sales"})
    );
    // The log says it, so that whoever follows sees it; what changes nothing is not said.
    server
        .call(
            "PATCH",
            "/v1/sessions/a",
            r#"{"labels": {"title": "Sales"}}"#,
        )
        .await;
    let log = server.call("GET", "/v1/sessions/a/events", "").await.json();
    let said: Vec<&Value> = log["events"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|event| event["event"] == "labels_changed")
        .map(|event| &event["labels"])
        .collect();
    assert_eq!(said, [&json!({"team": "blue", "title": "Sales"})]);
    // Many at once lose none.
    let bodies: Vec<String> = (0..20)
        .map(|n| json!({"labels": {format!("l{n}"): "x"}}).to_string())
        .collect();
    join_all(
        bodies
            .iter()
            .map(|body| server.call("PATCH", "/v1/sessions/a", body)),
    )
    .await;
    let session = server.call("GET", "/v1/sessions/a", "").await.json();
    assert_eq!(session["settings"]["labels"].as_object().unwrap().len(), 22);
    let long = json!({"labels": {"title": "x".repeat(9000)}}).to_string();
    let refusals = [
        server.call("PATCH", "/v1/sessions/a", &long).await,
        server
            .call("PATCH", "/v1/sessions/a", r#"{"labels": 1}"#)
            .await,
        server
            .call("PATCH", "/v1/sessions/b", r#"{"labels": {}}"#)
            .await,
    ];
    assert_eq!(
        refusals.map(|answer| answer.outcome()),
        ["400 bad_settings", "400 bad_field", "404 unknown_session"]
    );
}

#[tokio::test]
async fn a_session_is_looked_at_and_deleted() {
    let server = Server::new().await;
    server.open("a").await;
    server.run("a", "print 1").await;
    let mut session = server.call("GET", "/v1/sessions/a", "").await.json();
    while session["status"] == "busy" {
        // The log is written before the session says that it rests.
        tokio::task::yield_now().await;
        session = server.call("GET", "/v1/sessions/a", "").await.json();
    }
    assert_eq!(
        (
            &session["id"],
            &session["status"],
            &session["execution_count"]
        ),
        (&json!("a"), &json!("idle"), &json!(1))
    );
    assert_eq!(
        server.call("DELETE", "/v1/sessions/a", "").await.outcome(),
        "204 -"
    );
    assert_eq!(
        server.call("GET", "/v1/sessions/a", "").await.outcome(),
        "404 unknown_session"
    );
    assert_eq!(
        server.call("DELETE", "/v1/sessions/a", "").await.outcome(),
        "404 unknown_session"
    );
}

#[tokio::test]
async fn sessions_are_listed_page_by_page() {
    let server = Server::new().await;
    for id in ["a", "b", "c"] {
        server.open(id).await;
    }
    let page = server.call("GET", "/v1/sessions?limit=2", "").await.json();
    assert_eq!(
        (
            &page["sessions"][0]["id"],
            &page["sessions"][1]["id"],
            &page["more"]
        ),
        (&json!("a"), &json!("b"), &json!(true))
    );
    let page = server
        .call("GET", "/v1/sessions?limit=2&after=b", "")
        .await
        .json();
    assert_eq!(
        (&page["sessions"][0]["id"], &page["more"]),
        (&json!("c"), &json!(false))
    );
}

#[tokio::test]
async fn a_cursor_of_a_log_that_is_no_more_is_refused_though_the_new_one_reaches_so_far() {
    let server = Server::new().await;
    server.open("a").await;
    let log = async || {
        let body = server.call("GET", "/v1/sessions/a", "").await.json();
        body["log"].as_str().unwrap().to_owned()
    };
    let former = log().await;
    assert_eq!(
        server.call("DELETE", "/v1/sessions/a", "").await.outcome(),
        "204 -"
    );
    server.open("a").await;
    let now = log().await;
    assert_ne!(former, now);
    let events = async |log: &str, accept: &str| {
        let path = format!("/v1/sessions/a/events?after=1&log={log}");
        let headers = [("accept", accept)];
        server
            .send(super::request("GET", &path, "", &headers))
            .await
    };
    for accept in ["application/json", "text/event-stream"] {
        let refused = events(&former, accept).await;
        assert_eq!(refused.outcome(), "409 other_log", "{accept}");
        assert_eq!(refused.json()["error"]["log"], json!(now));
    }
    assert_eq!(events(&now, "application/json").await.outcome(), "200 -");
    // The end of a session is not the end of its log.
    server.house.sessions.stop().await;
    assert_eq!(log().await, now);
}
