//! The agent as what it is: PID 1 of a namespace.

#![expect(
    clippy::disallowed_methods,
    reason = "the test runs itself once more, in a namespace"
)]

use std::process::Command;

use super::*;

const INSIDE: &str = "EVERCELL_TEST_INSIDE";

/// Runs this test again as PID 1. Returns whether we are there already.
fn is_inside(test: &str) -> bool {
    if std::env::var(INSIDE).is_ok() {
        assert!(init::is_pid_one());
        return true;
    }
    let output = Command::new("unshare")
        .args([
            "--user",
            "--map-root-user",
            "--pid",
            "--fork",
            "--mount-proc",
        ])
        // The thread of the test is not the only one, and all must leave the signals to the agent.
        .args(["env", "--block-signal=CHLD", "--block-signal=TERM"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--test-threads", "1", "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("1 passed"), "{text}{errors}");
    false
}

fn shell(script: &str) -> Option<(KernelSource, Value)> {
    let argv = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
    Some((KernelSource::Exec { argv }, Value::Null))
}

/// All processes but this one.
fn others() -> Vec<u32> {
    usage::processes(None).collect()
}

#[test]
fn as_pid_one_it_kills_all_and_waits_for_all() {
    if !is_inside("agent::tests::pid_one::as_pid_one_it_kills_all_and_waits_for_all") {
        return;
    }
    let script = "trap '' TERM INT HUP; setsid sleep 1000 & setsid sh -c 'sleep 1000 & sleep 1000' & echo up; sleep 1000";
    let agent = TestAgent::start_with(config(), shell(script));
    let (mut client, _) = agent.connect(0);
    for number in 1..=3 {
        client.send(Kind::StartKernel, number, b"");
        assert_eq!(client.wait_answer(number), json!({ "kernel": number }));
        assert_eq!(client.started().kernel, number);
        assert_eq!(client.kept().payload, "up\n");
        assert!(others().len() >= 3);
        client.send(Kind::KillKernel, 0, b"");
        let exit = client.wait_exit();
        assert_eq!((exit.kernel, exit.signal), (number, Some(9)));
        assert!(others().is_empty());
    }
}

#[test]
fn what_a_kernel_leaves_behind_ends_with_it() {
    if !is_inside("agent::tests::pid_one::what_a_kernel_leaves_behind_ends_with_it") {
        return;
    }
    let script = "setsid sh -c 'trap \"\" HUP; echo child; sleep 1000' & kill -TERM 1; kill -KILL 1; sleep 0.1; exit 5";
    let agent = TestAgent::start_with(config(), shell(script));
    let (mut client, _) = agent.connect(0);
    client.send(Kind::StartKernel, 1, b"");
    assert_eq!(
        client.transcript(Kind::KernelExited),
        "started\nstdout child\\n\nexited\n"
    );
    assert!(others().is_empty());
    client.ping();
}

#[test]
fn a_zygote_is_found_from_within_the_namespace() {
    if !is_inside("agent::tests::pid_one::a_zygote_is_found_from_within_the_namespace") {
        return;
    }
    let agent = TestAgent::start();
    let (mut client, kernel) = agent.connect_with_kernel();
    kernel.print("here");
    assert_eq!(client.kept().payload, "here");
    kernel.exit(4);
    assert_eq!(client.wait_exit().code, Some(4));
}
