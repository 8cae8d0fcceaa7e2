//! The frames between the server and the agent of a sandbox, and the words of the kernel behind it.
//!
//! ```text
//! server ◀── frames (codec, agent, files, checkpoints) ──▶ agent ◀── ring and requests (kernel-image/PROTOCOL.md) ──▶ Python kernel
//! ```
//!
//! A frame is `u32 length | u8 kind | u8 flags | u16 zero | u64 number` + payload, little-endian; `length` counts all
//! that follows it. Kind, flags and number lie outside of the payload, so that the agent relays without parsing.
//!
//! Rules of change: a [`GENERATION`] is frozen once it is released; the agent and the server say theirs first, and a newer
//! server speaks the older agent's. Whatever comes from a sandbox is hostile: sizes are checked before allocation, decoding never panics.

pub mod agent;
pub mod checkpoints;
pub mod codec;
pub mod files;
pub mod kernel;

/// The generation of the protocol that this program speaks.
pub const GENERATION: u32 = 1;

/// The oldest generation of an agent that this server speaks. Whatever an older one holds is ended, and the log says why.
pub const OLDEST_GENERATION: u32 = 1;

/// The largest payload of a frame, in bytes. Larger messages travel in parts.
pub const MAX_PAYLOAD: usize = 1024 * 1024;

/// The largest message of a kernel, all parts together, in bytes: a figure, a table, a widget's buffers.
pub const MAX_MESSAGE: usize = 64 * 1024 * 1024;
