//! What a session's log says, told in Jupyter's messages: a pure reduction of events.
//!
//! Whoever tells it needs to have heard of the cells that an event is about; [`Story::needs`] names one that it has not, and
//! [`Story::introduce`] makes it known. So the story can begin anywhere in a log: where a client connects, comes back, or comes back after the
//! server's restart.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use axum::body::Bytes;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::header::{Client, Speaker};
use super::wire::{Channel, Frame, Object};
use super::words::{self, Before};
use crate::model::event::{
    Cause, CellStatus, CommAction, CommMessage, CommSide, Envelope, Event, Seq, StartReason,
    UnixMillis, Verdict,
};
use crate::model::id::{CellId, SessionId};
use crate::model::output::ErrorOutput;

/// How many cells are remembered by their numbers.
const NUMBERS: usize = 256;

/// Who is to hear a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Audience {
    /// Every client of the kernel.
    All,
    /// The one that sent the request.
    Sender(Arc<str>),
}

/// What a cell is known by.
#[derive(Clone, Debug)]
struct Cell {
    client: Client,
    code: String,
    silent: bool,
    error: Option<ErrorOutput>,
}

/// A client's comm message that the kernel has before it.
#[derive(Clone, Debug)]
struct Waiting {
    at_seq: Seq,
    client: Client,
    comm_id: String,
    action: CommAction,
    /// Whether the kernel was said to be busy with it.
    told: bool,
}

/// The story so far.
#[derive(Clone, Debug)]
pub(crate) struct Story {
    speaker: Speaker,
    cells: HashMap<CellId, Cell>,
    running: Option<CellId>,
    comms: VecDeque<Waiting>,
    /// The request that the kernel was done with last: what comes while it has none is shown with that.
    last: Arc<Object>,
    execution_count: u32,
    /// The numbers of the cells that began last.
    numbers: VecDeque<(CellId, u32)>,
    /// The loss of a kernel that its cell has told of.
    told_loss: Option<Seq>,
    /// Whether the cell that ended last has told of the loss that follows.
    tells_loss: bool,
    told: Vec<(Audience, Frame)>,
}

impl Story {
    /// The story of a session, of which nothing was heard yet.
    pub(crate) fn new(session: &SessionId) -> Self {
        Self {
            speaker: Speaker::new(session),
            cells: HashMap::new(),
            running: None,
            comms: VecDeque::new(),
            last: Arc::default(),
            execution_count: 0,
            numbers: VecDeque::new(),
            told_loss: None,
            tells_loss: false,
            told: Vec::new(),
        }
    }

    /// A cell that has to be introduced before this event can be told.
    pub(crate) fn needs(&self, event: &Event) -> Option<CellId> {
        if matches!(event, Event::CellQueued { .. }) {
            return None;
        }
        event.cell().filter(|cell| !self.cells.contains_key(cell))
    }

    /// Makes a cell known, by the event that accepted it; by nothing where that was trimmed.
    pub(crate) fn introduce(&mut self, cell: CellId, accepted: Option<Envelope>) {
        let known = match accepted.map(|envelope| (envelope.at_ms, envelope.event)) {
            Some((
                at_ms,
                Event::CellQueued {
                    code,
                    silent,
                    origin,
                    client,
                    ..
                },
            )) => {
                let client = Client::read(client.as_ref())
                    .unwrap_or_else(|| self.speaker.stranger(cell, origin.as_deref(), at_ms));
                Cell {
                    client,
                    code,
                    silent,
                    error: None,
                }
            }
            _ => Cell {
                client: self.speaker.stranger(cell, None, 0),
                code: String::new(),
                silent: false,
                error: None,
            },
        };
        self.cells.insert(cell, known);
    }

    /// Says that a known cell runs, which began before the story.
    pub(crate) fn runs(&mut self, cell: CellId) {
        self.running = Some(cell);
    }

    /// Whether it is known which request the kernel was done with last.
    pub(crate) fn knows_last(&self) -> bool {
        !self.last.is_empty()
    }

    /// Says that a known cell was over before the story, and the last one.
    pub(crate) fn ended_last(&mut self, cell: CellId) {
        self.last = self.parent(Some(cell));
        self.cells.remove(&cell);
    }

