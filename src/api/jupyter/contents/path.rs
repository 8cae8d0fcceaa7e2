//! What an address below `/api/contents` means.

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::request::Parts;

use crate::api::error::{ApiError, Code};
use crate::api::extract::workspace_path;

/// A file, or what belongs to it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A file or directory; the root is empty.
    File(String),
    /// Its checkpoints.
    Checkpoints(String),
    /// Its one checkpoint.
    Checkpoint(String),
}

/// The place that the address names.
pub(super) struct PlacePath(pub(super) Place);

impl<S: Send + Sync> FromRequestParts<S> for PlacePath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let params = RawPathParams::from_request_parts(parts, state)
            .await
            .map_err(|rejection| ApiError::new(Code::BadPath, rejection.body_text()))?;
        let path = params.iter().find(|(name, _)| *name == "path");
        place(path.map_or("", |(_, path)| path)).map(Self)
    }
}

fn place(path: &str) -> Result<Place, ApiError> {
    if let Some(file) = path.strip_suffix("/checkpoints/checkpoint") {
        return check(file).map(Place::Checkpoint);
    }
    if let Some(file) = path.strip_suffix("/checkpoints") {
        return check(file).map(Place::Checkpoints);
    }
    check(path).map(Place::File)
}

/// Checks a path of a client; the root is empty.
///
/// # Errors
/// It leads elsewhere, or into what is ours.
pub(super) fn check(path: &str) -> Result<String, ApiError> {
    let path = path.trim_matches('/');
    if path.is_empty() {
        return Ok(String::new());
    }
    let path = workspace_path(path)?;
    if path.split('/').any(super::files::is_hidden) {
        let text = format!("`{path}` is hidden");
        return Err(ApiError::new(Code::UnknownFile, text));
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_a_file_or_what_belongs_to_it() {
        for (path, expected) in [
            ("", Place::File(String::new())),
            ("/a b.ipynb", Place::File("a b.ipynb".to_owned())),
            ("a/b/checkpoints", Place::Checkpoints("a/b".to_owned())),
            (
                "a/b/checkpoints/checkpoint",
                Place::Checkpoint("a/b".to_owned()),
            ),
        ] {
            assert_eq!(place(path).unwrap(), expected);
        }
        for bad in [
            "../a",
            "a/../../b",
            "a//b",
            ".evercell/x",
            "a\0",
            "a/.evercell/b/checkpoints",
        ] {
            assert!(place(bad).is_err(), "{bad}");
        }
    }
}
