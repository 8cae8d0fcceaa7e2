//! The front ends. Each is a thin translator onto the sessions; no rule about sessions lives here.
//!
//! A handler does four things: extract, translate to what a session can be asked, await, translate back. What a request may be is
//! decided in [`extract`], who may ask in [`auth`], what a failure looks like in [`error`]. This page has every route.

pub mod auth;
pub mod error;
mod extract;
mod frame;
pub mod jupyter;
mod native;
mod serve;
mod web;
mod ws_loop;

use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{delete, get, post, put};
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;

pub use self::auth::Token;
pub use self::serve::serve;
use crate::session::Sessions;

/// What the front ends may be.
#[derive(Clone, Debug)]
pub struct Config {
    /// What every request must bring; none to let everybody in.
    pub token: Option<Token>,
    /// Web pages of which origins may use this server, such as `https://app.example`; `*` for all. Its own always may.
    pub allowed_origins: Vec<String>,
    /// By which names this server may be called besides `localhost` and its addresses; none for any name. On loopback this keeps
    /// out pages whose name was rebound to it.
    pub allowed_hosts: Option<Vec<String>>,
    /// The longest file that may be uploaded, in bytes; the workspace's quota holds anyway.
    pub max_upload_bytes: u64,
    /// The file with plotly's script, which the notebook draws figures with: that of the kernels' own plotly, so that both are of one version. None
    /// where it is not installed.
    pub plotly: Option<PathBuf>,
    /// How it is for Jupyter's clients.
    pub jupyter: jupyter::Config,
    /// Cancelled when the server stops: what waits or streams ends then.
    pub stopping: CancellationToken,
}

/// What handlers are given.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    pub(crate) sessions: Sessions,
    pub(crate) config: Arc<Config>,
    /// How far the outputs of cells have been read.
    pub(crate) outputs: Arc<native::output::Marks>,
    /// What the front end for Jupyter's clients knows of them.
    pub(crate) jupyter: Arc<jupyter::Jupyter>,
}

/// Builds the router: every route of every front end.
pub fn router(sessions: Sessions, config: Config) -> Router {
    use native::{
        about, cells, checkpoints, events, files, kernel, output, sessions as session, ws,
    };

    let api = Api {
        sessions,
        jupyter: Arc::new(jupyter::Jupyter::new(config.jupyter.clone())),
        config: Arc::new(config),
        outputs: Arc::default(),
    };
    let guarded = Router::new()
        .route("/v1/sessions", get(session::list))
        .route(
            "/v1/sessions/{session}",
            put(session::open)
                .get(session::get)
                .patch(session::label)
                .delete(session::delete),
        )
        .route("/v1/sessions/{session}/usage", get(session::usage))
        .route("/v1/sessions/{session}/cells", post(cells::submit))
        .route("/v1/sessions/{session}/run", post(cells::run))
        .route(
            "/v1/sessions/{session}/cells/{cell}",
            get(cells::get).delete(cells::cancel),
        )
        .route(
            "/v1/sessions/{session}/cells/{cell}/output",
            get(output::get),
        )
        .route(
            "/v1/sessions/{session}/cells/{cell}/extend",
            post(cells::extend),
        )
        .route(
            "/v1/sessions/{session}/cells/{cell}/interrupt",
            post(cells::interrupt),
        )
        .route("/v1/sessions/{session}/extend", post(cells::extend_running))
        .route(
            "/v1/sessions/{session}/interrupt",
            post(cells::interrupt_running),
        )
        .route("/v1/sessions/{session}/input", post(kernel::answer_input))
        .route("/v1/sessions/{session}/restart", post(kernel::restart))
        .route("/v1/sessions/{session}/checkpoints", get(checkpoints::list))
        .route(
            "/v1/sessions/{session}/checkpoints/{checkpoint}",
            put(checkpoints::hold).delete(checkpoints::release),
        )
        .route(
            "/v1/sessions/{session}/rollback",
            post(checkpoints::rollback),
        )
        .route("/v1/sessions/{session}/undo", post(checkpoints::undo))
        .route("/v1/sessions/{session}/complete", post(kernel::complete))
        .route("/v1/sessions/{session}/inspect", post(kernel::inspect))
        .route(
            "/v1/sessions/{session}/is_complete",
            post(kernel::is_complete),
        )
        .route("/v1/sessions/{session}/variables", get(kernel::variables))
        .route(
            "/v1/sessions/{session}/comms",
            get(kernel::list_comms).post(kernel::send_comm),
        )
        .route("/v1/sessions/{session}/events", get(events::list))
        .route("/v1/sessions/{session}/events/{seq}", get(events::get))
        .route("/v1/sessions/{session}/ws", get(ws::connect))
        .route("/v1/sessions/{session}/files", get(files::list))
        .route(
            "/v1/sessions/{session}/files/{*path}",
            get(files::download)
                .head(files::head)
                .put(files::upload)
                .post(files::make_dir)
                .merge(delete(files::delete)),
        )
        .route("/v1/schema/events.json", get(about::events_schema))
        .route("/v1/schema/live.json", get(about::live_schema))
        .route("/v1/schema/commands.json", get(about::commands_schema))
        .route("/openapi.json", get(about::openapi))
        .merge(jupyter::router())
        .fallback(frame::unknown_route)
        .method_not_allowed_fallback(frame::method_not_allowed)
        .layer(from_fn_with_state(api.clone(), auth::require_token));
    Router::new()
        .route("/", get(web::page))
        .route("/frame.html", get(web::frame))
        .route("/assets/{name}", get(web::asset))
        .route("/libraries/{name}", get(web::library))
        .route("/healthz", get(about::health))
        .route("/readyz", get(about::ready))
        .route("/version", get(about::version))
        .method_not_allowed_fallback(frame::method_not_allowed)
        .merge(jupyter::public_router())
        .merge(guarded)
        .layer(from_fn_with_state(api.clone(), auth::refuse_foreign_pages))
        .layer(CatchPanicLayer::custom(frame::answer_panic))
        .layer(from_fn(jupyter::errors::reshape))
        .layer(frame::cors(&api.config.allowed_origins))
        .layer(from_fn(frame::record))
        .with_state(api)
}