    /// Whether a cell is known to run.
    pub(crate) fn knows_running(&self) -> bool {
        self.running.is_some()
    }

    /// The header of the request that the kernel is busy with.
    pub(crate) fn busy_with(&self) -> Option<Arc<Object>> {
        self.cell_running().map(|cell| cell.client.header.clone())
    }

    /// What was told since this was asked last.
    pub(crate) fn take(&mut self) -> Vec<(Audience, Frame)> {
        std::mem::take(&mut self.told)
    }

    /// Tells an event.
    pub(crate) fn tell(&mut self, envelope: Envelope) {
        self.speaker.at(envelope.seq, envelope.at_ms);
        self.event(envelope.seq, envelope.at_ms, envelope.event);
        self.begin_comm();
    }

    fn event(&mut self, seq: Seq, at_ms: UnixMillis, event: Event) {
        match event {
            Event::CellQueued { cell, .. } => {
                let envelope = Envelope { seq, at_ms, event };
                self.introduce(cell, Some(envelope));
            }
            Event::CellStarted {
                cell,
                execution_count,
                state_note,
                ..
            } => {
                self.running = Some(cell);
                let count = execution_count.unwrap_or(self.execution_count + 1);
                if self.numbers.len() >= NUMBERS {
                    self.numbers.pop_front();
                }
                self.numbers.push_back((cell, count));
                self.status("busy", &self.parent(Some(cell)));
                if let Some(known) = self.cells.get(&cell).filter(|cell| !cell.silent) {
                    let content = json!({"code": known.code, "execution_count": count});
                    self.iopub(Some(cell), "execute_input", content);
                }
                // Where the cell that lost the kernel has said so, its reader knows.
                if let Some(note) = state_note.filter(|note| self.told_loss != Some(note.at_seq)) {
                    let before = self.before(&note.state, cell);
                    self.stderr(Some(cell), &words::loss(&note.cause, &note.state, before));
                }
            }
            Event::Stream { cell, name, text } => {
                self.iopub(cell, "stream", json!({"name": name, "text": text}));
            }
            Event::DisplayData {
                cell,
                data,
                metadata,
                display_id,
            } => {
                let transient = display_id.map_or(json!({}), |id| json!({"display_id": id}));
                let content = json!({"data": data, "metadata": metadata, "transient": transient});
                self.iopub(cell, "display_data", content);
            }
            Event::UpdateDisplayData {
                cell,
                data,
                metadata,
                display_id,
            } => {
                let transient = json!({"display_id": display_id});
                let content = json!({"data": data, "metadata": metadata, "transient": transient});
                self.iopub(cell, "update_display_data", content);
            }
            Event::ExecuteResult {
                cell,
                execution_count,
                data,
                metadata,
            } => {
                let content =
                    json!({"execution_count": execution_count, "data": data, "metadata": metadata});
                self.iopub(cell, "execute_result", content);
            }
            Event::Error { cell, error } => self.error(cell, error),
            Event::ClearOutput { cell, wait } => {
                self.iopub(cell, "clear_output", json!({"wait": wait}));
            }
            Event::InputRequested {
                cell,
                prompt,
                password,
                ..
            } => {
                let content = json!({"prompt": prompt, "password": password});
                self.answer_sender(cell, Channel::Stdin, "input_request", content);
            }
            Event::Comm {
                cell,
                from: CommSide::Kernel,
                message,
                ..
            } => self.comm(cell, message),
            Event::Comm {
                from: CommSide::Client,
                message,
                client,
                ..
            } => self.comms.push_back(Waiting {
                at_seq: seq,
                client: Client::read(client.as_ref())
                    .unwrap_or_else(|| self.speaker.anonymous(seq, at_ms)),
                comm_id: message.comm_id,
                action: message.comm,
                told: false,
            }),
            Event::CommHandled { at_seq, error } => self.comm_handled(at_seq, error.as_deref()),
            Event::CellFinished {
                cell,
                status,
                cause,
                state,
                execution_count,
                user_expressions,
                payload,
                ..
            } => {
                self.execution_count = execution_count.unwrap_or(self.execution_count);
                let cause = cause.unwrap_or(Cause::Exception);
                let expressions = user_expressions.unwrap_or(json!({}));
                self.finished(cell, status, &cause, &state, expressions, payload);
            }
            Event::KernelStarted { reason, .. } => {
                if !matches!(reason, StartReason::RolledBack | StartReason::Undone) {
                    self.execution_count = 0;
                    self.status("starting", &Arc::default());
                }
                self.status("idle", &Arc::default());
            }
            Event::KernelFailed { message } => {
                self.stderr(None, &words::no_kernel(&message));
                self.status("dead", &Arc::default());
            }
            Event::KernelLost { cause, state } => {
                if std::mem::take(&mut self.tells_loss) {
                    self.told_loss = Some(seq);
                }
                // A client that asked for a restart knows; one that is told so by surprise is told that it is under way.
                if !is_asked_for(&cause) && state != Verdict::Kept {
                    self.status("restarting", &Arc::default());
                }
            }
            Event::SessionEnded { .. } => self.status("dead", &Arc::default()),
            other => {
                if let Some(text) = words::of(&other) {
                    self.stderr(other.cell(), &text);
                }
            }
        }
    }

