//! Files of the shared directory, as models of Jupyter's contents.

use std::io;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::fs;

use super::{LONGEST, empty_notebook};
use crate::api::error::{ApiError, Code};
use crate::api::jupyter::time::iso;

/// Where checkpoints and what is being written lie, in each directory.
const OURS: &str = ".evercell";

/// The id of the one checkpoint that a file has.
const CHECKPOINT: &str = "checkpoint";

/// How many names are tried for a file without one.
const NAMES: usize = 1000;

/// What something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    Notebook,
    File,
    Directory,
}

/// How a file's content is written in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Format {
    Json,
    Text,
    Base64,
}

/// Whether a part of a path is none of the clients' business.
pub(super) fn is_hidden(part: &str) -> bool {
    part == OURS
}

/// A directory with all that is below it.
#[derive(Debug)]
pub(super) struct Files {
    root: PathBuf,
}

impl Files {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// Where a checked path lies. No part of it may be a link, whoever has put it there.
    async fn at(&self, path: &str) -> Result<PathBuf, ApiError> {
        fs::create_dir_all(&self.root)
            .await
            .map_err(|error| failed(path, &error))?;
        let mut at = self.root.clone();
        for part in path.split('/').filter(|part| !part.is_empty()) {
            at.push(part);
            match fs::symlink_metadata(&at).await {
                Ok(found) if found.is_symlink() => {
                    let text = format!("`{path}` leads over a link");
                    return Err(ApiError::new(Code::BadPath, text));
                }
                Ok(_) => {}
                // What is not there is no link.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed(path, &error)),
            }
        }
        Ok(at)
    }

    /// Where something of ours lies that belongs to a file. It may be no link either.
    async fn beside(&self, path: &str, name: &str) -> Result<PathBuf, ApiError> {
        let (directory, _) = path.rsplit_once('/').unwrap_or_default();
        self.at(&join(directory, &format!("{OURS}/{name}"))).await
    }

    async fn checkpoint_of(&self, path: &str) -> Result<PathBuf, ApiError> {
        let name = path.rsplit('/').next().unwrap_or_default();
        if name.is_empty() {
            return Err(ApiError::new(Code::BadPath, "the root has no checkpoints"));
        }
        self.beside(path, &format!("{name}.{CHECKPOINT}")).await
    }

    pub(super) async fn exists(&self, path: &str) -> bool {
        match self.at(path).await {
            Ok(at) => fs::try_exists(at).await.unwrap_or(false),
            Err(_) => false,
        }
    }

    /// What is there, as Jupyter shows it.
    pub(super) async fn model(
        &self,
        path: &str,
        kind: Option<Kind>,
        format: Option<Format>,
        with_content: bool,
    ) -> Result<Value, ApiError> {
        let at = self.at(path).await?;
        let mut model = entry(path, &at).await?;
        let is_directory = model["type"] == "directory";
        if kind.is_some_and(|kind| (kind == Kind::Directory) != is_directory) {
            let text = format!(
                "`{path}` is a {}",
                model["type"].as_str().unwrap_or_default()
            );
            return Err(ApiError::new(Code::BadField, text));
        }
        if kind == Some(Kind::File) {
            // A notebook may be looked at as the text that it is.
            model["type"] = json!(Kind::File);
        }
        if !with_content {
            return Ok(model);
        }
        if is_directory {
            model["content"] = self.list(path, &at).await?;
            model["format"] = json!(Format::Json);
            return Ok(model);
        }
        if model["size"].as_u64().unwrap_or(u64::MAX) > LONGEST as u64 {
            let text = format!("`{path}` is longer than {LONGEST} bytes");
            return Err(ApiError::new(Code::TooLarge, text));
        }
        let bytes = fs::read(&at).await.map_err(|error| failed(path, &error))?;
        let (format, mime, content) = content(path, &model["type"], format, bytes)?;
        model["format"] = json!(format);
        model["mimetype"] = json!(mime);
        model["content"] = content;
        Ok(model)
    }

