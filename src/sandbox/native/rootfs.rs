//! The file system of a sandbox: a small tmpfs, read-only, into which parts of the host are mounted read-only, and little else.
//!
//! Uses the mount calls that came with Linux 5.2 to 5.12 throughout, because they work on descriptors: parts of the host are taken as
//! detached mounts while we still may see them, and attached when we no longer do.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags,
};
use serde::{Deserialize, Serialize};

use super::step::{Step, StepError};
use super::sys;

/// Where the Python environment is in a sandbox.
pub(super) const PYTHON_ENV: &str = "/opt/evercell/python";
/// Where the package `pykernel` is found in a sandbox.
pub(super) const LIBRARY: &str = "/opt/evercell/lib";
/// Where the workspace is in a sandbox.
pub(super) const WORKSPACE: &str = "/workspace";
/// The home directory of a sandbox's user; a part of /tmp.
pub(super) const HOME: &str = "/home/user";

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

/// What else is in /etc.
const ETC: [(&str, &str); 6] = [
    (
        "passwd",
        "root:x:0:0:root:/root:/usr/sbin/nologin\nuser:x:1000:1000:user:/home/user:/bin/bash\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    ),
    ("group", "root:x:0:\nuser:x:1000:\nnogroup:x:65534:\n"),
    ("hosts", "127.0.0.1 localhost evercell\n::1 localhost\n"),
    ("hostname", "evercell\n"),
    (
        "nsswitch.conf",
        "passwd: files\ngroup: files\nhosts: files dns\n",
    ),
    ("shells", "/bin/sh\n/bin/bash\n"),
];

/// Where the parts of a root come from.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Layout {
    /// The Python environment.
    python_env: PathBuf,
    /// The package `pykernel`.
    pykernel: PathBuf,
    /// Where the environment's Python itself lives, outside of /usr.
    prefixes: Vec<PathBuf>,
}

