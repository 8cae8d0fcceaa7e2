"""Evercell, started as `make run` starts it, with all data in a directory of its own."""

from __future__ import annotations

import json
import os
import select
import subprocess
from pathlib import Path

import aiohttp

from processes import start
from system import Outcome, Session, System

ROOT = Path(__file__).resolve().parent.parent


class EvercellSession(Session):
    """A session of the native API."""

    cells = 0

    def __init__(self, system: System, name: str, socket: aiohttp.ClientWebSocketResponse) -> None:
        super().__init__(system, name, socket)
        # What each cell said of the checkpoint behind it.
        self.checkpoints: list[dict] = []

    async def send(self, code: str) -> None:
        """Sends a cell."""
        self.cells += 1
        await self.socket.send_str(json.dumps({"op": "execute", "ref": self.cells, "code": code}))

    def take(self, message: str | bytes, outcome: Outcome) -> bool:
        """Notes what a message says of the running cell; whether it is done with it."""
        event = json.loads(message)
        match event.get("event"):
            case "stream" if event["name"] == "stdout":
                outcome.add(event["text"])
            case "execute_result":
                outcome.result = event["data"]["text/plain"]
            case "error":
                outcome.error = f"{event['ename']}: {event['evalue']}"
            case "cell_finished":
                self.checkpoints.append(event.get("checkpoint") or {})
                outcome.ok = event["status"] == "ok"
                outcome.error = outcome.error or str(event.get("cause", ""))
                return True
            case "kernel_failed":
                raise RuntimeError(event["message"])
            case None if not event["ok"]:
                raise RuntimeError(f"refused: {event['error']}")
        return False

    async def interrupt(self) -> None:
        """Interrupts the running cell."""
        await self.system.call("POST", f"/v1/sessions/{self.name}/interrupt")

    async def restart(self) -> None:
        """Replaces the kernel by a new one."""
        await self.system.call("POST", f"/v1/sessions/{self.name}/restart")

    async def delete(self) -> None:
        """Ends the session and removes what is left of it."""
        await self.system.call("DELETE", f"/v1/sessions/{self.name}")


class Evercell(System):
    """The server with its defaults."""

    name = "Evercell"
    flags: tuple[str, ...] = ()

    async def start(self) -> None:
        """Starts the server, and waits for its ready line."""
        program = os.environ.get("EVERCELL_BIN") or str(ROOT / "target" / "release" / "evercell")
        argv = [program, "serve", "--listen", "127.0.0.1:0", "--ready-json"]
        argv += ["--data-dir", str(self.directory / "data")]
        argv += ["--python-env", str(ROOT / ".venv"), "--kernel-lib", str(ROOT / "kernel-image")]
        # What the caller's shell sets for a server of its own does not count here.
        env = {name: value for name, value in os.environ.items() if not name.startswith("EVERCELL_")}
        self.server = start([*argv, *self.flags], env, ROOT, self.log, stdout=subprocess.PIPE)
        ready, _, _ = select.select([self.server.stdout], [], [], 60)
        line = self.server.stdout.readline() if ready else b""
        if not line:
            raise RuntimeError("the server did not say that it is ready")
        self.ready = json.loads(line)

    def address(self) -> tuple[str, dict[str, str]]:
        """Its URL, and the headers that let us in."""
        return f"http://{self.ready['listen']}", {"Authorization": f"Bearer {self.ready['token']}"}

    async def open_as(self, name: str, settings: dict | None = None) -> EvercellSession:
        """Opens a session and connects to it."""
        await self.call("PUT", f"/v1/sessions/{name}", settings)
        return EvercellSession(self, name, await self.connect(f"/v1/sessions/{name}/ws"))


class ColdEvercell(Evercell):
    """The server without a pool: each kernel is made when it is asked for."""

    name = "Evercell, no pool"
    flags = ("--pool", "0", "--pool-max", "0")
