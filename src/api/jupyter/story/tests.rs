//! Events in, messages out, as text that somebody who knows no Rust can check.

use std::fmt::Write as _;

use insta::assert_snapshot;
use serde_json::Map;

use super::*;
use crate::model::event::Usage;
use crate::model::note::StateNote;
use crate::model::output::StreamName;

/// A story whose cells come from a Jupyter client named `lab`, with message ids of their own.
struct Told {
    story: Story,
    seq: Seq,
    text: String,
}

impl Told {
    fn new() -> Self {
        Self {
            story: Story::new(&"k".parse().unwrap()),
            seq: 0,
            text: String::new(),
        }
    }

    fn say(&mut self, event: Event) -> Seq {
        self.seq += 1;
        let envelope = Envelope {
            seq: self.seq,
            at_ms: 0,
            event,
        };
        if let Some(cell) = self.story.needs(&envelope.event) {
            self.story.introduce(cell, None);
        }
        self.story.tell(envelope);
        for (audience, frame) in self.story.take() {
            let whose = match audience {
                Audience::All => String::new(),
                Audience::Sender(name) => format!(" to {name}"),
            };
            let parent = crate::api::jupyter::wire::text(&frame.parent, "msg_id");
            let content = Value::Object(frame.content);
            writeln!(
                self.text,
                "{parent:3} {}{whose} {content}",
                crate::api::jupyter::wire::text(&frame.header, "msg_type")
            )
            .unwrap();
        }
        self.seq
    }

    fn queue(&mut self, id: &str, code: &str) -> CellId {
        let cell = CellId::new();
        self.queue_as(cell, code, Some(client(id, "execute_request")));
        cell
    }

    fn queue_as(&mut self, cell: CellId, code: &str, client: Option<Map<String, Value>>) {
        self.say(Event::CellQueued {
            cell,
            code: code.to_owned(),
            position: 0,
            silent: false,
            origin: None,
            client,
        });
    }

    fn start(&mut self, cell: CellId, count: u32, state_note: Option<StateNote>) {
        self.say(Event::CellStarted {
            cell,
            execution_count: Some(count),
            deadline_at_ms: 0,
            ceiling_at_ms: 0,
            state_note,
        });
    }

    fn finish(&mut self, cell: CellId, status: CellStatus, cause: Option<Cause>, state: Verdict) {
        let ran = status != CellStatus::Aborted;
        self.say(Event::CellFinished {
            cell,
            status,
            cause,
            state,
            execution_count: ran.then_some(7),
            usage: ran.then(Usage::default),
            variables: None,
            user_expressions: None,
            payload: vec![],
            checkpoint: None,
        });
    }

    fn print(&mut self, cell: Option<CellId>, text: &str) {
        self.say(Event::Stream {
            cell,
            name: StreamName::Stdout,
            text: text.to_owned(),
        });
    }

    fn comm(&mut self, from: CommSide, comm: CommAction, id: &str) -> Seq {
        let message = CommMessage {
            comm,
            comm_id: "c".to_owned(),
            target_name: (comm == CommAction::Open).then(|| "t".to_owned()),
            data: json!({"x": 1}),
            metadata: Map::new(),
            buffers: vec![],
        };
        self.say(Event::Comm {
            cell: None,
            from,
            message,
            client: (from == CommSide::Client).then(|| client(id, "comm_msg")),
        })
    }
}

fn client(id: &str, kind: &str) -> Map<String, Value> {
    let header = json!({"msg_id": id, "msg_type": kind});
    Client::write("lab", header.as_object().unwrap())
}

#[test]
fn a_cell_is_told_as_ipykernel_would() {
    let mut told = Told::new();
    let cell = told.queue("m1", "1+1");
    told.start(cell, 7, None);
    told.print(Some(cell), "hi\n");
    told.say(Event::ExecuteResult {
        cell: Some(cell),
        execution_count: 7,
        data: [("text/plain".to_owned(), json!("2"))].into(),
        metadata: Map::new(),
    });
    told.finish(cell, CellStatus::Ok, None, Verdict::Kept);
    assert_snapshot!(told.text);
}

#[test]
fn a_cell_of_another_front_end_is_seen_and_not_answered() {
    let mut told = Told::new();
    let cell: CellId = "018f0000-0000-7000-8000-000000000000".parse().unwrap();
    told.queue_as(cell, "1", None);
    told.start(cell, 7, None);
    told.finish(cell, CellStatus::Ok, None, Verdict::Kept);
    assert_snapshot!(told.text);
}

#[test]
fn an_error_is_shown_and_answered_and_what_waited_is_aborted() {
    let mut told = Told::new();
    let (bad, after) = (told.queue("m1", "1/0"), told.queue("m2", "2"));
    told.start(bad, 7, None);
    told.say(Event::Error {
        cell: Some(bad),
        error: ErrorOutput {
            ename: "ZeroDivisionError".to_owned(),
            evalue: "division by zero".to_owned(),
            traceback: vec!["…".to_owned()],
        },
    });
    told.finish(
        bad,
        CellStatus::Error,
        Some(Cause::Exception),
        Verdict::Kept,
    );
    told.finish(
        after,
        CellStatus::Aborted,
        Some(Cause::EarlierError),
        Verdict::Kept,
    );
    assert_snapshot!(told.text);
}

