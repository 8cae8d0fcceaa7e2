//! Checkpoints that somebody holds, and going back: to one of them, or to before the last cell.
//!
//! The agent holds them, since it outlives the server, and reports what becomes of each; what is reported goes into the log and into the list. A kernel
//! is given up only once the agent has the checkpoint that is to take its place: what is refused has changed nothing.

use std::collections::HashMap;

use super::Actor;
use super::acts::Act;
use super::kernel::KernelState;
use crate::model::checkpoint::{DropReason, HeldCheckpoint, MOST_HELD};
use crate::model::event::{Cause, Event, Seq, StartReason, Unprotected, Verdict};
use crate::model::id::CheckpointName;
use crate::protocol::checkpoints::{CheckpointReport, Fate, Refusal, Target};
use crate::session::clock::unix_ms;
use crate::session::command::{Denied, Held, Reply, SessionError, WentBack};
use crate::session::memory::{Asked, GoingBack};
use crate::session::view::Status;
use tokio::time::Instant;

/// How many wishes may be open at once.
const MAX_WISHES: usize = 32;

/// What is done as soon as the kernel that is on its way is there.
pub(in crate::session) enum Later {
    Hold(CheckpointName, Reply<Held>),
    GoBack(Target, Reply<WentBack>),
}

/// Who waits for what the agent will report under a number.
pub(in crate::session) enum Wish {
    Hold(Reply<Held>),
    Release(Reply<()>),
    GoBack(Reply<WentBack>),
}

impl Wish {
    fn deny(self, denied: &Denied) {
        let error = SessionError::from(denied.clone());
        match self {
            Self::Hold(reply) => drop(reply.send(Err(error))),
            Self::Release(reply) => drop(reply.send(Err(error))),
            Self::GoBack(reply) => drop(reply.send(Err(error))),
        }
    }
}

impl Actor {
    /// Has the variables held as they are now, under a name.
    pub(super) fn hold(&mut self, name: CheckpointName, reply: Reply<Held>) {
        if self.may_wait() {
            return self.later.push_back(Later::Hold(name, reply));
        }
        match self.may_hold(&name) {
            Ok(()) => self.wish(Wish::Hold(reply), |number| Act::Hold(number, name)),
            Err(denied) => drop(reply.send(Err(denied.into()))),
        }
    }

    fn may_hold(&self, name: &CheckpointName) -> Result<(), Denied> {
        self.may_change()?;
        let open = self.wishes.values();
        let open = open.filter(|wish| matches!(wish, Wish::Hold(_))).count();
        if !self.is_held(name) && self.checkpoints.len() + open >= MOST_HELD {
            return Err(Denied::TooManyCheckpoints {
                bound: MOST_HELD,
                names: self.names(),
            });
        }
        Ok(())
    }

    /// Drops a checkpoint that is held.
    pub(super) fn release(&mut self, name: CheckpointName, reply: Reply<()>) {
        if self.is_held(&name) {
            self.wish(Wish::Release(reply), |number| Act::Release(number, name));
        } else {
            let _ = reply.send(Err(self.unknown(name).into()));
        }
    }

    /// Lets a checkpoint take the kernel's place, as soon as the agent has it.
    pub(super) fn go_back(&mut self, target: Target, reply: Reply<WentBack>) {
        if self.may_wait() {
            return self.later.push_back(Later::GoBack(target, reply));
        }
        let (reason, cause) = match &target {
            Target::Held(name) if !self.is_held(name) => {
                let unknown = self.unknown(name.clone());
                return drop(reply.send(Err(unknown.into())));
            }
            Target::Held(name) => {
                let to = name.clone();
                (StartReason::RolledBack, Cause::RolledBack { to })
            }
            Target::Undo | Target::Newest => (StartReason::Undone, Cause::Undone),
        };
        if let Err(denied) = self.may_change() {
            return drop(reply.send(Err(denied.into())));
        }
        let why = "it goes back to a checkpoint".to_owned();
        self.deny_waiting(&Denied::NoKernel(why));
        let asked = Some(Box::new(Asked {
            target,
            state: None,
            ended: None,
        }));
        self.replace_kernel(reason, Some(GoingBack { cause, asked }));
        if let KernelState::Restarting { request, .. } = &self.kernel {
            self.wishes.insert(*request, Wish::GoBack(reply));
        }
    }

