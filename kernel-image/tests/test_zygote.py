"""Forked kernels: private, alike, one thread, and clear about what does not work."""

import base64
import json
import os
import select
import signal
import struct
import subprocess
import sys

import agent
import pytest

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="dropping root's rights needs root")
ALLOW = base64.b64encode(struct.pack("<HBBI", 0x06, 0, 0, 0x7FFF0000)).decode()


def test_the_zygote_says_what_it_is(zygote):
    assert zygote.ready["ready"] is True
    assert zygote.ready["took_ms"] > 0


def test_the_zygote_has_one_thread_and_no_files_open(zygote):
    process = f"/proc/{zygote.process.pid}"
    assert len(os.listdir(f"{process}/task")) == 1
    targets = [os.readlink(f"{process}/fd/{n}") for n in os.listdir(f"{process}/fd") if int(n) > 2]
    assert all(target.startswith(("socket:", "pipe:")) for target in targets), targets


def test_a_new_kernel_has_one_thread_and_only_its_descriptors(kernel):
    assert (
        kernel.result("import os, threading; len(os.listdir('/proc/self/task')), threading.active_count()")
        == "(1, 1)"
    )
    kernel.ok(
        "import stat\nfor n in sorted(map(int, os.listdir('/proc/self/fd'))):\n    try: print(n, os.readlink(f'/proc/self/fd/{n}'))\n    except OSError: pass"
    )
    kinds = [line.split()[1].split(":")[0] for line in kernel.text().splitlines()]
    assert sorted(set(kinds)) == ["/dev/null", "anon_inode", "pipe", "socket"]
    assert len(kinds) <= 12


def test_two_kernels_draw_different_random_numbers(zygote):
    code = "import random, numpy as np; random.random(), np.random.rand(), np.random.default_rng().random()"
    drawn = set()
    for _ in range(4):
        kernel = zygote.spawn()
        drawn.update(kernel.result(code).strip("()").split(", "))
        kernel.close()
    assert len(drawn) == 12


def test_namespaces_and_history_are_private_and_new(zygote):
    first, second = zygote.spawn(), zygote.spawn()
    first.ok("mine = 1")
    assert second.run("mine")["error"]["ename"] == "NameError"
    third = zygote.spawn()
    third.ok(
        "import builtins\nprint(sorted(n for n in globals() if not n.startswith('_')), len(In), len(Out))"
    )
    assert third.text() == "['In', 'Out', 'builtins', 'exit', 'get_ipython', 'open', 'quit'] 2 0\n"
    for kernel in (first, second, third):
        kernel.close()


def test_kernels_are_forked_at_once(zygote):
    kernels = [zygote.spawn() for _ in range(12)]
    cells = [kernel.start("import pandas as pd; pd.DataFrame({'a': [1, 2]}).a.sum()") for kernel in kernels]
    for kernel, cell in zip(kernels, cells, strict=True):
        kernel.wait_reply(cell)
        assert "3" in kernel.messages("execute_result")[0]["data"]["text/plain"]
        kernel.close()


def test_no_child_of_the_zygote_is_left_unreaped(zygote):
    zygote.spawn().close()
    zygote.spawn().close()
    assert "Z" not in [
        read(f"/proc/{child}/stat").split(") ")[1][0] for child in children(zygote.process.pid)
    ]


def children(pid):
    return [int(child) for child in read(f"/proc/{pid}/task/{pid}/children").split()]


def read(path):
    with open(path) as file:
        return file.read()


NO_REQUESTS = [
    b"{",
    b"[]",
    b'{"op": "fly", "fds": [], "jail": {}}',
    b'{"op": "spawn"}',
    b'{"op": "spawn", "fds": ["ring"], "jail": {}}',
    b'{"op": "spawn", "fds": [], "jail": {}}',
]


@pytest.mark.parametrize("packet", NO_REQUESTS)
def test_a_request_that_is_none_is_refused(zygote, packet):
    assert zygote.request(packet, [])["error"]["step"] == "request"
    zygote.spawn().close()


