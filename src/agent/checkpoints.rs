//! Twins of the kernel: asleep, known by what Linux says of them, woken when the kernel is lost or somebody wants to go back.
//!
//! A twin announces itself over a socket that the kernel inherited: one packet, with one descriptor by which it is woken. Whoever has that socket
//! can send anything, as often as it likes: so nothing that is said is believed but two numbers. The one is that of an execution, if there was one; the
//! other that of a request for a twin with a name, if there is one.
//!
//! Those that come by themselves are at most two: the newest, and, until the next cell begins, the one from before the last cell. So beside a cell that
//! runs there is one of them, as what it holds can be told exactly. Those with names stay until they are dropped, and are woken as copies.

mod nursery;
#[cfg(test)]
mod tests;
mod twin;

use std::collections::VecDeque;
use std::io;

use rustix::process::Pid;
use serde::Deserialize;

use self::nursery::{Newborn, Received};
use self::twin::Place;
use super::init;
use crate::model::checkpoint::{DropReason, MOST_HELD};
use crate::model::id::CheckpointName;
use crate::protocol::checkpoints::{CheckpointReport, Fate, HeldOnes, Refusal, Target};

pub(crate) use self::nursery::Nursery;
pub(crate) use self::twin::{Copy, Twin};

/// How many announcements are looked at before anything else has its turn.
const AT_ONCE: usize = 8;

/// How many executions are remembered: between a twin's fork and its announcement there are hardly two.
const RECENT: usize = 64;

/// The longest name of a cell that is remembered.
const CELL: usize = 64;

/// The twins of one sandbox.
#[derive(Debug, Default)]
pub(crate) struct Checkpoints {
    /// Those that came by themselves, the oldest first.
    twins: Vec<Twin>,
    /// Those with names, the oldest first.
    held: Vec<(CheckpointName, Twin)>,
    /// The one that is to be the next kernel, while the one before ends.
    chosen: Option<Twin>,
    /// Names for twins that are to come, by the requests for them.
    wanted: Vec<(u64, CheckpointName)>,
    /// The last executions.
    recent: VecDeque<Execution>,
    /// What was executed before these.
    forgotten: Past,
    /// The last cell whose twin had to go because of memory.
    crowded_out: Option<String>,
    /// Killed to make room, and not gone yet.
    leaving: Vec<Pid>,
    /// What the server has to be told.
    reports: Vec<CheckpointReport>,
}

#[derive(Debug)]
struct Execution {
    id: u64,
    cell: String,
    is_silent: bool,
}

/// The end of what was executed once.
#[derive(Debug, Default)]
struct Past {
    /// The last execution.
    id: u64,
    /// The last cell that was not silent.
    last: Option<String>,
}

impl Checkpoints {
    /// Takes in twins that have announced themselves.
    pub(crate) fn take_in(&mut self, nursery: &mut Nursery, kernel: Option<Pid>) {
        for _ in 0..AT_ONCE {
            match nursery.next() {
                Received::Nothing => return,
                Received::Nonsense => {}
                Received::Twin(newborn) => self.consider(newborn, kernel),
            }
        }
    }

    /// Takes in a twin, if it can be one. What is not taken in is killed with the kernel.
    fn consider(&mut self, newborn: Newborn, kernel: Option<Pid>) {
        let Newborn {
            pid,
            door,
            after,
            hold,
        } = newborn;
        let last = self.recent.back().map_or(self.forgotten.id, |last| last.id);
        let is_known = (self.forgotten.id..=last).contains(&after);
        if !is_known || !self.can_be(pid, kernel) {
            return;
        }
        let mut later = self.recent.iter().filter(|later| later.id > after);
        let before = later.next().map(|next| next.cell.clone());
        let last = self.last_cell(after).map(str::to_owned);
        let place = Place {
            after,
            last,
            before,
        };
        let twin = Twin { pid, door, place };
        match hold {
            None => self.add(twin),
            Some(request) => self.hold(request, twin),
        }
    }

    /// Whether that process can be a twin that is new.
    pub(crate) fn can_be(&self, pid: Pid, kernel: Option<Pid>) -> bool {
        !pid.is_init() && Some(pid) != kernel && !self.pids().contains(&pid) && init::exists(pid)
    }

    fn add(&mut self, twin: Twin) {
        let before = twin.place.before.as_deref();
        self.keep(|twins, last| {
            let undoes = |before: Option<&str>| last.is_some() && before == last;
            // One that comes when the cell after it has begun undoes that itself.
            if undoes(before) {
                return None;
            }
            twins
                .iter()
                .rposition(|twin| undoes(twin.place.before.as_deref()))
        });
        self.twins.push(twin);
    }

