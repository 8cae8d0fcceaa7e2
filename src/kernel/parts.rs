//! Puts messages together that came in parts. Bounded: a message that is too long is let go and named, not kept.

use bytes::{Buf, Bytes, BytesMut};

use crate::protocol::MAX_MESSAGE;
use crate::protocol::codec::{FLAG_MORE, Frame};

/// A message that has not come to its end.
#[derive(Debug, Default)]
pub(super) struct Parts {
    begun: BytesMut,
    /// How much was let go of, once it was too long.
    dropped: usize,
}

/// A whole message.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Whole {
    pub(super) json: Bytes,
    pub(super) buffers: Vec<Bytes>,
}

impl Whole {
    /// How long it is, all in all.
    pub(super) fn bytes(&self) -> u64 {
        let buffers: usize = self.buffers.iter().map(Bytes::len).sum();
        (self.json.len() + buffers) as u64
    }
}

impl Parts {
    /// Adds a part; the message, or what is wrong with it, if that was the last.
    pub(super) fn add(&mut self, frame: Frame) -> Option<Result<Whole, String>> {
        let last = frame.flags & FLAG_MORE == 0;
        if self.dropped > 0 || self.begun.len() + frame.payload.len() > MAX_MESSAGE {
            self.dropped += self.begun.len() + frame.payload.len();
            self.begun = BytesMut::new();
            if !last {
                return None;
            }
            let bytes = std::mem::take(&mut self.dropped);
            return Some(Err(format!(
                "an output of {bytes} bytes was not kept: at most {MAX_MESSAGE} are accepted; write it to a file of the workspace instead"
            )));
        }
        if last && self.begun.is_empty() {
            return Some(cut(frame.payload));
        }
        self.begun.extend_from_slice(&frame.payload);
        last.then(|| cut(self.begun.split().freeze()))
    }
}

/// Cuts `u32 length of JSON | JSON | buffers` by the JSON's list of lengths.
fn cut(mut bytes: Bytes) -> Result<Whole, String> {
    let wrong = || "the kernel sent a message that is cut wrongly".to_owned();
    if bytes.len() < 4 {
        return Err(wrong());
    }
    let length = bytes.get_u32_le() as usize;
    if length > bytes.len() {
        return Err(wrong());
    }
    let json = bytes.split_to(length);
    if bytes.is_empty() {
        return Ok(Whole {
            json,
            buffers: Vec::new(),
        });
    }
    #[derive(serde::Deserialize)]
    struct Lengths {
        buffers: Vec<usize>,
    }
    let Lengths { buffers: lengths } = serde_json::from_slice(&json).map_err(|_| wrong())?;
    let mut buffers = Vec::new();
    for length in lengths {
        if length > bytes.len() {
            return Err(wrong());
        }
        buffers.push(bytes.split_to(length));
    }
    Ok(Whole { json, buffers })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(flags: u8, payload: impl Into<Bytes>) -> Frame {
        Frame {
            kind: 3,
            flags,
            number: 0,
            payload: payload.into(),
        }
    }

    #[test]
    fn a_message_in_parts_is_the_message() {
        let mut parts = Parts::default();
        assert_eq!(parts.add(frame(FLAG_MORE, &b"\x02\x00\x00"[..])), None);
        assert_eq!(parts.add(frame(FLAG_MORE, &b"\x00{"[..])), None);
        let whole = parts.add(frame(0, &b"}"[..])).unwrap().unwrap();
        assert_eq!(
            whole,
            Whole {
                json: "{}".into(),
                buffers: vec![]
            }
        );
    }

    #[test]
    fn a_message_that_is_too_long_is_named_and_the_next_one_arrives() {
        let mut parts = Parts::default();
        let mebibyte = Bytes::from(vec![0; 1 << 20]);
        for _ in 0..70 {
            assert_eq!(parts.add(frame(FLAG_MORE, mebibyte.clone())), None);
            assert!(parts.begun.len() <= MAX_MESSAGE);
        }
        assert!(
            parts
                .add(frame(0, ""))
                .unwrap()
                .unwrap_err()
                .contains("73400320 bytes")
        );
        assert!(
            parts
                .add(frame(0, &b"\x02\x00\x00\x00{}"[..]))
                .unwrap()
                .is_ok()
        );
    }

    proptest! {
        #[test]
        fn hostile_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = cut(bytes.into());
        }
    }
}
