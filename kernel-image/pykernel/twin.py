"""The twin: a copy of the kernel, forked between two cells, asleep until it has to take the place of that.

It is a child of the agent and not of the kernel, so that user code does not find it among its own. It keeps
everything as it is at the moment of the fork; what must differ it is given when it is woken, under the
numbers that its code knows.
"""

import _socket
import array
import contextlib
import json
import os
import random
import select
import selectors
import signal
import stat
import threading
import warnings

from . import linux
from .hot import HotPages
from .ring import STDERR

# When memory runs out, the one that runs goes first and the twin last. Lowering it needs no right as long as
# nobody who has one has set it (proc_pid_oom_score_adj(5)).
AWAKE, ASLEEP = 1000, 100

# How long the kernel waits until its twin is known to the agent: a thousand times what it takes.
ANNOUNCE_MS = 500
LARGEST_PACKET, MOST_DESCRIPTORS = 4096, 16

# How many pages are searched at most for those that cells write to, and how many are copied ahead at once.
MOST_LOOKED_AT, AT_ONCE = 1 << 17, 128

_ALL_SIGNALS = signal.valid_signals()
_TRIAL_PAGES = 64

_making = False


def is_being_made():
    """Tells whether a fork that is under way is that of a twin."""
    return _making


def give_way(score):
    """Chooses the place in the queue of the OOM killer."""
    # Not truncated, which landlock would deny.
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "r+") as file:
        file.write(str(score))


class Twins:
    """Makes twins of this process, and becomes one."""

    def __init__(self, descriptors, channel, ring, cells, announce):
        """Prepares; `announce` says that a woken twin is ready to serve."""
        self._descriptors = descriptors
        self._channel = channel
        self._ring = ring
        self._cells = cells
        self._announce = announce
        self._hot = HotPages()
        self._ahead = 0
        # What it costs to write to a page shared with a twin, in seconds: measured with the first one.
        self.page_cost = None

    def make(self, after, hold=None):
        """Forks a twin, made after the execution `after`, and returns its pid once the agent has heard of it.

        `hold` is the request by which the agent asked for it, if it did. In the twin it returns 0, when that
        is woken and is the kernel. Raises `OSError` when there is none.
        """
        alone = _tasks() == 1
        if not alone:
            linux.pause_openmp()
            alone = _tasks() == 1
        trial = linux.written_pages(_TRIAL_PAGES) if self.page_cost is None else None
        # Now: when the twin wakes, they are where the kernel has moved them to.
        files = _offsets()
        threads = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
        known, tell = os.pipe()
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, _ALL_SIGNALS)
        try:
            # Another thread in the middle of a record would leave the twin with a lock that nobody opens.
            with self._ring.hold():
                pid = _fork(alone)
            if pid == 0:
                os.close(known)
                self._wake(self._sleep({"after": after, "hold": hold}, tell), files, mask)
            else:
                os.close(tell)
                _wait_for_end(known)
                os.close(known)
        except Exception:
            os.close(known)
            os.close(tell)
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if pid == 0:
            self._announce()
            self._report(threads)
            return pid
        if trial is not None:
            self.page_cost = linux.time_of_writing(trial) / _TRIAL_PAGES
        self._ahead = 0
        return pid

    def learn(self):
        """Finds out what cells have written to beside the last twin."""
        with contextlib.suppress(OSError, ValueError):
            written = linux.written_since_fork(MOST_LOOKED_AT)
            if written is not None:
                self._hot.learn(written)

    def copy_ahead(self):
        """Copies what cells write to again and again, beside a new twin, until a request arrives."""
        poll = select.poll()
        poll.register(self._channel.control, select.POLLIN)
        for first, count in self._hot.ahead():
            for page in range(first, first + count, AT_ONCE):
                if poll.poll(0):
                    return
                some = min(AT_ONCE, first + count - page)
                linux.write_ahead(page, some)
                self._ahead += some

    def end(self, twin):
        """Ends a twin."""
        with contextlib.suppress(OSError):
            os.kill(twin, signal.SIGKILL)

    def copied_pages(self, twin):
        """Returns how many pages only the twin holds besides those that were copied ahead.

        The kernel has its own copies of them, or has freed them.
        """
        try:
            with open(f"/proc/{twin}/smaps_rollup") as file:
                sizes = [line.split() for line in file if line.startswith("Private_")]
        except OSError:
            # It is gone.
            return 0
        return max(sum(int(size[1]) for size in sizes) // 4 - self._ahead, 0)

    def _sleep(self, announcement, tell):
        """Tells the agent of this twin, and waits. Returns the new descriptors by name, or never."""
        try:
            # Out of the kernel's process group: what is sent to that is not for a twin.
            with contextlib.suppress(OSError):
                os.setsid()
            give_way(ASLEEP)
            # Not by Python's own `socket`, into which user code may have put another.
            door, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0)
            door.setblocking(True)
            twins = _socket.socket(fileno=self._descriptors["twins"])
            rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, array.array("i", [theirs.fileno()]))
            twins.sendmsg([json.dumps(announcement).encode()], [rights], _socket.MSG_DONTWAIT)
            twins.detach()
            theirs.close()
            # The kernel waits for this end of file.
            os.close(tell)
            while True:
                operation, new = _receive(door)
                if operation == "wake":
                    door.close()
                    return new
                door = _split(door, new["door"])
        except BaseException:
            # Nobody misses a twin that does not come to be.
            os._exit(1)

    def _wake(self, new, files, mask):
        """Takes the kernel's place."""
        try:
            ring = new.pop("ring")
            for name, descriptor in new.items():
                os.dup2(descriptor, self._descriptors[name], inheritable=False)
            os.dup2(new["stdout"], 1)
            os.dup2(new["stderr"], 2)
            for descriptor in new.values():
                os.close(descriptor)
            self._ring.renew(ring)
            self._channel.forget()
            for descriptor, offset in files:
                with contextlib.suppress(OSError):
                    os.lseek(descriptor, offset, os.SEEK_SET)
            _renew_epoll(self._cells.loop)
            _drop_pending(mask)
            threading.current_thread()._set_native_id()
            give_way(AWAKE)
        except BaseException as error:
            os.write(2, f"evercell kernel: cannot take the lost one's place: {error}\n".encode())
            os._exit(1)

    def _report(self, threads):
        if threads:
            names = ", ".join(threads)
            text = f"evercell: threads do not survive a rollback; these have ended: {names}\n"
            self._ring.put(STDERR, text.encode(errors="replace"))


