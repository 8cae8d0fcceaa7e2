//! The token that a server makes for itself: kept, so that clients get in again after a restart.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result};

use crate::cli::hinted;
use crate::config::Token;

/// Where it is kept, below the data directory.
pub(in crate::cli) const TOKEN_FILE: &str = "token";

/// The token of a data directory; makes one if there is none.
pub(super) fn of(data_dir: &Path) -> Result<Token> {
    let file = data_dir.join(TOKEN_FILE);
    match fs::read_to_string(&file) {
        Ok(text) => Token::new(text.trim()).map_err(|error| {
            hinted(
                format!("`{}` holds no token: {error}", file.display()),
                "remove the file to have a new one made",
            )
        }),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let token = Token::random();
            write(&file, &token).with_context(|| format!("cannot write `{}`", file.display()))?;
            Ok(token)
        }
        Err(error) => Err(error).with_context(|| format!("cannot read `{}`", file.display())),
    }
}

/// Writes it whole or not at all; nobody else may read it.
fn write(file: &Path, token: &Token) -> io::Result<()> {
    let unfinished = file.with_extension("new");
    // Left by a server that died just here.
    let _ = fs::remove_file(&unfinished);
    let mut new = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&unfinished)?;
    writeln!(new, "{}", token.reveal())?;
    fs::rename(&unfinished, file)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_token_is_made_once_and_read_by_nobody_else() {
        let dir = tempfile::tempdir().unwrap();
        let token = of(dir.path()).unwrap();
        assert_eq!(of(dir.path()).unwrap(), token);
        let mode = fs::metadata(dir.path().join(TOKEN_FILE))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_file_without_a_token_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(TOKEN_FILE), "short").unwrap();
        assert!(
            of(dir.path())
                .unwrap_err()
                .to_string()
                .contains("holds no token")
        );
    }
}
