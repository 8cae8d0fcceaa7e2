//! With the real Python kernel, where its environment is installed beside the sources.

use std::path::Path;

use super::*;

/// The interpreter of the environment.
fn python() -> Option<PathBuf> {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR"));
    [sources.join(".venv"), sources.join("../main/.venv")]
        .into_iter()
        .map(|environment| environment.join("bin/python"))
        .find(|python| python.exists())
        .filter(|_| sources.join("kernel-image/pykernel/__main__.py").exists())
}

#[test]
fn the_real_kernel_prints_and_answers() {
    let Some(python) = python() else {
        return;
    };
    let image = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernel-image");
    let argv = [
        "/usr/bin/env".to_owned(),
        format!("PYTHONPATH={}", image.display()),
        python.display().to_string(),
        "-m".to_owned(),
        "pykernel".to_owned(),
        "kernel".to_owned(),
    ];
    let source = KernelSource::Exec {
        argv: argv.to_vec(),
    };
    let jail = json!({
        "uid": null, "gid": null, "cwd": "/tmp", "home": "/tmp", "env": {}, "rlimits": {}, "oom_score_adj": null,
        "landlock": null, "seccomp": null,
    });
    let agent = TestAgent::start_with(config(), Some((source, jail)));
    let (mut client, _) = agent.connect(0);
    client.send(Kind::StartKernel, 1, b"");
    assert_eq!(client.wait_answer(1), json!({ "kernel": 1 }));
    let ready = client.transcript(Kind::Message);
    assert!(ready.contains("\\\"ready\\\""), "{ready}");
    let code = "import os\nprint('printed')\nos.system('echo from a shell')\nprint('again')\n1 + 1";
    client.send_json(
        Kind::Execute,
        1,
        &json!({
            "id": 1, "op": "execute", "cell": "c1", "code": code, "silent": false, "store_history": true,
            "allow_stdin": false, "user_expressions": {},
        }),
    );
    let transcript = client.transcript(Kind::Reply);
    let lines: Vec<&str> = transcript.lines().collect();
    assert_eq!(lines[0], "stdout printed\\nfrom a shell\\nagain\\n");
    assert!(
        lines[1].starts_with("message ") && lines[1].contains("execute_result"),
        "{transcript}"
    );
    assert_eq!(lines[2], "usage");
    assert!(lines[3].contains("\\\"ok\\\""), "{transcript}");
    client.send_json(
        Kind::Execute,
        2,
        &json!({
            "id": 2, "op": "execute", "cell": "c2", "code": "print('busy', end='')\nwhile True: pass", "silent": false,
            "store_history": true, "allow_stdin": false, "user_expressions": {},
        }),
    );
    assert_eq!(client.kept().payload, "busy");
    client.send(Kind::Interrupt, 0, b"");
    let transcript = client.transcript(Kind::Reply);
    assert!(transcript.contains("KeyboardInterrupt"), "{transcript}");
    client.send(Kind::KillKernel, 0, b"");
    assert_eq!(client.wait_exit().signal, Some(9));
}
