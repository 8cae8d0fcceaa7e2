//! The control connection: frames from the server, frames to it.
//!
//! There is one at a time, or none: kept frames wait in the outbox then. What answers a request of this connection belongs to it and is
//! forgotten with it.

use std::collections::VecDeque;
use std::io::{self, IoSlice};

use bytes::{Buf, Bytes, BytesMut};
use serde::Serialize;
use tokio::net::UnixStream;
use tokio_util::codec::{Decoder, Encoder};

use super::outbox::{Cursor, Outbox};
use crate::protocol::agent::Kind;
use crate::protocol::codec::{CodecError, FLAG_MORE, FRAME_HEAD, Frame, FrameCodec};

/// What may wait for a server that does not read its answers, in bytes. Beyond it the connection is given up.
const MOST_ANSWERS: usize = 4 * 1024 * 1024;

/// The largest request that comes in parts, all together.
const MOST_PARTS: usize = 16 * 1024 * 1024;

/// How much of a read buffer stays when it is not needed.
const READ_BUFFER: usize = 16 * 1024;

/// How many segments are sent by one system call.
const SLICES: usize = 16;

/// A connection to the server.
#[derive(Debug)]
pub(crate) struct Control {
    stream: UnixStream,
    cursor: Cursor,
    received: BytesMut,
    /// The parts of a request so far.
    parts: Option<Frame>,
    /// Frames that are not kept. They go between kept frames.
    answers: VecDeque<Aside>,
    /// How many bytes they take.
    waiting: usize,
}

/// A frame that is not kept.
#[derive(Debug)]
struct Aside {
    /// The kept frame after which it is sent, so that the server hears of things in the order in which they happened.
    after: u64,
    wire: BytesMut,
}

/// Why a connection is given up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RelayError {
    /// The server has closed it.
    #[error("the server hung up")]
    Closed,
    /// It broke.
    #[error("the connection to the server broke")]
    Io(#[from] io::Error),
    /// What the server sent is no frame.
    #[error("the server sent what is no frame")]
    Codec(#[from] CodecError),
    /// It asks, and does not read the answers.
    #[error("the server does not read its answers")]
    Answers,
    /// A request is too large, or its parts do not belong together.
    #[error("the server sent parts that are no request")]
    Parts,
}

impl Control {
    /// Takes over a connection after its greeting. Everything kept after `cursor` will be sent.
    pub(crate) fn new(stream: UnixStream, received: BytesMut, cursor: Cursor) -> Self {
        Self {
            stream,
            cursor,
            received,
            parts: None,
            answers: VecDeque::new(),
            waiting: 0,
        }
    }

    /// Waits until there is something to receive.
    pub(crate) async fn readable(&self) {
        // Only the end of the runtime is an error here.
        if self.stream.readable().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits until [`Control::flush`] can do something.
    pub(crate) async fn flushable(&self, outbox: &Outbox) {
        let waiting = !self.answers.is_empty() || outbox.has_after(self.cursor);
        if !waiting || self.stream.writable().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Whether everything is sent.
    pub(crate) fn is_done(&self, outbox: &Outbox) -> bool {
        self.answers.is_empty() && !outbox.has_after(self.cursor)
    }

    /// Reads what has arrived, at most once what the buffer takes.
    pub(crate) fn receive(&mut self) -> Result<(), RelayError> {
        self.received.reserve(READ_BUFFER);
        match self.stream.try_read_buf(&mut self.received) {
            Ok(0) => Err(RelayError::Closed),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The next whole request that was received.
    pub(crate) fn next_request(&mut self) -> Result<Option<Frame>, RelayError> {
        while let Some(frame) = FrameCodec.decode(&mut self.received)? {
            let more = frame.flags & FLAG_MORE != 0;
            let whole = match self.parts.take() {
                None => frame,
                Some(first) => join(first, &frame)?,
            };
            if !more {
                return Ok(Some(whole));
            }
            self.parts = Some(whole);
        }
        if self.received.is_empty() && self.received.capacity() > READ_BUFFER {
            self.received = BytesMut::new();
        }
        Ok(None)
    }

    /// Forgets what the server has stored.
    pub(crate) fn ack(&self, outbox: &mut Outbox, number: u64) {
        // It cannot have stored what it was not sent.
        outbox.ack(number.min(self.cursor.number - 1));
    }

    /// Sends a frame that is not kept, after the kept frame `after`.
    pub(crate) fn answer(
        &mut self,
        after: u64,
        kind: Kind,
        number: u64,
        payload: Bytes,
    ) -> Result<(), RelayError> {
        self.waiting += FRAME_HEAD + payload.len();
        if self.waiting > MOST_ANSWERS {
            return Err(RelayError::Answers);
        }
        let frame = Frame {
            kind: kind as u8,
            flags: 0,
            number,
            payload,
        };
        let mut wire = BytesMut::new();
        FrameCodec.encode(frame, &mut wire)?;
        self.answers.push_back(Aside { after, wire });
        Ok(())
    }

    /// The same, with JSON.
    pub(crate) fn answer_json(
        &mut self,
        after: u64,
        kind: Kind,
        number: u64,
        content: &impl Serialize,
    ) -> Result<(), RelayError> {
        let json = serde_json::to_vec(content).map_err(io::Error::from)?;
        self.answer(after, kind, number, json.into())
    }

    /// Sends as much as the server takes now.
    pub(crate) fn flush(&mut self, outbox: &mut Outbox) -> Result<(), RelayError> {
        loop {
            let aside = self.answers.front();
            let is_due = self.cursor.offset == 0
                && aside.is_some_and(|aside| aside.after < self.cursor.number);
            let result = if let Some(aside) = aside
                && is_due
            {
                self.stream.try_write(&aside.wire)
            } else if outbox.has_after(self.cursor) {
                let mut slices = [IoSlice::new(&[]); SLICES];
                let until = aside.map(|aside| aside.after);
                let filled = outbox.slices(self.cursor, until, &mut slices);
                self.stream.try_write_vectored(&slices[..filled])
            } else {
                return Ok(());
            };
            match result {
                Ok(sent) if is_due => self.answer_sent(sent),
                Ok(sent) => outbox.advance(&mut self.cursor, sent),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn answer_sent(&mut self, sent: usize) {
        self.waiting -= sent;
        if let Some(aside) = self.answers.front_mut() {
            aside.wire.advance(sent);
            if aside.wire.is_empty() {
                self.answers.pop_front();
            }
        }
    }
}

fn join(first: Frame, next: &Frame) -> Result<Frame, RelayError> {
    let same = first.kind == next.kind && first.number == next.number;
    if !same || first.payload.len() + next.payload.len() > MOST_PARTS {
        return Err(RelayError::Parts);
    }
    let mut payload = match first.payload.try_into_mut() {
        Ok(payload) => payload,
        Err(shared) => BytesMut::from(&shared[..]),
    };
    payload.extend_from_slice(&next.payload);
    Ok(Frame {
        flags: 0,
        payload: payload.freeze(),
        ..first
    })
}
