//! What is done once what has happened is in the log: signals and requests for the kernel, answers for askers.
//!
//! In this order, and not before: what the log says was done is done, by this server or by the one that takes the session up after it; and what an
//! asker was told is in the log.

use super::Actor;
use crate::model::event::Rung;
use crate::model::id::CheckpointName;
use crate::protocol::checkpoints::{HeldOnes, Target};
use crate::protocol::kernel::Request;
use crate::session::SessionError;
use crate::session::command::Reply;

/// One thing to do.
pub(in crate::session) enum Act {
    /// Tries to stop the running cell by this means.
    Signal(Rung),
    /// Sends a request under the number that it was given.
    Tell(u64, Request),
    /// Has a kernel started under that number; checkpoints with names end or stay.
    Start(u64, HeldOnes),
    /// Has a checkpoint woken under that number.
    Restore(u64, Target),
    /// Has the variables held under that name.
    Hold(u64, CheckpointName),
    /// Has a checkpoint dropped.
    Release(u64, CheckpointName),
    /// Answers an asker.
    Answer(Box<dyn FnOnce() + Send>),
}

impl Actor {
    /// Does what is to be done.
    pub(super) fn act(&mut self) {
        for act in std::mem::take(&mut self.acts) {
            let kernel = self.kernel.connected();
            let done = match (act, kernel) {
                (Act::Answer(answer), _) => {
                    answer();
                    Ok(())
                }
                // Nobody to do it: the kernel that was meant is gone.
                (_, None) => Ok(()),
                (Act::Signal(Rung::Sigint | Rung::SecondSigint), Some(kernel)) => {
                    kernel.interrupt()
                }
                (Act::Signal(Rung::Cancel), Some(kernel)) => kernel.cancel(),
                (Act::Signal(Rung::Kill), Some(kernel)) => kernel.kill(),
                (Act::Tell(number, request), Some(kernel)) => kernel.request_as(number, request),
                (Act::Start(number, held), Some(kernel)) => kernel.start_as(number, held),
                (Act::Restore(number, target), Some(kernel)) => kernel.restore_as(number, &target),
                (Act::Hold(number, name), Some(kernel)) => kernel.hold_as(number, name),
                (Act::Release(number, name), Some(kernel)) => kernel.release_as(number, name),
            };
            if let Err(error) = done {
                // The connection's end comes as an event of its own.
                tracing::debug!(error = %error, "the kernel could not be told");
            }
        }
    }

    /// Gives an answer when what it tells is in the log.
    pub(super) fn answer_later<T: Send + 'static>(
        &mut self,
        reply: Reply<T>,
        answer: Result<T, SessionError>,
    ) {
        let give = move || drop(reply.send(answer));
        self.acts.push(Act::Answer(Box::new(give)));
    }

    /// Tells the kernel something; returns the number of the request, 0 if there is nobody to tell.
    pub(super) fn tell_kernel(&mut self, request: Request) -> u64 {
        let Some(number) = self.kernel.connected().map(|kernel| kernel.number()) else {
            return 0;
        };
        self.acts.push(Act::Tell(number, request));
        number
    }
}
