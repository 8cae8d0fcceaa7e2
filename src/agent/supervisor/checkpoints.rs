//! Checkpoints that somebody asks for: one that is to be held, one to go back to, one that is to go; and the room that all of them take.

use std::io;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::task::JoinHandle;

use super::{Asker, Origin, Supervisor};
use crate::agent::checkpoints::{Twin, failed};
use crate::model::checkpoint;
use crate::protocol::agent::Kind;
use crate::protocol::checkpoints::{Fate, Named, Refusal, Target};

/// A checkpoint that is being copied, to be the next kernel.
#[derive(Debug)]
pub(super) struct Copying {
    asker: Asker,
    pub(super) task: JoinHandle<io::Result<Twin>>,
}

impl Supervisor {
    /// Has the kernel make a checkpoint between two cells.
    pub(super) fn hold(&mut self, asker: Asker, payload: &[u8]) {
        let id = asker.number;
        self.last_request = id;
        let Some(Named { name }) = self.parse(asker, payload) else {
            return;
        };
        let Some(kernel) = self.kernel.as_mut().filter(|kernel| kernel.is_alive()) else {
            return self.refuse(asker, Refusal::Failed("there is no kernel".to_owned()));
        };
        let request = Bytes::from(json!({ "id": id, "op": "checkpoint" }).to_string());
        let (pid, meter) = (kernel.pid, &mut self.meter);
        match kernel.requests.send(id, request, false, pid, meter) {
            Ok(()) => self.checkpoints.want(id, name),
            Err(error) => self.refuse(asker, Refusal::Failed(error.to_string())),
        }
    }

    /// Ends one that was held.
    pub(super) fn release(&mut self, asker: Asker, payload: &[u8]) {
        self.last_request = asker.number;
        if let Some(Named { name }) = self.parse(asker, payload) {
            self.checkpoints.release(asker.number, name);
            self.tell();
        }
    }

    /// Goes back, if what is wanted is there. The kernel lives until that is known.
    pub(super) fn restore(&mut self, asker: Asker, payload: &[u8]) {
        let Some(target) = self.parse::<Option<Target>>(asker, payload) else {
            return;
        };
        let target = target.unwrap_or_default();
        if target == Target::Newest || self.ending.is_some() {
            return self.replace(asker, Origin::Newest);
        }
        self.last_request = asker.number;
        if self.starting.is_some() || self.wanted.is_some() || self.copying.is_some() {
            let why = "another kernel is being started".to_owned();
            return self.refuse(asker, Refusal::Failed(why));
        }
        match self.checkpoints.copy(&target) {
            Ok(copy) => {
                let task = tokio::spawn(copy.born());
                self.copying = Some(Copying { asker, task });
            }
            Err(refusal) => self.refuse(asker, refusal),
        }
    }

    /// The copy is there, or will never be.
    pub(super) fn copied(&mut self, result: io::Result<Twin>) {
        let Some(Copying { asker, .. }) = self.copying.take() else {
            return;
        };
        let kernel = self.kernel.as_ref().and_then(|kernel| kernel.pid);
        match result {
            Ok(twin) if self.checkpoints.can_be(twin.pid(), kernel) => {
                let before = self.checkpoints.choose(twin);
                let fate = Fate::Chosen(before);
                self.checkpoints.report(Some(asker.number), fate);
                self.tell();
                self.start_kernel(asker, Origin::Chosen);
            }
            Ok(_) => self.refuse(asker, Refusal::Failed("it is none".to_owned())),
            Err(error) => self.refuse(asker, failed(&error)),
        }
    }

    /// Gives up a copy that is being made: it ends by itself when nobody waits for it.
    pub(super) fn stop_copying(&mut self, why: &str) {
        if let Some(Copying { asker, task }) = self.copying.take() {
            task.abort();
            self.refuse(asker, Refusal::Failed(why.to_owned()));
        }
    }

    fn refuse(&mut self, asker: Asker, refusal: Refusal) {
        self.checkpoints
            .report(Some(asker.number), Fate::Refused(refusal));
        self.tell();
    }

    /// Tells the server what became of checkpoints.
    pub(super) fn tell(&mut self) {
        for report in self.checkpoints.take_reports() {
            self.report(Kind::Checkpoint, &report);
        }
    }

    /// Takes in new twins. After what the kernel has said: a twin knows of a cell only once its end is known here.
    pub(super) fn take_in_twins(&mut self) {
        let Some(kernel) = &mut self.kernel else {
            return;
        };
        let could = self.checkpoints.can_make_room();
        self.checkpoints.take_in(&mut kernel.nursery, kernel.pid);
        let requests = &kernel.requests;
        let why = "no memory or process was left for it";
        self.checkpoints
            .await_only(|request| requests.awaits(request), why);
        let can = self.checkpoints.can_make_room();
        self.tell();
        if can && !could {
            self.make_room();
        }
    }

    /// Ends a checkpoint, where the kernel and all of them hold more together than leaves room for whatever the next cell does. Goes on when that one is gone.
    pub(super) fn make_room(&mut self) {
        let is_needed = self.checkpoints.can_make_room() && !self.checkpoints.is_making_room();
        if !is_needed || self.executing().is_some() {
            return;
        }
        let room = checkpoint::room(self.config.memory_bytes);
        let kernel = self.kernel.as_ref().and_then(|kernel| kernel.pid);
        if self.meter.held(kernel, room) > room {
            self.checkpoints.make_room();
            self.tell();
        }
    }

    /// What a request says; nothing is what goes without saying.
    pub(super) fn parse<T: DeserializeOwned>(&mut self, asker: Asker, payload: &[u8]) -> Option<T> {
        let payload = if payload.is_empty() { b"null" } else { payload };
        match serde_json::from_slice(payload) {
            Ok(said) => Some(said),
            Err(error) => {
                self.answer_error(asker, &format!("the request cannot be read: {error}"));
                None
            }
        }
    }
}
