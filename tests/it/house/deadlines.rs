//! A deadline is a thing that one can see and move.

use std::time::Duration;

use evercell::model::event::Event;
use evercell::session::{Denied, InputAnswer, SessionError};
use insta::assert_snapshot;

use crate::harness::house::{House, pass};

const SECOND: Duration = Duration::from_secs(1);

/// A line that was typed.
fn line(text: &str) -> InputAnswer {
    InputAnswer {
        request: None,
        value: Some(text.to_owned()),
    }
}

#[tokio::test(start_paused = true)]
async fn a_cell_is_warned_and_then_interrupted_at_its_deadline() {
    let house = House::new().await;
    let mut client = house.session("s").await;
    client.execute("wait").await;
    client.wait_for("cell_started").await;
    pass(25 * SECOND).await;
    client.wait_for("deadline_warning").await;
    pass(5 * SECOND).await;
    client.wait_for("cell_finished").await;
    assert_snapshot!(client.transcript(), @r#"
    1   session_opened
    2   kernel_started         opened
    3   cell_queued        c1  at 0: "wait"
    4   cell_started       c1  [1]
    5   deadline_warning   c1  extendable by 570000 ms
    6   interrupted        c1  deadline sigint
    7   error              c1  KeyboardInterrupt:
    8   cell_finished      c1  error {"kind":"deadline"} kept
    "#);
}

#[tokio::test(start_paused = true)]
async fn an_extension_moves_the_deadline_up_to_the_ceiling() {
    let house = House::new().await;
    let mut client = house.session("s").await;
    let cell = client.execute("wait").await.cell;
    client.wait_for("cell_started").await;
    let moved = client.handle.extend(Some(cell), 60 * SECOND).await.unwrap();
    assert_eq!(moved.limit, 90 * SECOND);
    let beyond = client.handle.extend(None, 511 * SECOND).await;
    assert!(matches!(
        beyond,
        Err(SessionError::Denied(Denied::BeyondCeiling {
            asked_ms: 511_000,
            grantable_ms: 510_000
        }))
    ));
    pass(40 * SECOND).await;
    pass(50 * SECOND).await;
    client.wait_for("cell_finished").await;
    let finished = client.handle.extend(Some(cell), SECOND).await;
    assert!(
        matches!(finished, Err(SessionError::Denied(Denied::CellFinished(_)))),
        "{finished:?}"
    );
    assert_snapshot!(client.transcript(), @r#"
    1   session_opened
    2   kernel_started         opened
    3   cell_queued        c1  at 0: "wait"
    4   cell_started       c1  [1]
    5   deadline_extended  c1  asked by 60000 to 90000 ms
    6   interrupted        c1  deadline sigint
    7   error              c1  KeyboardInterrupt:
    8   cell_finished      c1  error {"kind":"deadline"} kept
    "#);
}

#[tokio::test(start_paused = true)]
async fn a_waiting_cell_can_be_given_more_time_and_has_it_when_it_runs() {
    let house = House::new().await;
    let mut client = house.session("s").await;
    client.execute("ask").await;
    let waiting = client.execute("wait").await.cell;
    let ten = 10 * SECOND;
    let moved = client.handle.extend(Some(waiting), ten).await.unwrap();
    assert_eq!((moved.limit, moved.deadline_at_ms), (4 * ten, None));
    client.wait_for("deadline_extended").await;
    client.handle.answer_input(line("go")).await.unwrap();
    client
        .wait_until(|event| matches!(event, Event::CellStarted { cell, .. } if *cell == waiting))
        .await;
    pass(35 * SECOND).await;
    client.wait_for("deadline_warning").await;
    pass(5 * SECOND).await;
    client
        .wait_until(|event| matches!(event, Event::CellFinished { cell, .. } if *cell == waiting))
        .await;
    assert_snapshot!(client.transcript(), @r#"
    1   session_opened
    2   kernel_started         opened
    3   cell_queued        c1  at 0: "ask"
    4   cell_started       c1  [1]
    5   input_requested    c1  ""
    6   cell_queued        c2  at 1: "wait"
    7   deadline_extended  c2  asked by 10000 to 40000 ms
    8   input_closed       c1  answered
    9   stream             c1  stdout "go\n"
    10  cell_finished      c1  ok kept
    11  cell_started       c2  [2]
    12  deadline_warning   c2  extendable by 560000 ms
    13  interrupted        c2  deadline sigint
    14  error              c2  KeyboardInterrupt:
    15  cell_finished      c2  error {"kind":"deadline"} kept
    "#);
}

#[tokio::test(start_paused = true)]
async fn code_that_ignores_the_interrupt_is_killed_and_the_log_says_what_was_lost() {
    let house = House::new().await;
    let mut client = house.session("s").await;
    client.execute("stubborn").await;
    client.wait_for("cell_started").await;
    client.handle.interrupt(None).await.unwrap();
    client.wait_for("interrupted").await;
    for grace in [2, 1] {
        pass(grace * SECOND).await;
        client.wait_for("interrupted").await;
    }
    pass(SECOND).await;
    client.wait_for("kernel_started").await;
    client.run("print again").await;
    assert_snapshot!(client.transcript(), @r#"
    1   session_opened
    2   kernel_started         opened
    3   cell_queued        c1  at 0: "stubborn"
    4   cell_started       c1  [1]
    5   interrupted        c1  requested sigint
    6   interrupted        c1  requested cancel
    7   interrupted        c1  requested second_sigint
    8   interrupted        c1  requested kill
    9   cell_finished      c1  error {"kind":"interrupted"} lost: the kernel was killed: what ran did not stop when it was interrupted
    10  kernel_lost            {"kind":"interrupted"} {"verdict":"lost","why":"the kernel was killed: what ran did not stop when it was interrupted"}
    11  kernel_started         recovered
    12  cell_queued        c2  at 0: "print again"
    13  cell_started       c2  [1]
    14  stream             c2  stdout "again\n"
    15  cell_finished      c2  ok kept
    "#);
}

#[tokio::test(start_paused = true)]
async fn code_that_keeps_sigint_for_itself_is_cancelled_and_keeps_its_variables() {
    let house = House::new().await;
    let mut client = house.session("s").await;
    client.execute("deaf").await;
    client.wait_for("cell_started").await;
    client.handle.interrupt(None).await.unwrap();
    client.wait_for("interrupted").await;
    pass(2 * SECOND).await;
    client.wait_for("cell_finished").await;
    assert_snapshot!(client.transcript(), @r#"
    1   session_opened
    2   kernel_started         opened
    3   cell_queued        c1  at 0: "deaf"
    4   cell_started       c1  [1]
    5   interrupted        c1  requested sigint
    6   interrupted        c1  requested cancel
    7   error              c1  KeyboardInterrupt:
    8   cell_finished      c1  error {"kind":"interrupted"} kept
    "#);
}

#[tokio::test(start_paused = true)]
async fn the_clock_of_a_cell_stands_still_while_its_user_is_asked() {
    let house = House::new().await;
    let mut client = house.session("s").await;
    client.execute("ask name?\nwait").await;
    client.wait_for("input_requested").await;
    pass(100 * SECOND).await;
    client.handle.answer_input(line("x")).await.unwrap();
    client.wait_for("stream").await;
    pass(25 * SECOND).await;
    client.wait_for("deadline_warning").await;
    pass(5 * SECOND).await;
    client.wait_for("cell_finished").await;
    assert_snapshot!(client.transcript(), @r#"
    1   session_opened
    2   kernel_started         opened
    3   cell_queued        c1  at 0: "ask name?\nwait"
    4   cell_started       c1  [1]
    5   input_requested    c1  "name?"
    6   input_closed       c1  answered
    7   stream             c1  stdout "x\n"
    8   deadline_warning   c1  extendable by 570000 ms
    9   interrupted        c1  deadline sigint
    10  error              c1  KeyboardInterrupt:
    11  cell_finished      c1  error {"kind":"deadline"} kept
    "#);
}

#[tokio::test(start_paused = true)]
async fn a_line_that_nobody_gives_is_the_end_of_the_file() {
    let house = House::new().await;
    let mut client = house.session("s").await;
    client.execute("ask name?").await;
    client.wait_for("input_requested").await;
    pass(300 * SECOND).await;
    client.wait_for("cell_finished").await;
    assert_snapshot!(client.transcript(), @r#"
    1   session_opened
    2   kernel_started         opened
    3   cell_queued        c1  at 0: "ask name?"
    4   cell_started       c1  [1]
    5   input_requested    c1  "name?"
    6   input_closed       c1  timed_out
    7   error              c1  EOFError: nobody answered
    8   cell_finished      c1  error {"kind":"exception"} kept
    "#);
}