def _receive(door):
    """Waits for what the agent wants of this twin: the operation, and descriptors by name.

    End of file ends it.
    """
    space = _socket.CMSG_SPACE(MOST_DESCRIPTORS * array.array("i").itemsize)
    packet, ancillary, _, _ = door.recvmsg(LARGEST_PACKET, space, _socket.MSG_CMSG_CLOEXEC)
    if not packet:
        os._exit(0)
    numbers = array.array("i")
    for _, _, data in ancillary:
        numbers.frombytes(data[: len(data) - len(data) % numbers.itemsize])
    wanted = json.loads(packet)
    return wanted["op"], dict(zip(wanted["fds"], numbers, strict=True))


def _split(door, descriptor):
    """Forks this twin once more, so that one can be woken and the other sleeps on.

    Returns the door of the one that this process is. Where the fork fails nobody says a word at the new door,
    and its end of file tells the agent.
    """
    try:
        pid = _fork(alone=True)
    except OSError:
        pid = -1
    if pid:
        os.close(descriptor)
        return door
    door.close()
    with contextlib.suppress(OSError):
        os.setsid()
    fresh = _socket.socket(fileno=descriptor)
    fresh.setblocking(True)
    # Who it is the system tells the agent.
    fresh.send(b"{}")
    return fresh


def _tasks():
    return len(os.listdir("/proc/self/task"))


def _offsets():
    """Returns the regular files that are open, and the places in them, which twin and kernel share."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        descriptor = int(name)
        with contextlib.suppress(OSError):
            if descriptor > 2 and stat.S_ISREG(os.fstat(descriptor).st_mode):
                found.append((descriptor, os.lseek(descriptor, 0, os.SEEK_CUR)))
    return found


def _fork(alone):
    """Returns the twin's pid, or 0 in it."""
    if alone:
        with contextlib.suppress(OSError):
            return linux.fork_sibling()
    global _making
    _making = True
    try:
        return _fork_beside_threads()
    finally:
        _making = False


def _fork_beside_threads():
    """Forks with all that libraries do about it, twice, so that the agent becomes the twin's parent."""
    # Python gives a child random numbers of its own, which is right for any child but this.
    numbers = random.getstate()
    told, tell = os.pipe()
    with warnings.catch_warnings():
        # Python warns of threads that hold locks.
        warnings.simplefilter("ignore")
        try:
            between = os.fork()
            if between == 0:
                pid = _fork_or_end()
                if pid:
                    os.write(tell, pid.to_bytes(4, "little"))
                    os._exit(0)
        except OSError:
            os.close(told)
            os.close(tell)
            raise
    os.close(tell)
    if between == 0:
        os.close(told)
        random.setstate(numbers)
        return 0
    pid = int.from_bytes(os.read(told, 4), "little")
    os.close(told)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(between, 0)
    if not pid:
        raise OSError("the second fork failed")
    return pid


def _fork_or_end():
    try:
        return os.fork()
    except BaseException:
        os._exit(1)


def _wait_for_end(pipe):
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    poll.poll(ANNOUNCE_MS)


def _renew_epoll(loop):
    """Gives the loop an epoll instance of its own, in which stands what it believes to stand there.

    The one it has is the lost kernel's too, who has gone on adding and removing.
    """
    selector = getattr(loop, "_selector", None)
    epoll = getattr(selector, "_selector", None)
    if not isinstance(epoll, select.epoll) or epoll.closed:
        return
    fresh = select.epoll()
    os.dup2(fresh.fileno(), epoll.fileno(), inheritable=False)
    fresh.close()
    for key in list(selector.get_map().values()):
        events = (select.EPOLLIN if key.events & selectors.EVENT_READ else 0) | (
            select.EPOLLOUT if key.events & selectors.EVENT_WRITE else 0
        )
        with contextlib.suppress(OSError):
            epoll.register(key.fd, events)


def _drop_pending(mask):
    """Forgets signals that came while it slept: they were for somebody else."""
    for number in signal.sigpending() - mask:
        with contextlib.suppress(OSError, ValueError):
            handler = signal.getsignal(number)
            signal.signal(number, signal.SIG_IGN)
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
