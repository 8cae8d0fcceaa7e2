//! The deadline of a running cell: pure arithmetic on instants that others measure.

use std::time::Duration;

use tokio::time::Instant;

/// When a cell began, when it will be stopped, and how far that can be moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Deadline {
    started: Instant,
    limit: Duration,
    ceiling: Duration,
    /// When the warning is due; none once it was given.
    warning: Option<Instant>,
    warning_before: Duration,
}

impl Deadline {
    /// A deadline `limit` after `started`, which can be extended up to `ceiling` after it.
    pub(super) fn new(
        started: Instant,
        limit: Duration,
        ceiling: Duration,
        warning_before: Duration,
    ) -> Self {
        let mut deadline = Self {
            started,
            limit,
            ceiling: ceiling.max(limit),
            warning: None,
            warning_before,
        };
        deadline.plan_warning();
        deadline
    }

    /// When its clock began: the start of the cell, and as much later as the clock stood still.
    pub(super) fn started(&self) -> Instant {
        self.started
    }

    /// Whether the warning was given.
    pub(super) fn is_warned(&self) -> bool {
        self.warning.is_none()
    }

    /// Takes note that the warning was given before.
    pub(super) fn forget_warning(&mut self) {
        self.warning = None;
    }

    pub(super) fn at(&self) -> Instant {
        self.started + self.limit
    }

    pub(super) fn ceiling_at(&self) -> Instant {
        self.started + self.ceiling
    }

    pub(super) fn limit(&self) -> Duration {
        self.limit
    }

    pub(super) fn ceiling(&self) -> Duration {
        self.ceiling
    }

    /// By how much it can still be extended.
    pub(super) fn extendable(&self) -> Duration {
        self.ceiling - self.limit
    }

    /// Moves it, and plans a new warning.
    ///
    /// # Errors
    /// The ceiling does not allow it; gives by how much it can be moved.
    pub(super) fn extend(&mut self, by: Duration) -> Result<(), Duration> {
        if by > self.extendable() {
            return Err(self.extendable());
        }
        self.limit += by;
        self.plan_warning();
        Ok(())
    }

    /// Moves it on for progress, when it or its warning is due: by `step`, or by what the ceiling leaves of that; by more if it is long past, because nobody
    /// looked meanwhile. Returns by how much; none if nothing is left.
    pub(super) fn extend_on_progress(&mut self, step: Duration, now: Instant) -> Option<Duration> {
        let late = now.saturating_duration_since(self.at());
        let by = (step + late).min(self.extendable());
        self.extend(by).ok().filter(|()| !by.is_zero()).map(|()| by)
    }

    /// The clock stood still for this long: the cell was waiting for its user.
    pub(super) fn pause(&mut self, waited: Duration) {
        self.started += waited;
        self.warning = self.warning.map(|warning| warning + waited);
    }

    /// Whether the warning is due. True once for each plan.
    pub(super) fn take_warning(&mut self, now: Instant) -> bool {
        let due = self.warning.is_some_and(|warning| warning <= now);
        if due {
            self.warning = None;
        }
        due
    }

    /// When something is due next.
    pub(super) fn next(&self) -> Instant {
        self.warning.unwrap_or_else(|| self.at())
    }

    fn plan_warning(&mut self) {
        self.warning = Some(self.at() - self.warning_before.min(self.limit));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn it_warns_once_strikes_and_can_be_moved_up_to_the_ceiling() {
        let start = Instant::now();
        let mut deadline = Deadline::new(start, 30 * SECOND, 60 * SECOND, 5 * SECOND);
        assert_eq!(deadline.next(), start + 25 * SECOND);
        assert!(!deadline.take_warning(start + 24 * SECOND));
        assert!(deadline.take_warning(start + 25 * SECOND));
        assert!(!deadline.take_warning(start + 26 * SECOND));
        assert_eq!(deadline.next(), start + 30 * SECOND);
        assert_eq!(deadline.extend(20 * SECOND), Ok(()));
        assert_eq!(
            (deadline.at(), deadline.next()),
            (start + 50 * SECOND, start + 45 * SECOND)
        );
        assert_eq!(deadline.extend(11 * SECOND), Err(10 * SECOND));
        assert_eq!(deadline.extend(10 * SECOND), Ok(()));
        assert_eq!(deadline.extendable(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_for_the_user_does_not_count() {
        let start = Instant::now();
        let mut deadline = Deadline::new(start, 10 * SECOND, 20 * SECOND, SECOND);
        deadline.pause(100 * SECOND);
        assert_eq!(
            (deadline.at(), deadline.ceiling_at()),
            (start + 110 * SECOND, start + 120 * SECOND)
        );
        assert_eq!(deadline.next(), start + 109 * SECOND);
    }
}
