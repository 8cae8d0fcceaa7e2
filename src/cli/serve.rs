//! `evercell serve`: the composition root.

use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::config::flags::Flags;

/// Where a token that the server made is kept, below the data directory.
pub(super) const TOKEN_FILE: &str = "token";

/// Serves.
pub(super) fn main(_flags: &Flags) -> Result<ExitCode> {
    bail!("not yet")
}
