"""A stand-in for the agent: makes the descriptors, starts a zygote, reads the ring, sends requests.

Written from `PROTOCOL.md` alone, so that it tests the kernel against the contract and not against itself.
"""

import array
import codecs
import fcntl
import json
import mmap
import os
import select
import socket
import struct
import subprocess
import sys
import termios
import time

import spec

KINDS = {1: "stdout", 2: "stderr", 3: "message", 4: "sync", 5: "reply"}
LIMIT_S = 30
UNJAILED = {
    "uid": None, "gid": None, "cwd": None, "home": None, "env": None, "rlimits": None, "oom_score_adj": None,
    "landlock": None, "seccomp": None,
}  # fmt: skip


class Zygote:
    """A zygote process and its listening socket."""

    def __init__(self):
        directory = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind("")
        self.listener.listen(64)
        self.lifeline, theirs = socket.socketpair()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pykernel", "zygote", "--listen", str(self.listener.fileno()),
             "--lifeline", str(theirs.fileno())],
            pass_fds=[self.listener.fileno(), theirs.fileno()],
            env={**os.environ, "PYTHONPATH": directory},
        )  # fmt: skip
        theirs.close()
        self.ready = json.loads(self.lifeline.makefile("rb").readline())

    def request(self, packet, descriptors):
        """Sends one packet and returns the answer."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.connect(self.listener.getsockname())
            data = packet if isinstance(packet, bytes) else json.dumps(packet).encode()
            socket.send_fds(connection, [data], descriptors)
            return json.loads(connection.recv(65536) or b"null")

    def spawn(self, jail=None, **extra):
        """Returns a `Kernel` forked from this zygote, once it is ready."""
        kernel = Kernel()
        started = time.perf_counter()
        names, descriptors = kernel.theirs(extra)
        answer = self.request(
            {"op": "spawn", "fds": names, "jail": {**UNJAILED, **(jail or {})}}, descriptors
        )
        kernel.close_theirs()
        if "error" in answer:
            kernel.close()
            raise SpawnFailed(answer["error"])
        kernel.pid = answer["pid"]
        kernel.wait_ready()
        kernel.ready_ms = (time.perf_counter() - started) * 1000
        return kernel

    def close(self):
        """Ends the zygote by its lifeline."""
        self.lifeline.close()
        assert self.process.wait(LIMIT_S) == 0
        self.listener.close()


class Twin:
    """A twin that has announced itself: its pid is what Linux says, not what it says."""

    def __init__(self, twins, door=None, after=None):
        if door is not None:
            # A copy of another twin: its first word is all that it says.
            packet, ancillary, _, _ = door.recvmsg(4096, socket.CMSG_SPACE(12))
            if not packet:
                raise KernelEnded("the copy ended")
            self.pid, self.after, self.hold = struct.unpack("3i", ancillary[0][2])[0], after, None
            self._door = door
            return
        space = socket.CMSG_SPACE(4) + socket.CMSG_SPACE(12)
        packet, ancillary, flags, _ = twins.recvmsg(4096, space, socket.MSG_CMSG_CLOEXEC)
        assert not flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC)
        content = {kind: data for _, kind, data in ancillary}
        self.after = json.loads(packet)["after"]
        self.hold = json.loads(packet)["hold"]
        self.pid = struct.unpack("3i", content[socket.SCM_CREDENTIALS])[0]
        [door] = array.array("i", content[socket.SCM_RIGHTS])
        self._door = socket.socket(fileno=door)

    def wake(self, names, descriptors):
        """Tells it to take the kernel's place."""
        socket.send_fds(self._door, [json.dumps({"op": "wake", "fds": names}).encode()], descriptors)
        self._door.close()

    def copy(self):
        """Has it fork once more, and returns the copy."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        ours.settimeout(LIMIT_S)
        socket.send_fds(self._door, [b'{"op": "split", "fds": ["door"]}'], [theirs.fileno()])
        theirs.close()
        return Twin(None, ours, self.after)

    def close(self):
        """Lets it go: it ends."""
        self._door.close()


class SpawnFailed(Exception):
    """The zygote's error answer."""


