//! The command line: which commands there are, and how their errors are told.
//!
//! Data goes to stdout, logs and errors to stderr. Each command builds the runtime it needs, since what runs in a sandbox has to stay
//! single-threaded. This is the only room that constructs the others.

mod agent;
mod attach;
mod client;
mod control;
mod doctor;
mod escape;
mod link;
mod prompt;
mod ps;
mod run;
mod script;
mod serve;
mod show;
mod shutdown;
mod telemetry;

use std::error::Error;
use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

use crate::config::ConfigError;
use crate::config::flags::Flags;

/// Sessions of Python that cannot be lost: variables and output stay, whatever happens to clients, cells and the server.
#[derive(Debug, Parser)]
#[command(
    name = "evercell",
    version,
    max_term_width = 100,
    disable_help_subcommand = true,
    // What is typed later wins, so that a script's options can be overridden.
    args_override_self = true
)]
#[command(after_help = "Begin with `evercell doctor`, then `evercell serve`.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve sessions until SIGTERM or Ctrl-C.
    ///
    /// Prints one line to stdout as soon as it can serve: `evercell is ready at http://…/#token=…`. Logs go to stderr. At the first signal
    /// it takes no more cells, waits `--grace` for running ones, interrupts the rest, and stops; at the second it does not wait.
    #[command(after_help = SERVE_HELP)]
    Serve(Box<Flags>),
    /// Check what this machine can do, and say what to do about the rest.
    ///
    /// Exits with 1 where `serve` would refuse to start.
    Doctor(doctor::Flags),
    /// Run a file in a session and show its output here as it comes.
    ///
    /// The session is opened if there is none, and stays: its variables are there for the next run. Figures are saved as files. Ctrl-C
    /// interrupts the cell; a second one leaves it running and detaches. Exits with 0 if every cell ended well, with 1 if one did not, and with 130 when detached.
    Run(run::Flags),
    /// Follow a session: what was run, what came out, and what comes.
    ///
    /// Shows the log from its beginning or from `--after`, then whatever comes, until Ctrl-C or the end of the session. Takes up where it was
    /// when the connection or the server breaks. Following changes nothing in the session.
    Attach(attach::Flags),
    /// List the sessions of a server.
    Ps(ps::Flags),
    /// Interrupt the cell that runs, and take what waits out of the queue.
    Interrupt(control::Of),
    /// Start a session's kernel anew.
    ///
    /// Its variables and its checkpoints are gone; its files and its log stay.
    Restart(control::Of),
    /// Hold a session's variables under a name, or list the names.
    Checkpoint(control::Checkpoint),
    /// Go back to the variables of a checkpoint.
    ///
    /// Exits when it is done. The checkpoint stays held; files are as they are.
    Rollback(control::Rollback),
    /// Go back to the variables from before the last cell.
    Undo(control::Of),
    /// End a session, and remove its kernel, its files and its log.
    End(control::Of),
    /// Print the version.
    Version(VersionFlags),
}

const SERVE_HELP: &str = "\
Every option can also be set in the environment, by the name in brackets.

Examples:
  evercell serve --data-dir ./.evercell
  evercell serve --listen 127.0.0.1:0 --ready-json      a free port, told to a program
  EVERCELL_TOKEN=$(openssl rand -hex 24) evercell serve --listen 0.0.0.0:8888
  evercell serve --memory 2G --cell-timeout 2m --ceiling 1h";

#[derive(Debug, Args)]
struct VersionFlags {
    /// As JSON.
    #[arg(long)]
    json: bool,
}

/// What the server starts inside of sandboxes. Kept apart, so that they do not wait for the rest of the command line to be built.
#[derive(Debug, Parser)]
enum Hidden {
    /// Become PID 1 of a sandbox.
    SandboxInit(agent::SandboxInit),
    /// Become the process that kernels are forked from.
    ZygoteInit(agent::ZygoteInit),
    /// Try out what isolation needs.
    SandboxProbe,
    /// Become PID 1 of a container.
    ContainerInit(agent::ContainerInit),
    /// Bring a connection to the agent of a container.
    ContainerRelay,
}

