//! What logs keep in memory is bounded, and given back.

use super::*;

async fn append(log: &EventLog, batches: usize) {
    for _ in 0..batches {
        log.append(&texts(1, 9_000)).await.unwrap();
    }
}

#[tokio::test]
async fn recent_events_are_kept_within_bounds_and_given_back() {
    let memory = LogMemory::new(MemoryConfig {
        log_bytes: 100_000,
        total_bytes: 150_000,
        least_bytes: 10_000,
        ..MemoryConfig::default()
    });
    let Fixture { log, store, _dir } = fixture_with(Arc::clone(&memory)).await;
    append(&log, 20).await;
    assert!(memory.used() <= 10_000, "nobody follows: {}", memory.used());
    let follower = log.subscribe(0);
    append(&log, 20).await;
    let one = memory.used();
    assert!((80_000..=100_000).contains(&one), "{one}");
    let other = open_log(&store, Arc::clone(&memory), "b").await;
    let other_follower = other.subscribe(0);
    append(&other, 20).await;
    // Scarce: the second has what is left.
    assert!(memory.used() <= 150_000, "{}", memory.used());
    assert!(memory.used() > one + 10_000);
    drop((follower, other_follower));
    log.append(&texts(1, 10)).await.unwrap();
    other.append(&texts(1, 10)).await.unwrap();
    assert!(memory.used() <= 20_000, "{}", memory.used());
    drop((log, other));
    store.close().await;
    assert_eq!(memory.used(), 0);
}

#[tokio::test]
async fn a_small_event_does_not_hold_a_large_buffer() {
    let memory = LogMemory::new(MemoryConfig {
        buffers: 1,
        ..MemoryConfig::default()
    });
    let Fixture { log, _dir, .. } = fixture_with(Arc::clone(&memory)).await;
    let large = log.prepare(&texts(1, 1_000_000));
    drop(large);
    let capacity = memory.buffer().capacity();
    assert!(capacity >= 1_000_000, "it is used again: {capacity}");
    let small = log.prepare(&texts(1, 10));
    assert!(
        memory.buffer().capacity() >= 1_000_000,
        "it is back already"
    );
    drop(small);
}

#[tokio::test]
async fn nobody_follows_and_a_large_batch_is_not_kept() {
    let memory = LogMemory::new(MemoryConfig::default());
    let Fixture { log, _dir, .. } = fixture_with(Arc::clone(&memory)).await;
    // Its last event is small, but would keep the buffer of all.
    log.append(&batch([text(&"x".repeat(1_000_000)), text("a")]))
        .await
        .unwrap();
    assert_eq!(memory.used(), 0);
}
