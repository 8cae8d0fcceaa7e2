"""Text: in order with everything else, whole, at once, whoever writes it."""

import os
import signal

import pytest

C_PRINTF = "import ctypes; libc = ctypes.CDLL(None); "


def test_text_is_there_as_it_is_printed(kernel):
    cell = kernel.start("import time\nprint('first', end='')\nwhile True: time.sleep(0.001)")
    kernel.wait(lambda: kernel.text() == "first")
    os.kill(kernel.pid, signal.SIGINT)
    kernel.wait_reply(cell)


def test_two_streams_keep_their_order(kernel):
    kernel.ok("import sys\nfor i in range(3):\n    print('out', i)\n    print('err', i, file=sys.stderr)")
    assert kernel.order() == [
        f"{stream} {stream[3:]} {i}\n" for i in range(3) for stream in ("stdout", "stderr")
    ]


def test_python_c_code_children_and_figures_keep_their_order(kernel):
    kernel.ok(
        C_PRINTF + "import os, subprocess, matplotlib.pyplot as plt\n"
        "for i in range(5):\n"
        "    print('python', i)\n"
        "    libc.printf(b'c %d\\n', i)\n"
        "    os.system(f'echo system {i}')\n"
        "    plt.plot([i]); plt.show()\n"
        "    subprocess.run(['echo', 'run', str(i)])\n"
        "    os.write(1, b'descriptor\\n')\n"
    )
    texts = kernel.order()
    assert texts[0::2] == [
        ("stdout " if i == 0 else f"stdout run {i - 1}\ndescriptor\n") + f"python {i}\nc {i}\nsystem {i}\n"
        for i in range(5)
    ] + ["stdout run 4\ndescriptor\n"]
    assert texts[1::2] == ["display_data"] * 5


def test_what_c_code_has_not_ended_with_a_newline_comes_at_the_end_of_the_cell(kernel):
    kernel.ok(C_PRINTF + "libc.printf(b'no newline')")
    kernel.wait(lambda: kernel.text() == "no newline")


def test_a_flood_of_lines_arrives_whole(kernel):
    kernel.ok("for i in range(200_000): print(i)")
    assert kernel.text() == "".join(f"{i}\n" for i in range(200_000))


def test_a_hundred_megabytes_need_no_memory_of_their_own(kernel):
    kernel.ok(
        "import resource\ntext = 'é' + 'x' * 100_000_000\nbefore = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss"
    )
    kernel.ok("import sys; written = sys.stdout.write(text)")
    assert sum(len(event[1]) for event in kernel.events) == 100_000_001
    grown = int(kernel.result("resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before"))
    assert grown < 20_000
    assert kernel.result("written") == "100000001"


def test_text_of_every_length_around_the_wrap(zygote):
    kernel = zygote.spawn()
    kernel.ok("import sys\nfor n in range(0, 70_000, 97): sys.stdout.write(chr(97 + n % 26) * n)")
    assert kernel.text() == "".join(chr(97 + n % 26) * n for n in range(0, 70_000, 97))
    kernel.close()


@pytest.mark.parametrize("text", ["中文 日本語 한국어", "a\0b", "\x1b[31mred", "𝔘", "\ufeff", "é" * 70_000])
def test_text_of_all_kinds(kernel, text):
    kernel.ok(f"print({text!r}, end='')")
    assert kernel.text() == text


def test_bytes_and_what_is_not_text(kernel):
    kernel.ok("import sys; sys.stdout.buffer.write(b'\\xff\\xfe'); print('\\udc80', end='')")
    assert kernel.text() == "\udcff\udcfe\udc80"
    kernel.ok("print('\\ud800', end='')")
    assert kernel.text() == "\\ud800"
    assert (
        kernel.run("sys.stdout.write(b'bytes')")["error"]["evalue"]
        == "write() argument must be str, not bytes"
    )
    assert kernel.run("sys.stdout.write(7)")["error"]["ename"] == "TypeError"


