//! The notebook for browsers: the files that were built from `web/`, which are part of the program, each with the headers that its place needs.
//!
//! Three kinds. The page may run its own scripts only and speak to this server only; `web/src` never turns text into markup. The frame, in which
//! outputs are drawn, may run whatever a cell has shown, and reach nothing: it has an origin of its own that no other page shares, and no network.
//! The rest is what these two load, under names that change with the content.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use rust_embed::{EmbeddedFile, RustEmbed};
use uuid::Uuid;

use super::Api;
use super::error::ApiError;
use super::frame::unknown_route;

/// What `npm run build` made of `web/`.
#[derive(Debug, RustEmbed)]
#[folder = "web/dist/"]
struct Built;

const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");

/// Stands in a document and its policy where the nonce goes: for the style sheets that the editor makes.
const NONCE: &str = "__NONCE__";

/// What a frame may do: whatever it likes, within itself. The document has a policy of its own besides, under which it runs one script, by its hash, and
/// that runs those of the output: else an output could run scripts in frames within the frame, where what the frame's own script takes away (WebRTC, which no
/// policy knows) is there again. A nonce would not do: what a script imports inherits it.
const FRAME_POLICY: HeaderValue = HeaderValue::from_static(
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; \
     img-src data: blob:; font-src data:; media-src data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'; require-trusted-types-for 'script'; trusted-types default",
);

/// Names of servers are looked up ahead for nothing that an output links to: a name can carry a secret out.
const NO_PREFETCH: (HeaderName, HeaderValue) = (
    HeaderName::from_static("x-dns-prefetch-control"),
    HeaderValue::from_static("off"),
);

/// What the page may do: run its own scripts, and speak to this server.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'nonce-__NONCE__'; img-src 'self' blob:; font-src 'self'; \
     connect-src 'self'; frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

/// The page itself. It has a nonce of its own each time, so it is never kept.
pub(crate) async fn page() -> Response {
    let Some(file) = Built::get("index.html") else {
        return missing().into_response();
    };
    let nonce = Uuid::new_v4().simple().to_string();
    let policy = HeaderValue::try_from(PAGE_POLICY.replace(NONCE, &nonce))
        .expect("a nonce is hexadecimal digits");
    let opener = (
        HeaderName::from_static("cross-origin-opener-policy"),
        HeaderValue::from_static("same-origin"),
    );
    (
        [
            (header::CONTENT_TYPE, HTML),
            (header::CONTENT_SECURITY_POLICY, policy),
            opener,
        ],
        String::from_utf8_lossy(&file.data).replace(NONCE, &nonce),
    )
        .into_response()
}

/// What outputs are drawn in.
pub(crate) async fn frame(headers: HeaderMap) -> Response {
    let Some(file) = Built::get("frame.html") else {
        return missing().into_response();
    };
    let headers_of_frame = [
        (header::CONTENT_TYPE, HTML),
        (header::CONTENT_SECURITY_POLICY, FRAME_POLICY),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        NO_PREFETCH,
    ];
    (headers_of_frame, tagged(&headers, file)).into_response()
}

/// What the page loads. The name has a part that changes with the content, so it is kept for ever.
pub(crate) async fn asset(Path(name): Path<String>, headers: HeaderMap, uri: Uri) -> Response {
    match Built::get(&format!("assets/{name}.gz")) {
        Some(file) => {
            let kept = "public, max-age=31536000, immutable";
            packed(&headers, &name, kept, file)
        }
        None => unknown_route(uri).await.into_response(),
    }
}

/// What draws interactive figures. The page hands its text to a frame, which cannot load anything.
pub(crate) async fn library(
    State(api): State<Api>,
    Path(name): Path<String>,
    headers: HeaderMap,
    uri: Uri,
) -> Response {
    if name == "plotly.js" {
        return match &api.config.plotly {
            Some(file) => plotly(file).await,
            None => unknown_route(uri).await.into_response(),
        };
    }
    match Built::get(&format!("libraries/{name}.gz")) {
        Some(file) => packed(&headers, &name, "no-cache", file),
        None => unknown_route(uri).await.into_response(),
    }
}

/// The script of the kernels' plotly. It changes with their environment, and seldom.
async fn plotly(file: &std::path::Path) -> Response {
    match tokio::fs::read(file).await {
        Ok(text) => {
            let kept = HeaderValue::from_static("private, max-age=3600");
            let kind = HeaderValue::from_static(kind_of("plotly.js"));
            (
                [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, kept)],
                text,
            )
                .into_response()
        }
        Err(error) => ApiError::internal(&Unreadable(error)).into_response(),
    }
}

/// A file that lies here packed and is sent so: whatever runs the page can unpack it.
fn packed(headers: &HeaderMap, name: &str, kept: &'static str, file: EmbeddedFile) -> Response {
    (
        [
            (
                header::CONTENT_TYPE,
                HeaderValue::from_static(kind_of(name)),
            ),
            (header::CONTENT_ENCODING, HeaderValue::from_static("gzip")),
            (header::CACHE_CONTROL, HeaderValue::from_static(kept)),
        ],
        tagged(headers, file),
    )
        .into_response()
}

fn kind_of(name: &str) -> &'static str {
    match name.rsplit_once('.').map_or("", |(_, extension)| extension) {
        "js" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "svg" => "image/svg+xml",
        _ => "application/octet-stream",
    }
}

/// A file with its entity tag, or that the client has it already.
fn tagged(headers: &HeaderMap, file: EmbeddedFile) -> Response {
    let tag = entity_tag(&file);
    let is_known = headers
        .get(header::IF_NONE_MATCH)
        .is_some_and(|known| known.as_bytes() == tag.as_bytes());
    let (status, body) = if is_known {
        (StatusCode::NOT_MODIFIED, Body::empty())
    } else {
        (StatusCode::OK, Body::from(file.data.into_owned()))
    };
    (status, [(header::ETAG, tag)], body).into_response()
}

fn entity_tag(file: &EmbeddedFile) -> HeaderValue {
    let hash = file.metadata.sha256_hash();
    let digits: String = hash[..16]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    HeaderValue::try_from(format!("\"{digits}\"")).expect("a hash is hexadecimal digits")
}

/// That this program was built without the page.
#[derive(Debug, thiserror::Error)]
#[error("the page is not in this program: it was built without `web/dist`")]
struct NotBuilt;

/// That a file which was there at the start cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read plotly's script")]
struct Unreadable(#[source] std::io::Error);

fn missing() -> ApiError {
    ApiError::internal(&NotBuilt)
}
