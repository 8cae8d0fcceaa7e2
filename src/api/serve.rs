//! Serves a router on a listener, with the bounds that `axum::serve` does not set.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

/// How long the head of a request may take to arrive.
const HEAD_PATIENCE: Duration = Duration::from_secs(30);

/// How long connections may take to come to an end when the server stops.
const GRACE: Duration = Duration::from_secs(5);

/// The place that a connection takes up. A WebSocket keeps it when the HTTP connection that it was is over.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    _permit: Arc<OwnedSemaphorePermit>,
}

/// Serves until `stopping` is cancelled, then lets requests that are under way come to an end, and WebSockets say goodbye. At most `connections`
/// are held at once; more wait in the listener.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    connections: usize,
    stopping: CancellationToken,
) {
    let mut builder = Builder::new(TokioExecutor::new());
    // Without a timer hyper would wait for a head for ever.
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Duration::from_secs(20))
        .enable_connect_protocol();
    let builder = Arc::new(builder);
    let graceful = GracefulShutdown::new();
    let room = Arc::new(Semaphore::new(connections));
    loop {
        // A permit before a connection: what is not accepted costs nothing here.
        let next = async {
            let permit = room
                .clone()
                .acquire_owned()
                .await
                .expect("the semaphore is never closed");
            (permit, accept(&listener).await)
        };
        let (permit, stream) = tokio::select! {
            next = next => next,
            () = stopping.cancelled() => break,
        };
        let place = Place {
            _permit: Arc::new(permit),
        };
        let service = router
            .clone()
            .map_request(move |mut request: Request<Incoming>| {
                request.extensions_mut().insert(place.clone());
                request
            });
        let (builder, watcher) = (Arc::clone(&builder), graceful.watcher());
        tokio::spawn(async move {
            let service = TowerToHyperService::new(service);
            let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
            // What goes wrong here is the client's to see: it left, or spoke something else.
            let _ = watcher.watch(connection).await;
        });
    }
    drop(listener);
    let all = u32::try_from(connections).unwrap_or(u32::MAX);
    let ended = async {
        graceful.shutdown().await;
        // Every place is free again when every WebSocket is over too.
        let _ = room.acquire_many(all).await;
    };
    if timeout(GRACE, ended).await.is_err() {
        tracing::warn!(
            grace_s = GRACE.as_secs(),
            "some requests did not end in time"
        );
    }
}

/// Accepts a connection, whatever it takes.
async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // An event is a small packet that must not wait for the next one.
                if stream.set_nodelay(true).is_ok() {
                    return stream;
                }
            }
            Err(error) => pause_after(&error).await,
        }
    }
}

/// A connection that was gone before it was accepted is nothing; but when there are no file descriptors left, trying again at once
/// would only burn time.
async fn pause_after(error: &io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    if !matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    ) {
        tracing::error!(error = %error, "cannot accept connections");
        sleep(Duration::from_secs(1)).await;
    }
}
