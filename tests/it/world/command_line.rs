//! The command line against a real server: what its commands print, save and return.

use std::io::ErrorKind;
use std::path::Path;
use std::process::{Output, Stdio};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::harness::server::{PATIENCE, Server, TOKEN, repository};

/// A command of the program, on a server, in a directory.
fn evercell(server: &Server, directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_evercell"));
    command
        .args(arguments)
        .current_dir(directory)
        .env("EVERCELL_URL", format!("http://{}", server.address))
        .env("EVERCELL_TOKEN", TOKEN)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// Gives it an input and waits for its end.
async fn finish(mut command: Command, input: &str) -> (i32, String, String) {
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    match stdin.write_all(input.as_bytes()).await {
        // A command that refuses its arguments ends without having read.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
        written => written.unwrap(),
    }
    drop(stdin);
    let output = timeout(PATIENCE, child.wait_with_output()).await;
    let Output {
        status,
        stdout,
        stderr,
    } = output.expect("it ends").unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

fn interrupt(child: &Child) {
    let pid = child
        .id()
        .and_then(|pid| rustix::process::Pid::from_raw(pid.cast_signed()));
    rustix::process::kill_process(pid.expect("it runs"), rustix::process::Signal::INT).unwrap();
}

#[tokio::test]
async fn a_file_runs_as_cells_and_its_output_comes_here() {
    let server = Server::start().await;
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    let run = |arguments: &[&str]| evercell(&server, here, arguments);

    let file = "import sys\nx = 20\nprint('out')\nprint('err', file=sys.stderr)\n\
                # %%\nfrom IPython.display import SVG, display\ndisplay(SVG('<svg xmlns=\"http://www.w3.org/2000/svg\"/>'))\nx + 1\n\
                # %%\n1 / 0\n# %%\nprint('never')\n";
    std::fs::write(here.join("file.py"), file).unwrap();
    let (code, out, err) = finish(run(&["run", "file.py", "--session", "s", "--cells"]), "").await;
    assert_eq!(code, 1, "{err}");
    let figure = out
        .split_once("[figure: ")
        .unwrap()
        .1
        .split_once(']')
        .unwrap()
        .0;
    assert_eq!(out, format!("out\n[figure: {figure}]\n21\n"));
    assert!(
        std::fs::read_to_string(here.join(figure))
            .unwrap()
            .starts_with("<svg")
    );
    assert!(
        err.starts_with("err\n") && err.contains("ZeroDivisionError: division by zero"),
        "{err}"
    );
    assert!(!err.contains('\u{1b}'), "no colour where nobody looks");

    // The session stays, and stdin is a file like any other.
    let (code, out, _) = finish(run(&["run", "-", "--session", "s"]), "x * 2").await;
    assert_eq!((code, out.as_str()), (0, "40\n"));

    // A line on stdin answers `input()`.
    std::fs::write(here.join("ask.py"), "print('hello', input('who? '))").unwrap();
    let (code, out, err) = finish(run(&["run", "ask.py", "--session", "s"]), "Ada\n").await;
    assert_eq!((code, out.as_str()), (0, "who? hello Ada\n"), "{err}");

    let (code, out, _) = finish(run(&["ps"]), "").await;
    let columns: Vec<_> = out.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(
        (code, &columns[..2]),
        (0, ["s", "idle"].as_slice()),
        "{out}"
    );

    let (code, _, err) = finish(run(&["run", "-", "--session", "a/b"]), "1").await;
    assert_eq!(code, 2);
    assert!(err.contains("letters, digits"), "{err}");
    let mut stranger = run(&["ps"]);
    stranger.env("EVERCELL_TOKEN", "not-the-token");
    let (code, _, err) = finish(stranger, "").await;
    assert!(
        code == 1 && err.contains("\n\nhint: ") && !err.contains("not-the-token"),
        "{err}"
    );
}

#[tokio::test]
async fn a_first_interrupt_stops_the_cell_and_a_second_leaves_it() {
    let server = Server::start().await;
    let directory = tempfile::tempdir().unwrap();
    // It says that it has begun from where an interrupt is caught: the first one may come right after.
    let stubborn = "import time\ntry:\n    print('begun')\n    time.sleep(30)\nexcept KeyboardInterrupt:\n    print('caught')\n    time.sleep(1)\nprint('done')\n";
    std::fs::write(directory.path().join("stubborn.py"), stubborn).unwrap();
    let mut child = evercell(
        &server,
        directory.path(),
        &["run", "stubborn.py", "--session", "s"],
    )
    .spawn()
    .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut said = child.stderr.take().unwrap();
    for expected in ["begun", "caught"] {
        let line = timeout(PATIENCE, lines.next_line())
            .await
            .expect("it says so")
            .unwrap();
        assert_eq!(line.as_deref(), Some(expected));
        interrupt(&child);
    }
    assert_eq!(
        timeout(PATIENCE, child.wait())
            .await
            .unwrap()
            .unwrap()
            .code(),
        Some(130)
    );
    let mut err = String::new();
    said.read_to_string(&mut err).await.unwrap();
    let after = err
        .split_once("--after ")
        .unwrap()
        .1
        .split_once('`')
        .unwrap()
        .0;

    // What it said names the rest exactly.
    let mut attach = evercell(
        &server,
        directory.path(),
        &["attach", "s", "--after", after],
    )
    .spawn()
    .unwrap();
    let mut lines = BufReader::new(attach.stdout.take().unwrap()).lines();
    let line = timeout(PATIENCE, lines.next_line())
        .await
        .expect("it ends")
        .unwrap();
    assert_eq!(line.as_deref(), Some("done"));
    interrupt(&attach);
    assert!(
        timeout(PATIENCE, attach.wait())
            .await
            .unwrap()
            .unwrap()
            .success()
    );
}

#[tokio::test]
async fn variables_are_held_and_gone_back_to_and_a_session_is_ended() {
    let server = Server::start().await;
    let directory = tempfile::tempdir().unwrap();
    let said = async |arguments: &[&str], input: &str| {
        let (code, out, err) = finish(evercell(&server, directory.path(), arguments), input).await;
        format!("{code} {out}{err}")
    };
    let run: &[&str] = &["run", "-", "--session", "s"];
    assert_eq!(said(run, "x = 1").await, "0 ");
    assert_eq!(
        said(&["checkpoint", "s", "good"], "").await,
        "0 checkpoint `good` is held\n"
    );
    assert_eq!(said(run, "x = 2").await, "0 ");
    assert_eq!(said(&["checkpoint", "s"], "").await, "0 good  after [1]\n");
    assert_eq!(
        said(&["rollback", "s", "good"], "").await,
        "0 variables are as they were in checkpoint `good`\n"
    );
    let again = said(run, "x").await;
    assert!(again.starts_with("0 1\n"), "{again}");
    assert_eq!(
        said(&["checkpoint", "s", "good", "--drop"], "").await,
        "0 checkpoint `good` is dropped\n"
    );
    let refused = said(&["rollback", "s", "good"], "").await;
    assert!(refused.starts_with("1 error: "), "{refused}");

    server.protect("s").await;
    assert_eq!(
        said(&["undo", "s"], "").await,
        "0 variables are as they were before the cell\n"
    );
    assert_eq!(said(&["interrupt", "s"], "").await, "0 nothing runs\n");
    assert_eq!(
        said(&["restart", "s"], "").await,
        "0 the kernel is being started anew\n"
    );
    let gone = said(run, "x").await;
    assert!(
        gone.starts_with("1 ") && gone.contains("NameError"),
        "{gone}"
    );
    assert_eq!(
        said(&["end", "s"], "").await,
        "0 the session is gone, with its files and its log\n"
    );
    let unknown = said(&["end", "s"], "").await;
    assert!(unknown.starts_with("1 error: "), "{unknown}");
}

#[tokio::test]
async fn a_client_of_the_command_line_goes_on_after_the_server_was_killed() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let mut first = Server::start_at(&data, &["--pool", "1"]).await;
    std::fs::write(
        directory.path().join("long.py"),
        "import time\nprint('begun')\nfor i in range(300):\n    print(i)\n    time.sleep(0.01)\nprint('done')",
    )
    .unwrap();
    let mut child = evercell(
        &first,
        directory.path(),
        &["run", "long.py", "--session", "s"],
    )
    .spawn()
    .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = async || {
        let line = timeout(PATIENCE, lines.next_line()).await;
        line.expect("it goes on").unwrap()
    };
    assert_eq!(next().await.as_deref(), Some("begun"));
    first.replace(&["--pool", "1"]).await;
    for i in 0..300 {
        assert_eq!(next().await, Some(i.to_string()));
    }
    assert_eq!(
        (next().await.as_deref(), next().await),
        (Some("done"), None)
    );
    let output = timeout(PATIENCE, child.wait_with_output())
        .await
        .unwrap()
        .unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{err}");
    assert!(
        err.contains("the connection is back") && err.contains("nothing was lost"),
        "{err}"
    );
}

#[tokio::test]
async fn the_doctor_says_whether_this_machine_can_serve() {
    let directory = tempfile::tempdir().unwrap();
    let doctor = |environment: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_evercell"));
        command
            .args(["doctor", "--json", "--data-dir"])
            .arg(directory.path());
        command.arg("--python-env").arg(environment);
        command
            .arg("--kernel-lib")
            .arg(repository().join("kernel-image"));
        command
    };
    let output = doctor(&repository().join(".venv")).output().await.unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        output.status.success(),
        report["level"] != "fatal",
        "{report:#}"
    );
    let output = doctor(directory.path()).output().await.unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (output.status.code(), &report["level"]),
        (Some(1), &"fatal".into())
    );
}

#[tokio::test]
async fn a_file_that_shows_progress_runs_longer_than_its_time() {
    let server = Server::start().await;
    let directory = tempfile::tempdir().unwrap();
    let run = |step: &str| {
        let arguments = ["run", "-", "-s", "s", "--timeout", "6s"];
        let mut command = evercell(&server, directory.path(), &arguments);
        command.args(["--extend-on-progress", step]);
        command
    };
    let code = "print('on')\nimport time; time.sleep(6.5)";
    let (code, out, err) = finish(run("60s"), code).await;
    assert_eq!((code, out.as_str()), (0, "on\n"), "{err}");
    let extended = "the deadline was extended by 1m, since the cell shows progress";
    assert!(err.contains(extended), "{err}");
    let (code, _, err) = finish(run("500ms"), "1").await;
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("it is at least 1000"), "{err}");
}
