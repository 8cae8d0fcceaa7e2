//! `evercell attach`: a session's log, from any position on, for as long as it goes on.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::client::{Server, ServerFlags, parse_session};
use super::link::{Incoming, Link};
use super::show::{Detail, Screen};
use crate::model::event::Seq;
use crate::model::id::SessionId;

/// What can be typed after `evercell attach`.
#[derive(Debug, Args)]
pub(super) struct Flags {
    /// The session.
    #[arg(value_name = "ID", value_parser = parse_session)]
    session: SessionId,

    /// Show only what comes after this position of the log.
    #[arg(long, value_name = "SEQ", default_value_t = 0)]
    after: Seq,

    /// Where figures are saved.
    #[arg(long, value_name = "DIR", default_value = "evercell-figures")]
    figures: PathBuf,

    #[command(flatten)]
    server: ServerFlags,
}

/// Follows the session.
pub(super) fn main(flags: Flags) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(follow(flags))
}

async fn follow(flags: Flags) -> Result<ExitCode> {
    let mut interrupts = signal(SignalKind::interrupt())?;
    let mut screen = Screen::of_process(Detail::Everything, &flags.session, &flags.figures);
    let server = Server::new(&flags.server)?;
    // Old events may have been trimmed: what is left is what there is to show.
    let first = server.first(&flags.session).await?;
    if flags.after + 1 < first {
        screen.note(&format!(
            "the log begins at {first}; what came before was trimmed"
        ))?;
    }
    let after = flags.after.max(first.saturating_sub(1));
    let mut link = Link::open(server, flags.session, after).await?;
    loop {
        tokio::select! {
            incoming = link.next() => match incoming {
                Incoming::Event(envelope) => {
                    screen.event(&envelope)?;
                }
                Incoming::Reply(..) => {}
                Incoming::Ended => return Ok(ExitCode::SUCCESS),
                Incoming::Lost => screen.note("the connection was lost; it is tried again")?,
                Incoming::Back => screen.note("the connection is back")?,
                Incoming::Failed(error) => return Err(error),
            },
            _ = interrupts.recv() => return Ok(ExitCode::SUCCESS),
        }
    }
}