    /// Whether the kernel is there and runs no cell, and what becomes of it can be written down first.
    fn may_change(&self) -> Result<(), Denied> {
        self.at_rest()?;
        match self.retry_at {
            Some(_) => Err(Denied::StoreFull),
            None => Ok(()),
        }
    }

    /// Whether a wish can wait for the kernel that is on its way, before any cell that comes after it.
    fn may_wait(&self) -> bool {
        let is_on_its_way = matches!(self.kernel.status(), Status::Starting | Status::Restarting);
        is_on_its_way && self.queue.is_empty() && self.later.len() < MAX_WISHES
    }

    /// Does what has waited for a kernel.
    pub(super) fn do_later(&mut self) {
        while self.can_begin()
            && let Some(later) = self.later.pop_front()
        {
            match later {
                Later::Hold(name, reply) => self.hold(name, reply),
                Later::GoBack(target, reply) => self.go_back(target, reply),
            }
        }
    }

    fn wish(&mut self, wish: Wish, act: impl FnOnce(u64) -> Act) {
        if self.wishes.len() >= MAX_WISHES {
            return wish.deny(&Denied::Busy);
        }
        match self.kernel.connected().map(crate::kernel::Kernel::number) {
            Some(number) => {
                self.acts.push(act(number));
                self.wishes.insert(number, wish);
            }
            None => wish.deny(&Denied::NoKernel("it is being started".to_owned())),
        }
    }

    /// The agent says what became of a checkpoint, or of a wish.
    pub(super) fn checkpoint_report(&mut self, report: CheckpointReport) {
        let request = report.request.unwrap_or_default();
        match report.fate {
            Fate::Held(name) => self.held(request, name),
            Fate::Dropped { name, reason } => {
                self.dropped(name, reason);
                if let Some(Wish::Release(reply)) = self.wishes.remove(&request) {
                    self.answer_later(reply, Ok(()));
                }
            }
            Fate::Chosen(before) => self.chosen(request, before.as_deref()),
            Fate::Refused(refusal) => self.refused(request, refusal),
        }
    }

    fn held(&mut self, request: u64, name: CheckpointName) {
        let replaced = self.is_held(&name);
        if !replaced && self.checkpoints.len() >= MOST_HELD {
            // An agent that is one does not say so.
            return;
        }
        self.checkpoints.retain(|held| held.name != name);
        let checkpoint = HeldCheckpoint {
            name: name.clone(),
            seq: self.next_seq(),
            held_at_ms: unix_ms(),
            execution_count: self.execution_count,
        };
        self.checkpoints.push(checkpoint.clone());
        self.pending.push(Event::CheckpointHeld {
            name,
            execution_count: self.execution_count,
        });
        if let Some(Wish::Hold(reply)) = self.wishes.remove(&request) {
            let held = Held {
                checkpoint,
                replaced,
            };
            self.answer_later(reply, Ok(held));
        }
    }

    fn dropped(&mut self, name: CheckpointName, reason: DropReason) {
        if self.is_held(&name) {
            self.checkpoints.retain(|held| held.name != name);
            self.pending.push(Event::CheckpointDropped { name, reason });
        }
    }

    /// The checkpoint to go back to is there, and the kernel ends.
    fn chosen(&mut self, number: u64, before: Option<&str>) {
        let KernelState::Restarting {
            request,
            since,
            rolls_back:
                Some(GoingBack {
                    cause,
                    asked: Some(asked),
                }),
            ..
        } = &mut self.kernel
        else {
            return;
        };
        if *request != number || asked.state.is_some() {
            return;
        }
        let state = match &asked.target {
            Target::Held(name) => Verdict::Restored {
                checkpoint: name.clone(),
            },
            Target::Undo | Target::Newest => match before.and_then(|before| before.parse().ok()) {
                Some(before) => Verdict::RolledBack { before },
                None => Verdict::Kept,
            },
        };
        *since = Instant::now();
        asked.state = Some(state.clone());
        let cause = cause.clone();
        // Whoever asked need not be told again, nor of what was lost before.
        self.note = None;
        self.pending.push(Event::KernelLost { cause, state });
    }

