//! Files of sessions that have ended: read by the server itself, since there is no agent any more.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use serde_json::json;

use super::{Server, request};

/// A session that has ended, and its directory.
async fn ended() -> (Server, PathBuf) {
    let server = Server::new().await;
    server.open("a").await;
    server.house.sessions.stop().await;
    let state = server.call("GET", "/v1/sessions/a", "").await.json();
    assert_eq!(state["status"], "ended");
    let directory = server.house.directory.path().join("workspaces/s1");
    fs::create_dir_all(directory.join("data")).unwrap();
    fs::write(directory.join("data/kept.txt"), "0123456789").unwrap();
    (server, directory)
}

#[tokio::test]
async fn the_files_of_a_session_that_has_ended_can_be_read_and_not_changed() {
    let (server, directory) = ended().await;
    let files = "/v1/sessions/a/files";
    let whole = server
        .call("GET", &format!("{files}/data/kept.txt"), "")
        .await;
    assert_eq!(whole.body, b"0123456789");
    let part = server
        .send(request(
            "GET",
            &format!("{files}/data/kept.txt"),
            "",
            &[("range", "bytes=2-4")],
        ))
        .await;
    assert_eq!((part.status.as_u16(), &*part.body), (206, &b"234"[..]));
    let head = server
        .call("HEAD", &format!("{files}/data/kept.txt"), "")
        .await;
    assert_eq!(head.headers["content-length"], "10");
    let list = server.call("GET", &format!("{files}?path=data"), "").await;
    assert_eq!(list.json()["entries"][0]["path"], json!("data/kept.txt"));
    let known = server
        .send(request(
            "GET",
            &format!("{files}/data/kept.txt"),
            "",
            &[("if-none-match", whole.headers["etag"].to_str().unwrap())],
        ))
        .await;
    assert_eq!(known.status.as_u16(), 304);
    let none = server.call("GET", &format!("{files}/none"), "").await;
    assert_eq!(none.outcome(), "404 unknown_file");
    for (method, path) in [
        ("PUT", "data/new.txt"),
        ("DELETE", "data"),
        ("POST", "new?mkdir"),
    ] {
        let refused = server.call(method, &format!("{files}/{path}"), "x").await;
        assert_eq!(refused.outcome(), "409 session_ended", "{method}");
    }
    assert_eq!(fs::read_dir(directory.join("data")).unwrap().count(), 1);
    fs::remove_dir_all(directory).unwrap();
    let gone = server.call("GET", &format!("{files}/data"), "").await;
    assert_eq!(gone.outcome(), "404 unknown_file");
}

#[tokio::test]
async fn what_an_ended_session_has_left_leads_the_server_nowhere_else() {
    let (server, directory) = ended().await;
    let secret = server.house.directory.path().join("secret");
    fs::create_dir(&secret).unwrap();
    fs::write(secret.join("key"), "x").unwrap();
    symlink(&secret, directory.join("out")).unwrap();
    symlink(secret.join("key"), directory.join("file")).unwrap();
    symlink("/proc/self/root", directory.join("magic")).unwrap();
    symlink("data", directory.join("inside")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        directory.join("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )
    .unwrap();
    for (path, expected) in [
        ("out/key", "400 bad_path"),
        ("file", "400 bad_path"),
        ("magic/etc/passwd", "400 bad_path"),
        ("inside/kept.txt", "400 bad_path"),
        ("..%2F..%2Fsecret%2Fkey", "400 bad_path"),
        ("pipe", "409 wrong_kind"),
        ("data", "409 wrong_kind"),
    ] {
        let answer = server
            .call("GET", &format!("/v1/sessions/a/files/{path}"), "")
            .await;
        assert_eq!(answer.outcome(), expected, "{path}");
    }
    let list = server
        .call("GET", "/v1/sessions/a/files?path=out", "")
        .await;
    assert_eq!(list.outcome(), "400 bad_path");
    // The directory itself may have been replaced.
    fs::remove_dir_all(&directory).unwrap();
    symlink(&secret, &directory).unwrap();
    let answer = server.call("GET", "/v1/sessions/a/files/key", "").await;
    assert_ne!(answer.status.as_u16(), 200, "{answer:?}");
}
