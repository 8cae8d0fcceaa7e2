//! A log as text: one line an event, cells renumbered, times left out.

use std::collections::HashMap;
use std::fmt::Write;

use evercell::model::event::{Envelope, Event, Verdict};
use evercell::model::id::CellId;

/// Writes a log down so that a reader who knows no Rust can check it.
pub fn transcript(events: &[Envelope]) -> String {
    let mut cells: HashMap<CellId, usize> = HashMap::new();
    let mut text = String::new();
    for Envelope { seq, event, .. } in events {
        let cell = event.cell().map_or(String::new(), |cell| {
            let next = cells.len() + 1;
            format!("c{}", cells.entry(cell).or_insert(next))
        });
        let line = format!(
            "{seq:<3} {:<18} {cell:<3} {}",
            name(event),
            detail(event, &cells)
        );
        writeln!(text, "{}", line.trim_end()).expect("a string takes what it is given");
    }
    without_ids(&text)
}

/// Every uuid as `ID`.
fn without_ids(text: &str) -> String {
    let is_id = |word: &str| word.len() == 36 && word.parse::<CellId>().is_ok();
    text.split_inclusive(['`', '\n'])
        .map(
            |word| match word.strip_suffix('`').filter(|word| is_id(word)) {
                Some(_) => "ID`".to_owned(),
                None => word.to_owned(),
            },
        )
        .collect()
}

fn name(event: &Event) -> String {
    let json = serde_json::to_value(event).expect("an event is JSON");
    json["event"]
        .as_str()
        .expect("an event has a name")
        .to_owned()
}

fn detail(event: &Event, cells: &HashMap<CellId, usize>) -> String {
    let json = |value: &dyn erased::Json| value.text();
    match event {
        Event::SessionOpened { reopened, .. } => if *reopened { "again" } else { "" }.to_owned(),
        Event::KernelStarted {
            reason,
            restored: Some(name),
            ..
        } => format!("{} {name}", json(reason)),
        Event::KernelStarted { reason, .. } => json(reason),
        Event::CheckpointHeld {
            name,
            execution_count,
        } => format!("{name} [{execution_count}]"),
        Event::LabelsChanged { labels } => json(labels),
        Event::CheckpointDropped { name, reason } => format!("{name} {}", json(reason)),
        Event::KernelFailed { message } => message.clone(),
        Event::KernelLost {
            cause,
            state: state @ (Verdict::RolledBack { .. } | Verdict::Restored { .. }),
        } => format!("{} {}", json(cause), state_text(state, cells)),
        Event::KernelAdopted { state } => state_text(state, cells),
        Event::KernelLost { cause, state } => format!("{} {}", json(cause), json(state)),
        Event::CellQueued { code, position, .. } => format!("at {position}: {code:?}"),
        Event::CellStarted {
            execution_count, ..
        } => execution_count.map_or(String::new(), |n| format!("[{n}]")),
        Event::Stream { name, text, .. } => format!("{} {text:?}", json(name)),
        Event::DisplayData {
            data, display_id, ..
        } => {
            format!(
                "{} {}",
                json(data),
                display_id.as_deref().unwrap_or_default()
            )
        }
        Event::UpdateDisplayData {
            data, display_id, ..
        } => format!("{} {display_id}", json(data)),
        Event::ExecuteResult {
            execution_count,
            data,
            ..
        } => format!("[{execution_count}] {}", json(data)),
        Event::Error { error, .. } => format!("{}: {}", error.ename, error.evalue),
        Event::ClearOutput { wait, .. } => if *wait { "later" } else { "now" }.to_owned(),
        Event::InputRequested { prompt, .. } => format!("{prompt:?}"),
        Event::InputClosed { outcome, .. } => json(outcome),
        Event::Comm { message, .. } => format!("{} {}", json(&message.comm), message.comm_id),
        Event::CommHandled { at_seq, error } => {
            format!("of {at_seq} {}", error.as_deref().unwrap_or_default())
        }
        Event::DeadlineWarning { extendable_ms, .. } => format!("extendable by {extendable_ms} ms"),
        Event::DeadlineExtended {
            reason,
            by_ms,
            limit_ms,
            ..
        } => format!("{} by {by_ms} to {limit_ms} ms", json(reason)),
        Event::MemoryWarning {
            used_bytes,
            limit_bytes,
            ..
        } => format!("{used_bytes} of {limit_bytes} bytes"),
        Event::Interrupted { reason, rung, .. } => format!("{} {}", json(reason), json(rung)),
        Event::CellFinished {
            status,
            cause,
            state,
            ..
        } => {
            let cause = cause.as_ref().map_or(String::new(), |cause| json(cause));
            format!("{} {cause} {}", json(status), state_text(state, cells)).replace("  ", " ")
        }
        Event::SessionEnded { reason } => json(reason),
    }
}

fn state_text(state: &Verdict, cells: &HashMap<CellId, usize>) -> String {
    match state {
        Verdict::Kept => "kept".to_owned(),
        Verdict::RolledBack { before } => format!(
            "rolled back to before c{}",
            cells.get(before).copied().unwrap_or(0)
        ),
        Verdict::Restored { checkpoint } => format!("restored {checkpoint}"),
        Verdict::Lost { why } => format!("lost: {why}"),
    }
}

/// JSON without its outer quotes, of anything.
mod erased {
    pub trait Json {
        fn text(&self) -> String;
    }

    impl<T: serde::Serialize> Json for T {
        fn text(&self) -> String {
            let json = serde_json::to_value(self).expect("it is JSON");
            json.as_str()
                .map_or_else(|| json.to_string(), str::to_owned)
        }
    }
}