    fn finished(
        &mut self,
        cell: CellId,
        status: CellStatus,
        cause: &Cause,
        state: &Verdict,
        expressions: Value,
        payload: Vec<Value>,
    ) {
        let before = self.before(state, cell);
        let began = status != CellStatus::Aborted;
        if !began {
            // Even what never ran is framed as what did.
            self.status("busy", &self.parent(Some(cell)));
        }
        if *state != Verdict::Kept && !is_asked_for(cause) {
            self.stderr(Some(cell), &words::loss(cause, state, before));
            self.tells_loss = true;
        }
        // What did not end by an exception has to be told as one: Jupyter knows no other bad end.
        let untold = status == CellStatus::Error
            || matches!(cause, Cause::NoKernel) && status == CellStatus::Aborted;
        let known = self.cells.get(&cell).and_then(|cell| cell.error.clone());
        let error = match known {
            Some(error) => Some(error),
            None if untold => {
                let error = words::as_error(cause, state, before);
                self.error(Some(cell), error.clone());
                Some(error)
            }
            None => None,
        };
        let count = self.execution_count;
        let content = match (status, error) {
            (CellStatus::Ok, _) => json!({
                "status": "ok",
                "execution_count": count,
                "user_expressions": expressions,
                "payload": payload,
            }),
            (_, Some(error)) => json!({
                "status": "error",
                "execution_count": count,
                "ename": error.ename,
                "evalue": error.evalue,
                "traceback": error.traceback,
                "user_expressions": {},
                "payload": payload,
            }),
            (_, None) => json!({"status": "aborted"}),
        };
        self.answer_sender(cell, Channel::Shell, "execute_reply", content);
        self.status("idle", &self.parent(Some(cell)));
        self.running.take_if(|running| *running == cell);
        if began {
            self.last = self.parent(Some(cell));
        }
        self.cells.remove(&cell);
        if !began && let Some(running) = self.running {
            self.status("busy", &self.parent(Some(running)));
        }
    }

    fn error(&mut self, cell: Option<CellId>, error: ErrorOutput) {
        let content =
            json!({"ename": error.ename, "evalue": error.evalue, "traceback": error.traceback});
        self.iopub(cell, "error", content);
        if let Some(known) = cell.and_then(|cell| self.cells.get_mut(&cell)) {
            known.error = Some(error);
        }
    }

    /// Which cell a checkpoint was made before that was gone back to, as the reader of `cell` knows it.
    fn before(&self, state: &Verdict, cell: CellId) -> Before {
        let Verdict::RolledBack { before } = state else {
            return Before::Earlier;
        };
        if *before == cell {
            return Before::This;
        }
        let found = self.numbers.iter().find(|(known, _)| known == before);
        found.map_or(Before::Earlier, |(_, number)| Before::Numbered(*number))
    }

    // --- comms -----------------------------------------------------------------------------------------------------

