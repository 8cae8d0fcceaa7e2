//! What is kept until the server has stored it: frames in the form they have on the wire, numbered from 1.
//!
//! Frames lie one after the other in segments, are written there in place (read straight from a pipe or out of the ring), and are sent
//! from there. Segments are used again, the last one first: a page that was never touched costs more than copying it.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io::IoSlice;

use crate::protocol::agent::Kind;
use crate::protocol::codec::{self, FLAG_MORE, FRAME_HEAD};

/// How large a segment is, unless one frame needs more.
const SEGMENT: usize = 128 * 1024;

/// The most text in one frame.
const TEXT: usize = 64 * 1024;

/// A frame or segment with less room than this is closed: reading a pipe in slivers costs more than a new frame.
const SLIVER: usize = 4096;

/// Frames that are kept.
#[derive(Debug)]
pub(crate) struct Outbox {
    segments: VecDeque<Segment>,
    free: Vec<Segment>,
    /// The number of the newest frame.
    last: u64,
    /// How far the first segment is acknowledged, in bytes.
    acked: usize,
    /// What all frames that are not acknowledged take.
    bytes: usize,
    limit: usize,
    /// Whether the newest frame is a part of a message with more to come.
    begun: bool,
    /// The kind of the newest frame, if it is text of which nothing was sent: more of the same may join it.
    open: Option<Kind>,
    /// Whether the newest frame stays here for now, as long as it is open.
    held: bool,
    /// What was handed out by [`Outbox::text_room`].
    room: Option<Room>,
}

#[derive(Debug)]
struct Segment {
    data: Box<[u8]>,
    used: usize,
    /// The number of its first frame.
    first: u64,
    /// Where each frame ends.
    ends: Vec<u32>,
}

#[derive(Clone, Copy, Debug)]
struct Room {
    kind: Kind,
    joins: bool,
}

/// How far a connection has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cursor {
    /// The frame it is at.
    pub(crate) number: u64,
    /// How much of it is sent.
    pub(crate) offset: usize,
}

impl Segment {
    fn new(size: usize) -> Self {
        Self {
            // Zeroed memory of this size is mapped, not written: pages come into being when they are used.
            data: vec![0; size].into(),
            used: 0,
            first: 0,
            ends: Vec::new(),
        }
    }

    /// Where the frame of that index begins.
    fn start(&self, index: usize) -> usize {
        match index {
            0 => 0,
            _ => self.ends[index - 1] as usize,
        }
    }

    fn next_number(&self) -> u64 {
        self.first + self.ends.len() as u64
    }
}

