//! What a client is sent: the story of the session from where it stands, pulled from the log.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Bytes;
use axum::extract::ws::Message;

use super::clients::Connection;
use super::header::answer;
use super::story::{Audience, Story};
use super::wire::{Channel, Framing, Object};
use crate::api::error::ApiError;
use crate::api::ws_loop::Events;
use crate::model::event::{CellStatus, Envelope, Event, Seq};
use crate::model::id::{CellId, SessionId};
use crate::session::log::{EventLog, ReadError, Subscription};
use crate::session::{SessionError, Sessions, StoredEvent};

/// How many events before the place where a client begins are read, to know what was under way there.
const LOOK_BACK: u64 = 256;

/// How many bytes of them.
const LOOK_BACK_BYTES: usize = 1024 * 1024;

/// How many cells are looked at to find the last one that has run.
const SOME_CELLS: usize = 32;

/// The request that the kernel is busy with, as all parts of a connection know it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Busy(Arc<Mutex<Option<Arc<Object>>>>);

impl Busy {
    /// Its header.
    pub(crate) fn with(&self) -> Option<Arc<Object>> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn set(&self, header: Option<Arc<Object>>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = header;
    }
}

/// The story as one client is sent it.
#[derive(Debug)]
pub(crate) struct Feed {
    session: SessionId,
    sessions: Sessions,
    log: Arc<EventLog>,
    subscription: Subscription,
    connection: Arc<Connection>,
    framing: Framing,
    story: Story,
    busy: Busy,
    /// Whether what was under way at the beginning was looked at.
    begun: bool,
    /// Events that were read and not told yet.
    read: VecDeque<StoredEvent>,
    /// The last of those that were told, until the client is asked whether it has come so far.
    told: Option<Seq>,
    /// What is to be sent.
    ready: Vec<Message>,
}

/// An event; none of those that only a newer server knows.
fn parse(event: &StoredEvent) -> Option<Envelope> {
    serde_json::from_slice(&event.json).ok()
}

impl Feed {
    /// Begins where the client stands.
    pub(crate) fn new(
        sessions: Sessions,
        session: SessionId,
        log: Arc<EventLog>,
        connection: Arc<Connection>,
        framing: Framing,
        busy: Busy,
    ) -> Self {
        Self {
            subscription: log.subscribe(connection.from),
            story: Story::new(&session),
            session,
            sessions,
            log,
            connection,
            framing,
            busy,
            begun: false,
            read: VecDeque::new(),
            told: None,
            ready: Vec::new(),
        }
    }

    /// Finds out what was under way where the client begins: what runs, what asks, which comm messages the kernel has before it.
    async fn begin(&mut self) -> Result<(), ApiError> {
        let from = self.connection.from;
        // Before anything is read: what runs now and began before that place has not ended before it.
        let view = self.sessions.view(&self.session).await?;
        let first = self.log.first().max(1) - 1;
        let after = from.saturating_sub(LOOK_BACK).max(first);
        let mut story = Story::new(&self.session);
        let mut at = after;
        while at < from {
            let events = match self.log.read(at, LOOK_BACK as usize, LOOK_BACK_BYTES).await {
                Ok(page) => page.events,
                // What was trimmed meanwhile is not told.
                Err(ReadError::Trimmed { .. } | ReadError::Ahead { .. }) => break,
                Err(error) => return Err(error.into()),
            };
            let Some(last) = events.last() else { break };
            at = last.seq;
            for event in events.into_iter().filter(|event| event.seq <= from) {
                let Some(envelope) = parse(&event) else {
                    continue;
                };
                if let Some(cell) = story.needs(&envelope.event) {
                    story.introduce(cell, self.accepted(cell).await?);
                }
                story.tell(envelope);
            }
            // Nobody is told what was before.
            story.take();
        }
        // A cell that began longer ago than that, or was the last to end.
        if let Some(running) = view.running.filter(|running| running.begun <= from)
            && !story.knows_running()
        {
            story.introduce(running.cell, self.accepted(running.cell).await?);
            story.runs(running.cell);
        }
        if !story.knows_last()
            && let Some(cell) = self.ended_last(from).await?
        {
            story.introduce(cell, self.accepted(cell).await?);
            story.ended_last(cell);
        }
        self.story = story;
        if let Some(header) = self.story.busy_with() {
            let content = serde_json::json!({"execution_state": "busy"});
            let frame = answer(&self.session, Channel::Iopub, "status", &header, content);
            self.ready.push(self.framing.encode(&frame));
        }
        self.begun = true;
        Ok(())
    }

