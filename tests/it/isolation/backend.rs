//! The native backend by itself: what it makes, what it leaves, and what it finds again.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use evercell::model::id::SandboxId;
use evercell::model::limits::Limits;
use evercell::protocol::GENERATION;
use evercell::protocol::agent::{AgentHello, Hello, Kind, Purpose};
use evercell::protocol::codec::{Frame, FrameCodec};
use evercell::sandbox::native::{Config, NativeBackend};
use evercell::sandbox::{Backend, Sandbox, SandboxError, SandboxSpec};
use futures_util::{SinkExt, StreamExt};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::codec::Framed;

use crate::harness::server::{PATIENCE, repository};
use crate::harness::skipped;

fn config(data_dir: &Path) -> Config {
    Config {
        data_dir: data_dir.to_owned(),
        program: PathBuf::from(env!("CARGO_BIN_EXE_evercell")),
        python_env: repository().join(".venv"),
        pykernel_dir: repository().join("kernel-image/pykernel"),
        first_id: Config::FIRST_ID,
        ids: Config::IDS,
        orphan: Duration::from_secs(60),
    }
}

fn spec(data_dir: &Path) -> SandboxSpec {
    let id = SandboxId::new();
    let workspace = data_dir.join("workspaces").join(id.to_string());
    fs::create_dir_all(&workspace).unwrap();
    SandboxSpec {
        id,
        limits: Limits::default(),
        workspace,
    }
}

/// Starts a kernel in a sandbox and waits until it is ready.
async fn start_kernel(sandbox: &dyn Sandbox) {
    let mut frames = Framed::new(sandbox.connect().await.unwrap(), FrameCodec);
    let hello = Hello {
        generation: GENERATION,
        purpose: Purpose::Control,
        resume_after: 0,
    };
    let request = |kind: Kind, number, payload: Vec<u8>| Frame {
        kind: kind as u8,
        flags: 0,
        number,
        payload: payload.into(),
    };
    frames
        .send(request(Kind::Hello, 0, serde_json::to_vec(&hello).unwrap()))
        .await
        .unwrap();
    let (mut answered, mut ready, mut before) = (false, false, u64::MAX);
    while !(answered && ready) {
        let frame = timeout(PATIENCE, frames.next())
            .await
            .expect("the agent says something")
            .expect("the agent lives")
            .unwrap();
        let text = String::from_utf8_lossy(&frame.payload);
        if frame.kind == Kind::AgentHello as u8 {
            let hello: AgentHello = serde_json::from_slice(&frame.payload).unwrap();
            before = hello.last;
            // Numbers of requests grow over the whole life of an agent.
            let number = hello.last_request + 1;
            frames
                .send(request(Kind::StartKernel, number, Vec::new()))
                .await
                .unwrap();
        }
        if frame.kind == Kind::Answer as u8 {
            assert!(!text.contains("error"), "{text}");
            answered = true;
        }
        // What an earlier kernel said comes again.
        ready |= frame.kind == Kind::Message as u8
            && frame.number > before
            && text.contains("\"ready\"");
    }
}

/// Processes whose command line holds this text.
fn processes(text: &str) -> Vec<u32> {
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| {
            fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| String::from_utf8_lossy(&line).contains(text))
        })
        .collect()
}

/// Control groups whose name holds this text.
fn groups(text: &str) -> Vec<PathBuf> {
    fn search(directory: &Path, text: &str, depth: usize, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            if depth > 0 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if entry.file_name().to_string_lossy().contains(text) {
                    found.push(entry.path());
                }
                search(&entry.path(), text, depth - 1, found);
            }
        }
    }
    let mut found = Vec::new();
    search(Path::new("/sys/fs/cgroup"), text, 8, &mut found);
    found
}

#[tokio::test]
async fn nothing_is_left_of_a_sandbox_that_was_destroyed() {
    let directory = tempfile::tempdir().unwrap();
    let backend = NativeBackend::start(config(directory.path()))
        .await
        .unwrap();
    let spec = spec(directory.path());
    let (id, workspace) = (spec.id, spec.workspace.clone());
    let sandbox = backend.create(spec).await.unwrap();
    start_kernel(&*sandbox).await;
    assert_eq!(processes(&id.to_string()).len(), 1, "the agent");
    assert_eq!(backend.list().await.unwrap(), [id]);

    sandbox.destroy().await.unwrap();
    assert!(processes(&id.to_string()).is_empty());
    assert!(groups(&id.to_string()).is_empty());
    assert!(backend.list().await.unwrap().is_empty());
    assert!(
        workspace.is_dir(),
        "the workspace is not a part of the sandbox"
    );
    assert!(matches!(
        sandbox.connect().await,
        Err(SandboxError::NotFound(_) | SandboxError::Gone { .. })
    ));
    // Once more changes nothing.
    sandbox.destroy().await.unwrap();
    backend.destroy(id).await.unwrap();
    backend.shut_down().await;
}

#[tokio::test]
async fn another_server_finds_a_sandbox_and_starts_a_new_kernel_in_it() {
    let directory = tempfile::tempdir().unwrap();
    let backend = NativeBackend::start(config(directory.path()))
        .await
        .unwrap();
    let spec = spec(directory.path());
    let id = spec.id;
    let sandbox = backend.create(spec).await.unwrap();
    start_kernel(&*sandbox).await;
    backend.shut_down().await;
    drop((sandbox, backend));

    // Its zygote has to move into the house in which the sandbox was made.
    let backend = NativeBackend::start(config(directory.path()))
        .await
        .unwrap();
    let sandbox = backend.adopt(id).await.unwrap();
    start_kernel(&*sandbox).await;
    sandbox.destroy().await.unwrap();
    assert!(matches!(
        backend.adopt(id).await,
        Err(SandboxError::NotFound(_) | SandboxError::Gone { .. })
    ));
    backend.shut_down().await;
}

