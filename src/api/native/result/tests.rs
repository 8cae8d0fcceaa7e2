//! Examples of logs and of what becomes of them.

use serde_json::json;

use super::*;

const CELL: &str = "00000000-0000-7000-8000-000000000001";
const OTHER: &str = "00000000-0000-7000-8000-000000000002";

/// Folds events, given as JSON without place and time.
fn fold(events: &[Value]) -> CellResult {
    fold_within(events, Extent::default())
}

fn fold_within(events: &[Value], extent: Extent) -> CellResult {
    let mut reducer = Reducer::new(CELL.parse().unwrap(), extent);
    for (n, event) in events.iter().enumerate() {
        let mut event = event.clone();
        event["seq"] = json!(n + 1);
        event["at_ms"] = json!(0);
        if event.get("cell").is_none() {
            event["cell"] = json!(CELL);
        }
        reducer.apply(serde_json::from_value(event).unwrap());
    }
    reducer.finish()
}

fn queued() -> Value {
    json!({"event": "cell_queued", "code": "", "position": 0})
}

fn started() -> Value {
    json!({"event": "cell_started", "execution_count": 3, "deadline_at_ms": 30_000, "ceiling_at_ms": 600_000})
}

fn stdout(text: &str) -> Value {
    json!({"event": "stream", "name": "stdout", "text": text})
}

fn display(id: Option<&str>, text: &str) -> Value {
    json!({"event": "display_data", "data": {"text/plain": text}, "metadata": {}, "display_id": id})
}

fn update(id: &str, text: &str) -> Value {
    json!({"event": "update_display_data", "data": {"text/plain": text}, "metadata": {}, "display_id": id})
}

fn clear(wait: bool) -> Value {
    json!({"event": "clear_output", "wait": wait})
}

fn finished(status: &str) -> Value {
    json!({
        "event": "cell_finished", "status": status, "state": {"verdict": "kept"}, "execution_count": 3,
        "usage": {"wall_ms": 12, "cpu_ms": 10, "output_bytes": 6},
        "variables": {"added": [], "changed": [], "removed": [], "total": 0},
    })
}

fn shown(result: &CellResult) -> Vec<&str> {
    result
        .displays
        .iter()
        .map(|display| display.data["text/plain"].as_str().unwrap())
        .collect()
}

