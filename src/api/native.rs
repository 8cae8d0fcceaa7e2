//! Our own API: REST, Server-Sent Events and a WebSocket. `docs/api.md` is its reference.

pub(crate) mod about;
pub(crate) mod cells;
mod commands;
pub(crate) mod events;
pub(crate) mod files;
mod follow;
pub(crate) mod kernel;
mod range;
mod result;
mod schema;
pub(crate) mod sessions;
mod terminal;
pub(crate) mod wire;
pub(crate) mod ws;
mod ws_loop;
