//! The log: as pages of JSON, as Server-Sent Events, event by event.
//!
//! Events are stored in the form in which they are sent: a page is spliced from stored bytes, nothing is parsed or written again
//! but for the live view.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt as _, stream};
use serde::Deserialize;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::reader::{Reader, check_log, live_page};
use super::view::ViewKind;
use crate::api::Api;
use crate::api::error::{ApiError, Code};
use crate::api::extract::{Params, SeqPath, SessionPath};
use crate::model::event::Seq;
use crate::session::StoredEvent;
use crate::session::log::{EventLog, Page, ReadError};
use crate::session::view::Status;

/// The most bytes of events in a page; one event may be longer.
const PAGE_BYTES: usize = 4 * 1024 * 1024;

/// How often a quiet stream shows that it is alive.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Which part of the log is wanted.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EventsParams {
    /// The last event that is known; 0 for none.
    after: Option<Seq>,
    /// Which log that is of; not checked if not said.
    log: Option<String>,
    /// How many at most.
    limit: Option<usize>,
    /// How long to wait when there is none.
    wait_ms: Option<u64>,
    /// What to be sent of them; every one if not said.
    view: Option<ViewKind>,
}

/// The events after a position: a page of JSON, or a stream with `Accept: text/event-stream`.
///
/// The stream goes on with what happens, and ends when the session does. It honours `Last-Event-ID`.
#[utoipa::path(
    get, path = "/v1/sessions/{session}/events", tag = "events",
    params(
        ("session" = String, Path),
        ("after" = Option<u64>, Query, description = "The last event that is known; 0, the beginning, if not said"),
        ("log" = Option<String>, Query, description = "Which log `after` is of, as the session says it; not checked if not said"),
        ("limit" = Option<u32>, Query, description = "How many at most, 1 to 10000; 1000 if not said; not for a stream"),
        ("wait_ms" = Option<u64>, Query, description = "How long to wait for an event when there is none, at most 600000; not for a stream"),
        ("view" = Option<String>, Query, description = "`live` for the live view; every event as it is, if not said"),
        ("Last-Event-ID" = Option<u64>, Header, description = "As `after`, which it overrides; for a stream"),
    ),
    responses(
        (status = 200, description = "Events", content(
            (ref("#/components/schemas/EventPage") = "application/json"),
            (String = "text/event-stream"),
        )),
        (status = 204, description = "For a stream that resumes: the session is over and all was seen"),
        (status = 404, description = "`unknown_session`", body = ref("#/components/schemas/ErrorBody")),
        (status = 409, description = "`cursor_ahead` (with `head`), `other_log` (with `log`)", body = ref("#/components/schemas/ErrorBody")),
        (status = 410, description = "`events_trimmed` (with `first_available`)", body = ref("#/components/schemas/ErrorBody")),
    )
)]
pub(crate) async fn list(
    State(api): State<Api>,
    SessionPath(id): SessionPath,
    Params(params): Params<EventsParams>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let log = api.sessions.log(&id).await?;
    check_log(&log, params.log.as_deref())?;
    if !wants_stream(&headers) {
        return page(&log, &params, &api.config.stopping).await;
    }
    let resumed = last_event_id(&headers)?;
    let after = resumed.or(params.after).unwrap_or(0);
    // A refusal has to come before the stream begins.
    log.read(after, 1, 1).await?;
    if resumed == Some(log.head()) && api.sessions.view(&id).await?.status == Status::Ended {
        // This is what tells an EventSource not to come again.
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let events = server_sent(Reader::new(&log, after, params.view))
        .take_until(api.config.stopping.clone().cancelled_owned());
    let mut response = Sse::new(events)
        .keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
        .into_response();
    // nginx would otherwise hold events back.
    response.headers_mut().insert(
        HeaderName::from_static("x-accel-buffering"),
        HeaderValue::from_static("no"),
    );
    Ok(response)
}

/// One event.
#[utoipa::path(
    get, path = "/v1/sessions/{session}/events/{seq}", tag = "events", params(("session" = String, Path), ("seq" = u64, Path)),
    responses(
        (status = 200, description = "The event, whole", body = ref("#/components/schemas/Envelope")),
        (status = 404, description = "`unknown_session`, `unknown_event`", body = ref("#/components/schemas/ErrorBody")),
        (status = 410, description = "`events_trimmed` (with `first_available`)", body = ref("#/components/schemas/ErrorBody")),
    )
)]
pub(crate) async fn get(
    State(api): State<Api>,
    SessionPath(id): SessionPath,
    SeqPath(seq): SeqPath,
) -> Result<Response, ApiError> {
    let log = api.sessions.log(&id).await?;
    let unknown = || {
        ApiError::new(Code::UnknownEvent, format!("there is no event {seq} yet"))
            .with("head", log.head())
    };
    let after = seq.checked_sub(1).ok_or_else(unknown)?;
    let page = match log.read(after, 1, PAGE_BYTES).await {
        Ok(page) => page,
        Err(ReadError::Ahead { .. }) => return Err(unknown()),
        Err(error) => return Err(error.into()),
    };
    let event = page.events.into_iter().next().ok_or_else(unknown)?;
    Ok(json(event.json))
}

