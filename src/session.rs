//! Sessions: one task owns one session; its log is what clients see.

pub mod log;
