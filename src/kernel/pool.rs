//! The warm pool: kernels that have run a cell and belong to nobody yet.
//!
//! It grows with the rate at which sessions are opened, within a bound, and shrinks when nobody comes. A kernel that cannot be started is tried again
//! ever more slowly: a broken environment makes no storm.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use super::KernelError;
use super::launch::Claimed;

/// Over which time arrivals are counted: the pool aims to hold as many kernels as came within it.
const WINDOW: Duration = Duration::from_secs(5);
/// How long a surplus is kept before it is let go.
const SURPLUS: Duration = Duration::from_secs(60);
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Pool {
    min: usize,
    max: usize,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    ready: VecDeque<Claimed>,
    arrivals: VecDeque<Instant>,
    closed: bool,
}

impl Pool {
    pub(super) fn new(min: usize, max: usize) -> Self {
        Self {
            min,
            max: max.max(min),
            state: Mutex::default(),
            changed: Notify::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.lock().ready.len()
    }

    /// Somebody wants a kernel, whether one is here or not.
    pub(super) fn arrival(&self) {
        let mut state = self.lock();
        // More than `max` arrivals change nothing any more.
        if state.arrivals.len() == self.max {
            state.arrivals.pop_front();
        }
        state.arrivals.push_back(Instant::now());
        self.changed.notify_one();
    }

    /// The kernel that has waited longest and still lives, and those that have died before it.
    pub(super) fn take(&self) -> (Option<Claimed>, Vec<Claimed>) {
        let mut state = self.lock();
        let mut dead = Vec::new();
        while let Some(mut claimed) = state.ready.pop_front() {
            self.changed.notify_one();
            if claimed.events.is_quiet() {
                claimed.warm = true;
                return (Some(claimed), dead);
            }
            dead.push(claimed);
        }
        (None, dead)
    }

    /// Lets go of those that have died while they waited.
    fn take_dead(&self) -> Vec<Claimed> {
        let ready = &mut self.lock().ready;
        let mut dead = Vec::new();
        for mut claimed in std::mem::take(ready) {
            if claimed.events.is_quiet() {
                ready.push_back(claimed);
            } else {
                dead.push(claimed);
            }
        }
        dead
    }

    /// Lets go of all kernels and takes no more.
    pub(super) fn close(&self) -> Vec<Claimed> {
        let mut state = self.lock();
        state.closed = true;
        self.changed.notify_one();
        state.ready.drain(..).collect()
    }

    /// Keeps as many kernels ready as are likely to be wanted. Ends when the pool is closed.
    pub(super) async fn keep_filled<F>(&self, launch: impl Fn() -> F, discard: impl Fn(Claimed))
    where
        F: Future<Output = Result<Claimed, KernelError>>,
    {
        let mut retry = RETRY_MIN;
        let mut surplus_since = None;
        loop {
            for dead in self.take_dead() {
                tracing::warn!(sandbox.id = %dead.kernel.sandbox(), "a warm kernel has died");
                discard(dead);
            }
            let (ready, target) = {
                let mut state = self.lock();
                if state.closed {
                    return;
                }
                (state.ready.len(), self.target(&mut state, Instant::now()))
            };
            if ready < target {
                surplus_since = None;
                match launch().await {
                    Ok(claimed) => {
                        retry = RETRY_MIN;
                        if let Some(late) = self.put(claimed) {
                            discard(late);
                        }
                    }
                    Err(error) => {
                        tracing::error!(error = %chain(&error), "no kernel for the warm pool; trying again in {retry:?}");
                        sleep(retry).await;
                        retry = (retry * 2).min(RETRY_MAX);
                    }
                }
                continue;
            }
            let since = *surplus_since.get_or_insert_with(Instant::now);
            if ready > target && since.elapsed() >= SURPLUS {
                surplus_since = None;
                let spare = self.lock().ready.pop_back();
                if let Some(spare) = spare {
                    discard(spare);
                }
                continue;
            }
            if ready == target {
                surplus_since = None;
            }
            tokio::select! {
                () = self.changed.notified() => {}
                () = sleep(WINDOW) => {}
            }
        }
    }

    /// Puts a kernel in; gives it back if the pool was closed meanwhile.
    pub(super) fn put(&self, claimed: Claimed) -> Option<Claimed> {
        let mut state = self.lock();
        if state.closed {
            return Some(claimed);
        }
        state.ready.push_back(claimed);
        None
    }

    fn target(&self, state: &mut State, now: Instant) -> usize {
        while state
            .arrivals
            .front()
            .is_some_and(|arrival| now - *arrival > WINDOW)
        {
            state.arrivals.pop_front();
        }
        state.arrivals.len().clamp(self.min, self.max)
    }

    /// Nothing in here can break the state half-way, so a poisoned lock is as good as any.
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An error with its sources, for a log line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_pool_aims_at_what_came_lately_within_its_bounds() {
        let pool = Pool::new(1, 3);
        let target = || pool.target(&mut pool.lock(), Instant::now());
        assert_eq!(target(), 1);
        for _ in 0..5 {
            pool.arrival();
        }
        assert_eq!(target(), 3);
        tokio::time::advance(WINDOW * 2).await;
        assert_eq!(target(), 1);
    }
}