impl Outbox {
    /// An empty outbox that is full once it holds `limit` bytes.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            segments: VecDeque::new(),
            free: Vec::new(),
            last: 0,
            acked: 0,
            bytes: 0,
            limit,
            begun: false,
            open: None,
            held: false,
            room: None,
        }
    }

    /// The number of the newest frame; 0 for none.
    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    /// The number of the oldest frame that is still kept; the next one's when none is.
    pub(crate) fn first_kept(&self) -> u64 {
        match self.segments.front() {
            Some(segment) => {
                let acked = segment
                    .ends
                    .partition_point(|end| *end as usize <= self.acked);
                segment.first + acked as u64
            }
            None => self.last + 1,
        }
    }

    /// Whether nothing more is to be read for now. Not within a message that comes in parts: the server stores it as one, so nothing would ever make
    /// room. How long it may be is bounded by who takes it in.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes >= self.limit && !self.begun
    }

    /// What all frames take that are kept.
    #[cfg(test)]
    pub(crate) fn bytes_held(&self) -> usize {
        self.bytes
    }

    /// Makes the newest frame final: its number has become known, or part of it was sent.
    pub(crate) fn close_text(&mut self) {
        self.open = None;
    }

    /// The number of the newest frame, if it is text of which nothing was sent and that ends within a line.
    pub(crate) fn unfinished_line(&self) -> Option<u64> {
        self.open?;
        let segment = self.segments.back()?;
        (segment.data[..segment.used].last() != Some(&b'\n')).then_some(self.last)
    }

    /// Keeps the newest frame from being sent, as long as it is open; or lets it go.
    pub(crate) fn hold(&mut self, held: bool) {
        self.held = held;
    }

    /// The number of the newest frame that may be sent.
    fn newest(&self) -> u64 {
        let waits = self.held && self.open.is_some();
        self.last - u64::from(waits)
    }

    /// Room for text, at least one byte. What is written there counts once [`Outbox::commit_text`] says how much it was.
    pub(crate) fn text_room(&mut self, kind: Kind) -> &mut [u8] {
        let joins = self.open == Some(kind)
            && self.segments.back().is_some_and(|segment| {
                let payload = segment.used - segment.start(segment.ends.len() - 1) - FRAME_HEAD;
                TEXT - payload >= SLIVER && segment.data.len() - segment.used >= SLIVER
            });
        self.room = Some(Room { kind, joins });
        let segment = if joins {
            self.segments
                .back_mut()
                .expect("an open frame lies in a segment")
        } else {
            self.open = None;
            self.segment_with(FRAME_HEAD + SLIVER)
        };
        let (from, most) = if joins {
            let payload = segment.used - segment.start(segment.ends.len() - 1) - FRAME_HEAD;
            (segment.used, TEXT - payload)
        } else {
            (segment.used + FRAME_HEAD, TEXT)
        };
        let to = segment.data.len().min(from + most);
        &mut segment.data[from..to]
    }

    /// Keeps the first `length` bytes of what [`Outbox::text_room`] gave.
    pub(crate) fn commit_text(&mut self, length: usize) {
        let room = self.room.take().expect("text was written to a room");
        if length == 0 {
            return;
        }
        let segment = self
            .segments
            .back_mut()
            .expect("a room lies in the newest segment");
        if room.joins {
            segment.used += length;
            self.bytes += length;
            *segment.ends.last_mut().expect("an open frame has an end") = segment.used as u32;
            let start = segment.start(segment.ends.len() - 1);
            let payload = segment.used - start - FRAME_HEAD;
            segment.data[start..start + FRAME_HEAD].copy_from_slice(&codec::head(
                room.kind as u8,
                0,
                self.last,
                payload,
            ));
        } else {
            self.last += 1;
            self.begun = false;
            let start = segment.used;
            segment.data[start..start + FRAME_HEAD].copy_from_slice(&codec::head(
                room.kind as u8,
                0,
                self.last,
                length,
            ));
            segment.used += FRAME_HEAD + length;
            segment.ends.push(segment.used as u32);
            self.bytes += FRAME_HEAD + length;
            self.open = Some(room.kind);
        }
    }

    /// Keeps a frame of `length` bytes that `fill` writes.
    pub(crate) fn push_with(
        &mut self,
        kind: Kind,
        flags: u8,
        length: usize,
        fill: impl FnOnce(&mut [u8]),
    ) {
        self.open = None;
        self.begun = flags & FLAG_MORE != 0;
        let number = self.last + 1;
        let segment = self.segment_with(FRAME_HEAD + length);
        let start = segment.used;
        segment.used += FRAME_HEAD + length;
        segment.ends.push(segment.used as u32);
        let (head, payload) = segment.data[start..segment.used].split_at_mut(FRAME_HEAD);
        head.copy_from_slice(&codec::head(kind as u8, flags, number, length));
        fill(payload);
        self.last = number;
        self.bytes += FRAME_HEAD + length;
    }

    /// Keeps a frame.
    pub(crate) fn push(&mut self, kind: Kind, payload: &[u8]) {
        self.push_with(kind, 0, payload.len(), |room| room.copy_from_slice(payload));
    }

    /// Forgets all frames up to that number.
    pub(crate) fn ack(&mut self, number: u64) {
        let number = number.min(self.last);
        while let Some(segment) = self.segments.front()
            && segment.next_number() <= number + 1
        {
            // The newest frame may be open no longer: it is stored as it is.
            if self.segments.len() == 1 {
                self.open = None;
            }
            self.bytes -= segment.used - self.acked;
            self.acked = 0;
            let segment = self.segments.pop_front().expect("it was looked at");
            self.recycle(segment);
        }
        if let Some(segment) = self.segments.front()
            && number >= segment.first
        {
            let end = segment.ends[(number - segment.first) as usize] as usize;
            if end > self.acked {
                self.bytes -= end - self.acked;
                self.acked = end;
            }
            if number == self.last {
                self.open = None;
            }
        }
    }

    /// A cursor before the frame after `number`, or before the oldest that is kept.
    pub(crate) fn cursor_after(&self, number: u64) -> Cursor {
        Cursor {
            number: (number.min(self.last) + 1).max(self.first_kept()),
            offset: 0,
        }
    }

    /// Whether there is something behind a cursor.
    pub(crate) fn has_after(&self, cursor: Cursor) -> bool {
        cursor.number <= self.newest()
    }

    /// What is to be sent next, at most to the end of the frame `until`. Returns how many slices were filled.
    pub(crate) fn slices<'a>(
        &'a self,
        cursor: Cursor,
        until: Option<u64>,
        slices: &mut [IoSlice<'a>],
    ) -> usize {
        let Some(at) = self.find(cursor.number) else {
            return 0;
        };
        let segment = &self.segments[at];
        let index = (cursor.number - segment.first) as usize;
        let from = segment.start(index) + cursor.offset;
        let newest = self.newest();
        let until = until.or((newest < self.last).then_some(newest));
        if let Some(until) = until {
            let until = until.min(newest);
            let index = (until.max(cursor.number) - segment.first) as usize;
            let end = segment.ends.get(index).or(segment.ends.last());
            let end = *end.expect("a segment with a frame has an end") as usize;
            slices[0] = IoSlice::new(&segment.data[from..end]);
            return 1;
        }
        slices[0] = IoSlice::new(&segment.data[from..segment.used]);
        let mut filled = 1;
        for (slice, segment) in slices[1..].iter_mut().zip(self.segments.range(at + 1..)) {
            *slice = IoSlice::new(&segment.data[..segment.used]);
            filled += 1;
        }
        filled
    }

    /// Moves a cursor by that many sent bytes.
    pub(crate) fn advance(&mut self, cursor: &mut Cursor, mut sent: usize) {
        while sent > 0 {
            let at = self
                .find(cursor.number)
                .expect("only what lies behind the cursor was sent");
            let segment = &self.segments[at];
            let mut index = (cursor.number - segment.first) as usize;
            while sent > 0 && index < segment.ends.len() {
                let rest = segment.ends[index] as usize - segment.start(index) - cursor.offset;
                if sent < rest {
                    cursor.offset += sent;
                    sent = 0;
                } else {
                    sent -= rest;
                    cursor.number += 1;
                    cursor.offset = 0;
                    index += 1;
                }
            }
        }
        if cursor.number > self.last || (cursor.number == self.last && cursor.offset > 0) {
            self.open = None;
        }
    }

    /// Gives back memory that is not in use.
    pub(crate) fn trim(&mut self) {
        self.free.truncate(1);
        self.free.shrink_to_fit();
        for segment in &mut self.free {
            segment.ends.shrink_to(64);
        }
    }

    /// Whether [`Outbox::trim`] has something to do.
    pub(crate) fn is_fat(&self) -> bool {
        self.free.len() > 1
    }

    fn find(&self, number: u64) -> Option<usize> {
        if number > self.last {
            return None;
        }
        let after = self
            .segments
            .partition_point(|segment| segment.first <= number);
        after.checked_sub(1)
    }

    /// The newest segment, after there is room for `size` bytes in it.
    fn segment_with(&mut self, size: usize) -> &mut Segment {
        let fits = self
            .segments
            .back()
            .is_some_and(|segment| segment.data.len() - segment.used >= size);
        if !fits {
            // A segment with nothing in it would break the order of numbers.
            if self
                .segments
                .back()
                .is_some_and(|segment| segment.ends.is_empty())
            {
                let empty = self.segments.pop_back().expect("it was looked at");
                self.recycle(empty);
            }
            let mut segment = if size <= SEGMENT {
                self.free.pop().unwrap_or_else(|| Segment::new(SEGMENT))
            } else {
                Segment::new(size)
            };
            segment.first = self.last + 1;
            self.segments.push_back(segment);
        }
        self.segments
            .back_mut()
            .expect("one was pushed if there was none")
    }

    fn recycle(&mut self, mut segment: Segment) {
        if segment.data.len() != SEGMENT || self.free.len() * SEGMENT >= self.limit {
            return;
        }
        segment.used = 0;
        segment.ends.clear();
        self.free.push(segment);
    }
}
