//! The cell queue of a session: pure, without a clock, a lock or an await.

use std::collections::VecDeque;
use std::time::Duration;

use super::command::CellRequest;
use crate::model::event::Seq;
use crate::model::id::CellId;

/// A cell that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Waiting {
    pub(super) cell: CellId,
    pub(super) request: CellRequest,
    /// The event by which it was accepted: its place in the order of all cells.
    pub(super) queued: Seq,
    /// How long it may run.
    pub(super) limit: Duration,
}

/// Cells that wait, in order of arrival, at most `bound`.
#[derive(Debug)]
pub(super) struct CellQueue {
    waiting: VecDeque<Waiting>,
    bound: usize,
}

impl CellQueue {
    pub(super) fn new(bound: usize) -> Self {
        Self {
            waiting: VecDeque::new(),
            bound,
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() >= self.bound
    }

    pub(super) fn bound(&self) -> usize {
        self.bound
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// # Panics
    /// If the queue is full: whoever calls has asked before.
    pub(super) fn push(&mut self, waiting: Waiting) {
        assert!(
            !self.is_full(),
            "a cell was accepted by a full queue of {}",
            self.bound
        );
        self.waiting.push_back(waiting);
    }

    pub(super) fn pop(&mut self) -> Option<Waiting> {
        self.waiting.pop_front()
    }

    pub(super) fn find(&mut self, cell: CellId) -> Option<&mut Waiting> {
        self.waiting.iter_mut().find(|waiting| waiting.cell == cell)
    }

    /// Takes a cell out, wherever it stands.
    pub(super) fn remove(&mut self, cell: CellId) -> Option<Waiting> {
        let at = self
            .waiting
            .iter()
            .position(|waiting| waiting.cell == cell)?;
        self.waiting.remove(at)
    }

    pub(super) fn cells(&self) -> impl Iterator<Item = CellId> {
        self.waiting.iter().map(|waiting| waiting.cell)
    }

    /// The cells that wait, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Waiting> {
        self.waiting.iter()
    }

    /// Takes all cells out.
    pub(super) fn clear(&mut self) -> Vec<Waiting> {
        self.waiting.drain(..).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn waiting() -> Waiting {
        Waiting {
            cell: CellId::new(),
            request: CellRequest::new("1"),
            queued: 1,
            limit: Duration::from_secs(1),
        }
    }

    proptest! {
        #[test]
        fn cells_leave_in_the_order_in_which_they_came_but_for_those_taken_out(take_out in proptest::collection::vec(any::<bool>(), 1..20)) {
            let mut queue = CellQueue::new(take_out.len());
            let cells: Vec<Waiting> = take_out.iter().map(|_| waiting()).collect();
            for cell in &cells {
                prop_assert!(!queue.is_full());
                queue.push(cell.clone());
            }
            prop_assert!(queue.is_full());
            for (cell, _) in cells.iter().zip(&take_out).filter(|(_, out)| **out) {
                prop_assert_eq!(queue.remove(cell.cell).map(|gone| gone.cell), Some(cell.cell));
                prop_assert_eq!(queue.remove(cell.cell), None);
            }
            let left: Vec<CellId> = std::iter::from_fn(|| queue.pop()).map(|cell| cell.cell).collect();
            let expected: Vec<CellId> = cells.iter().zip(&take_out).filter(|(_, out)| !**out).map(|(cell, _)| cell.cell).collect();
            prop_assert_eq!(left, expected);
        }
    }
}
