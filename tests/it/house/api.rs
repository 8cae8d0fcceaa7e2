//! The native API in front of the whole server: requests in, answers out.

mod cells;
mod events;
mod files;
mod jupyter;
mod output;
mod refusals;
mod sessions;
mod socket;
mod web;

use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use evercell::api::{Config, Token, router};
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::harness::house::House;

/// The token of the server under test.
const TOKEN: &str = "s3cret";

/// A server with its front ends.
struct Server {
    house: House,
    router: axum::Router,
    stopping: CancellationToken,
}

/// An answer, whole.
#[derive(Debug)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The status, and the code where there is one.
    fn outcome(&self) -> String {
        let json = serde_json::from_slice::<Value>(&self.body).unwrap_or_default();
        let code = json["error"]["code"].as_str().unwrap_or("-");
        format!("{} {code}", self.status.as_u16())
    }
}

impl Server {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut Config)) -> Self {
        Self::over(House::new().await, change)
    }

    fn over(house: House, change: impl FnOnce(&mut Config)) -> Self {
        let stopping = CancellationToken::new();
        let mut config = Config {
            token: Some(Token::new(TOKEN)),
            allowed_origins: vec!["https://app.example".to_owned()],
            allowed_hosts: Some(Vec::new()),
            max_upload_bytes: u64::MAX,
            plotly: None,
            jupyter: evercell::api::jupyter::Config::default(),
            stopping: stopping.clone(),
        };
        change(&mut config);
        let router = router(house.sessions.clone(), config);
        Self {
            house,
            router,
            stopping,
        }
    }

    /// A request as it is given.
    async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (head, body) = response.into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap().to_vec();
        Answer {
            status: head.status,
            headers: head.headers,
            body,
        }
    }

    /// A request with the right token.
    async fn call(&self, method: &str, path: &str, body: &str) -> Answer {
        self.send(request(method, path, body, &[])).await
    }

    /// An open session with a kernel.
    async fn open(&self, id: &str) {
        let answer = self.call("PUT", &format!("/v1/sessions/{id}"), "").await;
        assert_eq!(answer.outcome(), "201 -");
        let path = format!("/v1/sessions/{id}/events?after=1&wait_ms=10000");
        let started = self.call("GET", &path, "").await.json();
        assert_eq!(started["events"][0]["event"], "kernel_started");
    }

    /// Runs a script, and answers with its result.
    async fn run(&self, id: &str, script: &str) -> Value {
        let body = serde_json::json!({ "code": script }).to_string();
        let answer = self
            .call("POST", &format!("/v1/sessions/{id}/run"), &body)
            .await;
        assert_eq!(answer.outcome(), "200 -");
        answer.json()
    }

    /// Submits a script, and answers with its cell.
    async fn submit(&self, id: &str, script: &str) -> String {
        let body = serde_json::json!({ "code": script }).to_string();
        let answer = self
            .call("POST", &format!("/v1/sessions/{id}/cells"), &body)
            .await;
        assert_eq!(answer.outcome(), "202 -");
        answer.json()["cell"].as_str().unwrap().to_owned()
    }
}

/// A request with the right token and more headers.
fn request(method: &str, path: &str, body: &str, headers: &[(&str, &str)]) -> Request<Body> {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "localhost:1");
    if !headers.iter().any(|(name, _)| *name == "authorization") {
        request = request.header("authorization", format!("Bearer {TOKEN}"));
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Body::from(body.to_owned())).unwrap()
}