    fn comm(&mut self, cell: Option<CellId>, message: CommMessage) {
        let (kind, mut content) = match message.comm {
            CommAction::Open => (
                "comm_open",
                json!({"target_name": message.target_name.unwrap_or_default(), "target_module": null}),
            ),
            CommAction::Msg => ("comm_msg", json!({})),
            CommAction::Close => ("comm_close", json!({})),
        };
        content["comm_id"] = json!(message.comm_id);
        content["data"] = message.data;
        let parent = self.parent(cell);
        let mut frame = self.speaker.frame(Channel::Iopub, kind, &parent, content);
        frame.metadata = message.metadata;
        // What is no base64 did not come from a kernel that works.
        let decode = |buffer: &String| Bytes::from(STANDARD.decode(buffer).unwrap_or_default());
        frame.buffers = message.buffers.iter().map(decode).collect();
        self.told.push((Audience::All, frame));
    }

    /// Says that the kernel is busy with the first comm message before it, once no cell runs.
    fn begin_comm(&mut self) {
        if self.running.is_some() {
            return;
        }
        let Some(first) = self.comms.front_mut().filter(|first| !first.told) else {
            return;
        };
        first.told = true;
        let parent = first.client.header.clone();
        self.status("busy", &parent);
    }

    fn comm_handled(&mut self, at_seq: Seq, error: Option<&str>) {
        let Some(at) = self.comms.iter().position(|comm| comm.at_seq == at_seq) else {
            return;
        };
        let Some(comm) = self.comms.remove(at) else {
            return;
        };
        let parent = comm.client.header.clone();
        if !comm.told {
            self.status("busy", &parent);
        }
        if error.is_some() && comm.action == CommAction::Open {
            // As ipykernel does: a comm that the kernel does not know the target of is closed at once.
            let content = json!({"comm_id": comm.comm_id, "data": {}});
            let frame = self
                .speaker
                .frame(Channel::Iopub, "comm_close", &parent, content);
            self.told.push((Audience::All, frame));
        }
        self.status("idle", &parent);
        self.last = parent;
        if let Some(running) = self.running {
            self.status("busy", &self.parent(Some(running)));
        }
    }

    // --- saying it -------------------------------------------------------------------------------------------------

    fn cell_running(&self) -> Option<&Cell> {
        self.cells.get(&self.running?)
    }

    /// The header of what caused an output: its cell, or the comm message that the kernel is handling. Of what neither has caused, such as a thread,
    /// it is the last one that was, as with ipykernel: with no header no front end would show it.
    fn parent(&self, cell: Option<CellId>) -> Arc<Object> {
        let client = match cell {
            Some(cell) => self.cells.get(&cell).map(|cell| &cell.client),
            None => self.comms.front().map(|comm| &comm.client),
        };
        match (client, cell) {
            (Some(client), _) => client.header.clone(),
            (None, None) => self.last.clone(),
            (None, Some(_)) => Arc::default(),
        }
    }

    fn iopub(&mut self, cell: Option<CellId>, kind: &str, content: Value) {
        let parent = self.parent(cell);
        let frame = self.speaker.frame(Channel::Iopub, kind, &parent, content);
        self.told.push((Audience::All, frame));
    }

    fn stderr(&mut self, cell: Option<CellId>, text: &str) {
        let content = json!({"name": "stderr", "text": format!("evercell: {text}\n")});
        self.iopub(cell, "stream", content);
    }

    fn status(&mut self, state: &str, parent: &Arc<Object>) {
        let frame = self.speaker.status(state, parent);
        self.told.push((Audience::All, frame));
    }

    fn answer_sender(&mut self, cell: CellId, channel: Channel, kind: &str, content: Value) {
        let Some(sender) = self
            .cells
            .get(&cell)
            .and_then(|cell| cell.client.connection.clone())
        else {
            // It came over another front end, which has its own way to answer.
            return;
        };
        let parent = self.parent(Some(cell));
        let frame = self.speaker.frame(channel, kind, &parent, content);
        self.told.push((Audience::Sender(sender), frame));
    }
}

/// Whether somebody wanted the kernel replaced.
fn is_asked_for(cause: &Cause) -> bool {
    matches!(
        cause,
        Cause::Restart | Cause::RolledBack { .. } | Cause::Undone
    )
}

#[cfg(test)]
mod tests;