    /// Ends all twins that came by themselves but one.
    fn keep(&mut self, which: impl FnOnce(&[Twin], Option<&str>) -> Option<usize>) {
        let kept = which(&self.twins, self.last_cell(u64::MAX));
        let kept = kept.map(|kept| self.twins.remove(kept));
        for twin in std::mem::replace(&mut self.twins, kept.into_iter().collect()) {
            twin.end();
        }
    }

    /// Takes note of an execution that begins.
    pub(crate) fn execution_began(&mut self, id: u64, request: &[u8]) {
        #[derive(Default, Deserialize)]
        struct Execute {
            #[serde(default)]
            cell: String,
            #[serde(default)]
            silent: bool,
        }
        let Execute { mut cell, silent } = serde_json::from_slice(request).unwrap_or_default();
        if cell.len() > CELL {
            cell.clear();
        }
        let held = self.held.iter_mut().map(|(_, twin)| twin);
        for twin in self.twins.iter_mut().chain(held) {
            if twin.place.before.is_none() && twin.place.after < id {
                twin.place.before = Some(cell.clone());
            }
        }
        if self.recent.len() >= RECENT
            && let Some(Execution {
                id,
                cell,
                is_silent,
            }) = self.recent.pop_front()
        {
            self.forgotten.id = id;
            if !is_silent {
                self.forgotten.last = Some(cell);
            }
        }
        self.recent.push_back(Execution {
            id,
            cell,
            is_silent: silent,
        });
        if !silent {
            self.crowded_out = None;
            // Only this one can be undone now.
            self.keep(|twins, _| twins.len().checked_sub(1));
        }
    }

    /// The last cell that was not silent, up to that execution.
    fn last_cell(&self, until: u64) -> Option<&str> {
        let mut told = self.recent.iter().rev();
        told.find(|execution| execution.id <= until && !execution.is_silent)
            .map(|execution| execution.cell.as_str())
            .or(self.forgotten.last.as_deref())
    }

    /// The cell before which the newest twin was made that was there before this execution began.
    pub(crate) fn behind(&self, execution: u64) -> Option<String> {
        let mut older = self
            .twins
            .iter()
            .rev()
            .filter(|twin| twin.place.after < execution);
        older.next()?.place.before.clone()
    }

    /// The newest twin: `Some(None)` if no cell has begun since.
    pub(crate) fn newest(&self) -> Option<Option<&str>> {
        Some(self.twins.last()?.place.before.as_deref())
    }

    /// Takes the newest twin out, to be woken.
    pub(crate) fn take_newest(&mut self) -> Option<Twin> {
        let twin = self.twins.pop()?;
        self.go_on_from(&twin.place);
        Some(twin)
    }

    /// What is executed from now on comes after that.
    fn go_on_from(&mut self, place: &Place) {
        self.recent.clear();
        self.forgotten = Past {
            id: place.after,
            last: place.last.clone(),
        };
        self.crowded_out = None;
    }

    // --- going back -------------------------------------------------------------------------------------------------------------

    /// Has a copy made of what is wanted.
    pub(crate) fn copy(&self, target: &Target) -> Result<Copy, Refusal> {
        let twin = match target {
            Target::Newest => self.twins.last().ok_or(Refusal::NotMade),
            Target::Undo => self.undoing(),
            Target::Held(name) => {
                let mut held = self.held.iter();
                held.find(|(held, _)| held == name)
                    .map(|(_, twin)| twin)
                    .ok_or_else(|| Refusal::Failed("there is none of this name".to_owned()))
            }
        }?;
        twin.copy().map_err(|error| failed(&error))
    }

    /// The twin from right before the last cell.
    fn undoing(&self) -> Result<&Twin, Refusal> {
        let last = self.last_cell(u64::MAX).ok_or(Refusal::NothingRan)?;
        let mut twins = self.twins.iter().rev();
        twins
            .find(|twin| twin.place.before.as_deref() == Some(last))
            .ok_or(if self.crowded_out.as_deref() == Some(last) {
                Refusal::Memory
            } else {
                Refusal::NotMade
            })
    }

    /// Keeps a copy that is there, to be the next kernel. Returns the cell that came after it.
    pub(crate) fn choose(&mut self, twin: Twin) -> Option<String> {
        let before = twin.place.before.clone();
        self.chosen = Some(twin);
        before
    }

    /// Takes out the one that was chosen. What came by itself since it was made is not of its past.
    pub(crate) fn take_chosen(&mut self) -> Option<Twin> {
        let twin = self.chosen.take()?;
        self.keep(|_, _| None);
        self.go_on_from(&twin.place);
        Some(twin)
    }

    // --- names ------------------------------------------------------------------------------------------------------------------

    /// Gives the twin a name that comes because of that request.
    pub(crate) fn want(&mut self, request: u64, name: CheckpointName) {
        self.wanted.push((request, name));
    }

