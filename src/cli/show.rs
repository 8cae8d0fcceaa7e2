//! Events as text in a terminal, and figures as files.

mod figures;
mod words;

use std::collections::HashMap;
use std::io::{self, IsTerminal, Write};

use super::escape::{Colour, Filter};
use super::telemetry::no_color;
use crate::model::event::{CellStatus, Envelope, Event, Seq};
use crate::model::id::{CellId, SessionId};
use crate::model::output::{MimeBundle, StreamName};
pub(super) use figures::Figures;
pub(super) use words::verdict;

/// How much of a session is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Detail {
    /// What cells print and show.
    Output,
    /// Also what was run, and how it ended.
    Everything,
}

/// One of the two places that text goes to.
struct Place<W> {
    to: W,
    /// None where what is written is data for a program, and not for a terminal.
    filter: Option<Filter>,
    /// Whether a line has begun and not ended.
    within_line: bool,
}

/// Shows events on stdout and stderr.
pub(super) struct Screen<O, E> {
    out: Place<O>,
    err: Place<E>,
    detail: Detail,
    figures: Figures,
    /// Sources of cells that wait.
    sources: HashMap<CellId, String>,
}

impl Screen<io::Stdout, io::Stderr> {
    /// The terminal of this process.
    pub(super) fn of_process(
        detail: Detail,
        session: &SessionId,
        figures: &std::path::Path,
    ) -> Self {
        let filter = |terminal| {
            let colour = if no_color() {
                Colour::Drop
            } else {
                Colour::Keep
            };
            if terminal {
                Some(Filter::new(colour))
            } else {
                None
            }
        };
        let out = filter(io::stdout().is_terminal());
        // What we say ourselves goes to stderr too, so it is never raw.
        let err = filter(io::stderr().is_terminal()).or_else(|| Some(Filter::new(Colour::Drop)));
        Self::new(
            (io::stdout(), out),
            (io::stderr(), err),
            detail,
            Figures::new(figures, session),
        )
    }
}

impl<O: Write, E: Write> Screen<O, E> {
    fn new(
        out: (O, Option<Filter>),
        err: (E, Option<Filter>),
        detail: Detail,
        figures: Figures,
    ) -> Self {
        Self {
            out: Place {
                to: out.0,
                filter: out.1,
                within_line: false,
            },
            err: Place {
                to: err.0,
                filter: err.1,
                within_line: false,
            },
            detail,
            figures,
            sources: HashMap::new(),
        }
    }

    /// Shows an event.
    pub(super) fn event(&mut self, envelope: &Envelope) -> io::Result<()> {
        match &envelope.event {
            Event::Stream {
                name: StreamName::Stdout,
                text,
                ..
            } => self.out.write(text),
            Event::Stream {
                name: StreamName::Stderr,
                text,
                ..
            } => self.err.write(text),
            Event::DisplayData {
                data, display_id, ..
            } => self.bundle(envelope.seq, data, display_id.as_deref(), ""),
            Event::UpdateDisplayData {
                data, display_id, ..
            } => self.bundle(envelope.seq, data, Some(display_id), ""),
            Event::ExecuteResult {
                data,
                execution_count,
                ..
            } => {
                let label = match self.detail {
                    Detail::Output => String::new(),
                    Detail::Everything => format!("Out[{execution_count}]: "),
                };
                self.bundle(envelope.seq, data, None, &label)
            }
            Event::Error { error, .. } => {
                self.out.end_line()?;
                if error.traceback.is_empty() {
                    self.err.line(&format!("{}: {}", error.ename, error.evalue))
                } else {
                    self.err.line(&error.traceback.join("\n"))
                }
            }
            Event::CellQueued { cell, code, .. } if self.detail == Detail::Everything => {
                self.sources.insert(*cell, code.clone());
                Ok(())
            }
            Event::CellStarted {
                cell,
                execution_count,
                ..
            } if self.detail == Detail::Everything => {
                let source = self.sources.remove(cell);
                self.source(*execution_count, source.as_deref())
            }
            Event::CellFinished { cell, status, .. } => {
                self.sources.remove(cell);
                self.out.end_line()?;
                if *status == CellStatus::Ok && self.detail == Detail::Output {
                    return Ok(());
                }
                self.note_of(&envelope.event)
            }
            other => self.note_of(other),
        }
    }

    /// Says something of our own, on stderr.
    pub(super) fn note(&mut self, text: &str) -> io::Result<()> {
        self.out.end_line()?;
        self.err.line(&format!("evercell: {text}"))
    }

    /// Shows what `input()` asks.
    pub(super) fn question(&mut self, prompt: &str) -> io::Result<()> {
        self.out.write(prompt)
    }

    /// The user has ended the line.
    pub(super) fn answered(&mut self) {
        self.out.within_line = false;
    }

    fn note_of(&mut self, event: &Event) -> io::Result<()> {
        match words::of(event, self.detail) {
            Some(text) => self.note(&text),
            None => Ok(()),
        }
    }

    fn source(&mut self, count: Option<u32>, source: Option<&str>) -> io::Result<()> {
        let Some(source) = source else { return Ok(()) };
        let label = count.map_or_else(|| "In [ ]: ".to_owned(), |count| format!("In [{count}]: "));
        let indent = format!("\n{:>width$}", "...: ", width = label.len());
        self.out.line(&format!(
            "{label}{}",
            source.trim_end().replace('\n', &indent)
        ))
    }

    fn bundle(
        &mut self,
        seq: Seq,
        data: &MimeBundle,
        display_id: Option<&str>,
        label: &str,
    ) -> io::Result<()> {
        match self.figures.save(seq, data, display_id) {
            Ok(Some(path)) => {
                return self
                    .out
                    .line(&format!("{label}[figure: {}]", path.display()));
            }
            Ok(None) => {}
            // A full disk here is no reason to leave the cell.
            Err(error) => self.note(&format!("a figure could not be saved: {error}"))?,
        }
        let text = data.get("text/plain").and_then(|text| text.as_str());
        match text {
            Some(text) => self.out.line(&format!("{label}{text}")),
            None => {
                let kinds: Vec<_> = data.keys().map(String::as_str).collect();
                self.out.line(&format!("{label}[{}]", kinds.join(", ")))
            }
        }
    }
}

impl<W: Write> Place<W> {
    fn write(&mut self, text: &str) -> io::Result<()> {
        let passed = match &mut self.filter {
            Some(filter) => filter.pass(text),
            None => text.to_owned(),
        };
        if let Some(last) = passed.chars().next_back() {
            self.within_line = last != '\n';
        }
        self.to.write_all(passed.as_bytes())?;
        self.to.flush()
    }

    fn line(&mut self, text: &str) -> io::Result<()> {
        self.end_line()?;
        self.write(text)?;
        self.end_line()
    }

    fn end_line(&mut self) -> io::Result<()> {
        if self.within_line {
            self.within_line = false;
            self.to.write_all(b"\n")?;
            self.to.flush()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
