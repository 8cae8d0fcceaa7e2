"""The zygote: a process with everything loaded, from which kernels are forked into their sandboxes.

Three forks make one kernel. C enters the cgroups and namespaces, which the zygote itself could never leave
again; D is the first process inside the pid namespace; K is the kernel, and since D ends at once, K becomes a
child of the agent, PID 1 there.
"""

import json
import os
import select
import signal
import socket

from . import linux
from .jail import KEPT

# A jail with its rules and filter is some ten thousand bytes.
LARGEST_PACKET = 1 << 20
MOST_DESCRIPTORS = 64


class SpawnError(Exception):
    """A step on the way to a new kernel did not succeed."""

    def __init__(self, step, cause):
        super().__init__(str(cause))
        self.step = step


def serve(listener, lifeline, ready):
    """Keeps one C waiting for a connection, and makes the next when it is taken, until the lifeline closes.

    Returns the jail and the descriptors in the new kernel, and never in the zygote itself. Making C ahead
    takes a third of the work out of the way of the one who waits for a kernel.
    """
    os.set_blocking(listener, False)
    # Children are reaped by the kernel: nobody here asks how C ended.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    os.write(lifeline, json.dumps(ready).encode() + b"\n")
    while True:
        # A byte on this pipe says that C has found its request, an end without one that C is dead.
        taken, waiting = os.pipe()
        try:
            child = linux.fork()
        except OSError:
            # No process or no memory just now: what is asked meanwhile waits in the listening socket.
            child = None
        if child == 0:
            os.close(taken)
            return _wait_for_request(listener, lifeline, waiting)
        os.close(waiting)
        if child is not None:
            _wait((taken, lifeline), lifeline)
        if child is None or not os.read(taken, 1):
            # Something here ends processes, or does not let them be: not again at once.
            _wait((lifeline,), lifeline, 100)
        os.close(taken)


def _wait(descriptors, lifeline, timeout=None):
    """Waits for one of the descriptors, and ends this process when it is the lifeline that has closed."""
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    for descriptor, _ in poll.poll(timeout):
        if descriptor == lifeline and not os.read(lifeline, 4096):
            os._exit(0)


def _wait_for_request(listener, lifeline, waiting):
    """Runs in C: takes one connection and serves it. Returns in K only."""
    server = socket.socket(fileno=listener)
    while True:
        _wait((listener, lifeline), lifeline)
        try:
            connection, _ = server.accept()
            break
        except OSError:
            # The agent went away, or another C was quicker.
            continue
    os.write(waiting, b"1")
    os.close(waiting)
    try:
        connection.settimeout(1)
        packet, descriptors, flags, _ = socket.recv_fds(
            connection, LARGEST_PACKET, MOST_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC
        )
        connection.setblocking(True)
        jail, named = _parse(packet, descriptors, flags)
        _enter_sandbox(connection, named)
    except BaseException as error:
        _answer_error(connection, error)
        os._exit(1)
    # Closed by number, with everything else that is not the kernel's.
    connection.detach()
    server.detach()
    return jail, named


def _parse(packet, descriptors, flags):
    """Returns the jail and the descriptors by name."""
    if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        raise SpawnError("request", "the packet or its descriptors did not fit")
    try:
        request = json.loads(packet)
        operation, names, jail = request["op"], request["fds"], request["jail"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise SpawnError("request", f"not a spawn request: {type(error).__name__}: {error}") from error
    if operation != "spawn":
        raise SpawnError("request", f"the zygote knows only `spawn`, not `{operation}`")
    if not isinstance(jail, dict) or not isinstance(names, list) or len(names) != len(descriptors):
        raise SpawnError("request", f"{len(descriptors)} descriptors came for the names {names}")
    named = dict(zip(names, descriptors, strict=True))
    missing = [name for name in KEPT if name not in named]
    if missing:
        raise SpawnError("request", f"missing descriptors: {', '.join(missing)}")
    return jail, named


def _enter_sandbox(connection, named):
    """Runs in C, and in D and K after it; only K returns."""
    # C asks for the fate of D, so its children must wait for it.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _enter_cgroups(named)
    _enter_namespaces(named)
    first = _fork(linux.fork, "fork into the pid namespace")
    if first:
        # D is gone within milliseconds; waiting for it leaves no zombie to whoever is init outside.
        os.waitpid(first, 0)
        os._exit(0)
    kernel = _fork(os.fork, "fork the kernel")
    if kernel:
        connection.send(json.dumps({"pid": kernel}).encode())
        os._exit(0)


def _enter_cgroups(named):
    for name, descriptor in named.items():
        if name.startswith("cgroup_procs."):
            try:
                os.write(descriptor, b"0")
            except OSError as error:
                raise SpawnError("cgroup", f"{name}: {error.strerror}") from error


def _enter_namespaces(named):
    for kind in linux.NAMESPACES:
        if kind in named:
            try:
                linux.setns(named[kind], kind)
            except OSError as error:
                raise SpawnError(kind, error.strerror) from error


def _fork(fork, step):
    try:
        return fork()
    except OSError as error:
        raise SpawnError(step, error.strerror) from error


def _answer_error(connection, error):
    step = error.step if isinstance(error, SpawnError) else "request"
    try:
        connection.send(json.dumps({"error": {"step": step, "message": str(error)}}).encode())
    except OSError:
        # The agent went away: so does its request.
        pass
