//! Conversations under fire: a seeded run of faults, and a model of what must be true after each.
//!
//! Some sessions hold conversations: cells that set variables and print. At random points something is done to one of them, to its client or
//! to the server. The log says what became of each cell and of the variables; the model follows the log and nothing else; then the kernel is
//! asked, and has to have exactly the variables that the log says it has. So a false verdict, a cell that ran twice, and an event that was lost or
//! doubled are all found the same way.
//!
//! `CHAOS_FAULTS` and `CHAOS_SEED` set how many faults there are and which; `make chaos` runs many.

#![expect(
    clippy::print_stdout,
    reason = "a run says which faults it injects, so that it can be repeated"
)]

mod arena;
mod conversation;
mod faults;
mod host;
mod model;

use std::collections::BTreeMap;
use std::str::FromStr;

use self::arena::Arena;
use self::faults::Fault;

/// Whether a fault that the design lets nobody feel may cost nothing.
const STRICT: bool = true;

/// A number from the environment, or what is usual.
fn setting<T: FromStr>(name: &str, usual: T) -> T {
    std::env::var_os(name)
        .and_then(|value| value.to_str()?.parse().ok())
        .unwrap_or(usual)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_and_no_verdict_is_false() {
    let faults: usize = setting("CHAOS_FAULTS", 42);
    let seed: u64 = setting("CHAOS_SEED", 1);
    println!("chaos: {faults} faults, CHAOS_SEED={seed}");
    let mut arena = Arena::open(seed).await;
    let mut counts: BTreeMap<Fault, usize> = BTreeMap::new();
    for round in 0..faults {
        // Each kind once before any comes again.
        let fault = Fault::ALL[round % Fault::ALL.len()];
        arena.round(round, fault).await;
        *counts.entry(fault).or_default() += 1;
    }
    let lost = arena.close().await;
    println!("chaos: faults by kind");
    for (fault, count) in &counts {
        println!("  {count:5}  {fault:?}");
    }
    println!("chaos: {lost} of {faults} cost the variables of a session");
}
