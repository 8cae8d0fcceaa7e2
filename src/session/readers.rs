//! How far readers with a name have come in a session's log, so that one that comes back goes on where it was, also after the server's restart.
//!
//! It is written down with what else the session's task has to remember, whenever that is written; so after the death of a server a reader can be
//! a little further than is known, and is told again what it was told last.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::model::event::Seq;

/// How many readers are remembered: those that were heard of last.
const REMEMBERED: usize = 64;

/// The readers of a session. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Readers(Arc<Mutex<VecDeque<(String, Seq)>>>);

impl Readers {
    /// How far a reader has come; none if it is not known.
    pub(super) fn position(&self, name: &str) -> Option<Seq> {
        let readers = self.lock();
        let found = readers.iter().find(|(known, _)| known == name);
        found.map(|(_, seq)| *seq)
    }

    /// A reader has come so far, or farther.
    pub(super) fn saw(&self, name: &str, seq: Seq) {
        let mut readers = self.lock();
        let known = readers.iter().position(|(known, _)| known == name);
        let (name, before) = known
            .and_then(|at| readers.remove(at))
            .unwrap_or_else(|| (name.to_owned(), 0));
        readers.push_back((name, seq.max(before)));
        if readers.len() > REMEMBERED {
            readers.pop_front();
        }
    }

    /// All of them, those last that were heard of last.
    pub(super) fn all(&self) -> Vec<(String, Seq)> {
        self.lock().iter().cloned().collect()
    }

    /// Puts back what was remembered of them.
    pub(super) fn restore(&self, all: Vec<(String, Seq)>) {
        *self.lock() = all.into();
    }

    /// What a panic elsewhere leaves behind the lock is whole: every change is one step.
    fn lock(&self) -> MutexGuard<'_, VecDeque<(String, Seq)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_never_goes_back_and_those_heard_of_last_are_kept() {
        let readers = Readers::default();
        readers.saw("a", 7);
        readers.saw("a", 5);
        assert_eq!(readers.position("a"), Some(7));
        for n in 0..REMEMBERED {
            readers.saw("stays", 1);
            readers.saw(&n.to_string(), 1);
        }
        assert_eq!(readers.position("a"), None);
        assert_eq!(readers.position("stays"), Some(1));
        let again = Readers::default();
        again.restore(readers.all());
        assert_eq!(again.all(), readers.all());
    }
}
