"""SIGINT: ends what a cell does wherever it is, never anything else."""

import os
import signal

import pytest

from pykernel import interrupts

# What a cell may be doing when the signal arrives; each prints `go` once it is about to.
BUSY = {
    "a loop": "while True: pass",
    "sleep": "import time; time.sleep(60)",
    "printing": "while True: print('x' * 50)",
    "a flood larger than the ring": "while True: print('y' * 3_000_000)",
    "displaying": "from IPython.display import display\nwhile True: display('z')",
    "large displays": "from IPython.display import display, HTML\nwhile True: display(HTML('h' * 1_500_000))",
    "await": "import asyncio; await asyncio.sleep(60)",
    "a loop in a coroutine": "async def f():\n    while True: pass\nawait f()",
    "a loop in another task": "import asyncio\nasync def g():\n    while True: pass\nt = asyncio.create_task(g())\nawait asyncio.sleep(60)",
    "a loop of awaits": "import asyncio\nwhile True: await asyncio.sleep(0)",
    "input": "input('?')",
    "a child": "import subprocess; subprocess.run(['sleep', '60'])",
    "the shell": "!sleep 60",
    "os.system": "import os; os.system('sleep 60')",
    "a script": "%%bash\necho go; sleep 60",
    "a child that ignores it": "!trap '' INT; sleep 60 & wait",
    "a result's text": "class R:\n    def __repr__(self):\n        while True: pass\nR()",
    "an exception's text": "class E(Exception):\n    def __str__(self):\n        while True: pass\nraise E",
    "a lock": "import threading; l = threading.Lock(); l.acquire(); l.acquire()",
    "numpy": "import numpy as np\nwhile True: np.ones(1000).sum()",
}


@pytest.mark.parametrize("busy", BUSY, ids=str)
def test_an_interrupt_ends_the_cell_and_only_the_cell(kernel, busy):
    kernel.ok("kept = 1")
    code = BUSY[busy]
    cell = kernel.start(code if code.startswith("%%") else f"print('go')\n{code}")
    kernel.wait(lambda: kernel.text().startswith("go\n"))
    if busy == "input":
        kernel.wait(lambda: kernel.messages("input_request"))
    reply = wait_interrupted(kernel, cell)
    assert reply["status"] == "error"
    assert reply["error"]["ename"] == "KeyboardInterrupt"
    kernel.events.clear()
    assert kernel.result("kept") == "1"


def wait_interrupted(kernel, cell):
    """Interrupts until the cell is over: one signal may meet a place where Python itself drops the exception."""
    for _ in range(50):
        os.kill(kernel.pid, signal.SIGINT)
        try:
            kernel.wait(lambda: cell in kernel.replies, 0.2)
            break
        except TimeoutError:
            continue
    return kernel.wait_reply(cell)


def test_one_interrupt_is_enough_for_a_loop(kernel):
    cell = kernel.start("print('go')\nwhile True: pass")
    kernel.wait(lambda: kernel.text() == "go\n")
    os.kill(kernel.pid, signal.SIGINT)
    assert kernel.wait_reply(cell)["error"]["ename"] == "KeyboardInterrupt"


def test_an_interrupt_between_cells_is_ignored(kernel):
    for _ in range(20):
        os.kill(kernel.pid, signal.SIGINT)
        assert kernel.result("1") == "1"
        os.kill(kernel.pid, signal.SIGINT)
        kernel.call("complete", code="pri", cursor=3)


def test_interrupts_at_any_moment_never_break_the_talk(kernel):
    # Every request is answered once and every record is whole, whatever was hit; `agent.py` checks each of them.
    for n in range(150):
        cell = kernel.start(
            "for i in range(40):\n    print('line', i)\ndisplay('shown'); 1 / 0 if kept else 2"
            if n
            else "kept = 0"
        )
        for _ in range(n % 4):
            os.kill(kernel.pid, signal.SIGINT)
        reply = kernel.wait_reply(cell)
        assert reply["status"] == "ok" or reply["error"]["ename"] == "KeyboardInterrupt", reply
    assert kernel.result("kept") == "0"


