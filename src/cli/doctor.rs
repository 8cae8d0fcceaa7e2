//! `evercell doctor`: what this machine can do, line by line, with a hint for each lack.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use serde_json::json;

use super::serve::{BackendConfig, backend_config};
use crate::config::flags::{DataFlags, KernelFlags};
use crate::config::{Kernels, Surroundings, data_dir};
use crate::sandbox::check::{Check, Level, checks, checks_of_docker};

/// What can be typed after `evercell doctor`.
#[derive(Debug, Args)]
pub(super) struct Flags {
    /// As JSON: `{"level", "checks": [{"name", "level", "found", "follows", "hint"}]}`.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    data: DataFlags,

    #[command(flatten)]
    kernels: KernelFlags,
}

/// Checks.
pub(super) fn main(flags: &Flags) -> Result<ExitCode> {
    let around = Surroundings::of_process();
    let kernels = Kernels::unchecked(&flags.kernels, &around);
    let data_dir = data_dir(&flags.data, &around)?;
    let checks = match backend_config(&data_dir, &kernels, Duration::from_secs(1))? {
        BackendConfig::Native(native) => checks(&native),
        BackendConfig::Docker(docker) => tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start the runtime")?
            .block_on(checks_of_docker(&docker)),
    };
    let worst = checks
        .iter()
        .map(|check| check.level)
        .max()
        .unwrap_or(Level::Ok);
    let mut out = io::stdout().lock();
    if flags.json {
        writeln!(out, "{:#}", json!({"level": worst, "checks": checks}))?;
    } else {
        out.write_all(report(&checks).as_bytes())?;
    }
    Ok(match worst {
        Level::Ok | Level::Degraded => ExitCode::SUCCESS,
        Level::Fatal => ExitCode::FAILURE,
    })
}

/// One line a check, what follows and what to do below it, and a last line that says whether this machine can serve.
fn report(checks: &[Check]) -> String {
    let width = checks
        .iter()
        .map(|check| check.name.len())
        .max()
        .unwrap_or(0);
    let mut text = String::new();
    for check in checks {
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{:8}  {:width$}  {}",
            word(check.level),
            check.name,
            check.found
        );
        for (label, line) in [("", &check.follows), ("hint: ", &check.hint)] {
            if let Some(line) = line {
                let _ = writeln!(text, "{:8}  {:width$}  {label}{line}", "", "");
            }
        }
    }
    let count = |level| checks.iter().filter(|check| check.level == level).count();
    let last = match (count(Level::Fatal), count(Level::Degraded)) {
        (0, 0) => "this machine can serve".to_owned(),
        (0, less) => format!("this machine can serve, with something less ({less} above)"),
        (fatal, _) => {
            format!("this machine cannot serve: see what is marked `missing` above ({fatal})")
        }
    };
    let _ = writeln!(text, "\n{last}");
    text
}

fn word(level: Level) -> &'static str {
    match level {
        Level::Ok => "ok",
        Level::Degraded => "less",
        Level::Fatal => "missing",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &'static str, level: Level) -> Check {
        let lacks = level > Level::Ok;
        Check {
            name,
            level,
            found: "what was found".to_owned(),
            follows: lacks.then(|| "what follows".to_owned()),
            hint: lacks.then(|| "what to do".to_owned()),
        }
    }

    #[test]
    fn a_lack_is_told_with_what_follows_and_a_hint() {
        let checks = [check("one", Level::Ok), check("another", Level::Degraded)];
        assert_eq!(
            report(&checks),
            "ok        one      what was found\n\
             less      another  what was found\n\
             \x20                  what follows\n\
             \x20                  hint: what to do\n\n\
             this machine can serve, with something less (1 above)\n"
        );
    }

    #[test]
    fn the_last_line_says_whether_it_can_serve() {
        assert!(report(&[check("x", Level::Ok)]).ends_with("\nthis machine can serve\n"));
        let report = report(&[check("x", Level::Fatal), check("y", Level::Degraded)]);
        assert!(report.contains("this machine cannot serve"));
    }
}
