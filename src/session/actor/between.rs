//! What runs while no cell does: what a client's comm message sets off, and what cells have left running.
//!
//! A comm message has the time of a cell, and is stopped as one. What is left running has no time: it is only ended, with its kernel, when it puts out
//! more than a cell may.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::Actor;
use super::acts::Act;
use super::commands::check_client;
use super::running::Stopping;
use crate::model::event::{CommAction, CommMessage, CommSide, Event, InterruptReason, Rung, Seq};
use crate::model::output::Metadata;
use crate::protocol::kernel::Request;
use crate::session::command::{Denied, SessionError};
use crate::session::memory::Memory;

/// How many comm messages of clients the kernel may have before it.
const MAX_COMMS: usize = 256;

/// What is known of it.
#[derive(Debug, Default)]
pub(in crate::session) struct Between {
    /// The request of the comm message that the kernel is at, and since when.
    comm: Option<(u64, Instant)>,
    stopping: Option<Stopping>,
}

impl Between {
    /// What another server has to know of it.
    pub(super) fn memory(&self) -> Option<(InterruptReason, Rung)> {
        self.stopping
            .map(|stopping| (stopping.reason, stopping.rung))
    }

    /// As another server has left it: clocks begin anew.
    pub(super) fn restored(
        stopping: Option<(InterruptReason, Rung)>,
        comms: &BTreeMap<u64, Seq>,
    ) -> Self {
        let first = comms.keys().next();
        Self {
            comm: first.map(|first| (*first, Instant::now())),
            stopping: stopping.map(|(reason, rung)| Stopping::at(reason, rung)),
        }
    }
}

impl Actor {
    /// Takes a client's comm message, and sends it to the kernel once it is in the log.
    pub(super) async fn comm(
        &mut self,
        message: CommMessage,
        client: Option<Metadata>,
    ) -> Result<(), SessionError> {
        check_client(client.as_ref())?;
        let Some(number) = self
            .kernel
            .connected()
            .filter(|_| self.kernel.is_ready())
            .map(|kernel| kernel.number())
        else {
            return Err(Denied::NoKernel("it is being started".to_owned()).into());
        };
        if self.comms.len() >= MAX_COMMS {
            return Err(Denied::Busy.into());
        }
        let event = Event::Comm {
            cell: self.running.as_ref().map(|running| running.cell),
            from: CommSide::Client,
            message: message.clone(),
            client: client.clone(),
        };
        // Nobody else writes to the log, and `record` refuses while something is pending.
        let at_seq = self.log.head() + 1;
        let waits = |now: &mut Memory| {
            now.comms.insert(number, at_seq);
        };
        self.record(vec![event], None, waits).await?;
        self.comms.insert(number, at_seq);
        let CommMessage {
            comm,
            comm_id,
            target_name,
            data,
            metadata,
            buffers,
        } = message;
        let request = match comm {
            CommAction::Open => {
                let target_name = target_name.unwrap_or_default();
                Request::CommOpen {
                    comm_id,
                    target_name,
                    data,
                    metadata,
                    buffers,
                    client,
                }
            }
            CommAction::Msg => Request::CommMsg {
                comm_id,
                data,
                metadata,
                buffers,
                client,
            },
            CommAction::Close => Request::CommClose {
                comm_id,
                data,
                metadata,
                buffers,
                client,
            },
        };
        self.acts.push(Act::Tell(number, request));
        Ok(())
    }

    /// Looks what the kernel is at now.
    pub(super) fn attend(&mut self) {
        if !self.kernel.is_ready() {
            self.between = Between::default();
            return;
        }
        let first = self.comms.keys().next().copied();
        let first = first.filter(|_| self.running.is_none());
        if first == self.between.comm.map(|(request, _)| request) {
            return;
        }
        self.between.comm = first.map(|request| (request, Instant::now()));
        // What was to be stopped has come to its end, unless the kernel is to come to its own.
        self.between
            .stopping
            .take_if(|stopping| stopping.rung != Rung::Kill);
    }

    /// Whether a cell would begin at once if it was sent: its time is not to pass with what is before it.
    pub(super) fn is_free(&self) -> bool {
        self.comms.is_empty() && self.between.stopping.is_none()
    }

    /// Whether the kernel is at a comm message.
    pub(super) fn is_handling(&self) -> bool {
        self.running.is_none() && !self.comms.is_empty()
    }

    /// The attempt that is being made to stop something.
    pub(super) fn stopping(&self) -> Option<Stopping> {
        match &self.running {
            Some(running) => running.stopping,
            None => self.between.stopping,
        }
    }

    /// Begins to stop what runs while no cell does. Does nothing if that has begun.
    pub(super) fn stop_between(&mut self, reason: InterruptReason) {
        if self.between.stopping.is_some() || !self.kernel.is_ready() {
            return;
        }
        // No signal reaches what is left of a cell, such as its threads.
        let rung = if self.is_handling() {
            Rung::Sigint
        } else {
            Rung::Kill
        };
        self.between.stopping = Some(Stopping::at(reason, rung));
        self.signal(None, reason, rung);
    }

    /// Tries once more what another server had tried: it may not have got there, and twice does no harm.
    pub(super) fn stop_between_again(&mut self) {
        if let Some(stopping) = self.between.stopping {
            self.acts.push(Act::Signal(stopping.rung));
        }
    }

    /// When time will have something to say about it.
    pub(super) fn between_next(&self) -> Option<Instant> {
        let limit = Duration::from_millis(self.settings.timeouts.cell_ms);
        match (self.between.stopping, self.between.comm) {
            (Some(stopping), _) => Some(stopping.next),
            (None, Some((_, since))) => Some(since + limit),
            (None, None) => None,
        }
    }

    /// Does what time asks for: the deadline of a comm message, the next rung.
    pub(super) fn between_due(&mut self, now: Instant) {
        if self.between_next().is_none_or(|next| next > now) {
            return;
        }
        match self.between.stopping.as_mut() {
            Some(stopping) => {
                let (rung, reason) = (stopping.climb(), stopping.reason);
                self.climbed(None, reason, rung);
            }
            None => self.stop_between(InterruptReason::Deadline),
        }
    }
}
