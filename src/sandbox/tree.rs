//! Trees of files that a sandbox wrote: giving them to a user, and removing them.
//!
//! What lies there is the work of hostile code, which may still run: links that are put in the place of directories meanwhile, entries that vanish,
//! ten thousands of levels. So the way goes by descriptors and follows no link, it does not recurse, and it holds two descriptors however deep it is.

use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, RawDir, SeekFrom, Stat, Uid, chownat, fchmod,
    fchown, fstat, openat, seek, unlinkat,
};
use rustix::io::Errno;

/// For a directory that is read.
const READ: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);
/// For one that may only be looked for.
const PLACE: OFlags = OFlags::PATH
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);
/// How often a directory is read from its beginning until it is empty. One that nobody writes to needs three times.
const READINGS: u32 = 16;
/// How many bytes of entries are read at once.
const BUFFER: usize = 32 * 1024;

/// Gives a directory and everything in it to a user.
pub(super) fn give_to(directory: &Path, owner: u32) -> io::Result<()> {
    let top = openat(CWD, directory, READ, Mode::empty())?;
    let (uid, gid) = user(owner);
    fchown(&top, uid, gid)?;
    walk(top, Readings::One, |at, name, kind| {
        give(at, name, kind, owner)
    })
}

/// Gives an entry to a user; what is to be gone into, if it is a directory.
fn give(
    at: BorrowedFd<'_>,
    name: &CStr,
    kind: FileType,
    owner: u32,
) -> rustix::io::Result<Option<OwnedFd>> {
    let (uid, gid) = user(owner);
    match chownat(at, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(()) => {}
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(error),
    }
    if !matches!(kind, FileType::Directory | FileType::Unknown) {
        return Ok(None);
    }
    match openat(at, name, READ, Mode::empty()) {
        Ok(below) => Ok(Some(below)),
        // It is gone, or no directory, or none any more.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        Err(error) => Err(error),
    }
}

fn user(id: u32) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(id)), Some(Gid::from_raw(id)))
}

/// Removes a directory with everything in it; a link that lies in its place, and not what it points to. Says whether this call has removed it: false, if
/// nothing was there.
///
/// # Errors
/// Something cannot be removed, or something goes on writing there.
pub fn remove(directory: &Path) -> io::Result<bool> {
    let top = match open_to_empty(CWD, directory) {
        Ok(top) => top,
        Err(Errno::NOENT) => return Ok(false),
        Err(Errno::NOTDIR | Errno::LOOP) => return unlink(CWD, directory, AtFlags::empty()),
        Err(error) => return Err(error.into()),
    };
    walk(top, Readings::UntilEmpty, |at, name, _| {
        match unlinkat(at, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => return Ok(None),
            // POSIX says EPERM for directories, Linux says EISDIR.
            Err(Errno::ISDIR | Errno::PERM) => {}
            Err(error) => return Err(error),
        }
        match unlinkat(at, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(None),
            Err(Errno::NOTEMPTY) => open_to_empty(at, name).map(Some),
            Err(error) => Err(error),
        }
    })?;
    unlink(CWD, directory, AtFlags::REMOVEDIR)
}

