//! What must be true of a session, by its log alone.

use std::collections::{BTreeMap, HashMap, HashSet};

use evercell::model::event::{CellStatus, Envelope, Event, Protection, StartReason, Verdict};
use evercell::model::id::{CellId, CheckpointName};

/// The variables of a kernel, as far as they are ours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Variables {
    /// Numbers, by name.
    pub values: BTreeMap<String, i64>,
    /// The cells that have run, in order.
    pub ran: Vec<String>,
}

/// What a cell does, if it runs at all.
#[derive(Clone, Debug)]
pub struct Effect {
    /// The variables that it sets before anything can go wrong.
    pub sets: Vec<(String, i64)>,
    /// Its own name.
    pub token: String,
    /// What it prints if it ends well.
    pub prints: Option<String>,
}

/// Follows a log.
#[derive(Debug, Default)]
pub struct Model {
    /// The variables now.
    pub variables: Variables,
    /// Every event so far.
    pub events: Vec<Envelope>,
    /// How often the variables were lost.
    pub losses: usize,
    /// How often they were lost with a cell of which the log says that nothing protected it.
    pub unprotected_losses: usize,
    /// The checkpoints that are held, and the variables in them.
    pub held: BTreeMap<CheckpointName, Variables>,
    effects: HashMap<CellId, Effect>,
    before: HashMap<CellId, Variables>,
    printed: HashMap<CellId, String>,
    finished: HashSet<CellId>,
}

impl Model {
    /// The last event that was followed.
    pub fn position(&self) -> u64 {
        self.events.last().map_or(0, |envelope| envelope.seq)
    }

    /// A cell was accepted.
    pub fn submitted(&mut self, cell: CellId, effect: Effect) {
        self.effects.insert(cell, effect);
    }

    /// Whether a cell is over.
    pub fn has_finished(&self, cell: CellId) -> bool {
        self.finished.contains(&cell)
    }

    /// Whether a cell has printed something.
    pub fn has_printed(&self, cell: CellId) -> bool {
        self.printed.contains_key(&cell)
    }

    /// Goes one event further.
    pub fn follow(&mut self, envelope: Envelope) {
        assert_eq!(envelope.seq, self.position() + 1, "the log has no gaps");
        match &envelope.event {
            Event::CellStarted { cell, .. } => {
                let earlier = self.before.insert(*cell, self.variables.clone());
                assert!(earlier.is_none(), "{cell} was started twice");
            }
            Event::Stream {
                cell: Some(cell),
                text,
                ..
            } => self.printed.entry(*cell).or_default().push_str(text),
            Event::CellFinished {
                cell,
                status,
                state,
                checkpoint,
                ..
            } => {
                assert!(self.finished.insert(*cell), "{cell} ended twice");
                let before = self.losses;
                self.ended(*cell, *status, state);
                if let Some(Protection::Unprotected(why)) = checkpoint {
                    self.unprotected_losses += self.losses - before;
                    if self.losses > before {
                        println!("chaos: {cell} had no checkpoint behind it: {why:?}");
                    }
                }
            }
            Event::KernelLost { state, .. } => self.conclude(state),
            Event::CheckpointHeld { name, .. } => {
                self.held.insert(name.clone(), self.variables.clone());
            }
            Event::CheckpointDropped { name, .. } => {
                let was_held = self.held.remove(name).is_some();
                assert!(was_held, "{name} was dropped and never held");
            }
            Event::KernelStarted { reason, .. } => self.started(*reason),
            _ => {}
        }
        self.events.push(envelope);
    }

    fn ended(&mut self, cell: CellId, status: CellStatus, state: &Verdict) {
        let Some(effect) = self.effects.get(&cell).cloned() else {
            // One that only looks.
            return;
        };
        if status == CellStatus::Aborted {
            assert!(
                !self.before.contains_key(&cell),
                "what has begun is not aborted"
            );
            return;
        }
        if *state == Verdict::Kept {
            self.variables.values.extend(effect.sets);
            self.variables.ran.push(effect.token);
        }
        if status == CellStatus::Ok
            && let Some(expected) = effect.prints
        {
            let printed = self.printed.remove(&cell).unwrap_or_default();
            assert!(
                printed == expected,
                "{cell} printed something else: {} bytes for {}",
                printed.len(),
                expected.len()
            );
        }
        self.conclude(state);
    }

    /// Takes a verdict at its word.
    fn conclude(&mut self, state: &Verdict) {
        match state {
            Verdict::Kept => {}
            Verdict::RolledBack { before } => {
                self.variables = self.before[before].clone();
            }
            Verdict::Restored { checkpoint } => {
                self.variables = self.held[checkpoint].clone();
            }
            Verdict::Lost { why } => {
                println!("chaos: lost: {why}");
                if self.variables != Variables::default() {
                    self.losses += 1;
                }
                self.variables = Variables::default();
            }
        }
    }

    fn started(&self, reason: StartReason) {
        if matches!(
            reason,
            StartReason::Opened | StartReason::Restarted | StartReason::Recovered
        ) {
            assert_eq!(
                self.variables,
                Variables::default(),
                "a new kernel is empty, and the log has said so"
            );
        }
    }
}
