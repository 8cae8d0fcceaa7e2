"""What is measured: each row is one function over a system, the same for both sides.

A row returns samples by the name of their figure. Every row opens sessions of its own, and warms them up
where it says so; nothing is left out of the samples.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from processes import pss_bytes
from system import Outcome, Session, System

Samples = dict[str, list[float]]

IMPORTS = """\
import numpy, pandas, matplotlib.pyplot, sklearn.linear_model
pandas.DataFrame(numpy.random.default_rng(0).normal(size=(1000, 4)), columns=list("abcd")).describe()
"""

LINES = 200_000
FLOOD_MB = 100


@dataclass(frozen=True)
class Sizes:
    """How often things are done."""

    ready: int = 15
    cold: int = 5
    cells: int = 300
    prints: int = 100
    floods: int = 3
    crowds: int = 3
    crowd: int = 20
    crowd_cells: int = 20
    interrupts: int = 20
    restarts: int = 7
    idle: int = 10


QUICK = Sizes(
    ready=2,
    cold=1,
    cells=20,
    prints=20,
    floods=1,
    crowds=1,
    crowd=4,
    crowd_cells=5,
    interrupts=3,
    restarts=1,
    idle=2,
)


class Used:
    """A session for as long as a row uses it."""

    def __init__(self, system: System) -> None:
        self.system = system

    async def __aenter__(self) -> Session:
        self.session = await self.system.open()
        return self.session

    async def __aexit__(self, *_: object) -> None:
        await self.session.close()


async def ready(system: System, sizes: Sizes) -> Samples:
    """From asking for a session to its first result, connecting included."""
    samples = []
    for _ in range(sizes.ready):
        # A pool is given time to be full again: what a crowd finds is another row.
        await asyncio.sleep(0.3)
        began = perf_counter()
        async with Used(system) as session:
            expect(await session.run("1+1"), "2")
            samples.append(perf_counter() - began)
    return {"ready": samples}


async def cold(system: System, sizes: Sizes) -> Samples:
    """The same, with a first cell that imports what everybody imports and shows a table."""
    # The first one reads everything from disk.
    async with Used(system) as session:
        await session.run(IMPORTS)
    samples = []
    for _ in range(sizes.cold):
        began = perf_counter()
        async with Used(system) as session:
            outcome = await session.run(IMPORTS)
            samples.append(perf_counter() - began)
        if "mean" not in outcome.result:
            raise RuntimeError(f"no table was shown: {outcome}")
    return {"cold": samples}


async def round_trip(system: System, sizes: Sizes) -> Samples:
    """A small cell, from sending it to its end."""
    async with Used(system) as session:
        for _ in range(20):
            await session.run("1+1")
        samples = []
        for _ in range(sizes.cells):
            outcome = await session.run("1+1")
            expect(outcome, "2")
            samples.append(outcome.seconds)
    return {"round_trip": samples}


async def print_latency(system: System, sizes: Sizes) -> Samples:
    """From `print` to the client: the time is in the text, and both read the same clock."""
    # Out of step with any timer that output may wait for.
    code = (
        f"import time\nfor i in range({sizes.prints}):\n"
        "    print(time.time_ns())\n    time.sleep(0.025 + i * 7919 % 31 / 1000)\n"
    )
    async with Used(system) as session:
        await session.run("1+1")
        outcome = await session.run(code)
    samples = []
    rest = ""
    for arrived, piece in outcome.pieces:
        *lines, rest = (rest + piece).split("\n")
        samples += [(arrived - int(line)) / 1e9 for line in lines]
    if len(samples) != sizes.prints:
        raise RuntimeError(f"{len(samples)} of {sizes.prints} lines came")
    return {"print": samples}


async def lines(system: System, sizes: Sizes) -> Samples:
    """Many printed lines, each compared."""
    expected = "".join(f"{i}\n" for i in range(LINES))
    samples, lost = [], []
    async with Used(system) as session:
        await session.run("1+1")
        for _ in range(sizes.floods):
            outcome = await session.run(f"for i in range({LINES}): print(i)")
            samples.append(LINES / outcome.seconds)
            lost.append(share_lost(outcome, expected))
    return {"lines": samples, "lines_lost": lost}


async def flood(system: System, sizes: Sizes) -> Samples:
    """A cell that writes 100 MB, each byte compared."""
    code = (
        'import sys\npiece = ("x" * 99 + "\\n") * 10_000\n'
        f"for _ in range({FLOOD_MB}):\n    sys.stdout.write(piece)\nsys.stdout.flush()\n"
    )
    expected = ("x" * 99 + "\n") * 10_000 * FLOOD_MB
    samples, lost = [], []
    # A limit that counts over time must not see the flood before.
    for _ in range(sizes.floods):
        async with Used(system) as session:
            await session.run("1+1")
            outcome = await session.run(code)
            samples.append(len(outcome.text) / 1e6 / outcome.seconds)
            lost.append(share_lost(outcome, expected))
    return {"flood": samples, "flood_lost": lost}


async def crowd(system: System, sizes: Sizes) -> Samples:
    """Many sessions opened at once, until all have a result; then all of them run cells at once."""
    opening, rates = [], []
    for _ in range(sizes.crowds):
        await asyncio.sleep(1)

        async def opened() -> Session:
            session = await system.open()
            expect(await session.run("1+1"), "2")
            return session

        async def busy(session: Session) -> None:
            for _ in range(sizes.crowd_cells):
                expect(await session.run("1+1"), "2")

        began = perf_counter()
        sessions = await asyncio.gather(*(opened() for _ in range(sizes.crowd)))
        opening.append(perf_counter() - began)
        began = perf_counter()
        await asyncio.gather(*(busy(session) for session in sessions))
        rates.append(sizes.crowd * sizes.crowd_cells / (perf_counter() - began))
        await asyncio.gather(*(session.close() for session in sessions))
    return {"crowd": opening, "crowd_cells": rates}


async def interrupt(system: System, sizes: Sizes) -> Samples:
    """A busy loop, from asking for the interrupt to the end of the cell."""
    samples = []
    async with Used(system) as session:
        await session.run("1+1")
        for _ in range(sizes.interrupts):
            await session.send("print('begun', flush=True)\nwhile True: pass")
            await session.finish(until="begun")
            await asyncio.sleep(0.05)
            began = perf_counter()
            # The answer may come after the end of the cell.
            _, outcome = await asyncio.gather(session.interrupt(), session.finish())
            samples.append(perf_counter() - began)
            if not outcome.error.startswith("KeyboardInterrupt"):
                raise RuntimeError(f"not interrupted: {outcome}")
    return {"interrupt": samples}


async def restart(system: System, sizes: Sizes) -> Samples:
    """From asking for a new kernel to its first result."""
    samples = []
    async with Used(system) as session:
        for _ in range(sizes.restarts):
            await session.run("mark = 1")
            await asyncio.sleep(0.3)
            began = perf_counter()
            await session.restart()
            expect(await session.run("'mark' in globals()"), "False")
            samples.append(perf_counter() - began)
    return {"restart": samples}


async def memory(system: System, sizes: Sizes) -> Samples:
    """What a session holds that has imported what everybody imports, and now waits."""
    # The first one may leave something in the server for good.
    async with Used(system) as session:
        await session.run(IMPORTS)
    await asyncio.sleep(1)
    try:
        base, free = pss_bytes(system.processes()), available_bytes()
    except PermissionError:
        # An ordinary user may not look into what has given up its own rights.
        return {}
    sessions = [await system.open() for _ in range(sizes.idle)]
    for session in sessions:
        await session.run(IMPORTS)
    await asyncio.sleep(2)
    held, left = pss_bytes(system.processes()), available_bytes()
    for session in sessions:
        await session.close()
    return {
        "memory": [(held - base) / sizes.idle],
        "memory_base": [float(base)],
        "memory_available": [(free - left) / sizes.idle],
    }


def expect(outcome: Outcome, result: str) -> None:
    """Refuses to count an answer that is wrong."""
    if outcome.result != result:
        raise RuntimeError(f"`{result}` expected: {outcome}")


def share_lost(outcome: Outcome, expected: str) -> float:
    """Which part of an output did not come."""
    text = outcome.text
    if text == expected:
        return 0.0
    if len(text) >= len(expected):
        raise RuntimeError("output came that was not written")
    return 1 - len(text) / len(expected)


def available_bytes() -> int:
    """The memory that the whole machine has left, as Linux estimates it."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/meminfo has no MemAvailable")


Row = Callable[[System, Sizes], Awaitable[Samples]]

ROWS: dict[str, Row] = {
    "ready": ready,
    "cold": cold,
    "round_trip": round_trip,
    "print": print_latency,
    "lines": lines,
    "flood": flood,
    "crowd": crowd,
    "interrupt": interrupt,
    "restart": restart,
    "memory": memory,
}
