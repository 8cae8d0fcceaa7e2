//! World tests: real kernels in real sandboxes, real HTTP and WebSocket clients.

mod adoption;
mod checkpoints;
mod command_line;
mod containers;
mod docs;
mod engine;
mod examples;
mod faults;
mod files;
mod flood;
mod full;
mod jupyter;
mod kernel;
mod ladder;
mod limits;
mod many;
mod resume;
mod rollback;
