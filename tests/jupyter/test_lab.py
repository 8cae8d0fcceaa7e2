"""JupyterLab with `--gateway-url`, in a browser, used as somebody at a notebook uses it."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import nbformat
import pytest
import requests
from nbformat.v4 import new_code_cell, new_notebook
from playwright.sync_api import expect, sync_playwright

# Generous: it bounds a deadlock, it measures nothing.
PATIENCE_S = 60
CELLS = {
    "hello": "x = 6 * 7\nprint('hello', x)",
    "figure": "import matplotlib.pyplot as plt\nplt.figure(figsize=(2, 2)); plt.plot([1, 3, 2]);",
    "slider": "from ipywidgets import interact\n@interact(n=(0, 9))\ndef square(n=3): print('square', n * n)",
    "endless": "print('begun', flush=True)\nwhile True: pass",
    "known": "'x' in globals()",
    "slow": "import pathlib, time\nfor n in range(200):\n    print('line', n)\n    while n == 20 and not pathlib.Path('go').exists(): time.sleep(0.01)",
    "after": "n",
}


@pytest.fixture(scope="module")
def lab(url, token, tmp_path_factory):
    """A JupyterLab whose kernels are the server's; where it is, and the directory of its notebooks."""
    home = tmp_path_factory.mktemp("lab")
    notebooks = home / "notebooks"
    notebooks.mkdir()
    settings = home / "settings" / "@jupyterlab"
    for name, text in {
        # The whole notebook is in the page, also what is not to be seen.
        "notebook-extension/tracker": '{"windowingMode": "none"}',
        "apputils-extension/notification": '{"fetchNews": "false", "checkForUpdates": false}',
    }.items():
        path = settings / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    argv = [sys.executable, "-m", "jupyterlab", f"--gateway-url={url}", f"--GatewayClient.auth_token={token}"]
    argv += ["--no-browser", "--allow-root", "--expose-app-in-browser", "--ip=127.0.0.1", f"--port={port}"]
    argv += ["--ServerApp.port_retries=0", "--IdentityProvider.token=", f"--ServerApp.root_dir={notebooks}"]
    env = os.environ | {
        "HOME": str(home),
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
    }
    log = (home / "log").open("w+")
    server = subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        wait_for(f"http://127.0.0.1:{port}/api", server)
        yield f"http://127.0.0.1:{port}", notebooks
    finally:
        # Asked to stop it sometimes waits for itself while it ends its kernels, which go with our server anyway.
        server.kill()
        server.wait()


def wait_for(url, server):
    """Waits until a server answers."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except (urllib.error.URLError, TimeoutError):
            assert server.poll() is None, "JupyterLab did not start"
            assert time.monotonic() < deadline, "JupyterLab does not answer"
            time.sleep(0.1)


@pytest.fixture(scope="module")
def browser():
    """A browser without a window."""
    with sync_playwright() as playwright:
        found = filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"]))
        chromium = playwright.chromium.launch(executable_path=next(found), args=["--no-sandbox"])
        yield chromium
        chromium.close()


class Notebook:
    """A notebook that is open in JupyterLab, its cells by name."""

    def __init__(self, browser, lab):
        url, directory = lab
        nb = new_notebook(cells=[new_code_cell(source) for source in CELLS.values()])
        nb.metadata["kernelspec"] = {"name": "python3", "language": "python", "display_name": "Python 3"}
        nbformat.write(nb, directory / "test.ipynb")
        self.page = browser.new_page(viewport={"width": 1200, "height": 1600})
        self.page.set_default_timeout(1000 * PATIENCE_S)
        expect.set_options(timeout=1000 * PATIENCE_S)
        self.page.goto(f"{url}/lab/tree/test.ipynb")
        self.wait_for_kernel()
        self.wait_until("idle")

    def wait_for_kernel(self):
        """Waits until the page has a kernel, and the kernel nothing to do."""
        self.page.wait_for_function("window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel")
        self.page.evaluate("jupyterapp.restored.then(() => jupyterapp.shell.currentWidget.revealed)")
        self.page.evaluate("jupyterapp.shell.currentWidget.sessionContext.ready.then(() => null)")

    def kernel(self):
        """The kernel's id."""
        return self.page.evaluate("jupyterapp.shell.currentWidget.sessionContext.session.kernel.id")

    def wait_until(self, status):
        """Waits until the page shows the kernel idle, or busy."""
        expect(self.page.locator(".jp-Notebook-ExecutionIndicator").first).to_have_attribute(
            "data-status", status
        )

    def cell(self, name):
        """A cell."""
        return self.page.locator(".jp-Notebook .jp-CodeCell").nth(list(CELLS).index(name))

    def run(self, name):
        """Runs a cell, from the keyboard; returns where its output appears."""
        cell = self.cell(name)
        cell.locator(".cm-content").click()
        self.page.keyboard.press("Control+Enter")
        return cell.locator(".jp-Cell-outputArea")


@pytest.fixture(scope="module")
def notebook(browser, lab):
    """The notebook that all stories go on in, as one does."""
    return Notebook(browser, lab)


def test_cells_run_and_a_figure_is_shown(notebook):
    expect(notebook.run("hello")).to_contain_text("hello 42")
    expect(notebook.run("figure").locator("img")).to_be_visible()


def test_a_slider_that_is_moved_moves_the_output(notebook):
    output = notebook.run("slider")
    expect(output).to_contain_text("square 9")
    output.locator(".noUi-handle").focus()
    notebook.page.keyboard.press("ArrowRight")
    expect(output).to_contain_text("square 16")


def test_an_endless_cell_is_interrupted(notebook):
    output = notebook.run("endless")
    expect(output).to_contain_text("begun")
    notebook.page.evaluate("jupyterapp.commands.execute('notebook:interrupt-kernel').then(() => null)")
    expect(output).to_contain_text("KeyboardInterrupt")


def test_a_restart_forgets_the_variables(notebook):
    expect(notebook.run("known")).to_contain_text("True")
    notebook.page.evaluate(
        "() => { window.restarted = jupyterapp.commands.execute('notebook:restart-kernel'); }"
    )
    notebook.page.get_by_role("button", name="Confirm Kernel Restart").click()
    notebook.page.evaluate("window.restarted.then(() => null)")
    expect(notebook.run("known")).to_contain_text("False")


def test_a_page_that_is_loaded_again_while_a_cell_runs_finds_its_kernel_and_nothing_is_lost(
    notebook, url, token
):
    """JupyterLab itself shows a cell's output only to the page that has sent it; the log has all of it."""
    expect(notebook.run("slow")).to_contain_text("line 20")
    kernel = notebook.kernel()
    notebook.page.evaluate("jupyterapp.commands.execute('docmanager:save').then(() => null)")
    notebook.page.reload()
    notebook.wait_for_kernel()
    notebook.wait_until("busy")
    assert notebook.kernel() == kernel
    expect(notebook.cell("slow").locator(".jp-Cell-outputArea")).to_contain_text("line 20")
    session = f"{url}/v1/sessions/{kernel}"
    headers = {"Authorization": f"Bearer {token}"}
    requests.put(f"{session}/files/go", b"", headers=headers, timeout=PATIENCE_S).raise_for_status()
    notebook.wait_until("idle")
    expect(notebook.run("after")).to_contain_text("199")
    log = requests.get(f"{session}/events?after=0&limit=1000", headers=headers, timeout=PATIENCE_S).json()
    text = "".join(event["text"] for event in log["events"] if event["event"] == "stream")
    assert "".join(f"line {n}\n" for n in range(200)) in text
