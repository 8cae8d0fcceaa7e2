//! Sessions: each is owned by one task, which alone changes its state and writes its log.
//!
//! ```text
//!             claim a kernel             cells, one at a time
//!  open ──▶ Starting ───────────▶ Idle ◀───────────────────▶ Busy
//!              ▲  │ failed          │ restart, kernel lost     │
//!              │  ▼                 ▼                          │
//!              │ Dead ◀──────── Restarting ◀────────────────────┘      any of them ──▶ Ended
//!              └── next cell, restart
//! ```
//!
//! Front ends use [`Sessions`], [`SessionHandle`] and the log's readers, and nothing else. No front end decides what a session allows.

mod actor;
mod clock;
pub mod command;
mod deadline;
mod handle;
pub mod log;
mod memory;
mod output;
mod queue;
mod readers;
mod registry;
pub mod view;

pub use command::{
    CellRequest, Deadlines, Denied, Held, InputAnswer, Interruption, Queued, SessionError, WentBack,
};
pub use handle::SessionHandle;
pub use registry::{Config, Opened, Sessions};

// What handles answer with belongs to rooms that front ends do not import.
pub use crate::kernel::files::{Download, Files, FilesError, Upload};
pub use crate::protocol::files::{FileEntry, FileErrorCode, FileKind};
pub use crate::protocol::kernel::{Completion, Completions, Inspection, Namespace};
pub use crate::store::{CellRow, StoredEvent};
