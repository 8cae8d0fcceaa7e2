//! What the tests have to know of that which sandboxes are made of.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::process::Pid;
use serde_json::Value;
use tokio::process::Command;

/// Whether sandboxes are containers: `tests/on_docker.sh` runs the stories once more that way.
#[expect(
    clippy::disallowed_methods,
    reason = "what runs the tests says it, not the product"
)]
pub fn in_containers() -> bool {
    std::env::var("TEST_BACKEND").is_ok_and(|backend| backend == "docker")
}

/// Whether those containers run in gVisor, which lets no socket through.
#[expect(
    clippy::disallowed_methods,
    reason = "what runs the tests says it, not the product"
)]
pub fn in_gvisor() -> bool {
    std::env::var("EVERCELL_DOCKER_RUNTIME").is_ok_and(|runtime| runtime == "runsc")
}

/// Where the engine of those stories is.
#[expect(
    clippy::disallowed_methods,
    reason = "what runs the tests says it, not the product"
)]
pub fn engine_socket() -> PathBuf {
    let host = std::env::var("DOCKER_HOST").unwrap_or_default();
    let socket = host.strip_prefix("unix://");
    socket.unwrap_or("/var/run/docker.sock").into()
}

/// Runs the engine's own client.
pub async fn docker(arguments: &[&str]) -> String {
    let output = Command::new("docker")
        .args(arguments)
        .output()
        .await
        .unwrap();
    assert!(
        output.status.success(),
        "docker {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// The container of a sandbox, as the engine knows it.
pub fn container(sandbox: &Path) -> String {
    format!(
        "evercell-{}",
        sandbox.file_name().unwrap().to_str().unwrap()
    )
}

/// The first process of a sandbox, if it came so far.
pub fn agent_of(sandbox: &Path) -> Option<Pid> {
    if in_containers() {
        // Who listens there.
        let agent = UnixStream::connect(sandbox.join("agent.sock")).ok()?;
        return Some(rustix::net::sockopt::socket_peercred(&agent).ok()?.pid);
    }
    let process: Value = serde_json::from_slice(&std::fs::read(sandbox.join("pid")).ok()?).ok()?;
    Pid::from_raw(i32::try_from(process["pid"].as_i64()?).ok()?)
}
