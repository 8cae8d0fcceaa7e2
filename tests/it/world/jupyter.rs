//! Jupyter's own clients, and frameworks that speak to a Jupyter server, at real work. They live in `tests/jupyter`.

use std::env;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use crate::harness::server::{Server, TOKEN, repository};
use crate::harness::skipped;

/// How long the tests of one file may take. Generous: it bounds a deadlock, it measures nothing.
const LIMIT: Duration = Duration::from_secs(230);

/// Runs a file of `tests/jupyter` against a server with real kernels.
async fn pass(file: &str) {
    let python = repository().join(".venv-jupyter/bin/python");
    if !python.exists() {
        skipped(&format!(
            "tests/jupyter/{file}: the clients are not installed (make env-jupyter)"
        ));
        return;
    }
    let server = Server::start().await;
    let mut command = Command::new(python);
    command
        .args(["-m", "pytest", "-q", "-p", "no:cacheprovider", file])
        .current_dir(repository().join("tests/jupyter"))
        .env("EVERCELL_URL", format!("http://{}", server.address))
        .env("EVERCELL_TOKEN", TOKEN)
        // What a client keeps for itself.
        .env("HOME", server.data_dir())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = timeout(LIMIT, command.output())
        .await
        .unwrap_or_else(|_| panic!("{file} did not end"))
        .unwrap();
    assert!(
        output.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[tokio::test]
async fn the_tests_of_jupyters_messages_pass() {
    pass("test_kernel_spec.py").await;
}

#[tokio::test]
async fn jupyters_clients_and_those_of_frameworks_do_real_work() {
    pass("test_clients.py").await;
}

#[tokio::test]
async fn notebooks_have_the_outputs_that_ipykernel_gives_them() {
    pass("test_notebooks.py").await;
}

#[tokio::test]
async fn the_recipes_of_the_documentation_work() {
    pass("test_docs.py").await;
}

#[tokio::test]
async fn jupyterlab_works_in_a_browser_over_the_gateway() {
    let there = |browser: &str| {
        env::split_paths(&env::var_os("PATH").unwrap()).any(|path| path.join(browser).is_file())
    };
    if ["chromium", "chromium-browser", "google-chrome"]
        .into_iter()
        .any(there)
    {
        pass("test_lab.py").await;
    } else {
        skipped("tests/jupyter/test_lab.py: there is no browser (apt-get install chromium)");
    }
}

#[tokio::test]
async fn widgets_work_over_the_gateway() {
    pass("test_widgets.py").await;
}
