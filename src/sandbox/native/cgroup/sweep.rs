//! Removes groups that servers have left which will never come back: those whose directory is gone.
//!
//! Each server's group carries the path of the directory in which its sandboxes are written down. A sandbox is written down before its
//! group is made, so a group without one belongs to nobody. Who sees other mounts sees other directories under that path, so the group says
//! too whose mounts are meant, and nobody else judges.

use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

/// The attribute that holds the directory. Groups of both versions can have attributes of users.
const OWNER: &str = "user.evercell.run";

/// Writes down whose group this is.
pub(super) fn claim(group: &Path, run: &Path) -> io::Result<()> {
    let mut owner = mounts().into_bytes();
    owner.extend_from_slice(run.as_os_str().as_bytes());
    Ok(rustix::fs::setxattr(
        group,
        OWNER,
        &owner,
        rustix::fs::XattrFlags::empty(),
    )?)
}

/// The mount namespace of this process, as it stands before a path; see namespaces(7).
fn mounts() -> String {
    let name = fs::read_link("/proc/self/ns/mnt").unwrap_or_default();
    format!("{} ", name.display())
}

/// Looks through all servers' groups beside this one. What cannot be removed, having members or being another user's, stays.
pub(super) fn sweep(ours: &Path) {
    let Some(beside) = ours.parent().and_then(|above| fs::read_dir(above).ok()) else {
        return;
    };
    for server in beside.flatten().map(|entry| entry.path()) {
        if let Some(run) = owner(&server) {
            sweep_server(&server, &run);
        }
    }
}

fn sweep_server(server: &Path, run: &Path) {
    for group in fs::read_dir(server).into_iter().flatten().flatten() {
        let is_group = group.file_type().is_ok_and(|kind| kind.is_dir());
        if is_group && !run.join(group.file_name()).exists() {
            let _ = fs::remove_dir(group.path());
        }
    }
    if !run.exists() {
        let _ = fs::remove_dir(server);
    }
}

/// The directory of a group's server, if it is to be found under that path here.
fn owner(group: &Path) -> Option<PathBuf> {
    const LONGEST: usize = 4096;
    let mut owner = Vec::with_capacity(LONGEST);
    rustix::fs::getxattr(group, OWNER, rustix::buffer::spare_capacity(&mut owner)).ok()?;
    let path = owner.strip_prefix(mounts().as_bytes())?.to_vec();
    Some(std::ffi::OsString::from_vec(path).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_groups_without_a_sandbox_that_is_written_down_are_removed() {
        let directory = tempfile::tempdir().unwrap();
        let (run, groups) = (
            directory.path().join("run"),
            directory.path().join("groups"),
        );
        for path in [
            "run/live",
            "groups/a/live",
            "groups/a/gone",
            "groups/unclaimed/x",
        ] {
            fs::create_dir_all(directory.path().join(path)).unwrap();
        }
        claim(&groups.join("a"), &run).unwrap();
        sweep(&groups.join("mine"));
        assert!(groups.join("a/live").exists());
        assert!(!groups.join("a/gone").exists());
        assert!(groups.join("unclaimed/x").exists());
        let elsewhere = b"mnt:[1] /nowhere";
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(groups.join("unclaimed"), OWNER, elsewhere, flags).unwrap();
        sweep(&groups.join("mine"));
        assert!(groups.join("unclaimed/x").exists());

        fs::remove_dir_all(&run).unwrap();
        sweep(&groups.join("mine"));
        assert!(!groups.join("a").exists());
    }
}
