//! Bytes to frames and back. Bounded; never panics on what a sandbox sends.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

use super::MAX_PAYLOAD;

/// What lies between the length and the payload: kind, flags, zero, number.
const HEAD: usize = 12;

/// How many bytes of a frame come before its payload.
pub const FRAME_HEAD: usize = 4 + HEAD;

/// More parts of the same payload follow.
pub const FLAG_MORE: u8 = 1;

/// One frame. What its `number` means depends on its kind: a position in the kept stream, or the id of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it is; see [`super::agent::Kind`].
    pub kind: u8,
    /// See [`FLAG_MORE`].
    pub flags: u8,
    /// See the kind.
    pub number: u64,
    /// The content.
    pub payload: Bytes,
}

impl Frame {
    /// How many bytes it takes on the wire.
    pub fn wire_len(&self) -> usize {
        FRAME_HEAD + self.payload.len()
    }

    /// Its first 16 bytes, for writers that send head and payload separately.
    ///
    /// # Panics
    /// If the payload is longer than [`MAX_PAYLOAD`].
    pub fn head(&self) -> [u8; FRAME_HEAD] {
        head(self.kind, self.flags, self.number, self.payload.len())
    }
}

/// The first 16 bytes of a frame whose payload lies elsewhere.
///
/// # Panics
/// If the payload is longer than [`MAX_PAYLOAD`].
pub fn head(kind: u8, flags: u8, number: u64, payload: usize) -> [u8; FRAME_HEAD] {
    assert!(payload <= MAX_PAYLOAD, "a frame's maker keeps to the limit");
    let length = u32::try_from(HEAD + payload).expect("the limit fits 32 bits");
    let mut head = [0; FRAME_HEAD];
    head[..4].copy_from_slice(&length.to_le_bytes());
    head[4] = kind;
    head[5] = flags;
    head[8..].copy_from_slice(&number.to_le_bytes());
    head
}

/// Why bytes are not a frame.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// The stream broke.
    #[error("the connection broke")]
    Io(#[from] std::io::Error),
    /// The length is impossible.
    #[error("a frame of {0} bytes is outside of the protocol")]
    Length(usize),
}

/// Encodes and decodes [`Frame`]s on any byte stream.
#[derive(Debug, Default)]
pub struct FrameCodec;

impl Decoder for FrameCodec {
    type Item = Frame;
    type Error = CodecError;

    fn decode(&mut self, bytes: &mut BytesMut) -> Result<Option<Frame>, CodecError> {
        let Some(length) = bytes.first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(*length) as usize;
        // Before anything is reserved: the length is the peer's word only.
        if !(HEAD..=HEAD + MAX_PAYLOAD).contains(&length) {
            return Err(CodecError::Length(length));
        }
        if bytes.len() < 4 + length {
            bytes.reserve(4 + length - bytes.len());
            return Ok(None);
        }
        bytes.advance(4);
        let mut frame = bytes.split_to(length);
        let kind = frame.get_u8();
        let flags = frame.get_u8();
        frame.advance(2);
        let number = frame.get_u64_le();
        Ok(Some(Frame {
            kind,
            flags,
            number,
            payload: frame.freeze(),
        }))
    }
}

impl Encoder<Frame> for FrameCodec {
    type Error = CodecError;

    fn encode(&mut self, frame: Frame, bytes: &mut BytesMut) -> Result<(), CodecError> {
        if frame.payload.len() > MAX_PAYLOAD {
            return Err(CodecError::Length(frame.payload.len()));
        }
        bytes.reserve(frame.wire_len());
        bytes.put_slice(&frame.head());
        bytes.put_slice(&frame.payload);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_frame_survives_the_wire_however_it_is_cut(
            kind: u8, flags: u8, number: u64, payload in proptest::collection::vec(any::<u8>(), 0..2000), cut in 1usize..100,
        ) {
            let frame = Frame { kind, flags, number, payload: payload.into() };
            let mut wire = BytesMut::new();
            FrameCodec.encode(frame.clone(), &mut wire).unwrap();
            let mut received = BytesMut::new();
            let mut decoded = Vec::new();
            for piece in wire.chunks(cut) {
                received.extend_from_slice(piece);
                decoded.extend(FrameCodec.decode(&mut received).unwrap());
            }
            prop_assert_eq!(decoded, [frame]);
        }

        #[test]
        fn hostile_bytes_neither_panic_nor_make_it_allocate(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut received = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = FrameCodec.decode(&mut received) {}
            prop_assert!(received.capacity() <= 2 * (MAX_PAYLOAD + 64));
        }
    }

    #[test]
    fn an_impossible_length_is_refused_before_it_is_believed() {
        let mut bytes = BytesMut::from(&u32::MAX.to_le_bytes()[..]);
        assert!(matches!(
            FrameCodec.decode(&mut bytes),
            Err(CodecError::Length(_))
        ));
        assert!(bytes.capacity() < 1024);
    }
}
