//! Where on the host the parts of a root come from.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Where the parts of a root come from.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(in crate::sandbox::native) struct Layout {
    /// The Python environment.
    pub(super) python_env: PathBuf,
    /// The package `pykernel`.
    pub(super) pykernel: PathBuf,
    /// Where the environment's Python itself lives, outside of /usr.
    pub(super) prefixes: Vec<PathBuf>,
}

impl Layout {
    /// Finds out where everything is.
    pub(in crate::sandbox::native) fn new(python_env: &Path, pykernel: &Path) -> io::Result<Self> {
        let python_env = python_env.canonicalize()?;
        let mut prefixes = Vec::new();
        // A virtual environment refers to the Python it was made with by absolute path, so that Python keeps its path.
        match fs::read_to_string(python_env.join("pyvenv.cfg")) {
            Ok(text) => {
                let home = text.lines().find_map(|line| {
                    let (key, value) = line.split_once('=')?;
                    (key.trim() == "home").then(|| PathBuf::from(value.trim()))
                });
                if let Some(prefix) = home.as_deref().and_then(Path::parent) {
                    prefixes.push(prefix.to_owned());
                    prefixes.push(prefix.canonicalize()?);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                prefixes.push(python_env.clone());
            }
            Err(error) => return Err(error),
        }
        prefixes.dedup();
        prefixes.retain(|prefix| !prefix.starts_with("/usr"));
        Ok(Self {
            python_env,
            pykernel: pykernel.canonicalize()?,
            prefixes,
        })
    }
}
