//! What tests are written with.

pub mod backend;
pub mod fake_backend;
pub mod held_clock;
pub mod house;
pub mod server;
pub mod socket;
pub mod transcript;

use std::io::Write as _;

/// Says that something was not tested, and why: here, and where `make test` collects it, since a runner may hide what a test prints.
pub fn skipped(what: &str) {
    let mut places: Vec<Box<dyn std::io::Write>> = vec![Box::new(std::io::stdout())];
    if let Some(file) = std::env::var_os("TEST_SKIPPED") {
        let file = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(file);
        places.push(Box::new(file.unwrap()));
    }
    for mut place in places {
        writeln!(place, "skipped: {what}").unwrap();
    }
}
