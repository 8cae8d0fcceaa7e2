"""Cells: results, names, magics, input, awaiting, errors."""

import re
import sys

import agent
import pytest


def test_variables_live_on_and_the_count_goes_up(kernel):
    assert kernel.ok("x = 20")["execution_count"] == 1
    reply = kernel.ok("x + 1")
    assert reply["execution_count"] == 2
    assert kernel.messages("execute_result")[0]["execution_count"] == 2
    assert kernel.result("In[1], Out[2], _, _2, __name__") == "('x = 20', 21, 21, 21, '__main__')"


def test_a_silent_cell_leaves_no_trace_but_its_effects(kernel):
    reply = kernel.ok("y = 5; y", silent=True)
    assert kernel.messages() == []
    assert reply["execution_count"] == 0
    assert kernel.ok("y")["execution_count"] == 1
    assert kernel.result("In") == "['', 'y', 'In']"


def test_a_cell_without_history_is_not_counted(kernel):
    kernel.ok("1")
    assert kernel.ok("2", store_history=False)["execution_count"] == 1
    assert kernel.messages("execute_result")[0]["data"]["text/plain"] == "2"
    assert kernel.ok("3")["execution_count"] == 2


def test_who_asks_for_the_message_that_runs_is_told(kernel):
    client = {"connection": "c", "header": {"msg_id": "m1", "session": "s"}}
    ask = "get_ipython().kernel.get_parent()['header']['msg_id']"
    kernel.ok(ask, client=client)
    assert kernel.messages("execute_result")[0]["data"]["text/plain"] == "'m1'"
    # A cell that no Jupyter client has sent goes by its own name.
    kernel.ok(f"str({ask} == get_ipython().get_parent()['msg_id'] != 'm1')")
    assert kernel.messages("execute_result")[0]["data"]["text/plain"] == "'True'"


def test_what_a_cell_asks_of_its_editor_is_in_its_reply_once(kernel):
    reply = kernel.ok("get_ipython().set_next_input('x = 1')")
    assert [(part["source"], part["text"]) for part in reply["payload"]] == [("set_next_input", "x = 1")]
    assert kernel.ok("1")["payload"] == []


def test_a_semicolon_silences_the_result(kernel):
    kernel.ok("5;")
    assert kernel.messages() == []
    kernel.ok("';'")
    assert kernel.messages("execute_result")[0]["data"]["text/plain"] == "';'"


def test_user_expressions(kernel):
    reply = kernel.ok("a = 2", user_expressions={"twice": "a * 2", "bad": "a / 0"})["user_expressions"]
    assert reply["twice"] == {"status": "ok", "data": {"text/plain": "4"}, "metadata": {}}
    assert (reply["bad"]["status"], reply["bad"]["ename"]) == ("error", "ZeroDivisionError")


def test_an_error_has_its_coloured_traceback_in_message_and_reply(kernel):
    reply = kernel.run("def f():\n    return 1 / 0\n\nf()")
    [error] = kernel.messages("error")
    assert reply["error"] == {key: error[key] for key in ("ename", "evalue", "traceback")}
    text = "\n".join(error["traceback"])
    assert (error["ename"], error["evalue"]) == ("ZeroDivisionError", "division by zero")
    assert "\x1b[" in text
    assert "Cell" in text
    assert "IPython/core" not in text
    assert kernel.result("1") == "1"


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("a b", "SyntaxError"),
        ("  x = 1\n y = 2", "IndentationError"),
        # Python said it otherwise before 3.11.4.
        ("print('a'\x00)", "SyntaxError" if sys.version_info >= (3, 11, 4) else "ValueError"),
        ("nothing", "NameError"),
        ("%no_such_magic", "UsageError"),
        ("import no_such_module", "ModuleNotFoundError"),
        ("raise KeyboardInterrupt('mine')", "KeyboardInterrupt"),
        ("raise GeneratorExit", "GeneratorExit"),
        ("raise ExceptionGroup('several', [ValueError('one'), KeyError('two')])", "ExceptionGroup"),
        ("def f(): f()\nf()", "RecursionError"),
        ("await nothing", "NameError"),
        ("import asyncio; await asyncio.wait_for(asyncio.sleep(9), 0.001)", "TimeoutError"),
    ],
)
def test_what_goes_wrong_is_said_and_the_kernel_goes_on(kernel, code, name):
    reply = kernel.run(code)
    assert reply["error"]["ename"] == name, reply
    assert kernel.messages("error")
    assert kernel.result("1 + 1") == "2"


