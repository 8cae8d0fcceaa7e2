//! What became of a cell: its events, folded into one answer. Pure.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::terminal::{Shown, Terminal, plain};
use crate::model::event::{
    Cause, CellStatus, Envelope, Event, Protection, Seq, UnixMillis, Usage, Verdict,
};
use crate::model::id::CellId;
use crate::model::note::StateNote;
use crate::model::output::{ErrorOutput, Metadata, MimeBundle, StreamName, VariableChanges};

/// How many displays of one cell an answer holds.
const DISPLAYS: usize = 200;

/// How much of long things an answer holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Of a text, in bytes.
    pub(crate) preview_bytes: usize,
    /// Of a value in a mime bundle, in bytes.
    pub(crate) value_bytes: usize,
    /// Of all values in all mime bundles, in bytes.
    pub(crate) total_bytes: usize,
}

impl Default for Extent {
    fn default() -> Self {
        Self {
            preview_bytes: 16 * 1024,
            value_bytes: 1024 * 1024,
            total_bytes: 8 * 1024 * 1024,
        }
    }
}

/// A cell and what became of it so far.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub(crate) struct CellResult {
    /// The cell.
    pub(crate) cell: CellId,
    /// How far it is, or how it ended.
    pub(crate) status: ResultStatus,
    /// Its number, as in `In [n]`; none before it has started, and for a silent one.
    pub(crate) execution_count: Option<u32>,
    /// What it wrote.
    pub(crate) text: Texts,
    /// The value of its last expression.
    pub(crate) result: Option<ShownBundle>,
    /// What it showed, in order, as it looks after all updates.
    pub(crate) displays: Vec<ShownBundle>,
    /// How many displays are left out of `displays`, after its first half.
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) displays_left_out: u64,
    /// The exception that reached the top.
    pub(crate) error: Option<ShownError>,
    /// Why it ended, unless it ended well.
    pub(crate) cause: Option<Cause>,
    /// What became of the variables; none before it has ended.
    pub(crate) state: Option<Verdict>,
    /// What the variables would have been if the kernel had been lost with it; none before it has ended, and if it did not run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) checkpoint: Option<Protection>,
    /// What had become of the variables when it began, if they were rolled back or lost and it is the first cell since.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) state_note: Option<StateNote>,
    /// What it used.
    pub(crate) usage: Option<Usage>,
    /// What it did to the namespace.
    pub(crate) variables: Option<VariableChanges>,
    /// The expressions that were asked for with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) user_expressions: Option<Value>,
    /// The `input()` that waits for an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) input: Option<OpenInput>,
    /// When it will be stopped, while it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) deadline_at_ms: Option<UnixMillis>,
    /// The latest instant to which that can be extended, while it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ceiling_at_ms: Option<UnixMillis>,
    /// Whether the first of its events were trimmed from the log, so that this answer lacks them.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) trimmed: bool,
    /// The first of its events that is in this answer.
    pub(crate) first_seq: Option<Seq>,
    /// The last of its events that is in this answer.
    pub(crate) last_seq: Option<Seq>,
}

/// How far a cell is, or how it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ResultStatus {
    /// It waits.
    Queued,
    /// It runs.
    Running,
    /// It ended well.
    Ok,
    /// It ended with an exception, or not by itself.
    Error,
    /// It ended without having run.
    Aborted,
}

/// What a cell wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct Texts {
    /// To standard output.
    pub(crate) stdout: Text,
    /// To standard error.
    pub(crate) stderr: Text,
}

/// A text as a terminal would show it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct Text {
    /// The text, without colours; when long its beginning and its end, with a line between that says how much is left out.
    pub(crate) preview: String,
    /// How many bytes were written.
    pub(crate) bytes: u64,
    /// How many lines there are.
    pub(crate) lines: u64,
    /// Whether the preview leaves something out. The events have it all.
    pub(crate) truncated: bool,
}

/// A mime bundle.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub(crate) struct ShownBundle {
    /// The event that has it whole: `GET /v1/sessions/{id}/events/{seq}`.
    pub(crate) seq: Seq,
    /// By which id it can be updated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) display_id: Option<String>,
    /// Whether this cell did not show it, but updated what an earlier cell had shown.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) update: bool,
    /// Data by MIME type. Binary types are base64 text.
    pub(crate) data: MimeBundle,
    /// Facts about it.
    pub(crate) metadata: Metadata,
    /// The values that are too long for this answer, each with its length in bytes: left out of `data`, but for
    /// `text/plain`, of which a preview is there.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) elided: BTreeMap<String, u64>,
}

/// An exception.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct ShownError {
    /// Its type.
    pub(crate) ename: String,
    /// Its text.
    pub(crate) evalue: String,
    /// The traceback, as plain text.
    pub(crate) traceback: String,
    /// The traceback, with ANSI colours.
    pub(crate) traceback_ansi: String,
}

