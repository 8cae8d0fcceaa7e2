//! What tests are written with.

pub mod fake_backend;
pub mod held_clock;
pub mod house;
pub mod server;
pub mod socket;
pub mod transcript;
