"""A kernel that is lost goes on as its twin: with all it had before the cell, and as if nothing had been."""

import os
import select
import signal
import time

import pytest

from pykernel.checkpoint import FIRST_TRY, SHARE, Moment, Policy
from pykernel.hot import MOST, NEIGHBOURS, TURNS, HotPages

LOSSES = {
    "a segmentation fault": "import ctypes; ctypes.string_at(0)",
    "an exit": "import os; os._exit(3)",
    "an abort": "import os; os.abort()",
    "a kill": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
}


@pytest.mark.parametrize("loss", LOSSES)
def test_variables_survive(kernel, loss):
    kernel.ok("kept = [1, 2]; import numpy as np; array = np.arange(10)")
    restored = kernel.lost_by(f"kept.append('lost')\n{LOSSES[loss]}")
    assert restored.ready["restored"] is True
    assert restored.ready["execution_count"] == 1
    assert restored.result("kept, int(array.sum())") == "([1, 2], 45)"
    assert restored.result("len(In), sorted(Out)") == "(4, [2])"
    restored.close()


def test_twenty_losses_in_a_row(kernel):
    kernel.ok("kept = []; import os")
    open_before = kernel.result("len(os.listdir('/proc/self/fd'))")
    for n in range(20):
        kernel.ok(f"kept.append({n})")
        kernel = kernel.lost_by("kept.clear(); os._exit(1)")
    assert kernel.result("kept == list(range(20))") == "True"
    # No descriptor and no ring of an earlier kernel is held.
    assert kernel.result("len(os.listdir('/proc/self/fd'))") == open_before
    assert kernel.result("open('/proc/self/maps').read().count('memfd:')") == "1"
    kernel.close()


def test_a_twin_that_is_kept_is_woken_as_often_as_wanted(kernel):
    kernel.ok("import os, random; kept = [1]; random.seed(5)")
    held = kernel.hold()
    drawn = kernel.result("random.random(), kept, len(In)")
    groups = set()
    for _ in range(3):
        kernel.ok("kept.append(2)")
        if kernel.twin:
            kernel.twin.close()
        kernel.twin = held.copy()
        assert kernel.twin.pid != held.pid
        kernel.start("os._exit(1)")
        kernel.wait_end()
        kernel = kernel.restored()
        assert kernel.ready["execution_count"] == 1
        assert kernel.result("random.random(), kept, len(In)") == drawn
        # What is sent to its group is not for the twin that is kept.
        groups.add(os.getpgid(kernel.pid))
    assert os.getpgid(held.pid) not in groups
    held.close()
    kernel.close()


def test_the_random_stream_goes_on(kernel):
    draw = "random.random(), float(np.random.rand()), float(own.random())"
    kernel.ok("import random, numpy as np; own = np.random.default_rng(); random.seed(7); np.random.seed(7)")
    kernel.wait_twin()
    drawn = kernel.result(draw)
    kernel.ok("random.seed(7); np.random.seed(7)")
    restored = kernel.lost_by("import os; os._exit(1)")
    assert restored.result(draw).split(", ")[:2] == drawn.split(", ")[:2]
    # Beside a thread the fork is another one.
    restored.ok(
        "import threading; wait = threading.Event(); threading.Thread(target=wait.wait, name='mine').start()"
    )
    restored.ok("random.seed(7)")
    again = restored.lost_by("import os; os._exit(1)")
    assert again.result("random.random()") == drawn[1:].split(", ")[0]
    again.close()


def test_user_code_does_not_find_the_twin(kernel):
    kernel.ok("import os")
    kernel.wait_twin()
    assert kernel.run("os.wait()")["error"]["ename"] == "ChildProcessError"
    assert kernel.result("open(f'/proc/self/task/{os.getpid()}/children').read()") == "''"
    kernel.ok("import threading; wait = threading.Event(); threading.Thread(target=wait.wait).start()")
    kernel.wait_twin()
    assert kernel.run("os.wait()")["error"]["ename"] == "ChildProcessError"
    kernel.ok("wait.set()")


def test_what_is_sent_to_the_kernels_group_is_not_for_the_twin(kernel):
    kernel.ok("kept = 1; import os, signal")
    kernel.wait_twin()
    restored = kernel.lost_by("os.killpg(os.getpgrp(), signal.SIGKILL)")
    assert restored.result("kept") == "1"
    restored.close()


def test_a_signal_to_a_sleeping_twin_does_nothing(kernel):
    kernel.ok("kept = 1")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
        os.kill(kernel.wait_twin().pid, number)
    restored = kernel.lost_by("import os; os._exit(1)")
    assert restored.result("kept") == "1"
    cell = restored.start("print('go')\nwhile True: pass")
    restored.wait(lambda: restored.text() == "go\n")
    os.kill(restored.pid, signal.SIGINT)
    assert restored.wait_reply(cell)["error"]["ename"] == "KeyboardInterrupt"
    restored.close()


