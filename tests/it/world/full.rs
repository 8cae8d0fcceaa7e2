//! A full disk under the data directory: cells are refused with a clear error, nothing is lost, and it goes on when there is room.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::Path;

use serde_json::{Value, json};

use crate::harness::server::Server;
use crate::harness::skipped;

const RUN: &str = "/v1/sessions/s/run";

/// Writes until the disk has no room.
fn fill(path: &Path) {
    let mut file = File::create(path).unwrap();
    let block = vec![1; 64 * 1024];
    loop {
        match file.write_all(&block) {
            Err(error) if error.kind() == ErrorKind::StorageFull => return,
            written => written.unwrap(),
        }
    }
}

#[tokio::test]
async fn a_full_data_directory_refuses_cells_and_loses_nothing() {
    if !rustix::process::geteuid().is_root() {
        skipped(
            "a_full_data_directory_refuses_cells_and_loses_nothing: only root can mount a disk to fill",
        );
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start_on_disk(directory.path(), 64, &["--pool", "1"]).await;
    server.open("s").await;
    server.prints("s", "x = 1").await;

    let filler = server.disk().join("filler");
    fill(&filler);
    // What was allocated before may take some more: longer cells reach the end of it soon.
    let long = format!("x += 1\n#{}", "x".repeat(200_000));
    let mut ran = 0;
    let refusal = loop {
        let answer = server.post(RUN, &json!({ "code": long })).await;
        if answer.status != 200 {
            break answer;
        }
        ran += 1;
        assert!(ran < 100, "it never was full");
    };
    assert_eq!(
        (refusal.status, refusal.code().as_str()),
        (507, "store_full")
    );
    let message = refusal.json()["error"]["message"].to_string();
    assert!(message.contains("nothing was lost"), "{message}");
    // Whoever looks is answered.
    assert_eq!(server.get("/v1/sessions/s").await.status, 200);

    std::fs::remove_file(&filler).unwrap();
    let expected = format!("{}\n", 1 + ran);
    assert_eq!(server.prints("s", "print(x)").await, expected);
    let page = server
        .get("/v1/sessions/s/events?after=0&limit=10000")
        .await;
    let events = page.json()["events"].as_array().unwrap().clone();
    let seqs: Vec<u64> = events
        .iter()
        .filter_map(|event| event["seq"].as_u64())
        .collect();
    assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>());
    let is = |event: &Value, kind: &str| event["event"] == kind;
    let count = |kind: &str| events.iter().filter(|event| is(event, kind)).count();
    // The first and the last cell, and those that were accepted in between.
    assert_eq!(count("cell_queued"), ran + 2);
    assert_eq!(count("cell_finished"), ran + 2);
}

#[tokio::test]
async fn the_output_of_a_running_cell_waits_for_room() {
    if !rustix::process::geteuid().is_root() {
        skipped("the_output_of_a_running_cell_waits_for_room: only root can mount a disk to fill");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start_on_disk(directory.path(), 64, &["--pool", "1"]).await;
    server.open("s").await;
    server.prints("s", "import sys").await;
    let filler = server.disk().join("filler");
    fill(&filler);
    // Room for the beginning only.
    let length = std::fs::metadata(&filler).unwrap().len();
    File::options()
        .write(true)
        .open(&filler)
        .and_then(|file| file.set_len(length - (1 << 20)))
        .unwrap();

    let lines = 1_000_000;
    let code = format!("for i in range({lines}): print(i)");
    let cell = server
        .post("/v1/sessions/s/cells", &json!({ "code": code }))
        .await;
    let cell = cell.json()["cell"].as_str().unwrap().to_owned();
    // As long as its output waits, no other cell is accepted.
    let mut accepted = 0;
    let refusal = loop {
        let answer = server
            .post("/v1/sessions/s/cells", &json!({ "code": "1" }))
            .await;
        if answer.status != 202 {
            break answer;
        }
        accepted += 1;
        assert!(accepted < 100, "it never was full");
    };
    assert_eq!(refusal.code(), "store_full");

    std::fs::remove_file(&filler).unwrap();
    let path = format!("/v1/sessions/s/cells/{cell}?wait");
    let result = server.get(&path).await.json();
    assert_eq!(result["status"], "ok", "{result:#}");
    assert_eq!(result["text"]["stdout"]["lines"], lines);
}
