//! The program: parses the command line and hands it to [`evercell::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    evercell::cli::main()
}
