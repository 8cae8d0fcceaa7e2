//! What a kernel puts out, and how it begins and ends.

use std::io::Write;

use super::fake_kernel::{MESSAGE, REPLY, STDERR, STDOUT};
use super::*;
use crate::protocol::agent::UsageReport;

#[test]
fn output_and_messages_keep_their_order() {
    let agent = TestAgent::start();
    let (mut client, kernel) = agent.connect_with_kernel();
    assert_eq!(kernel.jail, json!({ "cwd": "/workspace" }));
    kernel.print("a");
    kernel.print("b");
    kernel.writer.put(STDERR, 0, b"c");
    kernel.print("d");
    kernel.message(MESSAGE, &json!({}));
    kernel.print("e");
    kernel.writer.put(MESSAGE, 1, b"first half, ");
    kernel.writer.put(MESSAGE, 0, b"second half");
    assert_eq!(
        client.transcript(Kind::Message),
        "stdout ab\nstderr c\nstdout d\nmessage \\u{2}\\0\\0\\0{}\n"
    );
    assert_eq!(
        client.transcript(Kind::Message),
        "stdout e\nmessage part first half, \nmessage second half\n"
    );
}

#[test]
fn what_c_code_has_written_comes_where_sync_says() {
    let agent = TestAgent::start();
    let (mut client, mut kernel) = agent.connect_with_kernel();
    for round in 1..=200 {
        kernel.print("python 1\n");
        kernel.stdout.write_all(b"c\n").unwrap();
        kernel.stderr.write_all(b"c err\n").unwrap();
        kernel.sync(2 * round, 6 * round);
        kernel.print("python 2\n");
        kernel.message(MESSAGE, &json!(round));
        let transcript = client.transcript(Kind::Message);
        let text: String = transcript
            .lines()
            .filter_map(|line| line.strip_prefix("stdout "))
            .collect();
        assert_eq!(text, "python 1\\nc\\npython 2\\n");
        let stderr = transcript.find("stderr c err").unwrap();
        assert!(stderr < transcript.find("python 2").unwrap());
    }
}

#[test]
fn a_line_that_is_printed_in_pieces_is_one_frame() {
    let agent = TestAgent::start();
    let (mut client, kernel) = agent.connect_with_kernel();
    let mut frames = 0;
    for _ in 0..200 {
        for piece in ["after", " ", "1", "\n"] {
            kernel.print(piece);
        }
        let mut line = Vec::new();
        while line != b"after 1\n" {
            line.extend_from_slice(&client.kept().payload);
            frames += 1;
        }
    }
    // Not each of them, where the machine has other things to do.
    assert!(frames < 300, "{frames}");
    // What is no line comes all the same.
    kernel.print("? ");
    assert_eq!(client.kept().payload, "? ");
}

#[test]
fn a_dishonest_sync_delays_nothing() {
    let agent = TestAgent::start();
    let (mut client, kernel) = agent.connect_with_kernel();
    kernel.sync(u64::MAX, u64::MAX);
    kernel.print("on it goes");
    kernel.message(MESSAGE, &json!(1));
    assert!(
        client
            .transcript(Kind::Message)
            .starts_with("stdout on it goes\n")
    );
}

#[test]
fn output_of_processes_alone_comes_too() {
    let agent = TestAgent::start();
    let (mut client, mut kernel) = agent.connect_with_kernel();
    kernel.stderr.write_all(b"from below").unwrap();
    let frame = client.kept();
    assert_eq!(
        (frame.kind, &frame.payload[..]),
        (Kind::Stderr as u8, &b"from below"[..])
    );
}

#[test]
fn usage_comes_before_the_reply_of_an_execution_only() {
    let agent = TestAgent::start();
    let (mut client, mut kernel) = agent.connect_with_kernel();
    client.send_json(Kind::Request, 201, &json!({ "id": 201, "op": "complete" }));
    client.execute(2);
    client.send_json(
        Kind::Request,
        203,
        &json!({ "id": 203, "op": "input_reply" }),
    );
    for id in [201, 2, 203] {
        assert_eq!(kernel.request()["id"], id);
    }
    let (_, hello) = agent.connect(client.last);
    assert_eq!(hello.executing, Some(2));
    let (mut client, _) = agent.connect(client.last);
    kernel.reply(201);
    kernel.reply(2);
    assert_eq!(client.kept().kind, Kind::Reply as u8);
    let usage: UsageReport = serde_json::from_slice(&client.kept().payload).unwrap();
    assert_eq!(usage.id, 2);
    assert!(usage.wall_us > 0);
    assert_eq!(client.kept().kind, Kind::Reply as u8);
}

#[test]
fn a_kernel_that_dies_is_heard_to_the_end() {
    let agent = TestAgent::start();
    let (mut client, mut kernel) = agent.connect_with_kernel();
    let text = "x".repeat(300_000);
    kernel.print(&text);
    kernel.stdout.write_all(b" pipe ").unwrap();
    kernel.sync(6, 0);
    kernel.print("end");
    kernel.stdout.write_all(b" of c").unwrap();
    kernel.exit(3);
    assert_eq!(
        client.transcript(Kind::KernelExited),
        format!("stdout {text} pipe end of c\nexited\n")
    );
}