/// Runs the program; what it returns is the exit code of the process.
pub fn main() -> ExitCode {
    let first = std::env::args_os().nth(1);
    let hidden = [
        "sandbox-init",
        "zygote-init",
        "sandbox-probe",
        "container-init",
        "container-relay",
    ];
    if first.is_some_and(|word| hidden.iter().any(|hidden| word == *hidden)) {
        return match Hidden::parse() {
            Hidden::SandboxInit(arguments) => agent::sandbox_init(&arguments),
            Hidden::ZygoteInit(arguments) => agent::zygote_init(&arguments),
            Hidden::SandboxProbe => agent::sandbox_probe(),
            Hidden::ContainerInit(arguments) => agent::container_init(&arguments),
            Hidden::ContainerRelay => agent::container_relay(),
        };
    }
    let outcome = match Cli::parse().command {
        Command::Serve(flags) => serve::main(&flags),
        Command::Doctor(flags) => doctor::main(&flags),
        Command::Run(flags) => run::main(flags),
        Command::Attach(flags) => attach::main(flags),
        Command::Ps(flags) => ps::main(&flags),
        Command::Interrupt(of) => control::interrupt(&of),
        Command::Restart(of) => control::restart(&of),
        Command::Checkpoint(flags) => control::checkpoint(&flags),
        Command::Rollback(flags) => control::rollback(&flags),
        Command::Undo(of) => control::undo(&of),
        Command::End(of) => control::end(&of),
        Command::Version(flags) => version(&flags),
    };
    outcome.unwrap_or_else(|error| {
        // Whoever read our output has gone, as in `evercell attach x | head`: not worth a word.
        if is_broken_pipe(&error) {
            return ExitCode::SUCCESS;
        }
        // There is nobody to tell if stderr is closed as well.
        let _ = write!(io::stderr(), "{}", Told(&error));
        ExitCode::FAILURE
    })
}

fn version(flags: &VersionFlags) -> Result<ExitCode> {
    let version = env!("CARGO_PKG_VERSION");
    if flags.json {
        writeln!(io::stdout(), r#"{{"version":"{version}"}}"#)?;
    } else {
        writeln!(io::stdout(), "evercell {version}")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// An error with something to do about it.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
struct Hinted {
    message: String,
    hint: String,
}

/// An error and what to do about it.
fn hinted(message: impl Into<String>, hint: impl Into<String>) -> anyhow::Error {
    Hinted {
        message: message.into(),
        hint: hint.into(),
    }
    .into()
}

/// An error as it is told: one sentence with its causes, and below it what to do.
struct Told<'a>(&'a anyhow::Error);

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Where an error was given as context, only the whole knows of it.
        let mut hint = self
            .0
            .downcast_ref::<Hinted>()
            .map(|hinted| hinted.hint.clone());
        let mut text = String::new();
        for cause in self.0.chain() {
            let told = cause.to_string();
            // Some rooms know what to do and say so below their sentence.
            let (sentence, own_hint) = match told.split_once("\n\nhint: ") {
                Some((sentence, hint)) => (sentence, Some(hint.to_owned())),
                None => (told.as_str(), None),
            };
            hint = hint.or(own_hint).or_else(|| hint_of(cause));
            // A transparent error tells what its cause tells.
            if !text.ends_with(sentence) {
                if !text.is_empty() {
                    text.push_str(": ");
                }
                text.push_str(sentence);
            }
        }
        writeln!(f, "error: {text}")?;
        match hint {
            Some(hint) => writeln!(f, "\nhint: {hint}"),
            None => Ok(()),
        }
    }
}

fn hint_of(cause: &(dyn Error + 'static)) -> Option<String> {
    if let Some(hinted) = cause.downcast_ref::<Hinted>() {
        return Some(hinted.hint.clone());
    }
    let config = cause.downcast_ref::<ConfigError>()?;
    config.hint().map(str::to_owned)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests;