    /// The cell that was the last to end, having run, up to a place; none if there are many newer ones.
    async fn ended_last(&self, from: Seq) -> Result<Option<CellId>, ApiError> {
        for row in self.sessions.last_cells(&self.session, SOME_CELLS).await? {
            let Some(finished) = row.finished.filter(|finished| *finished <= from) else {
                continue;
            };
            let finished = self.event(finished).await?.map(|envelope| envelope.event);
            if let Some(Event::CellFinished { status, .. }) = finished
                && status != CellStatus::Aborted
            {
                return Ok(Some(row.cell));
            }
        }
        Ok(None)
    }

    /// The event that accepted a cell; none if it was trimmed.
    async fn accepted(&self, cell: CellId) -> Result<Option<Envelope>, ApiError> {
        match self.sessions.cell(&self.session, cell).await {
            Ok(row) => self.event(row.queued).await,
            Err(SessionError::Denied(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn event(&self, seq: Seq) -> Result<Option<Envelope>, ApiError> {
        match self.log.read(seq - 1, 1, usize::MAX).await {
            Ok(page) => Ok(page.events.first().and_then(parse)),
            Err(ReadError::Trimmed { .. } | ReadError::Ahead { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes what was told ready to be sent, as far as this client is meant.
    fn send(&mut self) {
        for (audience, frame) in self.story.take() {
            let is_meant = match audience {
                Audience::All => true,
                Audience::Sender(sender) => sender == self.connection.name,
            };
            if is_meant {
                self.ready.push(self.framing.encode(&frame));
            }
        }
    }

    /// Reads on; from what is there, where what comes next was trimmed.
    async fn pull(&mut self) -> Result<bool, ApiError> {
        match self.subscription.next().await {
            Ok(Some(events)) => {
                self.read.extend(events);
                Ok(true)
            }
            Ok(None) => Ok(false),
            Err(ReadError::Trimmed { first_available }) => {
                self.subscription = self.log.subscribe(first_available - 1);
                Ok(true)
            }
            Err(ReadError::Ahead { head }) => {
                self.subscription = self.log.subscribe(head);
                Ok(true)
            }
            Err(error @ ReadError::Store(_)) => Err(error.into()),
        }
    }
}

impl Events for Feed {
    /// At any point where this waits all that was read is kept, so that it may be dropped there.
    async fn next(&mut self) -> Result<Option<Vec<Message>>, ApiError> {
        if !self.begun {
            self.begin().await?;
        }
        while self.ready.is_empty() {
            while let Some(event) = self.read.front() {
                let (seq, envelope) = (event.seq, parse(event));
                if let Some(envelope) = envelope {
                    if let Some(cell) = self.story.needs(&envelope.event) {
                        let accepted = self.accepted(cell).await?;
                        self.story.introduce(cell, accepted);
                    }
                    self.story.tell(envelope);
                }
                self.read.pop_front();
                self.told = Some(seq);
                self.send();
            }
            self.busy.set(self.story.busy_with());
            if self.ready.is_empty() && !self.pull().await? {
                return Ok(None);
            }
        }
        if let Some(seq) = self.told.take() {
            // Answered by whoever has read so far.
            let position = Bytes::copy_from_slice(&seq.to_be_bytes());
            self.ready.push(Message::Ping(position));
        }
        Ok(Some(std::mem::take(&mut self.ready)))
    }

    fn bad_news(&self, _: &ApiError) -> Option<Message> {
        // Jupyter has no message for it; the code that the connection is closed with says it.
        None
    }
}
