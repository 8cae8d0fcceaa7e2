//! Tests of the store, and what they share.

mod full;
mod kill;
mod model;
mod opening;
mod trimming;

use std::path::Path;

use bytes::Bytes;
use tempfile::TempDir;

use super::*;
use crate::model::settings::Settings;

/// A store in a directory of its own.
struct Fixture {
    dir: TempDir,
    store: Store,
}

fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    Fixture { dir, store }
}

impl Fixture {
    /// The same directory, after a clean stop.
    async fn reopened(self) -> Self {
        self.store.close().await;
        let store = open(self.dir.path());
        Self {
            dir: self.dir,
            store,
        }
    }
}

fn open(dir: &Path) -> Store {
    Store::open(Config::new(dir)).unwrap()
}

fn id(id: &str) -> SessionId {
    id.parse().unwrap()
}

fn new_session(name: &str) -> NewSession {
    NewSession {
        id: id(name),
        settings: Settings::default(),
        at_ms: 1000,
    }
}

async fn create(store: &Store, name: &str) -> SessionKey {
    store.create_session(new_session(name)).await.unwrap().key
}

/// An event of exactly this size, different from every other.
fn event(session: SessionKey, seq: Seq, bytes: usize) -> StoredEvent {
    let mut json = format!("{{\"session\":{},\"seq\":{seq},\"text\":\"", session.0).into_bytes();
    let filler = b'a' + (seq % 26) as u8;
    json.resize(bytes.max(json.len() + 2) - 2, filler);
    json.extend_from_slice(b"\"}");
    StoredEvent {
        seq,
        json: Bytes::from(json),
    }
}

fn append(session: SessionKey, first: Seq, sizes: &[usize]) -> Append {
    let events = (first..)
        .zip(sizes)
        .map(|(seq, size)| event(session, seq, *size));
    Append {
        session,
        at_ms: first * 1000,
        events: events.collect(),
        cells: Vec::new(),
        state: None,
        kernel_frame: None,
        active_at_ms: None,
        memory: None,
    }
}

/// All events after `after`.
async fn read_all(store: &Store, session: SessionKey, after: Seq) -> Vec<StoredEvent> {
    store
        .read(session, after, usize::MAX, usize::MAX)
        .await
        .unwrap()
}

const LARGE: usize = bulk::LARGE_BYTES;

#[tokio::test]
async fn what_was_written_is_there_after_a_stop() {
    for durability in [Durability::Process, Durability::Power] {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(Config {
            durability,
            ..Config::new(dir.path())
        });
        let store = store.unwrap();
        written_is_there_after_a_stop(Fixture { dir, store }).await;
    }
}

async fn written_is_there_after_a_stop(fixture: Fixture) {
    let key = create(&fixture.store, "a").await;
    let sizes = [1, LARGE - 1, LARGE, 1 << 20, 100];
    let cell = CellId::new();
    let written = Append {
        cells: vec![CellChange::Queued {
            cell,
            key: Some("k".into()),
            request: "{}".into(),
            seq: 2,
        }],
        kernel_frame: Some(u64::MAX),
        active_at_ms: Some(7),
        ..append(key, 1, &sizes)
    };
    fixture.store.append(written.clone()).await.unwrap();
    let fixture = fixture.reopened().await;
    let row = fixture.store.session(&id("a")).await.unwrap().unwrap();
    assert_eq!((row.head, row.first), (5, 1));
    assert_eq!((row.kernel_frame, row.active_at_ms), (u64::MAX, 7));
    assert_eq!(read_all(&fixture.store, key, 0).await, written.events);
    let found = fixture.store.cell_by_key(key, "k").await.unwrap().unwrap();
    assert_eq!((found.cell, found.queued, found.finished), (cell, 2, None));
}