#[test]
fn a_cell_that_went_well() {
    let result = fold(&[
        queued(),
        started(),
        stdout("hello\n"),
        json!({"event": "execute_result", "execution_count": 3, "data": {"text/plain": "42"}, "metadata": {}}),
        finished("ok"),
    ]);
    insta::assert_json_snapshot!(result, @r#"
    {
      "cell": "00000000-0000-7000-8000-000000000001",
      "status": "ok",
      "execution_count": 3,
      "text": {
        "stdout": {
          "preview": "hello\n",
          "bytes": 6,
          "lines": 1,
          "truncated": false
        },
        "stderr": {
          "preview": "",
          "bytes": 0,
          "lines": 0,
          "truncated": false
        }
      },
      "result": {
        "seq": 4,
        "data": {
          "text/plain": "42"
        },
        "metadata": {}
      },
      "displays": [],
      "error": null,
      "cause": null,
      "state": {
        "verdict": "kept"
      },
      "usage": {
        "wall_ms": 12,
        "cpu_ms": 10,
        "output_bytes": 6
      },
      "variables": {
        "added": [],
        "changed": [],
        "removed": [],
        "total": 0
      },
      "first_seq": 1,
      "last_seq": 5
    }
    "#);
}

#[test]
fn a_cell_that_raised() {
    let result = fold(&[
        queued(),
        started(),
        json!({
            "event": "error", "ename": "ZeroDivisionError", "evalue": "division by zero",
            "traceback": ["\u{1b}[31mZeroDivisionError\u{1b}[0m", "division by zero"],
        }),
        json!({
            "event": "cell_finished", "status": "error", "cause": {"kind": "exception"}, "state": {"verdict": "kept"},
            "execution_count": 3,
        }),
    ]);
    assert_eq!(result.status, ResultStatus::Error);
    assert_eq!(result.cause, Some(Cause::Exception));
    insta::assert_json_snapshot!(result.error, @r#"
    {
      "ename": "ZeroDivisionError",
      "evalue": "division by zero",
      "traceback": "ZeroDivisionError\ndivision by zero",
      "traceback_ansi": "\u001b[31mZeroDivisionError\u001b[0m\ndivision by zero"
    }
    "#);
}

#[test]
fn a_cell_that_waits_runs_or_was_taken_out() {
    let waiting = fold(&[queued()]);
    assert_eq!(
        (waiting.status, waiting.deadline_at_ms),
        (ResultStatus::Queued, None)
    );
    let running = fold(&[queued(), started()]);
    assert_eq!(
        (running.status, running.deadline_at_ms),
        (ResultStatus::Running, Some(30_000))
    );
    let cancelled = json!({"event": "cell_finished", "status": "aborted", "cause": {"kind": "cancelled"}, "state": {"verdict": "kept"}});
    let aborted = fold(&[queued(), cancelled]);
    assert_eq!(
        (aborted.status, aborted.cause),
        (ResultStatus::Aborted, Some(Cause::Cancelled))
    );
}

#[test]
fn a_deadline_that_moves_is_told() {
    let extended = json!({
        "event": "deadline_extended", "by_ms": 1000, "limit_ms": 31_000, "deadline_at_ms": 31_000, "extendable_ms": 9,
    });
    assert_eq!(
        fold(&[queued(), started(), extended.clone()]).deadline_at_ms,
        Some(31_000)
    );
    assert_eq!(
        fold(&[queued(), started(), extended, finished("ok")]).deadline_at_ms,
        None
    );
}

#[test]
fn an_input_that_waits_is_told() {
    let asked = json!({"event": "input_requested", "request": "r1", "prompt": "Name? ", "password": false, "deadline_at_ms": 9});
    let closed = json!({"event": "input_closed", "request": "r1", "outcome": "answered", "deadline_at_ms": 40_000});
    let waiting = fold(&[queued(), started(), asked.clone()]);
    assert_eq!(waiting.input.unwrap().prompt, "Name? ");
    let answered = fold(&[queued(), started(), asked, closed]);
    assert_eq!(
        (answered.input, answered.deadline_at_ms),
        (None, Some(40_000))
    );
}

#[test]
fn other_cells_are_passed_over() {
    let mut foreign = stdout("not mine");
    foreign["cell"] = json!(OTHER);
    let mut nobodys = stdout("nobody's");
    nobodys["cell"] = Value::Null;
    let result = fold(&[
        queued(),
        foreign,
        nobodys,
        started(),
        stdout("mine"),
        finished("ok"),
    ]);
    assert_eq!(result.text.stdout.preview, "mine");
    assert_eq!((result.first_seq, result.last_seq), (Some(1), Some(6)));
}

#[test]
fn the_two_streams_are_kept_apart() {
    let stderr = json!({"event": "stream", "name": "stderr", "text": "warning\n"});
    let result = fold(&[stdout("a"), stderr, stdout("b\n")]);
    assert_eq!(
        (
            result.text.stdout.preview.as_str(),
            result.text.stderr.preview.as_str()
        ),
        ("ab\n", "warning\n")
    );
}

#[test]
fn a_display_is_as_it_was_last_updated() {
    let result = fold(&[
        display(Some("a"), "0 %"),
        display(None, "still"),
        update("a", "50 %"),
        update("a", "100 %"),
    ]);
    assert_eq!(shown(&result), ["100 %", "still"]);
    assert_eq!(result.displays[0].seq, 4, "the event that has it whole");
}

#[test]
fn an_update_of_an_earlier_cells_display_is_shown_once() {
    let result = fold(&[update("old", "1"), update("old", "2")]);
    assert_eq!(shown(&result), ["2"]);
    assert!(result.displays[0].update);
}

#[test]
fn cleared_output_is_gone() {
    let result = fold(&[
        stdout("old"),
        display(None, "old"),
        clear(false),
        stdout("new"),
    ]);
    assert_eq!(
        (result.text.stdout.preview.as_str(), shown(&result).len()),
        ("new", 0)
    );
}

#[test]
fn output_that_is_to_be_cleared_stays_until_there_is_more() {
    assert_eq!(
        fold(&[stdout("old"), clear(true)]).text.stdout.preview,
        "old"
    );
    assert_eq!(
        fold(&[stdout("old"), clear(true), stdout("new")])
            .text
            .stdout
            .preview,
        "new"
    );
    assert_eq!(
        shown(&fold(&[
            display(None, "old"),
            clear(true),
            display(None, "new")
        ])),
        ["new"]
    );
}

#[test]
fn a_value_that_is_too_long_is_left_out_and_measured() {
    let extent = Extent {
        preview_bytes: 40,
        value_bytes: 100,
        total_bytes: 150,
    };
    let data = json!({"text/plain": "x".repeat(1000), "text/html": "y".repeat(101), "image/png": "z".repeat(100)});
    let event = json!({"event": "display_data", "data": data, "metadata": {}});
    let result = fold_within(&[event.clone(), event], extent);
    let first = &result.displays[0];
    assert_eq!(
        first.elided,
        BTreeMap::from([
            ("text/plain".to_owned(), 1000),
            ("text/html".to_owned(), 101)
        ])
    );
    assert!(
        first.data["text/plain"]
            .as_str()
            .unwrap()
            .contains("left out"),
        "a preview"
    );
    assert_eq!(first.data["image/png"].as_str().unwrap().len(), 100);
    assert!(
        result.displays[1].elided.contains_key("image/png"),
        "the answer has a bound too"
    );
}

#[test]
fn an_update_gives_back_the_room_it_takes() {
    let extent = Extent {
        preview_bytes: 40,
        value_bytes: 100,
        total_bytes: 150,
    };
    let png = |event: &str| json!({"event": event, "data": {"image/png": "z".repeat(100)}, "metadata": {}, "display_id": "a"});
    let result = fold_within(
        &[
            png("display_data"),
            png("update_display_data"),
            png("update_display_data"),
        ],
        extent,
    );
    assert!(result.displays[0].elided.is_empty());
}

#[test]
fn a_thousand_displays_are_not_all_in_the_answer() {
    let events: Vec<Value> = (0..1000).map(|n| display(None, &n.to_string())).collect();
    let result = fold(&events);
    assert_eq!(
        (result.displays.len(), result.displays_left_out),
        (DISPLAYS, 800)
    );
    assert_eq!(
        (shown(&result)[0], *shown(&result).last().unwrap()),
        ("0", "999")
    );
}

#[test]
fn a_cell_whose_beginning_was_trimmed_is_not_taken_to_wait() {
    assert_eq!(fold(&[stdout("late")]).status, ResultStatus::Running);
}

#[test]
fn nothing_comes_after_the_end() {
    let result = fold(&[queued(), started(), finished("ok"), stdout("ghost")]);
    assert_eq!(result.text.stdout.preview, "");
}