def test_an_error_in_a_library_shows_its_lines_and_the_users(kernel):
    reply = kernel.run("import pandas as pd\npd.DataFrame({'a': [1]})['b']")
    text = re.sub("\x1b[^m]*m", "", "\n".join(reply["error"]["traceback"]))
    assert "----> 2 pd.DataFrame({'a': [1]})['b']" in text
    assert "in DataFrame.__getitem__(self, key)" in text
    assert "self.columns.get_loc(key)" in text
    assert "The above exception was the direct cause" in text
    assert "Could not get source" not in text


def test_a_cause_that_was_never_raised_is_shown_as_well(kernel):
    error = kernel.run("raise ValueError('the error') from KeyError('the cause')")["error"]
    assert error["evalue"] == "the error"
    assert "the cause" in "".join(error["traceback"])


def test_an_endless_recursion_is_shown_in_short(kernel):
    reply = kernel.run("def f(n):\n    return f(n + 1)\nf(0)")
    assert reply["error"]["ename"] == "RecursionError"
    assert len(reply["error"]["traceback"]) < 200
    assert "in the middle are left out" in "\n".join(reply["error"]["traceback"])


def test_an_error_in_a_module_of_the_users_own(kernel, tmp_path):
    (tmp_path / "helper.py").write_text("def divide(a, b):\n    return a / b\n")
    reply = kernel.run(
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\nimport helper\nhelper.divide(1, 0)"
    )
    text = re.sub("\x1b[^m]*m", "", "\n".join(reply["error"]["traceback"]))
    assert "----> 2     return a / b" in text or "----> 2 return a / b" in text


def test_a_group_shows_what_is_in_it(kernel):
    reply = kernel.run("raise ExceptionGroup('several', [ValueError('one'), KeyError('two')])")
    text = "\n".join(reply["error"]["traceback"])
    assert "one" in text
    assert "two" in text
    assert "interactiveshell.py" not in text


@pytest.mark.parametrize("code", ["exit()", "quit", "import sys; sys.exit(3)", "raise SystemExit"])
def test_leaving_is_an_error_of_the_cell_and_the_kernel_stays(kernel, code):
    kernel.ok("kept = 1")
    reply = kernel.run(code + "\nprint('not reached')") if "quit" not in code else kernel.run(code)
    assert reply["error"]["ename"] == "SystemExit"
    assert "the session and its variables go on" in reply["error"]["traceback"][-1]
    assert kernel.text() == kernel.text("stderr") == ""
    assert kernel.result("kept") == "1"


@pytest.mark.parametrize(
    "body",
    [
        "def __str__(self): raise ValueError",
        "def __str__(self): return 7",
        "def _render_traceback_(self): raise ValueError",
        "def _render_traceback_(self): return 7",
        "def __getattr__(self, name): raise KeyError(name)",
        "args = property(lambda self: 1 / 0)",
    ],
)
def test_an_exception_that_cannot_be_described_is_still_one(kernel, body):
    reply = kernel.run(f"class Bad(Exception):\n    {body}\nraise Bad")
    assert reply["error"]["ename"] == "Bad"
    assert kernel.result("1") == "1"


def test_a_result_that_cannot_be_shown_is_an_error_on_stderr_or_traceback(kernel):
    kernel.run("class Bad:\n    def __repr__(self): raise ValueError('no text')\nBad()")
    assert "no text" in str(kernel.events)
    assert kernel.result("1") == "1"


def test_top_level_await(kernel):
    assert (
        kernel.result("import asyncio\nasync def f():\n    await asyncio.sleep(0)\n    return 5\nawait f()")
        == "5"
    )
    assert kernel.result("[x async for x in (lambda: (i for i in ()))()] if False else await f()") == "5"


def test_a_task_goes_on_between_cells(kernel):
    kernel.ok(
        "import asyncio\nasync def tick():\n    for i in range(3):\n        await asyncio.sleep(0.001); print('tick', i)\n"
        "task = asyncio.create_task(tick())"
    )
    kernel.wait(lambda: kernel.text() == "tick 0\ntick 1\ntick 2\n")
    assert kernel.result("task.done()") == "True"


