//! Tests of the log.

use super::*;
use crate::model::event::{EndReason, Envelope, Event};
use crate::model::output::StreamName;
use crate::model::settings::Settings;
use crate::store::{Config, NewSession};

pub(super) struct Fixture {
    _dir: tempfile::TempDir,
    pub(super) store: Store,
    pub(super) log: Arc<EventLog>,
}

pub(super) async fn fixture() -> Fixture {
    fixture_with(MemoryConfig::default()).await
}

pub(super) async fn fixture_with(config: MemoryConfig) -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(Config::new(dir.path())).unwrap();
    let new = NewSession {
        id: "a".parse().unwrap(),
        settings: Settings::default(),
        at_ms: 1,
    };
    let row = store.create_session(new).await.unwrap();
    let log = EventLog::new(store.clone(), LogMemory::new(config), &row);
    Fixture {
        _dir: dir,
        store,
        log: Arc::new(log),
    }
}

pub(super) fn text(text: &str) -> Event {
    Event::Stream {
        cell: None,
        name: StreamName::Stdout,
        text: text.to_owned(),
    }
}

pub(super) fn batch(events: impl IntoIterator<Item = Event>) -> Batch {
    Batch {
        events: events.into_iter().collect(),
        ..Batch::default()
    }
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
}
