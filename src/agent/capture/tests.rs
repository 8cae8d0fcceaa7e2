//! The ring and the pipes, with contents that no honest kernel would write.

use proptest::prelude::*;

use super::*;
use crate::agent::tests::Writer;

fn capture() -> (Capture, Writer) {
    let (capture, ends) = Capture::create().unwrap();
    let writer = Writer::new(ends.ring, ends.doorbell, ends.space);
    (capture, writer)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

/// Reads until nothing more comes, or the kernel is to be killed.
fn drain(capture: &mut Capture, outbox: &mut Outbox) -> Result<(), Violation> {
    for _ in 0..10_000 {
        outbox.ack(outbox.last());
        if !capture.pump(outbox, &mut |_| Ok(None))? {
            return Ok(());
        }
    }
    panic!("it comes to an end");
}

#[test]
fn a_record_may_lie_across_the_end_of_the_ring() {
    let runtime = runtime();
    let _guard = runtime.enter();
    let (mut capture, writer) = capture();
    let mut outbox = Outbox::new(1 << 24);
    let mut sent = 0;
    for length in (1000..200_000).step_by(7919).cycle().take(200) {
        let payload: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
        writer.put(3, 0, &payload);
        capture.pump(&mut outbox, &mut |_| Ok(None)).unwrap();
        sent += 1;
        assert_eq!(outbox.last(), sent);
        let mut slices = [io::IoSlice::new(&[])];
        let cursor = outbox.cursor_after(sent - 1);
        outbox.slices(cursor, None, &mut slices);
        assert!(slices[0][16..] == payload);
        outbox.ack(sent);
    }
}

#[test]
fn a_message_without_end_is_a_violation() {
    let runtime = runtime();
    let _guard = runtime.enter();
    let (mut capture, writer) = capture();
    let mut outbox = Outbox::new(1 << 24);
    let part = vec![0; 512 * 1024 - 8];
    let mut result = Ok(());
    for _ in 0..200 {
        writer.put(3, 1, &part);
        result = drain(&mut capture, &mut outbox);
        if result.is_err() {
            break;
        }
    }
    assert_eq!(result, Err(Violation::Message(MAX_MESSAGE)));
}

#[test]
fn a_full_outbox_stops_reading() {
    let runtime = runtime();
    let _guard = runtime.enter();
    let (mut capture, writer) = capture();
    let mut outbox = Outbox::new(1000);
    for _ in 0..3 {
        writer.put(1, 0, &[b'x'; 900]);
    }
    assert!(!capture.pump(&mut outbox, &mut |_| Ok(None)).unwrap());
    assert!(outbox.is_full());
    assert!(capture.ring.has_data());
    outbox.ack(outbox.last());
    drain(&mut capture, &mut outbox).unwrap();
    assert!(!capture.ring.has_data());
}

#[test]
fn a_message_longer_than_the_outbox_is_taken_in_whole() {
    let runtime = runtime();
    let _guard = runtime.enter();
    let (mut capture, writer) = capture();
    let mut outbox = Outbox::new(1000);
    for flags in [1, 1, 0] {
        writer.put(3, flags, &[b'x'; 900]);
    }
    writer.put(1, 0, b"text");
    assert!(!capture.pump(&mut outbox, &mut |_| Ok(None)).unwrap());
    // Nothing of it was stored yet, and what follows waits until it is.
    assert_eq!((outbox.last(), outbox.is_full()), (3, true));
    outbox.ack(3);
    drain(&mut capture, &mut outbox).unwrap();
    assert_eq!(outbox.last(), 4);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn whatever_lies_in_the_ring_nothing_panics(
        records in proptest::collection::vec((0u32..3_000_000, any::<u8>(), 0u8..3, 0usize..600), 1..40),
        claim in prop_oneof![Just(0u64), 0u64..2_000_000, any::<u64>()],
    ) {
        let runtime = runtime();
        let _guard = runtime.enter();
        let (mut capture, writer) = capture();
        let mut outbox = Outbox::new(1 << 20);
        let mut head = 0u64;
        for (length, kind, flags, really) in records {
            // Mostly honest lengths, so that it gets past the first record.
            let length = if length % 4 == 0 { length } else { really as u32 };
            let mut record = length.to_le_bytes().to_vec();
            record.extend_from_slice(&[kind % 7, flags, 0, 0]);
            record.resize(8 + really, kind);
            writer.poke(head, &record);
            head += record.len() as u64;
        }
        writer.word(64).store(head.wrapping_add(claim), std::sync::atomic::Ordering::SeqCst);
        let _ = drain(&mut capture, &mut outbox);
        // And the rest of it, when the kernel is dead.
        for _ in 0..10_000 {
            outbox.ack(outbox.last());
            if capture.pump_rest(&mut outbox, &mut |_| Ok(None)) == Ok(false) {
                break;
            }
        }
        prop_assert!(outbox.bytes_held() < 4 << 20);
    }
}