    async fn list(&self, path: &str, at: &Path) -> Result<Value, ApiError> {
        let fail = |error: io::Error| failed(path, &error);
        let mut entries = fs::read_dir(at).await.map_err(fail)?;
        let mut models = Vec::new();
        while let Some(found) = entries.next_entry().await.map_err(fail)? {
            let Ok(name) = found.file_name().into_string() else {
                continue;
            };
            let below = join(path, &name);
            if is_hidden(&name) {
                continue;
            }
            // A link, a device, or gone meanwhile.
            if let Ok(model) = entry(&below, &found.path()).await {
                models.push(model);
            }
        }
        models.sort_by(|one, other| one["name"].as_str().cmp(&other["name"].as_str()));
        Ok(json!(models))
    }

    /// Makes something without a name in a directory; returns its path.
    pub(super) async fn make(
        &self,
        directory: &str,
        kind: Kind,
        ext: &str,
    ) -> Result<String, ApiError> {
        let (stem, gap, ext) = match kind {
            Kind::Notebook => ("Untitled", "", ".ipynb"),
            Kind::Directory => ("Untitled Folder", " ", ""),
            Kind::File => ("untitled", "", ext),
        };
        let path = self.free(directory, stem, gap, ext).await?;
        let content = match kind {
            Kind::Notebook => Some(empty_notebook()),
            Kind::File => Some(json!("")),
            Kind::Directory => None,
        };
        self.save(&path, kind, None, content).await?;
        Ok(path)
    }

    /// Copies a file into a directory; returns the copy's path.
    pub(super) async fn copy(&self, from: &str, directory: &str) -> Result<String, ApiError> {
        let source = self.at(from).await?;
        if entry(from, &source).await?["type"] == "directory" {
            let text = format!("`{from}` is a directory; only files are copied");
            return Err(ApiError::new(Code::BadField, text));
        }
        let name = from.rsplit('/').next().unwrap_or(from);
        let (stem, ext) = match name.rfind('.').filter(|at| *at > 0) {
            Some(at) => name.split_at(at),
            None => (name, ""),
        };
        let path = self
            .free(directory, &format!("{stem}-Copy"), "", ext)
            .await?;
        let bytes = fs::read(&source)
            .await
            .map_err(|error| failed(from, &error))?;
        self.write(&path, &bytes).await?;
        Ok(path)
    }

    /// A path in a directory that nothing has.
    async fn free(
        &self,
        directory: &str,
        stem: &str,
        gap: &str,
        ext: &str,
    ) -> Result<String, ApiError> {
        for n in 0..NAMES {
            let number = if n == 0 {
                String::new()
            } else {
                format!("{gap}{n}")
            };
            let path = super::path::check(&join(directory, &format!("{stem}{number}{ext}")))?;
            if !self.exists(&path).await {
                return Ok(path);
            }
        }
        let text = format!("there are {NAMES} files named `{stem}` already; give this one a name");
        Err(ApiError::new(Code::WrongKind, text))
    }

