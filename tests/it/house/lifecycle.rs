//! Sessions are opened, idle out, end, and begin anew; kernels are lost and replaced.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use evercell::model::settings::SettingsRequest;
use evercell::session::{Denied, Opened, SessionError};
use insta::assert_snapshot;

use crate::harness::house::{House, pass};

#[tokio::test(start_paused = true)]
async fn opening_a_session_twice_at_once_is_one_session() {
    let house = House::new().await;
    let wish = SettingsRequest::default();
    let opens = (0..8).map(|_| house.open_with("s", &wish));
    let opened: Vec<Opened> = futures_util::future::join_all(opens)
        .await
        .into_iter()
        .map(|open| open.unwrap().1)
        .collect();
    assert_eq!(
        opened
            .iter()
            .filter(|opened| **opened == Opened::Created)
            .count(),
        1
    );
    let mut client = house.session("s").await;
    client.run("print one").await;
    assert_eq!(house.backend.created.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn other_settings_for_an_open_session_are_refused() {
    let house = House::new().await;
    house.session("s").await;
    let wish = SettingsRequest {
        cell_ms: Some(1000),
        ..Default::default()
    };
    let refused = house.open_with("s", &wish).await.err();
    assert!(
        matches!(refused, Some(SessionError::Denied(Denied::SettingsDiffer { field })) if field == "cell_ms")
    );
}

#[tokio::test(start_paused = true)]
async fn a_crash_of_the_kernel_is_told_and_a_new_one_starts() {
    let house = House::new().await;
    let mut client = house.session("s").await;
    client.execute("print before\ndie 11").await;
    client.wait_for("kernel_started").await;
    client.run("print after").await;
    assert_snapshot!(client.transcript(), @r#"
    1   session_opened
    2   kernel_started         opened
    3   cell_queued        c1  at 0: "print before\ndie 11"
    4   cell_started       c1  [1]
    5   stream             c1  stdout "before\n"
    6   cell_finished      c1  error {"kind":"killed_by_signal","name":"SIGSEGV","signal":11} lost: the kernel was killed by SIGSEGV
    7   kernel_lost            {"kind":"killed_by_signal","name":"SIGSEGV","signal":11} {"verdict":"lost","why":"the kernel was killed by SIGSEGV"}
    8   kernel_started         recovered
    9   cell_queued        c2  at 0: "print after"
    10  cell_started       c2  [1]
    11  stream             c2  stdout "after\n"
    12  cell_finished      c2  ok kept
    "#);
}

#[tokio::test(start_paused = true)]
async fn every_way_to_die_has_its_true_cause() {
    let house = House::new().await;
    let mut client = house.session("s").await;
    for script in ["exit 3", "oom", "die 6"] {
        client.execute(script).await;
        client.wait_for("kernel_started").await;
    }
    assert_snapshot!(client.transcript(), @r#"
    1   session_opened
    2   kernel_started         opened
    3   cell_queued        c1  at 0: "exit 3"
    4   cell_started       c1  [1]
    5   cell_finished      c1  error {"code":3,"kind":"exited"} lost: the kernel's process exited with code 3
    6   kernel_lost            {"code":3,"kind":"exited"} {"verdict":"lost","why":"the kernel's process exited with code 3"}
    7   kernel_started         recovered
    8   cell_queued        c2  at 0: "oom"
    9   cell_started       c2  [1]
    10  cell_finished      c2  error {"kind":"out_of_memory","limit_bytes":536870912,"peak_bytes":null} lost: the kernel was killed: it needed more than its 512 MiB of memory
    11  kernel_lost            {"kind":"out_of_memory","limit_bytes":536870912,"peak_bytes":null} {"verdict":"lost","why":"the kernel was killed: it needed more than its 512 MiB of memory"}
    12  kernel_started         recovered
    13  cell_queued        c3  at 0: "die 6"
    14  cell_started       c3  [1]
    15  cell_finished      c3  error {"kind":"killed_by_signal","name":"SIGABRT","signal":6} lost: the kernel was killed by SIGABRT
    16  kernel_lost            {"kind":"killed_by_signal","name":"SIGABRT","signal":6} {"verdict":"lost","why":"the kernel was killed by SIGABRT"}
    17  kernel_started         recovered
    "#);
}

#[tokio::test(start_paused = true)]
async fn a_lost_sandbox_is_replaced() {
    let house = House::new().await;
    let mut client = house.session("s").await;
    client.execute("wait").await;
    client.wait_for("cell_started").await;
    house.backend.lose_all();
    // The agent's connection is tried again for a while before it is given up.
    for _ in 0..20 {
        pass(Duration::from_millis(100)).await;
        tokio::task::yield_now().await;
    }
    client.wait_for("kernel_started").await;
    client.run("print after").await;
    assert_snapshot!(client.transcript(), @r#"
    1   session_opened
    2   kernel_started         opened
    3   cell_queued        c1  at 0: "wait"
    4   cell_started       c1  [1]
    5   cell_finished      c1  error {"kind":"sandbox_lost"} lost: the sandbox went away
    6   kernel_lost            {"kind":"sandbox_lost"} {"verdict":"lost","why":"the sandbox went away"}
    7   kernel_started         recovered
    8   cell_queued        c2  at 0: "print after"
    9   cell_started       c2  [1]
    10  stream             c2  stdout "after\n"
    11  cell_finished      c2  ok kept
    "#);
}

#[tokio::test(start_paused = true)]
async fn a_sandbox_is_made_when_the_one_before_it_is_gone() {
    let house = House::new().await;
    let mut client = house.session("s").await;
    house.backend.linger();
    house.backend.lose_all();
    for _ in 0..20 {
        pass(Duration::from_millis(100)).await;
        tokio::task::yield_now().await;
    }
    client.wait_for("kernel_started").await;
    assert_eq!(house.backend.created.load(Ordering::Relaxed), 2);
    assert_eq!(house.backend.crowded.load(Ordering::Relaxed), 0);

    // Nor where another server cannot take it up.
    house.sessions.leave().await;
    house.backend.lose_all();
    let house = house.next().await;
    let mut client = house.client("s").await;
    client.run("print after").await;
    assert_eq!(house.backend.created.load(Ordering::Relaxed), 3);
    assert_eq!(house.backend.crowded.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn a_restart_ends_what_runs_and_what_waits() {
    let house = House::new().await;
    let mut client = house.session("s").await;
    client.execute("wait").await;
    client.execute("print never").await;
    client.handle.restart().await.unwrap();
    client.wait_for("kernel_started").await;
    client.run("print after").await;
    assert_snapshot!(client.transcript(), @r#"
    1   session_opened
    2   kernel_started         opened
    3   cell_queued        c1  at 0: "wait"
    4   cell_started       c1  [1]
    5   cell_queued        c2  at 1: "print never"
    6   cell_finished      c1  error {"kind":"restart"} lost: the kernel was restarted
    7   cell_finished      c2  aborted {"kind":"restart"} kept
    8   kernel_started         restarted
    9   cell_queued        c3  at 0: "print after"
    10  cell_started       c3  [1]
    11  stream             c3  stdout "after\n"
    12  cell_finished      c3  ok kept
    "#);
}

#[tokio::test(start_paused = true)]
async fn a_kernel_that_cannot_start_is_said_once_and_tried_again_with_the_next_cell() {
    let house = House::new().await;
    house.backend.failures.store(1, Ordering::Relaxed);
    let mut client = house.open("s").await.unwrap();
    client.wait_for("kernel_failed").await;
    pass(Duration::from_secs(60)).await;
    assert_eq!(house.backend.created.load(Ordering::Relaxed), 1, "no storm");
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
async fn an_idle_session_ends_and_opens_again_with_its_log() {
    let house = House::new().await;
    let mut client = house.session("s").await;
    client.run("print once").await;
    pass(Duration::from_secs(3600)).await;
    client.wait_end().await;
    assert_eq!(house.backend.alive(), 0, "nothing is left behind");
    let again = house
        .open_with("s", &SettingsRequest::default())
        .await
        .unwrap();
    assert_eq!(again.1, Opened::Reopened);
    let mut client = again.0;
    client.wait_for("kernel_started").await;
    assert_snapshot!(client.transcript(), @"
    8   session_opened         again
    9   kernel_started         opened
    ");
}

#[tokio::test(start_paused = true)]
async fn idleness_counts_from_the_end_of_the_last_cell() {
    let house = House::with(|config| config.defaults.timeouts.idle_ms = 10_000).await;
    let mut client = house.session("s").await;
    client.execute("wait").await;
    client.wait_for("cell_started").await;
    pass(Duration::from_secs(20)).await;
    assert!(
        house.sessions.find(client.handle.id()).await.is_ok(),
        "a running session is not idle"
    );
    client.handle.interrupt(None).await.unwrap();
    client.wait_for("cell_finished").await;
    pass(Duration::from_secs(9)).await;
    assert!(house.sessions.find(client.handle.id()).await.is_ok());
    pass(Duration::from_secs(2)).await;
    client.wait_end().await;
}

#[tokio::test(start_paused = true)]
async fn a_deleted_session_leaves_nothing() {
    let house = House::new().await;
    let mut client = house.session("s").await;
    client.execute("wait").await;
    let id = client.handle.id().clone();
    house.sessions.delete(&id).await.unwrap();
    client.wait_end().await;
    assert_snapshot!(client.transcript(), @r#"
    1   session_opened
    2   kernel_started         opened
    3   cell_queued        c1  at 0: "wait"
    4   cell_started       c1  [1]
    5   cell_finished      c1  error {"kind":"session_ended"} lost: the session ended
    6   session_ended          deleted
    "#);
    assert_eq!(house.backend.alive(), 0);
    assert!(matches!(
        house.sessions.view(&id).await,
        Err(SessionError::Denied(Denied::UnknownSession(_)))
    ));
    assert_eq!(
        house
            .directory
            .path()
            .join("workspaces")
            .read_dir()
            .unwrap()
            .count(),
        0
    );
}

#[tokio::test(start_paused = true)]
async fn there_are_no_more_sessions_than_the_server_may_have() {
    let house = House::with(|config| config.max_sessions = 1).await;
    let client = house.session("a").await;
    let refused = house.open("b").await.err();
    assert!(matches!(
        refused,
        Some(SessionError::Denied(Denied::TooManySessions { bound: 1 }))
    ));
    house.sessions.delete(client.handle.id()).await.unwrap();
    house.session("b").await;
}

#[tokio::test(start_paused = true)]
async fn a_kernel_that_is_given_up_while_it_is_made_leaves_nothing() {
    let house = House::new().await;
    house.backend.deafen(true);
    let launcher = house.launcher.clone();
    let warming = tokio::spawn(async move { launcher.warm_up().await });
    while house.backend.alive() == 0 {
        tokio::task::yield_now().await;
    }
    // As when the server stops.
    warming.abort();
    assert!(warming.await.unwrap_err().is_cancelled());
    house.launcher.drain_pool().await;
    assert_eq!(house.backend.alive(), 0);
    let workspaces = std::fs::read_dir(house.directory.path().join("workspaces")).unwrap();
    assert_eq!(workspaces.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_warm_kernel_that_dies_leaves_nothing() {
    let house = House::new().await;
    let workspaces = || -> BTreeSet<PathBuf> {
        let entries = std::fs::read_dir(house.directory.path().join("workspaces"));
        let entries = entries.into_iter().flatten();
        entries.map(|entry| entry.unwrap().path()).collect()
    };
    let time = async || {
        pass(Duration::from_millis(100)).await;
        tokio::task::yield_now().await;
    };
    for is_found_by_a_session in [true, false] {
        let others = workspaces();
        house.launcher.warm_up().await.unwrap();
        let [workspace] = &workspaces()
            .difference(&others)
            .cloned()
            .collect::<Vec<_>>()[..]
        else {
            panic!("one kernel is warm");
        };
        house.backend.lose_all();
        for _ in 0..100 {
            time().await;
        }
        if is_found_by_a_session {
            house.session("s").await;
        } else {
            tokio::spawn(house.launcher.clone().keep_warm());
        }
        while workspace.exists() {
            time().await;
        }
    }
}
