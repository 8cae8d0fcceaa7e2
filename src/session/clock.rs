//! The one place where the core reads the wall clock: for what people and the store are told. Decisions use `tokio::time`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::model::event::UnixMillis;

/// Now, by the wall clock.
pub(super) fn unix_ms() -> UnixMillis {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    millis(since)
}

/// When `instant` will be, by the wall clock.
pub(super) fn at_ms(instant: Instant) -> UnixMillis {
    unix_ms() + millis(instant.saturating_duration_since(Instant::now()))
}

/// When it was `at_ms` by the wall clock; now, if that is still to come or longer ago than this machine runs.
pub(super) fn instant_of(at_ms: UnixMillis) -> Instant {
    let now = Instant::now();
    let ago = Duration::from_millis(unix_ms().saturating_sub(at_ms));
    now.checked_sub(ago).unwrap_or(now)
}

/// A duration in milliseconds, as the API counts.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