    /// Writes a file, or makes a directory.
    pub(super) async fn save(
        &self,
        path: &str,
        kind: Kind,
        format: Option<Format>,
        content: Option<Value>,
    ) -> Result<(), ApiError> {
        if kind == Kind::Directory {
            let at = self.at(path).await?;
            return match fs::create_dir(&at).await {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    Err(failed(path, &error))
                }
                _ => Ok(()),
            };
        }
        let missing = || ApiError::new(Code::BadField, "Missing field in JSON data: content");
        let content = content.ok_or_else(missing)?;
        let bytes = match (kind, format) {
            (Kind::Notebook, _) => {
                // As Jupyter writes notebooks: what is under version control changes by lines.
                let mut bytes = Vec::new();
                let indent = serde_json::ser::PrettyFormatter::with_indent(b" ");
                let mut writer = serde_json::Serializer::with_formatter(&mut bytes, indent);
                content
                    .serialize(&mut writer)
                    .map_err(|error| ApiError::internal(&error))?;
                bytes.push(b'\n');
                bytes
            }
            (_, Some(Format::Base64)) => {
                let text = content.as_str().ok_or_else(missing)?;
                let text: String = text.split_ascii_whitespace().collect();
                STANDARD.decode(text).map_err(|error| {
                    ApiError::new(Code::BadField, format!("`content` is not base64: {error}"))
                })?
            }
            (_, Some(Format::Json)) => content.to_string().into_bytes(),
            _ => content.as_str().ok_or_else(missing)?.as_bytes().to_vec(),
        };
        self.write(path, &bytes).await
    }

    /// Writes a whole file, or nothing of it.
    async fn write(&self, path: &str, bytes: &[u8]) -> Result<(), ApiError> {
        let fail = |error: io::Error| failed(path, &error);
        let at = self.at(path).await?;
        if path.is_empty() || fs::metadata(&at).await.is_ok_and(|found| found.is_dir()) {
            return Err(ApiError::new(
                Code::WrongKind,
                format!("`{path}` is a directory"),
            ));
        }
        let beside = format!("{}.tmp", uuid::Uuid::new_v4());
        let beside = self.beside(path, &beside).await?;
        if !fs::try_exists(at.parent().unwrap_or(&self.root))
            .await
            .map_err(fail)?
        {
            return Err(unknown(path));
        }
        make_room(&beside).await.map_err(fail)?;
        let written = async {
            fs::write(&beside, bytes).await?;
            fs::rename(&beside, &at).await
        };
        if let Err(error) = written.await {
            let _ = fs::remove_file(&beside).await;
            return Err(fail(error));
        }
        Ok(())
    }

    /// Gives something another path, with its checkpoint.
    pub(super) async fn rename(&self, from: &str, to: &str) -> Result<(), ApiError> {
        if from.is_empty() || to.is_empty() {
            return Err(ApiError::new(Code::BadPath, "the root stays where it is"));
        }
        let (source, target) = (self.at(from).await?, self.at(to).await?);
        if source == target {
            return Ok(());
        }
        if self.exists(to).await {
            let text = format!("File already exists: {to}");
            return Err(ApiError::new(Code::WrongKind, text));
        }
        fs::rename(&source, &target)
            .await
            .map_err(|error| failed(from, &error))?;
        if let (Ok(source), Ok(target)) =
            (self.checkpoint_of(from).await, self.checkpoint_of(to).await)
            && make_room(&target).await.is_ok()
        {
            // One that has none has none afterwards.
            let _ = fs::rename(source, target).await;
        }
        Ok(())
    }

    pub(super) async fn delete(&self, path: &str) -> Result<(), ApiError> {
        if path.is_empty() {
            return Err(ApiError::new(Code::BadPath, "the root cannot be deleted"));
        }
        let at = self.at(path).await?;
        let found = fs::symlink_metadata(&at)
            .await
            .map_err(|error| failed(path, &error))?;
        let removed = if found.is_dir() {
            fs::remove_dir_all(&at).await
        } else {
            if let Ok(checkpoint) = self.checkpoint_of(path).await {
                let _ = fs::remove_file(checkpoint).await;
            }
            fs::remove_file(&at).await
        };
        removed.map_err(|error| failed(path, &error))
    }

    // --- checkpoints -----------------------------------------------------------------------------------------------

    /// The checkpoints of a file: one, or none.
    pub(super) async fn checkpoints(&self, path: &str) -> Result<Value, ApiError> {
        let at = self.checkpoint_of(path).await?;
        match fs::metadata(&at).await {
            Ok(found) => Ok(json!([checkpoint(&found)])),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(json!([])),
            Err(error) => Err(failed(path, &error)),
        }
    }

    /// Makes one, in the place of the one before.
    pub(super) async fn checkpoint(&self, path: &str) -> Result<Value, ApiError> {
        let (at, to) = (self.at(path).await?, self.checkpoint_of(path).await?);
        let copied = async {
            make_room(&to).await?;
            fs::copy(&at, &to).await?;
            fs::metadata(&to).await
        };
        let found = copied.await.map_err(|error| failed(path, &error))?;
        Ok(checkpoint(&found))
    }

    /// Goes back to it.
    pub(super) async fn restore(&self, path: &str) -> Result<(), ApiError> {
        let from = self.checkpoint_of(path).await?;
        let bytes = fs::read(&from)
            .await
            .map_err(|error| failed(path, &error))?;
        self.write(path, &bytes).await
    }

    pub(super) async fn delete_checkpoint(&self, path: &str) -> Result<(), ApiError> {
        let at = self.checkpoint_of(path).await?;
        fs::remove_file(&at)
            .await
            .map_err(|error| failed(path, &error))
    }
}