/// An `input()` that waits for an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct OpenInput {
    /// To be named in the answer.
    pub(crate) request: String,
    /// What the user is shown.
    pub(crate) prompt: String,
    /// Whether what is typed must not be shown.
    pub(crate) password: bool,
    /// When the wait ends.
    pub(crate) deadline_at_ms: UnixMillis,
}

impl CellResult {
    /// Whether the cell is over.
    pub(crate) fn is_finished(&self) -> bool {
        !matches!(self.status, ResultStatus::Queued | ResultStatus::Running)
    }
}

/// Folds the events of one cell.
#[derive(Debug)]
pub(crate) struct Reducer {
    extent: Extent,
    /// What is left of the extent's total.
    room: usize,
    stdout: Terminal,
    stderr: Terminal,
    /// Whether the next output clears what is there.
    clear_pending: bool,
    result: CellResult,
}

impl Reducer {
    /// Begins with nothing known but the cell's id.
    pub(crate) fn new(cell: CellId, extent: Extent) -> Self {
        let result = CellResult {
            cell,
            status: ResultStatus::Queued,
            execution_count: None,
            text: Texts::default(),
            result: None,
            displays: Vec::new(),
            displays_left_out: 0,
            error: None,
            cause: None,
            state: None,
            checkpoint: None,
            state_note: None,
            usage: None,
            variables: None,
            user_expressions: None,
            input: None,
            deadline_at_ms: None,
            ceiling_at_ms: None,
            trimmed: false,
            first_seq: None,
            last_seq: None,
        };
        Self {
            extent,
            room: extent.total_bytes,
            stdout: Terminal::new(extent.preview_bytes),
            stderr: Terminal::new(extent.preview_bytes),
            clear_pending: false,
            result,
        }
    }

    /// Whether the cell is over.
    pub(crate) fn is_finished(&self) -> bool {
        self.result.is_finished()
    }

    /// Notes that the first of the cell's events are not there any more.
    pub(crate) fn mark_trimmed(&mut self) {
        self.result.trimmed = true;
    }

    /// What became of the cell so far.
    pub(crate) fn finish(mut self) -> CellResult {
        self.result.text = Texts {
            stdout: self.stdout.show().into(),
            stderr: self.stderr.show().into(),
        };
        self.result
    }

    /// Takes in the next event of the log. Those of other cells are passed over.
    pub(crate) fn apply(&mut self, Envelope { seq, event, .. }: Envelope) {
        if event.cell() != Some(self.result.cell) || self.is_finished() {
            return;
        }
        self.result.first_seq.get_or_insert(seq);
        self.result.last_seq = Some(seq);
        if self.result.status == ResultStatus::Queued
            && !matches!(
                event,
                Event::CellQueued { .. } | Event::DeadlineExtended { .. }
            )
        {
            // It has begun, if only in an event that was trimmed.
            self.result.status = ResultStatus::Running;
        }
        match event {
            Event::Stream { name, text, .. } => self.write(name, &text),
            Event::DisplayData {
                data,
                metadata,
                display_id,
                ..
            } => self.show(seq, data, metadata, display_id),
            Event::UpdateDisplayData {
                data,
                metadata,
                display_id,
                ..
            } => self.update(seq, data, metadata, display_id),
            Event::ExecuteResult { data, metadata, .. } => {
                self.clear_if_pending();
                self.result.result = Some(self.bundle(seq, data, metadata, None));
            }
            Event::Error { error, .. } => {
                self.clear_if_pending();
                self.result.error = Some(self.error(&error));
            }
            Event::ClearOutput { wait: true, .. } => self.clear_pending = true,
            Event::ClearOutput { wait: false, .. } => self.clear(),
            event => self.progress(event),
        }
    }

    /// Takes in how the cell gets on, as opposed to what it shows.
    fn progress(&mut self, event: Event) {
        let result = &mut self.result;
        match event {
            Event::CellStarted {
                execution_count,
                deadline_at_ms,
                ceiling_at_ms,
                state_note,
                ..
            } => {
                result.status = ResultStatus::Running;
                result.execution_count = execution_count;
                result.deadline_at_ms = Some(deadline_at_ms);
                result.ceiling_at_ms = Some(ceiling_at_ms);
                result.state_note = state_note;
            }
            Event::InputRequested {
                request,
                prompt,
                password,
                deadline_at_ms,
                ..
            } => {
                result.input = Some(OpenInput {
                    request,
                    prompt,
                    password,
                    deadline_at_ms,
                });
            }
            Event::InputClosed { deadline_at_ms, .. } => {
                result.input = None;
                result.deadline_at_ms = Some(deadline_at_ms);
            }
            // A waiting cell can be extended too; it has no instant to stop at yet.
            Event::DeadlineExtended { deadline_at_ms, .. } => {
                result.deadline_at_ms = deadline_at_ms;
            }
            Event::CellFinished {
                status,
                cause,
                state,
                execution_count,
                usage,
                variables,
                user_expressions,
                checkpoint,
                ..
            } => {
                result.status = status.into();
                result.checkpoint = checkpoint;
                result.execution_count = execution_count.or(result.execution_count);
                (result.cause, result.state, result.usage) = (cause, Some(state), usage);
                (result.variables, result.user_expressions) = (variables, user_expressions);
                (result.input, result.deadline_at_ms, result.ceiling_at_ms) = (None, None, None);
            }
            _ => {}
        }
    }

