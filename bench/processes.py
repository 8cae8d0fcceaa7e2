"""The processes that a measurement starts: how much memory they hold, and that none of them stays behind.

The program makes itself the one that orphans below it fall to, so that "all processes of a server" is what
descends from it, sandboxes and detached ones included.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36

_libc = ctypes.CDLL(None, use_errno=True)


def adopt_orphans() -> None:
    """Makes this process the parent of whatever below it loses its own."""
    if _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "cannot become a subreaper")


def start(argv: list[str], env: dict[str, str], cwd: Path, log: Path, **options: object) -> subprocess.Popen:
    """Starts a server; what it says on stderr goes to `log`."""
    # A session of its own: Ctrl-C is for us, and we stop it in order.
    return subprocess.Popen(
        argv,
        env=env,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stderr=log.open("ab"),
        start_new_session=True,
        # Should we be killed, nothing of us may stay.
        preexec_fn=lambda: _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0),
        **options,
    )


def descendants(root: int) -> set[int]:
    """All processes below `root`, without itself."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue  # it has ended meanwhile
            # The name before it may hold anything, brackets too.
            parent = int(stat[stat.rindex(")") + 2 :].split()[1])
            children.setdefault(parent, []).append(int(entry.name))
    found: set[int] = set()
    below = [root]
    while below:
        for child in children.get(below.pop(), []):
            found.add(child)
            below.append(child)
    return found


def pss_bytes(pids: set[int]) -> int:
    """The memory of processes: what is theirs alone, and their part of what they share."""
    total = 0
    for pid in pids:
        try:
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended meanwhile, or is a zombie
        total += sum(int(line.split()[1]) * 1024 for line in rollup.splitlines() if line.startswith("Pss:"))
    return total


def stop(server: subprocess.Popen, patience: float = 20.0) -> None:
    """Stops a server, and whatever it leaves behind."""
    server.terminate()
    try:
        server.wait(patience)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
    end_all()


def end_all() -> None:
    """Ends all that descends from this process."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        _reap()
        left = descendants(os.getpid())
        if not left:
            return
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass  # it has ended meanwhile, or ends with the sandbox it is in
        time.sleep(0.02)


def _reap() -> None:
    """Takes leave of children that have ended, orphans that fell to us included."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0] != 0:
            pass
    except ChildProcessError:
        pass
