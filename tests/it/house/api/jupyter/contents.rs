//! Shared notebooks, as JupyterLab and VS Code keep them.

use serde_json::json;

use super::super::{Answer, Server};

async fn server() -> (Server, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let notebooks = directory.path().join("notebooks");
    let server = Server::with(|config| config.jupyter.notebooks = Some(notebooks)).await;
    (server, directory)
}

async fn put(server: &Server, path: &str, body: serde_json::Value) -> Answer {
    server.call("PUT", path, &body.to_string()).await
}

#[tokio::test]
async fn a_notebook_is_made_saved_renamed_and_deleted() {
    let (server, _directory) = server().await;
    let made = server
        .call("POST", "/api/contents", r#"{"type": "notebook"}"#)
        .await;
    assert_eq!(
        (made.status.as_u16(), &made.json()["path"]),
        (201, &json!("Untitled.ipynb"))
    );
    let again = server
        .call("POST", "/api/contents/", r#"{"type": "notebook"}"#)
        .await;
    assert_eq!(again.json()["path"], "Untitled1.ipynb");

    let cells = json!([{"cell_type": "code", "source": "1", "metadata": {}, "outputs": [], "execution_count": null}]);
    let notebook = json!({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5});
    let saved = put(
        &server,
        "/api/contents/Untitled.ipynb",
        json!({"type": "notebook", "format": "json", "content": notebook}),
    )
    .await;
    assert_eq!(
        (saved.status.as_u16(), &saved.json()["content"]),
        (200, &json!(null))
    );
    let read = server
        .call("GET", "/api/contents/Untitled.ipynb", "")
        .await
        .json();
    assert_eq!(
        (&read["type"], &read["format"], &read["content"]),
        (&json!("notebook"), &json!("json"), &notebook)
    );
    let without = server
        .call("GET", "/api/contents/Untitled.ipynb?content=0", "")
        .await
        .json();
    assert_eq!(without["content"], json!(null));

    let renamed = server
        .call(
            "PATCH",
            "/api/contents/Untitled.ipynb",
            r#"{"path": "wine.ipynb"}"#,
        )
        .await;
    assert_eq!(renamed.json()["name"], "wine.ipynb");
    let taken = server
        .call(
            "PATCH",
            "/api/contents/wine.ipynb",
            r#"{"path": "Untitled1.ipynb"}"#,
        )
        .await;
    assert_eq!(taken.outcome(), "409 wrong_kind");
    let listed = server.call("GET", "/api/contents", "").await.json();
    let names: Vec<&str> = listed["content"]
        .as_array()
        .unwrap()
        .iter()
        .map(|file| file["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["Untitled1.ipynb", "wine.ipynb"]);
    assert_eq!(
        server
            .call("DELETE", "/api/contents/wine.ipynb", "")
            .await
            .status,
        204
    );
    assert_eq!(
        server
            .call("GET", "/api/contents/wine.ipynb", "")
            .await
            .outcome(),
        "404 unknown_file"
    );
}

#[tokio::test]
async fn a_checkpoint_is_gone_back_to_and_moves_with_its_file() {
    let (server, _directory) = server().await;
    put(
        &server,
        "/api/contents/a.txt",
        json!({"type": "file", "format": "text", "content": "before"}),
    )
    .await;
    let none = server
        .call("GET", "/api/contents/a.txt/checkpoints", "")
        .await;
    assert_eq!(none.json(), json!([]));
    let made = server
        .call("POST", "/api/contents/a.txt/checkpoints", "")
        .await;
    assert_eq!(
        (made.status.as_u16(), &made.json()["id"]),
        (201, &json!("checkpoint"))
    );
    put(
        &server,
        "/api/contents/a.txt",
        json!({"type": "file", "format": "text", "content": "after"}),
    )
    .await;
    server
        .call("PATCH", "/api/contents/a.txt", r#"{"path": "b.txt"}"#)
        .await;
    let back = server
        .call("POST", "/api/contents/b.txt/checkpoints/checkpoint", "")
        .await;
    assert_eq!(back.status, 204);
    assert_eq!(
        server.call("GET", "/api/contents/b.txt", "").await.json()["content"],
        "before"
    );
    assert_eq!(
        server
            .call("DELETE", "/api/contents/b.txt/checkpoints/checkpoint", "")
            .await
            .status,
        204
    );
    assert_eq!(
        server
            .call("GET", "/api/contents/b.txt/checkpoints", "")
            .await
            .json(),
        json!([])
    );
}

#[tokio::test]
async fn files_of_all_kinds_are_kept_as_they_are() {
    let (server, _directory) = server().await;
    put(&server, "/api/contents/data", json!({"type": "directory"})).await;
    let made = put(
        &server,
        "/api/contents/data/x.bin",
        json!({"type": "file", "format": "base64", "content": "AP8="}),
    )
    .await;
    assert_eq!(made.status, 201);
    let read = server
        .call("GET", "/api/contents/data/x.bin", "")
        .await
        .json();
    assert_eq!(
        (&read["format"], &read["content"], &read["size"]),
        (&json!("base64"), &json!("AP8="), &json!(2))
    );
    let text = server
        .call("GET", "/api/contents/data/x.bin?format=text", "")
        .await;
    assert_eq!(text.outcome(), "400 bad_field");
    let copy = server
        .call(
            "POST",
            "/api/contents/data",
            r#"{"copy_from": "data/x.bin"}"#,
        )
        .await;
    assert_eq!(copy.json()["path"], "data/x-Copy.bin");
    assert_eq!(
        server.call("DELETE", "/api/contents/data", "").await.status,
        204
    );
}

#[tokio::test]
async fn no_path_leads_out_of_the_directory() {
    let (server, directory) = server().await;
    std::fs::write(directory.path().join("secret"), "secret").unwrap();
    put(
        &server,
        "/api/contents/a.txt",
        json!({"type": "file", "format": "text", "content": "a"}),
    )
    .await;
    std::os::unix::fs::symlink(directory.path(), directory.path().join("notebooks/link")).unwrap();
    for path in [
        "../secret",
        "..%2fsecret",
        "link/secret",
        "link",
        ".evercell/x",
        "a.txt/../../secret",
        "%00",
    ] {
        for method in ["GET", "PUT", "DELETE", "POST", "PATCH"] {
            let body = r#"{"type": "file", "format": "text", "content": "x", "path": "a.txt"}"#;
            let answer = server
                .call(method, &format!("/api/contents/{path}"), body)
                .await;
            assert!(
                (400..500).contains(&answer.status.as_u16()),
                "{method} {path}: {answer:?}"
            );
        }
    }
    // Nor does what is ours beside a file, whoever has put a link there.
    let root = directory.path().join("notebooks");
    let ours = root.join(".evercell");
    let links = [
        (
            ours.join("a.txt.checkpoint"),
            directory.path().join("secret"),
        ),
        (ours.clone(), directory.path().to_owned()),
    ];
    for (link, to) in links {
        if link == ours {
            std::fs::remove_dir_all(&ours).unwrap();
        }
        std::os::unix::fs::symlink(to, link).unwrap();
        for (method, path) in [
            ("GET", "a.txt/checkpoints"),
            ("POST", "a.txt/checkpoints"),
            ("POST", "a.txt/checkpoints/checkpoint"),
            ("DELETE", "a.txt/checkpoints/checkpoint"),
        ] {
            let answer = server
                .call(method, &format!("/api/contents/{path}"), "")
                .await;
            assert_eq!(answer.outcome(), "400 bad_path", "{method} {path}");
        }
    }
    std::fs::remove_file(&ours).unwrap();
    for path in ["%2fcheckpoints", "/checkpoints"] {
        let answer = server
            .call("POST", &format!("/api/contents/{path}"), "")
            .await;
        assert!(
            (400..500).contains(&answer.status.as_u16()),
            "{path}: {answer:?}"
        );
    }
    assert!(!directory.path().join(".evercell").exists());
    for to in ["../stolen", "link/stolen", ""] {
        let body = json!({"path": to}).to_string();
        let answer = server.call("PATCH", "/api/contents/a.txt", &body).await;
        assert!(
            (400..500).contains(&answer.status.as_u16()),
            "{to}: {answer:?}"
        );
    }
    assert_eq!(
        std::fs::read_to_string(directory.path().join("secret")).unwrap(),
        "secret"
    );
    assert!(!directory.path().join("stolen").exists());
}
