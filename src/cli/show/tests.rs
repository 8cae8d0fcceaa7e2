//! Tests of what a terminal shows.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::*;

const CELL: &str = "01890000-0000-7000-8000-000000000001";

/// Shows events and returns what came to stdout and to stderr.
fn shown(detail: Detail, events: &[Value]) -> (String, String, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let session = "chat:42".parse().unwrap();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut screen = Screen::new(
        (&mut out, Some(Filter::new(Colour::Keep))),
        (&mut err, Some(Filter::new(Colour::Drop))),
        detail,
        Figures::new(dir.path(), &session),
    );
    for (index, event) in events.iter().enumerate() {
        let mut event = event.clone();
        event["seq"] = json!(index + 1);
        event["at_ms"] = json!(0);
        screen
            .event(&serde_json::from_value(event).unwrap())
            .unwrap();
    }
    let text = |bytes| {
        String::from_utf8(bytes)
            .unwrap()
            .replace(dir.path().to_str().unwrap(), "DIR")
    };
    (text(out), text(err), dir)
}

fn stream(name: &str, text: &str) -> Value {
    json!({"event": "stream", "cell": CELL, "name": name, "text": text})
}

fn display(data: Value) -> Value {
    json!({"event": "display_data", "cell": CELL, "data": data, "metadata": {}})
}

#[test]
fn output_goes_where_it_was_written_to() {
    let events = [
        stream("stdout", "a"),
        stream("stderr", "b\n"),
        stream("stdout", "c\n"),
    ];
    let (out, err, _) = shown(Detail::Output, &events);
    assert_eq!((out.as_str(), err.as_str()), ("ac\n", "b\n"));
}

#[test]
fn a_progress_bar_stays_on_its_line() {
    let events = [stream("stdout", "\r 50%"), stream("stdout", "\r100%\n")];
    assert_eq!(shown(Detail::Output, &events).0, "\r 50%\r100%\n");
}

#[test]
fn a_figure_is_a_file_and_its_name_a_line() {
    let png = display(json!({"image/png": STANDARD.encode("png!"), "text/plain": "<Figure>"}));
    let (out, _, dir) = shown(Detail::Output, &[stream("stdout", "before"), png]);
    assert_eq!(out, "before\n[figure: DIR/chat_42-2.png]\n");
    assert_eq!(
        std::fs::read(dir.path().join("chat_42-2.png")).unwrap(),
        b"png!"
    );
}

#[test]
fn an_updated_figure_is_the_same_file() {
    let mut first = display(json!({"image/svg+xml": "<svg/>"}));
    first["display_id"] = json!("d");
    let second = json!({"event": "update_display_data", "cell": CELL, "data": {"image/svg+xml": "<svg>2</svg>"}, "metadata": {}, "display_id": "d"});
    let (out, _, dir) = shown(Detail::Output, &[first, second]);
    assert_eq!(
        out,
        "[figure: DIR/chat_42-1.svg]\n[figure: DIR/chat_42-1.svg]\n"
    );
    assert_eq!(
        std::fs::read(dir.path().join("chat_42-1.svg")).unwrap(),
        b"<svg>2</svg>"
    );
}

#[test]
fn what_has_no_text_is_named() {
    let events = [
        display(json!({"text/plain": "a table", "text/html": "<b>"})),
        display(json!({"text/html": "<b>"})),
    ];
    assert_eq!(shown(Detail::Output, &events).0, "a table\n[text/html]\n");
}

#[test]
fn a_broken_figure_is_shown_as_text() {
    let events = [display(
        json!({"image/png": "no base64!", "text/plain": "<Figure>"}),
    )];
    assert_eq!(shown(Detail::Output, &events).0, "<Figure>\n");
}

#[test]
fn a_session_reads_like_a_conversation() {
    let events = [
        json!({"event": "cell_queued", "cell": CELL, "code": "for i in x:\n    print(i)\n", "position": 0}),
        json!({"event": "cell_started", "cell": CELL, "execution_count": 3, "deadline_at_ms": 0, "ceiling_at_ms": 0}),
        stream("stdout", "1\n"),
        json!({"event": "execute_result", "cell": CELL, "execution_count": 3, "data": {"text/plain": "2"}, "metadata": {}}),
        json!({"event": "error", "cell": CELL, "ename": "E", "evalue": "v", "traceback": ["\u{1b}[31mTraceback\u{1b}[0m", "E: v"]}),
        json!({"event": "cell_finished", "cell": CELL, "status": "error", "cause": {"kind": "exception"}, "state": {"verdict": "kept"},
            "usage": {"wall_ms": 1200, "cpu_ms": 7, "peak_memory_bytes": 3145728, "output_bytes": 2}}),
    ];
    let (out, err, _) = shown(Detail::Everything, &events);
    assert_eq!(
        out,
        "In [3]: for i in x:\n   ...:     print(i)\n1\nOut[3]: 2\n"
    );
    assert_eq!(
        err,
        "Traceback\nE: v\nevercell: error, 1s (7ms of processor, 3M at most)\n"
    );
}

#[test]
fn what_became_of_the_variables_is_always_said() {
    let events = [
        json!({"event": "deadline_warning", "cell": CELL, "deadline_at_ms": 0, "extendable_ms": 570_000}),
        json!({"event": "interrupted", "cell": CELL, "reason": "deadline", "rung": "sigint"}),
        json!({"event": "cell_finished", "cell": CELL, "status": "error", "cause": {"kind": "deadline"}, "state": {"verdict": "kept"}}),
        json!({"event": "kernel_lost", "cause": {"kind": "out_of_memory", "limit_bytes": 536_870_912, "peak_bytes": null},
            "state": {"verdict": "lost", "why": "the kernel was killed"}}),
    ];
    assert_eq!(
        shown(Detail::Output, &events).1,
        "evercell: the deadline is near; it can be extended by 9m 30s\n\
         evercell: the cell is interrupted at its deadline\n\
         evercell: the cell was stopped: its time was up; variables are kept\n\
         evercell: the kernel is gone: it needed more than 512M of memory; variables are lost: the kernel was killed\n"
    );
}
