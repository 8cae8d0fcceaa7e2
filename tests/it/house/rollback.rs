//! A kernel that is lost leaves a checkpoint: what the log says then.

use evercell::model::event::{Event, Protection, Verdict};
use evercell::session::CellRequest;
use insta::assert_snapshot;

use crate::harness::house::House;

#[tokio::test(start_paused = true)]
async fn a_crash_costs_one_cell_and_the_count_goes_on() {
    let house = House::new().await;
    let mut client = house.session("s").await;
    client.run("checkpoint").await;
    client.execute("print before\ndie 11").await;
    client.wait_for("kernel_started").await;
    client.run("print after").await;
    assert_snapshot!(client.transcript(), @r#"
    1   session_opened
    2   kernel_started         opened
    3   cell_queued        c1  at 0: "checkpoint"
    4   cell_started       c1  [1]
    5   cell_finished      c1  ok kept
    6   cell_queued        c2  at 0: "print before\ndie 11"
    7   cell_started       c2  [2]
    8   stream             c2  stdout "before\n"
    9   cell_finished      c2  error {"kind":"killed_by_signal","name":"SIGSEGV","signal":11} rolled back to before c2
    10  kernel_lost            {"kind":"killed_by_signal","name":"SIGSEGV","signal":11} rolled back to before c2
    11  kernel_started         rolled_back
    12  cell_queued        c3  at 0: "print after"
    13  cell_started       c3  [2]
    14  stream             c3  stdout "after\n"
    15  cell_finished      c3  ok kept
    "#);
}

#[tokio::test(start_paused = true)]
async fn an_older_checkpoint_is_named_by_the_cell_that_it_was_made_before() {
    let house = House::new().await;
    let mut client = house.session("s").await;
    client.run("checkpoint").await;
    client.run("print first").await;
    client.execute("oom").await;
    client.wait_for("kernel_started").await;
    assert_snapshot!(client.transcript(), @r#"
    1   session_opened
    2   kernel_started         opened
    3   cell_queued        c1  at 0: "checkpoint"
    4   cell_started       c1  [1]
    5   cell_finished      c1  ok kept
    6   cell_queued        c2  at 0: "print first"
    7   cell_started       c2  [2]
    8   stream             c2  stdout "first\n"
    9   cell_finished      c2  ok kept
    10  cell_queued        c3  at 0: "oom"
    11  cell_started       c3  [3]
    12  cell_finished      c3  error {"kind":"out_of_memory","limit_bytes":536870912,"peak_bytes":null} rolled back to before c2
    13  kernel_lost            {"kind":"out_of_memory","limit_bytes":536870912,"peak_bytes":null} rolled back to before c2
    14  kernel_started         rolled_back
    "#);
}

#[tokio::test(start_paused = true)]
async fn a_kernel_that_dies_between_cells_loses_nothing() {
    let house = House::new().await;
    let mut client = house.session("s").await;
    client.execute("checkpoint\nafterwards 9").await;
    client.wait_for("kernel_started").await;
    assert_snapshot!(client.transcript(), @r#"
    1   session_opened
    2   kernel_started         opened
    3   cell_queued        c1  at 0: "checkpoint\nafterwards 9"
    4   cell_started       c1  [1]
    5   cell_finished      c1  ok kept
    6   kernel_lost            {"kind":"killed_by_signal","name":"SIGKILL","signal":9} {"verdict":"kept"}
    7   kernel_started         rolled_back
    "#);
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_that_does_not_wake_is_a_loss_and_the_log_takes_back_what_it_said() {
    let house = House::new().await;
    let mut client = house.session("s").await;
    client.run("checkpoint broken").await;
    client.execute("exit 3").await;
    client.wait_for("kernel_started").await;
    assert_snapshot!(client.transcript(), @r#"
    1   session_opened
    2   kernel_started         opened
    3   cell_queued        c1  at 0: "checkpoint broken"
    4   cell_started       c1  [1]
    5   cell_finished      c1  ok kept
    6   cell_queued        c2  at 0: "exit 3"
    7   cell_started       c2  [2]
    8   cell_finished      c2  error {"code":3,"kind":"exited"} rolled back to before c2
    9   kernel_lost            {"code":3,"kind":"exited"} rolled back to before c2
    10  kernel_lost            {"code":3,"kind":"exited"} {"verdict":"lost","why":"the kernel's process exited with code 3, and its checkpoint did not wake: it sleeps"}
    11  kernel_started         recovered
    "#);
}

#[tokio::test(start_paused = true)]
async fn a_restart_during_a_rollback_gives_a_new_kernel_whatever_the_old_one_still_says() {
    let house = House::new().await;
    let mut client = house.session("s").await;
    client.run("checkpoint slow").await;
    client.execute("die 11").await;
    client.wait_for("kernel_lost").await;
    client.handle.restart().await.unwrap();
    client.wait_for("kernel_started").await;
    client.run("print new").await;
    assert_snapshot!(client.transcript(), @r#"
    1   session_opened
    2   kernel_started         opened
    3   cell_queued        c1  at 0: "checkpoint slow"
    4   cell_started       c1  [1]
    5   cell_finished      c1  ok kept
    6   cell_queued        c2  at 0: "die 11"
    7   cell_started       c2  [2]
    8   cell_finished      c2  error {"kind":"killed_by_signal","name":"SIGSEGV","signal":11} rolled back to before c2
    9   kernel_lost            {"kind":"killed_by_signal","name":"SIGSEGV","signal":11} rolled back to before c2
    10  kernel_started         restarted
    11  cell_queued        c3  at 0: "print new"
    12  cell_started       c3  [1]
    13  stream             c3  stdout "new\n"
    14  cell_finished      c3  ok kept
    "#);
}

#[tokio::test(start_paused = true)]
async fn after_a_restart_there_is_nothing_to_go_back_to() {
    let house = House::new().await;
    let mut client = house.session("s").await;
    client.run("checkpoint").await;
    client.handle.restart().await.unwrap();
    client.wait_for("kernel_started").await;
    client.execute("die 6").await;
    client.wait_for("kernel_started").await;
    assert_snapshot!(client.transcript(), @r#"
    1   session_opened
    2   kernel_started         opened
    3   cell_queued        c1  at 0: "checkpoint"
    4   cell_started       c1  [1]
    5   cell_finished      c1  ok kept
    6   kernel_started         restarted
    7   cell_queued        c2  at 0: "die 6"
    8   cell_started       c2  [1]
    9   cell_finished      c2  error {"kind":"killed_by_signal","name":"SIGABRT","signal":6} lost: the kernel was killed by SIGABRT
    10  kernel_lost            {"kind":"killed_by_signal","name":"SIGABRT","signal":6} {"verdict":"lost","why":"the kernel was killed by SIGABRT"}
    11  kernel_started         recovered
    "#);
}

#[tokio::test(start_paused = true)]
async fn each_cell_says_whether_it_was_protected() {
    let house = House::new().await;
    let mut client = house.session("s").await;
    client.run("checkpoint").await;
    let second = client.run("print second").await;
    client.run("print third").await;
    let said: Vec<String> = client
        .seen
        .iter()
        .filter_map(|envelope| match &envelope.event {
            Event::CellFinished {
                checkpoint: Some(checkpoint),
                ..
            } => Some(match checkpoint {
                Protection::Before(cell) if *cell == second => "before the second".to_owned(),
                other => serde_json::to_string(other).unwrap(),
            }),
            _ => None,
        })
        .collect();
    assert_snapshot!(said.join("\n"), @r#"
    {"unprotected":"unknown"}
    before the second
    before the second
    "#);
}

#[tokio::test(start_paused = true)]
async fn what_was_rolled_back_is_repeated_until_a_cell_has_begun_that_says_so() {
    let house = House::new().await;
    let mut client = house.session("s").await;
    client.run("checkpoint").await;
    client.execute("die 11").await;
    client.wait_for("kernel_started").await;
    let note = client.handle.view().state_note.unwrap();
    let told = client
        .seen
        .iter()
        .find(|envelope| envelope.seq == note.at_seq);
    let told = &told.unwrap().event;
    assert!(matches!(told, Event::KernelLost { .. }), "{told:?}");
    // Another server says it too.
    drop(client);
    let house = house.next().await;
    let mut client = house.client("s").await;
    client.wait_for("kernel_adopted").await;
    assert_eq!(client.handle.view().state_note.as_ref(), Some(&note));
    let silent = CellRequest {
        silent: true,
        ..CellRequest::new("")
    };
    client.handle.execute(silent).await.unwrap();
    client.wait_for("cell_finished").await;
    let first = client.execute("print first").await;
    assert_eq!(first.state_note.as_ref(), Some(&note));
    client
        .wait_until(
            |event| matches!(event, Event::CellFinished { cell, .. } if *cell == first.cell),
        )
        .await;
    assert_eq!(client.handle.view().state_note, None);
    let started = client.seen.iter().rev().find_map(|envelope| {
        if let Event::CellStarted { state_note, .. } = &envelope.event {
            Some(state_note.clone())
        } else {
            None
        }
    });
    assert_eq!(started.unwrap(), Some(note));
    assert_eq!(client.execute("print second").await.state_note, None);
}

#[tokio::test(start_paused = true)]
async fn a_loss_that_nobody_has_seen_is_not_hidden_by_a_rollback_nor_kept_after_a_restart() {
    let house = House::new().await;
    let mut client = house.session("s").await;
    client.execute("die 11").await;
    client.wait_for("kernel_started").await;
    let silent = |code: &str| CellRequest {
        silent: true,
        ..CellRequest::new(code)
    };
    client.handle.execute(silent("checkpoint")).await.unwrap();
    client.handle.execute(silent("die 6")).await.unwrap();
    client.wait_for("kernel_started").await;
    let note = client.handle.view().state_note.unwrap();
    assert!(matches!(note.state, Verdict::Lost { .. }), "{note:?}");
    client.handle.restart().await.unwrap();
    client.wait_for("kernel_started").await;
    assert_eq!(client.handle.view().state_note, None);
}
