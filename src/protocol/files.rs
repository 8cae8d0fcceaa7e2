//! Operations on the workspace, one per `files` connection.
//!
//! The server sends a [`FileRequest`]; for a write, `Data` frames and an `End` follow at once. The agent answers with one [`FileAnswer`]; for a read,
//! `Data` frames and an `End` follow it. Paths are relative to the workspace, with `/`, and never lead out of it: the agent resolves them
//! with `openat2(RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS)`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum FileRequest {
    /// The entries of a directory, sorted by name, those after `after`, at most `limit`.
    List {
        /// The directory; empty for the workspace itself.
        path: String,
        /// Begin after this name.
        after: Option<String>,
        /// How many at most.
        limit: u32,
    },
    /// One entry.
    Stat {
        /// The entry.
        path: String,
    },
    /// A file's content, from `offset`, at most `length` bytes.
    Read {
        /// The file.
        path: String,
        /// Where to begin.
        offset: u64,
        /// How much at most; all the rest if none.
        length: Option<u64>,
    },
    /// A file's new content: written beside it and moved into place when whole. Makes missing directories.
    Write {
        /// The file.
        path: String,
        /// How long it will be, if known, so that a quota can refuse at once.
        length: Option<u64>,
    },
    /// Makes a directory and those above it.
    MakeDir {
        /// The directory.
        path: String,
    },
    /// Removes a file, or a directory with all it holds.
    Delete {
        /// The entry.
        path: String,
    },
}

/// The answer to an operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum FileAnswer {
    /// To [`FileRequest::List`].
    Entries {
        /// The entries.
        entries: Vec<FileEntry>,
        /// Whether there are more.
        more: bool,
    },
    /// To [`FileRequest::Stat`], [`FileRequest::Read`], [`FileRequest::Write`] and [`FileRequest::MakeDir`].
    Entry {
        /// The entry.
        entry: FileEntry,
    },
    /// To [`FileRequest::Delete`].
    Deleted,
    /// Refused or failed.
    Error {
        /// Which kind.
        code: FileErrorCode,
        /// What, why, and what to do.
        message: String,
    },
}

/// A file or directory of the workspace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, utoipa::ToSchema)]
pub struct FileEntry {
    /// Relative to the workspace.
    pub path: String,
    /// What it is.
    pub kind: FileKind,
    /// How long it is, in bytes.
    pub bytes: u64,
    /// When it was changed, in milliseconds since the Unix epoch.
    pub modified_ms: u64,
}

/// What an entry is.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link; it is listed and can be deleted, but is not followed.
    Link,
    /// A socket, pipe or device; it is listed and can be deleted.
    Special,
}

/// Why an operation was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileErrorCode {
    /// There is nothing of that name.
    NotFound,
    /// The path is not one inside of the workspace, or leads over a link.
    BadPath,
    /// It is not a file (or not a directory, where one is needed).
    WrongKind,
    /// The quota does not allow it.
    QuotaExceeded,
    /// The disk is full.
    DiskFull,
    /// Anything else the system said.
    Io,
}
