//! A server goes, another comes: sessions go on where they were.

use std::cell::Cell;
use std::sync::atomic::Ordering;
use std::time::Duration;

use evercell::model::event::{Event, Rung};
use evercell::session::{CellRequest, InputAnswer};
use insta::assert_snapshot;

use crate::harness::house::{House, pass};

#[tokio::test(start_paused = true)]
async fn a_running_cell_and_the_queue_behind_it_go_on() {
    let house = House::new().await;
    let client = house.session("s").await;
    client.execute("print before\nask line?\nprint after").await;
    client.execute("print second").await;
    let silent = CellRequest {
        silent: true,
        ..CellRequest::new("print third")
    };
    client.handle.execute(silent).await.unwrap();
    drop(client);
    let house = house.next().await;
    let mut client = house.client("s").await;
    client.wait_for("kernel_adopted").await;
    assert_eq!(client.handle.view().queued.len(), 2);
    let answer = InputAnswer {
        request: None,
        value: Some("typed".to_owned()),
    };
    client.handle.answer_input(answer).await.unwrap();
    client.run("print last").await;
    assert_snapshot!(client.transcript(), @r#"
    1   session_opened
    2   kernel_started         opened
    3   cell_queued        c1  at 0: "print before\nask line?\nprint after"
    4   cell_started       c1  [1]
    5   stream             c1  stdout "before\n"
    6   input_requested    c1  "line?"
    7   cell_queued        c2  at 1: "print second"
    8   cell_queued        c3  at 2: "print third"
    9   kernel_adopted         kept
    10  input_closed       c1  answered
    11  stream             c1  stdout "typed\nafter\n"
    12  cell_finished      c1  ok kept
    13  cell_started       c2  [2]
    14  stream             c2  stdout "second\n"
    15  cell_finished      c2  ok kept
    16  cell_started       c3
    17  stream             c3  stdout "third\n"
    18  cell_finished      c3  ok kept
    19  cell_queued        c4  at 0: "print last"
    20  cell_started       c4  [3]
    21  stream             c4  stdout "last\n"
    22  cell_finished      c4  ok kept
    "#);
    assert_eq!(house.backend.created.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_cell_that_had_begun_and_was_never_heard_of_runs_once() {
    let house = House::new().await;
    let mut client = house.session("s").await;
    client.run("print first").await;
    house.backend.deafen(true);
    client.execute("print once").await;
    drop(client);
    let house = house.next().await;
    // Not even the next server gets through.
    house.client("s").await.wait_for("kernel_adopted").await;
    let house = house.next().await;
    house.backend.deafen(false);
    let house = house.next().await;
    let mut client = house.client("s").await;
    client.run("print last").await;
    let transcript = client.transcript();
    assert_eq!(
        transcript.matches(r#"stdout "once\n""#).count(),
        1,
        "{transcript}"
    );
    assert_snapshot!(transcript.lines().filter(|line| !line.contains("deadline_extended")).map(|line| &line[4..]).collect::<Vec<_>>().join("\n"), @r#"
    session_opened
    kernel_started         opened
    cell_queued        c1  at 0: "print first"
    cell_started       c1  [1]
    stream             c1  stdout "first\n"
    cell_finished      c1  ok kept
    cell_queued        c2  at 0: "print once"
    cell_started       c2  [2]
    kernel_adopted         kept
    kernel_adopted         kept
    kernel_adopted         kept
    cell_queued        c3  at 1: "print last"
    stream             c2  stdout "once\n"
    cell_finished      c2  ok kept
    cell_started       c3  [3]
    stream             c3  stdout "last\n"
    cell_finished      c3  ok kept
    "#);
}

#[tokio::test(start_paused = true)]
async fn what_was_said_while_nobody_listened_is_not_lost() {
    let house = House::new().await;
    let mut client = house.session("s").await;
    client
        .execute("ask more?\nprint one\nshow two\nresult 3")
        .await;
    client.wait_for("input_requested").await;
    // The answer arrives, and what follows is said to nobody.
    let backend = house.backend.clone();
    backend.mute(true);
    let answer = InputAnswer {
        request: None,
        value: Some("go".to_owned()),
    };
    client.handle.answer_input(answer).await.unwrap();
    client.wait_for("input_closed").await;
    drop(client);
    let house = house.next().await;
    backend.mute(false);
    let mut client = house.client("s").await;
    client.wait_for("cell_finished").await;
    assert_snapshot!(client.transcript(), @r#"
    1   session_opened
    2   kernel_started         opened
    3   cell_queued        c1  at 0: "ask more?\nprint one\nshow two\nresult 3"
    4   cell_started       c1  [1]
    5   input_requested    c1  "more?"
    6   input_closed       c1  answered
    7   kernel_adopted         kept
    8   stream             c1  stdout "go\none\n"
    9   display_data       c1  {"text/plain":"two"}
    10  execute_result     c1  [1] {"text/plain":"3"}
    11  cell_finished      c1  ok kept
    "#);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_did_not_arrive_is_asked_for_again() {
    let house = House::new().await;
    let mut client = house.session("s").await;
    client.execute("ask name?").await;
    client.wait_for("input_requested").await;
    house.backend.deafen(true);
    let answer = |value: &str| InputAnswer {
        request: None,
        value: Some(value.to_owned()),
    };
    client.handle.answer_input(answer("lost")).await.unwrap();
    drop(client);
    let house = house.next().await;
    house.client("s").await.wait_for("kernel_adopted").await;
    house.backend.deafen(false);
    let mut client = house.client("s").await;
    client.wait_for("kernel_adopted").await;
    client
        .handle
        .answer_input(answer("typed again"))
        .await
        .unwrap();
    client.wait_for("cell_finished").await;
    assert_snapshot!(client.transcript(), @r#"
    1   session_opened
    2   kernel_started         opened
    3   cell_queued        c1  at 0: "ask name?"
    4   cell_started       c1  [1]
    5   input_requested    c1  "name?"
    6   input_closed       c1  answered
    7   kernel_adopted         kept
    8   input_requested    c1  "name?"
    9   input_closed       c1  answered
    10  stream             c1  stdout "typed again\n"
    11  cell_finished      c1  ok kept
    "#);
}

#[tokio::test(start_paused = true)]
async fn a_restart_that_was_asked_for_happens() {
    let house = House::new().await;
    let client = house.session("s").await;
    house.backend.deafen(true);
    client.handle.restart().await.unwrap();
    drop(client);
    let house = house.next().await;
    house.backend.deafen(false);
    let house = house.next().await;
    let mut client = house.client("s").await;
    client.run("print fresh").await;
    assert_snapshot!(client.transcript(), @r#"
    1   session_opened
    2   kernel_started         opened
    3   kernel_adopted         kept
    4   kernel_adopted         kept
    5   cell_queued        c1  at 0: "print fresh"
    6   kernel_started         restarted
    7   cell_started       c1  [1]
    8   stream             c1  stdout "fresh\n"
    9   cell_finished      c1  ok kept
    "#);
    assert_eq!(house.backend.alive(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_interrupt_that_did_not_arrive_is_repeated() {
    let house = House::new().await;
    let mut client = house.session("s").await;
    client.execute("wait").await;
    client.wait_for("cell_started").await;
    house.backend.deafen(true);
    client.handle.interrupt(None).await.unwrap();
    drop(client);
    let house = house.next().await;
    house.backend.deafen(false);
    let house = house.next().await;
    let mut client = house.client("s").await;
    client.wait_for("cell_finished").await;
    let last = client.seen.last().unwrap();
    assert!(
        matches!(
            &last.event,
            Event::CellFinished {
                cause: Some(evercell::model::event::Cause::Interrupted),
                ..
            }
        ),
        "{last:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn deadlines_their_extensions_and_their_ladder_go_on() {
    let house = House::new().await;
    let mut client = house.session("s").await;
    client.execute("stubborn").await;
    let second = client.execute("print second").await.cell;
    client.wait_for("cell_started").await;
    let minute = Duration::from_secs(60);
    client.handle.extend(None, minute).await.unwrap();
    let extended = client.handle.extend(Some(second), minute).await.unwrap();
    drop(client);
    let house = house.next().await;
    let mut client = house.client("s").await;
    client.wait_for("kernel_adopted").await;
    pass(Duration::from_secs(84)).await;
    assert_eq!(client.handle.view().queued, [second]);
    let duplicate = client
        .handle
        .extend(Some(second), Duration::from_secs(1))
        .await
        .unwrap();
    assert_eq!(duplicate.limit, extended.limit + Duration::from_secs(1));
    pass(Duration::from_secs(2)).await;
    client.wait_for("deadline_warning").await;
    pass(Duration::from_secs(5)).await;
    client.wait_for("interrupted").await;
    drop(client);
    let house = house.next().await;
    let mut client = house.client("s").await;
    let adoptions = Cell::new(0);
    client
        .wait_until(|event| {
            adoptions
                .set(adoptions.get() + u32::from(matches!(event, Event::KernelAdopted { .. })));
            adoptions.get() == 2
        })
        .await;
    // The clock on the wall stands still in these tests: the next rung is as far away as it was from the start of the cell.
    pass(Duration::from_secs(95)).await;
    for (rung, wait) in [(Rung::Cancel, 3), (Rung::SecondSigint, 3)] {
        client
            .wait_until(|event| matches!(event, Event::Interrupted { rung: r, .. } if *r == rung))
            .await;
        pass(Duration::from_secs(wait)).await;
    }
    client.wait_for("kernel_started").await;
    client.run("print after").await;
    assert_snapshot!(client.transcript(), @r#"
    1   session_opened
    2   kernel_started         opened
    3   cell_queued        c1  at 0: "stubborn"
    4   cell_started       c1  [1]
    5   cell_queued        c2  at 1: "print second"
    6   deadline_extended  c1  asked by 60000 to 90000 ms
    7   deadline_extended  c2  asked by 60000 to 90000 ms
    8   kernel_adopted         kept
    9   deadline_extended  c2  asked by 1000 to 91000 ms
    10  deadline_warning   c1  extendable by 510000 ms
    11  interrupted        c1  deadline sigint
    12  kernel_adopted         kept
    13  interrupted        c1  deadline cancel
    14  interrupted        c1  deadline second_sigint
    15  interrupted        c1  deadline kill
    16  cell_finished      c1  error {"kind":"deadline"} lost: the kernel was killed: what ran did not stop at its deadline
    17  cell_finished      c2  aborted {"kind":"earlier_error"} kept
    18  kernel_lost            {"kind":"deadline"} {"verdict":"lost","why":"the kernel was killed: what ran did not stop at its deadline"}
    19  kernel_started         recovered
    20  cell_queued        c3  at 0: "print after"
    21  cell_started       c3  [1]
    22  stream             c3  stdout "after\n"
    23  cell_finished      c3  ok kept
    "#);
}

#[tokio::test(start_paused = true)]
async fn a_sandbox_that_died_meanwhile_is_lost_and_the_log_says_so() {
    let house = House::new().await;
    let client = house.session("s").await;
    client.execute("wait").await;
    client.execute("print never").await;
    drop(client);
    house.sessions.leave().await;
    house.backend.lose_all();
    let house = house.next().await;
    let mut client = house.client("s").await;
    client.run("print after").await;
    assert_snapshot!(client.transcript(), @r#"
    1   session_opened
    2   kernel_started         opened
    3   cell_queued        c1  at 0: "wait"
    4   cell_started       c1  [1]
    5   cell_queued        c2  at 1: "print never"
    6   cell_finished      c1  error {"kind":"sandbox_lost"} lost: the sandbox could not be taken up when the server was started again: there is no sandbox `ID`
    7   cell_finished      c2  aborted {"kind":"earlier_error"} kept
    8   kernel_lost            {"kind":"sandbox_lost"} {"verdict":"lost","why":"the sandbox could not be taken up when the server was started again: there is no sandbox `ID`"}
    9   cell_queued        c3  at 0: "print after"
    10  kernel_started         recovered
    11  cell_started       c3  [1]
    12  stream             c3  stdout "after\n"
    13  cell_finished      c3  ok kept
    "#);
    assert_eq!(house.backend.alive(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_agent_of_another_generation_is_ended_and_the_log_says_why() {
    let house = House::new().await;
    let client = house.session("s").await;
    drop(client);
    house.backend.speak(7);
    let house = house.next().await;
    let mut client = house.client("s").await;
    client.wait_for("kernel_failed").await;
    assert_snapshot!(client.transcript(), @r#"
    1   session_opened
    2   kernel_started         opened
    3   kernel_lost            {"kind":"sandbox_lost"} {"verdict":"lost","why":"the sandbox could not be taken up when the server was started again: its agent does not answer: the agent speaks generation 7 of the protocol, which this server does not"}
    4   kernel_failed          the kernel did not start: the agent speaks generation 7 of the protocol, which this server does not
    "#);
}

#[tokio::test(start_paused = true)]
async fn a_sandbox_that_cannot_be_reached_just_now_is_waited_for_as_long_as_it_waits() {
    let house = House::new().await;
    let mut client = house.session("s").await;
    client.run("print first").await;
    drop(client);
    // More often than a connection is tried again that breaks by itself.
    house.backend.away(20);
    let house = house.next().await;
    for _ in 0..300 {
        pass(Duration::from_millis(100)).await;
        tokio::task::yield_now().await;
    }
    let mut client = house.client("s").await;
    client.run("print second").await;
    let told = client.transcript();
    assert!(told.contains("kernel_adopted         kept"), "{told}");
    assert_eq!(house.backend.created.load(Ordering::Relaxed), 1);
    drop(client);

    // By then an agent has ended by itself.
    house.backend.away(usize::MAX);
    let house = house.next().await;
    for _ in 0..2000 {
        pass(Duration::from_millis(100)).await;
        tokio::task::yield_now().await;
    }
    house.backend.away(0);
    let mut client = house.client("s").await;
    client.run("print third").await;
    let told = client.transcript();
    assert!(told.contains("kernel_lost"), "{told}");
}

#[tokio::test(start_paused = true)]
async fn a_session_without_a_kernel_is_left_and_found_as_it_was() {
    let house = House::new().await;
    house.backend.failures.store(1, Ordering::Relaxed);
    let mut client = house.open("s").await.unwrap();
    client.wait_for("kernel_failed").await;
    drop(client);
    let house = house.next().await;
    let mut client = house.client("s").await;
    client.run("print at last").await;
    assert_snapshot!(client.transcript(), @r#"
    1   session_opened
    2   kernel_failed          sandbox `ID` did not come up within 1 s
    3   cell_queued        c1  at 0: "print at last"
    4   kernel_started         recovered
    5   cell_started       c1  [1]
    6   stream             c1  stdout "at last\n"
    7   cell_finished      c1  ok kept
    "#);
}

#[tokio::test(start_paused = true)]
async fn the_same_key_is_the_same_cell_for_every_server() {
    let house = House::new().await;
    let client = house.session("s").await;
    let request = CellRequest {
        key: Some("k".to_owned()),
        ..CellRequest::new("print once")
    };
    let first = client.handle.execute(request.clone()).await.unwrap();
    drop(client);
    let house = house.next().await;
    let mut client = house.client("s").await;
    let again = client.handle.execute(request).await.unwrap();
    assert!(again.duplicate && again.cell == first.cell);
    client.run("print last").await;
    assert_eq!(client.transcript().matches(r#"stdout "once\n""#).count(), 1);
}