impl Layout {
    /// Finds out where everything is.
    pub(super) fn new(python_env: &Path, pykernel: &Path) -> io::Result<Self> {
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

/// Parts of the host, taken and not yet attached.
#[derive(Debug)]
pub(super) struct Sources {
    /// Mounts, and where in the new root they go.
    mounts: Vec<Source>,
    /// Symbolic links, as the host has them.
    links: Vec<(PathBuf, PathBuf)>,
}

#[derive(Debug)]
struct Source {
    target: PathBuf,
    mount: OwnedFd,
    is_directory: bool,
}

impl Sources {
    /// Takes what a sandbox needs from the host. Needs `CAP_SYS_ADMIN` over the current mount namespace.
    pub(super) fn for_sandbox(layout: &Layout, workspace: &Path) -> Result<Self, StepError> {
        let mut taken = Self::common(layout)?;
        taken.mount(
            workspace,
            Path::new(WORKSPACE),
            MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV,
        )?;
        Ok(taken)
    }

    /// Takes what the zygote needs from the host.
    pub(super) fn for_house(layout: &Layout) -> Result<Self, StepError> {
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

/// What a root is for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Root {
    /// A sandbox.
    Sandbox {
        /// The size of /tmp.
        tmp: u64,
        /// The size of /dev/shm.
        shared_memory: u64,
    },
    /// The zygote: nothing to write to but a little /tmp and /dev/shm.
    House,
}

/// Builds the root and makes it the only file system of this mount namespace.
///
/// Everything created here belongs to the current user, who must be mapped in the user namespace that owns the mounts: to others the
/// kernel answers EOVERFLOW.
pub(super) fn enter(sources: Sources, kind: Root) -> Result<(), StepError> {
    make_private()?;
    let quiet = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    let root = filesystem(
        "tmpfs",
        &[("size", "1m"), ("nr_inodes", "256"), ("mode", "755")],
        quiet,
    )
    .step("make the root file system")?;
    // Anywhere on a directory that every host has. Everything we need from below it has been taken by now.
    rustix::mount::move_mount(
        &root,
        "",
        CWD,
        "/usr",
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )
    .step("mount the root file system")?;

    let tree = Tree { root: root.as_fd() };
    for source in &sources.mounts {
        tree.attach(source)
            .step_with(|| format!("mount {}", source.target.display()))?;
    }
    for (at, to) in &sources.links {
        tree.link(at, to)
            .step_with(|| format!("link {}", at.display()))?;
    }
    tree.fill().step("fill the root file system")?;

    if let Root::Sandbox { tmp, shared_memory } = kind {
        tree.mount_own(tmp, shared_memory)?;
    } else {
        let tmp = filesystem(
            "tmpfs",
            &[("size", "16m"), ("nr_inodes", "1024"), ("mode", "1777")],
            quiet,
        )
        .step("make /tmp")?;
        tree.put(&tmp, "tmp").step("mount /tmp")?;
        // Libraries try whether semaphores work when they are imported, and remember it in all kernels.
        let shm = filesystem(
            "tmpfs",
            &[("size", "1m"), ("nr_inodes", "64"), ("mode", "1777")],
            quiet,
        )
        .step("make /dev/shm")?;
        tree.put(&shm, "dev/shm").step("mount /dev/shm")?;
    }
    sys::restrict_mount(root.as_fd(), MountAttrFlags::MOUNT_ATTR_RDONLY, false)
        .step("make the root file system read-only")?;

    // pivot_root(2), "pivot_root(".", ".")": the old root ends up on top of the new one, from where it is taken away.
    rustix::process::fchdir(&root).step("enter the new root")?;
    rustix::process::pivot_root(".", ".").step("pivot the root")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).step("detach the host's file systems")?;
    rustix::process::chdir("/").step("enter the new root")
}

fn make_private() -> Result<(), StepError> {
    // Or what we mount shows up in the host, and what the host mounts later shows up here.
    rustix::mount::mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )
    .step("make mounts private")
}

/// A copy of a part of the file system, mounted nowhere yet, with more restrictions.
fn take(source: &Path, attributes: MountAttrFlags) -> io::Result<OwnedFd> {
    // Recursive, since without it the kernel refuses a tree from whose mounts it keeps us from taking some away (`MNT_LOCKED`).
    let mount = rustix::mount::open_tree(
        CWD,
        source,
        OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_RECURSIVE,
    )?;
    sys::restrict_mount(mount.as_fd(), attributes, true)?;
    Ok(mount)
}

/// A new file system, mounted nowhere yet.
fn filesystem(
    kind: &str,
    options: &[(&str, &str)],
    attributes: MountAttrFlags,
) -> io::Result<OwnedFd> {
    let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        rustix::mount::fsconfig_set_string(&context, *key, *value)?;
    }
    rustix::mount::fsconfig_create(&context)?;
    Ok(rustix::mount::fsmount(
        &context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        attributes,
    )?)
}

/// A /proc of the processes of this pid namespace.
fn processes() -> io::Result<OwnedFd> {
    filesystem(
        "proc",
        &[("hidepid", "ptraceable"), ("subset", "pid")],
        MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC,
    )
}

/// Tries whether parts of the host can be taken and attached in this mount namespace.
pub(super) fn try_mounts(part: &Path) -> Result<(), StepError> {
    make_private()?;
    let tree = take(part, MountAttrFlags::MOUNT_ATTR_RDONLY)
        .step_with(|| format!("take `{}`", part.display()))?;
    let root = filesystem("tmpfs", &[("size", "64k")], MountAttrFlags::empty())
        .step("make a file system")?;
    rustix::fs::mkdirat(&root, "part", Mode::from_raw_mode(0o755)).step("make a directory")?;
    rustix::mount::move_mount(
        &root,
        "",
        CWD,
        part,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )
    .step("mount a file system")?;
    rustix::mount::move_mount(
        &tree,
        "",
        &root,
        "part",
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )
    .step("mount a part of the host")
}

/// Tries whether a /proc of its own can be had in this pid namespace.
pub(super) fn try_proc() -> Result<(), StepError> {
    processes().map(drop).step("mount /proc")
}

/// The new root while it is being built, reached by its descriptor only.
struct Tree<'a> {
    root: BorrowedFd<'a>,
}

