//! The live view: what is sent of the log to a reader who asked for `view=live`. Pure.
//!
//! Who is up to date gets every event as it is. Who is behind gets neighbouring texts of one stream as one event, without what they overwrite
//! themselves; and of a flood its head, its tail, and between them an event that says how much was left out and where it is to be read. Whatever
//! is no text is always sent, as it is. The `seq` of what is sent is that of the last event in it, so a reader resumes after it as always.

use std::borrow::Cow;
use std::collections::VecDeque;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::fold::{ends_within, fold};
use super::glance::{Glance, What};
use crate::model::event::{Envelope, Event, Seq, UnixMillis};
use crate::model::id::CellId;
use crate::model::output::StreamName;
use crate::session::StoredEvent;

/// What texts of neighbouring events are put together up to, in bytes.
const MERGED: usize = 256 * 1024;

/// How much text is collected before it is looked at as a whole: what a tail is cut off by, in bytes.
const PIECE: usize = 4 * 1024;

/// What an event costs besides its text, so that many small ones count too, in bytes.
const OVERHEAD: usize = 128;

/// Which view of the log is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ViewKind {
    /// The live view.
    Live,
}

/// An event that stands in the live view only, not in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct LiveEnvelope {
    /// The last event of the log that it stands for.
    pub(crate) seq: Seq,
    /// When that was written to the log.
    pub(crate) at_ms: UnixMillis,
    /// What it says.
    #[serde(flatten)]
    pub(crate) event: LiveEvent,
}

/// What only the live view says, or says with more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum LiveEvent {
    /// Text is left out here, since this reader is behind and had much of this cell already. The log has it: the events from `first_seq` to `seq`.
    Elided {
        /// The cell that wrote it, if any.
        cell: Option<CellId>,
        /// The first event of the log that is left out.
        first_seq: Seq,
        /// How much of each stream.
        streams: Vec<ElidedText>,
    },
    /// Text without what it overwrote of itself.
    Stream {
        /// The cell that wrote it, if any.
        cell: Option<CellId>,
        /// Where to.
        name: StreamName,
        /// What is left of it.
        text: String,
        /// Where in the cell's output of this stream it begins, in bytes. None where the reader began within the cell.
        #[serde(skip_serializing_if = "Option::is_none")]
        from: Option<u64>,
        /// How much was written, in bytes: more than the text has.
        bytes: u64,
    },
}

/// How much of a stream is left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct ElidedText {
    /// Which stream.
    pub(crate) name: StreamName,
    /// Where in the cell's output it begins, in bytes: `…/cells/{cell}/output?stream=NAME&from=FROM`. None where the reader began within the cell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) from: Option<u64>,
    /// How much, in bytes.
    pub(crate) bytes: u64,
}

/// How much of a cell's text a reader who is behind gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Before anything is left out, in bytes.
    pub(crate) head: usize,
    /// Of what came last, in bytes.
    pub(crate) tail: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            head: 256 * 1024,
            tail: 32 * 1024,
        }
    }
}

/// What one reader is sent. Bounded, however far behind the reader is.
#[derive(Debug)]
pub(crate) struct View {
    bounds: Bounds,
    /// The cell whose text is being read.
    cell: Option<CellId>,
    /// How much of its text may still be sent before some is left out.
    room: usize,
    /// How much each stream has had before what waits here; none where the reader began within the cell.
    written: Option<[u64; 2]>,
    /// Whether what was written to each stream ends within an escape sequence.
    is_within: [bool; 2],
    /// What is left out before what waits.
    gap: Option<Gap>,
    /// Text that waits to be sent.
    pieces: VecDeque<Piece>,
    /// What the pieces cost.
    cost: usize,
    ready: Vec<StoredEvent>,
}

/// Text that is left out.
#[derive(Debug)]
struct Gap {
    first_seq: Seq,
    seq: Seq,
    at_ms: UnixMillis,
    bytes: [u64; 2],
}

/// Neighbouring events of one stream.
#[derive(Debug)]
struct Piece {
    name: StreamName,
    text: String,
    /// How much was written, before anything was folded.
    bytes: u64,
    /// How long the text was when it was last folded; none where it begins within an escape sequence, and is not folded.
    folded: Option<usize>,
    first_seq: Seq,
    seq: Seq,
    at_ms: UnixMillis,
    /// The event, as long as there is only one and it is as it was.
    whole: Option<StoredEvent>,
}

