//! figures, temporary
use super::fake_kernel::STDOUT;
use super::*;
use std::time::Duration;
#[test]
fn bench_throughput() {
    let agent = TestAgent::start();
    let (mut client, kernel) = agent.connect_with_kernel();
    for size in [20usize, 1000, 65536] {
        let n = 200_000_000usize.min(size * 3_000_000) / size;
        let t = tokio::time::Instant::now();
        let total = n * size;
        std::thread::scope(|s| {
            let kernel = &kernel.writer as *const _ as usize;
            s.spawn(move || {
                let w = unsafe { &*(kernel as *const super::fake_kernel::Writer) };
                let p = vec![b'x'; size];
                for _ in 0..n {
                    w.put(STDOUT, 0, &p);
                }
            });
            let mut got = 0;
            let mut frames = 0;
            while got < total {
                let f = client.kept();
                got += f.payload.len();
                frames += 1;
                client.ack(f.number);
            }
            let e = t.elapsed();
            eprintln!(
                "size {size}: {:.0} MB/s, {:.2} M rec/s, {frames} frames",
                total as f64 / 1e6 / e.as_secs_f64(),
                n as f64 / 1e6 / e.as_secs_f64()
            );
        });
    }
    let mut lat = Vec::new();
    for _ in 0..2000 {
        std::thread::sleep(Duration::from_millis(2));
        let t = tokio::time::Instant::now();
        kernel.print("x");
        let f = client.kept();
        lat.push(t.elapsed());
        client.ack(f.number);
    }
    lat.sort();
    eprintln!(
        "latency p50 {:?} p95 {:?} p99 {:?}",
        lat[1000], lat[1900], lat[1980]
    );
}
#[test]
fn bench_round_trip() {
    let agent = TestAgent::start();
    let (mut client, mut kernel) = agent.connect_with_kernel();
    let n = 3000;
    std::thread::spawn(move || {
        for _ in 0..n {
            let r = kernel.request();
            kernel.reply(r["id"].as_u64().unwrap());
        }
        kernel
    });
    let mut lat = Vec::new();
    for id in 1..=n {
        let t = tokio::time::Instant::now();
        client.execute(id);
        while client.kept().kind != Kind::Reply as u8 {}
        lat.push(t.elapsed());
        client.ack(client.last);
    }
    lat.sort();
    eprintln!(
        "round trip p50 {:?} p95 {:?}",
        lat[lat.len() / 2],
        lat[lat.len() * 95 / 100]
    );
}
#[test]
fn bench_files() {
    let big = AgentConfig {
        workspace_bytes: u64::MAX,
        ..config()
    };
    let agent = TestAgent::start_with(big, None);
    let (mut c, kernel) = agent.connect_with_kernel();
    let dir = agent.workspace();
    let stream = agent.stream();
    let t = tokio::time::Instant::now();
    let h = std::thread::spawn(move || {
        let (mut f, _) = Client::greet(stream, Purpose::Files, 0);
        f.send_json(
            Kind::FileRequest,
            0,
            &FileRequest::Write {
                path: "big".into(),
                length: None,
            },
        );
        let p = vec![7u8; 256 * 1024];
        for _ in 0..4096 {
            f.send(Kind::Data, 0, &p);
        }
        f.send(Kind::End, 0, b"");
        f.file_answer()
    });
    let mut lat = Vec::new();
    while !h.is_finished() {
        let t = tokio::time::Instant::now();
        kernel.print("x");
        let f = c.kept();
        lat.push(t.elapsed());
        c.ack(f.number);
        std::thread::sleep(Duration::from_millis(1));
    }
    h.join().unwrap();
    lat.sort();
    eprintln!(
        "1 GiB up in {:?}; print latency meanwhile p50 {:?} p95 {:?} max {:?}",
        t.elapsed(),
        lat[lat.len() / 2],
        lat[lat.len() * 95 / 100],
        lat.last()
    );
    let t = tokio::time::Instant::now();
    let (mut f, _) = Client::greet(agent.stream(), Purpose::Files, 0);
    f.send_json(
        Kind::FileRequest,
        0,
        &FileRequest::Read {
            path: "big".into(),
            offset: 0,
            length: None,
        },
    );
    f.file_answer();
    let mut n = 0;
    loop {
        let x = f.receive().unwrap();
        if x.kind == Kind::End as u8 {
            break;
        }
        n += x.payload.len();
    }
    eprintln!("{n} bytes down in {:?}", t.elapsed());
    let _ = dir;
}
