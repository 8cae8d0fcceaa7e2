//! Tests of the log, and what they share.

mod following;
mod memory;

use super::*;
use crate::model::event::{CellStatus, EndReason, Envelope, Event, Verdict};
use crate::model::id::CellId;
use crate::model::output::StreamName;
use crate::model::settings::Settings;
use crate::session::CellRequest;
use crate::store::{Config, NewSession, SessionState, TrimPolicy};

struct Fixture {
    _dir: tempfile::TempDir,
    store: Store,
    log: Arc<EventLog>,
}

async fn fixture() -> Fixture {
    fixture_with(LogMemory::new(MemoryConfig::default())).await
}

/// A log whose tail keeps nothing, so that everything is read from the store.
async fn fixture_without_tail() -> Fixture {
    let config = MemoryConfig {
        log_events: 0,
        ..MemoryConfig::default()
    };
    fixture_with(LogMemory::new(config)).await
}

async fn fixture_with(memory: Arc<LogMemory>) -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(Config::new(dir.path())).unwrap();
    let log = open_log(&store, memory, "a").await;
    Fixture {
        _dir: dir,
        store,
        log,
    }
}

async fn open_log(store: &Store, memory: Arc<LogMemory>, name: &str) -> Arc<EventLog> {
    let new = NewSession {
        id: name.parse().unwrap(),
        settings: Settings::default(),
        at_ms: 1,
    };
    let row = store.create_session(new).await.unwrap();
    Arc::new(EventLog::new(store.clone(), memory, &row))
}

fn text(text: &str) -> Event {
    Event::Stream {
        cell: None,
        name: StreamName::Stdout,
        text: text.to_owned(),
    }
}

fn batch(events: impl IntoIterator<Item = Event>) -> Batch {
    Batch {
        events: events.into_iter().collect(),
        ..Batch::default()
    }
}

/// As many events of this size.
fn texts(count: usize, bytes: usize) -> Batch {
    batch((0..count).map(|_| text(&"x".repeat(bytes))))
}

fn seqs(events: &[StoredEvent]) -> Vec<Seq> {
    events.iter().map(|event| event.seq).collect()
}

#[tokio::test]
async fn what_is_stored_is_an_envelope() {
    let Fixture { log, _dir, .. } = fixture().await;
    assert_eq!(
        log.append(&batch([text("a\n"), text("ü\u{1}")]))
            .await
            .unwrap(),
        2
    );
    let page = log.read(0, 10, 1000).await.unwrap();
    for (event, expected) in page.events.iter().zip(["a\n", "ü\u{1}"]) {
        let envelope: Envelope = serde_json::from_slice(&event.json).unwrap();
        assert_eq!(envelope.seq, event.seq);
        assert_eq!(envelope.event, text(expected));
        assert_eq!(serde_json::to_vec(&envelope).unwrap(), event.json);
    }
}

#[tokio::test]
async fn what_events_mean_for_cells_and_session_is_written_with_them() {
    let Fixture { log, store, _dir } = fixture().await;
    let (first, second) = (CellId::new(), CellId::new());
    let queued = |cell| Event::CellQueued {
        cell,
        code: "1".into(),
        position: 0,
        silent: false,
        origin: None,
        client: None,
    };
    let finished = Event::CellFinished {
        cell: first,
        status: CellStatus::Ok,
        cause: None,
        state: Verdict::Kept,
        execution_count: None,
        usage: None,
        variables: None,
        user_expressions: None,
        payload: vec![],
        checkpoint: None,
    };
    let written = Batch {
        requests: vec![(
            second,
            CellRequest {
                key: Some("k".into()),
                ..CellRequest::new("2")
            },
        )],
        kernel_frame: Some(9),
        is_activity: true,
        ..batch([queued(first), text("a"), queued(second), finished])
    };
    log.append(&written).await.unwrap();
    let row = store.cell(log.key(), first).await.unwrap().unwrap();
    assert_eq!((row.key, row.queued, row.finished), (None, 1, Some(4)));
    let row = store.cell_by_key(log.key(), "k").await.unwrap().unwrap();
    assert_eq!((row.cell, row.queued, row.finished), (second, 3, None));
    let id = "a".parse().unwrap();
    let row = store.session(&id).await.unwrap().unwrap();
    assert_eq!((row.head, row.kernel_frame), (4, 9));
    assert!(row.active_at_ms > 1);
    assert_eq!(row.state, SessionState::Open);
    let ended = Event::SessionEnded {
        reason: EndReason::Idle,
    };
    log.append(&batch([ended])).await.unwrap();
    let row = store.session(&id).await.unwrap().unwrap();
    assert_eq!(row.state, SessionState::Ended);
}

