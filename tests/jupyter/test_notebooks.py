"""Notebooks of many kinds, run by nbclient on a kernel behind the server and on ipykernel with the same libraries: their outputs are the same.

The notebooks are in `notebooks`, each file a kernel's worth: `# ===` begins a notebook and `# %%` a cell. What differs stands in `DIFFERENCES`, with the reason,
and in the documentation; nothing else may, and what stands there must.
"""

import difflib
import json
import re
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

HERE = Path(__file__).resolve().parent
GATEWAY = "jupyter_server.gateway.managers.GatewayKernelManager"

# The kernels' own interpreter, which finds ipykernel behind everything that it has itself.
LAUNCH = """\
import sys
sys.path = [*filter(None, sys.path), {site!r}]
from ipykernel.kernelapp import launch_new_instance
launch_new_instance()
"""

# The cells that differ, and why: notebook, and the cell's number in it.
DIFFERENCES = {
    "`!command` and `%cat` write into pipes, not a terminal: lines end in `\\n`, and standard error is `stderr`": """
        Shell 1, Shell 3, Shell 4, Shell 7, Files by magic 5, Environment and directories 10, Profiling and debugging 2""",
    "what would go to a pager is shown, since not every front end has one": """
        Files by magic 6, Inspection 2, Inspection 4""",
    "an error is an `error`, also that of a magic and a group; ipykernel writes text to standard error": """
        Magic that fails 1, Magic that fails 2, Inspection 6, Errors of every kind 12""",
    "the frame that an exception was caught in is shown where it failed, and with its variables in `%xmode Verbose`; IPython's short form, "
    "which ipykernel takes, shows where it was caught, and no variables; it names a comprehension by itself": """
        Errors of every kind 5, Errors of every kind 6, Async 4, Exception modes 6, Altair 3""",
    "the text of a refusal is our own: `SystemExit`, a failed `%%bash`, `input()` where nobody can answer": """
        Errors of every kind 17, Cells of other programs 4, Profiling and debugging 4, Profiling and debugging 8, Profiling and debugging 9""",
    "figures are inline from the start, so `%run` ends with a figure, as it does in ipykernel after `%matplotlib inline`": """
        Files by magic 4""",
    "`tqdm.auto` draws its bar as text, since not every front end has widgets; `tqdm.notebook` draws the widget": """
        Progress bars 2""",
}

# What is different in every run, and what it becomes.
CHANGING = [
    (r"(\b0|\.\.\.)x[0-9a-f]{6,}", "0x…"),
    (r"\d+(\.\d+)?(e\+\d+)? (ns|[µμ]s|ms|s|min)\b", "T"),
    (r"(?<=\| )\d+/\d+ \[.*?\]", "[…]"),
    # Ids that libraries draw by lot, and those that they count.
    (r"\b[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}\b|\b[0-9a-f]{32}\b", "ID"),
    (r"\bT_[0-9a-f]{5}|\bsk-(container|estimator)-id-\d+|\b[mp][0-9a-f]{10}\b", "ID"),
    (r"<dc:date>.*?</dc:date>", "DATE"),
    # Where the kernel and its libraries are.
    (r"/\S*?(?=/lib/python3)", "PREFIX"),
    (r"(/tmp/ipykernel_\d+/)?\b\d+\.py(?=:|\"?, line)|<ipython-input-[\w-]+>", "CELL"),
]
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# A line of source around the one that failed.
AROUND = re.compile(r"\s+(\d+( |$)|\(\.\.\.\))|-+> \d+ 'Could not get source")


def read(path):
    """The notebooks of a file: their title and their cells."""
    notebooks = []
    for text in re.split(r"^# === ", path.read_text(), flags=re.M)[1:]:
        title, *cells = re.split(r"\n# %%\n", text)
        notebooks.append((title.strip(), [cell.strip("\n") for cell in cells]))
    return notebooks


def execute(notebooks, **how):
    """Runs notebooks one after the other on one kernel; their outputs by title."""
    cells = [new_code_cell(source) for _, sources in notebooks for source in sources]
    nb = new_notebook(cells=cells)
    NotebookClient(nb, timeout=60, allow_errors=True, coalesce_streams=True, **how).execute()
    done = iter(nb.cells)
    return {title: [next(done) for _ in sources] for title, sources in notebooks}


def normal(cell, workspace):
    """What a cell has put out, without what is different in every run."""
    outputs = [shown(output) for output in cell.outputs]
    text = json.dumps([cell.execution_count, *outputs], indent=1, sort_keys=True, ensure_ascii=False)
    for pattern, become in [(re.escape(workspace), "WORKSPACE"), *CHANGING]:
        text = re.sub(pattern, become, text)
    return text


def shown(output):
    """An output; of a traceback its places and the lines that failed, without colours, indentation and the lines around them."""
    if output.output_type != "error":
        return output
    lines = COLOUR.sub("", "\n".join(output.traceback)).split("\n")
    kept = [" ".join(line.split()) for line in lines if line.strip() and not AROUND.match(line)]
    return {**output, "traceback": kept}


@pytest.fixture(scope="session")
def reference(tmp_path_factory):
    """The name under which ipykernel is found."""
    directory = tmp_path_factory.mktemp("jupyter")
    python = HERE.parents[1] / ".venv/bin/python"
    launch = LAUNCH.format(site=sysconfig.get_path("purelib"))
    spec = directory / "kernels" / "reference"
    spec.mkdir(parents=True)
    argv = [str(python), "-c", launch, "-f", "{connection_file}"]
    (spec / "kernel.json").write_text(
        json.dumps({"argv": argv, "display_name": "ipykernel", "language": "python"})
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PATH", str(directory))
        yield "reference"


@pytest.mark.parametrize("name", sorted(path.stem for path in HERE.glob("notebooks/*.ipy")))
def test_outputs_are_those_of_ipykernel(name, reference, with_token, tmp_path):
    notebooks = read(HERE / "notebooks" / f"{name}.ipy")
    with ThreadPoolExecutor() as pool:
        ours = pool.submit(execute, notebooks, kernel_manager_class=GATEWAY)
        theirs = pool.submit(
            execute, notebooks, kernel_name=reference, resources={"metadata": {"path": str(tmp_path)}}
        )
        ours, theirs = ours.result(), theirs.result()
    expected = {cell.strip() for cells in DIFFERENCES.values() for cell in cells.split(",")}
    unexpected = []
    for title, cells in ours.items():
        for number, (mine, other) in enumerate(zip(cells, theirs[title], strict=True), 1):
            cell, a, b = f"{title} {number}", normal(mine, "/workspace"), normal(other, str(tmp_path))
            if (a != b) != (cell in expected):
                lines = difflib.unified_diff(b.split("\n"), a.split("\n"), "ipykernel", "ours", lineterm="")
                unexpected.append("\n".join([f"{cell}:", mine.source, *lines, ""]))
    assert not unexpected, "\n".join(unexpected)


def test_what_differs_is_documented_and_there():
    cells = {
        f"{title} {number}"
        for path in HERE.glob("notebooks/*.ipy")
        for title, sources in read(path)
        for number in range(1, len(sources) + 1)
    }
    page = " ".join((HERE.parents[1] / "docs/jupyter.md").read_text().split())
    for reason, where in DIFFERENCES.items():
        assert {cell.strip() for cell in where.split(",")} <= cells
        assert reason in page
