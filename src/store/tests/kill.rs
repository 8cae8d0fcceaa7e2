//! The promise: what was acknowledged is there, wherever in the write path the process was killed.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use super::crash::{Step, kill_at};
use super::*;

const DIR: &str = "EVERCELL_TEST_KILL_DIR";
const AT: &str = "EVERCELL_TEST_KILL_AT";

const STEPS: [Step; 9] = [
    Step::Begun,
    Step::BulkWritten,
    Step::Written,
    Step::Committed,
    Step::Published,
    Step::CheckpointBegins,
    Step::CheckpointDone,
    Step::Trimmed,
    Step::BulkDeleted,
];

/// The sizes of a batch, by its first event.
fn sizes(first: Seq) -> [usize; 3] {
    match first % 4 {
        1 => [50, 300, 20_000],
        2 => [LARGE, 50, 50],
        3 => [50, 50, 50],
        _ => [50, 5_000, 70_000],
    }
}

/// Not a test of its own: the process that is killed. Writes until then, and says what was acknowledged.
#[test]
fn child() {
    let Some(dir) = std::env::var_os(DIR) else {
        return;
    };
    let at = std::env::var_os(AT).unwrap().into_string().unwrap();
    if let Some((step, times)) = at.split_once(':') {
        kill_at(
            STEPS[step.parse::<usize>().unwrap()],
            times.parse().unwrap(),
        );
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let store = open(Path::new(&dir));
        let mut tasks = tokio::task::JoinSet::new();
        for name in ["a", "b", "c"] {
            let store = store.clone();
            tasks.spawn(async move { write(&store, name).await });
        }
        tasks.spawn(async move { trim_and_delete(&store).await });
        tasks.join_all().await;
    });
}

async fn write(store: &Store, name: &str) {
    let row = match store.session(&id(name)).await.unwrap() {
        Some(row) => row,
        None => store.create_session(new_session(name)).await.unwrap(),
    };
    let mut next = row.head + 1;
    // Batches are whole, so their borders are where they were.
    assert_eq!(row.head % 3, 0);
    loop {
        let batch = append(row.key, next, &sizes(next));
        store.append(batch).await.unwrap();
        next += 3;
        // Standard output is a pipe: written at once, and kept when the process is gone.
        let line = format!("\nacknowledged {name} {}\n", next - 1);
        std::io::stdout().write_all(line.as_bytes()).unwrap();
    }
}

/// Keeps the steps of trimming, deleting and checkpoints busy.
async fn trim_and_delete(store: &Store) {
    for round in 0.. {
        let key = create(store, &format!("doomed{round}-{}", std::process::id())).await;
        store.append(append(key, 1, &[50, LARGE])).await.unwrap();
        store.delete_session(key).await.unwrap();
        let policy = TrimPolicy {
            bytes_per_session: Some(4 << 20),
            ..TrimPolicy::default()
        };
        store.trim(policy).await.unwrap();
    }
}

/// Starts a process that writes, kills it after so many acknowledgements unless it kills itself, and returns the last ones.
#[expect(clippy::disallowed_methods, reason = "this test has a process killed")]
fn run_and_kill(dir: &Path, at: &str, acknowledgements: usize) -> BTreeMap<String, Seq> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "store::tests::kill::child", "--nocapture"])
        .env(DIR, dir)
        .env(AT, at)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut acknowledged = BTreeMap::new();
    let (mut line, mut count) = (String::new(), 0);
    while output.read_line(&mut line).unwrap() > 0 {
        // The last line may be cut off: then nobody was told.
        let words = line.strip_suffix('\n').unwrap_or("").split(' ');
        if let ["acknowledged", name, seq] = words.collect::<Vec<_>>()[..] {
            acknowledged.insert(name.to_owned(), seq.parse().unwrap());
            count += 1;
            if count == acknowledgements {
                child.kill().unwrap();
            }
        }
        line.clear();
    }
    let status = child.wait().unwrap();
    assert_eq!(status.signal(), Some(9), "at {at}");
    acknowledged
}

/// Everything that was acknowledged is there, nothing is torn, and whole batches only.
async fn check(dir: &Path, acknowledged: &BTreeMap<String, Seq>) {
    let store = open(dir);
    for row in store.sessions(None, 1000).await.unwrap() {
        let name = row.id.as_str();
        if name.starts_with("doomed") {
            continue;
        }
        let promised = acknowledged.get(name).copied().unwrap_or(0);
        assert!(row.head >= promised, "{name}: {} of {promised}", row.head);
        assert_eq!(row.head % 3, 0, "{name}: half a batch");
        let events = read_all(&store, row.key, 0).await;
        assert_eq!(events.len() as u64, row.head + 1 - row.first);
        for (seq, found) in (row.first..).zip(&events) {
            let batch = (seq - 1) / 3 * 3 + 1;
            let size = sizes(batch)[(seq - batch) as usize];
            assert_eq!(*found, event(row.key, seq, size), "{name} {seq}");
        }
    }
    // What was half deleted is swept by the next trimming.
    store.trim(TrimPolicy::default()).await.unwrap();
    let mut known = Vec::new();
    for row in store.sessions(None, 1000).await.unwrap() {
        known.push(row.key.0.to_string());
    }
    for file in std::fs::read_dir(dir.join("bulk")).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        assert!(
            known.contains(&name),
            "the bulk file {name} belongs to nobody"
        );
    }
    store.close().await;
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_kill_at_every_step_of_the_write_path() {
    let dir = tempfile::tempdir().unwrap();
    for (index, step) in STEPS.iter().enumerate() {
        // A checkpoint comes seldom, the rest with every few requests.
        let times: &[u32] = match step {
            Step::CheckpointBegins | Step::CheckpointDone => &[0],
            Step::Trimmed | Step::BulkDeleted => &[0, 3],
            _ => &[0, 7, 40],
        };
        for times in times {
            let acknowledged = run_and_kill(dir.path(), &format!("{index}:{times}"), usize::MAX);
            check(dir.path(), &acknowledged).await;
        }
    }
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_kill_at_any_moment() {
    let dir = tempfile::tempdir().unwrap();
    for acknowledgements in [1, 2, 5, 17, 60, 200] {
        let acknowledged = run_and_kill(dir.path(), "any", acknowledgements);
        check(dir.path(), &acknowledged).await;
    }
}