def test_an_error_of_a_task_that_nobody_awaits_is_told(kernel):
    kernel.ok(
        "import asyncio\nasync def fail():\n    raise ValueError('unseen')\n"
        "asyncio.get_running_loop().call_soon(lambda: asyncio.ensure_future(fail()))"
    )
    kernel.events.clear()
    kernel.ok("import gc; gc.collect()")
    kernel.wait(lambda: kernel.messages("asynchronous_error"))
    assert kernel.messages("asynchronous_error")[0]["evalue"] == "unseen"


def test_a_task_that_leaves_does_not_take_the_kernel_with_it(kernel):
    kernel.ok("import asyncio\nasync def leave():\n    raise SystemExit\nt = asyncio.create_task(leave())")
    kernel.wait(lambda: kernel.messages("asynchronous_error"))
    assert kernel.result("1") == "1"


def test_magics(kernel):
    kernel.ok("%timeit -n 2 -r 2 1 + 1")
    assert "loops each" in kernel.text()
    kernel.ok("%%time\ntotal = sum(range(10))")
    assert "Wall time" in kernel.text()
    assert kernel.result("total") == "45"
    kernel.ok("%%bash\necho from bash; echo to stderr >&2")
    assert (kernel.text(), kernel.text("stderr")) == ("from bash\n", "to stderr\n")
    assert kernel.run("%%bash\nexit 3")["error"]["ename"] == "CalledProcessError"
    kernel.ok("%%bash --no-raise-error\nexit 3")
    kernel.ok("%%sh --out found\necho kept")
    assert kernel.result("found") == "'kept\\n'"
    assert kernel.run("%%script no-such-program\nx")["error"]["ename"] == "UsageError"
    assert kernel.result("import os; os.system('exit 3'), os.system('kill -9 $$')") == "(768, 9)"
    kernel.ok("files = !printf 'a\\nb\\n'")
    assert kernel.result("list(files)") == "['a', 'b']"
    kernel.ok("name = 'x y'\n!echo {name} $name; exit 3")
    assert kernel.text() == "x y x y\n"
    assert kernel.result("_exit_code") == "3"
    kernel.ok("%%capture out\nprint('hidden')")
    assert kernel.text() == ""
    assert kernel.result("out.stdout") == "'hidden\\n'"
    kernel.ok("%%writefile /dev/null\nhello")
    kernel.ok("%whos")


def test_help_is_shown_as_an_output(kernel):
    kernel.ok("len?")
    [shown] = kernel.messages("display_data")
    assert "number of items" in shown["data"]["text/plain"]


def test_pip_without_network_says_so_at_once(kernel):
    # The test runs where there may be a network; what the magic looks at is replaced.
    kernel.ok("import pykernel.system as s; s.has_network = lambda: False")
    kernel.ok("%pip install left-pad")
    assert "no network" in kernel.text("stderr")
    assert "%pip install ./name.whl" in kernel.text("stderr")
    kernel.ok("%pip --version")
    assert kernel.text().startswith("pip ")


def test_input_and_password(kernel):
    cell = kernel.start(
        "name = input('Name? '); import getpass; secret = getpass.getpass('Key: '); name, secret"
    )
    kernel.wait(lambda: kernel.messages("input_request"))
    [first] = kernel.messages("input_request")
    assert (first["prompt"], first["password"]) == ("Name? ", False)
    waiting = kernel.send("complete", code="le", cursor=2)
    kernel.send("input_reply", request=first["request"] + "00", value="not this one")
    kernel.send("input_reply", request=first["request"], value="Zoë")
    kernel.wait(lambda: len(kernel.messages("input_request")) == 2)
    second = kernel.messages("input_request")[1]
    assert second["password"] is True
    assert second["request"] != first["request"]
    kernel.send("input_reply", request=second["request"], value="s3")
    assert kernel.wait_reply(cell)["status"] == "ok"
    assert kernel.messages("execute_result")[0]["data"]["text/plain"] == "('Zoë', 's3')"
    assert kernel.wait_reply(waiting, "complete")["matches"]


def test_input_can_end_and_can_be_refused(kernel):
    cell = kernel.start("input()")
    kernel.wait(lambda: kernel.messages("input_request"))
    kernel.send("input_reply", request=kernel.messages("input_request")[0]["request"], eof=True)
    assert kernel.wait_reply(cell)["error"]["ename"] == "EOFError"
    assert kernel.run("input()", allow_stdin=False)["error"]["ename"] == "StdinNotImplementedError"
    assert kernel.result("import sys; sys.stdin.read()") == "''"


