//! From bytes and messages of a kernel to events: whole characters, merged streams, counted bytes.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use super::memory::OutputMemory;
use crate::model::event::{CommAction, CommMessage, CommSide, Event};
use crate::model::id::CellId;
use crate::model::output::StreamName;
use crate::protocol::kernel::{Comm, Display, Message};

/// The longest text of one stream event, in bytes. Longer output becomes several.
const TEXT_MAX: usize = 256 * 1024;

/// Collects what a kernel says into events.
#[derive(Debug, Default)]
pub(super) struct Output {
    stdout: Utf8Tail,
    stderr: Utf8Tail,
    /// What the running cell has put out, in bytes; or what was put out since the last thing that the kernel was given to do is done.
    pub(super) bytes: u64,
}

impl Output {
    /// What of it is in no event.
    pub(super) fn memory(&self) -> OutputMemory {
        OutputMemory {
            bytes: self.bytes,
            stdout: self.stdout.kept().to_vec(),
            stderr: self.stderr.kept().to_vec(),
        }
    }

    /// Goes on where another one stood.
    pub(super) fn restored(memory: &OutputMemory) -> Self {
        Self {
            stdout: Utf8Tail::restored(&memory.stdout),
            stderr: Utf8Tail::restored(&memory.stderr),
            bytes: memory.bytes,
        }
    }

    /// Text was written. It joins the last event if that is of the same stream.
    pub(super) fn stream(
        &mut self,
        events: &mut Vec<Event>,
        cell: Option<CellId>,
        name: StreamName,
        bytes: &[u8],
    ) {
        self.bytes += bytes.len() as u64;
        let tail = match name {
            StreamName::Stdout => &mut self.stdout,
            StreamName::Stderr => &mut self.stderr,
        };
        tail.decode(bytes, |text| push_text(events, cell, name, text));
    }

    /// What could not be decoded so far will not be completed any more.
    pub(super) fn flush(&mut self, events: &mut Vec<Event>, cell: Option<CellId>) {
        for (tail, name) in [
            (&mut self.stdout, StreamName::Stdout),
            (&mut self.stderr, StreamName::Stderr),
        ] {
            if tail.finish() {
                push_text(events, cell, name, "\u{fffd}");
            }
        }
    }

    /// The event of a message; none for those that are no output.
    pub(super) fn message(
        &self,
        cell: Option<CellId>,
        message: Message,
        buffers: &[Bytes],
    ) -> Option<Event> {
        Some(match message {
            Message::DisplayData(Display {
                data,
                metadata,
                transient,
            }) => Event::DisplayData {
                cell,
                data,
                metadata,
                display_id: transient.display_id,
            },
            // An update of nothing is nothing.
            Message::UpdateDisplayData(Display {
                data,
                metadata,
                transient,
            }) => Event::UpdateDisplayData {
                cell,
                data,
                metadata,
                display_id: transient.display_id?,
            },
            Message::ExecuteResult {
                execution_count,
                data,
                metadata,
            } => Event::ExecuteResult {
                cell,
                execution_count,
                data,
                metadata,
            },
            Message::Error(error) => Event::Error { cell, error },
            Message::AsynchronousError(error) => Event::Error { cell: None, error },
            Message::ClearOutput { wait } => Event::ClearOutput { cell, wait },
            Message::CommOpen(comm) => comm_event(cell, CommAction::Open, comm, buffers),
            Message::CommMsg(comm) => comm_event(cell, CommAction::Msg, comm, buffers),
            Message::CommClose(comm) => comm_event(cell, CommAction::Close, comm, buffers),
            Message::Ready { .. } | Message::InputRequest { .. } => return None,
        })
    }
}

fn comm_event(cell: Option<CellId>, action: CommAction, comm: Comm, buffers: &[Bytes]) -> Event {
    let Comm {
        comm_id,
        target_name,
        data,
        metadata,
    } = comm;
    let buffers = buffers
        .iter()
        .map(|buffer| STANDARD.encode(buffer))
        .collect();
    let message = CommMessage {
        comm: action,
        comm_id,
        target_name,
        data,
        metadata,
        buffers,
    };
    Event::Comm {
        cell,
        from: CommSide::Kernel,
        message,
        client: None,
    }
}

fn push_text(events: &mut Vec<Event>, cell: Option<CellId>, name: StreamName, mut text: &str) {
    if let Some(Event::Stream {
        cell: last_cell,
        name: last_name,
        text: last,
    }) = events.last_mut()
        && (*last_cell, *last_name) == (cell, name)
        && last.len() + text.len() <= TEXT_MAX
    {
        last.push_str(text);
        return;
    }
    while !text.is_empty() {
        let (piece, rest) = text.split_at(text.floor_char_boundary(TEXT_MAX));
        events.push(Event::Stream {
            cell,
            name,
            text: piece.to_owned(),
        });
        text = rest;
    }
}