/// Makes the directory that something of ours is to lie in.
async fn make_room(at: &Path) -> io::Result<()> {
    fs::create_dir_all(at.parent().unwrap_or(at)).await
}

fn checkpoint(found: &std::fs::Metadata) -> Value {
    json!({"id": CHECKPOINT, "last_modified": modified(found)})
}

fn join(directory: &str, name: &str) -> String {
    if directory.is_empty() {
        name.to_owned()
    } else {
        format!("{directory}/{name}")
    }
}

fn modified(found: &std::fs::Metadata) -> String {
    let at = found.modified().ok();
    let since = at.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    iso(since.map_or(0, |since| since.as_millis() as u64))
}

/// What is known of a file without reading it.
async fn entry(path: &str, at: &Path) -> Result<Value, ApiError> {
    let found = fs::symlink_metadata(at)
        .await
        .map_err(|error| failed(path, &error))?;
    let name = path.rsplit('/').next().unwrap_or(path);
    let kind = if found.is_dir() {
        Kind::Directory
    } else if !found.is_file() {
        return Err(unknown(path));
    } else if name.ends_with(".ipynb") {
        Kind::Notebook
    } else {
        Kind::File
    };
    Ok(json!({
        "name": name,
        "path": path,
        "type": kind,
        "created": modified(&found),
        "last_modified": modified(&found),
        "writable": true,
        "size": (kind != Kind::Directory).then_some(found.len()),
        "content": null,
        "format": null,
        "mimetype": null,
    }))
}

/// A file's content, how it is written, and what it is.
fn content(
    path: &str,
    kind: &Value,
    format: Option<Format>,
    bytes: Vec<u8>,
) -> Result<(Format, Option<&'static str>, Value), ApiError> {
    if *kind == json!(Kind::Notebook) {
        let notebook = serde_json::from_slice(&bytes).map_err(|error| {
            ApiError::new(Code::BadField, format!("`{path}` is no notebook: {error}"))
        })?;
        return Ok((Format::Json, None, notebook));
    }
    match (format, String::from_utf8(bytes)) {
        (Some(Format::Base64), Ok(text)) => Ok((
            Format::Base64,
            Some("application/octet-stream"),
            json!(STANDARD.encode(text)),
        )),
        (_, Ok(text)) => Ok((Format::Text, Some("text/plain"), json!(text))),
        (Some(Format::Text), Err(_)) => {
            let text = format!("`{path}` is not UTF-8; ask for `format=base64`");
            Err(ApiError::new(Code::BadField, text))
        }
        (_, Err(error)) => Ok((
            Format::Base64,
            Some("application/octet-stream"),
            json!(STANDARD.encode(error.as_bytes())),
        )),
    }
}

fn unknown(path: &str) -> ApiError {
    ApiError::new(
        Code::UnknownFile,
        format!("No such file or directory: {path}"),
    )
}

fn failed(path: &str, error: &io::Error) -> ApiError {
    match error.kind() {
        io::ErrorKind::NotFound => unknown(path),
        io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory => ApiError::new(
            Code::WrongKind,
            format!("`{path}` is not what is needed there"),
        ),
        io::ErrorKind::InvalidFilename => {
            ApiError::new(Code::BadPath, format!("`{path}` is no path"))
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            ApiError::new(Code::DiskFull, "the disk under the notebooks is full")
        }
        _ => ApiError::internal(error),
    }
}
