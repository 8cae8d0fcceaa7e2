//! `evercell doctor`: what this machine can do.

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args;

use crate::config::flags::KernelFlags;

/// What can be typed after `evercell doctor`.
#[derive(Debug, Args)]
pub(super) struct Flags {
    /// As JSON, all checks in one array.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    kernels: KernelFlags,
}

/// Checks.
pub(super) fn main(_flags: &Flags) -> Result<ExitCode> {
    bail!("not yet")
}