    /// Gives a twin the name that was asked for. One that nobody has asked for ends.
    fn hold(&mut self, request: u64, twin: Twin) {
        let wanted = self.wanted.iter().position(|(id, _)| *id == request);
        let Some((_, name)) = wanted.map(|at| self.wanted.remove(at)) else {
            return twin.end();
        };
        if let Some(old) = self.take(&name) {
            old.end();
        }
        if self.held.len() >= MOST_HELD {
            let why = format!("{MOST_HELD} are held already");
            self.report(Some(request), Fate::Refused(Refusal::Failed(why)));
            return twin.end();
        }
        self.held.push((name.clone(), twin));
        self.report(Some(request), Fate::Held(name));
    }

    /// Takes note that these requests for twins, and no others, are still to be answered.
    pub(crate) fn await_only(&mut self, is_awaited: impl Fn(u64) -> bool, why: &str) {
        let answered = self.wanted.extract_if(.., |(id, _)| !is_awaited(*id));
        for (request, _) in answered.collect::<Vec<_>>() {
            let refusal = Refusal::Failed(why.to_owned());
            self.report(Some(request), Fate::Refused(refusal));
        }
    }

    /// Ends the twin of that name.
    pub(crate) fn release(&mut self, request: u64, name: CheckpointName) {
        let fate = match self.take(&name) {
            Some(twin) => {
                twin.end();
                let reason = DropReason::Asked;
                Fate::Dropped { name, reason }
            }
            None => Fate::Refused(Refusal::Failed("there is none of this name".to_owned())),
        };
        self.report(Some(request), fate);
    }

    fn take(&mut self, name: &CheckpointName) -> Option<Twin> {
        let at = self.held.iter().position(|(held, _)| held == name)?;
        Some(self.held.remove(at).1)
    }

    /// Tells the server something, with the next frames.
    pub(crate) fn report(&mut self, request: Option<u64>, fate: Fate) {
        self.reports.push(CheckpointReport { request, fate });
    }

    /// What the server has to be told.
    pub(crate) fn take_reports(&mut self) -> Vec<CheckpointReport> {
        std::mem::take(&mut self.reports)
    }

    // --- the end ----------------------------------------------------------------------------------------------------------------

    /// Whether there is one that can go to make room: all can but the newest.
    pub(crate) fn can_make_room(&self) -> bool {
        self.twins.len() > 1 || !self.held.is_empty()
    }

    /// Whether one that had to go is not gone yet.
    pub(crate) fn is_making_room(&self) -> bool {
        !self.leaving.is_empty()
    }

    /// Ends the one that is missed least: the one from before the last cell, then those with names, the oldest first.
    pub(crate) fn make_room(&mut self) {
        let twin = if self.twins.len() > 1 {
            let twin = self.twins.remove(0);
            self.crowded_out.clone_from(&twin.place.before);
            twin
        } else if self.held.is_empty() {
            return;
        } else {
            let (name, twin) = self.held.remove(0);
            let reason = DropReason::Memory;
            self.report(None, Fate::Dropped { name, reason });
            twin
        };
        if init::is_pid_one() {
            self.leaving.push(twin.pid);
        }
        twin.end();
    }

    /// Forgets a twin that has ended. Returns whether room was waited for.
    pub(crate) fn ended(&mut self, pid: Pid) -> bool {
        self.twins.retain(|twin| twin.pid != pid);
        self.chosen.take_if(|twin| twin.pid == pid);
        let gone = self.held.extract_if(.., |(_, twin)| twin.pid == pid);
        for (name, _) in gone.collect::<Vec<_>>() {
            let reason = DropReason::ProcessEnded;
            self.report(None, Fate::Dropped { name, reason });
        }
        let before = self.leaving.len();
        self.leaving.retain(|leaving| *leaving != pid);
        self.leaving.len() < before
    }

    /// Ends twins, and forgets what was executed: the next kernel begins with nothing.
    pub(crate) fn clear(&mut self, held: HeldOnes) {
        self.keep(|_, _| None);
        if let Some(chosen) = self.chosen.take() {
            chosen.end();
        }
        if held == HeldOnes::End {
            for (name, twin) in std::mem::take(&mut self.held) {
                twin.end();
                let reason = DropReason::Restarted;
                self.report(None, Fate::Dropped { name, reason });
            }
        }
        self.go_on_from(&Place::default());
    }

    /// Their processes.
    pub(crate) fn pids(&self) -> Vec<Pid> {
        let held = self.held.iter().map(|(_, twin)| twin);
        let twins = held.chain(&self.twins).chain(&self.chosen);
        twins.map(|twin| twin.pid).collect()
    }
}

/// Why no copy was made.
pub(crate) fn failed(error: &io::Error) -> Refusal {
    Refusal::Failed(error.to_string())
}
