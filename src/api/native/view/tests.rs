//! Logs made up by hand and by chance, and what a reader is sent of them.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::terminal::plain;
use super::*;

/// An event of a log that is made up.
#[derive(Clone, Debug)]
enum Made {
    Text(StreamName, String),
    Started,
    Finished,
    Shown,
}

fn cell(number: u128) -> CellId {
    uuid::Uuid::from_u128(number).to_string().parse().unwrap()
}

/// A log: cells one after the other.
fn log(made: &[Made]) -> Vec<StoredEvent> {
    let mut running = 1;
    let mut events = Vec::new();
    for (seq, made) in (1..).zip(made) {
        let mut json = match made {
            Made::Text(name, text) => json!({"event": "stream", "name": name, "text": text}),
            Made::Started => {
                running += 1;
                json!({"event": "cell_started"})
            }
            Made::Finished => json!({"event": "cell_finished"}),
            Made::Shown => json!({"event": "display_data", "name": "no stream"}),
        };
        (json["seq"], json["at_ms"]) = (seq.into(), (1000 + seq).into());
        json["cell"] = cell(running).to_string().into();
        events.push(StoredEvent {
            seq,
            json: json.to_string().into(),
        });
    }
    events
}

fn out(text: &str) -> Made {
    Made::Text(StreamName::Stdout, text.to_owned())
}

/// What a reader is sent who comes when all is written.
fn late(made: &[Made], bounds: Bounds) -> Vec<Value> {
    let mut view = View::new(bounds);
    log(made)
        .into_iter()
        .for_each(|event| view.push_late(event));
    view.flush();
    view.take().iter().map(parse).collect()
}

fn parse(event: &StoredEvent) -> Value {
    let json: Value = serde_json::from_slice(&event.json).unwrap();
    assert_eq!(json["seq"], event.seq);
    json
}

#[test]
fn a_thousand_updates_of_a_progress_bar_are_one_event_for_who_comes_late() {
    let mut made = vec![Made::Started];
    made.extend((0..=1000).map(|n| out(&format!("\r{n:4} of 1000"))));
    made.push(Made::Finished);
    let sent = late(&made, Bounds::default());
    assert_eq!(sent.len(), 3);
    assert_eq!(sent[1]["text"], "\r1000 of 1000");
    assert_eq!(
        (&sent[1]["from"], &sent[1]["bytes"]),
        (&json!(0), &json!(1001 * 13))
    );
    assert_eq!(
        (&sent[1]["seq"], &sent[1]["at_ms"]),
        (&json!(1002), &json!(2002))
    );
}

#[test]
fn of_a_flood_the_head_and_the_tail_are_sent_and_how_much_lies_between() {
    let mut made = vec![Made::Started];
    made.extend((0..100_000).map(|n| out(&format!("line {n}\n"))));
    made.push(Made::Finished);
    let sent = late(&made, Bounds::default());
    let shapes: Vec<_> = sent
        .iter()
        .map(|event| event["event"].as_str().unwrap())
        .collect();
    assert_eq!(
        shapes,
        [
            "cell_started",
            "stream",
            "elided",
            "stream",
            "cell_finished"
        ]
    );
    let text = |event: &Value| event["text"].as_str().unwrap().to_owned();
    let (head, tail, elided) = (text(&sent[1]), text(&sent[3]), &sent[2]);
    assert!(head.starts_with("line 0\n") && tail.ends_with("line 99999\n"));
    assert!((200_000..=262_144).contains(&head.len()), "{}", head.len());
    assert!((32_000..40_000).contains(&tail.len()), "{}", tail.len());
    let stream = &elided["streams"][0];
    assert_eq!(
        (&stream["name"], stream["from"].as_u64()),
        (&json!("stdout"), Some(head.len() as u64))
    );
    let whole: usize = (0..100_000).map(|n| format!("line {n}\n").len()).sum();
    let elided_bytes = usize::try_from(stream["bytes"].as_u64().unwrap()).unwrap();
    assert_eq!(head.len() + elided_bytes + tail.len(), whole);
    assert_eq!(
        elided["first_seq"].as_u64(),
        sent[1]["seq"].as_u64().map(|seq| seq + 1)
    );
}

#[test]
fn who_is_up_to_date_gets_every_event_as_it_is() {
    let mut made = vec![Made::Started];
    made.extend((0..5000).map(|_| out(&"\rx".repeat(100))));
    made.extend((0..100).map(|_| out(&"y".repeat(1000))));
    let mut events = log(&made);
    let late = events.split_off(5001);
    let mut view = View::new(Bounds::default());
    for event in &events {
        view.push_current(event.clone());
    }
    assert_eq!(view.take(), events);
    // Who falls behind after that has had the head already.
    late.into_iter().for_each(|event| view.push_late(event));
    view.flush();
    let sent: Vec<_> = view.take().iter().map(parse).collect();
    assert_eq!(sent[0]["event"], "elided");
    assert_eq!(sent[0]["streams"][0]["from"], 5000 * 200);
}

#[test]
fn a_single_event_is_sent_byte_by_byte_as_it_is_stored() {
    let events = log(&[out("one"), Made::Shown, out("two"), Made::Finished]);
    let mut view = View::new(Bounds::default());
    events
        .iter()
        .for_each(|event| view.push_late(event.clone()));
    view.flush();
    assert_eq!(view.take(), events);
}

#[test]
fn a_reader_who_began_within_a_cell_is_not_told_a_place_that_is_not_known() {
    let made = vec![out(&"x".repeat(1000)); 10];
    let bounds = Bounds {
        head: 2000,
        tail: 2000,
    };
    let sent = late(&made, bounds);
    let elided = sent
        .iter()
        .find(|event| event["event"] == "elided")
        .unwrap();
    assert_eq!(elided["streams"][0].get("from"), None);
}