    fn write(&mut self, name: StreamName, text: &str) {
        self.clear_if_pending();
        match name {
            StreamName::Stdout => self.stdout.write(text),
            StreamName::Stderr => self.stderr.write(text),
        }
    }

    fn show(&mut self, seq: Seq, data: MimeBundle, metadata: Metadata, display_id: Option<String>) {
        self.clear_if_pending();
        let bundle = self.bundle(seq, data, metadata, display_id);
        self.push(bundle);
    }

    fn update(&mut self, seq: Seq, data: MimeBundle, metadata: Metadata, display_id: String) {
        self.clear_if_pending();
        let places: Vec<usize> = (0..self.result.displays.len())
            .filter(|place| self.result.displays[*place].display_id.as_ref() == Some(&display_id))
            .collect();
        for place in &places {
            // Each copy takes its own room.
            self.room += size(&self.result.displays[*place]);
            let bundle = self.bundle(
                seq,
                data.clone(),
                metadata.clone(),
                Some(display_id.clone()),
            );
            let shown = &mut self.result.displays[*place];
            *shown = ShownBundle {
                update: shown.update,
                ..bundle
            };
        }
        if places.is_empty() {
            let bundle = self.bundle(seq, data, metadata, Some(display_id));
            self.push(ShownBundle {
                update: true,
                ..bundle
            });
        }
    }

    fn push(&mut self, bundle: ShownBundle) {
        let displays = &mut self.result.displays;
        displays.push(bundle);
        if displays.len() > DISPLAYS {
            let left_out = displays.remove(DISPLAYS / 2);
            self.room += size(&left_out);
            self.result.displays_left_out += 1;
        }
    }

    fn clear_if_pending(&mut self) {
        if std::mem::take(&mut self.clear_pending) {
            self.clear();
        }
    }

    fn clear(&mut self) {
        self.clear_pending = false;
        self.stdout = Terminal::new(self.extent.preview_bytes);
        self.stderr = Terminal::new(self.extent.preview_bytes);
        self.result.displays.clear();
        self.result.displays_left_out = 0;
        self.result.result = None;
        self.room = self.extent.total_bytes;
    }

    /// A mime bundle without the values that are too long.
    fn bundle(
        &mut self,
        seq: Seq,
        data: MimeBundle,
        metadata: Metadata,
        display_id: Option<String>,
    ) -> ShownBundle {
        let mut bundle = ShownBundle {
            seq,
            display_id,
            update: false,
            data: MimeBundle::new(),
            metadata,
            elided: BTreeMap::new(),
        };
        for (mime, value) in data {
            let bytes = value_size(&value);
            if mime == "text/plain"
                && let Value::String(text) = &value
                && bytes > self.extent.preview_bytes
            {
                bundle.data.insert(
                    mime.clone(),
                    plain(text, self.extent.preview_bytes).preview.into(),
                );
                bundle.elided.insert(mime, bytes as u64);
            } else if bytes > self.extent.value_bytes.min(self.room) {
                bundle.elided.insert(mime, bytes as u64);
            } else {
                self.room -= bytes;
                bundle.data.insert(mime, value);
            }
        }
        bundle
    }

    fn error(&self, error: &ErrorOutput) -> ShownError {
        let keep = self.extent.preview_bytes;
        let coloured = error.traceback.join("\n");
        ShownError {
            ename: plain(&error.ename, keep).preview,
            evalue: plain(&error.evalue, keep).preview,
            traceback: plain(&coloured, keep).preview,
            // A colour cut in half is worse than none.
            traceback_ansi: if coloured.len() <= 2 * keep {
                coloured
            } else {
                plain(&coloured, keep).preview
            },
        }
    }
}

impl From<CellStatus> for ResultStatus {
    fn from(status: CellStatus) -> Self {
        match status {
            CellStatus::Ok => Self::Ok,
            CellStatus::Error => Self::Error,
            CellStatus::Aborted => Self::Aborted,
        }
    }
}

impl From<Shown> for Text {
    fn from(
        Shown {
            preview,
            lines,
            bytes,
            truncated,
        }: Shown,
    ) -> Self {
        Self {
            preview,
            bytes,
            lines,
            truncated,
        }
    }
}

/// What a value takes in an answer, in bytes, about.
fn value_size(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        value => serde_json::to_vec(value).map_or(0, |json| json.len()),
    }
}

fn size(bundle: &ShownBundle) -> usize {
    let kept = bundle
        .data
        .iter()
        .filter(|(mime, _)| !bundle.elided.contains_key(*mime));
    kept.map(|(_, value)| value_size(value)).sum()
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde asks for a reference"
)]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests;
