//! The one program: server, client, and what runs in a sandbox.

use std::process::ExitCode;

fn main() -> ExitCode {
    evercell::cli::main()
}
