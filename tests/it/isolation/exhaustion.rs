//! Using up what is there.

use serde_json::json;

use super::Arena;

const MIB: u64 = 1024 * 1024;

#[tokio::test]
async fn a_memory_bomb_costs_its_own_session_only() {
    let arena = Arena::with(json!({ "memory_bytes": 256 * MIB })).await;
    let result = arena
        .try_attack("hoard = []\nwhile True:\n    hoard.append(bytearray(b'x') * (8 << 20))")
        .await;
    assert_eq!(result["status"], "error", "{result:#}");
    let died = result["cause"]["kind"] == "out_of_memory";
    let refused = result["error"]["ename"] == "MemoryError";
    assert!(died || refused, "{result:#}");
    arena.try_attack("hoard = None").await;
    arena.all_is_well().await;
}

#[tokio::test]
async fn a_fork_bomb_costs_its_own_session_only() {
    // The room that checkpoints have is the session's as long as they do not need it.
    let most = 40 + 12;
    let arena = Arena::with(json!({ "processes": 40 })).await;
    let code = "import os, time\nchildren = 0\ntry:\n    while children < 2000:\n        if os.fork() == 0:\n            time.sleep(600)\n            os._exit(0)\n        children += 1\n\
                except OSError as e:\n    pass\nprint(children)";
    let result = arena.try_attack(code).await;
    // Refused the next process, or killed as a whole: bounded in any case.
    let refused = result["text"]["stdout"]["preview"]
        .as_str()
        .and_then(|text| text.trim_end().parse().ok())
        .is_some_and(|children: u32| children <= most);
    assert!(refused || result["status"] == "error", "{result:#}");
    arena
        .server
        .post("/v1/sessions/attacker/restart", &json!({}))
        .await;
    arena.all_is_well().await;
    // What the bomb left did not outlive the kernel that it came from.
    arena
        .attack(
            "import os\n# A twin that has been replaced may still be ending.\nwhile len([p for p in os.listdir('/proc') if p.isdigit()]) > 3: pass\nprint('alone')",
            "alone",
        )
        .await;
}

#[tokio::test]
async fn a_real_fork_bomb_costs_its_own_session_only() {
    let arena = Arena::with(json!({ "processes": 40, "cell_ms": 3000 })).await;
    let result = arena
        .try_attack(
            "import subprocess\nsubprocess.run(['sh', '-c', 'f() { f | f & }; f; sleep 60'])",
        )
        .await;
    assert!(result["status"].is_string(), "{result:#}");
    arena
        .server
        .post("/v1/sessions/attacker/restart", &json!({}))
        .await;
    arena.all_is_well().await;
}

#[tokio::test]
async fn a_disk_filler_is_stopped_at_its_quota() {
    let arena = Arena::with(json!({ "workspace_bytes": 64 * MIB, "disk_bytes": 32 * MIB })).await;
    let code = "import os\ndef fill(path, name):\n    written = 0\n    try:\n        for n in range(4000):\n            with open(f'{path}/{name}{n}', 'wb') as f:\n                f.write(b'x' * (1 << 20))\n                os.fsync(f.fileno())\n            written += 1\n    except OSError as e:\n        return written, True\n    return written, False\n\
                print(fill('/tmp', 'a')[0] <= 33)\nprint(fill('/dev/shm', 'a')[0] <= 256)";
    let result = arena.try_attack(code).await;
    let text = result["text"]["stdout"]["preview"]
        .as_str()
        .unwrap_or_default()
        .trim_end()
        .to_owned();
    assert!(
        text == "True\nTrue" || result["status"] == "error",
        "{result:#}"
    );
    let result = arena
        .try_attack(&format!(
            "{}\nprint(fill('/workspace', 'b'))",
            code.split("print").next().unwrap()
        ))
        .await;
    // Watched, where the host gives no better means: how far it gets meanwhile depends on the disk, but it does not get to its end.
    let stopped = result["text"]["stdout"]["preview"]
        .as_str()
        .is_some_and(|text| text.ends_with("True)\n"));
    assert!(stopped || result["status"] == "error", "{result:#}");
    arena.try_attack("import os\nfor f in os.listdir('/workspace'): os.unlink(f)\nfor f in os.listdir('/tmp'): os.unlink('/tmp/' + f)").await;
    arena.all_is_well().await;
}

