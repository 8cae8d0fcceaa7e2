//! World tests: real kernels in real sandboxes, real HTTP and WebSocket clients.

mod docs;
mod faults;
mod kernel;
mod many;
mod resume;
