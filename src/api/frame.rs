//! What goes around every request: an id, a line in the log, headers that browsers obey, and answers where no handler has one.

use std::any::Any;

use axum::body::Body;
use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::time::Instant;
use tower_http::cors::{AllowOrigin, CorsLayer};
use tracing::Instrument as _;
use uuid::Uuid;

use super::error::{ApiError, Code};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Gives a request its id and its line in the log, and the answer its headers.
pub(crate) async fn record(request: Request, next: Next) -> Response {
    let id = request_id(request.headers());
    // The route, not the address: that may hold a token, and names of files.
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("-", MatchedPath::as_str)
        .to_owned();
    let method = request.method().clone();
    let started = Instant::now();
    let span = tracing::debug_span!("request", request.id = %id.to_str().unwrap_or_default());
    let mut response = next.run(request).instrument(span).await;
    tracing::debug!(
        request.id = %id.to_str().unwrap_or_default(),
        http.method = %method,
        http.route = %route,
        http.status = response.status().as_u16(),
        duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
        "answered"
    );
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, id);
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    // An address may hold a token.
    headers.insert(
        header::REFERRER_POLICY,
        HeaderValue::from_static("no-referrer"),
    );
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    // Nothing that is served here is to be run as a page; a page says so itself.
    headers
        .entry(header::CONTENT_SECURITY_POLICY)
        .or_insert(HeaderValue::from_static(
            "default-src 'none'; frame-ancestors 'none'; sandbox",
        ));
    response
}

/// The caller's id for the request if it is an acceptable one, a new one otherwise.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let is_acceptable = |id: &&HeaderValue| {
        let bytes = id.as_bytes();
        !bytes.is_empty() && bytes.len() <= 128 && bytes.iter().all(u8::is_ascii_graphic)
    };
    match headers.get(REQUEST_ID).filter(is_acceptable) {
        Some(id) => id.clone(),
        None => {
            HeaderValue::try_from(Uuid::now_v7().to_string()).expect("a UUID is a header value")
        }
    }
}

/// Lets pages of the allowed origins read answers.
pub(crate) fn cors(allowed: &[String]) -> CorsLayer {
    let allowed_origins = if allowed.iter().any(|origin| origin == "*") {
        AllowOrigin::any()
    } else {
        AllowOrigin::list(
            allowed
                .iter()
                .filter_map(|origin| HeaderValue::try_from(origin).ok()),
        )
    };
    CorsLayer::new()
        .allow_origin(allowed_origins)
        .allow_methods([
            Method::GET,
            Method::HEAD,
            Method::POST,
            Method::PUT,
            Method::PATCH,
            Method::DELETE,
        ])
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            header::RANGE,
            header::IF_RANGE,
            header::IF_NONE_MATCH,
            HeaderName::from_static("idempotency-key"),
            HeaderName::from_static("last-event-id"),
            // What Jupyter's pages send along.
            HeaderName::from_static("x-xsrftoken"),
            HeaderName::from_static("x-evercell-settings"),
            REQUEST_ID,
        ])
        .expose_headers([
            header::CONTENT_RANGE,
            header::ETAG,
            header::LAST_MODIFIED,
            header::RETRY_AFTER,
            REQUEST_ID,
        ])
}

/// Answers for a handler that panicked.
pub(crate) fn answer_panic(_: Box<dyn Any + Send>) -> Response<Body> {
    ApiError::internal(&Panicked).into_response()
}

/// A handler broke an invariant; the panic's own message is in the log above this one.
#[derive(Debug, thiserror::Error)]
#[error("a handler panicked")]
struct Panicked;

/// Where no route fits.
pub(crate) async fn unknown_route(uri: Uri) -> ApiError {
    ApiError::new(
        Code::UnknownRoute,
        format!(
            "there is nothing at `{}`; /openapi.json lists what there is",
            uri.path()
        ),
    )
}

/// Where a route fits, but not the method.
pub(crate) async fn method_not_allowed(method: Method, uri: Uri) -> ApiError {
    ApiError::new(
        Code::MethodNotAllowed,
        format!("`{}` cannot be asked with {method}", uri.path()),
    )
}
