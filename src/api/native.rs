//! Our own API: REST, Server-Sent Events and a WebSocket. `docs/api.md` is its reference.

pub(crate) mod about;
pub(crate) mod cells;
pub(crate) mod checkpoints;
pub(in crate::api) mod commands;
pub(crate) mod events;
pub(crate) mod files;
mod fold;
mod follow;
mod glance;
pub(crate) mod kernel;
pub(crate) mod output;
mod range;
mod reader;
mod result;
mod schema;
pub(crate) mod sessions;
mod terminal;
mod view;
pub(crate) mod wire;
pub(crate) mod ws;
