//! A deadline is a thing that one can see and move.

use std::time::Duration;

use evercell::session::{Denied, SessionError};
use insta::assert_snapshot;

use crate::harness::house::{House, pass};

const SECOND: Duration = Duration::from_secs(1);

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
    5   deadline_extended  c1  by 60000 to 90000 ms
    6   interrupted        c1  deadline sigint
    7   error              c1  KeyboardInterrupt:
    8   cell_finished      c1  error {"kind":"deadline"} kept
    "#);
}

#[tokio::test(start_paused = true)]
async fn a_waiting_cell_can_be_given_more_time() {
    let house = House::new().await;
    let mut client = house.session("s").await;
    client.execute("wait").await;
    let waiting = client.execute("wait").await.cell;
    let moved = client
        .handle
        .extend(Some(waiting), 10 * SECOND)
        .await
        .unwrap();
    assert_eq!((moved.limit, moved.deadline_at_ms), (40 * SECOND, None));
    client.handle.interrupt(None).await.unwrap();
    client.wait_for("cell_finished").await;
}

#[tokio::test(start_paused = true)]
async fn code_that_ignores_the_interrupt_is_killed_and_the_log_says_what_was_lost() {
    let house = House::new().await;
    let mut client = house.session("s").await;
    client.execute("stubborn").await;
    client.wait_for("cell_started").await;
    client.handle.interrupt(None).await.unwrap();
    client.wait_for("interrupted").await;
    pass(2 * SECOND).await;
    client.wait_for("interrupted").await;
    pass(2 * SECOND).await;
    client.wait_for("kernel_started").await;
    client.run("print again").await;
    assert_snapshot!(client.transcript(), @r#"
    1   session_opened
    2   kernel_started         opened
    3   cell_queued        c1  at 0: "stubborn"
    4   cell_started       c1  [1]
    5   interrupted        c1  requested sigint
    6   interrupted        c1  requested second_sigint
    7   interrupted        c1  requested kill
    8   cell_finished      c1  error {"kind":"interrupted"} lost: the kernel was killed: the cell did not stop when it was interrupted
    9   kernel_lost            {"kind":"interrupted"} {"verdict":"lost","why":"the kernel was killed: the cell did not stop when it was interrupted"}
    10  kernel_started         recovered
    11  cell_queued        c2  at 0: "print again"
    12  cell_started       c2  [1]
    13  stream             c2  stdout "again\n"
    14  cell_finished      c2  ok kept
    "#);
}

#[tokio::test(start_paused = true)]
async fn the_clock_of_a_cell_stands_still_while_its_user_is_asked() {
    let house = House::new().await;
    let mut client = house.session("s").await;
    client.execute("ask name?\nwait").await;
    client.wait_for("input_requested").await;
    pass(100 * SECOND).await;
    let answer = evercell::session::InputAnswer {
        request: None,
        value: Some("x".to_owned()),
    };
    client.handle.answer_input(answer).await.unwrap();
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
