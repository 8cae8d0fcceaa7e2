//! Answers to `input()` from the terminal, hidden where a password is asked for.

use std::io::{self, BufRead, IsTerminal};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::sync::mpsc;

/// Reads lines from stdin, one when asked.
///
/// Reading is done on a thread of its own, which nobody waits for at the end: a read of a terminal cannot be called off.
#[derive(Debug)]
pub(super) struct Prompt {
    asked: SyncSender<()>,
    lines: mpsc::Receiver<Option<String>>,
    /// Whether a line is being read, for this question or for one before that is over.
    reading: bool,
    open: bool,
    /// How the terminal was before it was told not to show what is typed.
    shown: Option<Termios>,
}

impl Prompt {
    /// A prompt that reads nothing yet.
    pub(super) fn new() -> Self {
        let (asked, questions) = sync_channel::<()>(1);
        let (answers, lines) = mpsc::channel(1);
        thread::spawn(move || {
            while questions.recv().is_ok() {
                let mut line = String::new();
                let read = io::stdin().lock().read_line(&mut line);
                let line = match read {
                    Ok(0) | Err(_) => None,
                    Ok(_) => Some(line.trim_end_matches(['\r', '\n']).to_owned()),
                };
                if answers.blocking_send(line).is_err() {
                    break;
                }
            }
        });
        Self {
            asked,
            lines,
            reading: false,
            open: false,
            shown: None,
        }
    }

    /// Begins to read a line.
    pub(super) fn ask(&mut self, hidden: bool) {
        if hidden {
            self.hide();
        }
        self.open = true;
        if !self.reading {
            self.reading = self.asked.try_send(()).is_ok();
        }
    }

    /// The line that was asked for, or none at the end of the input. Never returns while none is asked for.
    pub(super) async fn answer(&mut self) -> Option<String> {
        loop {
            if !self.reading {
                std::future::pending::<()>().await;
            }
            let line = self.lines.recv().await.flatten();
            self.reading = false;
            // What was typed for a question that is over answers nothing.
            if self.open {
                self.close();
                return line;
            }
        }
    }

    /// Ends the question, whether it was answered or not.
    pub(super) fn close(&mut self) {
        self.open = false;
        if let Some(shown) = self.shown.take() {
            // The terminal may be gone.
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, &shown);
        }
    }

    fn hide(&mut self) {
        if self.shown.is_some() || !io::stdin().is_terminal() {
            return;
        }
        if let Ok(shown) = tcgetattr(io::stdin()) {
            let mut hidden = shown.clone();
            hidden.local_modes.remove(LocalModes::ECHO);
            if tcsetattr(io::stdin(), OptionalActions::Now, &hidden).is_ok() {
                self.shown = Some(shown);
            }
        }
    }
}

impl Drop for Prompt {
    fn drop(&mut self) {
        self.close();
    }
}