async fn page(
    log: &Arc<EventLog>,
    params: &EventsParams,
    stopping: &CancellationToken,
) -> Result<Response, ApiError> {
    let after = params.after.unwrap_or(0);
    let limit = params.limit.unwrap_or(1000);
    if !(1..=10_000).contains(&limit) {
        return Err(ApiError::new(Code::BadParameter, "`limit` is 1 to 10000"));
    }
    let wait_ms = params.wait_ms.unwrap_or(0);
    if wait_ms > 600_000 {
        return Err(ApiError::new(
            Code::BadParameter,
            "`wait_ms` is at most 600000",
        ));
    }
    let read = async || match params.view {
        None => log.read(after, limit, PAGE_BYTES).await,
        Some(ViewKind::Live) => live_page(log, after, limit, PAGE_BYTES).await,
    };
    let mut page = read().await?;
    if page.events.is_empty() && wait_ms > 0 {
        let mut subscription = log.subscribe(after);
        let something = timeout(Duration::from_millis(wait_ms), subscription.next());
        // What comes is only a sign: a page has its own bounds.
        tokio::select! {
            _ = something => {}
            () = stopping.cancelled() => {}
        }
        page = read().await?;
    }
    Ok(json(splice(&page, after)))
}

/// A page as JSON, made of stored bytes.
fn splice(page: &Page, after: Seq) -> Bytes {
    let last = page.events.last().map_or(after, |event| event.seq);
    let mut body = Vec::with_capacity(
        page.events
            .iter()
            .map(|event| event.json.len() + 1)
            .sum::<usize>()
            + 128,
    );
    body.extend_from_slice(b"{\"events\":[");
    for (n, event) in page.events.iter().enumerate() {
        if n > 0 {
            body.push(b',');
        }
        body.extend_from_slice(&event.json);
    }
    let (head, first, more) = (page.head, page.first, last < page.head);
    body.extend_from_slice(
        format!("],\"head\":{head},\"first\":{first},\"more\":{more}}}").as_bytes(),
    );
    body.into()
}

fn json(body: Bytes) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

fn wants_stream(headers: &HeaderMap) -> bool {
    headers.get_all(header::ACCEPT).iter().any(|value| {
        value
            .to_str()
            .is_ok_and(|accept| accept.contains("text/event-stream"))
    })
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<Seq>, ApiError> {
    let Some(value) = headers.get("last-event-id") else {
        return Ok(None);
    };
    let seq = value.to_str().ok().and_then(|text| text.parse().ok());
    seq.map(Some).ok_or_else(|| {
        ApiError::new(
            Code::BadParameter,
            "the header `Last-Event-ID` is the number of an event",
        )
    })
}

/// What a reader is sent, as Server-Sent Events. If the reader was slower than the trimming, the last one is of type `stream_error`.
fn server_sent(reader: Reader) -> impl Stream<Item = Result<SseEvent, std::convert::Infallible>> {
    let batches = stream::unfold(Some(reader), async |reader| {
        let mut reader = reader?;
        match reader.next().await {
            Ok(Some(events)) => {
                Some((events.iter().map(server_sent_event).collect(), Some(reader)))
            }
            Ok(None) => None,
            Err(error) => {
                let detail = serde_json::to_string(&ApiError::from(error).detail())
                    .expect("our own words are JSON");
                Some((
                    vec![SseEvent::default().event("stream_error").data(detail)],
                    None,
                ))
            }
        }
    });
    batches.flat_map(|events: Vec<SseEvent>| stream::iter(events.into_iter().map(Ok)))
}

fn server_sent_event(event: &StoredEvent) -> SseEvent {
    /// Just enough to name the event.
    #[derive(Deserialize)]
    struct Named<'a> {
        #[serde(borrow)]
        event: std::borrow::Cow<'a, str>,
    }
    let text = std::str::from_utf8(&event.json).expect("stored events are JSON");
    let name = serde_json::from_str::<Named<'_>>(text).map_or("event".into(), |named| named.event);
    SseEvent::default()
        .id(event.seq.to_string())
        .event(name)
        .data(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(seq: Seq) -> StoredEvent {
        let json = format!("{{\"seq\":{seq},\"at_ms\":1,\"event\":\"stream\",\"text\":\"a\\nb\"}}");
        StoredEvent {
            seq,
            json: json.into(),
        }
    }

    #[test]
    fn a_page_is_spliced_from_stored_bytes() {
        let page = Page {
            events: vec![stored(3), stored(4)],
            head: 9,
            first: 2,
        };
        let body: serde_json::Value = serde_json::from_slice(&splice(&page, 2)).unwrap();
        assert_eq!(body["events"].as_array().unwrap().len(), 2);
        assert_eq!(
            (&body["head"], &body["first"], &body["more"]),
            (&9.into(), &2.into(), &true.into())
        );
        let empty = Page {
            events: vec![],
            head: 9,
            first: 2,
        };
        assert_eq!(
            splice(&empty, 9),
            "{\"events\":[],\"head\":9,\"first\":2,\"more\":false}".as_bytes()
        );
    }

    #[tokio::test]
    async fn an_event_is_named_and_numbered() {
        let event = server_sent_event(&stored(3));
        let body = Sse::new(stream::iter([Ok::<_, std::convert::Infallible>(event)]))
            .into_response()
            .into_body();
        let text = axum::body::to_bytes(body, 1000).await.unwrap();
        assert_eq!(text, "id: 3\nevent: stream\ndata: {\"seq\":3,\"at_ms\":1,\"event\":\"stream\",\"text\":\"a\\nb\"}\n\n".as_bytes());
    }

    #[test]
    fn a_stream_is_asked_for_by_its_type() {
        let accept =
            |value| HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(value))]);
        assert!(wants_stream(&accept("text/event-stream")));
        assert!(!wants_stream(&accept("*/*")));
        assert!(!wants_stream(&HeaderMap::new()));
    }
}