def test_requests_during_a_cell_wait_their_turn(kernel):
    ids = [kernel.start(f"print({n})") for n in range(20)]
    for identity in ids:
        assert kernel.wait_reply(identity)["status"] == "ok"
    assert kernel.text() == "".join(f"{n}\n" for n in range(20))


def test_classes_of_cells_can_be_pickled_and_go_to_forked_workers(kernel):
    kernel.ok(
        "import pickle, multiprocessing\nclass P:\n    def __init__(self, x): self.x = x\n"
        "def double(p): return p.x * 2\n"
        "copy = pickle.loads(pickle.dumps(P(4)))"
    )
    assert (
        kernel.result(
            "with multiprocessing.get_context('fork').Pool(2) as pool: r = pool.map(double, [P(1), P(2)])\nr"
        )
        == "[2, 4]"
    )


def test_a_forked_child_that_comes_back_is_not_a_second_kernel(kernel):
    kernel.ok("import os; pid = os.fork()")
    assert kernel.result("os.waitpid(pid, 0)[1]") == "0"


def test_ordinary_cells_start_no_thread(kernel):
    kernel.ok("%%bash\necho hi")
    kernel.ok(
        "import pandas as pd, matplotlib.pyplot as plt, os\ndf = pd.DataFrame({'g': list('aabb'), 'v': [1., 2, 3, 4]})"
    )
    kernel.ok("df.groupby('g').v.sum().plot(); plt.show(); df.describe(include='all')")
    kernel.run("1 / 0")
    kernel.call("complete", code="df.", cursor=3)
    assert kernel.result("len(os.listdir('/proc/self/task'))") == "1"


def test_plain_data_work_does_not_warn(kernel):
    kernel.ok("import pandas as pd, numpy as np\ndf = pd.DataFrame({'g': list('aabb'), 'v': [1., 2, 3, 4]})")
    kernel.ok("df.groupby('g').v.mean()\ndf.describe()")
    assert "text/html" in kernel.messages("execute_result")[0]["data"]
    kernel.ok(
        "from sklearn.datasets import load_iris; from sklearn.ensemble import HistGradientBoostingClassifier\n"
        "X, y = load_iris(return_X_y=True); m = HistGradientBoostingClassifier(max_iter=5).fit(X, y); m.score(X, y) > .9"
    )
    assert kernel.text("stderr") == ""


def test_text_that_json_cannot_carry(kernel):
    kernel.ok("print('\\udcff\\ud800'); from IPython.display import display\n"
              "display({'application/json': {'a': float('nan'), 'b': float('inf'), 3: (1, {2}), 'd': '\\ud800'}}, raw=True)")  # fmt: skip
    [shown] = kernel.messages("display_data")
    assert shown["data"]["application/json"] == {"a": None, "b": None, "3": [1, [2]], "d": "?"}


def test_modules_of_the_working_directory_can_be_imported(kernel, tmp_path):
    (tmp_path / "beside.py").write_text("here = 1\n")
    kernel.ok(f"import os; os.chdir({str(tmp_path)!r})")
    assert kernel.result("import beside; beside.here") == "1"


def test_a_closed_loop_is_replaced(kernel):
    kernel.ok("import asyncio; asyncio.get_event_loop().close()")
    assert kernel.result("await asyncio.sleep(0, 'slept')") == "'slept'"


def test_a_crash_says_where(kernel):
    kernel.start("def poke():\n    import ctypes; ctypes.string_at(0)\npoke()")
    with pytest.raises(agent.KernelEnded) as ended:
        kernel.wait(lambda: False)
    assert "Segmentation fault" in ended.value.args[0]
    assert "in poke" in ended.value.args[0]


def test_a_rehearsal_leaves_no_trace(kernel):
    said = len(kernel.events)
    assert kernel.call("rehearse")["id"]
    assert len(kernel.events) == said
    reply = kernel.ok("x = 1")
    assert reply["execution_count"] == 1
    assert [variable["name"] for variable in reply["variables"]["added"]] == ["x"]
    assert kernel.result("(len(In), list(Out), _)") == "(3, [], '')"