#[tokio::test]
async fn an_append_that_does_not_follow_the_head_writes_nothing() {
    let fixture = fixture();
    let key = create(&fixture.store, "a").await;
    fixture
        .store
        .append(append(key, 1, &[10, 10]))
        .await
        .unwrap();
    for first in [0, 1, 2, 4] {
        let error = fixture.store.append(append(key, first, &[10, LARGE])).await;
        assert!(
            matches!(error, Err(StoreError::Gap { .. })),
            "{first}: {error:?}"
        );
    }
    let mut torn = append(key, 3, &[10, 10]);
    torn.events[1].seq = 5;
    assert!(matches!(
        fixture.store.append(torn).await,
        Err(StoreError::Gap { .. })
    ));
    assert_eq!(read_all(&fixture.store, key, 0).await.len(), 2);
    fixture.store.append(append(key, 3, &[10])).await.unwrap();
}

#[tokio::test]
async fn one_bad_request_does_not_spoil_those_that_share_its_commit() {
    let fixture = fixture();
    let store = &fixture.store;
    let (a, b) = (create(store, "a").await, create(store, "b").await);
    let cell = CellId::new();
    let finishes_nothing = Append {
        cells: vec![CellChange::Finished { cell, seq: 1 }],
        ..append(a, 1, &[LARGE])
    };
    let (first, bad, second) = tokio::join!(
        store.append(append(b, 1, &[LARGE, 10])),
        store.append(finishes_nothing),
        store.append(append(b, 3, &[10])),
    );
    first.unwrap();
    assert!(matches!(bad, Err(StoreError::NoSuchCell { .. })), "{bad:?}");
    second.unwrap();
    assert_eq!(read_all(store, a, 0).await, []);
    assert_eq!(read_all(store, b, 0).await.len(), 3);
}

#[tokio::test]
async fn an_idempotency_key_names_one_cell_of_its_session() {
    let fixture = fixture();
    let store = &fixture.store;
    let (a, b) = (create(store, "a").await, create(store, "b").await);
    let queued = |session, seq| Append {
        cells: vec![CellChange::Queued {
            cell: CellId::new(),
            key: Some("k".into()),
            request: "{}".into(),
            seq,
        }],
        ..append(session, seq, &[10])
    };
    store.append(queued(a, 1)).await.unwrap();
    store.append(queued(b, 1)).await.unwrap();
    let again = store.append(queued(a, 2)).await;
    assert!(
        matches!(again, Err(StoreError::CellExists { .. })),
        "{again:?}"
    );
    assert_eq!(store.open_sessions().await.unwrap()[0].cells.len(), 1);
}

#[tokio::test]
async fn a_read_is_bounded_by_count_and_bytes_but_never_empty() {
    let fixture = fixture();
    let key = create(&fixture.store, "a").await;
    fixture
        .store
        .append(append(key, 1, &[100, 100, LARGE, LARGE, 100]))
        .await
        .unwrap();
    let read = async |after, max_events, max_bytes| {
        let events = fixture.store.read(key, after, max_events, max_bytes).await;
        events
            .unwrap()
            .iter()
            .map(|event| event.seq)
            .collect::<Vec<_>>()
    };
    assert_eq!(read(0, 2, 10_000).await, [1, 2]);
    assert_eq!(read(0, 9, 250).await, [1, 2]);
    assert_eq!(read(2, 9, 1).await, [3]);
    assert_eq!(read(2, 0, 0).await, [3]);
    assert_eq!(read(5, 9, 9).await, [] as [Seq; 0]);
    assert_eq!(read(u64::MAX, 9, 9).await, [] as [Seq; 0]);
}

#[tokio::test]
async fn sessions_are_listed_page_by_page_in_the_order_of_their_ids() {
    let fixture = fixture();
    for name in ["c", "a", "b"] {
        create(&fixture.store, name).await;
    }
    let page = fixture.store.sessions(None, 2).await.unwrap();
    let names = page.iter().map(|row| row.id.as_str()).collect::<Vec<_>>();
    assert_eq!(names, ["a", "b"]);
    let rest = fixture.store.sessions(Some(id("b")), 2).await.unwrap();
    assert_eq!(rest.len(), 1);
}

