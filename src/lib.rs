//! Evercell: a notebook-style kernel session server whose variables and output cannot be lost.
//!
//! Five sentences that stay true:
//!
//! 1. A request comes in through [`api`], becomes a `Command`, and ends in one [`session`] actor.
//! 2. The actor is the only writer of its session's state and of its event log.
//! 3. The actor talks to a [`kernel`]; the kernel hides the [`sandbox`]; the sandbox hides the backend.
//! 4. What happened is an `Event` in the log, with a `Seq`; everything a client sees is read from the log.
//! 5. Nothing above knows how the thing below is made, and nothing below knows who asked.

pub mod agent;
pub mod api;
pub mod cli;
pub mod config;
pub mod kernel;
pub mod model;
pub mod protocol;
pub mod sandbox;
pub mod session;
pub mod store;