impl View {
    /// The view of a reader who has had nothing yet.
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            cell: None,
            room: bounds.head,
            written: None,
            is_within: [false; 2],
            gap: None,
            pieces: VecDeque::new(),
            cost: 0,
            ready: Vec::new(),
        }
    }

    /// The next event, for a reader who waited for it.
    pub(crate) fn push_current(&mut self, event: StoredEvent) {
        self.flush();
        if let Some(piece) = self.look(&event) {
            self.room = self.room.saturating_sub(piece.cost());
            self.count(piece.name, piece.bytes);
        }
        self.ready.push(event);
    }

    /// The next event, for a reader behind whom it was written.
    pub(crate) fn push_late(&mut self, event: StoredEvent) {
        match self.look(&event) {
            Some(piece) => self.add(piece),
            None => {
                self.flush();
                self.ready.push(event);
            }
        }
    }

    /// The reader has caught up: nothing waits any longer.
    pub(crate) fn flush(&mut self) {
        self.send(self.pieces.len());
    }

    /// Whether text waits for more to come, or for [`Self::flush`].
    pub(crate) fn is_pending(&self) -> bool {
        !self.pieces.is_empty()
    }

    /// What is to be sent now.
    pub(crate) fn take(&mut self) -> Vec<StoredEvent> {
        std::mem::take(&mut self.ready)
    }

    /// The text in an event, if it has any. Notes which cell is being read.
    fn look(&mut self, event: &StoredEvent) -> Option<Piece> {
        // What cannot be understood is sent as it is.
        let glance = Glance::at(event).ok()?;
        match glance.what {
            What::Text(name, text) => {
                if glance.cell != self.cell {
                    self.begin(glance.cell, None);
                }
                let is_within = &mut self.is_within[index(name)];
                let folded = (!*is_within).then_some(0);
                *is_within = ends_within(&text, *is_within);
                Some(Piece {
                    name,
                    bytes: text.len() as u64,
                    folded,
                    text,
                    first_seq: event.seq,
                    seq: event.seq,
                    at_ms: glance.at_ms,
                    whole: Some(event.clone()),
                })
            }
            What::Started => {
                self.begin(glance.cell, Some([0, 0]));
                None
            }
            What::Finished | What::Else => None,
        }
    }

    fn begin(&mut self, cell: Option<CellId>, written: Option<[u64; 2]>) {
        self.flush();
        (self.cell, self.room, self.written) = (cell, self.bounds.head, written);
        self.is_within = [false; 2];
    }

    fn add(&mut self, mut piece: Piece) {
        piece.fold();
        self.cost += piece.cost();
        match self.pieces.back_mut() {
            Some(last) if last.name == piece.name && last.text.len() < PIECE => {
                self.cost -= last.cost() + piece.cost();
                last.append(piece);
                self.cost += last.cost();
            }
            _ => self.pieces.push_back(piece),
        }
        if self.cost > self.room + self.bounds.tail {
            self.shorten();
        }
    }

    /// Sends as much as there is room for, and leaves out what lies between that and the tail.
    fn shorten(&mut self) {
        if self.gap.is_none() {
            let (mut room, head) = (self.room, self.bounds.head);
            let fits = |(index, piece): &(usize, &Piece)| {
                // Of every cell something is shown.
                let first = *index == 0 && room == head;
                let fits = piece.cost() <= room || first;
                room = room.saturating_sub(piece.cost());
                fits
            };
            let others = self.pieces.len() - 1;
            let pieces = self.pieces.iter().enumerate();
            let fitting = pieces.take(others).take_while(fits).count();
            self.send(fitting);
            self.room = 0;
        }
        while let Some(first) = self.pieces.front()
            && self.cost - first.cost() >= self.bounds.tail
        {
            let first = self.pieces.pop_front().expect("there is a first");
            self.cost -= first.cost();
            let gap = self.gap.get_or_insert(Gap {
                first_seq: first.first_seq,
                seq: first.seq,
                at_ms: first.at_ms,
                bytes: [0, 0],
            });
            (gap.seq, gap.at_ms) = (first.seq, first.at_ms);
            gap.bytes[index(first.name)] += first.bytes;
        }
    }

    /// Sends what is left out and the first pieces, those of one stream together.
    fn send(&mut self, count: usize) {
        if let Some(gap) = self.gap.take() {
            let elided = self.elided(&gap);
            self.ready.push(stored(gap.seq, &elided));
        }
        let mut merged: Option<Piece> = None;
        for mut piece in self.pieces.drain(..count).collect::<Vec<_>>() {
            self.cost -= piece.cost();
            self.room = self.room.saturating_sub(piece.cost());
            piece.fold();
            match &mut merged {
                // Of what was folded nobody can tell where in it something was written, so it stays short.
                Some(last)
                    if last.name == piece.name
                        && last.text.len() + piece.text.len() <= MERGED
                        && !last.is_folded()
                        && !piece.is_folded() =>
                {
                    last.join(piece);
                }
                _ => {
                    let done = merged.replace(piece);
                    self.hand_over(done);
                }
            }
        }
        self.hand_over(merged);
    }

    fn hand_over(&mut self, piece: Option<Piece>) {
        let Some(piece) = piece else { return };
        let from = self.written.map(|written| written[index(piece.name)]);
        self.count(piece.name, piece.bytes);
        self.ready.push(piece.event(self.cell, from));
    }

    fn elided(&mut self, gap: &Gap) -> LiveEnvelope {
        let mut streams = Vec::new();
        for name in [StreamName::Stdout, StreamName::Stderr] {
            let bytes = gap.bytes[index(name)];
            if bytes > 0 {
                let from = self.written.map(|written| written[index(name)]);
                streams.push(ElidedText { name, from, bytes });
                self.count(name, bytes);
            }
        }
        LiveEnvelope {
            seq: gap.seq,
            at_ms: gap.at_ms,
            event: LiveEvent::Elided {
                cell: self.cell,
                first_seq: gap.first_seq,
                streams,
            },
        }
    }

    fn count(&mut self, name: StreamName, bytes: u64) {
        if let Some(written) = &mut self.written {
            written[index(name)] += bytes;
        }
    }
}

