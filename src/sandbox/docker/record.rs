//! What is written down of a sandbox in a directory of its own, before its container exists: so it can be found after any crash.

use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Link;
use crate::agent::Secret;

/// Says that a directory is a sandbox of this backend.
const LABEL: &str = "evercell container 1";
/// The file in which it is.
const RECORD: &str = "record.json";

/// What is written down of a sandbox, beside what its container's labels say.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Record {
    label: String,
    pub(super) link: Link,
    /// Its id, counted from the first.
    pub(super) owner: Option<u32>,
    /// What connections to its agent begin with, where they are brought to it by the engine.
    pub(super) secret: Secret,
}

impl Record {
    /// Of a new sandbox.
    pub(super) fn new(link: Link, owner: Option<u32>, secret: Secret) -> Self {
        Self {
            label: LABEL.to_owned(),
            link,
            owner,
            secret,
        }
    }

    /// Writes it into the sandbox's directory, whole or not at all.
    pub(super) fn write(&self, directory: &Path) -> io::Result<()> {
        let temporary = directory.join("record.json.new");
        fs::write(&temporary, serde_json::to_vec(self)?)?;
        fs::rename(temporary, directory.join(RECORD))
    }

    /// Reads it.
    pub(super) fn read(directory: &Path) -> io::Result<Self> {
        let record: Self = serde_json::from_slice(&fs::read(directory.join(RECORD))?)?;
        if record.label == LABEL {
            Ok(record)
        } else {
            Err(io::Error::other(format!(
                "`{}` is not `{LABEL}`",
                record.label
            )))
        }
    }
}
