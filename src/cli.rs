//! The command line.

mod agent;

use std::process::ExitCode;

use clap::Parser;

/// A notebook-style kernel session server.
#[derive(Debug, Parser)]
#[command(name = "evercell", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Become PID 1 of a sandbox.
    #[command(hide = true)]
    SandboxInit(agent::SandboxInit),
    /// Become the process that kernels are forked from.
    #[command(hide = true)]
    ZygoteInit(agent::ZygoteInit),
    /// Try out what isolation needs.
    #[command(hide = true)]
    SandboxProbe,
}

/// Runs the program with the arguments it was given.
pub fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::SandboxInit(arguments) => agent::sandbox_init(&arguments),
        Command::ZygoteInit(arguments) => agent::zygote_init(&arguments),
        Command::SandboxProbe => agent::sandbox_probe(),
    }
}
