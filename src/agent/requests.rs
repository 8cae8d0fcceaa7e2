//! Requests on their way to the kernel, and those whose replies are awaited.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net;

use bytes::Bytes;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::Pid;
use serde::Deserialize;
use serde::de::{self, IgnoredAny, MapAccess, Visitor};
use tokio::net::UnixStream;
use tokio::time::Instant;

use super::ring::Violation;
use super::usage::Meter;
use crate::protocol::agent::UsageReport;

/// What may wait for a kernel that does not read, in bytes. Beyond it requests are refused.
const MOST_QUEUED: usize = 32 * 1024 * 1024;

/// Requests of one kernel.
#[derive(Debug)]
pub(crate) struct Requests {
    stream: UnixStream,
    queue: VecDeque<Bytes>,
    /// How much of the first is sent.
    sent: usize,
    queued: usize,
    /// In the order in which they are answered.
    awaited: VecDeque<Awaited>,
}

#[derive(Debug)]
struct Awaited {
    id: u64,
    execution: Option<Execution>,
}

#[derive(Debug)]
struct Execution {
    started: Instant,
    cpu_us: u64,
}

/// An execution that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Executing {
    /// The request's id.
    pub(crate) id: u64,
    /// Processor time of the sandbox when it began.
    pub(crate) cpu_us: u64,
}

/// Why a request is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestError {
    /// It cannot be read.
    #[error("the request is no JSON object with an `op`")]
    Malformed,
    /// The kernel does not read.
    #[error("{MOST_QUEUED} bytes of requests wait for the kernel already")]
    Full,
}

impl Requests {
    /// Makes a connection, and the kernel's end of it.
    pub(crate) fn create() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )?;
        let ours = net::UnixStream::from(ours);
        ours.set_nonblocking(true)?;
        let requests = Self {
            stream: UnixStream::from_std(ours)?,
            queue: VecDeque::new(),
            sent: 0,
            queued: 0,
            awaited: VecDeque::new(),
        };
        Ok((requests, theirs))
    }

    /// Sends a request. Of an execution it is remembered when it began.
    pub(crate) fn send(
        &mut self,
        id: u64,
        json: Bytes,
        is_execution: bool,
        kernel: Option<Pid>,
        meter: &mut Meter,
    ) -> Result<(), RequestError> {
        if self.queued + json.len() > MOST_QUEUED {
            return Err(RequestError::Full);
        }
        if is_execution || has_reply(&json)? {
            let execution = is_execution.then(|| Execution {
                started: Instant::now(),
                cpu_us: meter.cpu_us(kernel),
            });
            if execution.is_some() {
                meter.reset_peak(kernel);
            }
            self.awaited.push_back(Awaited { id, execution });
        }
        let length = u32::try_from(json.len()).expect("the bound fits 32 bits");
        self.queued += 4 + json.len();
        self.queue
            .push_back(Bytes::copy_from_slice(&length.to_le_bytes()));
        self.queue.push_back(json);
        self.flush();
        Ok(())
    }

    /// Sends what waits, as far as the kernel reads.
    pub(crate) fn flush(&mut self) {
        while let Some(first) = self.queue.front() {
            match self.stream.try_write(&first[self.sent..]) {
                Ok(written) => {
                    self.sent += written;
                    self.queued -= written;
                    if self.sent == first.len() {
                        self.queue.pop_front();
                        self.sent = 0;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // The kernel is gone or has closed its end. Its exit is noticed elsewhere.
                Err(_) => {
                    self.queue.clear();
                    self.sent = 0;
                    self.queued = 0;
                }
            }
        }
    }

    /// Waits until [`Requests::flush`] can do something.
    pub(crate) async fn flushable(&self) {
        if self.queue.is_empty() || self.stream.writable().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// The execution that runs, if any.
    pub(crate) fn executing(&self) -> Option<Executing> {
        self.awaited.iter().find_map(|awaited| {
            awaited.execution.as_ref().map(|execution| Executing {
                id: awaited.id,
                cpu_us: execution.cpu_us,
            })
        })
    }

    /// Whether the reply to that request is still to come.
    pub(crate) fn awaits(&self, id: u64) -> bool {
        self.awaited.iter().any(|awaited| awaited.id == id)
    }

    /// Takes note of a reply that begins with these bytes. Replies come in the order of requests.
    pub(crate) fn answered(
        &mut self,
        reply: &[u8],
        kernel: Option<Pid>,
        meter: &Meter,
    ) -> Result<Option<UsageReport>, Violation> {
        let first = self.awaited.front().ok_or(Violation::Reply)?;
        // Where the id is not to be found at the beginning, the order alone has to do.
        if reply
            .get(4..)
            .and_then(find_id)
            .is_some_and(|id| id != first.id)
        {
            return Err(Violation::Reply);
        }
        let awaited = self.awaited.pop_front().ok_or(Violation::Reply)?;
        Ok(awaited.execution.map(|execution| UsageReport {
            id: awaited.id,
            wall_us: execution.started.elapsed().as_micros() as u64,
            cpu_us: meter.cpu_us(kernel).saturating_sub(execution.cpu_us),
            peak_memory_bytes: meter.peak(kernel),
            checkpoint: None,
        }))
    }
}

/// Whether a request is answered at all.
fn has_reply(json: &[u8]) -> Result<bool, RequestError> {
    #[derive(Deserialize)]
    struct Operation {
        op: String,
    }
    let request: Operation = serde_json::from_slice(json).map_err(|_| RequestError::Malformed)?;
    Ok(request.op != "input_reply")
}

/// The `id` of a JSON object of which maybe only the beginning is there.
fn find_id(json: &[u8]) -> Option<u64> {
    struct Find<'a>(&'a Cell<Option<u64>>);

    impl<'de> Visitor<'de> for Find<'_> {
        type Value = ();

        fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            formatter.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
            while let Some(key) = map.next_key::<String>()? {
                if key == "id" {
                    self.0.set(Some(map.next_value()?));
                    // The rest is of no interest, and maybe not there.
                    return Err(de::Error::custom("found"));
                }
                map.next_value::<IgnoredAny>()?;
            }
            Ok(())
        }
    }

    let found = Cell::new(None);
    let mut json = serde_json::Deserializer::from_slice(json);
    let _ = de::Deserializer::deserialize_map(&mut json, Find(&found));
    found.get()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_id_is_found_in_the_beginning_of_a_reply() {
        for (json, id) in [
            (r#"{"id": 7, "status": "ok"}"#, Some(7)),
            (r#"{"id": 7, "status": "o"#, Some(7)),
            (r#"{"nested": {"id": 3}, "id": 8, "x"#, Some(8)),
            (r#"{"status": "ok", "lo"#, None),
            (r#"{"id": "7"}"#, None),
            (r#"{"id": -1}"#, None),
            ("[7]", None),
            ("", None),
        ] {
            assert_eq!(find_id(json.as_bytes()), id, "{json}");
        }
    }

    #[test]
    fn only_an_input_reply_is_not_answered() {
        assert!(has_reply(br#"{"id": 1, "op": "complete"}"#).unwrap());
        assert!(!has_reply(br#"{"id": 1, "op": "input_reply", "value": "x"}"#).unwrap());
        assert!(has_reply(b"{}").is_err());
    }

    proptest! {
        #[test]
        fn looking_for_an_id_never_panics(json in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = find_id(&json);
        }
    }
}