#[tokio::test]
async fn a_batch_without_events_moves_the_frame_and_not_the_head() {
    let Fixture { log, store, _dir } = fixture().await;
    log.append(&texts(2, 1)).await.unwrap();
    let frame = Batch {
        kernel_frame: Some(3),
        ..Batch::default()
    };
    assert_eq!(log.append(&frame).await.unwrap(), 2);
    let row = store.session(&"a".parse().unwrap()).await.unwrap().unwrap();
    assert_eq!((row.head, row.kernel_frame, log.head()), (2, 3, 2));
}

#[tokio::test]
async fn a_log_goes_on_where_it_was() {
    let Fixture { log, store, _dir } = fixture().await;
    log.append(&texts(3, 10)).await.unwrap();
    let row = store.session(&"a".parse().unwrap()).await.unwrap().unwrap();
    let memory = LogMemory::new(MemoryConfig::default());
    let again = Arc::new(EventLog::new(store, memory, &row));
    assert_eq!((again.first(), again.head()), (1, 3));
    assert_eq!(again.append(&texts(1, 10)).await.unwrap(), 4);
    let page = again.read(1, 10, 1000).await.unwrap();
    assert_eq!(seqs(&page.events), [2, 3, 4]);
}

#[tokio::test]
async fn reading_beyond_the_end_is_refused_and_at_the_end_is_empty() {
    let Fixture { log, _dir, .. } = fixture().await;
    log.append(&texts(1, 1)).await.unwrap();
    assert_eq!(
        seqs(&log.read(1, 10, 10).await.unwrap().events),
        [] as [Seq; 0]
    );
    let ahead = log.read(2, 10, 10).await;
    assert!(matches!(ahead, Err(ReadError::Ahead { head: 1 })));
    let ahead = log.subscribe(u64::MAX).next().await;
    assert!(matches!(ahead, Err(ReadError::Ahead { head: 1 })));
}

#[tokio::test]
async fn a_reader_is_told_what_was_trimmed_even_if_the_log_was_not() {
    for tells in [true, false] {
        let Fixture { log, store, _dir } = fixture_without_tail().await;
        log.append(&texts(10, 100)).await.unwrap();
        let mut subscription = log.subscribe(2);
        let policy = TrimPolicy {
            bytes_per_session: Some(500),
            ..TrimPolicy::default()
        };
        let report = store.trim(policy).await.unwrap();
        let first = report.trimmed[0].first;
        if tells {
            log.trimmed(&report.trimmed[0]);
        }
        for _ in 0..2 {
            let read = log.read(2, 10, 1000).await;
            assert!(
                matches!(read, Err(ReadError::Trimmed { first_available }) if first_available == first),
                "{read:?}"
            );
            let next = subscription.next().await;
            assert!(
                matches!(next, Err(ReadError::Trimmed { first_available }) if first_available == first),
                "{next:?}"
            );
        }
        assert_eq!(log.first(), first);
        let page = log.read(first - 1, 10, 10_000).await.unwrap();
        assert_eq!(page.events[0].seq, first);
    }
}

#[tokio::test]
async fn a_batch_that_was_refused_leaves_no_hole() {
    let Fixture { log, _dir, .. } = fixture().await;
    log.append(&texts(2, 1)).await.unwrap();
    let finished = Event::CellFinished {
        cell: CellId::new(),
        status: CellStatus::Ok,
        cause: None,
        state: Verdict::Kept,
        execution_count: None,
        usage: None,
        variables: None,
        user_expressions: None,
        payload: vec![],
        checkpoint: None,
    };
    let refused = log.append(&batch([text("a"), finished])).await;
    assert!(matches!(refused, Err(StoreError::NoSuchCell { .. })));
    assert_eq!(log.head(), 2);
    assert_eq!(log.append(&texts(2, 1)).await.unwrap(), 4);
}

#[tokio::test]
async fn an_append_that_nobody_waits_for_any_more_is_in_the_log_all_the_same() {
    let Fixture { log, _dir, .. } = fixture().await;
    let mut subscription = log.subscribe(0);
    let unwanted = texts(1, 1);
    {
        let append = std::pin::pin!(log.append(&unwanted));
        let _ = futures_util::poll!(append);
    }
    assert_eq!(seqs(&subscription.next().await.unwrap().unwrap()), [1]);
    assert_eq!(log.append(&texts(1, 1)).await.unwrap(), 2);
}

#[tokio::test]
async fn the_next_batch_can_be_prepared_while_one_is_committed() {
    let Fixture { log, _dir, .. } = fixture().await;
    let first = log.prepare(&texts(2, 10));
    let (committed, second) =
        tokio::join!(log.commit(&first), async { log.prepare(&texts(3, 10)) });
    assert_eq!(committed.unwrap(), 2);
    assert_eq!(seqs(second.events()), [3, 4, 5]);
    assert_eq!(log.head(), 2);
    assert_eq!(log.commit(&second).await.unwrap(), 5);
    assert_eq!(log.append(&texts(1, 1)).await.unwrap(), 6);
}
