"""Every request has one reply of its form, and what cannot be served is refused without changing anything.

That every message of every test has its form is checked where they arrive, in `agent.py`.
"""

import json
import os
import re
import select

import pytest


def test_ready_names_the_process_and_what_it_has_loaded(kernel):
    assert kernel.ready["python"].startswith("3.")
    assert {"pandas", "numpy", "matplotlib.pyplot", "sklearn.ensemble"} <= set(kernel.ready["preload"])
    assert kernel.ready["pid"] == kernel.pid


def test_the_collector_works_though_it_rested_while_the_kernel_was_made(kernel):
    reply = kernel.ok(
        "import gc", user_expressions={"on": "gc.isenabled()", "frozen": "gc.get_freeze_count() > 0"}
    )
    answers = reply["user_expressions"]
    assert [answers[name]["data"]["text/plain"] for name in ("on", "frozen")] == ["True", "True"]


def test_a_result_is_checked_field_by_field(kernel):
    reply = kernel.ok("6 * 7", cell="the cell")
    assert kernel.messages() == [
        {
            "type": "execute_result",
            "cell": "the cell",
            "execution_count": 1,
            "data": {"text/plain": "42"},
            "metadata": {},
        }
    ]
    assert reply["execution_count"] == 1


def test_completion(kernel):
    kernel.ok("apple_pie = 1; apple_juice = 2")
    reply = kernel.call("complete", code="x = apple_", cursor=10)
    assert [match["text"] for match in reply["matches"]] == ["apple_juice", "apple_pie"]
    assert (reply["start"], reply["end"]) == (4, 10)


def test_completion_counts_code_points(kernel):
    kernel.ok("pear_tree = 1")
    code = "'🍐中'; pear_"
    reply = kernel.call("complete", code=code, cursor=len(code))
    assert reply["matches"][0]["text"] == "pear_tree"
    assert code[reply["start"] : reply["end"]] == "pear_"


def test_completion_of_attributes_files_and_magics(kernel, tmp_path):
    kernel.ok(f"import os, pandas as pd; os.chdir({str(tmp_path)!r}); open('data_file.csv', 'w').close()")
    assert "DataFrame" in texts(kernel, "pd.DataFr")
    assert "DataFrame" in texts(kernel, "import pandas\nfrom pandas import DataFr")
    assert any("data_file.csv" in text for text in texts(kernel, "open('data_f"))
    assert "%timeit" in texts(kernel, "%time")


def texts(kernel, code):
    return [match["text"] for match in kernel.call("complete", code=code, cursor=len(code))["matches"]]


def test_a_lookup_that_hangs_is_given_up(kernel):
    kernel.ok("import time\ndef hang(*_):\n    while True: time.sleep(0.01)\n"
              "class Slow:\n    _ipython_key_completions_ = __dir__ = __getattr__ = hang\nslow = Slow()")  # fmt: skip
    kernel.call("complete", code="slow['", cursor=6)
    reply = kernel.call("inspect", code="slow.x", cursor=6, detail=0)
    assert reply.get("found") is False or reply["error"]["code"] == "timeout"
    assert kernel.result("1 + 1") == "2"


def test_inspection(kernel):
    kernel.ok("def area(width, height):\n    'The area of a rectangle.'\n    return width * height")
    reply = kernel.call("inspect", code="area(1, 2)", cursor=2, detail=0)
    assert reply["found"]
    assert "The area of a rectangle." in reply["data"]["text/plain"]
    source = kernel.call("inspect", code="area", cursor=4, detail=1)["data"]["text/plain"]
    assert "return width * height" in re.sub("\x1b[^m]*m", "", source)
    assert kernel.call("inspect", code="nothing_here", cursor=4, detail=0) == {
        "id": 4,
        "found": False,
        "data": {},
    }


@pytest.mark.parametrize(
    ("code", "status", "indent"),
    [
        ("x = 1", "complete", ""),
        ("for i in x:", "incomplete", "    "),
        ("a b", "invalid", ""),
        ("(", "incomplete", ""),
    ],
)
def test_is_complete(kernel, code, status, indent):
    reply = kernel.call("is_complete", code=code)
    assert (reply["status"], reply["indent"]) == (status, indent)


