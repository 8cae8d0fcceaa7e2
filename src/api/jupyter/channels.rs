//! The WebSocket of a kernel: takes the connection, and hands it to the loop that serves it.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{Query, State};
use axum::response::Response;
use futures_util::StreamExt as _;
use serde::Deserialize;

use super::feed::{Busy, Feed};
use super::kernels;
use super::requests::Desk;
use super::wire::{Framing, MESSAGE, V1};
use crate::api::Api;
use crate::api::error::{ApiError, Code};
use crate::api::extract::SessionPath;
use crate::api::native::ws::read_failure;
use crate::api::serve::Place;
use crate::api::ws_loop::{Bounds, End, serve};

/// What a client offers beside its token, so that a browser takes the answer for one.
const WITH_TOKEN: &str = "v1.token.websocket.jupyter.org";

/// What is set aside for each connection to read into, in bytes.
const READ_BUFFER: usize = 16 * 1024;

/// The longest name of a client, in bytes.
const NAME: usize = 256;

/// What is borne from a client. A notebook is sent at once, and its cells wait here; what it sends behind them is read all the same. It is heard of
/// when it answers pings, and clients of a gateway need not do so for longer than from others.
const BOUNDS: Bounds = Bounds {
    commands: 4096,
    bytes: 2 * MESSAGE,
    silence: Duration::from_secs(120),
};

/// Who connects.
#[derive(Debug, Deserialize)]
pub(crate) struct ChannelsParams {
    /// The client's own name; whoever comes back under it goes on where it was.
    session_id: Option<String>,
}

/// Connects a client to a kernel.
pub(crate) async fn connect(
    State(api): State<Api>,
    SessionPath(id): SessionPath,
    Query(params): Query<ChannelsParams>,
    place: Option<Extension<Place>>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    let session = kernels::find(&api, &id).await?;
    let upgrade =
        upgrade.map_err(|rejection| ApiError::new(Code::BadUpgrade, rejection.body_text()))?;
    let name = params
        .session_id
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
    if name.len() > NAME {
        let text = format!("`session_id` has at most {NAME} bytes");
        return Err(ApiError::new(Code::BadParameter, text));
    }
    let upgrade = upgrade
        .protocols([V1, WITH_TOKEN])
        .max_message_size(MESSAGE)
        .max_frame_size(MESSAGE)
        .read_buffer_size(READ_BUFFER);
    Ok(upgrade.on_upgrade(async move |socket| {
        let is_v1 = socket.protocol().is_some_and(|protocol| protocol == V1);
        let framing = if is_v1 { Framing::V1 } else { Framing::Json };
        let log = session.log().clone();
        // Before anything is read from the client: all that it causes comes after this.
        let connection = Arc::new(api.jupyter.clients.connect(session.clone(), &name));
        let busy = Busy::default();
        let feed = Feed::new(
            api.sessions.clone(),
            id.clone(),
            log,
            connection.clone(),
            framing,
            busy.clone(),
        );
        let desk = Desk::new(api.clone(), session, connection.clone(), framing, busy);
        let leave = async {
            tokio::select! {
                () = api.config.stopping.cancelled() => End::Stopping,
                () = connection.replaced.cancelled() => End::Replaced,
            }
        };
        let socket = socket.map(|message| message.map_err(|error| read_failure(&error)));
        let end = serve(socket, feed, |message| desk.take(message), BOUNDS, leave).await;
        tracing::debug!(session.id = %id, ?end, "a Jupyter client left");
        drop(place);
    }))
}
