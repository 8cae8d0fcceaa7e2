//! The record of a sandbox: a file in a directory of its own, written before anything of the sandbox exists, so that it can be found after any crash.

use std::fs;
use std::io;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

const FILE: &str = "record.json";

/// What a backend writes down of a sandbox.
pub(super) trait Recorded: Serialize + DeserializeOwned {
    /// Says that a directory is a sandbox of this backend, and in which form it is described.
    const LABEL: &'static str;

    /// The label that was written down.
    fn label(&self) -> &str;

    /// Writes it into the sandbox's directory, whole or not at all.
    fn write(&self, directory: &Path) -> io::Result<()> {
        let temporary = directory.join("record.json.new");
        fs::write(&temporary, serde_json::to_vec(self)?)?;
        fs::rename(temporary, directory.join(FILE))
    }

    /// Reads it.
    fn read(directory: &Path) -> io::Result<Self> {
        let record: Self = serde_json::from_slice(&fs::read(directory.join(FILE))?)?;
        if record.label() == Self::LABEL {
            return Ok(record);
        }
        let (found, wanted) = (record.label(), Self::LABEL);
        Err(io::Error::other(format!("`{found}` is not `{wanted}`")))
    }
}