#[tokio::test]
async fn an_id_is_taken_until_its_session_is_deleted_and_keys_are_never_reused() {
    let fixture = fixture();
    let store = &fixture.store;
    let key = create(store, "a").await;
    store.append(append(key, 1, &[LARGE, 10])).await.unwrap();
    let again = store.create_session(new_session("a")).await;
    assert!(matches!(again, Err(StoreError::SessionExists { .. })));
    store.delete_session(key).await.unwrap();
    let next = store.create_session(new_session("a")).await.unwrap();
    assert_ne!(next.key, key);
    assert_ne!(next.workspace, format!("s{}", key.0));
    assert_eq!((next.head, next.first), (0, 1));
    assert_eq!(read_all(store, key, 0).await, []);
    assert!(!fixture.dir.path().join(format!("bulk/{}", key.0)).exists());
    let gone = store.append(append(key, 3, &[10])).await;
    assert!(matches!(gone, Err(StoreError::NoSuchSession(_))));
}

#[tokio::test]
async fn an_update_changes_what_it_names_and_nothing_else() {
    let fixture = fixture();
    let store = &fixture.store;
    let key = create(store, "a").await;
    let before = store.session(&id("a")).await.unwrap().unwrap();
    let update = SessionUpdate {
        active_at_ms: Some(77),
        state: Some(SessionState::Ended),
        ..SessionUpdate::default()
    };
    store.update_session(key, update).await.unwrap();
    let after = store.session(&id("a")).await.unwrap().unwrap();
    let expected = SessionRow {
        active_at_ms: 77,
        state: SessionState::Ended,
        ..before
    };
    assert_eq!(after, expected);
}

#[tokio::test]
async fn what_a_task_knows_is_kept_with_its_events_as_long_as_its_session_is_open() {
    let fixture = fixture();
    let store = &fixture.store;
    let key = create(store, "a").await;
    let cell = CellId::new();
    let queued = Append {
        cells: vec![CellChange::Queued {
            cell,
            key: None,
            request: "how".into(),
            seq: 1,
        }],
        memory: Some("first".into()),
        ..append(key, 1, &[10])
    };
    store.append(queued).await.unwrap();
    store.append(append(key, 2, &[10])).await.unwrap();
    let open = store.open_sessions().await.unwrap();
    let found = UnfinishedCell {
        cell,
        queued: 1,
        request: Some("how".into()),
    };
    assert_eq!(open[0].memory.as_deref(), Some("first"));
    assert_eq!((open[0].row.head, &open[0].cells), (2, &vec![found]));

    let refused = Append {
        memory: Some("never".into()),
        ..append(key, 9, &[10])
    };
    store.append(refused).await.unwrap_err();
    let without_events = Append {
        memory: Some("second".into()),
        ..append(key, 3, &[])
    };
    store.append(without_events).await.unwrap();
    let open = store.open_sessions().await.unwrap();
    assert_eq!(open[0].memory.as_deref(), Some("second"));

    let over = Append {
        cells: vec![CellChange::Finished { cell, seq: 3 }],
        state: Some(SessionState::Ended),
        memory: Some("never".into()),
        ..append(key, 3, &[10])
    };
    store.append(over).await.unwrap();
    assert_eq!(store.open_sessions().await.unwrap(), []);
    let again = Append {
        state: Some(SessionState::Open),
        ..append(key, 4, &[10])
    };
    store.append(again).await.unwrap();
    let open = store.open_sessions().await.unwrap();
    assert_eq!((open[0].memory.as_deref(), open[0].cells.len()), (None, 0));
}

#[tokio::test]
async fn a_closed_store_says_so() {
    let fixture = fixture();
    let key = create(&fixture.store, "a").await;
    let other = fixture.store.clone();
    fixture.store.close().await;
    assert!(matches!(
        other.append(append(key, 1, &[1])).await,
        Err(StoreError::Closed)
    ));
    assert!(matches!(
        other.session(&id("a")).await,
        Err(StoreError::Closed)
    ));
    other.close().await;
}
