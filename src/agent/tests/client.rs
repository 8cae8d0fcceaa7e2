//! The server's end of a connection, blocking.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use serde::Serialize;
use serde_json::Value;
use tokio_util::codec::{Decoder, Encoder};

use crate::protocol::GENERATION;
use crate::protocol::agent::{AgentHello, Hello, KernelExit, KernelStart, Kind, Purpose};
use crate::protocol::codec::{FLAG_MORE, Frame, FrameCodec};
use crate::protocol::files::FileAnswer;

/// A wait that comes to its end only in a test that fails.
const LIMIT: Duration = Duration::from_secs(120);

pub(super) struct Client {
    stream: UnixStream,
    received: BytesMut,
    /// The number of the last kept frame.
    pub(super) last: u64,
    /// Kept frames that came while an answer was waited for.
    kept: std::collections::VecDeque<Frame>,
}

impl Client {
    pub(super) fn greet(
        stream: UnixStream,
        purpose: Purpose,
        resume_after: u64,
    ) -> (Self, AgentHello) {
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.set_write_timeout(Some(LIMIT)).unwrap();
        let mut client = Self {
            stream,
            received: BytesMut::new(),
            last: resume_after,
            kept: std::collections::VecDeque::new(),
        };
        let hello = Hello {
            generation: GENERATION,
            purpose,
            resume_after,
        };
        client.send_json(Kind::Hello, 0, &hello);
        let frame = client.receive().unwrap();
        assert_eq!(frame.kind, Kind::AgentHello as u8);
        let hello = serde_json::from_slice(&frame.payload).unwrap();
        (client, hello)
    }

    pub(super) fn send(&mut self, kind: Kind, number: u64, payload: &[u8]) {
        let frame = Frame {
            kind: kind as u8,
            flags: 0,
            number,
            payload: Bytes::copy_from_slice(payload),
        };
        let mut wire = BytesMut::new();
        FrameCodec.encode(frame, &mut wire).unwrap();
        self.stream.write_all(&wire).unwrap();
    }

    pub(super) fn send_json(&mut self, kind: Kind, number: u64, content: &impl Serialize) {
        self.send(kind, number, &serde_json::to_vec(content).unwrap());
    }

    pub(super) fn execute(&mut self, id: u64) {
        self.send_json(
            Kind::Execute,
            id,
            &serde_json::json!({ "id": id, "op": "execute" }),
        );
    }

    pub(super) fn ack(&mut self, number: u64) {
        self.send(Kind::Ack, number, b"");
    }

    /// The next frame; none at the end of the connection.
    pub(super) fn receive(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = FrameCodec.decode(&mut self.received).unwrap() {
                if frame.kind < 64 {
                    assert_eq!(
                        frame.number,
                        self.last + 1,
                        "no frame is missing or comes twice"
                    );
                    self.last = frame.number;
                }
                return Some(frame);
            }
            let mut piece = [0; 65536];
            match self.stream.read(&mut piece) {
                Ok(0) => return None,
                Ok(length) => self.received.extend_from_slice(&piece[..length]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("nothing came: {error}"),
            }
        }
    }

    /// The next kept frame. Others are passed over.
    pub(super) fn kept(&mut self) -> Frame {
        if let Some(frame) = self.kept.pop_front() {
            return frame;
        }
        loop {
            let frame = self.receive().expect("the agent did not hang up");
            if frame.kind < 64 {
                return frame;
            }
        }
    }

    /// The kernel that has been started, as the agent told it before the answer that was waited for.
    pub(super) fn started(&mut self) -> KernelStart {
        let at = self
            .kept
            .iter()
            .position(|frame| frame.kind == Kind::KernelStarted as u8);
        let frame = self.kept.remove(at.expect("a start is told")).unwrap();
        serde_json::from_slice(&frame.payload).unwrap()
    }

    /// The answer to that request. Kept frames that come before wait for [`Client::kept`].
    pub(super) fn wait_answer(&mut self, number: u64) -> Value {
        loop {
            let frame = self.receive().expect("the agent did not hang up");
            if frame.kind == Kind::Answer as u8 && frame.number == number {
                return serde_json::from_slice(&frame.payload).unwrap();
            }
            if frame.kind < 64 {
                self.kept.push_back(frame);
            }
        }
    }

    /// Waits for the answer to a ping: whatever was asked before is done.
    pub(super) fn ping(&mut self) {
        self.send(Kind::Ping, 77, b"");
        loop {
            let frame = self.receive().expect("the agent did not hang up");
            if frame.kind == Kind::Pong as u8 {
                assert_eq!(frame.number, 77);
                return;
            }
            if frame.kind < 64 {
                self.kept.push_back(frame);
            }
        }
    }

    pub(super) fn file_answer(&mut self) -> FileAnswer {
        let frame = self.receive().expect("the agent did not hang up");
        assert_eq!(frame.kind, Kind::FileAnswer as u8);
        serde_json::from_slice(&frame.payload).unwrap()
    }

    /// Kept frames up to and with one of that kind, one line each; text of one stream is joined.
    #[track_caller]
    pub(super) fn transcript(&mut self, until: Kind) -> String {
        let mut lines: Vec<(&'static str, Vec<u8>)> = Vec::new();
        loop {
            let frame = self.kept();
            let kind = Kind::try_from(frame.kind).unwrap();
            let more = frame.flags & FLAG_MORE != 0;
            let (name, joins) = match kind {
                Kind::Stdout => ("stdout", true),
                Kind::Stderr => ("stderr", true),
                Kind::Message if more => ("message part", false),
                Kind::Message => ("message", false),
                Kind::Reply => ("reply", false),
                Kind::Usage => ("usage", false),
                Kind::KernelStarted => ("started", false),
                Kind::KernelExited => ("exited", false),
                Kind::DiskFull => ("disk full", false),
                Kind::CpuSpent => ("cpu spent", false),
                Kind::MemoryHigh => ("memory high", false),
                other => panic!("{other:?} is not kept"),
            };
            match lines.last_mut() {
                Some((last, text)) if joins && *last == name => {
                    text.extend_from_slice(&frame.payload)
                }
                _ => lines.push((name, frame.payload.to_vec())),
            }
            if kind == until && !more {
                break;
            }
            let so_far = || {
                String::from_utf8_lossy(
                    &lines
                        .iter()
                        .flat_map(|line| line.1.clone())
                        .collect::<Vec<_>>(),
                )
                .into_owned()
            };
            assert!(
                kind != Kind::KernelExited,
                "the kernel has ended: {}",
                so_far()
            );
        }
        let shown = |(name, content): (&str, Vec<u8>)| match name {
            "usage" | "started" | "exited" | "disk full" => format!("{name}\n"),
            _ => format!(
                "{name} {}\n",
                String::from_utf8_lossy(&content).escape_debug()
            ),
        };
        lines.into_iter().map(shown).collect()
    }

    /// Passes over everything up to the exit of a kernel.
    #[track_caller]
    pub(super) fn wait_exit(&mut self) -> KernelExit {
        loop {
            let frame = self.kept();
            if frame.kind == Kind::KernelExited as u8 {
                return serde_json::from_slice(&frame.payload).unwrap();
            }
        }
    }
}
