//! The last events of a log, in memory, for those who follow it closely.

use std::collections::VecDeque;
use std::sync::Arc;

use super::memory::LogMemory;
use crate::model::event::Seq;
use crate::store::StoredEvent;

/// The last events of a log, without gaps up to the last one.
///
/// They come and go by batches: the events of a batch share one buffer, which is freed with the last of them.
pub(super) struct Tail {
    memory: Arc<LogMemory>,
    batches: VecDeque<Batch>,
    bytes: usize,
    events: usize,
}

/// Events that were appended together; never empty.
struct Batch {
    events: Vec<StoredEvent>,
    bytes: usize,
}

impl Tail {
    pub(super) fn new(memory: Arc<LogMemory>) -> Self {
        Self {
            memory,
            batches: VecDeque::new(),
            bytes: 0,
            events: 0,
        }
    }

    /// Adds a batch that follows, and lets go of what is too much.
    pub(super) fn push(&mut self, events: Vec<StoredEvent>, watched: bool) {
        if events.is_empty() {
            return;
        }
        let bytes = events.iter().map(|event| event.json.len()).sum();
        self.bytes += bytes;
        self.events += events.len();
        self.memory.take(bytes);
        self.batches.push_back(Batch { events, bytes });
        while self.has_too_much(watched)
            && let Some(batch) = self.batches.pop_front()
        {
            self.bytes -= batch.bytes;
            self.events -= batch.events.len();
            self.memory.give_back(batch.bytes);
        }
    }

    fn has_too_much(&self, watched: bool) -> bool {
        let config = self.memory.config();
        // Without followers nobody reads it but who comes back after a moment. Each log has its least in any case, so that
        // idle ones, which hold what they once had, do not take everything from those that run.
        let is_least = self.bytes <= config.least_bytes;
        self.events > config.log_events
            || self.bytes > config.log_bytes
            || !is_least && (!watched || self.memory.is_scarce())
    }

    /// Events between `after` and `head`, if the first of them is here.
    pub(super) fn after(
        &self,
        after: Seq,
        head: Seq,
        max_events: usize,
        max_bytes: usize,
    ) -> Option<Vec<StoredEvent>> {
        // The batch that the next event is in.
        let next = after + 1;
        let batch = self
            .batches
            .partition_point(|batch| batch.events[0].seq <= next)
            .checked_sub(1)?;
        let mut bytes = 0;
        let events: Vec<_> = self
            .batches
            .range(batch..)
            .flat_map(|batch| &batch.events)
            .skip_while(|event| event.seq < next)
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
