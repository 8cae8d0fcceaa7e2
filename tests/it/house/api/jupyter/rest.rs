//! Jupyter's REST: kernels, sessions, what is said of the server.

use serde_json::{Value, json};

use super::super::{House, Server, request};

#[tokio::test]
async fn a_kernel_is_a_session_and_a_session_is_a_kernel() {
    let server = Server::new().await;
    server.open("chat:1").await;
    let answer = server
        .call(
            "POST",
            "/api/kernels",
            r#"{"name": "python3", "env": {"KERNEL_EVERCELL_CELL_MS": "5000", "A": "b"}}"#,
        )
        .await;
    assert_eq!(answer.status, 201);
    let kernel = answer.json();
    let id = kernel["id"].as_str().unwrap();
    assert_eq!(
        answer.headers["location"],
        format!("/api/kernels/{id}").as_str()
    );
    assert_eq!(
        (&kernel["name"], &kernel["connections"]),
        (&json!("python3"), &json!(0))
    );

    let listed = server.call("GET", "/api/kernels", "").await.json();
    let ids: Vec<&str> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|kernel| kernel["id"].as_str().unwrap())
        .collect();
    assert!(ids.contains(&"chat:1") && ids.contains(&id), "{listed}");

    let session = server
        .call("GET", &format!("/v1/sessions/{id}"), "")
        .await
        .json();
    assert_eq!(session["settings"]["timeouts"]["cell_ms"], 5000);
    assert_eq!(session["settings"]["env"], json!(["A"]));

    let path = format!("/api/kernels/{id}");
    assert_eq!(
        server
            .call("POST", &format!("{path}/interrupt"), "")
            .await
            .status,
        204
    );
    assert_eq!(
        server
            .call("POST", &format!("{path}/restart"), "{}")
            .await
            .json()["id"],
        id
    );
    assert_eq!(server.call("DELETE", &path, "").await.status, 204);
    assert_eq!(
        server.call("DELETE", &path, "").await.outcome(),
        "404 unknown_session"
    );
    assert_eq!(
        server
            .call("GET", &format!("/v1/sessions/{id}"), "")
            .await
            .outcome(),
        "404 unknown_session"
    );
}

