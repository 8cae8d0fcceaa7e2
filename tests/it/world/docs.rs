//! The examples of the pages in `docs`, run as a reader would run them.

use std::fmt::Write as _;
use std::process::Stdio;

use tokio::process::Command;
use tokio::time::timeout;

use crate::harness::server::{PATIENCE, Server, TOKEN, repository};
use crate::harness::skipped;

/// An example: where it stands, in which language, and what it needs besides that.
struct Example<'a> {
    line: usize,
    language: &'a str,
    requires: Option<&'a str>,
    code: String,
}

/// The examples of a page. What is fenced as `sh`, `json` or nothing is not to be run.
fn examples(page: &str) -> Vec<Example<'_>> {
    let mut found = Vec::new();
    let mut open: Option<Example<'_>> = None;
    for (number, line) in page.lines().enumerate() {
        match (&mut open, line.strip_prefix("```")) {
            (Some(_), Some(_)) => found.extend(open.take()),
            (Some(example), None) => writeln!(example.code, "{line}").unwrap(),
            (None, Some(info)) => {
                let (language, rest) = info.split_once(' ').unwrap_or((info, ""));
                let requires = rest.strip_prefix("requires=");
                open = Some(Example {
                    line: number + 1,
                    language,
                    requires,
                    code: String::new(),
                });
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a fence is not closed");
    found
}

/// How an example is run; none if it is not to be.
fn program(example: &Example<'_>) -> Option<Command> {
    let mut command = match example.language {
        "bash" => {
            let mut command = Command::new("bash");
            // An example whose request is refused has failed.
            let wrapper = "set -euo pipefail; curl() { command curl --fail-with-body \"$@\"; }";
            command.args(["-c", &format!("{wrapper}\n{}", example.code)]);
            command
        }
        "python" => {
            let mut command = Command::new(repository().join(".venv/bin/python"));
            command.args(["-c", &example.code]);
            command
        }
        "javascript" => {
            let mut command = Command::new("node");
            // From Node 22 on this is how it is anyway.
            command.args([
                "--experimental-websocket",
                "--input-type=module",
                "-e",
                &example.code,
            ]);
            command
        }
        _ => return None,
    };
    command.stdin(Stdio::null()).kill_on_drop(true);
    Some(command)
}

/// Whether what an example needs is on this machine.
async fn is_there(example: &Example<'_>) -> bool {
    let mut probe = match (example.language, example.requires) {
        ("javascript", _) => {
            let mut probe = Command::new("node");
            // Older ones do not know what a WebSocket is.
            probe.args(["--experimental-websocket", "-e", "0"]);
            probe
        }
        ("python", Some(module)) => {
            let mut probe = Command::new(repository().join(".venv/bin/python"));
            probe.args(["-c", &format!("import {module}")]);
            probe
        }
        ("bash", Some(program)) => {
            let mut probe = Command::new("bash");
            probe.args(["-c", &format!("command -v {program}")]);
            probe
        }
        _ => return true,
    };
    let status = probe
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .await;
    status.is_ok_and(|status| status.success())
}

#[tokio::test]
async fn every_example_of_the_reference_runs() {
    run_examples_of("docs/api.md").await;
}

#[tokio::test]
async fn the_example_of_checkpoints_runs() {
    run_examples_of("docs/checkpoints.md").await;
}

async fn run_examples_of(path: &str) {
    let page = std::fs::read_to_string(repository().join(path)).unwrap();
    let server = Server::start().await;
    let mut failures = String::new();
    for example in examples(&page) {
        let Some(mut command) = program(&example) else {
            continue;
        };
        let name = format!("{path}:{} ({})", example.line, example.language);
        if !is_there(&example).await {
            let needed = example.requires.unwrap_or("node");
            skipped(&format!("{name}: `{needed}` is not here"));
            continue;
        }
        command
            .env("EVERCELL_URL", format!("http://{}", server.address))
            .env("EVERCELL_TOKEN", TOKEN);
        match timeout(PATIENCE, command.output()).await {
            Ok(output) => {
                let output = output.unwrap();
                if !output.status.success() {
                    let (out, err) = (
                        String::from_utf8_lossy(&output.stdout),
                        String::from_utf8_lossy(&output.stderr),
                    );
                    write!(failures, "\n{name}: {}\n{out}\n{err}", output.status).unwrap();
                }
            }
            Err(_) => write!(failures, "\n{name}: did not end").unwrap(),
        }
    }
    assert!(failures.is_empty(), "{failures}");
}
