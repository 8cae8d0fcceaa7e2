"""Requests from the control socket, messages and replies into the ring."""

import json
import os
import select

from . import ring as ring_module
from .messages import encode

# A request is what the agent sends after its own checks; this bound only keeps a broken length from eating
# the memory.
LARGEST_REQUEST = 256 * 1024 * 1024
# As the agent has it: one that is larger breaks the protocol.
LARGEST_MESSAGE = 64 * 1024 * 1024


class Closed(Exception):
    """The agent has closed the control socket: the kernel ends."""


class Channel:
    """Both directions of the talk with the agent."""

    def __init__(self, interrupts):
        self.control = None
        self.ring = None
        self.interrupts = interrupts
        # The cell that runs: what it causes says so.
        self.cell = None
        # What is in the pipes must go before a message; and what libc still holds before that.
        self.flush_c = None
        self._bytes = bytearray()
        self._waiting = []

    def attach(self, control, ring):
        """Connects a channel that was made before there was anybody to talk to."""
        self.control = control
        self.ring = ring
        os.set_blocking(control, False)

    def forget(self):
        """Forgets what was read and not served: it was for the kernel that this one takes the place of."""
        self._bytes.clear()
        self._waiting.clear()
        self.cell = None
        os.set_blocking(self.control, False)

    def leave_ring(self):
        """In a child made by `os.fork`: only text gets out of it, through its descriptors."""
        self.ring = None

    # --- out ------------------------------------------------------------------------------------------------

    def send(self, message, buffers=()):
        """Sends one message. Raises `ValueError` if it is too large."""
        fields = message.fields()
        if self.cell is not None:
            fields["cell"] = self.cell
        ring = self.ring
        if ring is None:
            _print_plainly(fields)
            return
        if self.flush_c is not None:
            self.flush_c()
        payload = encode(fields, buffers)
        if len(payload) > LARGEST_MESSAGE:
            raise ValueError(
                f"an output of {len(payload)} bytes is not kept: at most {LARGEST_MESSAGE} are; "
                "write it to a file instead"
            )
        ring.put(ring_module.MESSAGE, payload)

    def end_cell(self):
        """Ends what belongs to a cell only: its name on messages, the strict order of its output."""
        self.cell = None
        if self.ring is not None:
            self.ring.relax()

    def reply(self, request, fields):
        """Sends the one answer to a request."""
        if self.ring is None:
            # A forked child has come back from its cell: it is not the session's kernel.
            os._exit(0)
        self.ring.put(ring_module.REPLY, encode({"id": request, **fields}))

    # --- in -------------------------------------------------------------------------------------------------

    def next_request(self):
        """Returns the next request in order, or `None` when none has arrived in full."""
        if self._waiting:
            return self._waiting.pop(0)
        return self._take() or (self._take() if self._fill() else None)

    def wait_for_input_reply(self, request):
        """Waits for the `input_reply` to `request`; can be interrupted. All else stays for later."""
        poll = select.poll()
        poll.register(self.control, select.POLLIN)
        while True:
            found = self._take()
            if found is None:
                poll.poll()
                try:
                    self._fill()
                except Closed:
                    # Not an exception for user code to catch: there is nobody left to talk to.
                    os._exit(0)
            elif found.get("op") != "input_reply":
                self._waiting.append(found)
            elif found.get("request") == request:
                return found

    def _fill(self):
        """Reads what has arrived. Returns whether there was anything."""
        # An interrupt between reading and keeping the bytes would lose them.
        self.interrupts.shield += 1
        try:
            try:
                chunk = os.read(self.control, 1 << 20)
            except BlockingIOError:
                return False
            if not chunk:
                raise Closed
            self._bytes += chunk
            return True
        finally:
            self.interrupts.release()

    def _take(self):
        """Takes one whole request from the bytes read, skipping what is none."""
        self.interrupts.shield += 1
        try:
            while len(self._bytes) >= 4:
                size = int.from_bytes(self._bytes[:4], "little")
                if size > LARGEST_REQUEST:
                    raise Closed
                if len(self._bytes) < 4 + size:
                    return None
                text = bytes(self._bytes[4 : 4 + size])
                del self._bytes[: 4 + size]
                try:
                    request = json.loads(text)
                except (ValueError, RecursionError):
                    request = None
                # Without an id there is nothing to answer to.
                if isinstance(request, dict):
                    return request
            return None
        finally:
            self.interrupts.release()


def _print_plainly(fields):
    text = fields.get("data", {}).get("text/plain") if isinstance(fields.get("data"), dict) else None
    text = text or "\n".join(fields.get("traceback") or [])
    if text:
        print(text)
