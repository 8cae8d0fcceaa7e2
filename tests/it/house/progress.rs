//! A cell that shows progress has its deadline follow it, where that is wanted.

use std::time::Duration;

use evercell::model::event::Event;
use evercell::model::settings::SettingsRequest;
use evercell::session::{CellRequest, Denied, SessionError};
use insta::assert_snapshot;

use crate::harness::house::{Client, House, pass};

const SECOND: Duration = Duration::from_secs(1);

/// A session whose cells have 30 s, and 40 s more each time that they are to be stopped and have shown progress, up to 100 s.
async fn session(house: &House) -> Client {
    let wish = SettingsRequest {
        extend_on_progress_ms: Some(40_000),
        ceiling_ms: Some(100_000),
        ..SettingsRequest::default()
    };
    let (mut client, _) = house.open_with("s", &wish).await.unwrap();
    client.wait_for("kernel_started").await;
    client
}

/// Lets time pass, and waits for what that brings.
async fn pass_to(client: &mut Client, seconds: u32, event: &str) {
    pass(seconds * SECOND).await;
    client.wait_for(event).await;
}

/// A script that is extended by that much for progress, whatever its session says.
fn with(script: &str, seconds: u64) -> CellRequest {
    CellRequest {
        extend_on_progress: Some(Duration::from_secs(seconds)),
        ..CellRequest::new(script)
    }
}

