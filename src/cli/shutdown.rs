//! When to stop: signals, and how long stopping may take.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::timeout;
use tracing::warn;

/// The signals that mean "stop": SIGTERM, SIGINT, SIGHUP.
#[derive(Debug)]
pub(super) struct Stops {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Stops {
    /// Takes the signals over; from now on none of them ends the process by itself.
    pub(super) fn new() -> Result<Self> {
        let take = |kind| signal(kind).context("cannot handle signals");
        Ok(Self {
            terminate: take(SignalKind::terminate())?,
            interrupt: take(SignalKind::interrupt())?,
            hangup: take(SignalKind::hangup())?,
        })
    }

    /// Waits for the next of them, and returns its name.
    pub(super) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.hangup.recv() => "SIGHUP",
        }
    }
}

/// Waits for a step of stopping, within its share of time; if that passes, names it and goes on.
pub(super) async fn within<T>(
    limit: Duration,
    what: &'static str,
    step: impl Future<Output = T>,
) -> Option<T> {
    let done = timeout(limit, step).await.ok();
    if done.is_none() {
        warn!(
            step = what,
            limit_ms = limit.as_millis(),
            "did not stop in time"
        );
    }
    done
}
