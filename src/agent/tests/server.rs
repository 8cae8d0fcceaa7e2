//! The server comes, goes, and comes again.

use std::io::Write;
use std::time::Duration;

use super::fake_kernel::STDOUT;
use super::*;

/// 20 MB: more than ring, pipes and outbox hold together.
const LINES: usize = 2000;

fn line(number: usize) -> String {
    format!("{number:09} {}\n", "x".repeat(9990))
}

/// Writes all lines, in a thread.
fn flood(kernel: FakeKernel) -> JoinHandle<FakeKernel> {
    std::thread::spawn(move || {
        for number in 0..LINES {
            kernel.print(&line(number));
        }
        kernel
    })
}

#[test]
fn without_a_server_the_kernel_waits_and_nothing_is_lost() {
    let agent = TestAgent::start();
    let (mut client, kernel) = agent.connect_with_kernel();
    client.ping();
    let last = client.last;
    drop(client);
    // Everything that fits is written, then the kernel waits.
    let mut written = 0;
    while kernel.writer.put_within(
        STDOUT,
        0,
        line(written).as_bytes(),
        Duration::from_millis(200),
    ) {
        written += 1;
        assert!(written < LINES, "the kernel is held up");
    }
    assert!((700..1100).contains(&written), "{written}");
    // The agent is awake all the same.
    let (mut client, hello) = agent.connect(last);
    assert!(hello.alive);
    let mut text = String::new();
    while text.len() < written * line(0).len() {
        let frame = client.kept();
        text.push_str(str::from_utf8(&frame.payload).unwrap());
        client.ack(frame.number);
    }
    let expected: String = (0..written).map(line).collect();
    assert!(text == expected);
    kernel.print("goes on");
    assert_eq!(client.kept().payload, "goes on");
}

#[test]
fn a_server_that_does_not_ack_still_gets_answers() {
    let agent = TestAgent::start();
    let (mut client, kernel) = agent.connect_with_kernel();
    let flood = flood(kernel);
    let mut bytes = 0;
    while bytes < 8_000_000 {
        bytes += client.kept().payload.len();
    }
    client.ping();
    client.send(Kind::Stat, 3, b"");
    assert!(client.wait_answer(3)["cpu_us"].is_u64());
    // And with acknowledgements it goes on to the end.
    while bytes < LINES * line(0).len() {
        client.ack(client.last);
        bytes += client.kept().payload.len();
    }
    flood.join().unwrap();
}

#[test]
fn a_server_that_comes_back_gets_every_frame_once() {
    let agent = TestAgent::start();
    let (client, kernel) = agent.connect_with_kernel();
    let (mut last, mut turn) = (client.last, 0);
    drop(client);
    let flood = flood(kernel);
    let mut text = Vec::new();
    while text.len() < LINES * line(0).len() {
        turn += 1;
        // `Client` checks that numbers have no gaps.
        let (mut client, hello) = agent.connect(last);
        assert!(hello.last >= last);
        for _ in 0..turn * 7 % 40 {
            if text.len() == LINES * line(0).len() {
                break;
            }
            let frame = client.kept();
            text.extend_from_slice(&frame.payload);
            last = frame.number;
            if frame.number % 5 == 0 {
                client.ack(frame.number - 2);
            }
        }
    }
    flood.join().unwrap();
    let expected: String = (0..LINES).map(line).collect();
    assert!(text == expected.as_bytes());
}

#[test]
fn a_new_connection_displaces_the_old_one() {
    let agent = TestAgent::start();
    let (mut old, kernel) = agent.connect_with_kernel();
    kernel.print("one");
    let before = old.last;
    assert_eq!(old.kept().payload, "one");
    let (mut new, hello) = agent.connect(before);
    assert_eq!(hello.last, before + 1);
    assert!(old.receive().is_none());
    assert_eq!(new.kept().payload, "one");
    kernel.print("two");
    assert_eq!(new.kept().payload, "two");
}

#[test]
fn a_peer_that_talks_nonsense_is_dropped_and_disturbs_nobody() {
    let agent = TestAgent::start();
    let (mut client, kernel) = agent.connect_with_kernel();
    for nonsense in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"\x0c\0\0\0\x80\0\0\0\0\0\0\0\0\0\0\0",
        &[0xff; 64],
    ] {
        let mut stream = agent.stream();
        stream.write_all(nonsense).unwrap();
        let mut rest = Vec::new();
        let _ = std::io::Read::read_to_end(&mut stream, &mut rest);
        assert!(rest.is_empty());
    }
    kernel.print("undisturbed");
    assert_eq!(client.kept().payload, "undisturbed");
}

#[test]
fn an_unknown_request_is_answered() {
    let agent = TestAgent::start();
    let (mut client, _) = agent.connect(0);
    client.send(Kind::End, 4, b"");
    assert_eq!(
        client.wait_answer(4)["error"],
        "frame kind 71 is not a request"
    );
    client.send(Kind::Configure, 5, b"{}");
    assert!(client.wait_answer(5)["error"].is_string());
}

#[test]
fn without_a_server_for_too_long_the_agent_ends_everything() {
    let orphan = AgentConfig {
        orphan_ms: 100,
        ..config()
    };
    let agent = TestAgent::start_with(orphan, None);
    let (client, mut kernel) = agent.connect_with_kernel();
    drop(client);
    assert_eq!(agent.join(), ExitReason::Orphaned);
    // Killed and waited for, or at least killed.
    let _ = kernel.process.wait();
}

#[test]
fn shutdown_says_how_the_kernel_ended() {
    let agent = TestAgent::start();
    let (mut client, kernel) = agent.connect_with_kernel();
    kernel.print("last");
    client.send(Kind::Shutdown, 0, b"");
    assert_eq!(
        client.transcript(Kind::KernelExited),
        "stdout last\nexited\n"
    );
    assert!(client.receive().is_none());
    assert_eq!(agent.join(), ExitReason::Shutdown);
}

#[test]
fn files_are_served_beside_the_kernel() {
    let agent = TestAgent::start();
    let (mut client, kernel) = agent.connect_with_kernel();
    std::fs::write(agent.workspace().join("data.csv"), "1,2").unwrap();
    let stat = FileRequest::Stat {
        path: "data.csv".to_owned(),
    };
    // Many that never ask for anything take no place from those that do.
    let idle: Vec<_> = (0..15)
        .map(|_| Client::greet(agent.stream(), Purpose::Files, 0))
        .collect();
    match agent.files(&stat) {
        FileAnswer::Entry { entry } => assert_eq!(entry.bytes, 3),
        answer => panic!("{answer:?}"),
    }
    drop(idle);
    kernel.print("still here");
    assert_eq!(client.kept().payload, "still here");
}
