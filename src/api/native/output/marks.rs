//! Where in the log which byte of a cell's output stands, as far as somebody has read it: so that going on does not begin at the beginning.
//!
//! The log only grows, and the same event always has the same number: what was noted once stays true. Whatever is forgotten is read again.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::scan::Place;
use crate::model::event::Seq;
use crate::model::id::CellId;
use crate::model::output::StreamName;

/// Of how many cells marks are kept.
const CELLS: usize = 64;

/// How many marks of a cell are kept. When there are more, every other one goes.
const MARKS: usize = 256;

/// How much output lies between two marks at first, in bytes.
const APART: u64 = 1024 * 1024;

/// Where both streams of a cell are after an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// The event.
    pub(super) seq: Seq,
    /// Whether the cell is over with it.
    pub(super) is_over: bool,
    stdout: Place,
    stderr: Place,
}

impl Mark {
    /// After an event before the cell has written anything.
    pub(super) fn at(seq: Seq) -> Self {
        Self {
            seq,
            is_over: false,
            stdout: Place::default(),
            stderr: Place::default(),
        }
    }

    /// Where a stream is.
    pub(super) fn place(&self, name: StreamName) -> Place {
        match name {
            StreamName::Stdout => self.stdout,
            StreamName::Stderr => self.stderr,
        }
    }

    /// Where a stream is, to be moved.
    pub(super) fn place_mut(&mut self, name: StreamName) -> &mut Place {
        match name {
            StreamName::Stdout => &mut self.stdout,
            StreamName::Stderr => &mut self.stderr,
        }
    }

    fn bytes(&self) -> u64 {
        self.stdout.bytes + self.stderr.bytes
    }
}

/// The marks of the cells whose output was read last.
#[derive(Debug, Default)]
pub(crate) struct Marks(Mutex<VecDeque<CellMarks>>);

#[derive(Debug)]
struct CellMarks {
    cell: CellId,
    marks: Vec<Mark>,
    /// How much lies between them.
    apart: u64,
    /// The furthest.
    last: Mark,
}

impl Marks {
    /// The last mark at or before a byte of a stream.
    pub(super) fn before(&self, cell: CellId, name: StreamName, byte: u64) -> Option<Mark> {
        let mut cells = self.lock();
        let place = cells.iter().position(|marks| marks.cell == cell)?;
        // The one that is used goes last.
        let marks = cells.remove(place)?;
        let is_before = |mark: &Mark| mark.place(name).bytes <= byte;
        let before = marks.marks.partition_point(is_before);
        let found = if is_before(&marks.last) {
            Some(marks.last)
        } else {
            before.checked_sub(1).map(|place| marks.marks[place])
        };
        cells.push_back(marks);
        found
    }

    /// The furthest mark.
    pub(super) fn last(&self, cell: CellId) -> Option<Mark> {
        let cells = self.lock();
        let marks = cells.iter().find(|marks| marks.cell == cell)?;
        Some(marks.last)
    }

    /// Keeps a mark, if it is further than those before.
    pub(super) fn note(&self, cell: CellId, mark: Mark) {
        let mut cells = self.lock();
        let Some(marks) = cells.iter_mut().find(|marks| marks.cell == cell) else {
            if cells.len() == CELLS {
                cells.pop_front();
            }
            cells.push_back(CellMarks {
                cell,
                marks: vec![mark],
                apart: APART,
                last: mark,
            });
            return;
        };
        if mark.seq <= marks.last.seq {
            return;
        }
        marks.last = mark;
        let distance = mark.bytes() - marks.marks.last().map_or(0, Mark::bytes);
        if distance >= marks.apart {
            marks.marks.push(mark);
        }
        if marks.marks.len() > MARKS {
            let mut number = 0;
            marks.marks.retain(|_| {
                number += 1;
                number % 2 == 0
            });
            marks.apart *= 2;
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<CellMarks>> {
        // Every change is whole, whatever panics elsewhere.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(seq: Seq, bytes: u64) -> Mark {
        let mut mark = Mark::at(seq);
        mark.place_mut(StreamName::Stdout).bytes = bytes;
        mark
    }

    #[test]
    fn a_reader_goes_on_from_the_last_mark_before_its_place() {
        let (marks, cell) = (Marks::default(), CellId::new());
        let before = |byte| {
            let mark = marks.before(cell, StreamName::Stdout, byte);
            mark.map(|mark| mark.seq)
        };
        assert_eq!(before(0), None);
        for seq in 1..=10 {
            marks.note(cell, mark(seq, seq * APART));
        }
        marks.note(cell, mark(11, 10 * APART + 1));
        assert_eq!(before(APART - 1), None);
        assert_eq!(before(APART), Some(1));
        assert_eq!(before(5 * APART + 7), Some(5));
        assert_eq!(before(u64::MAX), Some(11));
        // Where the other stream is does not matter to this one.
        let stderr = marks.before(cell, StreamName::Stderr, 0);
        assert_eq!(stderr.map(|mark| mark.seq), Some(11));
    }

    #[test]
    fn marks_are_bounded_however_long_and_many_the_outputs_are() {
        let (marks, cell) = (Marks::default(), CellId::new());
        for seq in 1..=100_000 {
            marks.note(cell, mark(seq, seq * APART));
        }
        assert!(marks.lock()[0].marks.len() <= MARKS);
        let near = marks.before(cell, StreamName::Stdout, 50_000 * APART);
        assert!((49_000..=50_000).contains(&near.unwrap().seq));
        for _ in 0..2 * CELLS {
            marks.note(CellId::new(), mark(1, 1));
        }
        assert_eq!(marks.lock().len(), CELLS);
        assert_eq!(marks.last(cell), None);
    }
}
