//! figures, temporary
use super::*;
use super::fake_kernel::STDOUT;
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
            s.spawn(move || { let w = unsafe { &*(kernel as *const super::fake_kernel::Writer) }; let p = vec![b'x'; size]; for _ in 0..n { w.put(STDOUT, 0, &p); } });
            let mut got = 0; let mut frames = 0;
            while got < total { let f = client.kept(); got += f.payload.len(); frames += 1; client.ack(f.number); }
            let e = t.elapsed();
            eprintln!("size {size}: {:.0} MB/s, {:.2} M rec/s, {frames} frames", total as f64 / 1e6 / e.as_secs_f64(), n as f64/1e6/e.as_secs_f64());
        });
    }
    let mut lat = Vec::new();
    for _ in 0..2000 { 
        std::thread::sleep(Duration::from_millis(2));
        let t = tokio::time::Instant::now(); kernel.print("x"); let f = client.kept(); lat.push(t.elapsed()); client.ack(f.number); }
    lat.sort();
    eprintln!("latency p50 {:?} p95 {:?} p99 {:?}", lat[1000], lat[1900], lat[1980]);
}
