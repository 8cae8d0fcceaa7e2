//! What a person finds who works with a kernel.

use evercell::model::event::Event;
use serde_json::json;

use crate::harness::server::Server;

#[tokio::test]
async fn variables_stay_from_cell_to_cell_and_the_receipt_says_what_changed() {
    let server = Server::start().await;
    server.open("s").await;
    let first = server
        .run("s", "import numpy as np\na = np.zeros((3, 4))\nb = 'text'")
        .await;
    let added = &first["variables"]["added"];
    let names: Vec<&str> = added
        .as_array()
        .unwrap()
        .iter()
        .map(|v| v["name"].as_str().unwrap())
        .collect();
    assert!(names.contains(&"a") && names.contains(&"b"), "{first:#}");
    let a = added
        .as_array()
        .unwrap()
        .iter()
        .find(|v| v["name"] == "a")
        .unwrap();
    assert_eq!(
        (&a["type"], &a["shape"], &a["bytes"]),
        (&json!("ndarray"), &json!([3, 4]), &json!(96))
    );
    let second = server.run("s", "del b\na = a[:2]\na.shape").await;
    assert_eq!(second["variables"]["removed"], json!(["b"]));
    assert_eq!(second["variables"]["changed"][0]["shape"], json!([2, 4]));
    assert_eq!(second["result"]["data"]["text/plain"], "(2, 4)");
    assert_eq!(second["execution_count"], 2);
    assert!(
        second["usage"]["wall_ms"].is_u64() && second["usage"]["cpu_ms"].is_u64(),
        "{second:#}"
    );
    let all = server.get("/v1/sessions/s/variables").await.json();
    assert!(
        all["variables"]
            .as_array()
            .unwrap()
            .iter()
            .any(|v| v["name"] == "a"),
        "{all:#}"
    );
}

#[tokio::test]
async fn what_a_session_uses_is_told_while_its_cell_runs() {
    let server = Server::start().await;
    server.open("s").await;
    let mut socket = server.socket("s", 0).await;
    socket
        .execute("held = bytearray(300 * 1024 * 1024)\nprint('held')\nwhile True: pass")
        .await;
    socket
        .wait_until(|event| matches!(event, Event::Stream { .. }))
        .await;
    let first = server.get("/v1/sessions/s/usage").await.json();
    // In a container as much as all libraries take is not counted as the session's.
    assert!(
        first["memory_bytes"].as_u64() > Some(100 * 1024 * 1024)
            && first["processes"].as_u64() > Some(0),
        "{first:#}"
    );
    // It never waits, so its time on the processors grows.
    loop {
        let next = server.get("/v1/sessions/s/usage").await.json();
        if next["cpu_ms"].as_u64() > first["cpu_ms"].as_u64() {
            break;
        }
    }
    server.post("/v1/sessions/s/interrupt", &json!({})).await;
    let unknown = server.get("/v1/sessions/nobody/usage").await;
    assert_eq!(unknown.status, 404);
}