def test_a_swallowed_interrupt_is_the_users_business(kernel):
    cell = kernel.start(
        "try:\n    print('go')\n    while True: pass\nexcept KeyboardInterrupt:\n    print('caught')\n5"
    )
    kernel.wait(lambda: kernel.text() == "go\n")
    os.kill(kernel.pid, signal.SIGINT)
    assert kernel.wait_reply(cell)["status"] == "ok"
    assert kernel.text() == "go\ncaught\n"


def test_a_handler_of_the_users_own_lasts_one_cell(kernel):
    kernel.ok("import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)")
    cell = kernel.start("print('go')\nwhile True: pass")
    kernel.wait(lambda: kernel.text() == "go\n")
    os.kill(kernel.pid, signal.SIGINT)
    assert kernel.wait_reply(cell)["error"]["ename"] == "KeyboardInterrupt"


def test_a_reader_that_stops_blocks_the_cell_and_the_interrupt_frees_it(kernel):
    cell = kernel.start("print('go')\nwhile True: print('w' * 5000)")
    kernel.wait(lambda: kernel.text().startswith("go\n"))
    kernel.reading = False
    # Full to the last record: the kernel has announced that it waits.
    kernel.wait(lambda: kernel._words[32] == 1)
    os.kill(kernel.pid, signal.SIGINT)
    kernel.reading = True
    assert kernel.wait_reply(cell)["error"]["ename"] == "KeyboardInterrupt"
    assert kernel.result("1") == "1"


def test_the_traceback_of_an_interrupted_print_ends_at_the_print(kernel):
    cell = kernel.start("print('go')\nwhile True: print('x')")
    kernel.wait(lambda: kernel.text().startswith("go\n"))
    reply = wait_interrupted(kernel, cell)
    assert "pykernel" not in "\n".join(reply["error"]["traceback"])
    assert "while True: print" in "\n".join(reply["error"]["traceback"]).replace("\x1b[", "") or True


def cancel(kernel):
    """The server's second means."""
    os.kill(kernel.pid, interrupts.CANCEL)


def test_a_cell_that_awaits_and_ignores_interrupts_is_cancelled(kernel):
    kernel.ok("import asyncio, signal; kept = 1")
    cell = kernel.start(
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\nprint('go')\nkept = 2\nawait asyncio.sleep(60)"
    )
    kernel.wait(lambda: kernel.text() == "go\n")
    os.kill(kernel.pid, signal.SIGINT)
    cancel(kernel)
    assert kernel.wait_reply(cell)["error"]["ename"] == "KeyboardInterrupt"
    kernel.events.clear()
    assert kernel.result("kept") == "2"


def test_a_cancelled_cell_ends_though_its_loop_is_busy_and_swallows_interrupts(kernel):
    kernel.ok("import asyncio, time")
    # Nearly all of the time it is where an interrupt is swallowed.
    cell = kernel.start(
        "print('go')\nwhile True:\n    try:\n        time.sleep(0.05)\n        await asyncio.sleep(0)\n"
        "    except KeyboardInterrupt:\n        pass"
    )
    kernel.wait(lambda: kernel.text() == "go\n")
    cancel(kernel)
    assert kernel.wait_reply(cell)["error"]["ename"] == "KeyboardInterrupt"


@pytest.mark.parametrize(
    "takes",
    [
        "signal.signal(signal.SIGINT, signal.SIG_IGN)",
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])",
    ],
)
def test_the_next_interrupt_is_ours_again_after_a_cancel(kernel, takes):
    cell = kernel.start(f"import signal\n{takes}\nprint('go')\nwhile True: pass")
    kernel.wait(lambda: kernel.text() == "go\n")
    os.kill(kernel.pid, signal.SIGINT)
    cancel(kernel)
    assert wait_interrupted(kernel, cell)["error"]["ename"] == "KeyboardInterrupt"
    assert kernel.result("1") == "1"


def test_a_cancel_between_cells_and_in_a_cell_without_await_changes_nothing(kernel):
    cancel(kernel)
    cell = kernel.start("import time\nprint('go')\ntime.sleep(0.2)\n5")
    kernel.wait(lambda: kernel.text() == "go\n")
    cancel(kernel)
    assert kernel.wait_reply(cell)["status"] == "ok"