def test_openmp_works_after_a_rollback(kernel):
    fit = "HistGradientBoostingRegressor(max_iter=5).fit(x, y).score(x, y) > 0"
    kernel.ok("import os; os.environ['OMP_NUM_THREADS'] = '2'")
    kernel.ok("from sklearn.ensemble import HistGradientBoostingRegressor; import numpy as np")
    kernel.ok("x = np.random.rand(5000, 4); y = x.sum(axis=1)")
    assert kernel.result(fit) == "True"
    for _ in range(3):
        kernel = kernel.lost_by("os._exit(1)")
        assert kernel.result(fit) == "True"
    kernel.close()


def test_an_open_file_goes_on_where_it_was(kernel, tmp_path):
    kernel.ok(f"import os; out = open('{tmp_path}/lines', 'w+'); out.write('one\\n'); out.flush()")
    kernel.ok(f"unflushed = open('{tmp_path}/unflushed', 'w'); unflushed.write('a')")
    restored = kernel.lost_by("out.write('lost\\n'); out.flush(); unflushed.flush(); os._exit(1)")
    restored.ok("out.write('two\\n'); out.flush(); out.truncate(); unflushed.write('b'); unflushed.flush()")
    assert (tmp_path / "lines").read_text() == "one\ntwo\n"
    assert (tmp_path / "unflushed").read_text() == "ab"
    restored.close()


def test_a_background_task_goes_on(kernel):
    kernel.ok(
        "import asyncio, os, socket\n"
        "ticks = []\n"
        "async def tick():\n"
        "    while True:\n"
        "        ticks.append(1); await asyncio.sleep(0.01)\n"
        "ours, theirs = socket.socketpair()\n"
        "reader, writer = await asyncio.open_connection(sock=ours)\n"
        "task = asyncio.create_task(tick())"
    )
    restored = kernel.lost_by("writer.close(); task.cancel(); await asyncio.sleep(0); os._exit(1)")
    restored.ok("before = len(ticks); await asyncio.sleep(0.1); assert len(ticks) > before")
    # What the lost kernel has taken out of its epoll is still in this one's.
    assert restored.result("theirs.send(b'line\\n'); await reader.readline()") == "b'line\\n'"
    restored.close()


def test_the_figure_that_was_begun_is_there(kernel):
    kernel.ok(
        "%config InlineBackend.close_figures = False\nimport matplotlib.pyplot as plt; figure, axes = plt.subplots()"
    )
    restored = kernel.lost_by("plt.close('all'); import os; os._exit(1)")
    assert restored.result("plt.get_fignums(), axes in figure.axes") == "([1], True)"
    restored.ok("axes.plot([1, 2]); display(figure)")
    assert restored.messages("display_data")
    restored.close()


def test_threads_that_are_gone_are_named(kernel):
    kernel.ok(
        "import threading; wait = threading.Event(); threading.Thread(target=wait.wait, name='reader').start()"
    )
    kernel.wait_twin()
    kernel.start("import os; os._exit(1)")
    kernel.wait_end()
    restored = kernel.restored()
    assert restored.result("threading.active_count()") == "1"
    restored.close()


def score(pid):
    with open(f"/proc/{pid}/oom_score_adj") as file:
        return int(file.read())


def test_the_twin_gives_way_last(zygote):
    kernel = zygote.spawn({"oom_score_adj": 500})
    kernel.ok("kept = 1")
    assert [score(kernel.pid), score(kernel.wait_twin().pid)] == [1000, 100]
    kernel.close()


def test_a_twin_that_is_let_go_ends(kernel):
    kernel.ok("1")
    process = os.pidfd_open(kernel.wait_twin().pid)
    kernel.ok("2")
    kernel.wait_twin()
    poll = select.poll()
    poll.register(process, select.POLLIN)
    assert poll.poll(10_000)
    os.close(process)


def test_a_burst_of_cells_is_let_go_by(kernel):
    kernel.ok("1")
    kernel.wait_twin()
    twin = kernel.twin.after
    reasons = [kernel.ok("1 + 1")["unprotected"] for _ in range(100)]
    assert "burst" in reasons
    assert kernel.twin.after == twin


def test_the_pages_that_any_cell_writes_to_are_copied_while_nobody_waits(kernel):
    kernel.ok(
        "import resource, time\ndef faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt"
    )
    before, after = [], []
    for found in (before, after):
        for _ in range(4):
            kernel.wait_twin()
            time.sleep(0.02)
            kernel.ok("count = faults()")
            found.append(int(kernel.result("faults() - count")))
    assert min(after) < 600


def test_nothing_is_protected_where_that_is_switched_off(kernel):
    kernel.call("configure", env={"EVERCELL_CHECKPOINTS": "off"}, seed=None)
    kernel.ok("1")
    assert kernel.ok("2")["unprotected"] == "off"


