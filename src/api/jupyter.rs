//! The front end for Jupyter's clients: REST below `/api` as Jupyter Server and Kernel Gateway have it, and a WebSocket for each kernel.
//! `docs/jupyter.md` is its reference.
//!
//! A kernel is a session. What its clients see is told from the session's log ([`story`]), so that all see the same, also after a reconnect or the server's
//! restart; what they ask is translated into what sessions can be asked ([`requests`]).

mod about;
mod channels;
mod clients;
pub(crate) mod contents;
pub(crate) mod errors;
mod feed;
mod header;
mod history;
mod kernels;
mod requests;
mod room;
mod sessions;
mod story;
mod time;
mod wire;
mod words;

use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::extract::ws::{CloseFrame, Message};
use axum::routing::{get, post};

use super::Api;
use clients::Clients;

/// What the front end may be.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// How long a cell of a kernel that was made here may run, and how long with all extensions; none for what it is with sessions.
    pub cell_ms: Option<(u64, u64)>,
    /// The directory of shared notebooks, which `/api/contents` serves; none to serve none.
    pub notebooks: Option<PathBuf>,
}

/// What its handlers share.
#[derive(Debug)]
pub(crate) struct Jupyter {
    pub(crate) config: Config,
    pub(crate) clients: Arc<Clients>,
    started: String,
}

impl Jupyter {
    /// With nobody connected yet.
    pub(crate) fn new(config: Config) -> Self {
        Self {
            config,
            clients: Arc::default(),
            started: time::iso(time::now_ms()),
        }
    }
}

/// The routes that want a token.
pub(super) fn router() -> Router<Api> {
    Router::new()
        .route("/api/status", get(about::status))
        .route("/api/me", get(about::me))
        .route("/api/kernelspecs", get(about::kernelspecs))
        .route("/api/kernelspecs/{name}", get(about::kernelspec))
        .route("/kernelspecs/{name}/{file}", get(about::resource))
        .route("/api/kernels", get(kernels::list).post(kernels::start))
        .route(
            "/api/kernels/{session}",
            get(kernels::get).delete(kernels::shut_down),
        )
        .route("/api/kernels/{session}/interrupt", post(kernels::interrupt))
        .route("/api/kernels/{session}/restart", post(kernels::restart))
        .route("/api/kernels/{session}/channels", get(channels::connect))
        .route("/api/sessions", get(sessions::list).post(sessions::create))
        .route(
            "/api/sessions/{session}",
            get(sessions::get)
                .patch(sessions::change)
                .delete(sessions::delete),
        )
        .merge(contents::router())
}

/// The routes that everybody may ask.
pub(super) fn public_router() -> Router<Api> {
    Router::new().route("/api", get(about::version))
}

/// The end of a connection, with its reason.
fn close(code: u16, why: &str) -> Message {
    // A close frame has room for 123 bytes.
    let why = &why[..why.floor_char_boundary(120)];
    Message::Close(Some(CloseFrame {
        code,
        reason: why.into(),
    }))
}