@pytest.mark.parametrize(
    ("request_fields", "code"),
    [
        ({"op": "fly"}, "unknown_op"),
        ({"op": None}, "unknown_op"),
        ({"op": ["execute"]}, "unknown_op"),
        ({"op": "execute"}, "bad_request"),
        ({"op": "execute", "code": 7}, "bad_request"),
        ({"op": "execute", "code": "1", "user_expressions": [1]}, "bad_request"),
        ({"op": "complete", "code": "x", "cursor": -1}, "bad_request"),
        ({"op": "complete", "code": "x", "cursor": True}, "bad_request"),
        ({"op": "inspect", "code": "x"}, "bad_request"),
        ({"op": "configure", "env": {"a": 1}}, "bad_request"),
        ({"op": "configure", "env": {"a=b": "1"}}, "bad_request"),
        ({"op": "configure", "env": {"a": "\0"}}, "bad_request"),
        ({"op": "configure", "seed": -1}, "bad_request"),
        ({"op": "comm_msg", "comm_id": "x", "data": {}}, "unknown_comm"),
        ({"op": "comm_open", "comm_id": "x", "target_name": "t", "data": {}}, "unknown_comm"),
    ],
)
def test_a_request_that_cannot_be_served_is_refused(kernel, request_fields, code):
    kernel.send_raw(json.dumps({"id": 77, **request_fields}).encode())
    kernel.wait(lambda: 77 in kernel.replies)
    assert kernel.replies.pop(77)["error"]["code"] == code
    assert kernel.result("In[-1], len(Out)") == "('In[-1], len(Out)', 0)"


def test_what_is_no_request_is_skipped(kernel):
    for data in (b"", b"{", b"[1]", b"\xff\xfe", b"null", b"[" * 100_000):
        kernel.send_raw(data)
    assert kernel.result("1") == "1"


def test_a_late_input_reply_is_skipped(kernel):
    kernel.send("input_reply", request=9, value="late")
    assert kernel.result("1") == "1"


def test_configure_sets_the_environment_and_the_seed(kernel, zygote):
    kernel.call("configure", env={"MY_TOKEN": "ünï"}, seed=None)
    assert kernel.result("import os; os.environ['MY_TOKEN']") == "'ünï'"
    drawn = []
    for _ in range(2):
        other = zygote.spawn()
        other.call("configure", env={}, seed=7)
        drawn.append(other.result("import random, numpy as np; random.random(), np.random.rand()"))
        other.close()
    assert drawn[0] == drawn[1]


def test_shutdown_runs_what_was_left_for_the_exit(kernel, tmp_path):
    mark = tmp_path / "mark"
    kernel.ok(f"import atexit; atexit.register(lambda: open({str(mark)!r}, 'w').close())")
    assert kernel.call("shutdown") == {"id": 2}
    assert gone(kernel)
    assert mark.exists()


def test_the_kernel_ends_when_the_agent_hangs_up(zygote):
    kernel = zygote.spawn()
    pidfd = os.pidfd_open(kernel.pid)
    kernel.close()
    assert ended(pidfd)


def test_the_kernel_ends_when_the_agent_hangs_up_during_input(zygote):
    kernel = zygote.spawn()
    pidfd = os.pidfd_open(kernel.pid)
    kernel.start("try:\n    input()\nexcept BaseException:\n    while True: pass")
    kernel.wait(lambda: kernel.messages("input_request"))
    kernel.close()
    assert ended(pidfd)


def ended(pidfd):
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    try:
        return bool(poll.poll(10_000))
    finally:
        os.close(pidfd)


def gone(kernel):
    try:
        pidfd = os.pidfd_open(kernel.pid)
    except ProcessLookupError:
        return True
    return ended(pidfd)


