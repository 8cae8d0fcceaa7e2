//! Tests of the whole.
//!
//! A *house* test runs the whole server in this process on a fake backend with a held clock: a script, and the session's log as a transcript.
//! A *world* test runs real kernels in real sandboxes. *Chaos* does it under fire.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(
    unreachable_pub,
    reason = "what the harness offers to tests is marked `pub`"
)]

#[path = "../chaos/chaos.rs"]
mod chaos;
mod harness;
mod house;
mod isolation;
mod world;
