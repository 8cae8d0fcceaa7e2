//! The WebSocket: takes the connection, and hands it to the loop that serves it.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{Message, Utf8Bytes, WebSocketUpgrade};
use axum::response::Response;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_tungstenite::tungstenite::Error as SocketError;

use super::commands::{Op, Reply, carry_out, parse};
use super::reader::{Reader, check_log};
use super::view::ViewKind;
use crate::api::Api;
use crate::api::auth::SUBPROTOCOL;
use crate::api::error::{ApiError, Code, ErrorBody};
use crate::api::extract::{Params, SessionPath};
use crate::api::serve::Place;
use crate::api::ws_loop::{Bounds, End, Events, ReadFailure, serve};
use crate::model::event::Seq;
use crate::session::{Denied, SessionError, StoredEvent};

/// The longest message that is accepted, in bytes.
pub(crate) const MESSAGE: usize = 8 * 1024 * 1024;

/// What is set aside for each connection to read into, in bytes. A session may have many that are mostly quiet.
const READ_BUFFER: usize = 16 * 1024;

/// What is borne from a client.
pub(crate) const BOUNDS: Bounds = Bounds {
    commands: 64,
    bytes: 8 * MESSAGE,
    silence: Duration::from_secs(60),
};

/// From where to begin, and how.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WsParams {
    /// The last event that is known; 0 for none.
    #[serde(default)]
    after: Seq,
    /// Which log that is of; not checked if not said.
    log: Option<String>,
    /// What to be sent of what comes after it; every event if not said.
    view: Option<ViewKind>,
}

/// A WebSocket: one event per text message out, commands in.
///
/// See `/v1/schema/events.json` and `/v1/schema/commands.json`. Close codes: 1000 the session has ended, 1001 the server is stopping, 1007 not UTF-8,
/// 1009 message too long, 4408 nothing heard for a minute, 4409 the cursor is ahead of the log or of another log, 4410 the events after it were trimmed.
#[utoipa::path(
    get, path = "/v1/sessions/{session}/ws", tag = "events",
    params(
        ("session" = String, Path),
        ("after" = Option<u64>, Query, description = "The last event that is known; 0, the beginning, if not said"),
        ("log" = Option<String>, Query, description = "Which log `after` is of, as the session says it; not checked if not said"),
        ("view" = Option<String>, Query, description = "`live` for the live view; every event as it is, if not said"),
    ),
    responses(
        (status = 101, description = "Events follow"),
        (status = 400, description = "`bad_upgrade`", body = ref("#/components/schemas/ErrorBody")),
        (status = 404, description = "`unknown_session`", body = ref("#/components/schemas/ErrorBody")),
    )
)]
pub(crate) async fn connect(
    State(api): State<Api>,
    SessionPath(id): SessionPath,
    Params(params): Params<WsParams>,
    place: Option<Extension<Place>>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    let upgrade =
        upgrade.map_err(|rejection| ApiError::new(Code::BadUpgrade, rejection.body_text()))?;
    let log = api.sessions.log(&id).await?;
    // The log of a session that has ended can still be read.
    let session = match api.sessions.find(&id).await {
        Ok(session) => Some(Arc::new(session)),
        Err(SessionError::Denied(Denied::Ended)) => None,
        Err(error) => return Err(error.into()),
    };
    let upgrade = upgrade
        .protocols([SUBPROTOCOL])
        .max_message_size(MESSAGE)
        .max_frame_size(MESSAGE)
        .read_buffer_size(READ_BUFFER);
    Ok(upgrade.on_upgrade(async move |socket| {
        let socket = socket.map(|message| message.map_err(|error| read_failure(&error)));
        let events = LogEvents {
            // Said on the connection: a browser hears nothing of an upgrade that is refused.
            refusal: check_log(&log, params.log.as_deref()).err(),
            reader: Reader::new(&log, params.after, params.view),
        };
        let carry_out = |op| {
            let session = session.clone();
            async move {
                let session = session.ok_or(ApiError::from(Denied::Ended))?;
                carry_out(op, &session).await
            }
        };
        let stopping = async {
            api.config.stopping.cancelled().await;
            End::Stopping
        };
        let end = serve(socket, events, answering(carry_out), BOUNDS, stopping).await;
        tracing::debug!(session.id = %id, ?end, "a client left");
        drop(place);
    }))
}

/// The log as the loop reads it.
struct LogEvents {
    /// Why there is nothing to read.
    refusal: Option<ApiError>,
    reader: Reader,
}

impl Events for LogEvents {
    async fn next(&mut self) -> Result<Option<Vec<Message>>, ApiError> {
        let text = |event: StoredEvent| {
            Message::Text(Utf8Bytes::try_from(event.json).expect("stored events are JSON"))
        };
        if let Some(refusal) = self.refusal.take() {
            return Err(refusal);
        }
        let batch = self.reader.next().await?;
        Ok(batch.map(|events| events.into_iter().map(text).collect()))
    }

    fn bad_news(&self, error: &ApiError) -> Option<Message> {
        let error = error.detail();
        Some(text(&ErrorBody { error }))
    }
}

/// What the loop is to do with a message: the command in it, and a reply with the same `ref`.
pub(crate) fn answering<C, Answer>(
    carry_out: C,
) -> impl Fn(Message) -> Option<BoxFuture<'static, Vec<Message>>> + Sync
where
    C: Fn(Op) -> Answer + Sync,
    Answer: Future<Output = Result<Value, ApiError>> + Send + 'static,
{
    move |message| {
        let (reference, op) = match message {
            Message::Text(text) => {
                let message = parse(&text);
                (message.reference, message.op)
            }
            Message::Binary(_) => {
                let error = ApiError::new(
                    Code::BinaryMessage,
                    "messages are JSON text; files go over /v1/sessions/{session}/files",
                );
                (None, Err(error))
            }
            Message::Ping(_) | Message::Pong(_) | Message::Close(_) => return None,
        };
        let answer = op.map(&carry_out);
        Some(Box::pin(async move {
            let answer = match answer {
                Ok(answer) => answer.await,
                Err(error) => Err(error),
            };
            vec![text(&Reply::new(reference, answer))]
        }))
    }
}

fn text(value: &impl Serialize) -> Message {
    Message::Text(
        serde_json::to_string(value)
            .expect("our own words are JSON")
            .into(),
    )
}

/// Why a message could not be read.
pub(crate) fn read_failure(error: &axum::Error) -> ReadFailure {
    use std::error::Error as _;
    match error.source().and_then(|source| source.downcast_ref()) {
        Some(SocketError::Utf8(_)) => ReadFailure::BadText,
        Some(SocketError::Capacity(_)) => ReadFailure::TooLarge,
        _ => ReadFailure::Broken,
    }
}