def test_what_there_is_ends_where_it_is_switched_off(kernel):
    kernel.ok("1")
    process = os.pidfd_open(kernel.wait_twin().pid)
    kernel.call("configure", env={"EVERCELL_CHECKPOINTS": "off"}, seed=None)
    kernel.ok("2")
    poll = select.poll()
    poll.register(process, select.POLLIN)
    assert poll.poll(10_000)
    os.close(process)


def test_a_rehearsed_kernel_has_its_twin_before_it_rehearses(kernel):
    kernel.ok("1")
    kernel.wait_twin().close()
    kernel.twin = None
    kernel.call("rehearse")
    restored = kernel.lost_by("import os; os._exit(1)")
    assert restored.result("1 + 1") == "2"
    restored.close()


# --- the policy --------------------------------------------------------------------------------------------------------


def test_thought_is_always_used():
    policy = Policy()
    for _ in range(100):
        policy.ran(0.001)
        policy.copied(0.02)
        assert policy.refusal(Moment.THINKS) is None
        policy.made(0.005)


@pytest.mark.parametrize(("moment", "cost_s"), [(Moment.WAITS, 0.008), (Moment.PAUSES, 0.006)])
def test_cells_pay_a_twenty_fifth_where_nobody_thinks(moment, cost_s):
    policy = Policy()
    policy.made(0.002)
    made = 0
    for _ in range(1000):
        policy.ran(0.001)
        policy.copied(0.006)
        if policy.refusal(moment) is None:
            policy.made(0.002)
            made += 1
    assert made == int(SHARE * 1 / cost_s + 1e-9)


def test_what_nobody_feels_is_taken_in_any_pause():
    policy = Policy()
    for _ in range(100):
        policy.ran(0.001)
        policy.copied(0.0009)
        assert policy.refusal(Moment.PAUSES) is None
        policy.made(0.005)


def test_time_spent_waiting_for_a_processor_pays_for_nothing():
    policy = Policy()
    policy.made(0.005)
    policy.ran(1.0)
    policy.waited(0.99)
    assert policy.refusal(Moment.WAITS) == "burst"
    policy.waited(0.5)
    assert policy.refusal(Moment.WAITS) is None


def test_cells_that_rewrite_everything_are_let_go_by_and_tried_again_less_and_less():
    policy = Policy()
    policy.made(0.005)
    forks = paid = 0
    for _ in range(4000):
        # The first cell beside a new twin copies, those after it have pages of their own.
        copies = 3.0 if policy.cells == 0 else 0.0
        paid += copies
        policy.ran(0.5 + copies)
        policy.copied(3.0)
        if policy.refusal(Moment.THINKS) is None:
            policy.made(0.005)
            forks += 1
    assert 20 < forks < 40
    assert paid / 2000 < 0.06


def test_cells_that_change_are_protected_again_at_once():
    policy = Policy()
    policy.made(0.005)
    for _ in range(FIRST_TRY):
        assert policy.refusal(Moment.THINKS) in (None, "costly")
        policy.ran(0.1)
        policy.copied(3.0)
    assert policy.refusal(Moment.THINKS) is None
    policy.made(0.005)
    policy.ran(0.1)
    policy.copied(0.0001)
    assert policy.refusal(Moment.THINKS) is None


# --- pages that cells write to -----------------------------------------------------------------------------------------


def taught(hot, pages, turns=1):
    """What is copied ahead after turns in which cells have written to pages of one area, as a set."""
    for _ in range(turns):
        ahead = copied(hot)
        flags = bytearray(MOST + 1)
        for page in pages | ahead:
            flags[page] = 1
        hot.learn({0: bytes(flags)})
    return copied(hot)


def copied(hot):
    return {page for first, count in hot.ahead() for page in range(first, first + count)}


def test_pages_that_are_written_to_again_are_copied_ahead():
    hot = HotPages()
    assert taught(hot, {3, 5, 6}) == set()
    assert taught(hot, {5, 6, 9}) == {5, 6}
    assert taught(hot, {9}) == {5, 6, 9}


def test_pages_that_are_no_longer_written_to_are_forgotten():
    hot = HotPages()
    pages = set(range(TURNS * NEIGHBOURS))
    assert len(taught(hot, pages, 2)) == len(pages) - NEIGHBOURS
    assert taught(hot, set(), TURNS) == set()


def test_pages_copied_ahead_are_bounded():
    hot = HotPages()
    assert taught(hot, set(range(MOST + 1)), 2) == set()
    assert len(taught(hot, set(range(MOST)), 2)) == MOST - MOST // TURNS
    # Nothing of an area that is gone.
    hot.learn({7: b"\0"})
    assert copied(hot) == set()
