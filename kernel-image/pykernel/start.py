"""From a process that has everything loaded to a kernel that serves, forked or not."""

import faulthandler
import os
import sys
import tempfile

from . import fonts, jail, messages, preload, shell, streams, system, twin
from .channel import Channel
from .checkpoint import Checkpoints
from .comms import Comms
from .interrupts import Interrupts
from .kernel import Kernel
from .ring import STDERR, STDOUT, Ring


class Prepared:
    """All that a kernel needs and that does not depend on the session: made once, shared by fork."""

    def __init__(self, has_libraries):
        # `python -m` puts it first into `sys.path`; it is not the session's.
        self.directory = os.getcwd()
        preload.before_imports()
        self.modules = preload.load(preload.SHELL)
        self.interrupts = Interrupts()
        self.channel = Channel(self.interrupts)
        self.shell = shell.make(self.channel, self.interrupts)
        self.comms = Comms(self.channel)
        self.flush_c = streams.buffer_c_stdout_by_line()
        self.kernel = Kernel(self.channel, self.shell, self.interrupts, self.comms, self.flush_c)
        fonts.when_imported(lambda: self.shell.run_line_magic("matplotlib", "inline"))
        if has_libraries:
            self.modules += preload.warm(self.shell, self.kernel)
        self.kernel.forget()
        streams.record_headers(STDOUT)
        streams.record_headers(STDERR)
        preload.freeze()


def run(prepared, jail_wanted, descriptors):
    """Becomes the kernel of one session. Never returns."""
    # 1 to 6. The jail.
    try:
        jail.enter(jail_wanted, descriptors)
    except jail.JailError as error:
        jail.die(error)

    # 7. The ring, and everything that Python prints into it.
    pipes = (descriptors["stdout"], descriptors["stderr"])
    ring = Ring(
        descriptors["ring"], descriptors["doorbell"], descriptors["space"], pipes, prepared.interrupts
    )
    prepared.channel.attach(descriptors["control"], ring)
    out, err = streams.TextStream(ring, STDOUT), streams.TextStream(ring, STDERR)
    sys.stdout = sys.__stdout__ = out
    sys.stderr = sys.__stderr__ = err
    sys.stdin = sys.__stdin__ = os.fdopen(0, encoding="utf-8", closefd=False)
    streams.watch_other_writers(ring, (out, err), prepared.channel.leave_ring)

    # 8. What must not be the same in two sessions, and what programs started here should know.
    preload.reseed()
    defaults()
    places(prepared)
    # A crash in C code says in which line of Python it happened.
    faulthandler.enable(file=2)

    # 9. Twins, to go back to.
    if jail_wanted["oom_score_adj"] is not None:
        twin.give_way(twin.AWAKE)
    kernel = prepared.kernel
    twins = twin.Twins(
        descriptors, prepared.channel, ring, kernel.cells, lambda: announce(prepared, is_restored=True)
    )
    kernel.checkpoints = Checkpoints(twins)

    # 10. Interrupts, from now on; then requests.
    prepared.interrupts.install()
    announce(prepared, is_restored=False)
    kernel.serve()


def announce(prepared, is_restored):
    """Says that this process is the session's kernel."""
    ready = messages.Ready(os.getpid(), preload.python_version(), prepared.modules)
    if is_restored:
        ready.restored = True
        ready.execution_count = prepared.shell.execution_count - 1
    prepared.channel.send(ready)


def places(prepared):
    """Forgets the directories of the process this one was forked from."""
    # The session's own modules come first, and what it has installed last.
    sys.path[:] = ["", *(path for path in sys.path if path and path != prepared.directory)]
    if os.path.isdir(system.packages_directory()):
        sys.path.append(system.packages_directory())
    tempfile.tempdir = tempfile._name_sequence = None
    prepared.shell.settle()


def defaults():
    """Sets what makes programs behave well in a session, unless the operator has said otherwise."""
    wanted = {
        # Plots as data for the client, instead of looking for a browser.
        "PLOTLY_RENDERER": "plotly_mimetype",
        # For Python programs started from cells: the kernel itself has its backend.
        "MPLBACKEND": "agg",
        # They write into a pipe, and would keep what they print until there are some thousand bytes of it.
        "PYTHONUNBUFFERED": "1",
    }
    if not system.has_network():
        # `!pip install` gives up at once instead of trying for half a minute.
        wanted.update({"PIP_RETRIES": "0", "PIP_DEFAULT_TIMEOUT": "3", "PIP_DISABLE_PIP_VERSION_CHECK": "1"})
    for name, value in wanted.items():
        os.environ.setdefault(name, value)
