"""The peer: Jupyter Kernel Gateway with ipykernel, as it is shipped or tuned."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import socket
import sys
from itertools import pairwise
from pathlib import Path
from time import monotonic
from uuid import uuid4

import aiohttp

from evercell import Evercell
from processes import start
from system import PATIENCE_S, Outcome, Session, System

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent


# What JupyterLab negotiates, too: it spares the gateway from coding each message anew, which makes it faster.
PROTOCOL = "v1.kernel.websocket.jupyter.org"

# How long a kernel that is being restarted is waited for before it is asked again.
ASK_AGAIN_S = 0.05


def pack(channel: str, *parts: object) -> bytes:
    """A message: a table of offsets, the channel, and as JSON header, parent, metadata and content."""
    pieces = [channel.encode(), *(json.dumps(part).encode() for part in parts)]
    offsets = [8 * (len(pieces) + 2)]
    for piece in pieces:
        offsets.append(offsets[-1] + len(piece))
    table = [len(offsets), *offsets]
    return b"".join([*(number.to_bytes(8, "little") for number in table), *pieces])


def unpack(message: bytes) -> tuple[dict, dict, bytes]:
    """The header, the parent's header and the content of a message."""
    offsets = [int.from_bytes(message[at : at + 8], "little") for at in range(8, 8 * 7, 8)]
    _channel, header, parent, _metadata, content = (message[start:end] for start, end in pairwise(offsets))
    return json.loads(header), json.loads(parent), content


class JupyterSession(Session):
    """A kernel, spoken to in Jupyter's messages."""

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)
        self.client = uuid4().hex
        self.message = ""
        self.waits_for: set[str] = set()

    async def send(self, code: str) -> None:
        """Sends a cell."""
        content = {
            "code": code,
            "silent": False,
            "store_history": True,
            "user_expressions": {},
            "allow_stdin": False,
            "stop_on_error": True,
        }
        await self.request("execute_request", content)

    async def request(self, kind: str, content: dict) -> None:
        """Sends a request to the kernel."""
        self.message = uuid4().hex
        # Over when the reply has come and the kernel is idle again: they come on two channels, in any order.
        self.waits_for = {"reply", "idle"}
        header = {
            "msg_id": self.message,
            "msg_type": kind,
            "session": self.client,
            "username": "bench",
            "version": "5.4",
            "date": "",
        }
        await self.socket.send_bytes(pack("shell", header, {}, {}, content))

    def take(self, message: str | bytes, outcome: Outcome) -> bool:
        """Notes what a message says of the running cell; whether it is done with it."""
        header, parent, content = unpack(message)
        if parent.get("msg_id") != self.message:
            return False
        content = json.loads(content)
        match header["msg_type"]:
            case "stream" if content["name"] == "stdout":
                outcome.add(content["text"])
            case "execute_result":
                outcome.result = content["data"]["text/plain"]
            case "error":
                outcome.ok = False
                outcome.error = f"{content['ename']}: {content['evalue']}"
            case "execute_reply" | "kernel_info_reply":
                self.waits_for.discard("reply")
            case "status" if content["execution_state"] == "idle":
                self.waits_for.discard("idle")
        return not self.waits_for

    async def interrupt(self) -> None:
        """Interrupts the running cell."""
        await self.system.call("POST", f"/api/kernels/{self.name}/interrupt", {})

    async def restart(self) -> None:
        """Replaces the kernel by a new one; it has to be heard on both channels, or a cell is lost."""
        await self.system.call("POST", f"/api/kernels/{self.name}/restart", {})
        async with asyncio.timeout(PATIENCE_S):
            while True:
                await self.request("kernel_info_request", {})
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(ASK_AGAIN_S):
                        while not self.take(await self.receive(), Outcome()):
                            pass
                    return

    async def delete(self) -> None:
        """Ends the kernel."""
        await self.system.call("DELETE", f"/api/kernels/{self.name}")


class JupyterEvercell(Evercell):
    """Our server, spoken to in the same messages as the peer: what is compared differs in nothing else."""

    name = "Evercell, as Jupyter"

    async def open_as(self, name: str, settings: dict | None = None) -> JupyterSession:
        """Starts a kernel and connects to it, as with the gateway."""
        return await open_kernel(self)


async def open_kernel(system: System) -> JupyterSession:
    """Starts a kernel and connects to it; kernels have ids that the server gives."""
    kernel = await system.call("POST", "/api/kernels", {"name": "python3"})
    path = f"/api/kernels/{kernel['id']}/channels?session_id={uuid4().hex}"
    return JupyterSession(system, kernel["id"], await system.connect(path, protocols=[PROTOCOL]))


class Jupyter(System):
    """The gateway, with nothing set that it does not need to run."""

    name = "Kernel Gateway"
    config: Path | None = None

    async def start(self) -> None:
        """Starts the gateway, and waits until it answers."""
        self.token = secrets.token_hex(16)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        argv = [sys.executable, "-m", "kernel_gateway", "--KernelGatewayApp.ip=127.0.0.1"]
        argv += [f"--KernelGatewayApp.port={self.port}", "--KernelGatewayApp.port_retries=0"]
        if self.config is not None:
            argv.append(f"--config={self.config}")
        # All its files go with the directory. matplotlib finds the list of fonts that our kernels have, too:
        # making it takes seconds, and is not what is measured.
        fonts = ROOT / ".venv" / "share" / "evercell" / "matplotlib"
        if fonts.is_dir():
            shutil.copytree(fonts, self.directory / "matplotlib")
        env = os.environ | {
            "KG_AUTH_TOKEN": self.token,
            "HOME": str(self.directory),
            "IPYTHONDIR": str(self.directory / "ipython"),
            "JUPYTER_RUNTIME_DIR": str(self.directory / "runtime"),
            "JUPYTER_CONFIG_DIR": str(self.directory / "config"),
            "MPLCONFIGDIR": str(self.directory / "matplotlib"),
            "MPLBACKEND": "agg",
        }
        self.server = start(argv, env, self.directory, self.log)
        deadline = monotonic() + 30
        while not await self.answers():
            if self.server.poll() is not None or monotonic() > deadline:
                raise RuntimeError("the gateway did not start")
            await asyncio.sleep(0.1)

    async def answers(self) -> bool:
        """Whether it serves."""
        url, headers = self.address()
        try:
            async with aiohttp.request("GET", f"{url}/api", headers=headers) as response:
                return response.status == 200
        except aiohttp.ClientError:
            return False

    def address(self) -> tuple[str, dict[str, str]]:
        """Its URL, and the headers that let us in."""
        return f"http://127.0.0.1:{self.port}", {"Authorization": f"token {self.token}"}

    async def open_as(self, name: str) -> JupyterSession:
        """Starts a kernel and connects to it."""
        return await open_kernel(self)


class TunedJupyter(Jupyter):
    """The gateway as somebody would run it who has looked: Nagle's algorithm off, no limit on output."""

    name = "Kernel Gateway, tuned"
    config = HERE / "jupyter_tuned.py"
