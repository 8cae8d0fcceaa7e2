//! Cells run one at a time, in order.

use evercell::session::{CellRequest, Denied, SessionError};
use insta::assert_snapshot;

use crate::harness::house::House;

fn denied<T: std::fmt::Debug>(result: Result<T, SessionError>) -> Denied {
    match result {
        Err(SessionError::Denied(denied)) => denied,
        other => panic!("expected a denial, got {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_cell_shows_what_it_prints_and_its_value() {
    let house = House::new().await;
    let mut client = house.session("s").await;
    client.run("print hello\nwarn careful\nresult 2").await;
    assert_snapshot!(client.transcript(), @r#"
    1   session_opened
    2   kernel_started         opened
    3   cell_queued        c1  at 0: "print hello\nwarn careful\nresult 2"
    4   cell_started       c1  [1]
    5   stream             c1  stdout "hello\n"
    6   stream             c1  stderr "careful\n"
    7   execute_result     c1  [1] {"text/plain":"2"}
    8   cell_finished      c1  ok kept
    "#);
}

#[tokio::test(start_paused = true)]
async fn an_error_aborts_the_cells_behind_it() {
    let house = House::new().await;
    let mut client = house.session("s").await;
    client
        .execute("wait\nerror ZeroDivisionError division by zero")
        .await;
    let last = client.execute("print never").await;
    client.handle.interrupt(None).await.unwrap();
    client
        .wait_until(|event| {
            event.cell() == Some(last.cell)
                && matches!(event, evercell::model::event::Event::CellFinished { .. })
        })
        .await;
    assert_snapshot!(client.transcript(), @r#"
    1   session_opened
    2   kernel_started         opened
    3   cell_queued        c1  at 0: "wait\nerror ZeroDivisionError division by zero"
    4   cell_started       c1  [1]
    5   cell_queued        c2  at 1: "print never"
    6   interrupted        c1  requested sigint
    7   error              c1  KeyboardInterrupt:
    8   cell_finished      c1  error {"kind":"interrupted"} kept
    9   cell_finished      c2  aborted {"kind":"earlier_error"} kept
    "#);
}

#[tokio::test(start_paused = true)]
async fn what_is_to_run_after_a_cell_that_went_wrong_is_refused_though_it_comes_late() {
    let house = House::new().await;
    let mut client = house.session("s").await;
    let after = |cell, script: &str| CellRequest {
        after: Some(cell),
        ..CellRequest::new(script)
    };
    let well = client.run("print one").await;
    let waits = client.execute("wait").await.cell;
    client.handle.execute(after(well, "print a")).await.unwrap();
    client.handle.execute(after(waits, "x")).await.unwrap();
    let taken_out = client.execute("print never").await.cell;
    client.handle.cancel(taken_out).await.unwrap();
    client.handle.interrupt(None).await.unwrap();
    client
        .wait_until(|event| {
            event.cell() == Some(waits)
                && matches!(event, evercell::model::event::Event::CellFinished { .. })
        })
        .await;
    let late = denied(client.handle.execute(after(waits, "print b")).await);
    assert_eq!(late, Denied::EarlierFailed(waits));
    let failed = client.run("error ZeroDivisionError division by zero").await;
    let late = denied(client.handle.execute(after(failed, "print c")).await);
    assert_eq!(late, Denied::EarlierFailed(failed));
    client
        .handle
        .execute(after(taken_out, "print d"))
        .await
        .unwrap();
    client.run("print last").await;
    let unknown = evercell::model::id::CellId::new();
    let refused = denied(client.handle.execute(after(unknown, "print e")).await);
    assert_eq!(refused, Denied::UnknownCell(unknown));
}

#[tokio::test(start_paused = true)]
async fn the_queue_has_a_bound_and_says_so() {
    let house = House::new().await;
    let mut client = house.session("s").await;
    client.execute("wait").await;
    for position in 1..=4 {
        assert_eq!(client.execute("print x").await.position, position);
    }
    let full = denied(client.handle.execute(CellRequest::new("print y")).await);
    assert_eq!(full, Denied::QueueFull { bound: 4 });
    client.handle.interrupt(None).await.unwrap();
    client.wait_for("cell_finished").await;
}

#[tokio::test(start_paused = true)]
async fn a_waiting_cell_can_be_cancelled_and_a_running_one_cannot() {
    let house = House::new().await;
    let mut client = house.session("s").await;
    let running = client.execute("wait").await.cell;
    let waiting = client.execute("print never").await.cell;
    client.handle.cancel(waiting).await.unwrap();
    assert_eq!(
        denied(client.handle.cancel(running).await),
        Denied::CellRuns(running)
    );
    assert_eq!(
        denied(client.handle.cancel(waiting).await),
        Denied::CellFinished(waiting)
    );
    let unknown = evercell::model::id::CellId::new();
    assert_eq!(
        denied(client.handle.cancel(unknown).await),
        Denied::UnknownCell(unknown)
    );
    client.handle.interrupt(None).await.unwrap();
    client
        .wait_until(|event| {
            event.cell() == Some(running)
                && matches!(event, evercell::model::event::Event::CellFinished { .. })
        })
        .await;
    assert_snapshot!(client.transcript(), @r#"
    1   session_opened
    2   kernel_started         opened
    3   cell_queued        c1  at 0: "wait"
    4   cell_started       c1  [1]
    5   cell_queued        c2  at 1: "print never"
    6   cell_finished      c2  aborted {"kind":"cancelled"} kept
    7   interrupted        c1  requested sigint
    8   error              c1  KeyboardInterrupt:
    9   cell_finished      c1  error {"kind":"interrupted"} kept
    "#);
}

#[tokio::test(start_paused = true)]
async fn the_same_key_twice_runs_once() {
    let house = House::new().await;
    let mut client = house.session("s").await;
    let keyed = |code: &str| CellRequest {
        key: Some("k".to_owned()),
        ..CellRequest::new(code)
    };
    let first = client.handle.execute(keyed("print once")).await.unwrap();
    client.wait_for("cell_finished").await;
    let second = client.handle.execute(keyed("print once")).await.unwrap();
    assert_eq!(
        (second.cell, second.seq, second.duplicate),
        (first.cell, first.seq, true)
    );
    assert_eq!(
        denied(client.handle.execute(keyed("print twice")).await),
        Denied::KeyReused
    );
    assert_eq!(client.handle.log().head(), client.seen.last().unwrap().seq);
}

#[tokio::test(start_paused = true)]
async fn a_line_is_asked_for_and_answered_and_a_second_answer_is_refused() {
    use evercell::session::InputAnswer;
    let house = House::new().await;
    let mut client = house.session("s").await;
    client.execute("ask name?").await;
    client.wait_for("input_requested").await;
    let answer = || InputAnswer {
        request: None,
        value: Some("Ada".to_owned()),
    };
    client.handle.answer_input(answer()).await.unwrap();
    client.wait_for("cell_finished").await;
    assert_eq!(
        denied(client.handle.answer_input(answer()).await),
        Denied::NoInput
    );
    assert_snapshot!(client.transcript(), @r#"
    1   session_opened
    2   kernel_started         opened
    3   cell_queued        c1  at 0: "ask name?"
    4   cell_started       c1  [1]
    5   input_requested    c1  "name?"
    6   input_closed       c1  answered
    7   stream             c1  stdout "Ada\n"
    8   cell_finished      c1  ok kept
    "#);
}

#[tokio::test(start_paused = true)]
async fn questions_to_a_busy_kernel_are_refused_at_once() {
    let house = House::new().await;
    let mut client = house.session("s").await;
    assert_eq!(
        client
            .handle
            .complete("pr".to_owned(), 2)
            .await
            .unwrap()
            .matches[0]
            .text,
        "print"
    );
    client.execute("wait").await;
    client.wait_for("cell_started").await;
    assert_eq!(
        denied(client.handle.complete("pr".to_owned(), 2).await),
        Denied::KernelBusy
    );
    client.handle.interrupt(None).await.unwrap();
    client.wait_for("cell_finished").await;
}
