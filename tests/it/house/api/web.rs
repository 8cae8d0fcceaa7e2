//! The notebook's files, and the headers that keep it and the outputs in it apart.

use super::{Server, request};

/// The first thing between two texts.
fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(before)?;
    Some(rest.split_once(after)?.0)
}

#[tokio::test]
async fn the_page_runs_nothing_but_its_own_scripts() {
    let server = Server::new().await;
    let page = server.send(request("GET", "/", "", &[])).await;
    assert_eq!(page.outcome(), "200 -");
    let policy = page.headers["content-security-policy"].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self' 'nonce-"));
    for part in [
        "connect-src 'self'",
        "frame-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
    ] {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(page.headers["cache-control"], "no-store");
    let text = String::from_utf8(page.body).unwrap();
    let nonce = between(policy, "'nonce-", "'").unwrap();
    assert!(text.contains(&format!("nonce=\"{nonce}\"")));
    assert!(!text.contains("__NONCE__"));
    let again = server.send(request("GET", "/", "", &[])).await;
    let again = again.headers["content-security-policy"].to_str().unwrap();
    assert_ne!(between(again, "'nonce-", "'"), Some(nonce));
}

#[tokio::test]
async fn what_the_page_loads_is_kept_by_browsers_for_ever() {
    let server = Server::new().await;
    let page = server.send(request("GET", "/", "", &[])).await;
    let text = String::from_utf8(page.body).unwrap();
    let script = between(&text, "src=\"", "\"").unwrap();
    let answer = server.send(request("GET", script, "", &[])).await;
    assert_eq!(answer.outcome(), "200 -");
    assert_eq!(
        answer.headers["content-type"],
        "text/javascript; charset=utf-8"
    );
    assert_eq!(answer.headers["content-encoding"], "gzip");
    assert_eq!(
        answer.headers["cache-control"],
        "public, max-age=31536000, immutable"
    );
    let tag = answer.headers["etag"].to_str().unwrap().to_owned();
    let headers = [("if-none-match", tag.as_str())];
    let known = server.send(request("GET", script, "", &headers)).await;
    assert_eq!(known.outcome(), "304 -");
    for missing in [
        "/assets/none.js",
        "/assets/..%2findex.html",
        "/libraries/none.js",
        "/libraries/plotly.js",
    ] {
        let answer = server.send(request("GET", missing, "", &[])).await;
        assert_eq!(answer.outcome(), "404 unknown_route", "{missing}");
    }
}

#[tokio::test]
async fn the_frame_of_an_output_has_an_origin_of_its_own_and_no_network() {
    let server = Server::new().await;
    let frame = server.send(request("GET", "/frame.html", "", &[])).await;
    assert_eq!(frame.outcome(), "200 -");
    let policy = frame.headers["content-security-policy"].to_str().unwrap();
    assert!(policy.starts_with("sandbox allow-scripts; default-src 'none';"));
    for no in [
        "same-origin",
        "connect-src",
        "frame-src",
        "worker-src",
        "http:",
        "https:",
        "*",
    ] {
        assert!(!policy.contains(no), "{policy}");
    }
    assert!(policy.contains("form-action 'none'"));
    assert_eq!(frame.headers["x-dns-prefetch-control"], "off");
    let text = String::from_utf8(frame.body).unwrap();
    assert!(!text.contains("src=\""), "all of it is in one file");
    // The document's own policy lets in its one script, by its hash, and no other that stands in markup.
    assert!(text.contains("content=\"script-src 'sha256-"), "{text}");
}

#[tokio::test]
async fn plotly_is_that_of_the_kernels() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("plotly.min.js");
    std::fs::write(&file, "var Plotly;").unwrap();
    let server = Server::with(|config| config.plotly = Some(file)).await;
    let path = "/libraries/plotly.js";
    let answer = server.send(request("GET", path, "", &[])).await;
    assert_eq!(answer.body, b"var Plotly;");
}
