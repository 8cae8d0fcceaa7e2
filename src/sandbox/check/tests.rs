//! What is said when something is missing.

use std::path::PathBuf;
use std::time::Duration;

use super::*;

fn nothing() -> Config {
    Config {
        data_dir: PathBuf::from("/nonexistent/data"),
        program: PathBuf::from("/nonexistent/evercell"),
        python_env: PathBuf::from("/nonexistent/env"),
        pykernel_dir: PathBuf::from("/nonexistent/pykernel"),
        first_id: Config::FIRST_ID,
        ids: Config::IDS,
        orphan: Duration::from_secs(1),
    }
}

#[test]
fn every_lack_says_what_follows_and_what_to_do() {
    let checks = checks(&nothing());
    for name in ["isolation", "python environment", "kernel package"] {
        let check = checks.iter().find(|check| check.name == name).unwrap();
        assert_eq!(check.level, Level::Fatal, "{name}");
    }
    for check in checks.iter().filter(|check| check.level != Level::Ok) {
        assert!(
            check.follows.is_some() && check.hint.is_some(),
            "{}",
            check.name
        );
    }
}

#[test]
fn without_isolation_there_is_a_refusal_with_a_hint() {
    let refusal = isolates(&nothing()).unwrap_err().to_string();
    assert!(
        refusal.starts_with(
            "this host cannot isolate: isolation: `/nonexistent/evercell` cannot be started"
        ),
        "{refusal}"
    );
    assert!(refusal.contains("\n\nhint: "), "{refusal}");
}
