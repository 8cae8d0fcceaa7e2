"""What a container costs: pooled, made to order, beside `docker run` of the same image; fifty at once."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path
from statistics import median
from time import perf_counter

from jupyter_client import BlockingKernelClient

from evercell import Evercell

Samples = dict[str, list[float]]

IMAGE = "evercell-kernel"
MANY = 50
POOL = 4


class DockerEvercell(Evercell):
    """The server with containers, and a pool."""

    name = "Evercell, docker"
    flags = ("--backend", "docker", "--docker-link", "socket", "--pool", str(POOL), "--pool-max", str(POOL))


class ColdDockerEvercell(Evercell):
    """The server with containers that are made when they are asked for."""

    name = "Evercell, docker, no pool"
    flags = ("--backend", "docker", "--docker-link", "socket", "--pool", "0", "--pool-max", "0")


class NativeEvercell(Evercell):
    """The server without containers."""

    name = "Evercell, native"
    flags = ("--pool", str(POOL), "--pool-max", str(POOL))


def is_here() -> bool:
    """Whether there is an engine with our image."""
    return bool(shutil.which("docker")) and docker("image", "inspect", IMAGE).returncode == 0


def docker(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs the engine's own client."""
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)


async def measure(directory: Path, repetitions: int) -> Samples:
    """All figures; each system on its own, one after the other."""
    samples: Samples = {}
    for key, make in (("native", NativeEvercell), ("docker", DockerEvercell), ("cold", ColdDockerEvercell)):
        system = make(directory / key)
        async with system.running():
            # The first one reads everything from disk.
            await first_result(system)
            samples[key] = []
            for _ in range(repetitions):
                # The pool is given time to be full again.
                await asyncio.sleep({"native": 0.3, "docker": 5.0, "cold": 0.0}[key])
                samples[key].append(await first_result(system))
            if key == "cold":
                samples["idle_mb"] = await idle(system)
    samples["engine"] = [timed_run("true") for _ in range(repetitions)]
    samples["ipykernel"] = [ipykernel(directory) for _ in range(repetitions)]
    return samples


async def first_result(system: Evercell) -> float:
    """From asking for a session to its first result, connecting included."""
    began = perf_counter()
    session = await system.open()
    outcome = await session.run("1+1")
    took = perf_counter() - began
    if outcome.result != "2":
        raise RuntimeError(f"not the result: {outcome}")
    await session.close()
    return took


async def idle(system: Evercell) -> list[float]:
    """Memory of the machine for each of many idle sessions that have run a cell, in MB."""
    before = available_mb()
    sessions = []
    for _ in range(MANY):
        session = await system.open()
        await session.run("1+1")
        sessions.append(session)
    # All of them are alive.
    for session in sessions:
        await session.run("1+1")
    used = (before - available_mb()) / MANY
    for session in sessions:
        await session.close()
    return [used]


def available_mb() -> float:
    """What the machine has left."""
    with open("/proc/meminfo", encoding="ascii") as file:
        kilobytes = next(int(line.split()[1]) for line in file if line.startswith("MemAvailable:"))
    return kilobytes * 1024 / 1e6


def timed_run(*command: str) -> float:
    """The engine's own start and end of a container."""
    began = perf_counter()
    done = docker("run", "--rm", "--network", "none", IMAGE, *command)
    if done.returncode != 0:
        raise RuntimeError(done.stderr)
    return perf_counter() - began


def ipykernel(directory: Path) -> float:
    """From `docker run` of the same image with ipykernel to its first result."""
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    # Sockets have short names.
    with tempfile.TemporaryDirectory(prefix="k", dir="/tmp") as sockets:
        Path(sockets).chmod(0o777)
        connection = {"transport": "ipc", "ip": f"{sockets}/s", "key": uuid.uuid4().hex}
        connection["signature_scheme"] = "hmac-sha256"
        names = ("shell", "iopub", "stdin", "control", "hb")
        connection |= {f"{name}_port": number for number, name in enumerate(names, 1)}
        file = Path(sockets) / "connection.json"
        file.write_text(json.dumps(connection))
        name = f"evercell-bench-{uuid.uuid4().hex}"
        began = perf_counter()
        started = docker(
            *("run", "--detach", "--rm", "--name", name, "--network", "none"),
            *(
                "--volume",
                f"{sockets}:{sockets}",
                "--volume",
                f"{packages}:/peer:ro",
                "--env",
                "PYTHONPATH=/peer",
            ),
            *(
                "--user",
                "0:0",
                IMAGE,
                "/opt/evercell/python/bin/python",
                "-m",
                "ipykernel_launcher",
                "-f",
                str(file),
            ),
        )
        if started.returncode != 0:
            raise RuntimeError(started.stderr)
        client = BlockingKernelClient()
        client.load_connection_file(str(file))
        try:
            client.start_channels()
            client.wait_for_ready(timeout=60)
            client.execute_interactive("1+1", timeout=60, output_hook=lambda _: None)
            return perf_counter() - began
        finally:
            client.stop_channels()
            docker("rm", "--force", name)


def table(samples: Samples) -> str:
    """The figures as a table in Markdown."""
    rows = [
        ("Opened from the pool, to the first result: native", samples["native"]),
        ("… docker", samples["docker"]),
        ("Container made to order, to the first result", samples["cold"]),
        ("`docker run` of the same image with ipykernel, to the first result", samples["ipykernel"]),
        ("`docker run` of the same image: `true`, begin to end", samples["engine"]),
    ]
    lines = ["| | median | most |", "|---|---:|---:|"]
    lines += [
        f"| {title} | {median(values) * 1e3:,.0f} ms | {max(values) * 1e3:,.0f} ms |"
        for title, values in rows
    ]
    lines.append(f"| Memory of an idle session, {MANY} at once | {samples['idle_mb'][0]:,.0f} MB | |")
    return "\n".join(lines)