#[test]
fn a_rollback_is_told_in_words_as_an_error_and_as_a_restart() {
    let mut told = Told::new();
    let cell = told.queue("m1", "x = bytearray(10**12)");
    told.start(cell, 7, None);
    let cause = Cause::OutOfMemory {
        limit_bytes: 512 << 20,
        peak_bytes: None,
        asked_bytes: None,
    };
    let state = Verdict::RolledBack { before: cell };
    told.finish(cell, CellStatus::Error, Some(cause.clone()), state.clone());
    let at_seq = told.say(Event::KernelLost {
        cause: cause.clone(),
        state: state.clone(),
    });
    told.say(Event::KernelStarted {
        reason: StartReason::RolledBack,
        restored: None,
        python: "3".to_owned(),
        warm: false,
        took_ms: 1,
    });
    // Its reader knows; it is not said again.
    let next = told.queue("m2", "x");
    told.start(
        next,
        7,
        Some(StateNote {
            state,
            cause,
            at_seq,
        }),
    );
    assert_snapshot!(told.text);
}

#[test]
fn a_loss_between_cells_is_told_with_the_next_cell() {
    let mut told = Told::new();
    let cause = Cause::KilledBySignal {
        signal: 11,
        name: "SIGSEGV".to_owned(),
    };
    let state = Verdict::Lost {
        why: "there was no checkpoint".to_owned(),
    };
    let at_seq = told.say(Event::KernelLost {
        cause: cause.clone(),
        state: state.clone(),
    });
    let cell = told.queue("m1", "x");
    told.start(
        cell,
        1,
        Some(StateNote {
            state,
            cause,
            at_seq,
        }),
    );
    assert_snapshot!(told.text);
}

#[test]
fn what_a_comm_message_causes_belongs_to_it() {
    let mut told = Told::new();
    let first = told.comm(CommSide::Client, CommAction::Msg, "m1");
    let second = told.comm(CommSide::Client, CommAction::Msg, "m2");
    told.comm(CommSide::Kernel, CommAction::Msg, "");
    told.print(None, "of the first\n");
    told.say(Event::CommHandled {
        at_seq: first,
        error: None,
    });
    told.print(None, "of the second\n");
    told.say(Event::CommHandled {
        at_seq: second,
        error: None,
    });
    told.print(None, "of what the second left running\n");
    assert_snapshot!(told.text);
}

#[test]
fn what_comes_between_cells_belongs_to_the_last_that_has_run() {
    let mut told = Told::new();
    let (cell, aborted) = (told.queue("m1", "1"), told.queue("m2", "2"));
    told.start(cell, 7, None);
    told.finish(cell, CellStatus::Ok, None, Verdict::Kept);
    told.finish(
        aborted,
        CellStatus::Aborted,
        Some(Cause::EarlierError),
        Verdict::Kept,
    );
    told.print(None, "of a thread\n");
    assert_snapshot!(told.text);
}

#[test]
fn a_comm_message_during_a_cell_is_told_after_it() {
    let mut told = Told::new();
    let cell = told.queue("m1", "sleep(1)");
    told.start(cell, 7, None);
    let at_seq = told.comm(CommSide::Client, CommAction::Open, "m2");
    told.print(Some(cell), "of the cell\n");
    told.finish(cell, CellStatus::Ok, None, Verdict::Kept);
    told.say(Event::CommHandled {
        at_seq,
        error: Some("no comm target".to_owned()),
    });
    assert_snapshot!(told.text);
}

#[test]
fn a_story_that_begins_in_the_middle_of_a_cell_has_its_parent_all_the_same() {
    let cell = CellId::new();
    let mut told = Told::new();
    told.story.introduce(
        cell,
        Some(Envelope {
            seq: 1,
            at_ms: 0,
            event: Event::CellQueued {
                cell,
                code: "1".to_owned(),
                position: 0,
                silent: false,
                origin: None,
                client: Some(client("m1", "execute_request")),
            },
        }),
    );
    told.print(Some(cell), "on\n");
    told.finish(cell, CellStatus::Ok, None, Verdict::Kept);
    assert_snapshot!(told.text);
}

#[test]
fn the_same_event_is_told_with_the_same_id() {
    let ids = |story: &mut Story| {
        let event = Event::Stream {
            cell: None,
            name: StreamName::Stdout,
            text: "x".to_owned(),
        };
        story.tell(Envelope {
            seq: 41,
            at_ms: 0,
            event,
        });
        let told = story.take();
        told[0].1.header["msg_id"].clone()
    };
    let session = "k".parse().unwrap();
    assert_eq!(
        ids(&mut Story::new(&session)),
        ids(&mut Story::new(&session))
    );
}