#[tokio::test]
async fn what_is_wrong_is_said_in_jupyters_shape_with_our_code() {
    let server = Server::new().await;
    let nobody = "/api/kernels/6e6f626f-6479-4000-8000-000000000000";
    let mut said = String::new();
    for (method, path, body) in [
        ("GET", nobody, ""),
        ("DELETE", nobody, ""),
        ("POST", &format!("{nobody}/interrupt"), ""),
        ("POST", &format!("{nobody}/restart"), ""),
        ("GET", &format!("{nobody}/channels"), ""),
        ("GET", "/api/kernels/a%20b", ""),
        ("POST", "/api/kernels", r#"{"name": "julia"}"#),
        ("POST", "/api/kernels", r#"{"name"#),
        (
            "POST",
            "/api/kernels",
            r#"{"env": {"EVERCELL_CELL_MS": "0"}}"#,
        ),
        (
            "POST",
            "/api/kernels",
            r#"{"env": {"EVERCELL_NONSENSE": "0"}}"#,
        ),
        ("GET", "/api/kernelspecs/julia", ""),
        ("GET", "/kernelspecs/python3/nothing.png", ""),
        ("GET", "/api/sessions/nobody", ""),
        ("POST", "/api/sessions", ""),
        ("POST", "/api/sessions", r#"{"path": "a.ipynb"}"#),
        (
            "POST",
            "/api/sessions",
            r#"{"path": "a.ipynb", "type": "notebook", "kernel": {"name": "julia"}}"#,
        ),
        (
            "POST",
            "/api/sessions",
            r#"{"path": "a.ipynb", "type": "notebook", "kernel": {"id": "nobody"}}"#,
        ),
        ("GET", "/api/nothing", ""),
        ("PUT", "/api/kernels", ""),
    ] {
        let answer = server.call(method, path, body).await;
        let json = answer.json();
        assert!(json["message"].is_string(), "{json}");
        said += &format!(
            "{method} {} {body}\n    {}: {}\n",
            path.replace(nobody, "/api/kernels/NOBODY"),
            answer.outcome(),
            json["message"]
                .as_str()
                .unwrap()
                .replace(&nobody["/api/kernels/".len()..], "NOBODY")
        );
    }
    insta::assert_snapshot!("bad_requests", said);
    let answer = server
        .send(request(
            "GET",
            "/api/kernels",
            "",
            &[("authorization", "token wrong")],
        ))
        .await;
    assert_eq!(answer.outcome(), "401 unauthorized");
    assert!(answer.json()["message"].is_string());
}

#[tokio::test]
async fn the_version_is_said_to_everybody_and_the_rest_to_those_with_a_token() {
    let server = Server::new().await;
    let stranger = [("authorization", "")];
    assert_eq!(
        server
            .send(request("GET", "/api", "", &stranger))
            .await
            .status,
        200
    );
    for path in [
        "/api/status",
        "/api/me",
        "/api/kernelspecs",
        "/api/kernels",
        "/api/sessions",
    ] {
        assert_eq!(
            server
                .send(request("GET", path, "", &stranger))
                .await
                .status,
            401,
            "{path}"
        );
        assert_eq!(server.call("GET", path, "").await.status, 200, "{path}");
        assert_eq!(server.call("OPTIONS", path, "").await.status, 200, "{path}");
    }
    let specs = server.call("GET", "/api/kernelspecs", "").await.json();
    let logo = specs["kernelspecs"]["python3"]["resources"]["logo-svg"]
        .as_str()
        .unwrap();
    assert_eq!(
        server.call("GET", logo, "").await.headers["content-type"],
        "image/svg+xml"
    );
}

#[tokio::test]
async fn a_session_of_jupyters_outlives_the_servers_restart() {
    let server = Server::new().await;
    let body =
        json!({"path": "a.ipynb", "name": "a", "type": "notebook", "kernel": {"name": "python3"}})
            .to_string();
    let answer = server.call("POST", "/api/sessions", &body).await;
    assert_eq!(answer.status, 201);
    let made = answer.json();
    let path = format!("/api/sessions/{}", made["id"].as_str().unwrap());
    // The same path again is the same session.
    let again = server.call("POST", "/api/sessions", &body).await.json();
    assert_eq!(
        (&again["id"], &again["kernel"]["id"]),
        (&made["id"], &made["kernel"]["id"])
    );

    let renamed = server
        .call("PATCH", &path, r#"{"path": "b.ipynb"}"#)
        .await
        .json();
    assert_eq!(
        (&renamed["path"], &renamed["name"]),
        (&json!("b.ipynb"), &json!("a"))
    );

    let server = Server::over(House::next(server.house).await, |_| {});
    let found = server.call("GET", &path, "").await.json();
    assert_eq!(
        (&found["path"], &found["kernel"]["id"]),
        (&json!("b.ipynb"), &made["kernel"]["id"])
    );

    // Another kernel for the same session: the old one goes.
    let changed = server
        .call(
            "PATCH",
            &path,
            r#"{"kernel": {"name": "python3", "id": null}}"#,
        )
        .await
        .json();
    assert_eq!(changed["id"], made["id"]);
    assert_ne!(changed["kernel"]["id"], made["kernel"]["id"]);
    let kernels: Value = server.call("GET", "/api/kernels", "").await.json();
    assert_eq!(kernels.as_array().unwrap().len(), 1);

    assert_eq!(server.call("DELETE", &path, "").await.status, 204);
    assert_eq!(
        server.call("GET", "/api/sessions", "").await.json(),
        json!([])
    );
    assert_eq!(
        server.call("GET", "/api/kernels", "").await.json(),
        json!([])
    );
}

#[tokio::test]
async fn a_kernel_may_have_several_sessions_and_ends_with_any_of_them() {
    let server = Server::new().await;
    let body = json!({"path": "a.ipynb", "name": "a", "type": "notebook"}).to_string();
    let first = server.call("POST", "/api/sessions", &body).await.json();
    let kernel = first["kernel"]["id"].as_str().unwrap();
    let body = json!({"path": "console", "name": "b", "type": "console", "kernel": {"id": kernel}});
    let second = server
        .call("POST", "/api/sessions", &body.to_string())
        .await
        .json();
    assert_eq!(second["kernel"]["id"], first["kernel"]["id"]);
    let path = |session: &Value| format!("/api/sessions/{}", session["id"].as_str().unwrap());
    for (session, name) in [(&first, "a.ipynb"), (&second, "console")] {
        let found = server.call("GET", &path(session), "").await.json();
        assert_eq!(
            (&found["id"], &found["path"]),
            (&session["id"], &json!(name))
        );
    }
    assert_eq!(server.call("DELETE", &path(&first), "").await.status, 204);
    assert_eq!(
        server.call("GET", "/api/sessions", "").await.json(),
        json!([])
    );
}
