//! A flood of output: who comes late gets what can be taken in, and can read the whole all the same.

use serde_json::Value;

use crate::harness::server::Server;

#[tokio::test]
async fn a_late_reader_of_a_flood_gets_less_than_a_mebibyte_and_can_read_it_all() {
    let server = Server::start().await;
    server.open("flood").await;
    let result = server
        .run("flood", "for i in range(200_000): print('line', i)")
        .await;
    assert_eq!(result["status"], "ok", "{result:#}");
    let expected: String = (0..200_000).map(|i| format!("line {i}\n")).collect();

    let page = server
        .get("/v1/sessions/flood/events?view=live&limit=10000")
        .await;
    assert!(page.body.len() < 1024 * 1024, "{}", page.body.len());
    let page = page.json();
    assert_eq!(page["more"], false);
    let events = page["events"].as_array().unwrap();
    let text = |event: &Value| event["text"].as_str().unwrap_or_default().to_owned();
    let shown: String = events.iter().map(text).collect();
    let place = events
        .iter()
        .position(|event| event["event"] == "elided")
        .expect("it says that something is left out");
    let head: String = events[..place].iter().map(text).collect();
    let elided = &events[place]["streams"][0];
    let bytes = elided["bytes"].as_u64().unwrap();
    assert_eq!(elided["from"], head.len());
    assert_eq!(shown.len() as u64 + bytes, expected.len() as u64);
    assert!(shown.ends_with("line 199999\n"));

    let path = format!(
        "/v1/sessions/flood/cells/{}/output",
        result["cell"].as_str().unwrap()
    );
    let (mut whole, mut from) = (String::new(), 0);
    while from < expected.len() {
        let part = server
            .get(&format!("{path}?from={from}&bytes=1000000"))
            .await;
        let part = part.json();
        assert_eq!(part["total_bytes"], expected.len());
        whole.push_str(part["text"].as_str().unwrap());
        from = whole.len();
    }
    assert!(whole == expected, "the ranges are the whole");

    let found = server
        .get(&format!("{path}?find=line%20150000"))
        .await
        .json();
    assert_eq!(
        (&found["total"], &found["matches"][0]["line"]),
        (&1.into(), &150_001.into())
    );
}

#[tokio::test]
async fn a_progress_bar_is_one_line_for_who_comes_late() {
    let server = Server::start().await;
    server.open("bar").await;
    let code = "import time\nfor i in range(1001):\n    print(f'\\r{i:4} of 1000', end='', flush=True)\n    time.sleep(0.0005)";
    server.run("bar", code).await;
    let page = server.get("/v1/sessions/bar/events?view=live").await.json();
    let events = page["events"].as_array().unwrap();
    let text: Vec<_> = events
        .iter()
        .filter_map(|event| event["text"].as_str())
        .collect();
    assert_eq!(text, ["\r1000 of 1000"]);
}