impl Tree<'_> {
    fn attach(&self, source: &Source) -> io::Result<()> {
        if source.is_directory {
            self.directories(&source.target)?;
        } else {
            self.file(&source.target, "")?;
        }
        self.put(&source.mount, inside(&source.target))
    }

    fn put(&self, mount: &OwnedFd, at: impl AsRef<Path>) -> io::Result<()> {
        Ok(rustix::mount::move_mount(
            mount,
            "",
            self.root,
            at.as_ref(),
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
        )?)
    }

    /// Makes a directory and those above it.
    fn directories(&self, path: &Path) -> io::Result<()> {
        let mut so_far = PathBuf::new();
        for part in path.components() {
            if let Component::Normal(name) = part {
                so_far.push(name);
                match rustix::fs::mkdirat(self.root, &so_far, Mode::from_raw_mode(0o755)) {
                    Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    fn file(&self, path: &Path, content: &str) -> io::Result<()> {
        if let Some(above) = path.parent() {
            self.directories(above)?;
        }
        let file = rustix::fs::openat(
            self.root,
            inside(path),
            OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC,
            Mode::from_raw_mode(0o644),
        )?;
        rustix::io::write(&file, content.as_bytes())?;
        Ok(())
    }

    fn link(&self, at: &Path, to: &Path) -> io::Result<()> {
        if let Some(above) = at.parent() {
            self.directories(above)?;
        }
        Ok(rustix::fs::symlinkat(to, self.root, inside(at))?)
    }

    /// Everything that is the same in every root.
    fn fill(&self) -> io::Result<()> {
        for directory in [
            "/dev/shm",
            "/dev/pts",
            "/proc",
            "/tmp",
            "/workspace",
            "/home",
            "/var",
            "/run",
            "/root",
        ] {
            self.directories(Path::new(directory))?;
        }
        for (name, content) in ETC {
            self.file(&Path::new("/etc").join(name), content)?;
        }
        for (at, to) in [
            ("/dev/fd", "/proc/self/fd"),
            ("/dev/stdin", "/proc/self/fd/0"),
            ("/dev/stdout", "/proc/self/fd/1"),
            ("/dev/stderr", "/proc/self/fd/2"),
            ("/dev/ptmx", "pts/ptmx"),
            ("/var/tmp", "/tmp"),
            (HOME, "/tmp/.home"),
        ] {
            self.link(Path::new(at), Path::new(to))?;
        }
        Ok(())
    }

    /// What a sandbox has for itself: /proc, /tmp, /dev/shm and terminals.
    fn mount_own(&self, tmp: u64, shared_memory: u64) -> Result<(), StepError> {
        let quiet = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
        let data = quiet | MountAttrFlags::MOUNT_ATTR_NOEXEC;

        // `subset=pid`: only processes, nothing of the machine. `hidepid`: only those one may look into, so not the agent. Mounting it
        // needs a /proc in this mount namespace of which nothing is hidden (`mount_too_revealing` in Linux' fs/namespace.c), so
        // this comes before the host's mounts go.
        let proc = processes().step("make /proc")?;
        self.put(&proc, "proc").step("mount /proc")?;

        let size = tmp.to_string();
        let inodes = (tmp / 4096).clamp(1024, 1 << 20).to_string();
        let tmp = filesystem(
            "tmpfs",
            &[("size", &size), ("nr_inodes", &inodes), ("mode", "1777")],
            quiet,
        )
        .step("make /tmp")?;
        self.put(&tmp, "tmp").step("mount /tmp")?;
        rustix::fs::mkdirat(&tmp, ".home", Mode::from_raw_mode(0o755))
            .step("make the home directory")?;

        let size = shared_memory.to_string();
        let shm = filesystem(
            "tmpfs",
            &[("size", &size), ("nr_inodes", "8192"), ("mode", "1777")],
            data,
        )
        .step("make /dev/shm")?;
        self.put(&shm, "dev/shm").step("mount /dev/shm")?;

        // Not nodev, or no terminal could be opened.
        let pts = filesystem(
            "devpts",
            &[("mode", "620"), ("ptmxmode", "666")],
            MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC,
        )
        .step("make /dev/pts")?;
        self.put(&pts, "dev/pts").step("mount /dev/pts")
    }
}

/// An absolute path of the new root, relative to it.
fn inside(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}

/// Opens a file or directory only as a place.
pub(super) fn open_place(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(
        CWD,
        path,
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

/// Whether something is there, without following a link at the end.
pub(super) fn exists(path: &Path) -> bool {
    rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW).is_ok()
}