fn unlink(at: impl AsFd, path: &Path, flags: AtFlags) -> io::Result<bool> {
    match unlinkat(at, path, flags) {
        Ok(()) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Opens a directory of which everything is to be removed, also one that locks its owner out.
fn open_to_empty(
    at: impl AsFd,
    name: impl rustix::path::Arg + Copy,
) -> rustix::io::Result<OwnedFd> {
    let own = Mode::RWXU;
    let opened = match openat(&at, name, READ, Mode::empty()) {
        Err(Errno::ACCESS) => {
            use std::os::fd::AsRawFd as _;
            let place = openat(&at, name, PLACE, Mode::empty())?;
            // What is only a place cannot be changed but by a path.
            rustix::fs::chmod(format!("/proc/self/fd/{}", place.as_raw_fd()), own)?;
            openat(&place, c".", READ, Mode::empty())?
        }
        opened => opened?,
    };
    if Mode::from_raw_mode(fstat(&opened)?.st_mode) & own != own {
        // If that cannot be, what follows from it will tell.
        let _ = fchmod(&opened, own);
    }
    Ok(opened)
}

/// How often a directory is read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Readings {
    One,
    /// What is removed while a directory is read may make the reader pass over other entries, and what is below has to be removed before it.
    UntilEmpty,
}

/// Where a directory is read.
struct Level {
    /// Its device and number, by which it is known again on the way back.
    id: (u64, u64),
    /// Where reading goes on after what is below.
    next: u64,
    /// How many entries came since it was read from the beginning.
    entries: u64,
    readings: u32,
}

impl Level {
    fn of(directory: &OwnedFd) -> io::Result<Self> {
        Ok(Self {
            id: id(&fstat(directory)?),
            next: 0,
            entries: 0,
            readings: 1,
        })
    }
}

/// Shows each entry below a directory to `visit`, which says what is to be gone into.
fn walk(
    top: OwnedFd,
    readings: Readings,
    mut visit: impl FnMut(BorrowedFd<'_>, &CStr, FileType) -> rustix::io::Result<Option<OwnedFd>>,
) -> io::Result<()> {
    let mut buffer = vec![MaybeUninit::uninit(); BUFFER];
    let mut level = Level::of(&top)?;
    let (mut here, mut above) = (top, Vec::new());
    loop {
        let mut below = None;
        // It goes on where this descriptor stands.
        let mut entries = RawDir::new(&here, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = match entry {
                Ok(entry) => entry,
                // The directory itself is gone.
                Err(Errno::NOENT) => break,
                Err(error) => return Err(error.into()),
            };
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            level.entries += 1;
            level.next = entry.next_entry_cookie();
            below = visit(here.as_fd(), name, entry.file_type())?;
            if below.is_some() {
                break;
            }
        }
        if let Some(below) = below {
            above.push(level);
            level = Level::of(&below)?;
            here = below;
        } else if readings == Readings::UntilEmpty && level.entries > 0 {
            if level.readings == READINGS {
                return Err(io::Error::other("something goes on writing there"));
            }
            level.readings += 1;
            level.entries = 0;
            // Opened anew: where ext4 has begun to read at the end, it does not go back to the beginning.
            here = openat(&here, c".", READ, Mode::empty())?;
        } else {
            let Some(last) = above.pop() else {
                return Ok(());
            };
            here = openat(&here, c"..", READ, Mode::empty())?;
            if id(&fstat(&here)?) != last.id {
                return Err(io::Error::other("something moves directories there"));
            }
            seek(&here, SeekFrom::Start(last.next))?;
            level = last;
        }
    }
}

fn id(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

    use rustix::fs::mkdirat;

    use super::*;

    /// Deeper than a path can be, than a process has descriptors, and than a stack would go.
    const DEEP: usize = 30_000;

    fn owner(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().uid()
    }

    /// A user to whom files can be given here: only root can give to another.
    fn somebody() -> u32 {
        match rustix::process::geteuid().as_raw() {
            0 => 0x7000_0001,
            other => other,
        }
    }

    /// So many directories, each in the one before, with a file in each.
    fn dig(top: &Path, depth: usize) {
        let mut here = openat(CWD, top, READ, Mode::empty()).unwrap();
        for _ in 0..depth {
            mkdirat(&here, c"d", Mode::RWXU).unwrap();
            here = openat(&here, c"d", READ, Mode::empty()).unwrap();
        }
        openat(&here, c"file", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).unwrap();
    }

    /// The owners of what [`dig`] has made, from above.
    fn dug(top: &Path) -> Vec<u32> {
        let mut here = openat(CWD, top, READ, Mode::empty()).unwrap();
        let mut owners = Vec::new();
        while let Ok(below) = openat(&here, c"d", READ, Mode::empty()) {
            here = below;
            owners.push(fstat(&here).unwrap().st_uid);
        }
        let file = rustix::fs::statat(&here, c"file", AtFlags::empty());
        owners.push(file.unwrap().st_uid);
        owners
    }

    #[test]
    fn a_tree_of_any_depth_is_given_and_removed() {
        let directory = tempfile::tempdir().unwrap();
        let tree = directory.path().join("tree");
        fs::create_dir(&tree).unwrap();
        dig(&tree, DEEP);
        give_to(&tree, somebody()).unwrap();
        let owners = dug(&tree);
        assert_eq!(owners.len(), DEEP + 1);
        assert!(owners.iter().all(|owner| *owner == somebody()));
        assert!(remove(&tree).unwrap());
        assert!(!tree.exists());
        assert!(!remove(&tree).unwrap(), "nothing is left to be removed");
    }

    #[test]
    fn links_are_given_and_removed_and_not_what_they_point_to() {
        let directory = tempfile::tempdir().unwrap();
        let (tree, host) = (directory.path().join("tree"), directory.path().join("host"));
        for made in [&tree, &host] {
            fs::create_dir(made).unwrap();
        }
        let kept = host.join("kept");
        fs::write(&kept, "").unwrap();
        symlink(&host, tree.join("to-a-directory")).unwrap();
        symlink(&kept, tree.join("to-a-file")).unwrap();
        let before = owner(&kept);
        give_to(&tree, somebody()).unwrap();
        assert_eq!(owner(&tree.join("to-a-directory")), somebody());
        assert_eq!([owner(&host), owner(&kept)], [before; 2]);
        // Not as what is to be given away, either.
        assert!(give_to(&tree.join("to-a-directory"), somebody()).is_err());
        assert!(remove(&tree.join("to-a-directory")).unwrap());
        assert!(remove(&tree).unwrap());
        assert!(kept.exists());
    }

    #[test]
    fn a_link_that_takes_the_place_of_a_directory_meanwhile_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let (tree, host) = (directory.path().join("tree"), directory.path().join("host"));
        for made in [&tree, &host, &tree.join("d")] {
            fs::create_dir(made).unwrap();
        }
        fs::write(host.join("kept"), "").unwrap();
        // Between the look at the entry and the way into it.
        let top = openat(CWD, &tree, READ, Mode::empty()).unwrap();
        let mut seen = 0;
        walk(top, Readings::One, |at, name, kind| {
            seen += 1;
            fs::rename(tree.join("d"), directory.path().join("away")).unwrap();
            symlink(&host, tree.join("d")).unwrap();
            give(at, name, kind, somebody())
        })
        .unwrap();
        assert_eq!(seen, 1);
        assert_eq!(owner(&tree.join("d")), somebody());
        assert_eq!(
            [owner(&host), owner(&host.join("kept"))],
            [owner(directory.path()); 2]
        );
    }

    #[test]
    fn a_directory_that_is_moved_meanwhile_leads_nowhere_else() {
        let directory = tempfile::tempdir().unwrap();
        let tree = directory.path().join("tree");
        fs::create_dir_all(tree.join("d")).unwrap();
        let top = openat(CWD, &tree, READ, Mode::empty()).unwrap();
        let walked = walk(top, Readings::One, |at, name, _| {
            let below = openat(at, name, READ, Mode::empty())?;
            fs::rename(tree.join("d"), directory.path().join("away")).unwrap();
            Ok(Some(below))
        });
        let error = walked.unwrap_err().to_string();
        assert_eq!(error, "something moves directories there");
    }

    #[test]
    fn entries_that_vanish_or_come_meanwhile_are_no_error() {
        let directory = tempfile::tempdir().unwrap();
        let tree = directory.path().join("tree");
        for n in 0..2000 {
            fs::create_dir_all(tree.join(format!("{n}/below"))).unwrap();
        }
        let there = std::sync::Barrier::new(2);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                there.wait();
                for n in (0..2000).rev() {
                    let _ = fs::remove_dir_all(tree.join(n.to_string()));
                }
            });
            there.wait();
            give_to(&tree, somebody()).unwrap();
        });
        fs::create_dir_all(tree.join("again")).unwrap();
        assert!(remove(&tree).unwrap());
    }

    #[test]
    fn a_directory_that_locks_its_owner_out_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let tree = directory.path().join("tree");
        fs::create_dir_all(tree.join("locked/below")).unwrap();
        let nothing = fs::Permissions::from_mode(0o000);
        fs::set_permissions(tree.join("locked"), nothing).unwrap();
        assert!(remove(&tree).unwrap());
    }
}
