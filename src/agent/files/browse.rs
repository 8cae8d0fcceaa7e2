//! Lists and describes what is there, and makes directories.

use std::collections::BinaryHeap;

use rustix::fs::{AtFlags, Dir};
use rustix::io::Errno;

use super::{entry, entry_answer};
use crate::agent::workspace::{FileError, UPLOAD, Workspace};
use crate::protocol::files::{FileAnswer, FileEntry, FileErrorCode};

/// The most entries in an answer.
const MOST: usize = 1000;

/// The most bytes of JSON in an answer, well below the largest frame.
const MOST_BYTES: usize = 768 * 1024;

/// How many entries of a directory are looked at. It may grow faster than it is read.
const MOST_READ: usize = 10_000_000;

/// The entries of a directory after a name, sorted by name.
pub(super) fn list(
    workspace: &Workspace,
    path: &str,
    after: Option<&str>,
    limit: u32,
) -> Result<FileAnswer, FileError> {
    let directory = workspace.directory(path)?;
    let failed = |error: Errno| FileError::system(path, error);
    let limit = (limit as usize).clamp(1, MOST);
    // The first ones of those wanted, the last of them on top. However many names there are, one more than asked for is held.
    let mut first = BinaryHeap::with_capacity(limit + 2);
    let mut reader = Dir::read_from(&directory).map_err(failed)?;
    for found in reader.by_ref().take(MOST_READ) {
        let found = found.map_err(failed)?;
        let name = found.file_name().to_string_lossy();
        let is_hidden = name == "." || name == ".." || name.starts_with(UPLOAD);
        if is_hidden || after.is_some_and(|after| *name <= *after) {
            continue;
        }
        if first.len() <= limit {
            first.push((name.into_owned(), found.file_name().to_owned()));
        } else if first.peek().is_some_and(|(last, _)| *name < **last) {
            first.push((name.into_owned(), found.file_name().to_owned()));
            first.pop();
        }
    }
    let names = first.into_sorted_vec();
    let mut more = names.len() > limit;
    let mut entries: Vec<FileEntry> = Vec::with_capacity(names.len());
    let mut bytes = 0;
    for (shown, name) in names.into_iter().take(limit) {
        // It may be gone by now.
        let Ok(stat) = rustix::fs::statat(&directory, &*name, AtFlags::SYMLINK_NOFOLLOW) else {
            continue;
        };
        let path = if path.is_empty() {
            shown
        } else {
            format!("{path}/{shown}")
        };
        let entry = entry(path, &stat);
        bytes += serde_json::to_vec(&entry).map_or(0, |json| json.len() + 1);
        if bytes > MOST_BYTES {
            more = true;
            break;
        }
        entries.push(entry);
    }
    Ok(FileAnswer::Entries { entries, more })
}

/// One entry. A link is described, not followed.
pub(super) fn stat(workspace: &Workspace, path: &str) -> Result<FileAnswer, FileError> {
    let failed = |error: Errno| FileError::system(path, error);
    if path.is_empty() {
        let root = workspace.directory(path)?;
        return entry_answer(path, &rustix::fs::fstat(root).map_err(failed)?);
    }
    let place = workspace.resolve(path, false)?;
    let stat = rustix::fs::statat(&place.directory, place.name, AtFlags::SYMLINK_NOFOLLOW);
    entry_answer(path, &stat.map_err(failed)?)
}

/// Makes a directory and those above it.
pub(super) fn make_directory(workspace: &Workspace, path: &str) -> Result<FileAnswer, FileError> {
    let directory = workspace
        .make_directory(path)
        .map_err(|error| match error.code {
            FileErrorCode::WrongKind => FileError::new(
                FileErrorCode::WrongKind,
                format!("`{path}`, or something above it, exists and is no directory"),
            ),
            _ => error,
        })?;
    let stat = rustix::fs::fstat(directory).map_err(|error| FileError::system(path, error))?;
    entry_answer(path, &stat)
}