def test_a_namespace_that_is_none_is_named(zygote):
    with open("/dev/null") as null, pytest.raises(agent.SpawnFailed) as failed:
        zygote.spawn(net=null.fileno())
    assert failed.value.args[0]["step"] == "net"
    with open("/dev/null", "rb") as null, pytest.raises(agent.SpawnFailed) as failed:
        zygote.spawn(**{"cgroup_procs.0": null.fileno()})
    assert failed.value.args[0]["step"] == "cgroup"


@pytest.mark.parametrize(
    ("jail", "text"),
    [
        ({"cwd": "/no/such/place"}, "place: "),
        ({"rlimits": {"NONSENSE": [1, 1]}}, "limits: "),
        ({"landlock": {"abi": 1, "rules": [{"path": "/no/such", "access": 4}]}}, "landlock: "),
        ({"seccomp": base64.b64encode(b"odd").decode()}, "seccomp: "),
    ],
)
def test_a_step_that_fails_ends_the_kernel_with_one_line(zygote, jail, text):
    line = failure(zygote, {**agent.UNJAILED, **jail})
    assert line.startswith(f"evercell kernel: {text}")
    assert line.count("\n") == 1


@pytest.mark.parametrize("part", list(agent.UNJAILED))
def test_a_part_that_is_missing_is_an_error(zygote, part):
    jail = {name: value for name, value in agent.UNJAILED.items() if name != part}
    assert f"the jail has no `{part}`" in failure(zygote, jail)


def failure(zygote, jail):
    """Returns what a kernel says that does not start."""
    kernel = agent.Kernel()
    names, descriptors = kernel.theirs()
    assert zygote.request({"op": "spawn", "fds": names, "jail": jail}, descriptors)["pid"] > 0
    kernel.close_theirs()
    with pytest.raises(agent.KernelEnded) as ended:
        kernel.wait_ready()
    kernel.close()
    return ended.value.args[0]


@ROOT
def test_a_jailed_kernel_has_given_up_everything(zygote, tmp_path):
    os.chmod(tmp_path, 0o777)
    place = tmp_path
    while place != place.parent:
        os.chmod(place, os.stat(place).st_mode | 0o055)
        place = place.parent
    kernel = zygote.spawn(
        jail={
            "uid": 12345, "gid": 12346, "cwd": str(tmp_path), "home": str(tmp_path),
            "env": {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "MINE": "1"},
            "rlimits": {"NOFILE": [256, 256], "CORE": [0, 0], "FSIZE": [1000000, 1000000]}, "oom_score_adj": 500,
            "landlock": {"abi": 1, "rules": [{"path": "/", "access": 0b1101}, {"path": str(tmp_path), "access": 0x1FFF},
                                             {"path": "/dev/null", "access": 0b110}]},
            "seccomp": ALLOW,
        }
    )  # fmt: skip
    kernel.ok(
        "status = dict(line.split(':\\t', 1) for line in open('/proc/self/status').read().splitlines() if ':\\t' in line)"
    )
    kernel.ok("print(*(status[n].split() for n in ('Uid', 'Gid', 'Groups', 'NoNewPrivs', 'Seccomp')))")
    assert kernel.text() == f"{['12345'] * 4} {['12346'] * 4} [] ['1'] ['2']\n"
    assert (
        kernel.result("{status[n] for n in ('CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb')}")
        == "{'0000000000000000'}"
    )
    assert (
        kernel.result(
            "import os, resource; resource.getrlimit(resource.RLIMIT_NOFILE), os.environ['MINE'], os.environ['HOME'] == os.getcwd()"
        )
        == "((256, 256), '1', True)"
    )
    assert kernel.result("open('/proc/self/oom_score_adj').read()") == "'500\\n'"
    assert kernel.result("open('inside', 'w').write('x')") == "1"
    assert kernel.run("open('/tmp/outside', 'w')")["error"]["ename"] == "PermissionError"
    assert kernel.run("os.setuid(0)")["error"]["ename"] == "PermissionError"
    kernel.ok("import matplotlib.pyplot as plt, pandas as pd; pd.DataFrame({'a': [1]}).plot(); plt.show()")
    assert kernel.messages("display_data")
    kernel.close()


