//! What this host can do, found out by trying: the data of `evercell doctor`, and what a backend refuses to start without.
//!
//! Says of each part what was found, what follows from it and how to get it. Tells nobody; that is the command line's business.

mod environment;
mod host;
mod isolation;

use serde::Serialize;

use super::SandboxError;
use super::native::Config;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Works, with something less.
    Degraded,
    /// Does not work.
    Fatal,
}

/// One thing that was looked at.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// How bad it is.
    pub level: Level,
    /// What was found.
    pub found: String,
    /// What follows from it, unless all is well.
    pub follows: Option<String>,
    /// How to get what is missing.
    pub hint: Option<String>,
}

impl Check {
    pub(super) fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self {
            name,
            level: Level::Ok,
            found: found.into(),
            follows: None,
            hint: None,
        }
    }

    pub(super) fn lacking(
        level: Level,
        name: &'static str,
        found: impl Into<String>,
        follows: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self {
            name,
            level,
            found: found.into(),
            follows: Some(follows.into()),
            hint: Some(hint.into()),
        }
    }
}

/// Looks at everything, in an order that a reader can follow.
pub fn checks(config: &Config) -> Vec<Check> {
    let mut checks = isolation::checks(&config.program);
    checks.extend(host::checks(config));
    checks.extend(environment::checks(config));
    checks
}

/// The same for containers: the engine, and what the server itself needs of this machine.
pub async fn checks_of_docker(config: &super::docker::Config) -> Vec<Check> {
    let mut checks = super::docker::checks(config).await;
    checks.extend(host::checks_of_server(&config.data_dir));
    checks
}

/// Refuses where isolation itself cannot be had.
pub(super) fn isolates(config: &Config) -> Result<(), SandboxError> {
    let mut lacks: Vec<Check> = isolation::checks(&config.program)
        .into_iter()
        .filter(|check| check.level == Level::Fatal)
        .collect();
    if lacks.is_empty() {
        return Ok(());
    }
    let first = lacks.remove(0);
    Err(SandboxError::CannotIsolate {
        missing: format!("{}: {}", first.name, first.found),
        hint: first.hint.unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests;
