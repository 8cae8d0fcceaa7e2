//! The outbox against what it should be: one stream of bytes.

use std::collections::VecDeque;

use bytes::BytesMut;
use proptest::prelude::*;
use tokio_util::codec::Decoder;

use super::*;
use crate::protocol::codec::{Frame, FrameCodec};

/// Sends up to `most` bytes, as a connection would.
fn send(outbox: &mut Outbox, cursor: &mut Cursor, until: Option<u64>, most: usize) -> Vec<u8> {
    let mut slices = [IoSlice::new(&[]); 4];
    let filled = if outbox.has_after(*cursor) {
        outbox.slices(*cursor, until, &mut slices)
    } else {
        0
    };
    let mut sent: Vec<u8> = slices[..filled]
        .iter()
        .flat_map(|slice| slice.iter().copied())
        .collect();
    sent.truncate(most);
    outbox.advance(cursor, sent.len());
    sent
}

fn print(outbox: &mut Outbox, kind: Kind, mut text: &[u8]) {
    while !text.is_empty() {
        let room = outbox.text_room(kind);
        let length = room.len().min(text.len());
        room[..length].copy_from_slice(&text[..length]);
        outbox.commit_text(length);
        text = &text[length..];
    }
}

fn frames(wire: &[u8]) -> Vec<Frame> {
    let mut wire = BytesMut::from(wire);
    std::iter::from_fn(|| FrameCodec.decode(&mut wire).unwrap()).collect()
}

#[test]
fn text_joins_until_it_is_sent() {
    let mut outbox = Outbox::new(1 << 20);
    let mut cursor = outbox.cursor_after(0);
    print(&mut outbox, Kind::Stdout, b"a");
    print(&mut outbox, Kind::Stdout, b"b");
    print(&mut outbox, Kind::Stderr, b"c");
    let wire = send(&mut outbox, &mut cursor, None, usize::MAX);
    print(&mut outbox, Kind::Stderr, b"d");
    let wire = [wire, send(&mut outbox, &mut cursor, None, usize::MAX)].concat();
    let texts: Vec<_> = frames(&wire)
        .into_iter()
        .map(|frame| (frame.number, frame.payload))
        .collect();
    assert_eq!(texts, [(1, "ab".into()), (2, "c".into()), (3, "d".into())]);
}

#[test]
fn memory_of_what_is_stored_is_used_again() {
    let mut outbox = Outbox::new(1 << 20);
    for _ in 0..100 {
        print(&mut outbox, Kind::Stdout, &[b'x'; 500_000]);
        outbox.ack(outbox.last());
    }
    assert!(outbox.segments.len() + outbox.free.len() < 12);
    outbox.trim();
    assert_eq!((outbox.bytes, outbox.free.len()), (0, 1));
}

#[derive(Clone, Debug)]
enum Step {
    Text(bool, usize),
    Message(usize),
    Send(Option<u64>, usize),
    Ack(u64),
    Reconnect,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (any::<bool>(), 0..200_000usize).prop_map(|(kind, length)| Step::Text(kind, length)),
        4 => (any::<bool>(), 0..200usize).prop_map(|(kind, length)| Step::Text(kind, length)),
        3 => (0..300_000usize).prop_map(Step::Message),
        3 => (0..300usize).prop_map(Step::Message),
        6 => (proptest::option::of(0..4u64), 1..400_000usize).prop_map(|(until, most)| Step::Send(until, most)),
        3 => (0..4u64).prop_map(Step::Ack),
        1 => Just(Step::Reconnect),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn every_byte_comes_once_and_in_order(steps in proptest::collection::vec(step(), 1..60)) {
        let mut outbox = Outbox::new(1 << 22);
        let mut cursor = outbox.cursor_after(0);
        // What is on the wire of the current connection, and the frames that whole ones were taken from it.
        let mut wire = BytesMut::new();
        let mut stored: Vec<u8> = Vec::new();
        let mut seen: VecDeque<Frame> = VecDeque::new();
        let (mut acked, mut last_seen) = (0, 0);
        let mut written: Vec<u8> = Vec::new();
        let mut byte = 0u8;
        let finish = (0..60).map(|_| Step::Send(None, usize::MAX)).chain([Step::Ack(u64::MAX)]);
        for step in steps.into_iter().chain(finish) {
            match step {
                Step::Text(kind, length) => {
                    byte = byte.wrapping_add(1);
                    print(&mut outbox, if kind { Kind::Stdout } else { Kind::Stderr }, &vec![byte; length]);
                    written.extend(std::iter::repeat_n(byte, length));
                }
                Step::Message(length) => {
                    byte = byte.wrapping_add(1);
                    outbox.push(Kind::Message, &vec![byte; length]);
                    written.extend(std::iter::repeat_n(byte, length));
                }
                Step::Send(until, most) => {
                    let until = until.map(|ahead| cursor.number + ahead);
                    let before = cursor;
                    wire.extend_from_slice(&send(&mut outbox, &mut cursor, until, most));
                    if let Some(until) = until {
                        let bound = Cursor { number: until.max(before.number) + 1, offset: 0 };
                        prop_assert!((cursor.number, cursor.offset) <= (bound.number, bound.offset));
                    }
                    while let Some(frame) = FrameCodec.decode(&mut wire).unwrap() {
                        prop_assert_eq!(frame.number, last_seen + 1);
                        last_seen = frame.number;
                        seen.push_back(frame);
                    }
                }
                Step::Ack(back) => {
                    let to = if back == u64::MAX { last_seen } else { last_seen.saturating_sub(back) };
                    while seen.front().is_some_and(|frame| frame.number <= to) {
                        let frame = seen.pop_front().unwrap();
                        acked = frame.number;
                        stored.extend_from_slice(&frame.payload);
                    }
                    outbox.ack(acked);
                }
                Step::Reconnect => {
                    wire.clear();
                    seen.clear();
                    last_seen = acked;
                    outbox.close_text();
                    cursor = outbox.cursor_after(acked);
                    prop_assert_eq!(cursor.number, acked + 1);
                }
            }
        }
        prop_assert!(stored == written);
        prop_assert_eq!(outbox.bytes, 0);
    }
}
