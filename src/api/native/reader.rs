//! Who reads a log as it grows: exactly, or in the live view.

use std::sync::Arc;

use super::view::{Bounds, View, ViewKind};
use crate::api::error::{ApiError, Code};
use crate::model::event::Seq;
use crate::session::StoredEvent;
use crate::session::log::{EventLog, Page, ReadError, Subscription};

/// How much of the log goes into one page of the live view, in bytes; there may be less of it in the page.
const SCANNED: usize = 64 * 1024 * 1024;

/// How much of the log is read at a time for it.
const EVENTS: usize = 1000;
const BYTES: usize = 1024 * 1024;

/// Refuses a cursor of another log. Sequence numbers alone cannot tell: every log has the small ones.
///
/// # Errors
/// `wanted` is another log.
pub(crate) fn check_log(log: &EventLog, wanted: Option<&str>) -> Result<(), ApiError> {
    if wanted.is_none_or(|wanted| wanted == log.id()) {
        return Ok(());
    }
    let text = "the session was deleted and made anew since; this cursor belongs to its former log, so begin again with after=0";
    Err(ApiError::new(Code::OtherLog, text).with("log", log.id()))
}

/// A reader of a log.
#[derive(Debug)]
pub(crate) enum Reader {
    /// Of every event, as it is.
    Exact(Subscription),
    /// Of the live view.
    Live(Box<Live>),
}

/// A reader of the live view.
#[derive(Debug)]
pub(crate) struct Live {
    log: Arc<EventLog>,
    subscription: Subscription,
    view: View,
    /// Where the log ended when the reader was last found to be behind: from there on it has caught up.
    goal: Seq,
}

impl Reader {
    /// Reads on after an event.
    pub(crate) fn new(log: &Arc<EventLog>, after: Seq, view: Option<ViewKind>) -> Self {
        let subscription = log.subscribe(after);
        match view {
            None => Self::Exact(subscription),
            Some(ViewKind::Live) => Self::Live(Box::new(Live {
                log: Arc::clone(log),
                subscription,
                view: View::new(Bounds::default()),
                goal: 0,
            })),
        }
    }

    /// What follows, at least one event; waits for it. `None` when the log is closed and all is read.
    ///
    /// May be dropped and called again: no event is lost by that.
    ///
    /// # Errors
    /// As [`Subscription::next`].
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<StoredEvent>>, ReadError> {
        match self {
            Self::Exact(subscription) => subscription.next().await,
            Self::Live(live) => live.next().await,
        }
    }
}

impl Live {
    async fn next(&mut self) -> Result<Option<Vec<StoredEvent>>, ReadError> {
        loop {
            let ready = self.view.take();
            if !ready.is_empty() {
                return Ok(Some(ready));
            }
            let (position, head) = (self.subscription.position(), self.log.head());
            if self.view.is_pending() {
                if position >= self.goal {
                    self.view.flush();
                    continue;
                }
            } else {
                self.goal = head;
            }
            let is_behind = position < head;
            match self.subscription.next().await {
                Ok(Some(events)) if is_behind => {
                    events
                        .into_iter()
                        .for_each(|event| self.view.push_late(event));
                }
                Ok(Some(events)) => {
                    events
                        .into_iter()
                        .for_each(|event| self.view.push_current(event));
                }
                // What has been read is sent before the bad news.
                Err(_) if self.view.is_pending() => self.view.flush(),
                end => return end,
            }
        }
    }
}

/// A page of the live view, as [`EventLog::read`] gives one of the log.
///
/// # Errors
/// As [`EventLog::read`].
pub(crate) async fn live_page(
    log: &EventLog,
    after: Seq,
    max_events: usize,
    max_bytes: usize,
) -> Result<Page, ReadError> {
    let mut view = View::new(Bounds::default());
    let mut page = log.read(after, EVENTS, BYTES).await?;
    let (head, mut scanned) = (page.head, 0);
    let (mut events, mut bytes) = (Vec::new(), 0);
    loop {
        let last = page.events.last().map_or(head, |event| event.seq);
        for event in page.events {
            scanned += event.json.len();
            view.push_late(event);
        }
        let is_done = last >= head || scanned >= SCANNED;
        if is_done {
            view.flush();
        }
        for event in view.take() {
            bytes += event.json.len();
            if events.len() == max_events || bytes > max_bytes && !events.is_empty() {
                // What lies beyond is read again for the next page.
                return Ok(page_of(events, log));
            }
            events.push(event);
        }
        if is_done {
            return Ok(page_of(events, log));
        }
        page = match log.read(last, EVENTS, BYTES).await {
            // The next page will tell, with what is known by then.
            Err(ReadError::Trimmed { .. }) if !events.is_empty() => {
                return Ok(page_of(events, log));
            }
            page => page?,
        };
    }
}

fn page_of(events: Vec<StoredEvent>, log: &EventLog) -> Page {
    Page {
        events,
        head: log.head(),
        first: log.first(),
    }
}