#[tokio::test]
async fn what_is_hidden_in_locked_directories_counts_too() {
    let arena = Arena::with(json!({ "workspace_bytes": 32 * MIB })).await;
    let result = arena
        .try_attack(
            "import os\nfor n in range(200):\n    d = f'd{n}'; os.mkdir(d)\n    with open(d + '/f', 'wb') as f:\n        f.write(b'x' * (1 << 20)); os.fsync(f.fileno())\n    \
             os.chmod(d, 0)\nimport time; time.sleep(20)\nprint('undetected')",
        )
        .await;
    assert_eq!(result["status"], "error", "{result:#}");
    arena
        .try_attack(
            "import os, shutil\nfor d in os.listdir():\n    os.chmod(d, 0o700); shutil.rmtree(d)",
        )
        .await;
    arena.all_is_well().await;
}

#[tokio::test]
async fn using_up_file_descriptors_and_threads_costs_its_own_session_only() {
    let arena = Arena::new().await;
    let result = arena
        .try_attack("import os\nhoard = []\ntry:\n    while True: hoard.append(os.open('/dev/null', os.O_RDONLY))\nexcept OSError as e: pass\nn = len(hoard)\nfor fd in hoard: os.close(fd)\nprint(100 < n < 100000)")
        .await;
    assert_eq!(
        result["text"]["stdout"]["preview"]
            .as_str()
            .map(str::trim_end),
        Some("True"),
        "{result:#}"
    );
    let result = arena
        .try_attack("import threading\nstop = threading.Event()\nn = 0\ntry:\n    while n < 5000:\n        threading.Thread(target=stop.wait, daemon=True).start()\n        n += 1\nexcept RuntimeError: pass\nstop.set()\nprint(n < 5000)")
        .await;
    assert_eq!(
        result["text"]["stdout"]["preview"]
            .as_str()
            .map(str::trim_end),
        Some("True"),
        "{result:#}"
    );
    arena.all_is_well().await;
}

#[tokio::test]
async fn a_busy_loop_does_not_keep_the_server_from_interrupting_it() {
    let arena = Arena::with(json!({ "cell_ms": 1500 })).await;
    let result = arena.try_attack("while True: pass").await;
    assert_eq!(result["cause"]["kind"], "deadline", "{result:#}");
    assert_eq!(result["state"]["verdict"], "kept", "{result:#}");
    arena.all_is_well().await;
}

#[tokio::test]
async fn hostile_frames_from_the_kernel_harm_only_itself() {
    let arena = Arena::new().await;
    // Whatever is open in the kernel's process can be written to by the code that runs in it.
    let result = arena
        .try_attack("import os, mmap\nfor fd in range(3, 64):\n    try:\n        size = os.fstat(fd).st_size\n        if size > 8192:\n            m = mmap.mmap(fd, size)\n            m[64:72] = b'\\xff' * 8\n            m[4096:8192] = os.urandom(4096)\n        else:\n            os.write(fd, os.urandom(512))\n    except Exception: pass\nimport time; time.sleep(1)")
        .await;
    assert!(result["status"].is_string(), "{result:#}");
    arena.all_is_well().await;
}

#[tokio::test]
async fn a_tree_of_very_many_levels_is_removed_with_its_session() {
    let arena = Arena::new().await;
    // Deeper than a path may be long and than a process has descriptors, whether or not it is stopped for that the agent cannot see what is there.
    arena
        .try_attack("import os\nfor _ in range(20_000):\n    os.mkdir('deep'); os.chdir('deep')")
        .await;
    let deep = || {
        let workspaces = std::fs::read_dir(arena.server.data_dir().join("workspaces")).unwrap();
        workspaces
            .filter(|workspace| workspace.as_ref().unwrap().path().join("deep").exists())
            .count()
    };
    assert_eq!(deep(), 1);
    let answer = arena.server.request("DELETE", "/v1/sessions/attacker", b"");
    assert_eq!(answer.await.status, 204);
    assert_eq!(deep(), 0);
    arena.server.open("attacker").await;
    arena.all_is_well().await;
}