#[test]
fn an_exit_says_how() {
    let agent = TestAgent::start();
    let (mut client, kernel) = agent.connect_with_kernel();
    kernel.exit(3);
    let exit = client.wait_exit();
    assert_eq!((exit.kernel, exit.code, exit.signal), (1, Some(3), None));
    let kernel = agent.start_kernel(&mut client);
    client.send(Kind::KillKernel, 0, b"");
    let exit = client.wait_exit();
    assert_eq!((exit.kernel, exit.code, exit.signal), (2, None, Some(9)));
    assert!(!exit.out_of_memory);
    assert_eq!((exit.limit, exit.violation), (None, None));
    drop(kernel);
    let (_, hello) = agent.connect(0);
    assert_eq!((hello.kernels, hello.alive), (2, false));
}

#[test]
fn the_end_of_a_kernel_is_told_before_the_beginning_of_the_next() {
    let agent = TestAgent::start();
    let (mut client, kernel) = agent.connect_with_kernel();
    kernel.print("last words");
    client.send(Kind::StartKernel, 500, b"");
    let _next = agent.zygote.next();
    assert_eq!(client.receive().unwrap().kind, Kind::Stdout as u8);
    assert_eq!(client.receive().unwrap().kind, Kind::KernelExited as u8);
    let start = client.receive().unwrap();
    assert_eq!(start.kind, Kind::KernelStarted as u8);
    assert_eq!(&start.payload[..], br#"{"kernel":2,"request":500}"#);
    let answer = client.receive().unwrap();
    assert_eq!((answer.kind, answer.number), (Kind::Answer as u8, 500));
    assert_eq!(&answer.payload[..], br#"{"kernel":2}"#);
}

#[test]
fn a_refused_start_is_answered_with_the_reason() {
    let agent = TestAgent::start();
    let (mut client, _) = agent.connect(0);
    agent.zygote.refuse("no such namespace");
    client.send(Kind::StartKernel, 1, b"");
    assert_eq!(
        client.wait_answer(1)["error"],
        "the zygote cannot make a kernel: net: no such namespace"
    );
    // And the next one is the first.
    let kernel = agent.start_kernel(&mut client);
    kernel.exit(0);
    assert_eq!(client.wait_exit().kernel, 1);
}

#[test]
fn what_a_server_sends_again_is_not_done_again() {
    let agent = TestAgent::start();
    let (mut client, mut kernel) = agent.connect_with_kernel();
    client.execute(7);
    assert_eq!(kernel.request()["id"], 7);
    let (mut client, hello) = agent.connect(0);
    assert_eq!((hello.last_execution, hello.last_request), (7, 101));
    assert!(!hello.starting);
    client.execute(7);
    client.send(Kind::StartKernel, 101, b"");
    client.send_json(Kind::Request, 101, &json!({ "id": 101, "op": "complete" }));
    client.execute(8);
    client.send_json(Kind::Request, 102, &json!({ "id": 102, "op": "complete" }));
    assert_eq!(kernel.request()["id"], 8);
    assert_eq!(kernel.request()["id"], 102);
    let (_, hello) = agent.connect(0);
    assert_eq!(hello.kernels, 1);
}

#[test]
fn a_request_without_a_kernel_is_refused() {
    let agent = TestAgent::start();
    let (mut client, _) = agent.connect(0);
    client.execute(9);
    assert_eq!(client.wait_answer(9)["error"], "there is no kernel");
}

#[test]
fn a_kernel_that_breaks_the_protocol_is_killed_and_the_reason_told() {
    let long = json!({ "id": 1, "padding": "x".repeat(10_000) }).to_string();
    type Act<'a> = &'a dyn Fn(&FakeKernel);
    let cases: [(&str, Act<'_>); 6] = [
        ("a reply came that nobody asked for", &|kernel| {
            kernel.reply(4)
        }),
        ("9 is no kind of record", &|kernel| {
            kernel.writer.put(9, 0, b"")
        }),
        ("a sync record is malformed", &|kernel| {
            kernel.writer.put(4, 0, b"short")
        }),
        (
            "a record of kind 1 came between the parts of one of kind 3",
            &|kernel| {
                kernel.writer.put(MESSAGE, 1, b"half");
                kernel.writer.put(STDOUT, 0, b"between");
            },
        ),
        (
            "the ring claims to hold 18446744073709551601 bytes",
            &|kernel| {
                kernel
                    .writer
                    .word(64)
                    .store(u64::MAX, std::sync::atomic::Ordering::SeqCst);
                kernel.writer.ring();
            },
        ),
        ("a reply came that nobody asked for", &|kernel| {
            kernel.writer.put(REPLY, 0, long.as_bytes());
        }),
    ];
    for (reason, act) in cases {
        let agent = TestAgent::start();
        let (mut client, kernel) = agent.connect_with_kernel();
        kernel.print("before");
        // Taken already, so that a broken head cannot take it away.
        assert_eq!(client.kept().payload, "before");
        act(&kernel);
        let exit = client.wait_exit();
        assert_eq!(exit.violation.as_deref(), Some(reason));
        assert_eq!(exit.signal, Some(9));
    }
}

#[test]
fn a_reply_out_of_order_is_a_violation() {
    let agent = TestAgent::start();
    let (mut client, mut kernel) = agent.connect_with_kernel();
    client.execute(1);
    kernel.request();
    kernel.reply(2);
    assert!(client.wait_exit().violation.is_some());
}