/// The beginning of a character whose end has not come yet: at most three bytes.
#[derive(Debug, Default)]
struct Utf8Tail {
    bytes: [u8; 4],
    length: usize,
}

impl Utf8Tail {
    fn kept(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    fn restored(kept: &[u8]) -> Self {
        let mut tail = Self::default();
        // What was kept by us is always the beginning of a character.
        tail.decode(kept, |_| {});
        tail
    }

    /// Gives `bytes` as text, together with what was kept, and keeps an incomplete character at the end. What is no
    /// UTF-8 becomes U+FFFD.
    fn decode(&mut self, mut bytes: &[u8], mut text: impl FnMut(&str)) {
        while self.length > 0 {
            let Some((first, rest)) = bytes.split_first() else {
                return;
            };
            self.bytes[self.length] = *first;
            match std::str::from_utf8(&self.bytes[..=self.length]) {
                Ok(character) => {
                    text(character);
                    (self.length, bytes) = (0, rest);
                }
                Err(error) if error.error_len().is_none() => {
                    (self.length, bytes) = (self.length + 1, rest)
                }
                // The character was never completed; the new byte begins something else.
                Err(_) => {
                    text("\u{fffd}");
                    self.length = 0;
                }
            }
        }
        while !bytes.is_empty() {
            let error = match std::str::from_utf8(bytes) {
                Ok(all) => return text(all),
                Err(error) => error,
            };
            let (valid, rest) = bytes.split_at(error.valid_up_to());
            if !valid.is_empty() {
                text(std::str::from_utf8(valid).expect("up to here it is valid"));
            }
            match error.error_len() {
                Some(length) => {
                    text("\u{fffd}");
                    bytes = &rest[length..];
                }
                None => {
                    self.bytes[..rest.len()].copy_from_slice(rest);
                    self.length = rest.len();
                    return;
                }
            }
        }
    }

    /// Forgets what was kept; says whether there was something.
    fn finish(&mut self) -> bool {
        std::mem::take(&mut self.length) > 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text_of(events: &[Event]) -> String {
        events
            .iter()
            .map(|event| {
                if let Event::Stream { text, .. } = event {
                    text.as_str()
                } else {
                    ""
                }
            })
            .collect()
    }

    fn collect(pieces: &[&[u8]]) -> Vec<Event> {
        let (mut output, mut events) = (Output::default(), Vec::new());
        for piece in pieces {
            output.stream(&mut events, None, StreamName::Stdout, piece);
        }
        output.flush(&mut events, None);
        events
    }

    #[test]
    fn a_character_that_was_cut_in_two_is_one_character() {
        assert_eq!(
            text_of(&collect(&[b"gr\xc3", b"\xbc\xc3", b"\x9fe"])),
            "grüße"
        );
        assert_eq!(text_of(&collect(&[b"\xe2\x82", b"x"])), "\u{fffd}x");
        assert_eq!(text_of(&collect(&[b"\xf0\x9f"])), "\u{fffd}");
    }

    #[test]
    fn a_character_that_was_cut_by_the_end_of_a_server_is_one_character() {
        let (mut before, mut events) = (Output::default(), Vec::new());
        before.stream(&mut events, None, StreamName::Stdout, b"gr\xc3");
        let mut after = Output::restored(&before.memory());
        after.stream(&mut events, None, StreamName::Stdout, b"\xbcn");
        assert_eq!(text_of(&events), "grün");
        assert_eq!(after.bytes, 5);
    }

    #[test]
    fn neighbours_of_one_stream_become_one_event() {
        assert_eq!(collect(&[b"a", b"b"]).len(), 1);
        let long = "ü".repeat(TEXT_MAX);
        let events = collect(&[long.as_bytes()]);
        assert_eq!((events.len(), text_of(&events) == long), (2, true));
    }

    proptest! {
        #[test]
        fn any_text_survives_any_cut(text: String, cut in 1usize..5) {
            let pieces: Vec<&[u8]> = text.as_bytes().chunks(cut).collect();
            prop_assert_eq!(text_of(&collect(&pieces)), text);
        }

        #[test]
        fn any_bytes_are_decoded_as_the_standard_library_does(bytes in proptest::collection::vec(any::<u8>(), 0..40), cut in 1usize..5) {
            let pieces: Vec<&[u8]> = bytes.chunks(cut).collect();
            prop_assert_eq!(text_of(&collect(&pieces)), String::from_utf8_lossy(&bytes).into_owned());
        }
    }
}