fn made() -> impl Strategy<Value = Vec<Made>> {
    let text = prop_oneof![
        3 => "[a-c\n]{0,30}",
        2 => "\r[a-c]{0,12}",
        1 => "[é日\r\n]{0,4}",
        1 => "\u{1b}\\[[0-2]?[ABCKm]",
        1 => "[\u{1b}\\[]{0,2}",
        1 => "[a-c]{0,20000}",
    ];
    let name = prop_oneof![3 => Just(StreamName::Stdout), 1 => Just(StreamName::Stderr)];
    let event = prop_oneof![
        20 => (name, text).prop_map(|(name, text)| Made::Text(name, text)),
        1 => Just(Made::Started),
        1 => Just(Made::Finished),
        1 => Just(Made::Shown),
    ];
    proptest::collection::vec(event, 0..80)
}

/// Reads a log with moments at which the reader has caught up.
fn read(events: &[StoredEvent], caught_up: &[bool], bounds: Bounds) -> Vec<StoredEvent> {
    let mut view = View::new(bounds);
    for (event, caught_up) in events
        .iter()
        .zip(caught_up.iter().chain(std::iter::repeat(&false)))
    {
        if *caught_up {
            view.flush();
            view.push_current(event.clone());
        } else {
            view.push_late(event.clone());
        }
    }
    view.flush();
    assert!(!view.is_pending());
    view.take()
}

proptest! {
    #[test]
    fn what_is_sent_stands_for_the_whole_log(
        made in made(), caught_up in proptest::collection::vec(any::<bool>(), 0..20),
        head in prop_oneof![0_usize..2000, Just(usize::MAX / 2)], tail in 0_usize..2000,
    ) {
        let events = log(&made);
        let sent = read(&events, &caught_up, Bounds { head, tail });
        let mut before = 0;
        // What each cell has written to each stream, as it is in the log, and as it was sent.
        let mut written = std::collections::BTreeMap::<(String, String), String>::new();
        let mut shown = written.clone();
        let mut has_gap = false;
        let mut began_within = true;
        for event in &sent {
            prop_assert!(event.seq > before);
            let covered = &events[usize::try_from(before).unwrap()..usize::try_from(event.seq).unwrap()];
            before = event.seq;
            let json = parse(event);
            let key = |json: &Value| (json["cell"].to_string(), json["name"].to_string());
            match json["event"].as_str().unwrap() {
                "stream" => {
                    let begins = written.get(&key(&json)).map_or(0, String::len) as u64;
                    let bytes: usize = covered.iter().map(|one| parse(one)["text"].as_str().unwrap().len()).sum();
                    // Who was sent less than was written is told so, and where it was.
                    prop_assert_eq!(json["bytes"].as_u64().unwrap_or(json["text"].as_str().unwrap().len() as u64), bytes as u64);
                    if json.get("bytes").is_some() {
                        prop_assert_eq!(json["from"].as_u64(), (!began_within).then_some(begins));
                    }
                    for one in covered.iter().map(parse) {
                        prop_assert_eq!(&one["event"], "stream");
                        prop_assert_eq!(key(&one), key(&json));
                        written.entry(key(&one)).or_default().push_str(one["text"].as_str().unwrap());
                    }
                    shown.entry(key(&json)).or_default().push_str(json["text"].as_str().unwrap());
                }
                "elided" => {
                    has_gap = true;
                    prop_assert_eq!(json["first_seq"].as_u64(), Some(covered[0].seq));
                    for stream in json["streams"].as_array().unwrap() {
                        let place = (json["cell"].to_string(), stream["name"].to_string());
                        let from = stream["from"].as_u64();
                        if began_within {
                            prop_assert_eq!(from, None);
                        } else {
                            prop_assert_eq!(from, Some(written.get(&place).map_or(0, String::len) as u64));
                        }
                    }
                    let mut bytes = 0;
                    for one in covered.iter().map(parse) {
                        prop_assert_eq!(&one["event"], "stream");
                        prop_assert_eq!(&one["cell"], &json["cell"]);
                        let text = one["text"].as_str().unwrap();
                        bytes += text.len() as u64;
                        written.entry(key(&one)).or_default().push_str(text);
                    }
                    let told: u64 = json["streams"].as_array().unwrap().iter().map(|stream| stream["bytes"].as_u64().unwrap()).sum();
                    prop_assert_eq!(told, bytes);
                }
                kind => {
                    began_within = began_within && kind != "cell_started";
                    prop_assert_eq!(std::slice::from_ref(event), covered);
                }
            }
        }
        prop_assert_eq!(before, events.len() as u64);
        if !has_gap {
            for (place, text) in written {
                let whole = plain(&text, 1 << 20).preview;
                prop_assert_eq!(whole, plain(&shown[&place], 1 << 20).preview);
            }
        }
        if head > 1 << 20 {
            prop_assert!(!has_gap);
        }
    }

    #[test]
    fn what_waits_is_bounded(made in made(), head in 0_usize..2000, tail in 0_usize..2000) {
        let mut view = View::new(Bounds { head, tail });
        for event in log(&made) {
            view.push_late(event);
            // Two pieces may be longer than they should: each is at least an event.
            let waits: usize = view.pieces.iter().map(Piece::cost).sum();
            prop_assert_eq!(waits, view.cost);
            let longest = 2 * (PIECE + 20_000 + OVERHEAD);
            prop_assert!(waits <= head + tail + longest);
        }
    }
}
