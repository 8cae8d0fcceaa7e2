//! Properties: whatever several sessions do at once, each log is gapless, whole and its own.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;

/// What one session's task does next.
#[derive(Clone, Debug)]
enum Deed {
    /// Appends events of these sizes.
    Append(Vec<usize>),
    /// Tries to append with a hole of so many before.
    AppendWithGap(u64),
    /// Appends with a cell that cannot finish, so that half of the transaction is undone.
    AppendWithBadCell(Vec<usize>),
    /// Reads everything and compares.
    Read,
    /// Has all logs trimmed to this size.
    Trim(u64),
    /// Deletes the session and begins anew under the same id.
    Recreate,
}

fn sizes() -> impl Strategy<Value = Vec<usize>> {
    let size = prop_oneof![1usize..400, LARGE - 2..LARGE + 2, LARGE..60_000];
    prop::collection::vec(size, 1..5)
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        6 => sizes().prop_map(Deed::Append),
        1 => (0u64..4).prop_map(Deed::AppendWithGap),
        2 => sizes().prop_map(Deed::AppendWithBadCell),
        3 => Just(Deed::Read),
        1 => (0u64..100_000).prop_map(Deed::Trim),
        1 => Just(Deed::Recreate),
    ]
}

/// Carries out a session's deeds, and checks against what must be there.
async fn live(store: Store, name: String, deeds: Vec<Deed>) {
    let mut key = create(&store, &name).await;
    let mut written: Vec<StoredEvent> = Vec::new();
    for deed in deeds {
        let next = written.len() as u64 + 1;
        match deed {
            Deed::Append(sizes) => {
                let batch = append(key, next, &sizes);
                written.extend(batch.events.clone());
                store.append(batch).await.unwrap();
            }
            Deed::AppendWithGap(hole) => {
                let first = if hole == 0 { next - 1 } else { next + hole };
                let result = store.append(append(key, first, &[10])).await;
                assert!(matches!(result, Err(StoreError::Gap { .. })), "{result:?}");
            }
            Deed::AppendWithBadCell(sizes) => {
                let cell = CellId::new();
                let bad = Append {
                    cells: vec![CellChange::Finished { cell, seq: next }],
                    ..append(key, next, &sizes)
                };
                let result = store.append(bad).await;
                assert!(
                    matches!(result, Err(StoreError::NoSuchCell { .. })),
                    "{result:?}"
                );
            }
            Deed::Read => {
                // Others trim meanwhile: from wherever it begins, it is gapless to the end.
                let events = read_all(&store, key, 0).await;
                assert_eq!(events, written[written.len() - events.len()..]);
            }
            Deed::Trim(bytes) => {
                let policy = TrimPolicy {
                    bytes_per_session: Some(bytes),
                    ..TrimPolicy::default()
                };
                store.trim(policy).await.unwrap();
            }
            Deed::Recreate => {
                store.delete_session(key).await.unwrap();
                key = create(&store, &name).await;
                written.clear();
            }
        }
    }
    let row = store.session(&id(&name)).await.unwrap().unwrap();
    assert_eq!(row.head, written.len() as u64);
    let events = read_all(&store, key, 0).await;
    assert_eq!(events, written[written.len() - events.len()..]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn sessions_that_do_as_they_like_at_once_have_whole_logs_of_their_own(
        lives in prop::collection::vec(prop::collection::vec(deed(), 1..12), 1..6)
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let fixture = fixture();
            let mut tasks = tokio::task::JoinSet::new();
            for (index, deeds) in lives.into_iter().enumerate() {
                let store = fixture.store.clone();
                tasks.spawn(live(store, format!("s{index}"), deeds));
            }
            tasks.join_all().await;
            fixture.reopened().await.store.close().await;
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reading_while_it_is_trimmed_never_shows_what_is_gone() {
    let fixture = fixture();
    let store = fixture.store.clone();
    let key = create(&store, "a").await;
    let done = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let reader = tokio::spawn({
        let (store, done) = (store.clone(), Arc::clone(&done));
        async move {
            let mut reads = 0;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                let events = store.read(key, 0, 1000, 8 << 20).await.unwrap();
                for found in events {
                    assert_eq!(found, event(key, found.seq, 100_000));
                }
                reads += 1;
            }
            reads
        }
    });
    for seq in 1..=300 {
        store.append(append(key, seq, &[100_000])).await.unwrap();
        if seq % 10 == 0 {
            let policy = TrimPolicy {
                bytes_per_session: Some(1 << 20),
                ..TrimPolicy::default()
            };
            store.trim(policy).await.unwrap();
        }
    }
    done.store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(reader.await.unwrap() > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_write_ahead_log_stays_bounded_while_it_is_read_and_written() {
    let fixture = fixture();
    let store = fixture.store.clone();
    let key = create(&store, "a").await;
    let reader = tokio::spawn({
        let store = store.clone();
        async move {
            // Small reads without a pause: there is hardly a moment without a reader.
            while let Ok(events) = store.read(key, 0, 10, 1 << 20).await {
                assert!(events.len() <= 10);
            }
        }
    });
    let wal = fixture.dir.path().join("evercell.db-wal");
    let sizes = [LARGE - 1; 128];
    for first in (1..).step_by(sizes.len()).take(120) {
        store.append(append(key, first, &sizes)).await.unwrap();
        let bytes = wal.metadata().unwrap().len();
        assert!(bytes < 96 << 20, "{} MiB", bytes >> 20);
    }
    store.close().await;
    reader.await.unwrap();
    assert!(!wal.exists() || wal.metadata().unwrap().len() == 0);
}
