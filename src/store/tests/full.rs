//! A full disk: nothing is lost, nothing is half written, and it goes on by itself.

use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::*;

/// Appends until there is no room; returns the next seq.
async fn fill(store: &Store, key: SessionKey, mut next: Seq, sizes: &[usize]) -> Seq {
    loop {
        match store.append(append(key, next, sizes)).await {
            Ok(()) => next += sizes.len() as u64,
            Err(StoreError::Full { .. }) => return next,
            Err(error) => panic!("{error:?}"),
        }
    }
}

async fn a_full_disk_loses_nothing(dir: &Path, sizes: &[usize]) {
    let store = open(dir);
    let key = create(&store, "a").await;
    let ballast = dir.join("ballast");
    std::fs::write(&ballast, vec![0; 3 << 20]).unwrap();
    let next = fill(&store, key, 1, sizes).await;
    assert!(next > 1);
    let head = store.session(&id("a")).await.unwrap().unwrap().head;
    assert_eq!(head, next - 1);
    // Still full, and still whole.
    assert_eq!(fill(&store, key, next, sizes).await, next);
    std::fs::remove_file(&ballast).unwrap();
    // The same batch again: the same connection goes on.
    store.append(append(key, next, sizes)).await.unwrap();
    let mut after = 0;
    loop {
        let events = store.read(key, after, 100, 1 << 20).await.unwrap();
        let Some(last) = events.last() else { break };
        for found in &events {
            let size = sizes[((found.seq - 1) % sizes.len() as u64) as usize];
            assert_eq!(*found, event(key, found.seq, size));
        }
        after = last.seq;
    }
    assert_eq!(after, next + sizes.len() as u64 - 1);
    store.close().await;
    let store = open(dir);
    assert_eq!(store.session(&id("a")).await.unwrap().unwrap().head, after);
    store.close().await;
}

/// Runs a test in a small file system of its own, seen by this thread and those that it starts.
#[expect(clippy::print_stderr, reason = "what is skipped is said by name")]
fn in_a_small_file_system(test: impl AsyncFnOnce(&Path) + Send) {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: the tests of a full disk need root, to mount a small file system");
        return;
    }
    std::thread::scope(|scope| {
        let result = scope.spawn(|| {
            let dir = tempfile::tempdir().unwrap();
            // SAFETY: only this thread's view of mounts changes; it shares no file descriptors in another way than before.
            unsafe { unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::FS) }.unwrap();
            mount_change(
                "/",
                MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
            )
            .unwrap();
            mount(
                "tmpfs",
                dir.path(),
                "tmpfs",
                MountFlags::empty(),
                c"size=12m",
            )
            .unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(test(dir.path()));
            drop(runtime);
            rustix::mount::unmount(dir.path(), rustix::mount::UnmountFlags::DETACH).unwrap();
        });
        result.join().unwrap();
    });
}

#[test]
fn a_disk_that_is_full_of_small_events_loses_nothing() {
    in_a_small_file_system(async |dir| a_full_disk_loses_nothing(dir, &[300, 3000, 50]).await);
}

#[test]
fn a_disk_that_is_full_of_large_events_loses_nothing() {
    in_a_small_file_system(async |dir| {
        a_full_disk_loses_nothing(dir, &[LARGE, 300, 200_000]).await;
    });
}

#[test]
fn trimming_makes_room_on_a_full_disk() {
    in_a_small_file_system(async |dir| {
        let store = open(dir);
        let key = create(&store, "a").await;
        let next = fill(&store, key, 1, &[100_000]).await;
        let policy = TrimPolicy {
            bytes_per_session: Some(1 << 20),
            ..TrimPolicy::default()
        };
        store.trim(policy).await.unwrap();
        store.append(append(key, next, &[100_000])).await.unwrap();
        store.close().await;
    });
}
