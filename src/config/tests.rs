//! Tests of what a command line means.

use clap::Parser;

use super::*;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    flags: Flags,
}

/// A place with a Python environment and a kernel in the working directory.
fn place() -> (tempfile::TempDir, Surroundings) {
    let dir = tempfile::tempdir().unwrap();
    for file in [".venv/bin/python", "kernel-image/pykernel/__init__.py"] {
        let file = dir.path().join(file);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, "").unwrap();
    }
    let around = Surroundings {
        docker_host: None,
        data_home: None,
        home: Some("/home/ada".into()),
        program_dir: Some("/opt/evercell/bin".into()),
        working_dir: dir.path().to_owned(),
    };
    (dir, around)
}

fn config(line: &str) -> Result<Config, ConfigError> {
    let (_dir, around) = place();
    let line = Line::try_parse_from(["serve"].into_iter().chain(line.split_whitespace())).unwrap();
    Config::new(&line.flags, &around)
}

#[track_caller]
fn refusal(line: &str) -> String {
    config(line).unwrap_err().to_string()
}

#[test]
fn the_defaults_are_those_of_the_model() {
    let config = config("").unwrap();
    assert_eq!(config.defaults, Settings::default());
    assert_eq!(config.listen.to_string(), "127.0.0.1:8888");
    assert_eq!(
        config.data_dir,
        Path::new("/home/ada/.local/share/evercell")
    );
    assert!(config.token.is_none());
}

#[test]
fn an_address_of_the_network_needs_a_token() {
    assert_eq!(
        refusal("--listen 0.0.0.0:80"),
        "listening on `0.0.0.0:80` would let the network in, and no token was given"
    );
    assert!(config("--listen [::1]:0").is_ok());
    assert!(config("--listen 0.0.0.0:80 --token 0123456789abcdef").is_ok());
}

#[test]
fn a_token_can_stand_in_a_url_and_is_never_shown() {
    assert!(refusal("--token short").contains("this one has 5"));
    assert!(refusal("--token with/slash").contains("'/'"));
    let config = config("--token 0123456789abcdef").unwrap();
    assert!(!format!("{config:?}").contains("0123456789abcdef"));
    assert_ne!(Token::random(), Token::random());
    assert!(Token::new(Token::random().reveal()).is_ok());
}

#[test]
fn a_default_raises_the_ceiling_of_its_kind() {
    let config = config("--memory 8G --ceiling 30h --cell-timeout 26h").unwrap();
    assert_eq!(config.ceilings.limits.memory_bytes, 8 << 30);
    assert_eq!(config.ceilings.timeouts.ceiling_ms, 30 * 3_600_000);
    // What the server gives by default can also be asked for.
    let wish = crate::model::settings::SettingsRequest {
        memory_bytes: Some(8 << 30),
        cell_ms: Some(26 * 3_600_000),
        ..Default::default()
    };
    assert!(wish.resolve(&config.defaults, &config.ceilings).is_ok());
}

#[test]
fn what_cannot_be_is_named() {
    assert_eq!(
        refusal("--cell-timeout 1h"),
        "`--cell-timeout` is 1h, but it is never longer than `--ceiling`, which is 10m"
    );
    assert_eq!(
        refusal("--memory 1M"),
        "`--memory` is 1M, but a kernel needs at least 64M"
    );
    assert_eq!(
        refusal("--disk 1K"),
        "`--disk` is 1K, but a file system needs at least 1M"
    );
    assert_eq!(
        refusal("--processes 1"),
        "`--processes` is 1, but it has to be at least 4"
    );
    assert_eq!(
        refusal("--max-sessions 0"),
        "`--max-sessions` is 0, but it has to be at least 1"
    );
    assert_eq!(
        refusal("--idle-timeout 0s"),
        "`--idle-timeout` is 0s, but it has to be longer"
    );
}

#[test]
fn the_pool_has_bounds_and_is_never_larger_than_all_sessions() {
    for (given, pool) in [
        ("", (4, 32)),
        ("--pool 64", (64, 64)),
        ("--pool-max 0", (0, 0)),
        ("--pool 0", (0, 32)),
        ("--max-sessions 2", (2, 2)),
    ] {
        assert_eq!(config(given).unwrap().pool, pool, "{given}");
    }
    assert_eq!(
        refusal("--pool 8 --pool-max 2"),
        "`--pool` is 8, but it is at most `--pool-max`, which is 2"
    );
    assert_eq!(
        refusal("--pool 1025"),
        "`--pool` is 1025, but at most 1024 are kept warm"
    );
}

#[test]
fn a_missing_environment_is_named_with_every_place_that_was_looked_at() {
    let (dir, around) = place();
    let line = Line::try_parse_from(["serve"]).unwrap();
    std::fs::remove_dir_all(dir.path().join(".venv")).unwrap();
    let error = Config::new(&line.flags, &around).unwrap_err();
    let here = dir.path().display();
    assert_eq!(
        error.to_string(),
        format!(
            "no Python environment was found in `{here}/.venv` or `/opt/evercell/share/evercell/python-env`"
        )
    );
    assert!(error.hint().unwrap().contains("make env"));
}

#[test]
fn data_is_kept_where_the_first_of_flag_xdg_and_home_says() {
    let (_dir, mut around) = place();
    let none = DataFlags { data_dir: None };
    around.data_home = Some("/xdg".into());
    assert_eq!(
        data_dir(&none, &around).unwrap(),
        Path::new("/xdg/evercell")
    );
    let flag = DataFlags {
        data_dir: Some("kept".into()),
    };
    assert_eq!(
        data_dir(&flag, &around).unwrap(),
        around.working_dir.join("kept")
    );
    (around.data_home, around.home) = (None, None);
    assert_eq!(data_dir(&none, &around), Err(ConfigError::NoHome));
}
