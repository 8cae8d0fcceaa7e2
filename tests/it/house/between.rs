//! What runs while no cell does: it is bounded, and what a comm message sets off can be stopped.

use std::time::Duration;

use evercell::model::event::{CommAction, CommMessage};
use evercell::model::output::Metadata;
use evercell::model::settings::SettingsRequest;
use insta::assert_snapshot;
use serde_json::json;

use crate::harness::house::{Client, House, pass};

const SECOND: Duration = Duration::from_secs(1);

/// A session in which a cell may put out so much.
async fn bounded(house: &House, bytes: u64) -> Client {
    let wish = SettingsRequest {
        cell_output_bytes: Some(bytes),
        ..SettingsRequest::default()
    };
    let (mut client, _) = house.open_with("s", &wish).await.unwrap();
    client.wait_for("kernel_started").await;
    client
}

/// Sends a comm message whose handler runs this script.
async fn send(client: &Client, script: &str) {
    let message = CommMessage {
        comm: CommAction::Msg,
        comm_id: "c".to_owned(),
        target_name: None,
        data: json!({ "script": script }),
        metadata: Metadata::new(),
        buffers: vec![],
    };
    client.handle.comm(message, None).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn whatever_a_cell_puts_out_counts() {
    for line in ["comm 1", "clear", "show 1", "write 11111111111111111111"] {
        let house = House::new().await;
        let mut client = bounded(&house, 200).await;
        let script = format!("{line}\n").repeat(20) + "wait";
        client.run(&script).await;
        assert!(
            client.transcript().contains("output_limit sigint"),
            "{line}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_put_out_between_cells_ends_the_kernel_when_it_is_more_than_a_cell_may() {
    let house = House::new().await;
    let mut client = bounded(&house, 10).await;
    client.run("checkpoint\nbackground ten bytes").await;
    client.execute("checkpoint\nbackground eleven byt").await;
    client.wait_for("kernel_started").await;
    assert_snapshot!(client.transcript(), @r#"
    1   session_opened
    2   kernel_started         opened
    3   cell_queued        c1  at 0: "checkpoint\nbackground ten bytes"
    4   cell_started       c1  [1]
    5   cell_finished      c1  ok kept
    6   stream                 stdout "ten bytes\n"
    7   cell_queued        c2  at 0: "checkpoint\nbackground eleven byt"
    8   cell_started       c2  [2]
    9   cell_finished      c2  ok kept
    10  stream                 stdout "eleven byt\n"
    11  interrupted            output_limit kill
    12  kernel_lost            {"kind":"output_limit","limit_bytes":10} {"verdict":"kept"}
    13  kernel_started         rolled_back
    "#);
}

#[tokio::test(start_paused = true)]
async fn a_kernel_that_goes_on_flooding_when_it_was_rolled_back_is_not_rolled_back_again() {
    let house = House::new().await;
    let mut client = bounded(&house, 10).await;
    client.execute("checkpoint\nbackground eleven byt").await;
    client.wait_for("kernel_started").await;
    pass(6 * SECOND).await;
    send(&client, "background eleven byt").await;
    client.wait_for("kernel_failed").await;
    assert_snapshot!(client.transcript(), @r#"
    1   session_opened
    2   kernel_started         opened
    3   cell_queued        c1  at 0: "checkpoint\nbackground eleven byt"
    4   cell_started       c1  [1]
    5   cell_finished      c1  ok kept
    6   stream                 stdout "eleven byt\n"
    7   interrupted            output_limit kill
    8   kernel_lost            {"kind":"output_limit","limit_bytes":10} {"verdict":"kept"}
    9   kernel_started         rolled_back
    10  comm                   msg c
    11  comm_handled           of 10
    12  stream                 stdout "eleven byt\n"
    13  interrupted            output_limit kill
    14  kernel_lost            {"kind":"output_limit","limit_bytes":10} {"verdict":"lost","why":"the kernel was killed: it had put out more than it may, and did not stop"}
    15  kernel_failed          the kernel ended before it was used: the kernel was killed: it had put out more than it may, and did not stop
    "#);
}

#[tokio::test(start_paused = true)]
async fn what_a_comm_message_sets_off_is_interrupted() {
    let house = House::new().await;
    let mut client = house.session("s").await;
    send(&client, "wait").await;
    client.handle.interrupt(None).await.unwrap();
    client.wait_for("comm_handled").await;
    client.run("print on").await;
    assert_snapshot!(client.transcript(), @r#"
    1   session_opened
    2   kernel_started         opened
    3   comm                   msg c
    4   interrupted            requested sigint
    5   error                  KeyboardInterrupt:
    6   comm_handled           of 3
    7   cell_queued        c1  at 0: "print on"
    8   cell_started       c1  [1]
    9   stream             c1  stdout "on\n"
    10  cell_finished      c1  ok kept
    "#);
}

#[tokio::test(start_paused = true)]
async fn what_a_comm_message_sets_off_has_the_time_of_a_cell_and_is_killed_at_last() {
    let house = House::new().await;
    let wish = SettingsRequest {
        cell_ms: Some(10_000),
        ..SettingsRequest::default()
    };
    let (mut client, _) = house.open_with("s", &wish).await.unwrap();
    client.wait_for("kernel_started").await;
    client.run("checkpoint").await;
    send(&client, "print go\nstubborn").await;
    client.wait_for("stream").await;
    for wait in [10, 2, 1] {
        pass(wait * SECOND).await;
        client.wait_for("interrupted").await;
    }
    pass(SECOND).await;
    client.wait_for("kernel_started").await;
    assert_snapshot!(client.transcript(), @r#"
    1   session_opened
    2   kernel_started         opened
    3   cell_queued        c1  at 0: "checkpoint"
    4   cell_started       c1  [1]
    5   cell_finished      c1  ok kept
    6   comm                   msg c
    7   stream                 stdout "go\n"
    8   interrupted            deadline sigint
    9   interrupted            deadline cancel
    10  interrupted            deadline second_sigint
    11  interrupted            deadline kill
    12  comm_handled           of 6 the session has no kernel: the kernel was killed: what ran did not stop at its deadline
    13  kernel_lost            {"kind":"deadline"} {"verdict":"kept"}
    14  kernel_started         rolled_back
    "#);
}

#[tokio::test(start_paused = true)]
async fn the_time_of_a_cell_begins_when_what_comm_messages_set_off_is_over() {
    let house = House::new().await;
    let mut client = house.session("s").await;
    send(&client, "print one\nrest 20").await;
    send(&client, "print two\nrest 20").await;
    let queued = client.execute("print three\nrest 20").await;
    assert_eq!(queued.deadlines.deadline_at_ms, None);
    for _ in 0..3 {
        client.wait_for("stream").await;
        pass(20 * SECOND).await;
    }
    client.wait_for("cell_finished").await;
    assert_snapshot!(client.transcript(), @r#"
    1   session_opened
    2   kernel_started         opened
    3   comm                   msg c
    4   stream                 stdout "one\n"
    5   comm                   msg c
    6   cell_queued        c1  at 0: "print three\nrest 20"
    7   comm_handled           of 3
    8   stream                 stdout "two\n"
    9   comm_handled           of 5
    10  cell_started       c1  [1]
    11  stream             c1  stdout "three\n"
    12  cell_finished      c1  ok kept
    "#);
}

#[tokio::test(start_paused = true)]
async fn the_next_server_goes_on_stopping_what_a_comm_message_has_set_off() {
    let house = House::new().await;
    let mut client = house.session("s").await;
    client.run("checkpoint").await;
    send(&client, "stubborn").await;
    client.handle.interrupt(None).await.unwrap();
    client.wait_for("interrupted").await;
    drop(client);
    let house = house.next().await;
    let mut client = house.client("s").await;
    client.wait_for("kernel_adopted").await;
    for wait in [2, 1] {
        pass(wait * SECOND).await;
        client.wait_for("interrupted").await;
    }
    pass(SECOND).await;
    client.wait_for("kernel_started").await;
    assert_snapshot!(client.transcript(), @r#"
    1   session_opened
    2   kernel_started         opened
    3   cell_queued        c1  at 0: "checkpoint"
    4   cell_started       c1  [1]
    5   cell_finished      c1  ok kept
    6   comm                   msg c
    7   interrupted            requested sigint
    8   kernel_adopted         kept
    9   interrupted            requested cancel
    10  interrupted            requested second_sigint
    11  interrupted            requested kill
    12  comm_handled           of 6 the session has no kernel: the kernel was killed: what ran did not stop when it was interrupted
    13  kernel_lost            {"kind":"interrupted"} {"verdict":"kept"}
    14  kernel_started         rolled_back
    "#);
}
