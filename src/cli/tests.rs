//! Tests of the command line's words: its help is a contract, frozen by snapshots.

use anyhow::{Context, anyhow};
use clap::CommandFactory;

use super::*;

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn help_is_frozen() {
    // What happens to be set where the tests run is no part of it.
    let mut command = Cli::command().term_width(100);
    command.build();
    let mut command = command.mut_subcommands(|sub| sub.mut_args(|arg| arg.hide_env_values(true)));
    insta::assert_snapshot!("help", command.render_help());
    let names: Vec<_> = command
        .get_subcommands()
        .filter(|command| !command.is_hide_set())
        .map(|command| command.get_name().to_owned())
        .collect();
    for name in names {
        let sub = command.find_subcommand_mut(&name).unwrap();
        let help = sub.render_long_help().to_string();
        insta::assert_snapshot!(
            format!("help_{name}"),
            help.replace(env!("CARGO_PKG_VERSION"), "VERSION")
        );
    }
}

#[test]
fn an_error_is_one_sentence_with_its_causes_and_a_hint() {
    let error = Err::<(), _>(anyhow!("Connection refused"))
        .context(Hinted {
            message: "cannot reach the server".into(),
            hint: "start it".into(),
        })
        .unwrap_err();
    assert_eq!(
        Told(&error).to_string(),
        "error: cannot reach the server: Connection refused\n\nhint: start it\n"
    );
    let error = anyhow!("no data\n\nhint: make some").context("cannot start");
    assert_eq!(
        Told(&error).to_string(),
        "error: cannot start: no data\n\nhint: make some\n"
    );
    assert_eq!(Told(&anyhow!("plain")).to_string(), "error: plain\n");
}
