//! Logging, set up once: to stderr, with colour only where somebody looks.

use std::io::{self, IsTerminal};

use anyhow::Result;
use tracing_subscriber::EnvFilter;

use super::hinted;

/// Sends what is logged to stderr, as far as the filter lets it through.
pub(super) fn start(filter: &str) -> Result<()> {
    let filter = EnvFilter::builder().parse(filter).map_err(|error| {
        hinted(
            format!("`--log` is not understood: {error}"),
            "it is a level such as `debug`, or a list such as `info,evercell::kernel=debug`",
        )
    })?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal() && !no_color())
        // A closed stderr must not become a panic.
        .log_internal_errors(false)
        .init();
    Ok(())
}

/// Whether the user wants no colour, by the convention of no-color.org.
pub(super) fn no_color() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}