#[tokio::test]
async fn a_zygote_that_dies_is_replaced_and_sandboxes_made_before_can_use_the_new_one() {
    let directory = tempfile::tempdir().unwrap();
    let backend = NativeBackend::start(config(directory.path()))
        .await
        .unwrap();
    let sandbox = backend.create(spec(directory.path())).await.unwrap();
    let first = backend.zygote_pid().unwrap();
    let pid = rustix::process::Pid::from_raw(first.cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while backend.zygote_pid().ok().is_none_or(|pid| pid == first) {
        assert!(Instant::now() < deadline, "a new zygote comes up");
        sleep(Duration::from_millis(50)).await;
    }
    start_kernel(&*sandbox).await;
    sandbox.destroy().await.unwrap();
    backend.shut_down().await;
}

#[tokio::test]
async fn what_a_server_left_half_made_can_be_destroyed() {
    let directory = tempfile::tempdir().unwrap();
    let backend = NativeBackend::start(config(directory.path()))
        .await
        .unwrap();
    let run = directory.path().join("run");
    // Killed between the directory and the record, and between the record and the pid.
    let (bare, garbled) = (SandboxId::new(), SandboxId::new());
    fs::create_dir(run.join(bare.to_string())).unwrap();
    fs::create_dir(run.join(garbled.to_string())).unwrap();
    fs::write(run.join(garbled.to_string()).join("record.json"), "{").unwrap();
    fs::write(run.join(garbled.to_string()).join("pid"), "").unwrap();
    let mut found = backend.list().await.unwrap();
    found.sort();
    assert_eq!(found, [bare, garbled]);
    for id in found {
        assert!(matches!(
            backend.adopt(id).await,
            Err(SandboxError::NotFound(_) | SandboxError::Gone { .. })
        ));
        backend.destroy(id).await.unwrap();
    }
    assert!(backend.list().await.unwrap().is_empty());
    backend.shut_down().await;
}

#[tokio::test]
async fn a_sandbox_that_cannot_be_made_says_at_which_step_and_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let backend = NativeBackend::start(config(directory.path()))
        .await
        .unwrap();
    fs::remove_file(directory.path().join("run/zygote/kernel.seccomp")).unwrap();
    let spec = spec(directory.path());
    let id = spec.id.to_string();
    let refused = backend.create(spec).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        format!("cannot read the seccomp filter of sandbox `{id}`")
    );
    assert!(backend.list().await.unwrap().is_empty());
    assert!(processes(&id).is_empty());
    assert!(groups(&id).is_empty());
    backend.shut_down().await;
}

#[tokio::test]
async fn sandboxes_made_by_root_have_ids_of_their_own_and_keep_their_files() {
    if !rustix::process::geteuid().is_root() {
        skipped(
            "sandboxes_made_by_root_have_ids_of_their_own_and_keep_their_files: this is an ordinary user",
        );
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let backend = NativeBackend::start(config(directory.path()))
        .await
        .unwrap();
    let owner = |path: &Path| fs::metadata(path).unwrap().uid();
    let (one, other) = (spec(directory.path()), spec(directory.path()));
    let (first, second) = (
        backend.create(one.clone()).await.unwrap(),
        backend.create(other.clone()).await.unwrap(),
    );
    assert!(owner(&one.workspace) >= Config::FIRST_ID);
    assert_ne!(owner(&one.workspace), owner(&other.workspace));

    // A later sandbox with the same workspace can write to its files.
    let before = owner(&one.workspace);
    first.destroy().await.unwrap();
    let again = backend
        .create(SandboxSpec {
            id: SandboxId::new(),
            ..one.clone()
        })
        .await
        .unwrap();
    assert_eq!(owner(&one.workspace), before);
    again.destroy().await.unwrap();
    second.destroy().await.unwrap();
    backend.shut_down().await;
}

#[tokio::test]
async fn twenty_sandboxes_at_once_do_not_get_into_each_others_way() {
    let directory = tempfile::tempdir().unwrap();
    let backend = Arc::new(
        NativeBackend::start(config(directory.path()))
            .await
            .unwrap(),
    );
    let made =
        futures_util::future::join_all((0..20).map(|_| backend.create(spec(directory.path()))))
            .await;
    let made: Vec<_> = made.into_iter().map(Result::unwrap).collect();
    assert_eq!(backend.list().await.unwrap().len(), 20);
    for gone in futures_util::future::join_all(made.iter().map(|sandbox| sandbox.destroy())).await {
        gone.unwrap();
    }
    assert!(backend.list().await.unwrap().is_empty());
    backend.shut_down().await;
}

#[tokio::test]
async fn a_broken_environment_is_told_apart_from_a_host_that_cannot_isolate() {
    let directory = tempfile::tempdir().unwrap();
    let missing = Config {
        python_env: directory.path().join("none"),
        ..config(directory.path())
    };
    let refused = NativeBackend::start(missing).await.unwrap_err();
    assert!(
        matches!(&refused, SandboxError::Environment { .. }),
        "{refused}"
    );

    // An environment without a program in it.
    let empty = directory.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let refused = NativeBackend::start(Config {
        python_env: empty,
        ..config(directory.path())
    })
    .await
    .unwrap_err();
    assert!(
        matches!(&refused, SandboxError::Environment { .. }),
        "{refused}"
    );

    // One in which Python runs, and finds nothing.
    let refused = NativeBackend::start(Config {
        pykernel_dir: directory.path().to_owned(),
        ..config(directory.path())
    })
    .await
    .unwrap_err();
    assert!(refused.to_string().contains("pykernel"), "{refused}");
    assert!(refused.to_string().contains("hint: "), "{refused}");
}
