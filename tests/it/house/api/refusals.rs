//! Whatever is wrong with a request, the answer says what, and always in the same form.

use axum::body::Body;
use axum::http::Request;
use insta::assert_snapshot;

use super::{Server, TOKEN, request};

const UNKNOWN: &str = "0190b0c0-0000-7000-8000-000000000000";

#[tokio::test]
async fn a_bad_request_is_told_what_is_wrong() {
    let server = Server::new().await;
    server.open("a").await;
    let cases: &[(&str, &str, &str)] = &[
        ("GET", "/nowhere", ""),
        ("GET", "/v1/sessions/a/nowhere", ""),
        ("POST", "/v1/sessions/a", ""),
        ("POST", "/healthz", ""),
        ("PUT", "/v1/sessions/a%20b", ""),
        ("PUT", "/v1/sessions/%FF", ""),
        ("PUT", "/v1/sessions/b", "{"),
        ("PUT", "/v1/sessions/b", "[1]"),
        ("PUT", "/v1/sessions/b", r#"{"memory": 1}"#),
        ("PUT", "/v1/sessions/b", r#"{"memory_bytes": "1G"}"#),
        ("PUT", "/v1/sessions/b", r#"{"memory_bytes": 1}"#),
        ("GET", "/v1/sessions/unknown", ""),
        ("GET", "/v1/sessions?limit=0", ""),
        ("GET", "/v1/sessions?limit=x", ""),
        ("GET", "/v1/sessions?limits=1", ""),
        ("GET", "/v1/sessions?after=a%20b", ""),
        ("POST", "/v1/sessions/unknown/run", r#"{"code": "1"}"#),
        ("POST", "/v1/sessions/a/run", ""),
        ("POST", "/v1/sessions/a/run", r#"{"code": 1}"#),
        ("POST", "/v1/sessions/a/run", r#"{"code": "1", "cod": "2"}"#),
        (
            "POST",
            "/v1/sessions/a/run?wait_ms=99999999999",
            r#"{"code": "1"}"#,
        ),
        (
            "POST",
            "/v1/sessions/a/run?preview_bytes=99999999999",
            r#"{"code": "1"}"#,
        ),
        ("GET", "/v1/sessions/a/cells/x", ""),
        ("GET", &format!("/v1/sessions/a/cells/{UNKNOWN}"), ""),
        (
            "GET",
            &format!("/v1/sessions/a/cells/{UNKNOWN}?wait=maybe"),
            "",
        ),
        ("DELETE", &format!("/v1/sessions/a/cells/{UNKNOWN}"), ""),
        (
            "POST",
            &format!("/v1/sessions/a/cells/{UNKNOWN}/extend"),
            r#"{"by_ms": 1}"#,
        ),
        ("POST", "/v1/sessions/a/extend", r#"{"by_ms": -1}"#),
        ("POST", "/v1/sessions/a/input", r#"{"value": "x"}"#),
        (
            "POST",
            "/v1/sessions/a/input",
            r#"{"value": "x", "eof": true}"#,
        ),
        ("POST", "/v1/sessions/a/input", "{}"),
        (
            "POST",
            "/v1/sessions/a/inspect",
            r#"{"code": "x", "detail": 2}"#,
        ),
        (
            "POST",
            "/v1/sessions/a/comms",
            r#"{"comm": "open", "comm_id": "c"}"#,
        ),
        (
            "POST",
            "/v1/sessions/a/comms",
            r#"{"comm": "shout", "comm_id": "c"}"#,
        ),
        ("GET", "/v1/sessions/a/events?after=x", ""),
        ("GET", "/v1/sessions/a/events?limit=0", ""),
        ("GET", "/v1/sessions/a/events?wait_ms=600001", ""),
        ("GET", "/v1/sessions/a/events/x", ""),
        ("GET", "/v1/sessions/a/ws", ""),
        ("GET", "/v1/sessions/a/files/%2e%2e/etc/passwd", ""),
        ("GET", "/v1/sessions/a/files/data/..%2f..%2fetc", ""),
        ("PUT", "/v1/sessions/a/files/%2fetc%2fpasswd", "x"),
        ("PUT", "/v1/sessions/a/files/a%00b", "x"),
        ("PUT", "/v1/sessions/a/files/%FF", "x"),
        ("GET", "/v1/sessions/a/files?path=../..", ""),
        ("GET", "/v1/sessions/a/files?limit=0", ""),
        ("POST", "/v1/sessions/a/files/dir", ""),
    ];
    let mut lines = String::new();
    for (method, path, body) in cases {
        let answer = server.call(method, path, body).await;
        let message = answer.json()["error"]["message"]
            .as_str()
            .expect("a message")
            .to_owned();
        assert!(!message.is_empty() && answer.headers.contains_key("x-request-id"));
        let path = path.replace(UNKNOWN, "UNKNOWN");
        let line = format!("{:22} {method} {path} {body}", answer.outcome());
        lines += &format!("{}\n", line.trim_end());
    }
    assert_snapshot!("bad_requests", lines);
}

#[tokio::test]
async fn a_body_that_is_too_long_is_refused() {
    let server = Server::new().await;
    server.open("a").await;
    let settings = format!(r#"{{"env": {{"A": "{}"}}}}"#, "x".repeat(128 * 1024));
    assert_eq!(
        server
            .call("PUT", "/v1/sessions/b", &settings)
            .await
            .outcome(),
        "413 too_large"
    );
    let cell = format!(r#"{{"code": "{}"}}"#, "x".repeat(5 * 1024 * 1024));
    assert_eq!(
        server
            .call("POST", "/v1/sessions/a/cells", &cell)
            .await
            .outcome(),
        "413 cell_too_large"
    );
    let body = format!(r#"{{"code": "{}"}}"#, "x".repeat(13 * 1024 * 1024));
    assert_eq!(
        server
            .call("POST", "/v1/sessions/a/cells", &body)
            .await
            .outcome(),
        "413 too_large"
    );
    let server = Server::with(|config| config.max_upload_bytes = 10).await;
    server.open("a").await;
    let headers = [("content-length", "11")];
    let answer = server
        .send(request(
            "PUT",
            "/v1/sessions/a/files/x",
            "elevenbytes",
            &headers,
        ))
        .await;
    assert_eq!(answer.outcome(), "413 too_large");
}

#[tokio::test]
async fn a_token_is_needed_and_taken_in_three_ways() {
    let server = Server::new().await;
    let send = |path: &'static str, header: &'static [(&'static str, &'static str)]| {
        let mut request = Request::builder().uri(path);
        for (name, value) in header {
            request = request.header(*name, *value);
        }
        server.send(request.body(Body::empty()).unwrap())
    };
    for (path, header) in [
        ("/v1/sessions", &[("authorization", "Bearer s3cret")][..]),
        ("/v1/sessions", &[("authorization", "token s3cret")]),
        ("/v1/sessions?token=s3cret", &[]),
        ("/v1/sessions?limit=1&token=s3cret", &[]),
        (
            "/v1/sessions",
            &[(
                "sec-websocket-protocol",
                "evercell.v1, evercell.token.s3cret",
            )],
        ),
        ("/", &[]),
        ("/frame.html", &[]),
        ("/healthz", &[]),
        ("/readyz", &[]),
        ("/version", &[]),
    ] {
        assert_eq!(
            send(path, header).await.outcome(),
            "200 -",
            "{path} {header:?}"
        );
    }
    for (path, header) in [
        ("/v1/sessions", &[][..]),
        ("/v1/sessions", &[("authorization", "Bearer wrong")]),
        ("/v1/sessions", &[("authorization", "Basic s3cret")]),
        ("/v1/sessions?token=", &[]),
        ("/v1/sessions?token=s3cre", &[]),
        ("/v1/sessions?token=s3crets", &[]),
        (
            "/v1/sessions",
            &[(
                "sec-websocket-protocol",
                "evercell.v1, evercell.token.wrong",
            )],
        ),
        ("/openapi.json", &[]),
        ("/nowhere", &[]),
    ] {
        let answer = send(path, header).await;
        assert_eq!(answer.outcome(), "401 unauthorized", "{path} {header:?}");
        assert!(answer.headers.contains_key("www-authenticate"));
        assert!(!String::from_utf8_lossy(&answer.body).contains(TOKEN));
    }
}

#[tokio::test]
async fn a_server_without_a_token_lets_everybody_in() {
    let server = Server::with(|config| config.token = None).await;
    let answer = server
        .send(
            Request::builder()
                .uri("/v1/sessions")
                .body(Body::empty())
                .unwrap(),
        )
        .await;
    assert_eq!(answer.outcome(), "200 -");
}

#[tokio::test]
async fn a_page_of_another_site_is_refused() {
    let server = Server::new().await;
    let put = |headers: &'static [(&'static str, &'static str)]| {
        server.send(request("PUT", "/v1/sessions/a", "", headers))
    };
    assert_eq!(
        put(&[("origin", "https://evil.example")]).await.outcome(),
        "403 foreign_origin"
    );
    assert_eq!(
        put(&[("origin", "null")]).await.outcome(),
        "403 foreign_origin"
    );
    assert_eq!(
        put(&[("origin", "http://localhost:2")]).await.outcome(),
        "403 foreign_origin"
    );
    assert_eq!(
        put(&[("origin", "http://localhost:1")]).await.outcome(),
        "201 -"
    );
    assert_eq!(
        put(&[("origin", "https://app.example")]).await.outcome(),
        "200 -"
    );
    let upgrade = request(
        "GET",
        "/v1/sessions/a/ws",
        "",
        &[("origin", "https://evil.example"), ("upgrade", "websocket")],
    );
    assert_eq!(server.send(upgrade).await.outcome(), "403 foreign_origin");
}

#[tokio::test]
async fn a_name_that_was_rebound_is_refused() {
    let server = Server::new().await;
    let send = |host: &'static str| {
        let request = Request::builder().uri("/healthz").header("host", host);
        server.send(request.body(Body::empty()).unwrap())
    };
    assert_eq!(
        send("evil.example:8080").await.outcome(),
        "403 foreign_host"
    );
    assert_eq!(send("bad host").await.outcome(), "403 foreign_host");
    assert_eq!(send("127.0.0.1:8080").await.outcome(), "200 -");
    assert_eq!(send("[::1]:8080").await.outcome(), "200 -");
}

#[tokio::test]
async fn a_page_of_an_allowed_origin_may_read_answers() {
    let server = Server::new().await;
    let preflight = |origin: &'static str| {
        let headers = [
            ("origin", origin),
            ("access-control-request-method", "PUT"),
            (
                "access-control-request-headers",
                "authorization,content-type",
            ),
        ];
        let mut request = Request::builder()
            .method("OPTIONS")
            .uri("/v1/sessions/a")
            .header("host", "localhost:1");
        for (name, value) in headers {
            request = request.header(name, value);
        }
        server.send(request.body(Body::empty()).unwrap())
    };
    let allowed = preflight("https://app.example").await;
    assert_eq!(
        (
            allowed.status.as_u16(),
            &allowed.headers["access-control-allow-origin"]
        ),
        (200, &"https://app.example".parse().unwrap())
    );
    assert!(
        !preflight("https://evil.example")
            .await
            .headers
            .contains_key("access-control-allow-origin")
    );
}

#[tokio::test]
async fn a_request_keeps_its_id() {
    let server = Server::new().await;
    let answer = server
        .send(request(
            "GET",
            "/healthz",
            "",
            &[("x-request-id", "mine-1")],
        ))
        .await;
    assert_eq!(answer.headers["x-request-id"], "mine-1");
    let answer = server
        .send(request(
            "GET",
            "/healthz",
            "",
            &[("x-request-id", &"x".repeat(129))],
        ))
        .await;
    assert_ne!(answer.headers["x-request-id"].len(), 129);
    assert_eq!(answer.headers["x-content-type-options"], "nosniff");
    assert_eq!(answer.headers["cache-control"], "no-store");
}
