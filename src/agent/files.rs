//! Serves files below the workspace and nowhere else, one operation per connection, each in a thread of its own.
//!
//! A thread, because file I/O blocks: the loop that carries the kernel's output must not wait for a disk or for a slow peer. It exists only as long as
//! the operation. What lies in the workspace is the work of hostile code: names, links, pipes that never answer, directories that grow while
//! they are read.

mod browse;
mod remove;
#[cfg(test)]
mod tests;
mod transfer;
mod wire;

use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{FileType, Stat};

use self::wire::Wire;
use super::workspace::{FileError, Workspace};
use crate::protocol::agent::Kind;
use crate::protocol::files::{FileAnswer, FileEntry, FileErrorCode, FileKind, FileRequest};

/// How long a peer may neither take nor give a byte.
const PATIENCE: Duration = Duration::from_secs(60);

/// The stack of a thread: nothing in it recurses.
const STACK: usize = 128 * 1024;

/// What a peer may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Anything.
    Full,
    /// Look and read.
    Reading,
}

/// Serves a workspace that no sandbox uses any more, for one operation that reads, in this process: what lies there is as hostile as before.
///
/// # Errors
/// It is not there.
pub(crate) fn serve_left(workspace: &Path, slot: impl Send + 'static) -> io::Result<UnixStream> {
    let workspace = Workspace::open(workspace, 0, &serde_json::Value::Null)?;
    let (ours, theirs) = UnixStream::pair()?;
    serve(
        theirs,
        Vec::new(),
        Arc::new(workspace),
        Access::Reading,
        slot,
    );
    Ok(ours)
}

/// Serves one connection in a thread of its own, and drops `slot` at its end.
pub(crate) fn serve(
    stream: UnixStream,
    received: Vec<u8>,
    workspace: Arc<Workspace>,
    access: Access,
    slot: impl Send + 'static,
) {
    let spawned = std::thread::Builder::new()
        .name("files".to_owned())
        .stack_size(STACK)
        .spawn(move || {
            // A peer that goes away has no interest in the reason.
            let _ = serve_one(stream, received, &workspace, access);
            drop(slot);
        });
    // Code in the sandbox may have used up all processes. The peer sees the connection close, and tries again.
    drop(spawned);
}

fn serve_one(
    stream: UnixStream,
    received: Vec<u8>,
    workspace: &Workspace,
    access: Access,
) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut wire = Wire::new(stream, received);
    let frame = wire.read()?;
    if frame.kind != Kind::FileRequest as u8 {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let request: FileRequest = match serde_json::from_slice(wire.payload(&frame)) {
        Ok(request) => request,
        Err(error) => {
            return wire.answer(&FileAnswer::Error {
                code: FileErrorCode::Io,
                message: format!("the request cannot be read: {error}"),
            });
        }
    };
    let is_write = matches!(request, FileRequest::Write { .. });
    let is_reading = matches!(
        request,
        FileRequest::List { .. } | FileRequest::Stat { .. } | FileRequest::Read { .. }
    );
    if access == Access::Reading && !is_reading {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let result = match request {
        FileRequest::List { path, after, limit } => {
            browse::list(workspace, &path, after.as_deref(), limit)
        }
        FileRequest::Stat { path } => browse::stat(workspace, &path),
        FileRequest::Read {
            path,
            offset,
            length,
        } => match transfer::open(workspace, &path) {
            Ok(file) => return transfer::send(&mut wire, file, offset, length),
            Err(error) => Err(error),
        },
        FileRequest::Write { path, length } => {
            transfer::receive(&mut wire, workspace, &path, length)?
        }
        FileRequest::MakeDir { path } => browse::make_directory(workspace, &path),
        FileRequest::Delete { path } => remove::delete(workspace, &path),
    };
    let refused = result.is_err();
    wire.answer(&result.unwrap_or_else(|error| FileAnswer::Error {
        code: error.code,
        message: error.message,
    }))?;
    if is_write && refused {
        // The peer is still sending. Were the connection closed now, it might see that instead of the answer.
        wire.discard();
    }
    Ok(())
}

/// Describes an entry.
fn entry(path: String, stat: &Stat) -> FileEntry {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => FileKind::File,
        FileType::Directory => FileKind::Directory,
        FileType::Symlink => FileKind::Link,
        _ => FileKind::Special,
    };
    let seconds = u64::try_from(stat.st_mtime).unwrap_or(0);
    FileEntry {
        path,
        kind,
        bytes: u64::try_from(stat.st_size).unwrap_or(0),
        modified_ms: seconds
            .saturating_mul(1000)
            .saturating_add(stat.st_mtime_nsec / 1_000_000),
    }
}

/// The answer to an operation on an entry.
fn entry_answer(path: &str, stat: &Stat) -> Result<FileAnswer, FileError> {
    Ok(FileAnswer::Entry {
        entry: entry(path.to_owned(), stat),
    })
}