def test_a_kernel_enters_namespaces_and_becomes_the_child_of_their_init(zygote):
    command = ["unshare", "--user", "--map-root-user", "--mount", "--net", "--ipc", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc",
               "sh", "-c", "echo up; exec sleep 1000"]  # fmt: skip
    try:
        outside = subprocess.Popen(command, stdout=subprocess.PIPE)
    except FileNotFoundError:
        pytest.skip("unshare is not installed")
    with outside:
        try:
            if outside.stdout.readline() != b"up\n":
                pytest.skip("this host does not allow user namespaces")
            [init] = children(outside.pid)
            kinds = ("user", "mnt", "net", "ipc", "uts", "pid")
            opened = {kind: os.open(f"/proc/{init}/ns/{kind}", os.O_RDONLY) for kind in kinds}
            kernel = zygote.spawn({"hostname": "inside"}, **opened)
            assert kernel.ready["pid"] == kernel.pid < 10
            # D may still be on its way out.
            kernel.ok("import os, time\nwhile os.getppid() != 1: time.sleep(0.001)")
            assert (
                kernel.result(
                    "import socket; os.getppid(), socket.gethostname(), [n for n in os.listdir('/proc') if n.isdigit()][0]"
                )
                == "(1, 'inside', '1')"
            )
            assert kernel.result("[name for _, name in socket.if_nameindex()]") == "['lo']"
            kernel.ok("%pip install numpy-that-is-not-there")
            assert "no network" in kernel.text("stderr")
            kernel.close()
            for descriptor in opened.values():
                os.close(descriptor)
        finally:
            outside.kill()


def test_a_kernel_without_a_zygote_speaks_the_same(tmp_path):
    kernel, process = without_zygote(tmp_path)
    assert kernel.ready["pid"] == process.pid
    assert kernel.result("1 + 1") == "2"
    kernel.close()
    assert process.wait(agent.LIMIT_S) == 0


def test_a_kernel_without_a_zygote_imports_its_libraries_when_they_are_asked_for(tmp_path):
    kernel, process = without_zygote(tmp_path)
    there = "import sys; [name for name in ('pandas', 'matplotlib', 'sklearn') if name in sys.modules]"
    assert "pandas" not in kernel.ready["preload"]
    assert kernel.result(there) == "[]"
    # Figures are as with a zygote, the glyphs of all languages included.
    kernel.ok("import matplotlib.pyplot as plt; plt.title('中あ한'); plt.plot([1])\nNone")
    assert "image/png" in kernel.messages("display_data")[0]["data"]
    assert kernel.text("stderr") == ""
    kernel.close()
    assert process.wait(agent.LIMIT_S) == 0

    kernel, process = without_zygote(tmp_path)
    assert "error" not in kernel.call("rehearse")
    assert kernel.result(there) == "['pandas', 'matplotlib', 'sklearn']"
    assert kernel.result("[n for n in dir() if not n.startswith('_')]") == (
        "['In', 'Out', 'exit', 'get_ipython', 'open', 'quit', 'sys']"
    )
    kernel.close()
    assert process.wait(agent.LIMIT_S) == 0


def without_zygote(directory):
    """Returns a kernel that no zygote has forked, and its process."""
    kernel = agent.Kernel()
    names, descriptors = kernel.theirs()
    jail = directory / "jail"
    jail.write_text(json.dumps(agent.UNJAILED))
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    with open(jail) as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "pykernel", "kernel", "--jail", str(file.fileno())],
            pass_fds=[*descriptors, file.fileno()],
            env={
                **os.environ,
                "PYTHONPATH": package,
                "EVERCELL_FDS": json.dumps(dict(zip(names, descriptors, strict=True))),
            },
        )
    kernel.close_theirs()
    kernel.wait_ready()
    return kernel, process


def test_the_zygote_and_its_spare_child_end_with_the_lifeline():
    zygote = agent.Zygote()
    spares = [os.pidfd_open(child) for child in children(zygote.process.pid)]
    zygote.close()
    for spare in spares:
        poll = select.poll()
        poll.register(spare, select.POLLIN)
        assert poll.poll(10_000)
        os.close(spare)


def test_a_spare_child_that_dies_is_replaced():
    zygote = agent.Zygote()
    for _ in range(2):
        for child in children(zygote.process.pid):
            os.kill(child, signal.SIGKILL)
        zygote.spawn().close()
    zygote.close()
