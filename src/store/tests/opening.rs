//! Opening a data directory: whose it is, what is in it, and what is said when it cannot be.

use std::os::unix::fs::PermissionsExt;

use rusqlite::Connection;

use super::*;

fn refusal(dir: &Path) -> StoreError {
    Store::open(Config::new(dir)).unwrap_err()
}

#[tokio::test]
async fn a_second_server_is_refused_and_told_who_has_the_directory() {
    let fixture = fixture();
    let error = refusal(fixture.dir.path());
    let pid = std::process::id();
    assert!(
        matches!(error, StoreError::InUse { pid: Some(other), .. } if other == pid),
        "{error}"
    );
    assert!(
        error.to_string().contains(&format!("process {pid}")),
        "{error}"
    );
    // Free again as soon as the first has closed.
    fixture.reopened().await;
}

#[tokio::test]
async fn the_directory_is_made_for_this_user_only() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().join("a/b");
    let store = open(&data_dir);
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&data_dir), 0o700);
    assert_eq!(mode(&data_dir.join("bulk")), 0o700);
    assert_eq!(mode(&data_dir.join("lock")), 0o600);
    store.close().await;
}

#[test]
fn a_file_in_its_place_is_not_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    for path in [file.clone(), file.join("below")] {
        let error = refusal(&path);
        assert!(
            matches!(error, StoreError::NotADirectory { .. }),
            "{error:?}"
        );
    }
}

#[test]
fn a_directory_that_cannot_be_written_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let set_mode = |mode| {
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    set_mode(0o500);
    // Capabilities belong to a thread: one without them meets the same refusal as an ordinary user, even in a test run by root.
    let error = std::thread::scope(|scope| {
        let without_rights = scope.spawn(|| {
            let none = rustix::thread::CapabilitySets {
                effective: rustix::thread::CapabilitySet::empty(),
                permitted: rustix::thread::CapabilitySet::empty(),
                inheritable: rustix::thread::CapabilitySet::empty(),
            };
            rustix::thread::set_capabilities(None, none).unwrap();
            refusal(dir.path())
        });
        without_rights.join().unwrap()
    });
    set_mode(0o700);
    assert!(matches!(error, StoreError::NotWritable { .. }), "{error:?}");
}

#[tokio::test]
async fn an_empty_file_becomes_a_database_of_this_version() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("evercell.db"), "").unwrap();
    let store = open(dir.path());
    create(&store, "a").await;
    store.close().await;
}

#[tokio::test]
async fn a_database_of_every_earlier_version_is_brought_up_to_date() {
    for version in 1..=schema::MIGRATIONS.len() {
        let dir = tempfile::tempdir().unwrap();
        let db = Connection::open(dir.path().join("evercell.db")).unwrap();
        for sql in &schema::MIGRATIONS[..version] {
            db.execute_batch(sql).unwrap();
        }
        db.pragma_update(None, "application_id", schema::APPLICATION_ID)
            .unwrap();
        db.pragma_update(None, "user_version", version as i64)
            .unwrap();
        drop(db);
        let store = open(dir.path());
        let key = create(&store, "a").await;
        store.append(append(key, 1, &[10, LARGE])).await.unwrap();
        store.close().await;
    }
}

#[tokio::test]
async fn a_database_of_a_newer_version_is_refused_and_left_alone() {
    let fixture = fixture();
    let file = fixture.dir.path().join("evercell.db");
    fixture.store.close().await;
    let db = Connection::open(&file).unwrap();
    db.pragma_update(None, "user_version", 9999).unwrap();
    drop(db);
    let before = std::fs::read(&file).unwrap();
    let error = refusal(fixture.dir.path());
    assert!(
        matches!(error, StoreError::Newer { found: 9999, .. }),
        "{error:?}"
    );
    assert_eq!(std::fs::read(&file).unwrap(), before);
}

#[tokio::test]
async fn a_database_of_another_program_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let db = Connection::open(dir.path().join("evercell.db")).unwrap();
    db.execute_batch("CREATE TABLE theirs (x)").unwrap();
    drop(db);
    let error = refusal(dir.path());
    assert!(matches!(error, StoreError::Foreign { .. }), "{error:?}");
}

#[test]
fn a_file_that_is_no_database_is_called_damaged() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("evercell.db"), vec![b'x'; 8192]).unwrap();
    let error = refusal(dir.path());
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
}

#[tokio::test]
async fn a_bulk_file_that_a_power_cut_has_torn_costs_the_tail_only() {
    let fixture = fixture();
    let key = create(&fixture.store, "a").await;
    let (kept, torn) = (CellId::new(), CellId::new());
    let written = Append {
        cells: vec![
            CellChange::Queued {
                cell: kept,
                key: None,
                request: "{}".into(),
                seq: 1,
            },
            CellChange::Finished { cell: kept, seq: 4 },
            CellChange::Queued {
                cell: torn,
                key: None,
                request: "{}".into(),
                seq: 5,
            },
        ],
        ..append(key, 1, &[10, LARGE, LARGE, 10, 10])
    };
    fixture.store.append(written.clone()).await.unwrap();
    let Fixture { dir, store } = fixture;
    store.close().await;
    let bulk = std::fs::OpenOptions::new()
        .write(true)
        .open(dir.path().join(format!("bulk/{}", key.0)))
        .unwrap();
    bulk.set_len(LARGE as u64 + 1).unwrap();
    let store = open(dir.path());
    let row = store.session(&id("a")).await.unwrap().unwrap();
    assert_eq!(row.head, 2);
    assert_eq!(read_all(&store, key, 0).await, written.events[..2]);
    let open = store.open_sessions().await.unwrap();
    assert_eq!(open[0].cells.len(), 1);
    assert_eq!(open[0].cells[0].cell, kept);
    // It goes on from there.
    store.append(append(key, 3, &[LARGE, 10])).await.unwrap();
    assert_eq!(read_all(&store, key, 0).await.len(), 4);
}
