//! The script of the image's plotly, which the notebook draws figures with: taken out of the image when a server starts.
//!
//! Out of a container that is made for it and never started: for that an engine needs to be asked for nothing else than for sandboxes.

use std::fs;
use std::io;

use bollard::models::ContainerCreateBody;

use super::{PLOTLY, Shared, container, name};
use crate::model::id::SandboxId;
use crate::sandbox::native::PYTHON_ENV;

impl Shared {
    /// Takes the script, so that there is that of the image as it is now; none where the image has no plotly. The notebook does without, if need be.
    pub(super) async fn take_plotly(&self) {
        let id = SandboxId::new();
        if let Err(error) = self.take_plotly_from(id).await {
            tracing::warn!(%error, "the notebook will not draw plotly's figures: the image's script cannot be had");
        }
        if let Err(error) = self.destroy(id).await {
            tracing::warn!(sandbox.id = %id, %error, "a container could not be removed");
        }
    }

    async fn take_plotly_from(&self, id: SandboxId) -> io::Result<()> {
        let name = name(id);
        let body = ContainerCreateBody {
            image: Some(self.config.image.clone()),
            labels: Some(container::labels(&self.server, id)),
            network_disabled: Some(true),
            ..ContainerCreateBody::default()
        };
        let created = self.engine.create(&name, body).await;
        self.reaper.note(id, &created);
        created?;
        let script = match self.python_version(&name).await? {
            Some(version) => {
                let script = format!(
                    "{PYTHON_ENV}/lib/python{version}/site-packages/plotly/package_data/plotly.min.js"
                );
                self.engine.file(&name, &script).await?
            }
            None => None,
        };
        let file = self.config.data_dir.join(PLOTLY);
        let Some(script) = script else {
            return match fs::remove_file(file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            };
        };
        let new = file.with_extension("new");
        fs::write(&new, script)?;
        fs::rename(new, file)
    }

    /// The version in the names of directories, such as `3.11`.
    async fn python_version(&self, container: &str) -> io::Result<Option<String>> {
        let config = format!("{PYTHON_ENV}/pyvenv.cfg");
        let config = self.engine.file(container, &config).await?;
        let config = config.unwrap_or_default();
        Ok(version_in(&String::from_utf8_lossy(&config)))
    }
}

/// The version that a `pyvenv.cfg` tells, without what does not stand in names.
fn version_in(config: &str) -> Option<String> {
    let mut lines = config.lines().filter_map(|line| line.split_once('='));
    let (_, version) = lines.find(|(key, _)| key.trim() == "version")?;
    let mut parts = version.trim().split('.');
    let (major, minor) = (parts.next()?, parts.next()?);
    let is_number = |part: &str| part.parse::<u8>().is_ok();
    (is_number(major) && is_number(minor)).then(|| format!("{major}.{minor}"))
}

/// The first file in an archive (`tar`).
pub(super) fn first_file(archive: &[u8]) -> Option<&[u8]> {
    const BLOCK: usize = 512;
    let mut rest = archive;
    loop {
        let (head, after) = rest.split_at_checked(BLOCK)?;
        let size = std::str::from_utf8(&head[124..136]).ok()?;
        let size = size.trim_matches(['\0', ' ']);
        let size = usize::from_str_radix(size, 8).ok()?;
        // Others hold what does not fit into a head, or are links and directories.
        if matches!(head[156], b'0' | 0) {
            return after.get(..size);
        }
        rest = after.get(size.checked_next_multiple_of(BLOCK)?..)?;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(kind: u8, content: &[u8]) -> Vec<u8> {
        let mut entry = vec![0; 512];
        entry[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
        entry[156] = kind;
        entry.extend(content);
        entry.resize(entry.len().next_multiple_of(512), 0);
        entry
    }

    #[test]
    fn the_file_in_an_archive_is_found_behind_what_tells_more_of_it() {
        let archive = [entry(b'x', b"30 mtime=1.5\n"), entry(b'0', b"content")].concat();
        assert_eq!(first_file(&archive), Some(&b"content"[..]));
        assert_eq!(first_file(&entry(b'5', b"")), None);
        assert_eq!(first_file(&archive[..1030]), None, "it breaks off");
    }

    #[test]
    fn the_version_in_names_is_the_first_two_parts() {
        let config = "home = /usr/bin\ninclude-system-site-packages = false\nversion = 3.11.2\n";
        assert_eq!(version_in(config).as_deref(), Some("3.11"));
        assert_eq!(version_in("version = 3/../..\n"), None);
        assert_eq!(version_in(""), None);
    }

    proptest! {
        #[test]
        fn hostile_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2048)) {
            let _ = first_file(&bytes);
        }
    }
}
