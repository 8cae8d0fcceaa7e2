//! The parts of the host that a root needs, taken as detached mounts.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::mount::MountAttrFlags;

use super::layout::Layout;
use super::mounts::take;
use super::{LIBRARY, PYTHON_ENV, WORKSPACE};
use crate::sandbox::native::step::{Step, StepError};

/// What is taken from the host's /etc, read-only, as far as it is there.
const FROM_ETC: [&str; 9] = [
    "alternatives",
    "fonts",
    "ld.so.cache",
    "mime.types",
    "protocols",
    "services",
    "ssl/certs",
    "ssl/openssl.cnf",
    "magic",
];

/// The devices of a sandbox.
const DEVICES: [&str; 5] = ["null", "zero", "full", "random", "urandom"];

/// Parts of the host, taken and not yet attached.
#[derive(Debug)]
pub(in crate::sandbox::native) struct Sources {
    /// Mounts, and where in the new root they go.
    pub(super) mounts: Vec<Source>,
    /// Symbolic links, as the host has them.
    pub(super) links: Vec<(PathBuf, PathBuf)>,
}

/// One of them.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) target: PathBuf,
    pub(super) mount: OwnedFd,
    pub(super) is_directory: bool,
}

impl Sources {
    /// Takes what a sandbox needs from the host. Needs `CAP_SYS_ADMIN` over the current mount namespace.
    pub(in crate::sandbox::native) fn for_sandbox(
        layout: &Layout,
        workspace: &Path,
    ) -> Result<Self, StepError> {
        let mut taken = Self::common(layout)?;
        taken.mount(
            workspace,
            Path::new(WORKSPACE),
            MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV,
        )?;
        Ok(taken)
    }

    /// Takes what the zygote needs from the host.
    pub(in crate::sandbox::native) fn for_house(layout: &Layout) -> Result<Self, StepError> {
        let mut taken = Self::common(layout)?;
        // The zygote is in the host's pid namespace, so that it can send children into those below. Of that namespace it sees itself and
        // nobody else.
        let own = std::process::id().to_string();
        let itself = Path::new("/proc").join(&own);
        taken.mount(
            &itself,
            &itself,
            MountAttrFlags::MOUNT_ATTR_RDONLY
                | MountAttrFlags::MOUNT_ATTR_NOSUID
                | MountAttrFlags::MOUNT_ATTR_NODEV
                | MountAttrFlags::MOUNT_ATTR_NOEXEC,
        )?;
        taken
            .links
            .push((PathBuf::from("/proc/self"), PathBuf::from(own)));
        Ok(taken)
    }

    fn common(layout: &Layout) -> Result<Self, StepError> {
        let mut taken = Self {
            mounts: Vec::new(),
            links: Vec::new(),
        };
        let fixed = MountAttrFlags::MOUNT_ATTR_RDONLY
            | MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV;
        taken.mount(Path::new("/usr"), Path::new("/usr"), fixed)?;
        for name in ["/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"] {
            let path = Path::new(name);
            match fs::read_link(path) {
                Ok(to) => taken.links.push((path.to_owned(), to)),
                Err(_) if path.is_dir() => taken.mount(path, path, fixed)?,
                Err(_) => {}
            }
        }
        for prefix in &layout.prefixes {
            taken.mount(prefix, prefix, fixed)?;
        }
        taken.mount(&layout.python_env, Path::new(PYTHON_ENV), fixed)?;
        taken.mount(
            &layout.pykernel,
            &Path::new(LIBRARY).join("pykernel"),
            fixed,
        )?;
        for name in FROM_ETC {
            let path = Path::new("/etc").join(name);
            if path.exists() {
                taken.mount(&path, &path, fixed)?;
            }
        }
        if let Ok(zone) = fs::read_link("/etc/localtime")
            && zone.starts_with("/usr/share/zoneinfo")
        {
            taken.links.push((PathBuf::from("/etc/localtime"), zone));
        }
        for name in DEVICES {
            // Not nodev: these are the devices. A read-only mount does not keep a device from being written to.
            let path = Path::new("/dev").join(name);
            taken.mount(
                &path,
                &path,
                MountAttrFlags::MOUNT_ATTR_RDONLY
                    | MountAttrFlags::MOUNT_ATTR_NOSUID
                    | MountAttrFlags::MOUNT_ATTR_NOEXEC,
            )?;
        }
        Ok(taken)
    }

    fn mount(
        &mut self,
        source: &Path,
        target: &Path,
        attributes: MountAttrFlags,
    ) -> Result<(), StepError> {
        let step = || format!("take `{}` for the sandbox", source.display());
        let mount = take(source, attributes).step_with(step)?;
        let stat = rustix::fs::fstat(&mount).step_with(step)?;
        self.mounts.push(Source {
            target: target.to_owned(),
            mount,
            is_directory: rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir(),
        });
        Ok(())
    }
}
