//! `evercell ps`: the sessions of a server, one line each.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use clap::Args;
use hyper::Method;
use serde_json::{Value, json};

use super::client::{Server, ServerFlags};
use crate::config::units::show_duration;

/// What can be typed after `evercell ps`.
#[derive(Debug, Args)]
pub(super) struct Flags {
    /// Sessions that have ended, too.
    #[arg(long, short)]
    all: bool,

    /// As JSON, one session a line.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    server: ServerFlags,
}

/// How many sessions are asked for at once.
const PAGE: usize = 500;

/// Lists the sessions.
pub(super) fn main(flags: &Flags) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let server = Server::new(&flags.server)?;
    let mut sessions = runtime.block_on(all(&server))?;
    if !flags.all {
        sessions.retain(|session| session["status"] != json!("ended"));
    }
    let mut out = io::stdout().lock();
    if flags.json {
        for session in &sessions {
            writeln!(out, "{session}")?;
        }
    } else {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        out.write_all(table(&sessions, now).as_bytes())?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn all(server: &Server) -> Result<Vec<Value>> {
    let mut sessions: Vec<Value> = Vec::new();
    loop {
        let after = sessions
            .last()
            .and_then(|session| session["id"].as_str())
            .map(|id| format!("&after={id}"));
        let path = format!("/v1/sessions?limit={PAGE}{}", after.unwrap_or_default());
        let mut page = server.request(Method::GET, &path, None).await?;
        let more = page["more"] == json!(true);
        sessions.append(
            page["sessions"]
                .as_array_mut()
                .context("the server's answer has no `sessions`")?,
        );
        if !more || sessions.is_empty() {
            return Ok(sessions);
        }
    }
}

fn table(sessions: &[Value], now: Duration) -> String {
    let mut rows = vec![
        [
            "ID", "STATUS", "AGE", "RUNNING", "DEADLINE", "WAITING", "LOG",
        ]
        .map(str::to_owned),
    ];
    rows.extend(sessions.iter().map(|session| row(session, now)));
    let mut widths = [0; 7];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut table = String::new();
    for row in &rows {
        let cells: Vec<_> = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        // Writing to a string cannot fail.
        let _ = writeln!(table, "{}", cells.join("  ").trim_end());
    }
    table
}

fn row(session: &Value, now: Duration) -> [String; 7] {
    let since = |at: &Value| {
        at.as_u64()
            .map(|at| show_duration(now.saturating_sub(Duration::from_millis(at))))
    };
    let running = &session["running"];
    let until = running["deadline_at_ms"].as_u64().map(|at| {
        format!(
            "in {}",
            show_duration(Duration::from_millis(at).saturating_sub(now))
        )
    });
    let status = match running["input"].is_object() {
        true => "input",
        false => session["status"].as_str().unwrap_or("?"),
    };
    [
        session["id"].as_str().unwrap_or("?").to_owned(),
        status.to_owned(),
        since(&session["opened_at_ms"]).unwrap_or_default(),
        since(&running["started_at_ms"])
            .map(|time| format!("for {time}"))
            .unwrap_or_default(),
        until.unwrap_or_default(),
        session["queued"].as_array().map_or(0, Vec::len).to_string(),
        session["head"].to_string(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_a_line_for_each_session() {
        let sessions = [
            json!({"id": "chat:1", "status": "idle", "opened_at_ms": 1000, "running": null, "queued": [], "head": 12}),
            json!({"id": "a-longer-name", "status": "busy", "opened_at_ms": 0, "queued": ["x"], "head": 7,
                "running": {"started_at_ms": 60_000, "deadline_at_ms": 90_000, "input": null}}),
            json!({"id": "b", "status": "busy", "opened_at_ms": 60_000, "queued": [], "head": 7,
                "running": {"started_at_ms": 60_000, "deadline_at_ms": 90_000, "input": {"prompt": "?"}}}),
        ];
        assert_eq!(
            table(&sessions, Duration::from_secs(61)),
            "ID             STATUS  AGE    RUNNING  DEADLINE  WAITING  LOG\n\
             chat:1         idle    1m                        0        12\n\
             a-longer-name  busy    1m 1s  for 1s   in 29s    1        7\n\
             b              input   1s     for 1s   in 29s    0        7\n"
        );
    }
}