def test_comms_go_both_ways_with_buffers(kernel):
    kernel.ok(
        "import comm\n"
        "def target(c, message):\n"
        "    global opened; opened = c\n"
        "    c.on_msg(lambda m: c.send({'echo': m['content']['data']}, {'meta': 1}, [bytes(b) for b in m['buffers']]))\n"
        "    c.send({'hello': message['content']['data']})\n"
        "comm.get_comm_manager().register_target('echo', target)"
    )
    kernel.events.clear()
    kernel.call("comm_open", comm_id="one", target_name="echo", data={"a": 1}, metadata={}, buffers=[])
    assert kernel.messages("comm_msg")[0]["data"] == {"hello": {"a": 1}}
    kernel.events.clear()
    kernel.call("comm_msg", comm_id="one", data={"b": 2}, buffers=["AAEC", "Aw=="])
    [echo] = kernel.messages("comm_msg")
    assert echo["raw"] == [b"\0\1\2", b"\3"]
    assert (echo["data"], echo["metadata"], echo["comm_id"]) == ({"echo": {"b": 2}}, {"meta": 1}, "one")
    assert kernel.call("comm_info")["comms"] == {"one": "echo"}
    kernel.call("comm_close", comm_id="one", data={})
    assert kernel.call("comm_info")["comms"] == {}


def test_a_comm_handler_that_raises_is_shown_and_costs_nothing_else(kernel):
    kernel.ok("import comm; comm.get_comm_manager().register_target('bad', lambda c, m: 1 / 0)")
    kernel.events.clear()
    kernel.call("comm_open", comm_id="x", target_name="bad", data={})
    assert kernel.messages("asynchronous_error")[0]["ename"] == "ZeroDivisionError"
    assert kernel.result("1") == "1"


def test_input_outside_of_a_cell_is_refused_and_never_waits(kernel):
    kernel.ok(
        "import asyncio, comm\n"
        "def target(c, message): input('from a comm')\n"
        "comm.get_comm_manager().register_target('asks', target)\n"
        "async def late():\n"
        "    await asyncio.sleep(0)\n"
        "    try: input('from a task')\n"
        "    except Exception as error: print(type(error).__name__)\n"
        "task = asyncio.get_running_loop().create_task(late())",
        allow_stdin=True,
    )
    kernel.wait(lambda: kernel.text() == "StdinNotImplementedError\n")
    kernel.call("comm_open", comm_id="x", target_name="asks", data={})
    assert kernel.messages("asynchronous_error")[-1]["ename"] == "StdinNotImplementedError"
    assert not kernel.messages("input_request")


def test_widgets_open_comms_and_hear_of_changes(kernel):
    kernel.ok(
        "import ipywidgets as w; s = w.IntSlider(value=3); seen = []; s.observe(lambda c: seen.append(c.new), 'value'); s"
    )
    opened = {m["comm_id"]: m for m in kernel.messages("comm_open")}
    assert {m["target_name"] for m in opened.values()} == {"jupyter.widget"}
    [shown] = kernel.messages("execute_result")
    model = shown["data"]["application/vnd.jupyter.widget-view+json"]["model_id"]
    assert opened[model]["data"]["state"]["value"] == 3
    kernel.call(
        "comm_msg", comm_id=model, data={"method": "update", "state": {"value": 8}, "buffer_paths": []}
    )
    assert kernel.result("s.value, seen") == "(8, [8])"


def test_an_output_widget_catches_what_a_change_causes_between_cells(kernel):
    kernel.ok(
        "import ipywidgets as w; out = w.Output(); s = w.IntSlider()\n"
        "@out.capture()\ndef show(change): print('now', change.new)\ns.observe(show, 'value')"
    )
    model = kernel.result("s.comm.comm_id").strip("'")
    kernel.events.clear()
    change = {"method": "update", "state": {"value": 8}, "buffer_paths": []}
    kernel.call("comm_msg", comm_id=model, data=change)
    states = [message["data"].get("state", {}) for message in kernel.messages("comm_msg")]
    begins, ends = [state["msg_id"] for state in states if "msg_id" in state]
    assert (begins != "", ends) == (True, "")
