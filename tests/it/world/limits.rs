//! What a session may use up, with real kernels: what the log says on the way there, and what ends a cell that goes beyond.

use evercell::model::event::{Cause, Event};
use serde_json::{Value, json};

use crate::harness::server::Server;

const MIB: u64 = 1024 * 1024;

/// The events of that kind in the log.
async fn events(server: &Server, id: &str, kind: &str) -> Vec<Value> {
    let path = format!("/v1/sessions/{id}/events?after=0");
    let page = server.get(&path).await.json();
    let events = page["events"].as_array().unwrap().iter();
    events
        .filter(|event| event["event"] == kind)
        .cloned()
        .collect()
}

#[tokio::test]
async fn a_cell_that_uses_up_memory_is_warned_once_before_it_is_killed() {
    let server = Server::start().await;
    let limit = 256 * MIB;
    server
        .open_with("s", json!({ "memory_bytes": limit }))
        .await;
    let code = "import time\nhoard = [bytearray(b'x') * (120 << 20)]\n\
                while True:\n    hoard.append(bytearray(b'x') * (4 << 20))\n    time.sleep(0.1)";
    let result = server.run("s", code).await;
    assert_eq!(result["cause"]["kind"], "out_of_memory", "{result:#}");
    assert_eq!(result["cause"]["limit_bytes"], limit, "{result:#}");
    let peak = result["cause"]["peak_bytes"].as_u64();
    assert!(peak >= Some(limit / 100 * 85), "{result:#}");
    let warnings = events(&server, "s", "memory_warning").await;
    assert_eq!(warnings.len(), 1, "{warnings:#?}");
    assert_eq!(warnings[0]["cell"], result["cell"]);
    assert_eq!(warnings[0]["limit_bytes"], limit);
    let used = warnings[0]["used_bytes"].as_u64().unwrap();
    assert!((limit / 100 * 85..=limit).contains(&used), "{used}");
}

#[tokio::test]
async fn processor_time_bounds_a_cell_within_its_deadline_and_variables_are_kept() {
    let server = Server::start().await;
    server.open_with("s", json!({ "cell_cpu_ms": 500 })).await;
    server.prints("s", "import time; kept = 7").await;
    // Waiting takes none.
    server.prints("s", "time.sleep(1)").await;
    let result = server.run("s", "while True: pass").await;
    let cause = json!({ "kind": "cpu_limit", "limit_ms": 500 });
    assert_eq!(result["cause"], cause, "{result:#}");
    assert_eq!(result["state"]["verdict"], "kept", "{result:#}");
    assert!(
        result["usage"]["cpu_ms"].as_u64() >= Some(500),
        "{result:#}"
    );
    assert_eq!(server.prints("s", "print(kept)").await, "7\n");
}

#[tokio::test]
async fn output_bounds_a_cell_and_all_of_it_is_in_the_log() {
    let server = Server::start().await;
    let limit = 1 << 20;
    server
        .open_with("s", json!({ "cell_output_bytes": limit }))
        .await;
    let result = server.run("s", "while True: print('x' * 999)").await;
    let cause = json!({ "kind": "output_limit", "limit_bytes": limit });
    assert_eq!(result["cause"], cause, "{result:#}");
    assert_eq!(result["state"]["verdict"], "kept", "{result:#}");
    assert!(
        result["usage"]["output_bytes"].as_u64() > Some(limit),
        "{result:#}"
    );
}

#[tokio::test]
async fn what_was_asked_for_in_vain_is_in_the_cause() {
    let server = Server::start().await;
    server.open("s").await;
    let result = server
        .run("s", "import numpy as np; np.ones(1 << 40)")
        .await;
    assert_eq!(result["cause"]["kind"], "out_of_memory", "{result:#}");
    assert_eq!(result["cause"]["asked_bytes"], 8_u64 << 40, "{result:#}");
    assert_eq!(result["state"]["verdict"], "kept", "{result:#}");
}

#[tokio::test]
async fn a_cell_that_fills_the_disk_or_is_refused_a_thread_is_told_which_limit_it_met() {
    let server = Server::start().await;
    let limits = json!({ "workspace_bytes": 32 * MIB, "processes": 40 });
    server.open_with("s", limits).await;
    server.prints("s", "import threading, time\nkept = 7").await;
    // Whether it is refused or ended depends on how fast it writes, or on what the host can count.
    for (code, cause) in [
        (
            "with open('big', 'wb') as file:\n    while True: file.write(bytes(1 << 18)); file.flush(); time.sleep(0.02)",
            json!({ "kind": "disk_limit", "limit_bytes": 32 * MIB }),
        ),
        (
            "stop = threading.Event()\ntry:\n    while True: threading.Thread(target=stop.wait, daemon=True).start()\nfinally: stop.set()",
            json!({ "kind": "process_limit", "limit": 40 }),
        ),
    ] {
        server.protect("s").await;
        let result = server.run("s", code).await;
        assert_eq!(result["cause"], cause, "{result:#}");
        assert_ne!(result["state"]["verdict"], "lost", "{result:#}");
        assert_eq!(server.prints("s", "print(kept)").await, "7\n");
        server
            .prints("s", "import os\nif os.path.exists('big'): os.unlink('big')")
            .await;
    }
}

#[tokio::test]
async fn a_cell_that_digs_too_deep_to_be_counted_is_told_so_before_it_is_ended() {
    let server = Server::start().await;
    server.open("s").await;
    server.protect("s").await;
    let code = "import os, time\ntop = os.getcwd()\n\
                for _ in range(300): os.mkdir('d'); os.chdir('d')\n\
                while True: os.mkdir(f'{top}/{time.monotonic_ns()}'); time.sleep(0.02)";
    let result = server.run("s", code).await;
    assert_eq!(result["cause"]["kind"], "disk_limit", "{result:#}");
    let told = result["text"]["stderr"]["preview"].as_str().unwrap();
    assert!(
        told.contains("deeper than the 256 levels that are allowed"),
        "{told}"
    );
}

#[tokio::test]
async fn what_a_cell_sends_to_comms_bounds_it_and_so_does_what_a_thread_prints_after_it() {
    let server = Server::start().await;
    let limit = MIB;
    server
        .open_with("s", json!({ "cell_output_bytes": limit }))
        .await;
    let cause = json!({ "kind": "output_limit", "limit_bytes": limit });
    let code = "import comm\nc = comm.create_comm(target_name='t')\n\
                while True: c.send({}, buffers=[b'x' * 10**5])";
    let result = server.run("s", code).await;
    assert_eq!(result["cause"], cause, "{result:#}");

    let mut socket = server.socket("s", 0).await;
    let code = "import threading, time\n\
                def flood():\n    time.sleep(0.5)\n    while True: print('x' * 999)\n\
                threading.Thread(target=flood).start()";
    assert_eq!(server.run("s", code).await["status"], "ok");
    let is_meant = |cause: &Cause| matches!(cause, Cause::OutputLimit { .. });
    socket
        .wait_until(|event| matches!(event, Event::KernelLost { cause, .. } if is_meant(cause)))
        .await;
    // The next one begins with whatever was kept, and without the thread.
    assert_eq!(server.prints("s", "print(1)").await, "1\n");
}
