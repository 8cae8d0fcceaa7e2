//! What is done to a session from the command line and is over when the server has answered: `interrupt`, `restart`, `checkpoint`, `rollback`, `undo`, `end`.

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;
use hyper::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::client::{Server, ServerFlags, parse_session};
use super::show::verdict;
use crate::model::checkpoint::HeldCheckpoint;
use crate::model::event::Verdict;
use crate::model::id::{CheckpointName, SessionId};

/// A session, and nothing else.
#[derive(Debug, Args)]
pub(super) struct Of {
    /// The session.
    #[arg(value_name = "ID", value_parser = parse_session)]
    session: SessionId,

    #[command(flatten)]
    server: ServerFlags,
}

/// What can be typed after `evercell checkpoint`.
#[derive(Debug, Args)]
pub(super) struct Checkpoint {
    #[command(flatten)]
    of: Of,

    /// The name to hold the variables under; left out, the names that there are are listed.
    #[arg(value_parser = parse_name)]
    name: Option<CheckpointName>,

    /// Drop the checkpoint that has the name.
    #[arg(long, requires = "name")]
    drop: bool,
}

/// What can be typed after `evercell rollback`.
#[derive(Debug, Args)]
pub(super) struct Rollback {
    #[command(flatten)]
    of: Of,

    /// The name of the checkpoint.
    #[arg(value_parser = parse_name)]
    name: CheckpointName,
}

/// Interrupts what runs.
pub(super) fn interrupt(of: &Of) -> Result<ExitCode> {
    let answer = ask(of, Method::POST, "/interrupt", None)?;
    say(match answer["cell"].as_str() {
        Some(_) => "the cell is being interrupted",
        None => "nothing runs",
    })
}

/// Starts the kernel anew.
pub(super) fn restart(of: &Of) -> Result<ExitCode> {
    ask(of, Method::POST, "/restart", None)?;
    say("the kernel is being started anew")
}

/// Holds a checkpoint, drops one, or lists them.
pub(super) fn checkpoint(flags: &Checkpoint) -> Result<ExitCode> {
    let Some(name) = &flags.name else {
        return list(&flags.of);
    };
    let path = format!("/checkpoints/{name}");
    if flags.drop {
        ask(&flags.of, Method::DELETE, &path, None)?;
        return say(&format!("checkpoint `{name}` is dropped"));
    }
    let answer = ask(&flags.of, Method::PUT, &path, None)?;
    let instead = match answer["replaced"] == json!(true) {
        true => ", in place of the one before",
        false => "",
    };
    say(&format!("checkpoint `{name}` is held{instead}"))
}

fn list(of: &Of) -> Result<ExitCode> {
    let mut answer = ask(of, Method::GET, "/checkpoints", None)?;
    let held: Vec<HeldCheckpoint> = read(&mut answer["checkpoints"])?;
    let mut out = io::stdout().lock();
    for HeldCheckpoint {
        name,
        execution_count,
        ..
    } in held
    {
        writeln!(out, "{name}  after [{execution_count}]")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Goes back to a checkpoint.
pub(super) fn rollback(flags: &Rollback) -> Result<ExitCode> {
    let body = json!({"checkpoint": flags.name});
    let mut answer = ask(&flags.of, Method::POST, "/rollback", Some(body))?;
    say(&verdict(&read::<Verdict>(&mut answer["state"])?))
}

/// Goes back to before the last cell.
pub(super) fn undo(of: &Of) -> Result<ExitCode> {
    let mut answer = ask(of, Method::POST, "/undo", None)?;
    say(&verdict(&read::<Verdict>(&mut answer["state"])?))
}

/// Ends the session and removes what it had.
pub(super) fn end(of: &Of) -> Result<ExitCode> {
    ask(of, Method::DELETE, "", None)?;
    say("the session is gone, with its files and its log")
}

fn ask(of: &Of, method: Method, path: &str, body: Option<Value>) -> Result<Value> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let path = format!("/v1/sessions/{}{path}", of.session);
    runtime.block_on(Server::new(&of.server)?.request(method, &path, body))
}

fn read<T: for<'a> Deserialize<'a>>(answer: &mut Value) -> Result<T> {
    serde_json::from_value(answer.take()).context("the server's answer is not understood")
}

fn say(what: &str) -> Result<ExitCode> {
    writeln!(io::stdout(), "{what}")?;
    Ok(ExitCode::SUCCESS)
}

fn parse_name(text: &str) -> Result<CheckpointName, String> {
    text.parse::<CheckpointName>()
        .map_err(|error| error.to_string())
}
