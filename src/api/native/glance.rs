//! What a reader of text has to know of a stored event: the text itself, and where a cell begins and ends. The rest is skipped over.

use std::borrow::Cow;

use serde::Deserialize;

use crate::model::event::UnixMillis;
use crate::model::id::CellId;
use crate::model::output::StreamName;
use crate::session::StoredEvent;

/// A stored event at a glance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Glance {
    /// When it was written to the log.
    pub(crate) at_ms: UnixMillis,
    /// The cell that it belongs to.
    pub(crate) cell: Option<CellId>,
    /// What it is.
    pub(crate) what: What,
}

/// What an event is to a reader of text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// Text was written to a stream.
    Text(StreamName, String),
    /// The cell began.
    Started,
    /// The cell is over.
    Finished,
    /// Anything else.
    Else,
}

impl Glance {
    /// Looks at an event.
    ///
    /// # Errors
    /// It is not an event of ours.
    pub(crate) fn at(event: &StoredEvent) -> serde_json::Result<Self> {
        /// The fields that matter. `name` stands in events of several kinds.
        #[derive(Deserialize)]
        struct Fields<'a> {
            at_ms: UnixMillis,
            #[serde(borrow)]
            event: Cow<'a, str>,
            cell: Option<CellId>,
            name: Option<String>,
            text: Option<String>,
        }
        let fields: Fields<'_> = serde_json::from_slice(&event.json)?;
        let what = match (fields.event.as_ref(), fields.name.as_deref(), fields.text) {
            ("stream", Some("stdout"), Some(text)) => What::Text(StreamName::Stdout, text),
            ("stream", Some("stderr"), Some(text)) => What::Text(StreamName::Stderr, text),
            ("cell_started", ..) => What::Started,
            ("cell_finished", ..) => What::Finished,
            _ => What::Else,
        };
        Ok(Self {
            at_ms: fields.at_ms,
            cell: fields.cell,
            what,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::event::{CellStatus, Envelope, Event, Verdict};

    fn look(event: Event) -> Glance {
        let envelope = Envelope {
            seq: 1,
            at_ms: 7,
            event,
        };
        let json = serde_json::to_vec(&envelope).unwrap().into();
        Glance::at(&StoredEvent { seq: 1, json }).unwrap()
    }

    #[test]
    fn text_and_the_ends_of_a_cell_are_seen() {
        let cell = CellId::new();
        let text = look(Event::Stream {
            cell: Some(cell),
            name: StreamName::Stderr,
            text: "grüße\n".to_owned(),
        });
        assert_eq!((text.at_ms, text.cell), (7, Some(cell)));
        assert_eq!(
            text.what,
            What::Text(StreamName::Stderr, "grüße\n".to_owned())
        );
        let finished = look(Event::CellFinished {
            cell,
            status: CellStatus::Ok,
            cause: None,
            state: Verdict::Kept,
            execution_count: None,
            usage: None,
            variables: None,
            user_expressions: None,
            payload: vec![],
            checkpoint: None,
        });
        assert_eq!(finished.what, What::Finished);
        let cleared = look(Event::ClearOutput {
            cell: None,
            wait: true,
        });
        assert_eq!((cleared.cell, cleared.what), (None, What::Else));
    }
}
