//! What a session may use up, what the log says on the way there, and what ends a cell that goes beyond.

use std::time::Duration;

use evercell::model::settings::SettingsRequest;
use insta::assert_snapshot;

use crate::harness::house::{House, pass};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn memory_that_comes_near_its_limit_is_in_the_log() {
    let house = House::new().await;
    let mut client = house.session("s").await;
    client.run("print much\nmemory 900").await;
    assert_snapshot!(client.transcript(), @r#"
    1   session_opened
    2   kernel_started         opened
    3   cell_queued        c1  at 0: "print much\nmemory 900"
    4   cell_started       c1  [1]
    5   stream             c1  stdout "much\n"
    6   memory_warning     c1  900 of 1000 bytes
    7   cell_finished      c1  ok kept
    "#);
}

#[tokio::test(start_paused = true)]
async fn a_cell_that_has_used_up_its_processor_time_is_interrupted() {
    let house = House::new().await;
    let wish = SettingsRequest {
        cell_cpu_ms: Some(1000),
        ..SettingsRequest::default()
    };
    let (mut client, _) = house.open_with("s", &wish).await.unwrap();
    client.wait_for("kernel_started").await;
    client.run("cpu\nwait").await;
    assert_snapshot!(client.transcript(), @r#"
    1   session_opened
    2   kernel_started         opened
    3   cell_queued        c1  at 0: "cpu\nwait"
    4   cell_started       c1  [1]
    5   interrupted        c1  cpu_limit sigint
    6   error              c1  KeyboardInterrupt:
    7   cell_finished      c1  error {"kind":"cpu_limit","limit_ms":1000} kept
    "#);
}

#[tokio::test(start_paused = true)]
async fn a_cell_that_puts_out_too_much_is_interrupted() {
    let house = House::new().await;
    let wish = SettingsRequest {
        cell_output_bytes: Some(10),
        ..SettingsRequest::default()
    };
    let (mut client, _) = house.open_with("s", &wish).await.unwrap();
    client.wait_for("kernel_started").await;
    client.run("print ten bytes").await;
    client.run("print eleven byt\nwait").await;
    assert_snapshot!(client.transcript(), @r#"
    1   session_opened
    2   kernel_started         opened
    3   cell_queued        c1  at 0: "print ten bytes"
    4   cell_started       c1  [1]
    5   stream             c1  stdout "ten bytes\n"
    6   cell_finished      c1  ok kept
    7   cell_queued        c2  at 0: "print eleven byt\nwait"
    8   cell_started       c2  [2]
    9   stream             c2  stdout "eleven byt\n"
    10  interrupted        c2  output_limit sigint
    11  error              c2  KeyboardInterrupt:
    12  cell_finished      c2  error {"kind":"output_limit","limit_bytes":10} kept
    "#);
}

#[tokio::test(start_paused = true)]
async fn the_cause_survives_the_server_that_began_to_stop_the_cell() {
    let house = House::new().await;
    let wish = SettingsRequest {
        cell_cpu_ms: Some(1000),
        ..SettingsRequest::default()
    };
    let (mut client, _) = house.open_with("s", &wish).await.unwrap();
    client.wait_for("kernel_started").await;
    client.execute("cpu\nstubborn").await;
    client.wait_for("interrupted").await;
    drop(client);
    let house = house.next().await;
    let mut client = house.client("s").await;
    client.wait_for("kernel_adopted").await;
    // A little more than the grace: it is taken over by the clock on the wall.
    for _ in 0..2 {
        pass(3 * SECOND).await;
        client.wait_for("interrupted").await;
    }
    pass(3 * SECOND).await;
    client.wait_for("kernel_started").await;
    assert_snapshot!(client.transcript(), @r#"
    1   session_opened
    2   kernel_started         opened
    3   cell_queued        c1  at 0: "cpu\nstubborn"
    4   cell_started       c1  [1]
    5   interrupted        c1  cpu_limit sigint
    6   kernel_adopted         kept
    7   interrupted        c1  cpu_limit cancel
    8   interrupted        c1  cpu_limit second_sigint
    9   interrupted        c1  cpu_limit kill
    10  cell_finished      c1  error {"kind":"cpu_limit","limit_ms":1000} lost: the kernel was killed: the cell did not stop when its processor time was used up
    11  kernel_lost            {"kind":"cpu_limit","limit_ms":1000} {"verdict":"lost","why":"the kernel was killed: the cell did not stop when its processor time was used up"}
    12  kernel_started         recovered
    "#);
}

#[tokio::test(start_paused = true)]
async fn a_kernel_that_cannot_be_killed_is_given_up_with_its_sandbox() {
    let house = House::new().await;
    let mut client = house.session("s").await;
    client.execute("immortal").await;
    client.wait_for("cell_started").await;
    client.handle.interrupt(None).await.unwrap();
    client.wait_for("interrupted").await;
    for grace in [2, 1, 1] {
        pass(grace * SECOND).await;
        client.wait_for("interrupted").await;
    }
    pass(5 * SECOND).await;
    client.wait_for("kernel_started").await;
    assert_snapshot!(client.transcript(), @r#"
    1   session_opened
    2   kernel_started         opened
    3   cell_queued        c1  at 0: "immortal"
    4   cell_started       c1  [1]
    5   interrupted        c1  requested sigint
    6   interrupted        c1  requested cancel
    7   interrupted        c1  requested second_sigint
    8   interrupted        c1  requested kill
    9   cell_finished      c1  error {"kind":"unresponsive"} lost: the kernel could not be killed
    10  kernel_lost            {"kind":"unresponsive"} {"verdict":"lost","why":"the kernel could not be killed"}
    11  kernel_started         recovered
    "#);
}
