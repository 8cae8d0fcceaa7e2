//! Files of a workspace: in, out, and nowhere else.

use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::harness::server::{Answer, Server, TOKEN};

const FILES: &str = "/v1/sessions/s/files";

async fn server() -> Server {
    let server = Server::start().await;
    server
        .open_with("s", json!({ "workspace_bytes": 8 * 1024 * 1024 }))
        .await;
    server
}

fn names(answer: &Answer) -> Vec<String> {
    let entries = answer.json()["entries"].clone();
    entries
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["path"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn a_file_goes_in_is_used_and_comes_out() {
    let server = server().await;
    let content: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let answer = server
        .request("PUT", &format!("{FILES}/in/data.bin"), &content)
        .await;
    assert_eq!(
        (answer.status, &answer.json()["bytes"]),
        (201, &json!(3_000_000))
    );
    let code = "data = open('in/data.bin', 'rb').read()\nprint(len(data))\nprint(open('日 本.txt', 'w').write('ok'))";
    assert_eq!(server.prints("s", code).await, "3000000\n2\n");
    let answer = server.get(&format!("{FILES}/in/data.bin")).await;
    assert_eq!((answer.status, answer.body == content), (200, true));
    assert_eq!(
        answer.header("content-type"),
        Some("application/octet-stream")
    );
    let answer = server
        .get(&format!("{FILES}/%E6%97%A5%20%E6%9C%AC.txt"))
        .await;
    assert_eq!(
        (answer.status, answer.body.as_slice()),
        (200, b"ok".as_slice())
    );
    assert_eq!(names(&server.get(FILES).await), ["in", "日 本.txt"]);
    assert_eq!(
        names(&server.get(&format!("{FILES}?path=in")).await),
        ["in/data.bin"]
    );
    assert_eq!(
        names(&server.get(&format!("{FILES}?after=in")).await),
        ["日 本.txt"]
    );
}

#[tokio::test]
async fn a_part_of_a_file_is_sent_for_as_long_as_it_is_the_same_file() {
    let server = server().await;
    let path = format!("{FILES}/a.txt");
    server.request("PUT", &path, b"0123456789").await;
    let get = |headers: String| {
        let (server, path) = (&server, &path);
        async move {
            server
                .raw(
                    "GET",
                    path,
                    &format!("authorization: Bearer {TOKEN}\r\n{headers}"),
                    b"",
                )
                .await
        }
    };
    let part = get("range: bytes=2-4\r\n".to_owned()).await;
    assert_eq!(
        (part.status, part.body.as_slice()),
        (206, b"234".as_slice())
    );
    assert_eq!(part.header("content-range"), Some("bytes 2-4/10"));
    let tag = part.header("etag").unwrap().to_owned();
    let end = get(format!("range: bytes=-3\r\nif-range: {tag}\r\n")).await;
    assert_eq!((end.status, end.body.as_slice()), (206, b"789".as_slice()));
    assert_eq!(get(format!("if-none-match: {tag}\r\n")).await.status, 304);
    let outside = get("range: bytes=10-\r\n".to_owned()).await;
    assert_eq!(
        (outside.status, outside.code().as_str()),
        (416, "bad_range")
    );
    server.request("PUT", &path, b"changed, and longer").await;
    let changed = get(format!("range: bytes=2-4\r\nif-range: {tag}\r\n")).await;
    assert_eq!(
        (changed.status, changed.body.as_slice()),
        (200, b"changed, and longer".as_slice())
    );
    let head = server.request("HEAD", &path, b"").await;
    assert_eq!(
        (head.status, head.header("content-length"), head.body.len()),
        (200, Some("19"), 0)
    );
}

#[tokio::test]
async fn no_path_leads_out_of_the_workspace() {
    let server = server().await;
    let code = "import os\nos.symlink('/etc/passwd', 'link')\nos.symlink('/etc', 'dir')\nos.mkfifo('fifo')\nos.mkdir('d')";
    server.prints("s", code).await;
    for (path, status, code) in [
        ("link", 400, "bad_path"),
        ("dir/passwd", 400, "bad_path"),
        ("%2e%2e/%2e%2e/etc/passwd", 400, "bad_path"),
        ("d/..%2f..%2fetc", 400, "bad_path"),
        ("fifo", 409, "wrong_kind"),
        ("d", 409, "wrong_kind"),
        ("nothing", 404, "unknown_file"),
    ] {
        let answer = server.get(&format!("{FILES}/{path}")).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (status, code),
            "GET {path}"
        );
    }
    for path in ["link", "dir/x", "%2e%2e/x"] {
        let answer = server
            .request("PUT", &format!("{FILES}/{path}"), b"x")
            .await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (400, "bad_path"),
            "PUT {path}"
        );
    }
    for path in ["link", "dir", "fifo", "d"] {
        assert_eq!(
            server
                .request("DELETE", &format!("{FILES}/{path}"), b"")
                .await
                .status,
            204,
            "DELETE {path}"
        );
    }
    assert!(std::path::Path::new("/etc/passwd").exists());
    assert!(names(&server.get(FILES).await).is_empty());
}

#[tokio::test]
async fn a_file_that_does_not_fit_leaves_nothing() {
    let server = server().await;
    let answer = server
        .request("PUT", &format!("{FILES}/big"), &vec![1; 9 * 1024 * 1024])
        .await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (507, "quota_exceeded")
    );
    assert!(names(&server.get(FILES).await).is_empty());
}

#[tokio::test]
async fn an_upload_that_breaks_off_leaves_nothing() {
    let server = server().await;
    server
        .request("PUT", &format!("{FILES}/kept"), b"before")
        .await;
    let mut stream = TcpStream::connect(&server.address).await.unwrap();
    let head = format!(
        "PUT {FILES}/kept HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {TOKEN}\r\ncontent-length: 2000000\r\n\r\n",
        server.address
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&[b'x'; 1_000_000]).await.unwrap();
    drop(stream);
    // The next request is served by the same agent: by its answer the cut has been noticed, or the file is still the old one.
    assert_eq!(server.get(&format!("{FILES}/kept")).await.body, b"before");
    assert_eq!(names(&server.get(FILES).await), ["kept"]);
}
