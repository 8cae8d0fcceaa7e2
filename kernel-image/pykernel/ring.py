"""The ring: everything the kernel says, as records in memory shared with the agent. See `PROTOCOL.md`.

What `write` has returned from is in the ring, so no crash of this process can lose it; and a short record
costs no system call. The hot path is `TextStream.write` in `streams.py`, which does by hand what `Ring.put`
does in general.
"""

import ctypes
import fcntl
import mmap
import os
import select
import struct
import termios
import threading
import time

from . import linux

MAGIC = 0x31474E4952435645
HEADER_BYTES = 4096
STDOUT, STDERR, MESSAGE, SYNC, REPLY = 1, 2, 3, 4, 5
MORE = 1

# Indices into the header seen as 64-bit words.
CAPACITY, HEAD, TAIL, READER_SLEEPING, WRITER_WAITING = 1, 8, 16, 24, 32
PIPE_EPOCH, STDOUT_READ, STDERR_READ = 40, 41, 42

_record_header = struct.Struct("<IBBH").pack
_ONE = (1).to_bytes(8, "little")
_sync_positions = struct.Struct("<QQ").pack


class RingError(Exception):
    """The shared memory is not a ring this kernel can write to."""


class Ring:
    """The writing end. One process writes: a child made by `os.fork` must not, see `streams.py`."""

    __slots__ = (
        "_count",
        "_deferred",
        "_doorbell",
        "_lock",
        "_map",
        "_space",
        "capacity",
        "data",
        "interrupts",
        "largest",
        "lasting",
        "mask",
        "pipes",
        "room",
        "strict",
        "words",
    )

    def __init__(self, ring, doorbell, space, pipes, interrupts):
        """Opens the ring in descriptor `ring`; `pipes` are those behind descriptors 1 and 2, for `sync`."""
        size = os.fstat(ring).st_size
        # A place for the ring and not the ring itself, so that another can be put there; and since Python's
        # own mapping of a file would keep a descriptor of it.
        self._map = mmap.mmap(-1, size)
        view = memoryview(self._map)
        self.words = view[:HEADER_BYTES].cast("Q")
        self._put_in_place(ring)
        self.capacity = self.words[CAPACITY]
        if (
            self.words[0] != MAGIC
            or HEADER_BYTES + self.capacity > size
            or self.capacity & (self.capacity - 1)
        ):
            raise RingError(
                "the descriptor `ring` holds no ring of this generation: check that agent and kernel match"
            )
        self.data = view[HEADER_BYTES : HEADER_BYTES + self.capacity]
        self.mask = self.capacity - 1
        self.largest = self.capacity // 2 - 8
        self.interrupts = interrupts
        # `head` may grow up to here without another look at `tail`. Zero sends every writer through `put`.
        self.room = 0
        # Set once output may come past Python: then every record looks at the pipes first.
        self.strict = self.lasting = False
        self.pipes = pipes
        self._doorbell = doorbell
        self._space = space
        # Reentrant, since a signal handler or a finalizer may print while this thread is within `put`.
        self._lock = threading.RLock()
        # While a payload in parts is written: what else the same thread wants to write meanwhile.
        self._deferred = None
        self._count = bytearray(4)

    def _put_in_place(self, ring):
        """Maps the ring in a descriptor, and closes that."""
        linux.map_shared(ctypes.addressof(ctypes.c_char.from_buffer(self._map)), len(self._map), ring)
        os.close(ring)

    def renew(self, ring):
        """Goes on in another ring of the same size, at the same address: holders of a `write` go on."""
        if os.fstat(ring).st_size != len(self._map):
            raise RingError("the new ring has another size than the one it takes the place of")
        self._put_in_place(ring)
        if self.words[0] != MAGIC or self.words[CAPACITY] != self.capacity:
            raise RingError("the new descriptor `ring` holds no ring of this generation")
        self.room = 0
        self._deferred = None

    def hold(self):
        """Returns the lock that keeps other threads from writing."""
        return self._lock

    def be_strict(self, lasting=False):
        """From now on every record keeps its place among what others write to the pipes.

        Asking the pipes makes a record cost ten times as much, so it ends with the cell, unless `lasting`.
        """
        self.strict = True
        self.lasting = self.lasting or lasting
        self.room = 0

    def relax(self):
        """Ends strictness at the end of a cell, when nobody is left who could write past Python."""
        if not self.strict or self.lasting:
            return
        try:
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            self.strict = False

    def put(self, kind, payload):
        """Writes one record of any size, after whatever lies in the pipes; waits while the ring is full."""
        with self._lock:
            if self._deferred is not None:
                # A finalizer or signal handler of this thread, in the middle of a payload in parts.
                self._deferred.append((kind, payload))
                return
            self._sync()
            if len(payload) <= self.largest:
                self._put_record(kind, 0, payload)
            else:
                self._put_parts(kind, payload)

    def _put_parts(self, kind, payload):
        """Writes a payload too large for one record; nothing comes between its parts."""
        deferred = []
        # An interrupt must not leave the reader with half a payload.
        self.interrupts.shield += 1
        try:
            self._deferred = deferred
            view = memoryview(payload)
            for start in range(0, len(view), self.largest):
                self.room = 0
                self._put_record(
                    kind, MORE if start + self.largest < len(view) else 0, view[start : start + self.largest]
                )
            self._deferred = None
            for later in deferred:
                self.put(*later)
        finally:
            self._deferred = None
            self.interrupts.release()

    def _put_record(self, kind, flags, payload):
        """Writes one record that fits. Waiting for room can be interrupted, the copy cannot."""
        record = b"".join((_record_header(len(payload), kind, flags, 0), payload))
        size = len(record)
        words, data, capacity = self.words, self.data, self.capacity
        while True:
            self._wait_for_room(size)
            head = words[HEAD]
            start = head & self.mask
            first = min(size, capacity - start)
            here, there = slice(start, start + first), slice(0, size - first)
            part, rest = record[:first], record[first:]
            # From this test to the store nothing is called and no object made that the collector tracks: no
            # other thread, signal handler or finalizer can write in between.
            if words[HEAD] == head and head + size <= words[TAIL] + capacity:
                data[here] = part
                data[there] = rest
                words[HEAD] = head + size
                break
        if words[READER_SLEEPING]:
            self._wake_reader()

    def _wait_for_room(self, size):
        words = self.words
        while words[HEAD] + size > words[TAIL] + self.capacity:
            words[WRITER_WAITING] = 1
            # The agent may have read between the look and the announcement.
            if words[HEAD] + size <= words[TAIL] + self.capacity:
                words[WRITER_WAITING] = 0
                break
            if words[READER_SLEEPING]:
                self._wake_reader()
            poll = select.poll()
            poll.register(self._space, select.POLLIN)
            # The timeout mends a wakeup that was lost because neither side's look is fenced against its
            # announcement.
            if poll.poll(20):
                try:
                    os.read(self._space, 8)
                except OSError:
                    pass
        self.room = 0 if self.strict or self._deferred is not None else words[TAIL] + self.capacity

    def _sync(self):
        """Tells the agent to read the pipes up to here first, when they hold something."""
        words = self.words
        for attempt in range(100):
            epoch = words[PIPE_EPOCH]
            unread = [self._unread(pipe) for pipe in self.pipes]
            if not any(unread):
                return
            positions = words[STDOUT_READ] + unread[0], words[STDERR_READ] + unread[1]
            if words[PIPE_EPOCH] == epoch and not epoch & 1:
                break
            # The agent is reading at this moment, which takes microseconds unless it has lost its processor.
            if attempt > 50:
                time.sleep(0.0001)
        self._put_record(SYNC, 0, _sync_positions(*positions))

    def _unread(self, pipe):
        try:
            fcntl.ioctl(pipe, termios.FIONREAD, self._count)
        except OSError:
            return 0
        return int.from_bytes(self._count, "little")

    def _wake_reader(self):
        # Between the two an interrupt would leave the agent asleep, and everybody sure that it is not.
        self.interrupts.shield += 1
        try:
            self.words[READER_SLEEPING] = 0
            try:
                os.write(self._doorbell, _ONE)
            except OSError:
                # Closed by user code: the agent looks from time to time.
                pass
        finally:
            self.interrupts.release()
