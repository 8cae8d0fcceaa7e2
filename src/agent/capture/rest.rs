//! How the agent waits for the ring: no wakeup while nothing happens, no system call of the kernel per line while much does.
//!
//! ```text
//!  awake ──nothing──▶ dozing ──1 ms, nothing──▶ asleep
//!    ▲ ▲                │ doorbell                │ doorbell
//!    │ └────────────────┴─────────────────────────┘
//!    ├─something─ napping ◀── rung often within a short time
//!    └─something─ lingering ◀── text ended within a line
//! ```
//!
//! Dozing and asleep differ in the second look only: the kernel cannot fence its store of `head` against its load of
//! `reader_sleeping`, so a doorbell can be missed that is rung in the same moment. Napping is a short wait by the clock: the kernel writes on
//! without ringing, and what it wrote meanwhile is taken together. Lingering is the same for the rest of a line.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::EventfdFlags;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

use crate::agent::descriptor;
use crate::agent::ring::Ring;

const SECOND_LOOK: Duration = Duration::from_millis(1);

const NAP: Duration = Duration::from_micros(150);

/// How long the rest of a line is waited for: `print` writes a line in pieces, a microsecond apart.
const LINGER: Duration = Duration::from_micros(50);

/// A doorbell that comes so soon after sleep was announced counts as quick.
const QUICK: Duration = Duration::from_micros(300);

/// After so many quick ones in a row, naps are cheaper than doorbells.
const QUICK_ONES: u32 = 4;

/// See the module.
#[derive(Debug)]
pub(crate) struct Rest {
    doorbell: AsyncFd<OwnedFd>,
    timer: AsyncFd<OwnedFd>,
    state: State,
    announced: Instant,
    quick: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Awake,
    Napping,
    Lingering,
    Dozing,
    Asleep,
}

impl Rest {
    /// Makes it, and the kernel's end of the doorbell.
    pub(crate) fn create() -> io::Result<(Self, OwnedFd)> {
        let doorbell = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let timer = rustix::time::timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
        )?;
        let rest = Self {
            doorbell: descriptor::watched(
                rustix::io::fcntl_dupfd_cloexec(&doorbell, 3)?,
                Interest::READABLE,
            )?,
            timer: descriptor::watched(timer, Interest::READABLE)?,
            state: State::Awake,
            announced: Instant::now(),
            quick: 0,
        };
        Ok((rest, doorbell))
    }

    /// Waits for the doorbell or the clock.
    pub(crate) async fn wait(&self) {
        tokio::select! {
            // Never read: each ring is an edge of its own for epoll, the count is of no interest, and since kernel and agent share the open
            // file, the kernel could make a read of it block.
            Ok(mut guard) = self.doorbell.readable() => guard.clear_ready(),
            Ok(mut guard) = self.timer.readable(), if self.state != State::Asleep => {
                let mut count = [0; 8];
                let _ = rustix::io::read(&self.timer, &mut count);
                guard.clear_ready();
            }
            else => std::future::pending().await,
        }
    }

    /// Takes note that the ring had something.
    pub(crate) fn found_something(&mut self) {
        match self.state {
            State::Awake => {}
            State::Napping | State::Lingering => self.state = State::Awake,
            State::Dozing | State::Asleep => {
                let quick = self.announced.elapsed() < QUICK;
                self.quick = if quick {
                    self.quick.saturating_add(1)
                } else {
                    0
                };
                self.state = State::Awake;
            }
        }
    }

    /// Whether the rest of a line is waited for.
    pub(crate) fn is_lingering(&self) -> bool {
        self.state == State::Lingering
    }

    /// Goes to the next state, since the ring was empty. Returns `false` when it is not any more. `within_line` when the text ended so, and
    /// this was not seen before.
    pub(crate) fn settle(&mut self, ring: &Ring, may_nap: bool, within_line: bool) -> bool {
        match self.state {
            State::Awake if within_line => {
                ring.announce_awake();
                self.state = State::Lingering;
                self.set_timer(LINGER);
                !ring.has_data()
            }
            State::Awake if may_nap && self.quick >= QUICK_ONES => {
                ring.announce_awake();
                self.state = State::Napping;
                self.set_timer(NAP);
                !ring.has_data()
            }
            State::Awake => self.doze(ring),
            State::Lingering if self.timer_is_due() => self.doze(ring),
            State::Napping if self.timer_is_due() => {
                self.quick = 0;
                self.doze(ring)
            }
            State::Dozing if self.timer_is_due() => {
                self.state = State::Asleep;
                !ring.has_data()
            }
            State::Napping | State::Lingering | State::Dozing | State::Asleep => !ring.has_data(),
        }
    }

    /// Forgets what it waited for.
    pub(crate) fn cancel(&mut self) {
        self.state = State::Awake;
        self.set_timer(Duration::ZERO);
    }

    fn doze(&mut self, ring: &Ring) -> bool {
        self.announced = Instant::now();
        ring.announce_sleep();
        if ring.has_data() {
            ring.announce_awake();
            return false;
        }
        self.state = State::Dozing;
        self.set_timer(SECOND_LOOK);
        true
    }

    /// Whether the time is over for which the timer was set.
    fn timer_is_due(&self) -> bool {
        rustix::time::timerfd_gettime(&self.timer)
            .is_ok_and(|left| left.it_value.tv_sec == 0 && left.it_value.tv_nsec == 0)
    }

    fn set_timer(&self, after: Duration) {
        let time = Itimerspec {
            it_interval: Timespec::default(),
            it_value: Timespec {
                tv_sec: 0,
                tv_nsec: after.subsec_nanos().into(),
            },
        };
        // It can fail only for values out of range.
        let _ = rustix::time::timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &time);
    }
}
