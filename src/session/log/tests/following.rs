//! Subscriptions: each event once, in order, whatever happens meanwhile.

use std::task::Poll;

use proptest::prelude::*;

use super::*;

#[tokio::test]
async fn a_subscription_ends_when_the_log_is_closed_and_read() {
    let Fixture { log, _dir, .. } = fixture().await;
    let mut subscription = log.subscribe(0);
    let ended = Event::SessionEnded {
        reason: EndReason::Deleted,
    };
    log.append(&batch([text("a"), ended])).await.unwrap();
    log.close();
    assert_eq!(subscription.next().await.unwrap().unwrap().len(), 2);
    assert!(subscription.next().await.unwrap().is_none());
    assert_eq!(subscription.position(), 2);
    assert!(log.subscribe(2).next().await.unwrap().is_none());
}

#[tokio::test]
async fn a_subscription_waits_for_what_comes() {
    let Fixture { log, _dir, .. } = fixture().await;
    let mut subscription = log.subscribe(0);
    {
        let mut next = Box::pin(subscription.next());
        assert!(matches!(futures_util::poll!(&mut next), Poll::Pending));
        // Dropped here, without loss.
    }
    log.append(&texts(2, 10)).await.unwrap();
    let events = subscription.next().await.unwrap().unwrap();
    assert_eq!(seqs(&events), [1, 2]);
}

#[tokio::test]
async fn what_is_handed_over_at_once_is_bounded() {
    for fixture in [fixture().await, fixture_without_tail().await] {
        let Fixture { log, _dir, .. } = fixture;
        log.append(&texts(600, 10)).await.unwrap();
        log.append(&texts(3, 700_000)).await.unwrap();
        let mut subscription = log.subscribe(0);
        let mut counts = Vec::new();
        while subscription.position() < log.head() {
            counts.push(subscription.next().await.unwrap().unwrap().len());
        }
        assert_eq!(counts, [256, 256, 89, 1, 1]);
    }
}

#[tokio::test]
async fn a_reader_that_does_not_read_does_not_delay_the_log() {
    let Fixture { log, _dir, .. } = fixture().await;
    let mut slow = log.subscribe(0);
    let mut quick = log.subscribe(0);
    // Far more than memory keeps; nobody reads meanwhile, and nothing waits for that.
    for _ in 0..40 {
        log.append(&texts(20, 10_000)).await.unwrap();
    }
    for subscription in [&mut quick, &mut slow] {
        let mut next = 1;
        while next <= 800 {
            for event in subscription.next().await.unwrap().unwrap() {
                assert_eq!(event.seq, next);
                next += 1;
            }
        }
    }
}

/// What happens to a log and its readers, one after the other.
#[derive(Clone, Debug)]
enum Happening {
    /// Events of these sizes are appended.
    Append(Vec<usize>),
    /// Reader so and so takes what is there.
    Read(usize),
    /// It asks, and gives up if it would have to wait.
    GiveUp(usize),
    /// It goes away and comes back where it was.
    Reattach(usize),
}

const READERS: usize = 3;

fn happening() -> impl Strategy<Value = Happening> {
    let size = prop_oneof![1usize..200, 8_000..9_000usize, 50_000..400_000usize];
    prop_oneof![
        3 => prop::collection::vec(size, 1..8).prop_map(Happening::Append),
        2 => (0..READERS).prop_map(Happening::Read),
        1 => (0..READERS).prop_map(Happening::GiveUp),
        1 => (0..READERS).prop_map(Happening::Reattach),
    ]
}

/// A reader and what it has seen.
struct Reader {
    subscription: Subscription,
    seen: Vec<StoredEvent>,
}

impl Reader {
    fn take(&mut self, events: Option<Vec<StoredEvent>>) {
        self.seen.extend(events.expect("the log is not closed"));
    }
}

async fn happen(log: &Arc<EventLog>, happenings: Vec<Happening>) {
    let mut written = Vec::new();
    let mut readers: [_; READERS] = std::array::from_fn(|_| Reader {
        subscription: log.subscribe(0),
        seen: Vec::new(),
    });
    for happening in happenings {
        match happening {
            Happening::Append(sizes) => {
                let events = sizes.iter().map(|size| text(&"x".repeat(*size)));
                let prepared = log.prepare(&batch(events));
                written.extend(prepared.events().to_vec());
                assert_eq!(log.commit(&prepared).await.unwrap(), written.len() as Seq);
            }
            Happening::Read(reader) => {
                let reader = &mut readers[reader];
                if reader.subscription.position() < log.head() {
                    let events = reader.subscription.next().await.unwrap();
                    reader.take(events);
                }
            }
            Happening::GiveUp(reader) => {
                let reader = &mut readers[reader];
                let polled = {
                    let next = std::pin::pin!(reader.subscription.next());
                    futures_util::poll!(next)
                };
                if let Poll::Ready(events) = polled {
                    reader.take(events.unwrap());
                }
            }
            Happening::Reattach(reader) => {
                let reader = &mut readers[reader];
                reader.subscription = log.subscribe(reader.subscription.position());
            }
        }
    }
    log.close();
    for mut reader in readers {
        while let Some(events) = reader.subscription.next().await.unwrap() {
            reader.take(Some(events));
        }
        assert_eq!(reader.seen, written);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_reader_sees_every_event_once_and_in_order(
        happenings in prop::collection::vec(happening(), 1..24),
        log_events in prop_oneof![Just(0usize), Just(3), Just(512)],
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let config = MemoryConfig { log_events, log_bytes: 300_000, ..MemoryConfig::default() };
            let Fixture { log, store, _dir } = fixture_with(LogMemory::new(config)).await;
            happen(&log, happenings).await;
            store.close().await;
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_that_come_and_go_during_a_flood_see_each_event_once() {
    let Fixture { log, _dir, .. } = fixture().await;
    let mut readers = tokio::task::JoinSet::new();
    for reader in 0..4 {
        let log = Arc::clone(&log);
        readers.spawn(async move {
            let mut subscription = log.subscribe(0);
            let mut last = 0;
            while let Some(events) = subscription.next().await.unwrap() {
                for event in events {
                    assert_eq!(event.seq, last + 1);
                    last = event.seq;
                }
                if last % 7 == reader {
                    subscription = log.subscribe(last);
                }
            }
            last
        });
    }
    for round in 0..200 {
        log.append(&texts(1 + round % 5, 1 + 500 * round))
            .await
            .unwrap();
    }
    log.close();
    assert_eq!(readers.join_all().await, [log.head(); 4]);
}
