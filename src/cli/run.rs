//! `evercell run`: a file's cells in a session, with their output here as it comes.

use std::io::{self, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use std::{fs, mem};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::{Value, json};
use tokio::signal::unix::{Signal, SignalKind, signal};
use uuid::Uuid;

use super::client::{Server, ServerFlags, number, parse_session};
use super::link::{Incoming, Link};
use super::prompt::Prompt;
use super::script;
use super::show::{Detail, Screen};
use crate::config::units::{parse_duration, show_duration};
use crate::model::event::{CellStatus, Envelope, Event, Seq};
use crate::model::id::{CellId, SessionId};

/// What can be typed after `evercell run`.
#[derive(Debug, Args)]
pub(super) struct Flags {
    /// The Python file, or `-` for stdin.
    file: PathBuf,

    /// The session, by a name of your own: 1 to 128 letters, digits, `.`, `_`, `:` and `-`.
    #[arg(long, short, value_name = "ID", value_parser = parse_session)]
    session: SessionId,

    /// Cut the file into cells at lines that begin with `# %%`, and stop at the first that fails.
    #[arg(long)]
    cells: bool,

    /// How long a cell may run; the server's default if left out.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    timeout: Option<Duration>,

    /// Whenever the deadline is near, ask for this much more, up to the server's ceiling.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    extend: Option<Duration>,

    /// Whenever the deadline is near and the cell has shown progress, have the server extend it by so much, also when this program has gone; at least
    /// 1s, or 0s for not at all. The session's setting if left out.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    extend_on_progress: Option<Duration>,

    /// Where figures are saved.
    #[arg(long, value_name = "DIR", default_value = "evercell-figures")]
    figures: PathBuf,

    #[command(flatten)]
    server: ServerFlags,
}

/// The exit code of a program that was ended by Ctrl-C.
const DETACHED: u8 = 130;

/// Runs the file.
pub(super) fn main(flags: Flags) -> Result<ExitCode> {
    let source = read(&flags.file)?;
    let cells = if flags.cells {
        script::cells(&source)
    } else {
        vec![source]
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(run(flags, cells))
}

fn read(file: &Path) -> Result<String> {
    let (bytes, name) = if file == Path::new("-") {
        let mut bytes = Vec::new();
        io::stdin()
            .lock()
            .read_to_end(&mut bytes)
            .context("cannot read stdin")?;
        (bytes, "stdin".to_owned())
    } else {
        let name = file.display().to_string();
        (
            fs::read(file).with_context(|| format!("cannot read `{name}`"))?,
            name,
        )
    };
    String::from_utf8(bytes).with_context(|| format!("`{name}` is not UTF-8"))
}

async fn run(flags: Flags, cells: Vec<String>) -> Result<ExitCode> {
    let server = Server::new(&flags.server)?;
    let opened = server.open(&flags.session).await?;
    let head = number(&opened, "head")?;
    let link = Link::open(server, flags.session.clone(), head).await?;
    let mut run = Run {
        screen: Screen::of_process(Detail::Output, &flags.session, &flags.figures),
        interrupts: signal(SignalKind::interrupt())?,
        prompt: Prompt::new(),
        asked: None,
        link,
        early: Vec::new(),
        seen: head,
        started: false,
        flags,
    };
    for code in cells {
        match run.cell(code).await? {
            Outcome::Finished(CellStatus::Ok) => {}
            Outcome::Finished(_) => return Ok(ExitCode::FAILURE),
            Outcome::Detached => return Ok(ExitCode::from(DETACHED)),
        }
    }
    Ok(ExitCode::SUCCESS)
}

struct Run {
    flags: Flags,
    link: Link,
    screen: Screen<io::Stdout, io::Stderr>,
    interrupts: Signal,
    prompt: Prompt,
    /// The `input()` that waits for an answer from here.
    asked: Option<String>,
    /// Events that came before the server said which cell is ours.
    early: Vec<Envelope>,
    /// The last event that came.
    seen: Seq,
    /// Whether our cell has begun to run.
    started: bool,
}

enum Outcome {
    Finished(CellStatus),
    Detached,
}

impl Run {
    /// Runs a cell to its end.
    async fn cell(&mut self, code: String) -> Result<Outcome> {
        let mut command = json!({
            "op": "execute",
            "code": code,
            // Sent again after a broken connection, it still runs once.
            "key": Uuid::new_v4().to_string(),
            "origin": "evercell run",
        });
        if let Some(limit) = self.flags.timeout {
            command["limit_ms"] = millis(limit);
        }
        if let Some(step) = self.flags.extend_on_progress {
            command["extend_on_progress_ms"] = millis(step);
        }
        let execute = self.link.send(command).await;
        self.started = false;
        let mut cell = None;
        let mut interrupted = false;
        loop {
            tokio::select! {
                incoming = self.link.next() => match incoming {
                    Incoming::Reply(number, reply) if number == execute => {
                        let id = self.accepted(reply)?;
                        cell = Some(id);
                        for envelope in mem::take(&mut self.early) {
                            if let Some(status) = self.event(&envelope, id).await? {
                                return Ok(Outcome::Finished(status));
                            }
                        }
                    }
                    // The log tells what became of the other commands; a refusal only means that they came too late.
                    Incoming::Reply(..) => {}
                    Incoming::Event(envelope) => match cell {
                        None => self.early.push(*envelope),
                        Some(cell) => if let Some(status) = self.event(&envelope, cell).await? {
                            return Ok(Outcome::Finished(status));
                        },
                    },
                    Incoming::Lost => self.screen.note("the connection was lost; it is tried again, and nothing is missed meanwhile")?,
                    Incoming::Back => self.screen.note("the connection is back")?,
                    Incoming::Ended => bail!("the session ended before the cell did"),
                    Incoming::Failed(error) => {
                        self.detached()?;
                        return Err(error);
                    }
                },
                line = self.prompt.answer() => self.answer(line).await,
                _ = self.interrupts.recv() => {
                    if mem::replace(&mut interrupted, true) {
                        self.detached()?;
                        return Ok(Outcome::Detached);
                    }
                    self.screen.note("interrupting the cell; Ctrl-C once more detaches and leaves it running")?;
                    self.stop(cell).await;
                }
            }
        }
    }

    /// Stops our cell: takes it out of the queue if it waits, interrupts it if it runs.
    async fn stop(&mut self, cell: Option<CellId>) {
        let Some(cell) = cell else { return };
        let op = if self.started { "interrupt" } else { "cancel" };
        self.link.send(json!({"op": op, "cell": cell})).await;
    }

    fn accepted(&mut self, reply: Result<Value, String>) -> Result<CellId> {
        let reply = match reply {
            Ok(reply) => reply,
            Err(message) => bail!("the session refuses the cell: {message}"),
        };
        let Some(cell) = reply["cell"].as_str().and_then(|id| id.parse().ok()) else {
            bail!("the server's answer names no cell");
        };
        if let Some(position @ 1..) = reply["position"].as_u64() {
            self.screen
                .note(&format!("waiting; {position} before this one"))?;
        }
        Ok(cell)
    }

    /// Shows an event if it belongs to our cell or to none; returns how the cell ended if it did.
    async fn event(&mut self, envelope: &Envelope, ours: CellId) -> Result<Option<CellStatus>> {
        self.seen = envelope.seq;
        if envelope.event.cell().is_some_and(|cell| cell != ours) {
            return Ok(None);
        }
        match &envelope.event {
            Event::InputRequested {
                request,
                prompt,
                password,
                ..
            } => {
                self.screen.question(prompt)?;
                self.asked = Some(request.clone());
                // Stdin was the code.
                if self.flags.file == Path::new("-") {
                    self.answer(None).await;
                } else {
                    self.prompt.ask(*password);
                }
            }
            Event::InputClosed { .. } if self.asked.take().is_some() => {
                self.prompt.close();
                self.screen.event(envelope)?;
            }
            Event::DeadlineWarning { extendable_ms, .. } => match self.flags.extend {
                Some(by) if *extendable_ms > 0 => {
                    let by = by.min(Duration::from_millis(*extendable_ms));
                    self.link
                        .send(json!({"op": "extend", "cell": ours, "by_ms": millis(by)}))
                        .await;
                }
                _ => self.screen.event(envelope)?,
            },
            Event::DeadlineExtended { by_ms, .. } if self.flags.extend.is_some() => {
                let by = show_duration(Duration::from_millis(*by_ms));
                self.screen
                    .note(&format!("the deadline was extended by {by}"))?;
            }
            Event::CellStarted { .. } => self.started = true,
            Event::CellFinished { status, .. } => {
                self.screen.event(envelope)?;
                return Ok(Some(*status));
            }
            _ => self.screen.event(envelope)?,
        }
        Ok(None)
    }

    async fn answer(&mut self, line: Option<String>) {
        let Some(request) = &self.asked else { return };
        if line.is_some() && io::stdin().is_terminal() {
            self.screen.answered();
        }
        let answer = match line {
            Some(line) => json!({"op": "input", "request": request, "value": line}),
            None => json!({"op": "input", "request": request, "eof": true}),
        };
        self.link.send(answer).await;
    }

    fn detached(&mut self) -> Result<()> {
        self.prompt.close();
        self.screen.note(&format!(
            "detached; the session goes on, and `evercell attach {} --after {}` shows the rest",
            self.flags.session, self.seen
        ))?;
        Ok(())
    }
}

fn millis(duration: Duration) -> Value {
    json!(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}
