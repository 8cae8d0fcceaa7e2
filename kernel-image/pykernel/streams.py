"""`sys.stdout` and `sys.stderr`: text straight into the ring.

Every `write` is on its way when it returns; there is no buffer, no flush and no thread. Before this the price
of that was a system call per line, here it is a copy of some bytes.
"""

import ctypes
import functools
import io
import os
import subprocess
import sys

from . import system, twin
from .ring import HEAD, READER_SLEEPING, STDOUT, _record_header

# Text longer than this is cut before it is encoded, so that a huge string costs no second copy of itself.
PIECE = 64 * 1024
_SHORT = 1024


class BinaryStream(io.RawIOBase):
    """`sys.stdout.buffer`: bytes that need not be text."""

    def __init__(self, text):
        self._text = text

    def writable(self):
        """Returns `True`."""
        return True

    def fileno(self):
        """Returns 1 or 2."""
        return self._text.fileno()

    def write(self, data):
        """Writes all of `data`, in pieces, and returns its length."""
        view = memoryview(data).cast("B")
        for start in range(0, len(view), PIECE):
            self._text.write_bytes(view[start : start + PIECE].tobytes())
        return len(view)


class TextStream(io.TextIOBase):
    """A text stream whose records go into the ring, and in a forked child to the descriptor instead."""

    encoding = "utf-8"
    errors = "surrogateescape"
    newlines = None
    line_buffering = True
    write_through = True
    # `open` gives this to text streams, and some programs look at it.
    mode = "w"

    def __init__(self, ring, kind):
        self.ring = ring
        self.kind = kind
        self.name = "<stdout>" if kind == STDOUT else "<stderr>"
        self.buffer = BinaryStream(self)
        # As an attribute of the instance the function needs no binding for each call.
        self.write = self._writer()

    def _writer(self):
        """Returns `write`, with everything it needs at hand: it runs once or twice for every printed line."""
        ring, kind = self.ring, self.kind
        words, data, mask, capacity = ring.words, ring.data, ring.mask, ring.capacity
        headers = record_headers(kind)
        write_slowly = self._write

        def write(text):
            """Writes `text` and returns its length in characters."""
            try:
                record = text.encode()
                record = headers[len(record)] + record
                size = len(record)
                head = words[HEAD]
                start = head & mask
                end = start + size
                here = slice(start, end)
            except (AttributeError, IndexError, TypeError, UnicodeEncodeError):
                # Long, empty, no string, no text. Not answered here: an interrupt would show this exception
                # too.
                head = None
            # From here to the store of `head`: see `Ring._put_record`. A sleeping agent is woken in `put`.
            if (
                words[HEAD] == head
                and head + size <= ring.room
                and end <= capacity
                and not words[READER_SLEEPING]
            ):
                data[here] = record
                words[HEAD] = head + size
                return len(text)
            return write_slowly(text)

        return write

    def _write(self, text):
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        for start in range(0, len(text), PIECE):
            piece = text[start : start + PIECE]
            try:
                encoded = piece.encode()
            except UnicodeEncodeError:
                encoded = piece.encode(
                    "utf-8", "surrogateescape" if self._escapes(piece) else "backslashreplace"
                )
            self.write_bytes(encoded)
        return len(text)

    @staticmethod
    def _escapes(text):
        """Tells whether all surrogates in `text` stand for bytes, as in file names that are not text."""
        return all(not 0xD800 <= ord(c) <= 0xDFFF or 0xDC80 <= ord(c) <= 0xDCFF for c in text)

    def write_bytes(self, data):
        """Writes bytes as they are."""
        if self.ring is not None:
            self.ring.put(self.kind, data)
            return
        while data:
            data = data[os.write(self.fileno(), data) :]

    def leave_ring(self):
        """From now on writes to the descriptor: this process is a child, and the ring has one producer."""
        self.ring = None
        self.write = self._write

    def fileno(self):
        """Returns 1 or 2: what is written there reaches the agent too, in order."""
        return 1 if self.kind == STDOUT else 2

    def writable(self):
        """Returns `True`."""
        return True

    def isatty(self):
        """Returns `False`: no cursor can be moved and nobody types."""
        return False

    def flush(self):
        """Does nothing: there is nothing that waits."""

    def close(self):
        """Does nothing: a later cell prints too."""

    @property
    def closed(self):
        """Is `False`, always."""
        return False

    def reconfigure(self, **_options):
        """Accepts what scripts set on standard streams; nothing here depends on it."""


@functools.cache
def record_headers(kind):
    """Returns the record headers of short texts by length; made in the zygote, since it takes a while."""
    return [None, *(_record_header(size, kind, 0, 0) for size in range(1, _SHORT))]


def watch_other_writers(ring, streams, leave_ring):
    """Keeps the order with child processes and C code, and keeps forked children off the ring.

    Looking into the pipes costs a system call, so it begins with the first thing that can write there past
    Python.
    """

    def strict_before(owner, name):
        original = getattr(owner, name)

        @functools.wraps(original)
        def call(*args, **kwargs):
            # A library that loads another hardly prints from it; a cell that does may, from now on.
            lasting = owner is ctypes.CDLL and sys._getframe(1).f_globals.get("__name__") == "__main__"
            ring.be_strict(lasting)
            return original(*args, **kwargs)

        setattr(owner, name, call)

    os.system = system.os_system
    strict_before(os, "posix_spawn")
    strict_before(os, "posix_spawnp")
    strict_before(subprocess, "_fork_exec")
    strict_before(ctypes.CDLL, "__init__")

    def before_fork():
        if not twin.is_being_made():
            ring.be_strict()

    def in_child():
        # A twin is not a child of the session's: one day it is the kernel.
        if twin.is_being_made():
            return
        leave_ring()
        for stream in streams:
            stream.leave_ring()

    os.register_at_fork(before=before_fork, after_in_child=in_child)


def buffer_c_stdout_by_line():
    """Makes what C code prints appear line by line: libc would buffer a pipe in blocks of 4 KiB.

    Returns a function that writes out what libc still holds; it is called at the end of a cell.
    """
    libc = ctypes.CDLL(None)
    libc.setvbuf(ctypes.c_void_p.in_dll(libc, "stdout"), None, 1, 0)
    flush = libc.fflush
    return lambda: flush(None)
