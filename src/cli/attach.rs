//! `evercell attach`: a session's log, from any position on, for as long as it goes on.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::client::{Server, ServerFlags, parse_session};
use super::link::{Incoming, Link};
use super::show::{Detail, Screen};
use crate::model::event::{Event, Seq};
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
    let mut link = Link::open(server.clone(), flags.session.clone(), flags.after).await?;
    loop {
        tokio::select! {
            incoming = link.next() => match incoming {
                Incoming::Event(envelope) => {
                    screen.event(&envelope)?;
                    // It may have been opened again since.
                    let ended = matches!(envelope.event, Event::SessionEnded { .. });
                    if ended && server.head(&flags.session).await.ok() <= Some(envelope.seq) {
                        return Ok(ExitCode::SUCCESS);
                    }
                }
                Incoming::Reply(..) => {}
                Incoming::Lost => screen.note("the connection was lost; it is tried again")?,
                Incoming::Back => screen.note("the connection is back")?,
                Incoming::Failed(error) => return Err(error),
            },
            _ = interrupts.recv() => return Ok(ExitCode::SUCCESS),
        }
    }
}
