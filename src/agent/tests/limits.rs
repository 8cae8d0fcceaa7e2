//! Limits that the agent enforces by itself.

use super::*;
use crate::protocol::agent::{DiskReport, WatchedLimit};

#[test]
fn a_workspace_over_its_quota_is_reported_and_far_over_it_ends_the_kernel() {
    let small = AgentConfig {
        workspace_bytes: 1_000_000,
        ..config()
    };
    let agent = TestAgent::start_with(small, None);
    let (mut client, mut kernel) = agent.connect_with_kernel();
    client.execute(1);
    kernel.request();
    std::fs::write(agent.workspace().join("a"), vec![1; 1_050_000]).unwrap();
    let frame = client.kept();
    assert_eq!(frame.kind, Kind::DiskFull as u8);
    let report: DiskReport = serde_json::from_slice(&frame.payload).unwrap();
    assert_eq!(report.limit_bytes, 1_000_000);
    assert!(report.used_bytes > 1_000_000);
    let limits = || {
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", kernel.process.id()));
        let limits = limits.unwrap();
        let line = limits
            .lines()
            .find(|line| line.starts_with("Max file size"));
        line.unwrap().split_whitespace().nth(3).unwrap().to_owned()
    };
    // Set before the report is sent.
    assert_eq!(limits(), "0");
    std::fs::write(agent.workspace().join("a"), "").unwrap();
    while limits() == "0" {
        std::thread::yield_now();
    }
    std::fs::write(agent.workspace().join("b"), vec![1; 1_500_000]).unwrap();
    let exit = client.wait_exit();
    assert_eq!(exit.limit, Some(WatchedLimit::Disk));
    assert_eq!(exit.signal, Some(9));
}

#[test]
fn without_a_cgroup_memory_is_watched() {
    let agent = TestAgent::start();
    let (mut client, _kernel) = agent.connect_with_kernel();
    let tiny = AgentConfig {
        memory_bytes: 1,
        ..config()
    };
    client.execute(1);
    client.send_json(Kind::Configure, 2, &tiny);
    let exit = client.wait_exit();
    assert_eq!(exit.limit, Some(WatchedLimit::Memory));
    assert!(exit.out_of_memory);
}

#[test]
fn without_a_cgroup_processes_are_watched() {
    let agent = TestAgent::start();
    let (mut client, _kernel) = agent.connect_with_kernel();
    let none = AgentConfig {
        processes: 0,
        ..config()
    };
    client.send_json(Kind::Configure, 2, &none);
    assert_eq!(client.wait_exit().limit, Some(WatchedLimit::Processes));
}
