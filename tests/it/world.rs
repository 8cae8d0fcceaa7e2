//! World tests: real kernels in real sandboxes, real HTTP and WebSocket clients.

mod examples;
mod faults;
mod kernel;
mod many;
mod resume;