#[tokio::test]
async fn what_is_printed_streams_in_order_whoever_prints_it() {
    let server = Server::start().await;
    server.open("s").await;
    let mut socket = server.socket("s", 0).await;
    let cell = socket
        .run(
            "import os, sys, subprocess, ctypes\nprint('python'); os.system('echo shell'); print('again')\n\
             subprocess.run(['sh', '-c', 'echo child; echo oops >&2'])\n\
             ctypes.CDLL(None).printf(b'C\\n'); print('end'); print('warned', file=sys.stderr)",
        )
        .await;
    let stdout: String = socket
        .seen
        .iter()
        .filter_map(|envelope| match &envelope.event {
            Event::Stream {
                cell: Some(of),
                name: evercell::model::output::StreamName::Stdout,
                text,
            } if *of == cell => Some(text.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(stdout, "python\nshell\nagain\nchild\nC\nend\n");
}

#[tokio::test]
async fn figures_come_when_they_are_shown_between_the_lines_around_them() {
    let server = Server::start().await;
    server.open("s").await;
    let mut socket = server.socket("s", 0).await;
    socket
        .run("import matplotlib.pyplot as plt\nfor i in range(2):\n    print('before', i)\n    plt.plot([1, i])\n    plt.title('図 그림 图')\n    plt.show()\n    print('after', i)")
        .await;
    let shown: String = socket
        .seen
        .iter()
        .filter_map(|envelope| match &envelope.event {
            Event::Stream { text, .. } => Some(text.as_str()),
            Event::DisplayData { data, .. } if data.contains_key("image/png") => Some("<figure>\n"),
            _ => None,
        })
        .collect();
    // No warning of missing glyphs either.
    assert_eq!(
        shown,
        "before 0\n<figure>\nafter 0\nbefore 1\n<figure>\nafter 1\n"
    );
}

#[tokio::test]
async fn a_progress_bar_is_one_line() {
    let server = Server::start().await;
    server.open("s").await;
    let result = server
        .run(
            "s",
            "from tqdm import tqdm\nfor i in tqdm(range(500)): pass",
        )
        .await;
    let shown = result["text"]["stderr"]["preview"].as_str().unwrap();
    assert_eq!(shown.trim().lines().count(), 1, "{shown}");
    assert!(shown.contains("500/500"), "{shown}");
}

#[tokio::test]
async fn errors_come_with_their_whole_traceback_with_and_without_colour() {
    let server = Server::start().await;
    server.open("s").await;
    let result = server.run("s", "def f():\n    return 1 / 0\nf()").await;
    let error = &result["error"];
    assert_eq!(
        (&error["ename"], &error["evalue"]),
        (&json!("ZeroDivisionError"), &json!("division by zero"))
    );
    let (plain, coloured) = (
        error["traceback"].as_str().unwrap(),
        error["traceback_ansi"].as_str().unwrap(),
    );
    assert!(
        plain.contains("return 1 / 0") && !plain.contains('\u{1b}'),
        "{plain}"
    );
    assert!(coloured.contains('\u{1b}'));
    assert!(!plain.contains("pykernel"), "{plain}");
    assert_eq!(result["cause"]["kind"], "exception");
    assert_eq!(result["state"]["verdict"], "kept");
}

#[tokio::test]
async fn await_magics_and_shell_commands_work() {
    let server = Server::start().await;
    server.open("s").await;
    let awaited = server
        .run("s", "import asyncio\nawait asyncio.sleep(0, 'awaited')")
        .await;
    assert_eq!(awaited["result"]["data"]["text/plain"], "'awaited'");
    assert!(
        server
            .prints("s", "%timeit -n 1 -r 1 pass")
            .await
            .contains("loop")
    );
    assert_eq!(
        server.prints("s", "!echo from the shell").await,
        "from the shell\n"
    );
    let pip = server.run("s", "%pip install nothing-like-this").await;
    let said = pip.to_string().to_lowercase();
    assert!(said.contains("network"), "{pip:#}");
    assert_eq!(server.run("s", "_ = 5\nIn[1]").await["status"], "ok");
}

#[tokio::test]
async fn a_line_is_asked_for_and_answered() {
    let server = Server::start().await;
    server.open("s").await;
    let mut socket = server.socket("s", 0).await;
    let cell = socket
        .execute("name = input('who? ')\nprint('hello', name)")
        .await;
    socket
        .wait_until(
            |event| matches!(event, Event::InputRequested { prompt, .. } if prompt == "who? "),
        )
        .await;
    let reply = socket
        .command(json!({ "op": "input", "value": "Ada" }))
        .await;
    assert_eq!(reply["ok"], true, "{reply}");
    socket
        .wait_until(
            |event| matches!(event, Event::CellFinished { cell: ended, .. } if *ended == cell),
        )
        .await;
    assert_eq!(socket.text_of(cell), "hello Ada\n");
}

#[tokio::test]
async fn names_are_completed_and_explained() {
    let server = Server::start().await;
    server.open("s").await;
    server
        .run("s", "import numpy as np\nmy_long_name = 1")
        .await;
    let completed = server
        .post(
            "/v1/sessions/s/complete",
            &json!({ "code": "my_lo", "cursor": 5 }),
        )
        .await
        .json();
    assert!(
        completed["matches"]
            .as_array()
            .unwrap()
            .iter()
            .any(|m| m["text"] == "my_long_name"),
        "{completed}"
    );
    let inspected = server
        .post(
            "/v1/sessions/s/inspect",
            &json!({ "code": "np.zeros", "cursor": 8 }),
        )
        .await
        .json();
    assert_eq!(inspected["found"], true, "{inspected}");
}

#[tokio::test]
async fn the_running_cell_is_interrupted_and_its_variables_stay() {
    let server = Server::start().await;
    server.open("s").await;
    let mut socket = server.socket("s", 0).await;
    server.run("s", "kept = 7").await;
    for code in [
        "while True: pass",
        "import time; time.sleep(600)",
        "import asyncio; await asyncio.sleep(600)",
        "import subprocess; subprocess.run(['sleep', '600'])",
        "input('?')",
    ] {
        let cell = socket.execute(code).await;
        socket.wait_until(|event| matches!(event, Event::CellStarted { cell: started, .. } if *started == cell)).await;
        if code.starts_with("input") {
            socket.wait_until(|event| matches!(event, Event::InputRequested { cell: asking, .. } if *asking == cell)).await;
        }
        let reply = socket
            .command(json!({ "op": "interrupt", "cell": cell }))
            .await;
        assert_eq!(reply["ok"], true, "{reply}");
        socket
            .wait_until(
                |event| matches!(event, Event::CellFinished { cell: ended, .. } if *ended == cell),
            )
            .await;
        assert_eq!(
            server.prints("s", "print(kept)").await,
            "7\n",
            "after {code}:\n{}",
            socket.transcript()
        );
    }
}

#[tokio::test]
async fn a_kernel_that_dies_says_how_and_its_last_words_arrive() {
    let server = Server::start().await;
    server.open("s").await;
    for (code, kind) in [
        ("import os; os._exit(3)", "exited"),
        ("import ctypes; ctypes.string_at(0)", "killed_by_signal"),
    ] {
        let result = server
            .run("s", &format!("print('last words', flush=False)\n{code}"))
            .await;
        assert_eq!(result["cause"]["kind"], kind, "{result:#}");
        assert_eq!(result["state"]["verdict"], "rolled_back", "{result:#}");
        assert_eq!(
            result["text"]["stdout"]["preview"]
                .as_str()
                .map(str::trim_end),
            Some("last words"),
            "{result:#}"
        );
    }
    assert_eq!(server.prints("s", "print('new')").await, "new\n");
}

#[tokio::test]
async fn a_flood_of_output_arrives_whole_and_in_order() {
    let server = Server::start().await;
    server.open("s").await;
    let mut socket = server.socket("s", 0).await;
    let cell = socket.run("for i in range(200_000): print(i)").await;
    let text = socket.text_of(cell);
    assert!(
        text.lines()
            .enumerate()
            .all(|(n, line)| line.parse() == Ok(n)),
        "lines are missing or out of order"
    );
    assert_eq!(text.lines().count(), 200_000);
    let result = server
        .get(&format!("/v1/sessions/s/cells/{cell}"))
        .await
        .json();
    assert_eq!(result["text"]["stdout"]["truncated"], true);
    assert_eq!(result["text"]["stdout"]["lines"], 200_000);
}

#[tokio::test]
async fn widgets_speak_both_ways() {
    let server = Server::start().await;
    server.open("s").await;
    let mut socket = server.socket("s", 0).await;
    socket
        .run("import ipywidgets\nslider = ipywidgets.IntSlider(value=3)\nslider")
        .await;
    let opened: Vec<(String, bool)> = socket
        .seen
        .iter()
        .filter_map(|envelope| match &envelope.event {
            Event::Comm { message, .. } => Some((
                message.comm_id.clone(),
                message.data["state"]["_model_name"] == "IntSliderModel",
            )),
            _ => None,
        })
        .collect();
    let (comm_id, _) = opened
        .iter()
        .find(|(_, is_slider)| *is_slider)
        .expect("the slider opened a comm");
    let data = json!({ "method": "update", "state": { "value": 9 }, "buffer_paths": [] });
    let reply = socket
        .command(json!({ "op": "comm", "comm": "msg", "comm_id": comm_id, "data": data }))
        .await;
    assert_eq!(reply["ok"], true, "{reply}");
    assert_eq!(server.prints("s", "print(slider.value)").await, "9\n");
}

#[tokio::test]
async fn a_value_arrives_whole_or_is_refused_and_the_variables_stay() {
    let server = Server::start().await;
    server.open("s").await;
    // Longer than what waits between sandbox and server at any time.
    let long = server.run("s", "x = 'v' * 20_000_000\nx").await;
    assert_eq!(long["status"], "ok", "{long}");
    let seq = long["result"]["seq"].as_u64().unwrap();
    let event = server.get(&format!("/v1/sessions/s/events/{seq}")).await;
    let event = event.json();
    let text = event["data"]["text/plain"].as_str().unwrap();
    assert_eq!(text.len(), 20_000_002);
    let longer = server.run("s", "y = 'v' * 70_000_000\ny").await;
    assert_eq!(longer["error"]["ename"], "ValueError");
    assert_eq!(longer["state"]["verdict"], "kept");
    assert_eq!(
        server.prints("s", "print(len(x), len(y))").await,
        "20000000 70000000\n"
    );
}
