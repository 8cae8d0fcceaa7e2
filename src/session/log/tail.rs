//! The last events of a log, in memory, for those who follow it closely.

use std::collections::VecDeque;
use std::sync::Arc;

use super::memory::LogMemory;
use crate::model::event::Seq;
use crate::store::StoredEvent;

/// The last events of a log, without gaps up to the last one.
pub(super) struct Tail {
    memory: Arc<LogMemory>,
    events: VecDeque<StoredEvent>,
    bytes: usize,
    /// The last event; it may be in the store only.
    last: Seq,
}

impl Tail {
    pub(super) fn new(memory: Arc<LogMemory>, last: Seq) -> Self {
        Self {
            memory,
            events: VecDeque::new(),
            bytes: 0,
            last,
        }
    }

    /// Adds what follows, and lets go of what is too much.
    pub(super) fn push(&mut self, events: Vec<StoredEvent>, watched: bool) {
        for event in events {
            self.last = event.seq;
            self.bytes += event.json.len();
            self.memory.take(event.json.len());
            self.events.push_back(event);
        }
        let config = self.memory.config();
        let (most_bytes, most_events) = (config.log_bytes, config.log_events);
        let least = config.least_bytes;
        // Without followers nobody reads it but who comes back after a moment. Each log has its least in any case, so that
        // idle ones, which hold what they once had, do not take everything from those that run.
        while self.events.len() > most_events
            || self.bytes > most_bytes
            || self.bytes > least && (!watched || self.memory.is_scarce())
        {
            let Some(event) = self.events.pop_front() else {
                break;
            };
            self.bytes -= event.json.len();
            self.memory.give_back(event.json.len());
        }
    }

    /// Events between `after` and `head`, if the first of them is here.
    pub(super) fn after(
        &self,
        after: Seq,
        head: Seq,
        max_events: usize,
        max_bytes: usize,
    ) -> Option<Vec<StoredEvent>> {
        let first = self.last + 1 - self.events.len() as u64;
        let skip = usize::try_from((after + 1).checked_sub(first)?).ok()?;
        let mut bytes = 0;
        let events: Vec<_> = self
            .events
            .range(skip.min(self.events.len())..)
            .take(max_events.max(1))
            .take_while(|event| event.seq <= head)
            .enumerate()
            .take_while(|(index, event)| {
                bytes += event.json.len();
                *index == 0 || bytes <= max_bytes
            })
            .map(|(_, event)| event.clone())
            .collect();
        (!events.is_empty()).then_some(events)
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.memory.give_back(self.bytes);
    }
}
