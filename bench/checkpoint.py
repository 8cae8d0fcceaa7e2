"""What a checkpoint costs: the same work with and without, in one run."""

from __future__ import annotations

import asyncio
from pathlib import Path
from statistics import median
from time import perf_counter

from evercell import Evercell, EvercellSession

Samples = dict[str, list[float]]

# How long somebody thinks between two cells.
THINK_S = 0.05
SIZES_MB = (100, 1_000, 4_000)

# An analysis, cell by cell, as people and agents write them.
MIX = tuple((Path(__file__).parent / "analysis.py").read_text().split("# %%\n")[1:])


class CheckpointEvercell(Evercell):
    """The server with sessions large enough for what is measured here."""

    name = "Evercell, checkpoints"
    flags = ("--memory", "8G", "--max-memory", "8G")


async def open_session(system: Evercell, switch: str) -> EvercellSession:
    """A session whose kernel makes checkpoints, or none."""
    system.opened += 1
    env = {"EVERCELL_CHECKPOINTS": "off"} if switch == "off" else {}
    return await system.open_as(f"checkpoint-{system.opened}", {"env": env} if env else None)


async def mix(system: Evercell, repetitions: int) -> Samples:
    """All cells of an analysis, with a pause to think between them; the time that the cells took.

    And how many of the cells had a checkpoint behind them, and how many checkpoints those were.
    """
    samples: Samples = {"mix_on": [], "mix_off": [], "mix_checkpoints": [], "mix_protected": []}
    for repetition in range(repetitions):
        # Whoever comes first finds other caches.
        for switch in ("off", "on") if repetition % 2 == 0 else ("on", "off"):
            session = await open_session(system, switch)
            took = 0.0
            for cell in MIX:
                took += (await session.run(cell)).seconds
                await asyncio.sleep(THINK_S)
            samples[f"mix_{switch}"].append(took)
            if switch == "on":
                kept = [found["before"] for found in session.checkpoints if "before" in found]
                samples["mix_protected"].append(len(kept))
                samples["mix_checkpoints"].append(len(set(kept)))
            await session.close()
    return samples


async def state(system: Evercell, repetitions: int) -> Samples:
    """A small cell beside much state, and a crash: from the cell that crashes to the next result."""
    samples: Samples = {}
    for size in SIZES_MB:
        for switch in ("off", "on"):
            session = await open_session(system, switch)
            await session.run(f"import os, numpy\nstate = numpy.ones({size} * 125_000)")
            cells = samples[f"cell_{size}_{switch}"] = []
            for _ in range(20):
                await asyncio.sleep(0.2)
                cells.append((await session.run("1+1")).seconds)
            if switch == "on":
                crashes = samples[f"crash_{size}"] = []
                for _ in range(repetitions):
                    await asyncio.sleep(0.5)
                    began = perf_counter()
                    await session.try_run("os._exit(1)")
                    outcome = await session.run("int(state.sum())")
                    crashes.append(perf_counter() - began)
                    if outcome.result != str(size * 125_000):
                        raise RuntimeError(f"the state is not what it was: {outcome}")
            await session.close()
    return samples


def table(samples: Samples) -> str:
    """The figures as a table in Markdown."""
    on, off = median(samples["mix_on"]), median(samples["mix_off"])
    rows = [
        ["", "with checkpoints", "without", ""],
        ["---", "---:", "---:", "---:"],
        [f"{len(MIX)} cells of an analysis, all together", ms(on), ms(off), f"{on / off - 1:+.1%}"],
    ]
    protected, made = median(samples["mix_protected"]), median(samples["mix_checkpoints"])
    rows.append(["… of these protected, by how many checkpoints", f"{protected:.0f}, {made:.0f}", "–", ""])
    for size in SIZES_MB:
        with_, without = median(samples[f"cell_{size}_on"]), median(samples[f"cell_{size}_off"])
        title = f"Cell `1+1` beside {size:,} MB of state"
        rows.append([title, ms(with_), ms(without), f"{ms(with_ - without)} more"])
    rows += [
        [
            f"Kernel crashed with {size:,} MB, to next result",
            ms(median(samples[f"crash_{size}"])),
            "all lost",
            "",
        ]
        for size in SIZES_MB
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "\n".join(
        "| " + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    )


def ms(seconds: float) -> str:
    """Milliseconds."""
    return f"{seconds * 1e3:,.1f} ms"
