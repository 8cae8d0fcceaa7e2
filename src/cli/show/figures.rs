//! Figures of a session as files, one a display, whatever they are shown as.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::model::event::Seq;
use crate::model::id::SessionId;
use crate::model::output::MimeBundle;

/// What is saved, best first, and how its file ends..
const KINDS: &[(&str, &str)] = &[
    ("image/png", "png"),
    ("image/jpeg", "jpg"),
    ("image/webp", "webp"),
    ("image/gif", "gif"),
    ("image/svg+xml", "svg"),
    ("application/pdf", "pdf"),
];

/// Where a session's figures are saved.
#[derive(Debug)]
pub(in crate::cli) struct Figures {
    directory: PathBuf,
    /// The session's id, without what a file's name is better without.
    session: String,
    /// Files of displays that can be updated.
    displays: HashMap<String, PathBuf>,
}

impl Figures {
    /// Figures below a directory, which is made with the first of them.
    pub(in crate::cli) fn new(directory: &Path, session: &SessionId) -> Self {
        Self {
            directory: directory.to_owned(),
            session: session.as_str().replace(':', "_"),
            displays: HashMap::new(),
        }
    }

    /// Saves a figure, if it is one, and returns its file: named by its place in the log, so that showing it again saves it again as the same.
    pub(super) fn save(
        &mut self,
        seq: Seq,
        data: &MimeBundle,
        display_id: Option<&str>,
    ) -> io::Result<Option<PathBuf>> {
        let found = KINDS
            .iter()
            .find_map(|(kind, end)| Some((*end, bytes(kind, data.get(*kind)?)?)));
        let Some((end, bytes)) = found else {
            return Ok(None);
        };
        let new = || self.directory.join(format!("{}-{seq}.{end}", self.session));
        let path = match display_id {
            Some(id) => self
                .displays
                .entry(id.to_owned())
                .or_insert_with(new)
                .with_extension(end),
            None => new(),
        };
        fs::create_dir_all(&self.directory)?;
        fs::write(&path, bytes)?;
        Ok(Some(path))
    }
}

fn bytes(kind: &str, value: &Value) -> Option<Vec<u8>> {
    let text = value.as_str()?;
    if kind == "image/svg+xml" {
        return Some(text.as_bytes().to_owned());
    }
    let base64: String = text.split_ascii_whitespace().collect();
    STANDARD.decode(base64).ok()
}
