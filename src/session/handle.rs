//! The handle of a session: all that a front end can do with it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::command::{
    CellRequest, Command, Deadlines, Denied, Held, InputAnswer, Interruption, Patience, Queued,
    Reply, SessionError, WentBack,
};
use super::log::EventLog;
use super::readers::Readers;
use super::view::{SessionView, Status};
use crate::kernel::files::Files;
use crate::model::event::{CommMessage, EndReason, Seq};
use crate::model::id::{CellId, CheckpointName, SessionId};
use crate::model::output::Metadata;
use crate::protocol::agent::Stat;
use crate::protocol::checkpoints::Target;
use crate::protocol::kernel::{Completions, Inspection, Namespace, Request};

/// A session, as front ends hold it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SessionHandle {
    pub(super) id: SessionId,
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) view: watch::Receiver<SessionView>,
    pub(super) log: Arc<EventLog>,
    pub(super) readers: Readers,
    pub(super) stopping: CancellationToken,
    pub(super) patience: Patience,
}

impl SessionHandle {
    /// Its id.
    pub fn id(&self) -> &SessionId {
        &self.id
    }

    /// What it is doing.
    pub fn view(&self) -> SessionView {
        let mut view = self.view.borrow().clone();
        view.head = self.log.head();
        view.first = self.log.first();
        view
    }

    /// Its log.
    pub fn log(&self) -> &Arc<EventLog> {
        &self.log
    }

    /// How far a reader of this name has come in the log; none if it is not known.
    pub fn seen(&self, name: &str) -> Option<Seq> {
        self.readers.position(name)
    }

    /// Notes how far a reader of this name has come. Remembered of those that were heard of last, beyond a restart of the server.
    pub fn saw(&self, name: &str, seq: Seq) {
        self.readers.saw(name, seq);
    }

    /// Submits a cell. When this returns, the cell is in the log, on disk.
    ///
    /// # Errors
    /// The queue is full, the source too long, the key reused, the session over, or the store cannot write.
    pub async fn execute(&self, request: CellRequest) -> Result<Queued, SessionError> {
        if self.stopping.is_cancelled() {
            return Err(Denied::Stopping.into());
        }
        self.ask(|reply| Command::Execute { request, reply }).await
    }

    /// Moves the deadline of a cell; of the running one if none is named.
    ///
    /// # Errors
    /// It has finished, is unknown, or the ceiling does not allow it.
    pub async fn extend(
        &self,
        cell: Option<CellId>,
        by: Duration,
    ) -> Result<Deadlines, SessionError> {
        self.ask(|reply| Command::Extend { cell, by, reply }).await
    }

    /// Interrupts what runs, if it is the cell that is named or none is, and aborts the cells that wait.
    ///
    /// # Errors
    /// The named cell does not run.
    pub async fn interrupt(&self, cell: Option<CellId>) -> Result<Interruption, SessionError> {
        self.ask(|reply| Command::Interrupt { cell, reply }).await
    }

    /// Takes a waiting cell out of the queue.
    ///
    /// # Errors
    /// It runs, has finished, or is unknown.
    pub async fn cancel(&self, cell: CellId) -> Result<(), SessionError> {
        self.ask(|reply| Command::Cancel { cell, reply }).await
    }

    /// Replaces the kernel by a new one. Returns when that is under way; the log tells when it has started.
    ///
    /// # Errors
    /// The session is over.
    pub async fn restart(&self) -> Result<(), SessionError> {
        self.ask(|reply| Command::Restart { reply }).await
    }

    /// Holds the variables as they are now, under a name. It is held, and in the log, when this returns.
    ///
    /// # Errors
    /// A cell runs, there is no kernel, as many are held as may, or no memory is left.
    pub async fn hold(&self, name: CheckpointName) -> Result<Held, SessionError> {
        self.ask(|reply| Command::Hold { name, reply }).await
    }

    /// Drops a checkpoint that is held.
    ///
    /// # Errors
    /// None of this name is held.
    pub async fn release(&self, name: CheckpointName) -> Result<(), SessionError> {
        self.ask(|reply| Command::Release { name, reply }).await
    }

    /// Goes back to a checkpoint that is held. When this returns, the variables are as they were in it.
    ///
    /// # Errors
    /// A cell runs, there is no kernel, or none of this name is held.
    pub async fn roll_back(&self, name: CheckpointName) -> Result<WentBack, SessionError> {
        let target = Target::Held(name);
        self.ask(|reply| Command::GoBack { target, reply }).await
    }

    /// Goes back to before the last cell. When this returns, the variables are as they were.
    ///
    /// # Errors
    /// A cell runs, there is no kernel, or there is no checkpoint from right before the last cell.
    pub async fn undo(&self) -> Result<WentBack, SessionError> {
        let target = Target::Undo;
        self.ask(|reply| Command::GoBack { target, reply }).await
    }

