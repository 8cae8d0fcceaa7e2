//! Trimming: what goes, what never goes, and that readers are told the truth.

use super::*;

fn older_than(at_ms: u64) -> TrimPolicy {
    TrimPolicy {
        events_older_than_ms: Some(at_ms),
        ..TrimPolicy::default()
    }
}

async fn row(store: &Store, name: &str) -> SessionRow {
    store.session(&id(name)).await.unwrap().unwrap()
}

#[tokio::test]
async fn old_events_go_and_the_log_says_where_it_begins() {
    let fixture = fixture();
    let store = &fixture.store;
    let key = create(store, "a").await;
    for seq in 1..=6 {
        let size = if seq % 2 == 0 { LARGE } else { 10 };
        store.append(append(key, seq, &[size])).await.unwrap();
    }
    let report = store.trim(older_than(4000)).await.unwrap();
    let expected = Trimmed {
        session: key,
        first: 4,
        events: 3,
        bytes: report.bytes,
    };
    assert_eq!(report.trimmed, [expected]);
    let row_now = row(store, "a").await;
    assert_eq!((row_now.first, row_now.head), (4, 6));
    let left = read_all(store, key, 0).await;
    assert_eq!(left, append(key, 4, &[LARGE, 10, LARGE]).events);
    store.trim(older_than(u64::MAX)).await.unwrap();
    let row_now = row(store, "a").await;
    assert_eq!((row_now.first, row_now.head), (7, 6));
    // It goes on where it was.
    store.append(append(key, 7, &[10])).await.unwrap();
    assert_eq!(read_all(store, key, 0).await.len(), 1);
}

#[tokio::test]
async fn events_of_a_cell_that_is_not_over_stay() {
    let fixture = fixture();
    let store = &fixture.store;
    let key = create(store, "a").await;
    let cell = CellId::new();
    store.append(append(key, 1, &[10])).await.unwrap();
    let queued = Append {
        cells: vec![CellChange::Queued {
            cell,
            key: None,
            request: "{}".into(),
            seq: 2,
        }],
        ..append(key, 2, &[10, LARGE, 10])
    };
    store.append(queued).await.unwrap();
    let everything = TrimPolicy {
        events_older_than_ms: Some(u64::MAX),
        bytes_per_session: Some(0),
        bytes_total: Some(0),
        ended_older_than_ms: None,
    };
    store.trim(everything.clone()).await.unwrap();
    assert_eq!(row(store, "a").await.first, 2);
    let finished = Append {
        cells: vec![CellChange::Finished { cell, seq: 5 }],
        ..append(key, 5, &[10])
    };
    store.append(finished).await.unwrap();
    store.trim(everything).await.unwrap();
    assert_eq!(row(store, "a").await.first, 6);
}

#[tokio::test]
async fn a_log_is_cut_to_its_size_from_its_beginning() {
    let fixture = fixture();
    let store = &fixture.store;
    let key = create(store, "a").await;
    store.append(append(key, 1, &[1000; 10])).await.unwrap();
    let policy = TrimPolicy {
        bytes_per_session: Some(3500),
        ..TrimPolicy::default()
    };
    let report = store.trim(policy.clone()).await.unwrap();
    assert_eq!((report.events, report.bytes), (7, 7000));
    assert_eq!(row(store, "a").await.first, 8);
    assert_eq!(store.trim(policy).await.unwrap().events, 0);
}

#[tokio::test]
async fn when_all_have_too_much_together_who_has_most_pays() {
    let fixture = fixture();
    let store = &fixture.store;
    let (small, large) = (create(store, "small").await, create(store, "large").await);
    store.append(append(small, 1, &[1000; 2])).await.unwrap();
    store.append(append(large, 1, &[1000; 20])).await.unwrap();
    let policy = TrimPolicy {
        bytes_total: Some(10_000),
        ..TrimPolicy::default()
    };
    store.trim(policy).await.unwrap();
    assert_eq!(row(store, "small").await.first, 1);
    assert_eq!(row(store, "large").await.first, 13);
}

#[tokio::test]
async fn trimming_gives_the_space_of_large_events_back() {
    use std::os::unix::fs::MetadataExt;
    let fixture = fixture();
    let store = &fixture.store;
    let key = create(store, "a").await;
    store.append(append(key, 1, &[1 << 20; 8])).await.unwrap();
    store.append(append(key, 9, &[1 << 20])).await.unwrap();
    store.trim(older_than(9000)).await.unwrap();
    let bulk = fixture.dir.path().join(format!("bulk/{}", key.0));
    let kept = bulk.metadata().unwrap().blocks() * 512;
    assert!(kept <= 2 << 20, "{kept} bytes are still in use");
    assert_eq!(
        read_all(store, key, 8).await,
        append(key, 9, &[1 << 20]).events
    );
}

#[tokio::test]
async fn a_session_past_its_retention_is_reported_until_it_is_deleted() {
    let fixture = fixture();
    let store = &fixture.store;
    let key = create(store, "a").await;
    create(store, "open").await;
    let ended = Append {
        state: Some(SessionState::Ended),
        active_at_ms: Some(5000),
        ..append(key, 1, &[10])
    };
    store.append(ended).await.unwrap();
    let policy = |ended_older_than_ms| TrimPolicy {
        ended_older_than_ms: Some(ended_older_than_ms),
        ..TrimPolicy::default()
    };
    assert_eq!(store.trim(policy(5000)).await.unwrap().expired, []);
    let expired = store.trim(policy(5001)).await.unwrap().expired;
    assert_eq!(expired.len(), 1);
    assert_eq!(expired[0].key, key);
    store.delete_session(key).await.unwrap();
    assert_eq!(store.trim(policy(5001)).await.unwrap().expired, []);
}

#[tokio::test]
async fn a_large_log_goes_in_steps_and_the_head_stays() {
    let fixture = fixture();
    let store = &fixture.store;
    let key = create(store, "a").await;
    for first in (1..=6000).step_by(1000) {
        store.append(append(key, first, &[60; 1000])).await.unwrap();
    }
    let report = store.trim(older_than(u64::MAX)).await.unwrap();
    assert_eq!(report.events, 6000);
    assert_eq!(report.trimmed.len(), 1);
    assert_eq!(report.trimmed[0].first, 6001);
}