class KernelEnded(Exception):
    """The kernel has closed its side."""


class Kernel:
    """The agent's side of one kernel: everything it said is in `events`, in order, checked against `spec`."""

    def __init__(self, capacity=1 << 20):
        self.capacity = capacity
        self.pid = None
        self.events = []
        self.replies = {}
        self.next_id = 1
        self.executed = 0
        self._parts = []
        self._decoders = {}
        ring = os.memfd_create("ring")
        os.ftruncate(ring, 4096 + capacity)
        self._map = mmap.mmap(ring, 4096 + capacity)
        struct.pack_into("<QQ", self._map, 0, 0x31474E4952435645, capacity)
        self._words = memoryview(self._map)[:4096].cast("Q")
        self._words[40] = 2
        self._doorbell = os.eventfd(0, os.EFD_NONBLOCK)
        self._space = os.eventfd(0, os.EFD_NONBLOCK)
        self._control, control = socket.socketpair()
        self._pipes, writers = [], []
        for _ in range(2):
            reader, writer = os.pipe()
            os.set_blocking(reader, False)
            self._pipes.append(reader)
            writers.append(writer)
        self._twins, twins = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._twins.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._theirs = {
            "control": control.detach(), "ring": ring, "stdout": writers[0], "stderr": writers[1], "twins": twins.detach(),
        }  # fmt: skip
        self.reading = True
        self.twin = None

    def theirs(self, extra=None):
        """Returns the names and numbers of the descriptors the kernel is given."""
        named = {**self._theirs, "doorbell": self._doorbell, "space": self._space, **(extra or {})}
        return list(named), list(named.values())

    def close_theirs(self):
        """Closes what only the kernel uses."""
        for descriptor in self._theirs.values():
            os.close(descriptor)
        self._theirs = {}

    def close(self):
        """Hangs up: the kernel exits. Once is enough."""
        if self._control.fileno() < 0:
            return
        self.close_theirs()
        self._control.close()
        self._twins.close()
        if self.twin:
            self.twin.close()
        for descriptor in (*self._pipes, self._doorbell, self._space):
            os.close(descriptor)

    # --- twins ------------------------------------------------------------------------------------------------------------

    def wait_twin(self):
        """Waits until the kernel has a twin that was made after its last execution, and returns it."""
        while self.twin is None or self.twin.after != self.executed:
            self._twins.settimeout(LIMIT_S)
            found = Twin(self._twins)
            if self.twin:
                self.twin.close()
            self.twin = found
        return self.twin

    def hold(self):
        """Has the kernel make a twin that is kept, and returns it."""
        request = self.send("checkpoint")
        while True:
            self._twins.settimeout(LIMIT_S)
            found = Twin(self._twins)
            if found.hold == request:
                assert self.wait_reply(request, "checkpoint") == {"id": request}
                return found
            if self.twin:
                self.twin.close()
            self.twin = found

    def restored(self):
        """Wakes the twin, in place of this kernel, and returns its agent's side."""
        kernel = Kernel(self.capacity)
        names, descriptors = kernel.theirs()
        self.twin.wake(names, descriptors)
        kernel.close_theirs()
        kernel.pid = self.twin.pid
        kernel.next_id, kernel.executed = self.next_id, self.executed
        kernel.wait_ready()
        self.twin = None
        self.close()
        return kernel

    def lost_by(self, code):
        """Runs a cell that ends the kernel, and returns the restored one."""
        self.wait_twin()
        self.start(code)
        self.wait_end()
        return self.restored()

    def wait_end(self):
        """Waits until the process is gone, and reads what it has left."""
        process = os.pidfd_open(self.pid)
        poll = select.poll()
        poll.register(process, select.POLLIN)
        self.wait(lambda: poll.poll(0))
        os.close(process)
        while self._read_ring() or self._read_pipes([unread(pipe) for pipe in self._pipes]):
            pass

    # --- requests ----------------------------------------------------------------------------------------------------

    def send(self, operation, **fields):
        """Sends a request and returns its id."""
        request = {"op": operation, "id": self.next_id, **fields}
        self.next_id += 1
        data = json.dumps(request).encode()
        self._control.sendall(struct.pack("<I", len(data)) + data)
        return request["id"]

    def send_raw(self, data):
        """Sends bytes as one frame."""
        self._control.sendall(struct.pack("<I", len(data)) + data)

    def call(self, operation, **fields):
        """Sends a request and returns its reply, checked."""
        return self.wait_reply(self.send(operation, **fields), operation)

    def wait_reply(self, identity, operation="execute"):
        """Waits for a reply and returns it."""
        self.wait(lambda: identity in self.replies)
        reply = self.replies.pop(identity)
        if operation == "execute":
            self.executed = identity
        if "error" not in reply or operation == "execute":
            spec.REPLIES[operation].check(reply)
        return reply

    def start(self, code, **fields):
        """Sends a cell without waiting for it."""
        return self.send("execute", **{"code": code, "silent": False, "store_history": True, "allow_stdin": True,
                                       "user_expressions": {}, "cell": f"c{self.next_id}", **fields})  # fmt: skip

    def run(self, code, **fields):
        """Runs a cell and returns its reply; its events are in `events`, emptied before."""
        self.events.clear()
        return self.wait_reply(self.start(code, **fields))

    def ok(self, code, **fields):
        """Runs a cell that must succeed."""
        reply = self.run(code, **fields)
        assert reply["status"] == "ok", reply["error"]
        return reply

    def result(self, code):
        """Runs a cell and returns the text of its last expression."""
        self.ok(code)
        [found] = self.messages("execute_result")
        return found["data"]["text/plain"]

    # --- what came ---------------------------------------------------------------------------------------------------

    def text(self, stream="stdout"):
        """Returns all text of one stream."""
        return "".join(event[1] for event in self.events if event[0] == stream)

    def messages(self, kind=None):
        """Returns the messages, of one type or all."""
        return [e[1] for e in self.events if e[0] == "message" and kind in (None, e[1]["type"])]

    def order(self):
        """Returns the events as short texts, neighbouring text of a stream joined."""
        found = []
        for kind, value in self.events:
            if kind == "message":
                found.append(value["type"])
            elif found and found[-1].startswith(kind + " "):
                found[-1] += value
            else:
                found.append(f"{kind} {value}")
        return found

    def wait_ready(self):
        """Waits for the first message."""
        self.wait(lambda: self.messages("ready"))
        [self.ready] = self.messages("ready")
        self.events.clear()

    def wait(self, condition, limit_s=LIMIT_S):
        """Reads until the condition holds."""
        deadline = time.monotonic() + limit_s
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"nothing after {limit_s} s; seen: {self.events[-20:]!r}")
            self._pump()

    def _pump(self):
        """Reads what is there; sleeps when there is nothing, announced as the protocol says."""
        if not self.reading:
            return
        # In this order: what lies in the pipes now, and then an empty ring.
        there = [unread(pipe) for pipe in self._pipes]
        if self._read_ring() or self._read_pipes(there):
            return
        self._words[24] = 1
        poll = select.poll()
        for descriptor in (self._doorbell, *self._pipes, self._control.fileno()):
            poll.register(descriptor, select.POLLIN)
        # The writer may have looked just before the announcement: once more, a millisecond later.
        try:
            ended = os.pidfd_open(self.pid) if self.pid else None
        except ProcessLookupError:
            # It is gone. The control socket does not say so as long as a twin has it too.
            while self._read_ring():
                pass
            self._read_pipes([1 << 20] * 2)
            raise KernelEnded(self.text("stderr")) from None
        if ended is not None:
            poll.register(ended, select.POLLIN)
        ready = poll.poll(1)
        if not ready and self._words[8] == self._words[16]:
            # No more looks: a lost wakeup must show as a test that fails.
            ready = poll.poll(LIMIT_S * 1000)
        if ended is not None:
            os.close(ended)
        self._words[24] = 0
        for descriptor, events in ready:
            if descriptor == self._doorbell:
                try:
                    os.read(descriptor, 8)
                except BlockingIOError:
                    pass
            if descriptor == self._control.fileno() and events & select.POLLHUP and not self._read_ring():
                self._read_pipes([1 << 20] * 2)
                raise KernelEnded(self.text("stderr"))

    def _read_pipes(self, wanted):
        """Reads as many bytes from each pipe, in one epoch."""
        if not any(wanted):
            return False
        words = self._words
        words[40] += 1
        for index, (pipe, stream) in enumerate(zip(self._pipes, ("stdout", "stderr"), strict=True)):
            data = b""
            while len(data) < wanted[index]:
                try:
                    block = os.read(pipe, wanted[index] - len(data))
                except BlockingIOError:
                    break
                if not block:
                    break
                data += block
            words[41 + index] += len(data)
            if data:
                self._add_text(stream, data, "pipe")
        words[40] += 1
        return True

    def _read_ring(self):
        words, data, mask = self._words, memoryview(self._map)[4096:], self.capacity - 1
        head, tail = words[8], words[16]
        if head == tail:
            return False
        assert head - tail <= self.capacity
        block = b"".join((data[tail & mask : min((tail & mask) + head - tail, self.capacity)],
                          data[: max(0, (tail & mask) + head - tail - self.capacity)]))  # fmt: skip
        words[16] = head
        if words[32]:
            words[32] = 0
            os.write(self._space, struct.pack("<Q", 1))
        position = 0
        while position < len(block):
            size, kind, flags, zero = struct.unpack_from("<IBBH", block, position)
            assert (zero, kind in KINDS, flags in (0, 1)) == (0, True, True)
            assert size + 8 <= self.capacity // 2
            self._record(kind, flags, block[position + 8 : position + 8 + size])
            position += 8 + size
        assert position == len(block)
        return True

    def _record(self, kind, flags, payload):
        if self._parts:
            assert self._parts[0] == kind, "parts of a payload follow each other"
        if flags & 1 or self._parts:
            self._parts = self._parts or [kind]
            self._parts.append(payload)
            if flags & 1:
                return
            payload, self._parts = b"".join(self._parts[1:]), []
        name = KINDS[kind]
        if name == "sync":
            positions = struct.unpack("<QQ", payload)
            missing = [
                max(0, position - read) for position, read in zip(positions, self._words[41:43], strict=True)
            ]
            assert all(missing[n] <= unread(self._pipes[n]) for n in (0, 1))
            self._read_pipes(missing)
        elif name in ("stdout", "stderr"):
            assert payload
            self._add_text(name, payload, "ring")
        else:
            size = int.from_bytes(payload[:4], "little")
            fields = json.loads(payload[4 : 4 + size], parse_constant=lambda c: pytest_fail(c))
            rest = payload[4 + size :]
            if name == "reply":
                assert fields["id"] not in self.replies, "one reply for each request"
                self.replies[fields["id"]] = fields
                return
            spec.check_message(fields)
            lengths = fields.get("buffers") or []
            assert sum(lengths) == len(rest)
            raw = []
            for length in lengths:
                raw.append(rest[:length])
                rest = rest[length:]
            self.events.append((name, {**fields, "raw": raw} if lengths else fields))

    def _add_text(self, stream, data, source):
        decoder = self._decoders.get((stream, source))
        if decoder is None:
            decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
            self._decoders[stream, source] = decoder
        text = decoder.decode(data)
        if text:
            self.events.append((stream, text))


def pytest_fail(constant):
    """Refuses what JSON does not have."""
    raise AssertionError(f"`{constant}` in JSON")


def unread(pipe):
    """Returns how many bytes lie in a pipe."""
    count = array.array("i", [0])
    fcntl.ioctl(pipe, termios.FIONREAD, count)
    return count[0]
