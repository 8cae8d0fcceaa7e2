//! The tripwire: says once in a cell that memory comes near its limit, before a kill says that it has.
//!
//! Memory is counted exactly only for a walk through pages, twins' pages included. So the walk is made for this only where the rough count is near the
//! limit, not once the cell was warned, and not more often than [`PAUSE`] allows.

use tokio::time::{Duration, Instant};

use crate::agent::usage::Census;

/// It trips above so many hundredths of the limit.
const TRIPS: u64 = 85;
/// Once it has tripped, it rests below so many.
const RESTS: u64 = 70;
/// After a walk that has found less than feared, the next one waits so long.
const PAUSE: Duration = Duration::from_millis(250);

/// Watches memory on its way to the limit.
#[derive(Debug, Default)]
pub(super) struct Tripwire {
    /// Whether memory was near its limit, and not well below it since.
    tripped: bool,
    /// The execution that was warned last.
    warned: Option<u64>,
    /// No walk before that.
    not_before: Option<Instant>,
}

impl Tripwire {
    /// Above which use of memory it wants it counted exactly; none if it does not.
    pub(super) fn exact_above(
        &self,
        execution: Option<u64>,
        limit: u64,
        now: Instant,
    ) -> Option<u64> {
        let is_due = execution.is_some()
            && execution != self.warned
            && self.not_before.is_none_or(|instant| instant <= now);
        is_due.then(|| self.threshold(limit))
    }

    /// Takes in what was counted. Returns whether the execution is to be warned.
    pub(super) fn has_tripped(
        &mut self,
        execution: Option<u64>,
        census: &Census,
        limit: u64,
        now: Instant,
    ) -> bool {
        let wanted = self.exact_above(execution, limit, now);
        if census.memory_bytes < limit / 100 * RESTS {
            self.tripped = false;
        }
        // A rough count is never too small, but may be too large.
        if !wanted.is_some_and(|_| census.is_exact) {
            return false;
        }
        self.not_before = Some(now + PAUSE);
        if census.memory_bytes <= self.threshold(limit) {
            return false;
        }
        self.tripped = true;
        self.warned = execution;
        true
    }

    /// As long as it has not come to rest, each further cell is warned too.
    fn threshold(&self, limit: u64) -> u64 {
        limit / 100 * if self.tripped { RESTS } else { TRIPS }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks with so many hundredths of the memory in use, of which twins hold some.
    fn look(tripwire: &mut Tripwire, execution: u64, used: u64, twins: u64, now: Instant) -> bool {
        let exact = tripwire.exact_above(Some(execution), 1000, now);
        let is_exact = exact.is_some_and(|exact| used * 10 > exact);
        let census = Census {
            memory_bytes: if is_exact { used - twins } else { used } * 10,
            is_exact,
            ..Census::default()
        };
        tripwire.has_tripped(Some(execution), &census, 1000, now)
    }

    #[tokio::test(start_paused = true)]
    async fn a_cell_is_warned_once_and_later_ones_until_memory_is_well_below() {
        let now = Instant::now();
        let mut wire = Tripwire::default();
        let mut at = |execution, used, later| look(&mut wire, execution, used, 0, now + later);
        let second = Duration::from_secs(1);
        assert!(!at(1, 85, second));
        assert!(at(1, 86, 2 * second));
        assert!(!at(1, 99, 3 * second));
        assert!(at(2, 75, 4 * second));
        assert!(!at(2, 60, 5 * second));
        assert!(!at(3, 75, 6 * second));
        assert!(at(3, 90, 7 * second));
    }

    #[tokio::test(start_paused = true)]
    async fn what_only_twins_hold_does_not_trip_it_and_is_not_looked_for_all_the_time() {
        let now = Instant::now();
        let mut wire = Tripwire::default();
        assert!(!look(&mut wire, 1, 95, 40, now));
        assert_eq!(wire.exact_above(Some(1), 1000, now + PAUSE / 2), None);
        assert!(look(&mut wire, 1, 99, 10, now + PAUSE));
    }
}
