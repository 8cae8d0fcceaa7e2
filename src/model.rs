//! The nouns: ids, events, outputs, limits. Data only, without I/O, async or clock.
//!
//! This is the only room that every other room may use. What derives `Serialize` here is a durable
//! contract: an [`event::Envelope`] is stored, replayed and sent in the same bytes, and a snapshot
//! test freezes its form.

pub mod checkpoint;
pub mod event;
pub mod id;
pub mod limits;
pub mod note;
pub mod output;
pub mod settings;
