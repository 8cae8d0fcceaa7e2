//! Frames on a blocking connection, through one buffer that is used again.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use tokio::time::Instant;

use crate::protocol::agent::Kind;
use crate::protocol::codec::{self, FRAME_HEAD};
use crate::protocol::files::FileAnswer;

/// The most content in a frame.
pub(super) const PIECE: usize = 256 * 1024;

/// How long a peer may go on to send what is not wanted.
const DISCARD: Duration = Duration::from_secs(5);

/// A connection.
#[derive(Debug)]
pub(super) struct Wire {
    stream: UnixStream,
    /// What was received before the connection came here.
    received: io::Cursor<Vec<u8>>,
    buffer: Vec<u8>,
}

/// A frame whose payload lies in the buffer of the [`Wire`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Received {
    pub(super) kind: u8,
    length: usize,
}

impl Wire {
    pub(super) fn new(stream: UnixStream, received: Vec<u8>) -> Self {
        Self {
            stream,
            received: io::Cursor::new(received),
            buffer: Vec::new(),
        }
    }

    /// Receives a frame.
    pub(super) fn read(&mut self) -> io::Result<Received> {
        let mut head = [0; FRAME_HEAD];
        let mut source = (&mut self.received).chain(&mut self.stream);
        source.read_exact(&mut head)?;
        let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let length = (length + 4)
            .checked_sub(FRAME_HEAD)
            .filter(|length| *length <= PIECE)
            .ok_or(io::ErrorKind::InvalidData)?;
        if self.buffer.len() < FRAME_HEAD + length {
            self.buffer.resize(FRAME_HEAD + length, 0);
        }
        source.read_exact(&mut self.buffer[FRAME_HEAD..FRAME_HEAD + length])?;
        Ok(Received {
            kind: head[4],
            length,
        })
    }

    /// The payload of the frame that was received last.
    pub(super) fn payload(&self, frame: &Received) -> &[u8] {
        &self.buffer[FRAME_HEAD..FRAME_HEAD + frame.length]
    }

    /// Sends an answer.
    pub(super) fn answer(&mut self, answer: &FileAnswer) -> io::Result<()> {
        let json = serde_json::to_vec(answer)?;
        let mut frame = codec::head(Kind::FileAnswer as u8, 0, 0, json.len()).to_vec();
        frame.extend_from_slice(&json);
        self.stream.write_all(&frame)
    }

    /// Sends one piece of content: what `fill` puts into the room it is given. Returns how much that was; nothing is sent for 0.
    pub(super) fn send_piece(
        &mut self,
        most: usize,
        fill: impl FnOnce(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let most = most.min(PIECE);
        if self.buffer.len() < FRAME_HEAD + most {
            self.buffer.resize(FRAME_HEAD + most, 0);
        }
        let length = fill(&mut self.buffer[FRAME_HEAD..FRAME_HEAD + most])?;
        if length > 0 {
            self.buffer[..FRAME_HEAD].copy_from_slice(&codec::head(Kind::Data as u8, 0, 0, length));
            self.stream.write_all(&self.buffer[..FRAME_HEAD + length])?;
        }
        Ok(length)
    }

    /// Says that the content has come to its end.
    pub(super) fn send_end(&mut self) -> io::Result<()> {
        self.stream
            .write_all(&codec::head(Kind::End as u8, 0, 0, 0))
    }

    /// Receives what is not wanted, for a bounded time.
    pub(super) fn discard(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
        let _ = self.stream.set_read_timeout(Some(DISCARD));
        let began = Instant::now();
        while began.elapsed() < DISCARD
            && self
                .read()
                .is_ok_and(|frame| frame.kind == Kind::Data as u8)
        {}
    }
}
