"""What is measured, as the rows see it: a system that opens sessions, and a session that runs cells.

Both sides are driven by the same client library in the same way: one HTTP connection pool, one WebSocket a
session, one coroutine that sends a cell and reads until the system says that it is done.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter, time_ns

import aiohttp

from processes import descendants, stop

# No cell of any row takes longer; a system that hangs is an error, not a figure.
PATIENCE_S = 60.0


@dataclass
class Outcome:
    """What came of a cell."""

    ok: bool = True
    error: str = ""
    result: str = ""
    # Pieces of standard output, each with the time of its arrival.
    pieces: list[tuple[int, str]] = field(default_factory=list)
    # From sending the cell to the message that says that it is done.
    seconds: float = 0.0

    @property
    def text(self) -> str:
        """All that was written to standard output."""
        return "".join(piece for _, piece in self.pieces)

    def add(self, text: str) -> None:
        """Notes a piece of output that arrives now."""
        self.pieces.append((time_ns(), text))


class Session(ABC):
    """One session with its WebSocket."""

    def __init__(self, system: System, name: str, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.system = system
        self.name = name
        self.socket = socket

    async def run(self, code: str) -> Outcome:
        """Runs a cell to its end; an exception in it is an error here."""
        outcome = await self.try_run(code)
        if not outcome.ok:
            raise RuntimeError(f"{self.system.name}: a cell failed: {outcome.error}")
        return outcome

    async def try_run(self, code: str) -> Outcome:
        """Runs a cell to its end, however it ends."""
        began = perf_counter()
        await self.send(code)
        outcome = await self.finish()
        outcome.seconds = perf_counter() - began
        return outcome

    async def finish(self, until: str | None = None) -> Outcome:
        """Reads until the running cell is done, or until it has written `until`."""
        outcome = Outcome()
        # Around all of it: a wait for one message would begin anew with every ping.
        async with asyncio.timeout(PATIENCE_S):
            while not self.take(await self.receive(), outcome):
                if until is not None and outcome.pieces and until in outcome.text:
                    break
        return outcome

    async def receive(self) -> str | bytes:
        """The next message."""
        message = await self.socket.receive()
        if message.type not in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
            raise RuntimeError(f"{self.system.name}: the connection ended: {message}")
        return message.data

    @abstractmethod
    async def send(self, code: str) -> None:
        """Sends a cell."""

    @abstractmethod
    def take(self, message: str | bytes, outcome: Outcome) -> bool:
        """Notes what a message says of the running cell; whether it is done with it."""

    @abstractmethod
    async def interrupt(self) -> None:
        """Interrupts the running cell."""

    @abstractmethod
    async def restart(self) -> None:
        """Replaces the kernel by a new one."""

    @abstractmethod
    async def delete(self) -> None:
        """Ends the session, with its kernel."""

    async def close(self) -> None:
        """Ends the session and its connection."""
        with contextlib.suppress(aiohttp.ClientError):
            await self.socket.close()
        await self.delete()


class System(ABC):
    """A server under measurement. Used as a context: it runs within."""

    name: str
    server: subprocess.Popen

    def __init__(self, directory: Path) -> None:
        # Everything it writes goes here.
        self.directory = directory
        self.directory.mkdir(parents=True)
        self.log = directory / "stderr.log"
        self.opened = 0

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[System]:
        """Starts it, and stops it whatever happens."""
        try:
            await self.start()
            url, headers = self.address()
            async with aiohttp.ClientSession(
                url, headers=headers, timeout=aiohttp.ClientTimeout(120)
            ) as http:
                self.http = http
                yield self
        except Exception:
            tail = self.log.read_text(errors="replace").splitlines()[-15:]
            print(f"bench: {self.name}: the last it said:", *tail, sep="\n  ", flush=True)
            raise
        finally:
            if hasattr(self, "server"):
                stop(self.server)

    def processes(self) -> set[int]:
        """All its processes now, kernels and sandboxes included."""
        # Sandboxes are not below their server, since they outlive it. All that descends from us is of this
        # system, since systems run one at a time.
        return descendants(os.getpid())

    async def open(self) -> Session:
        """Opens a new session with its WebSocket, ready to be sent a cell."""
        self.opened += 1
        return await self.open_as(f"bench-{self.opened}")

    @abstractmethod
    async def start(self) -> None:
        """Starts the server, and waits until it can serve."""

    @abstractmethod
    def address(self) -> tuple[str, dict[str, str]]:
        """Its URL, and the headers that let us in."""

    @abstractmethod
    async def open_as(self, name: str) -> Session:
        """Opens a session."""

    async def connect(self, path: str, **options: object) -> aiohttp.ClientWebSocketResponse:
        """Opens a WebSocket with no bound on messages, and without compression on either side."""
        return await self.http.ws_connect(path, max_msg_size=0, compress=0, **options)

    async def call(self, method: str, path: str, body: object = None) -> dict:
        """An HTTP request with a JSON answer."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} if data else None
        async with self.http.request(method, path, data=data, headers=headers) as response:
            text = await response.text()
            if response.status >= 400:
                raise RuntimeError(f"{self.name}: {method} {path}: {response.status} {text}")
            return json.loads(text) if text else {}