    /// What was asked for is not to be had.
    pub(super) fn refused(&mut self, number: u64, refusal: Refusal) {
        let denied = self.denied(refusal);
        if let Some(wish) = self.wishes.remove(&number) {
            wish.deny(&denied);
        }
        let goes_back = matches!(
            &self.kernel,
            KernelState::Restarting { request, rolls_back: Some(GoingBack { asked: Some(_), .. }), .. } if *request == number
        );
        if !goes_back {
            return;
        }
        let state = std::mem::replace(&mut self.kernel, super::unborn());
        if let KernelState::Restarting {
            kernel,
            events,
            rolls_back: Some(GoingBack { asked, .. }),
            ..
        } = state
        {
            self.kernel = KernelState::Ready {
                kernel,
                events,
                since: Instant::now(),
                used: true,
            };
            // It had ended by itself meanwhile.
            if let Some(exit) = asked.and_then(|asked| asked.ended) {
                self.kernel_exited(&exit);
            }
        }
    }

    /// The checkpoint that was asked for is the kernel: says so to whoever asked. To be called with `kernel_started` pending.
    pub(super) fn went_back(&mut self, number: u64, asked: Asked) {
        let Some(Wish::GoBack(reply)) = self.wishes.remove(&number) else {
            return;
        };
        let went = WentBack {
            state: asked.state.unwrap_or(Verdict::Kept),
            seq: self.next_seq() - 1,
        };
        self.answer_later(reply, Ok(went));
    }

    /// Nobody who waits for a kernel gets what he asked for; what is to be dropped is dropped without it.
    pub(super) fn deny_wishes(&mut self, denied: &Denied) {
        for later in self.later.drain(..) {
            match later {
                Later::Hold(_, reply) => drop(reply.send(Err(denied.clone().into()))),
                Later::GoBack(_, reply) => drop(reply.send(Err(denied.clone().into()))),
            }
        }
        let wishes = std::mem::take(&mut self.wishes);
        let (kept, denies): (HashMap<_, _>, HashMap<_, _>) = wishes
            .into_iter()
            .partition(|(_, wish)| matches!(wish, Wish::Release(_)));
        self.wishes = kept;
        for (_, wish) in denies {
            wish.deny(denied);
        }
    }

    /// The sandbox is gone, with all that was held in it.
    pub(super) fn forget_checkpoints(&mut self) {
        for held in std::mem::take(&mut self.checkpoints) {
            self.pending.push(Event::CheckpointDropped {
                name: held.name,
                reason: DropReason::SandboxLost,
            });
        }
        for (_, wish) in std::mem::take(&mut self.wishes) {
            wish.deny(&Denied::NoKernel("the sandbox went away".to_owned()));
        }
    }

    /// Where the next event that happens will stand. Nobody else writes to the log, and nothing pending is taken back.
    pub(super) fn next_seq(&self) -> Seq {
        self.log.head() + self.pending.len() as Seq + 1
    }

    fn is_held(&self, name: &CheckpointName) -> bool {
        self.checkpoints.iter().any(|held| held.name == *name)
    }

    fn names(&self) -> Vec<CheckpointName> {
        self.checkpoints
            .iter()
            .map(|held| held.name.clone())
            .collect()
    }

    fn unknown(&self, name: CheckpointName) -> Denied {
        let names = self.names();
        Denied::UnknownCheckpoint { name, names }
    }

    fn denied(&self, refusal: Refusal) -> Denied {
        let why = match refusal {
            Refusal::Failed(why) => return Denied::CheckpointFailed(why),
            Refusal::NothingRan => "no cell has run since the kernel began or went back",
            Refusal::Memory => {
                "the checkpoint from before it had to go, since it and the kernel together held more memory than they may"
            }
            Refusal::NotMade => match self.unprotected {
                Some(Unprotected::Burst) => {
                    "no checkpoint was made right before it, since cells followed each other without a pause"
                }
                Some(Unprotected::Costly) => {
                    "no checkpoint was made right before it, since copying what cells rewrite would have taken a felt part of their time"
                }
                Some(Unprotected::Failed) => {
                    "no checkpoint was made right before it, since no memory or process was left"
                }
                Some(Unprotected::Off) => {
                    "no checkpoint was made right before it, since the session has EVERCELL_CHECKPOINTS=off"
                }
                Some(Unprotected::Unknown) | None => "no checkpoint from right before it is left",
            },
        };
        Denied::NothingToUndo(why)
    }
}
