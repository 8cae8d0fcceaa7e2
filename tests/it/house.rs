//! House tests: what a session promises, whatever its kernels run in.

mod adoption;
mod api;
mod between;
mod checkpoints;
mod deadlines;
mod lifecycle;
mod limits;
mod progress;
mod queue;
mod rollback;