#[tokio::test(start_paused = true)]
async fn progress_extends_a_cell_once_and_without_more_of_it_the_cell_is_stopped() {
    let house = House::new().await;
    let mut client = session(&house).await;
    client.execute("print 1\nshow 2\nwait").await;
    client.wait_for("display_data").await;
    pass_to(&mut client, 25, "deadline_extended").await;
    pass_to(&mut client, 40, "deadline_warning").await;
    pass_to(&mut client, 5, "cell_finished").await;
    assert_snapshot!(client.transcript(), @r#"
    1   session_opened
    2   kernel_started         opened
    3   cell_queued        c1  at 0: "print 1\nshow 2\nwait"
    4   cell_started       c1  [1]
    5   stream             c1  stdout "1\n"
    6   display_data       c1  {"text/plain":"2"}
    7   deadline_extended  c1  progress by 40000 to 70000 ms
    8   deadline_warning   c1  extendable by 30000 ms
    9   interrupted        c1  deadline sigint
    10  error              c1  KeyboardInterrupt:
    11  cell_finished      c1  error {"kind":"deadline"} kept
    "#);
}

#[tokio::test(start_paused = true)]
async fn a_cell_that_goes_on_showing_progress_is_stopped_at_its_ceiling() {
    let house = House::new().await;
    let mut client = session(&house).await;
    client
        .execute("print 1\nrest 30\nprint 2\nrest 40\nprint 3\nwait")
        .await;
    client.wait_for("stream").await;
    pass_to(&mut client, 25, "deadline_extended").await;
    pass_to(&mut client, 5, "stream").await;
    pass_to(&mut client, 35, "deadline_extended").await;
    pass_to(&mut client, 5, "stream").await;
    pass_to(&mut client, 25, "deadline_warning").await;
    pass_to(&mut client, 5, "cell_finished").await;
    assert_snapshot!(client.transcript(), @r#"
    1   session_opened
    2   kernel_started         opened
    3   cell_queued        c1  at 0: "print 1\nrest 30\nprint 2\nrest 40\nprint 3\nwait"
    4   cell_started       c1  [1]
    5   stream             c1  stdout "1\n"
    6   deadline_extended  c1  progress by 40000 to 70000 ms
    7   stream             c1  stdout "2\n"
    8   deadline_extended  c1  progress by 30000 to 100000 ms
    9   stream             c1  stdout "3\n"
    10  deadline_warning   c1  extendable by 0 ms
    11  interrupted        c1  deadline sigint
    12  error              c1  KeyboardInterrupt:
    13  cell_finished      c1  error {"kind":"deadline"} kept
    "#);
}

#[tokio::test(start_paused = true)]
async fn progress_between_the_warning_and_the_deadline_counts() {
    let house = House::new().await;
    let mut client = session(&house).await;
    client.execute("print 1\nrest 67\nprint late\nwait").await;
    client.wait_for("stream").await;
    pass_to(&mut client, 25, "deadline_extended").await;
    pass_to(&mut client, 40, "deadline_warning").await;
    pass_to(&mut client, 2, "stream").await;
    pass_to(&mut client, 3, "deadline_extended").await;
    assert_snapshot!(client.transcript(), @r#"
    1   session_opened
    2   kernel_started         opened
    3   cell_queued        c1  at 0: "print 1\nrest 67\nprint late\nwait"
    4   cell_started       c1  [1]
    5   stream             c1  stdout "1\n"
    6   deadline_extended  c1  progress by 40000 to 70000 ms
    7   deadline_warning   c1  extendable by 30000 ms
    8   stream             c1  stdout "late\n"
    9   deadline_extended  c1  progress by 30000 to 100000 ms
    "#);
}

#[tokio::test(start_paused = true)]
async fn an_extension_that_was_asked_for_wants_progress_anew() {
    let house = House::new().await;
    let mut client = session(&house).await;
    client.execute("print 1\nwait").await;
    client.wait_for("stream").await;
    client.handle.extend(None, 10 * SECOND).await.unwrap();
    pass_to(&mut client, 35, "deadline_warning").await;
    assert_snapshot!(client.transcript(), @r#"
    1   session_opened
    2   kernel_started         opened
    3   cell_queued        c1  at 0: "print 1\nwait"
    4   cell_started       c1  [1]
    5   stream             c1  stdout "1\n"
    6   deadline_extended  c1  asked by 10000 to 40000 ms
    7   deadline_warning   c1  extendable by 60000 ms
    "#);
}

#[tokio::test(start_paused = true)]
async fn a_waiting_cell_keeps_what_it_was_given_with_until_it_runs() {
    let house = House::new().await;
    let mut client = house.session("s").await;
    client.execute("print 0\nrest 1").await;
    client.wait_for("stream").await;
    let waits = client.handle.execute(with("print 1\nwait", 10)).await;
    assert_eq!(waits.unwrap().position, 1);
    pass_to(&mut client, 1, "stream").await;
    pass_to(&mut client, 25, "deadline_extended").await;
    pass_to(&mut client, 10, "deadline_warning").await;
    assert_snapshot!(client.transcript(), @r#"
    1   session_opened
    2   kernel_started         opened
    3   cell_queued        c1  at 0: "print 0\nrest 1"
    4   cell_started       c1  [1]
    5   stream             c1  stdout "0\n"
    6   cell_queued        c2  at 1: "print 1\nwait"
    7   cell_finished      c1  ok kept
    8   cell_started       c2  [2]
    9   stream             c2  stdout "1\n"
    10  deadline_extended  c2  progress by 10000 to 40000 ms
    11  deadline_warning   c2  extendable by 560000 ms
    "#);
}

#[tokio::test(start_paused = true)]
async fn a_cell_can_do_without() {
    let house = House::new().await;
    let mut client = session(&house).await;
    client
        .handle
        .execute(with("print 1\nwait", 0))
        .await
        .unwrap();
    client.wait_for("stream").await;
    pass_to(&mut client, 25, "deadline_warning").await;
}

#[tokio::test(start_paused = true)]
async fn grants_so_small_that_the_log_would_fill_with_them_are_refused() {
    let house = House::new().await;
    let client = session(&house).await;
    let too_small = CellRequest {
        extend_on_progress: Some(Duration::from_millis(999)),
        ..CellRequest::new("print 1")
    };
    let refused = client.handle.execute(too_small).await;
    let Err(SessionError::Denied(Denied::BadField { field, why })) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(
        (field, why.as_str()),
        (
            "extend_on_progress_ms",
            "is 999, but it is at least 1000, or 0 for not at all"
        )
    );
    let wish = SettingsRequest {
        extend_on_progress_ms: Some(999),
        ..SettingsRequest::default()
    };
    let refused = house.open_with("t", &wish).await.err().unwrap();
    assert_eq!(
        refused.to_string(),
        "`extend_on_progress_ms` is 999, but this server allows 1000 to 600000"
    );
}

#[tokio::test(start_paused = true)]
async fn progress_is_remembered_by_the_next_server() {
    let house = House::new().await;
    let mut client = session(&house).await;
    client.execute("print 1\nwait").await;
    client.wait_for("stream").await;
    drop(client);
    let house = house.next().await;
    let mut client = house.client("s").await;
    client.wait_for("kernel_adopted").await;
    pass_to(&mut client, 25, "deadline_extended").await;
    drop(client);
    // That it was granted is remembered too.
    let house = house.next().await;
    let mut client = house.client("s").await;
    client
        .wait_until(|event| matches!(event, Event::DeadlineExtended { .. }))
        .await;
    client.wait_for("kernel_adopted").await;
    pass_to(&mut client, 65, "deadline_warning").await;
    assert_snapshot!(client.transcript(), @r#"
    1   session_opened
    2   kernel_started         opened
    3   cell_queued        c1  at 0: "print 1\nwait"
    4   cell_started       c1  [1]
    5   stream             c1  stdout "1\n"
    6   kernel_adopted         kept
    7   deadline_extended  c1  progress by 40000 to 70000 ms
    8   kernel_adopted         kept
    9   deadline_warning   c1  extendable by 30000 ms
    "#);
}