def test_the_streams_are_what_libraries_expect(kernel):
    kernel.ok(
        "import sys, io, contextlib\n"
        "assert isinstance(sys.stdout, io.TextIOBase) and sys.stdout.writable() and not sys.stdout.isatty()\n"
        "assert sys.stdout.encoding == 'utf-8' and sys.stdout.fileno() == 1 and sys.stderr.fileno() == 2\n"
        "sys.stdout.flush(); sys.stdout.writelines(['a', 'b']); sys.stdout.reconfigure(line_buffering=True)\n"
        "sys.stdout.close(); print('still open', sys.stdout.closed)\n"
        "class Text(str): pass\n"
        "sys.stdout.write(Text('sub')); print(file=sys.stdout)\n"
        "with contextlib.redirect_stdout(io.StringIO()) as s: print('caught')\n"
        "import faulthandler; faulthandler.enable(); import logging; logging.warning('logged')"
    )
    assert kernel.text() == "abstill open False\nsub\n"
    assert "logged" in kernel.text("stderr")


def test_threads_print_whole_texts(kernel):
    kernel.ok(
        "import threading\n"
        "def say(n):\n    for i in range(2000): print(f'<{n}:{i}>' + 'p' * (i % 50), end='\\n' if False else '')\n"
        "threads = [threading.Thread(target=say, args=(n,)) for n in range(4)]\n"
        "for t in threads: t.start()\nfor t in threads: t.join()"
    )
    text = kernel.text()
    for n in range(4):
        position = 0
        for i in range(2000):
            position = text.index(f"<{n}:{i}>" + "p" * (i % 50), position)


def test_threads_and_large_texts_do_not_mix_within_a_payload(kernel):
    kernel.ok(
        "import threading\nfrom IPython.display import display, HTML\nstop = False\n"
        "def say():\n    while not stop: print('t' * 100)\n"
        "thread = threading.Thread(target=say); thread.start()\n"
        "for i in range(5): display(HTML('h' * 3_000_000))\nstop = True; thread.join()"
    )
    assert [len(m["data"]["text/html"]) for m in kernel.messages("display_data")] == [3_000_000] * 5
    assert set(kernel.text()) == {"t", "\n"}


def test_finalizers_that_print_do_not_break_a_record(kernel):
    kernel.ok(
        "import gc\nclass Loud:\n    def __init__(self): self.me = self\n    def __del__(self): print('D' * 20)\n"
        "gc.set_threshold(5)\n"
        "for i in range(3000):\n    Loud(); print('p' * (i % 90))\ngc.set_threshold(700); gc.collect()"
    )
    assert kernel.text().count("D" * 20) == 3000
    assert sum(line.startswith("p") for line in kernel.text().split("\n")) >= 2000


def test_forked_children_write_through_the_descriptors(kernel):
    kernel.ok(
        "import os, sys\nprint('parent first')\npids = []\n"
        "for n in range(3):\n    pid = os.fork()\n    if not pid:\n        print('child', n); print('error', n, file=sys.stderr); os._exit(0)\n"
        "    os.waitpid(pid, 0)\nprint('parent last')"
    )
    assert kernel.text() == "parent first\nchild 0\nchild 1\nchild 2\nparent last\n"
    assert kernel.text("stderr") == "error 0\nerror 1\nerror 2\n"


def test_multiprocessing_prints(kernel):
    kernel.ok(
        "import multiprocessing as mp\ndef work(n): print('worker', n)\n"
        "ps = [mp.get_context('fork').Process(target=work, args=(n,)) for n in range(3)]\n"
        "for p in ps: p.start(); p.join()"
    )
    assert kernel.text() == "worker 0\nworker 1\nworker 2\n"


def test_order_is_kept_in_the_cell_after_too(kernel):
    kernel.ok(C_PRINTF)
    kernel.ok("for i in range(200):\n    print('p', i)\n    libc.printf(b'c %d\\n', i)")
    assert kernel.text() == "".join(f"p {i}\nc {i}\n" for i in range(200))


def test_strictness_ends_with_the_children(kernel):
    ring = "get_ipython().channel.ring.strict"
    assert kernel.result(ring) == "False"
    assert kernel.result(f"import os; os.system('true'); {ring}") == "True"
    assert kernel.result(ring) == "False"
    kernel.ok("import subprocess; p = subprocess.Popen(['sleep', '60'])")
    assert kernel.result(ring) == "True"
    kernel.ok("p.kill(); p.wait()")
    assert kernel.result(ring) == "False"


def test_a_program_started_from_a_cell_streams(kernel):
    cell = kernel.start("import sys\n!{sys.executable} -c 'import time; print(1); time.sleep(60)'")
    kernel.wait(lambda: kernel.text() == "1\n")
    os.kill(kernel.pid, signal.SIGINT)
    kernel.wait_reply(cell)
