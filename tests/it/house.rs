//! House tests: what a session promises, whatever its kernels run in.

mod deadlines;
mod lifecycle;
mod queue;