    /// Answers an `input()` that waits.
    ///
    /// # Errors
    /// None waits, or not this one.
    pub async fn answer_input(&self, answer: InputAnswer) -> Result<(), SessionError> {
        self.ask(|reply| Command::Input { answer, reply }).await
    }

    /// The same session, asked by somebody who waits for the end of the cell that runs.
    pub fn patient(&self) -> Self {
        Self {
            patience: Patience::Waits,
            ..self.clone()
        }
    }

    /// Completions at a cursor, which counts code points.
    ///
    /// # Errors
    /// The kernel is busy or gone.
    pub async fn complete(&self, code: String, cursor: u64) -> Result<Completions, SessionError> {
        self.ask_kernel(Request::Complete { code, cursor }).await
    }

    /// What is known about the name at a cursor.
    ///
    /// # Errors
    /// The kernel is busy or gone.
    pub async fn inspect(
        &self,
        code: String,
        cursor: u64,
        detail: u8,
    ) -> Result<Inspection, SessionError> {
        self.ask_kernel(Request::Inspect {
            code,
            cursor,
            detail,
        })
        .await
    }

    /// Whether a source is complete.
    ///
    /// # Errors
    /// The kernel is busy or gone.
    pub async fn is_complete(&self, code: String) -> Result<Value, SessionError> {
        self.ask_kernel(Request::IsComplete { code }).await
    }

    /// The variables of the user's namespace.
    ///
    /// # Errors
    /// The kernel is busy or gone.
    pub async fn variables(&self) -> Result<Namespace, SessionError> {
        self.ask_kernel(Request::Variables {}).await
    }

    /// The comms that are open, by id.
    ///
    /// # Errors
    /// The kernel is busy or gone.
    pub async fn comm_info(&self) -> Result<Value, SessionError> {
        self.ask_kernel(Request::CommInfo {}).await
    }

    /// Sends a comm message to the kernel. It is in the log when this returns.
    ///
    /// # Errors
    /// The kernel is gone, or the session is over.
    pub async fn comm(
        &self,
        message: CommMessage,
        client: Option<Metadata>,
    ) -> Result<(), SessionError> {
        self.ask(|reply| Command::Comm {
            message,
            client,
            reply,
        })
        .await
    }

    /// What the sandbox uses at this moment; also while a cell runs.
    ///
    /// # Errors
    /// There is no sandbox, or the session is over.
    pub async fn usage(&self) -> Result<Stat, SessionError> {
        let body = self.ask(|reply| Command::Usage { reply }).await?;
        serde_json::from_value(Value::Object(body))
            .map_err(|_| Denied::Kernel("the agent's answer makes no sense".to_owned()).into())
    }

    /// Changes labels: those that are named, and no others. None takes one away.
    ///
    /// # Errors
    /// They are too long, the session is over, or the store cannot write.
    pub async fn label(
        &self,
        changes: BTreeMap<String, Option<String>>,
    ) -> Result<(), SessionError> {
        self.ask(|reply| Command::Label { changes, reply }).await
    }

    /// Waits until the kernel is neither being made nor replaced.
    pub async fn started(&self) {
        let mut view = self.view.clone();
        let waits =
            |view: &SessionView| matches!(view.status, Status::Starting | Status::Restarting);
        let _ = view.wait_for(|view| !waits(view)).await;
    }

    /// Access to the workspace.
    ///
    /// # Errors
    /// There is no sandbox and none can be made.
    pub async fn files(&self) -> Result<Files, SessionError> {
        self.ask(|reply| Command::Files { reply }).await
    }

    /// Ends the session: returns when its kernel and sandbox are gone.
    pub(super) async fn end(&self, reason: EndReason) -> Result<(), SessionError> {
        self.ask(|reply| Command::End { reason, reply }).await
    }

    /// Ends the session's task, not the session: returns when all is stored that another server needs to go on.
    pub(super) async fn leave(&self) -> Result<(), SessionError> {
        self.ask(|reply| Command::Leave { reply }).await
    }

    async fn ask_kernel<T: serde::de::DeserializeOwned>(
        &self,
        request: Request,
    ) -> Result<T, SessionError> {
        let patience = self.patience;
        let ask = |reply| Command::Ask {
            request,
            patience,
            reply,
        };
        let body = self.ask(ask).await?;
        serde_json::from_value(Value::Object(body))
            .map_err(|_| Denied::Kernel("the kernel's answer makes no sense".to_owned()).into())
    }

    /// Why nobody answers any more: a session that is left to another server has not ended.
    fn over(&self) -> Denied {
        let ended = self.view.borrow().status == Status::Ended;
        if self.stopping.is_cancelled() && !ended {
            Denied::Stopping
        } else {
            Denied::Ended
        }
    }

    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, SessionError> {
        let (reply, answer) = oneshot::channel();
        self.commands
            .try_send(command(reply))
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => Denied::Busy,
                mpsc::error::TrySendError::Closed(_) => self.over(),
            })?;
        // The actor drops what it cannot answer only when it ends.
        answer.await.unwrap_or_else(|_| Err(self.over().into()))
    }
}
