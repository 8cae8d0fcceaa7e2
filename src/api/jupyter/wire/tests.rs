//! Both framings, read and written, by what is right and by what is not.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn frame(buffers: Vec<Bytes>) -> Frame {
    let object = |json: Value| json.as_object().unwrap().clone();
    Frame {
        channel: Channel::Shell,
        header: object(json!({"msg_id": "m1", "msg_type": "comm_msg", "session": "s"})),
        parent: object(json!({})),
        metadata: object(json!({"a": 1})),
        content: object(json!({"comm_id": "ü", "data": {"x": [1, null]}})),
        buffers,
    }
}

#[test]
fn a_message_as_jupyter_writes_it_is_read() {
    // By `jupyter_server.services.kernels.connection.base`, of version 2.21.
    let json = r#"{"channel": "control", "header": {"msg_id": "1", "msg_type": "x"}, "parent_header": {}, "metadata": {}, "content": {}}"#;
    let read = Framing::Json.decode(&Message::Text(json.into())).unwrap();
    assert_eq!((read.channel, read.kind()), (Channel::Control, "x"));

    let mut v1 = Vec::new();
    for number in [6_u64, 56, 61, 93, 95, 97, 99] {
        v1.extend_from_slice(&number.to_le_bytes());
    }
    v1.extend_from_slice(br#"shell{"msg_id": "1", "msg_type": "x"}{}{}{}"#);
    let read = Framing::V1.decode(&Message::Binary(v1.into())).unwrap();
    assert_eq!((read.channel, read.kind()), (Channel::Shell, "x"));
}

#[test]
fn a_message_without_a_channel_is_for_the_shell() {
    let json = r#"{"header": {"msg_type": "x"}}"#;
    let read = Framing::Json.decode(&Message::Text(json.into())).unwrap();
    assert_eq!(read.channel, Channel::Shell);
}

#[test]
fn what_is_no_message_is_refused_with_its_reason() {
    let text = |text: &str| {
        Framing::Json
            .decode(&Message::Text(text.into()))
            .unwrap_err()
    };
    assert!(matches!(text("{"), WireError::Part { .. }));
    assert!(matches!(text("[]"), WireError::Part { .. }));
    assert!(matches!(text(r#"{"content": {}}"#), WireError::Part { .. }));
    let channel = text(r#"{"header": {}, "channel": "hb"}"#);
    assert_eq!(channel, WireError::Channel("hb".to_owned()));
    let v1 = Framing::V1.decode(&Message::Text("{}".into()));
    assert_eq!(v1, Err(WireError::Text));
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..200)
}

proptest! {
    #[test]
    fn what_is_written_is_read_as_it_was(buffers in proptest::collection::vec(bytes(), 0..4)) {
        let frame = frame(buffers.into_iter().map(Bytes::from).collect());
        for framing in [Framing::Json, Framing::V1] {
            prop_assert_eq!(framing.decode(&framing.encode(&frame)).unwrap(), frame.clone());
        }
    }

    #[test]
    fn no_bytes_are_too_strange(bytes in bytes()) {
        let message = Message::Binary(bytes.into());
        let _ = Framing::Json.decode(&message);
        let _ = Framing::V1.decode(&message);
    }

    #[test]
    fn no_change_of_a_good_message_is_too_strange(at in 0usize..400, to in any::<u8>(), length in 0usize..400) {
        let good = frame(vec![Bytes::from_static(b"12345"), Bytes::new()]);
        for framing in [Framing::Json, Framing::V1] {
            let Message::Binary(bytes) = framing.encode(&good) else { unreachable!() };
            let mut bytes = bytes.to_vec();
            if let Some(byte) = bytes.get_mut(at) {
                *byte = to;
            }
            bytes.truncate(length);
            let _ = framing.decode(&Message::Binary(bytes.into()));
        }
    }

    #[test]
    fn no_table_of_offsets_is_too_strange(count in 0u64..12, offsets in proptest::collection::vec(any::<u64>(), 0..12)) {
        let mut v1 = count.to_le_bytes().to_vec();
        let mut json = u32::try_from(count).unwrap().to_be_bytes().to_vec();
        for offset in offsets {
            v1.extend_from_slice(&(offset % 300).to_le_bytes());
            json.extend_from_slice(&u32::try_from(offset % 300).unwrap().to_be_bytes());
        }
        let _ = Framing::V1.decode(&Message::Binary(v1.into()));
        let _ = Framing::Json.decode(&Message::Binary(json.into()));
    }
}