impl Piece {
    fn cost(&self) -> usize {
        self.text.len() + OVERHEAD
    }

    /// Adds what follows. Folds it all when there is much that is new, so that a long progress bar stays short.
    fn append(&mut self, next: Self) {
        self.join(next);
        if self
            .folded
            .is_some_and(|folded| self.text.len() >= 2 * folded + PIECE / 4)
        {
            self.fold();
        }
    }

    fn join(&mut self, next: Self) {
        self.text.push_str(&next.text);
        self.bytes += next.bytes;
        (self.seq, self.at_ms, self.whole) = (next.seq, next.at_ms, None);
    }

    fn fold(&mut self) {
        let Some(length) = &mut self.folded else {
            return;
        };
        if let Cow::Owned(folded) = fold(&self.text)
            && folded.len() < self.text.len()
        {
            (self.text, self.whole) = (folded, None);
        }
        *length = self.text.len();
    }

    fn is_folded(&self) -> bool {
        self.text.len() as u64 != self.bytes
    }

    fn event(self, cell: Option<CellId>, from: Option<u64>) -> StoredEvent {
        let is_folded = self.is_folded();
        let Self {
            name,
            text,
            bytes,
            seq,
            at_ms,
            whole,
            ..
        } = self;
        if let Some(whole) = whole {
            return whole;
        }
        if is_folded {
            let event = LiveEvent::Stream {
                cell,
                name,
                text,
                from,
                bytes,
            };
            return stored(seq, &LiveEnvelope { seq, at_ms, event });
        }
        let event = Event::Stream { cell, name, text };
        stored(seq, &Envelope { seq, at_ms, event })
    }
}

fn index(name: StreamName) -> usize {
    match name {
        StreamName::Stdout => 0,
        StreamName::Stderr => 1,
    }
}

fn stored(seq: Seq, event: &impl Serialize) -> StoredEvent {
    let json = serde_json::to_vec(event).expect("our own words are JSON");
    StoredEvent {
        seq,
        json: json.into(),
    }
}

#[cfg(test)]
mod tests;
