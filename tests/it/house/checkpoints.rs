//! Checkpoints that somebody holds: what the log says of going back, and of what goes wrong with it.

use std::time::Duration;

use evercell::model::event::Event;
use evercell::session::view::Status;
use evercell::session::{Denied, SessionError};
use insta::assert_snapshot;

use crate::harness::house::{House, pass};

fn name(name: &str) -> evercell::model::id::CheckpointName {
    name.parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_log_says_what_was_held_and_that_the_kernel_went_back() {
    let house = House::new().await;
    let mut client = house.session("s").await;
    client.run("print first").await;
    let held = client.handle.hold(name("a")).await.unwrap();
    assert_eq!((held.checkpoint.seq, held.replaced), (7, false));
    client.run("print second").await;
    let went = client.handle.roll_back(name("a")).await.unwrap();
    assert_eq!(went.seq, client.handle.log().head());
    client.run("print third").await;
    assert_snapshot!(client.transcript(), @r#"
    1   session_opened
    2   kernel_started         opened
    3   cell_queued        c1  at 0: "print first"
    4   cell_started       c1  [1]
    5   stream             c1  stdout "first\n"
    6   cell_finished      c1  ok kept
    7   checkpoint_held        a [1]
    8   cell_queued        c2  at 0: "print second"
    9   cell_started       c2  [2]
    10  stream             c2  stdout "second\n"
    11  cell_finished      c2  ok kept
    12  kernel_lost            {"kind":"rolled_back","to":"a"} restored a
    13  kernel_started         rolled_back a
    14  cell_queued        c3  at 0: "print third"
    15  cell_started       c3  [2]
    16  stream             c3  stdout "third\n"
    17  cell_finished      c3  ok kept
    "#);
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_leaves_the_kernel_as_it_is() {
    let house = House::new().await;
    let mut client = house.session("s").await;
    client.run("print first").await;
    client.handle.hold(name("broken")).await.unwrap();
    for refused in [
        client.handle.roll_back(name("broken")).await,
        client.handle.undo().await,
    ] {
        let denied = refused.unwrap_err();
        assert!(
            matches!(denied, SessionError::Denied(Denied::NothingToUndo(_))),
            "{denied:?}"
        );
    }
    client.run("print second").await;
    assert_snapshot!(client.transcript(), @r#"
    1   session_opened
    2   kernel_started         opened
    3   cell_queued        c1  at 0: "print first"
    4   cell_started       c1  [1]
    5   stream             c1  stdout "first\n"
    6   cell_finished      c1  ok kept
    7   checkpoint_held        broken [1]
    8   cell_queued        c2  at 0: "print second"
    9   cell_started       c2  [2]
    10  stream             c2  stdout "second\n"
    11  cell_finished      c2  ok kept
    "#);
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_that_was_there_and_does_not_wake_is_a_loss() {
    let house = House::new().await;
    let mut client = house.session("s").await;
    client.run("print first").await;
    client.handle.hold(name("deaf")).await.unwrap();
    let handle = client.handle.clone();
    let asked = tokio::spawn(async move { handle.roll_back(name("deaf")).await });
    client.wait_for("kernel_lost").await;
    pass(Duration::from_secs(11)).await;
    client.wait_for("kernel_started").await;
    assert!(asked.await.unwrap().is_err());
    assert_snapshot!(client.transcript(), @r#"
    1   session_opened
    2   kernel_started         opened
    3   cell_queued        c1  at 0: "print first"
    4   cell_started       c1  [1]
    5   stream             c1  stdout "first\n"
    6   cell_finished      c1  ok kept
    7   checkpoint_held        deaf [1]
    8   kernel_lost            {"kind":"rolled_back","to":"deaf"} restored deaf
    9   kernel_lost            {"kind":"rolled_back","to":"deaf"} {"verdict":"lost","why":"the kernel was to go back to checkpoint `deaf`, and its checkpoint did not wake: it said nothing for 10 s"}
    10  kernel_started         recovered
    "#);
}

#[tokio::test(start_paused = true)]
async fn what_a_dead_server_was_asked_for_is_done_by_the_next() {
    let house = House::new().await;
    let mut client = house.session("s").await;
    client.run("print first").await;
    client.handle.hold(name("a")).await.unwrap();
    house.backend.deafen(true);
    let handle = client.handle.clone();
    let asked = tokio::spawn(async move { handle.roll_back(name("a")).await });
    while client.handle.view().status != Status::Restarting {
        tokio::task::yield_now().await;
    }
    drop(client);
    house.backend.deafen(false);
    let house = house.next().await;
    let mut client = house.client("s").await;
    let is_back = |event: &Event| {
        matches!(
            event,
            Event::KernelStarted {
                restored: Some(_),
                ..
            }
        )
    };
    client.wait_until(is_back).await;
    assert_eq!(client.handle.view().checkpoints.len(), 1);
    drop(asked);
    assert_snapshot!(client.transcript(), @r#"
    1   session_opened
    2   kernel_started         opened
    3   cell_queued        c1  at 0: "print first"
    4   cell_started       c1  [1]
    5   stream             c1  stdout "first\n"
    6   cell_finished      c1  ok kept
    7   checkpoint_held        a [1]
    8   kernel_adopted         kept
    9   kernel_lost            {"kind":"rolled_back","to":"a"} restored a
    10  kernel_started         rolled_back a
    "#);
}
