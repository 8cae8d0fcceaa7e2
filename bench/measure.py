"""Measures Evercell beside Jupyter Kernel Gateway, on this machine, in one run, and prints a table."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from statistics import median
from time import monotonic

import checkpoint
import docker
import machine
import processes
import report
from evercell import ColdEvercell, Evercell
from jupyter import Jupyter, JupyterEvercell, TunedJupyter
from rows import QUICK, ROWS, Samples, Sizes
from system import System

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = ROOT / "target" / "bench"

# Which row is measured where. What tuning cannot change is measured as shipped.
PLAN: dict[str, tuple[type[System], tuple[str, ...]]] = {
    "evercell": (
        Evercell,
        ("ready", "round_trip", "print", "lines", "flood", "crowd", "interrupt", "restart"),
    ),
    "evercell-cold": (ColdEvercell, ("cold", "memory")),
    "evercell-jupyter": (
        JupyterEvercell,
        ("ready", "round_trip", "print", "lines", "flood", "crowd", "interrupt", "restart"),
    ),
    "jupyter": (Jupyter, tuple(ROWS)),
    "jupyter-tuned": (TunedJupyter, tuple(name for name in ROWS if name != "memory")),
}


# What has a table of its own.
OWN = {"checkpoint", "docker"}
# How often a whole analysis, and a crash, is repeated.
ANALYSES, CRASHES = 3, 5


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(prog="bench/run", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="a few repetitions only: to try it, not to publish"
    )
    parser.add_argument(
        "--readme",
        action="store_true",
        help="put the tables into README.md and docs/jupyter.md, between their markers",
    )
    parser.add_argument(
        "--only", metavar="ROW,...", help=f"these rows only: {', '.join(ROWS)}, checkpoint, docker"
    )
    parser.add_argument("--skip", metavar="SYSTEM,...", default="", help=f"leave out: {', '.join(PLAN)}")
    return parser.parse_args()


def say(text: str) -> None:
    """A line of progress."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


async def measure_checkpoints(system: checkpoint.CheckpointEvercell, quick: bool) -> Samples:
    """What a checkpoint costs, and what it saves."""
    async with system.running():
        samples = await checkpoint.mix(system, 1 if quick else ANALYSES)
        samples |= await checkpoint.state(system, 1 if quick else CRASHES)
    say(f"{system.name}: {len(samples)} figures")
    return samples


def measure_containers(directory: Path, quick: bool) -> dict[str, Samples]:
    """What containers cost, where they can be made."""
    if not docker.is_here():
        say(f"skipped: containers, since there is no engine with the image `{docker.IMAGE}` (make image)")
        return {}
    samples = asyncio.run(docker.measure(directory, 3 if quick else 10))
    say(f"{docker.DockerEvercell.name}: {len(samples)} figures")
    return {docker.DockerEvercell.name: samples}


async def measure(system: System, rows: list[str], sizes: Sizes) -> Samples:
    """All rows of one system."""
    samples: Samples = {}
    async with system.running():
        for row in rows:
            began = monotonic()
            found = await ROWS[row](system, sizes)
            samples |= found
            shown = (
                ", ".join(f"{key} {median(values):.4g}" for key, values in found.items()) or "not to be had"
            )
            say(f"{system.name}: {row}: {shown} ({monotonic() - began:.1f} s)")
    return samples


def main() -> None:
    """Measures and reports."""
    asked = arguments()
    sizes = QUICK if asked.quick else Sizes()
    only = set(asked.only.split(",")) - OWN if asked.only else set(ROWS)
    skipped = {name for name in asked.skip.split(",") if name}
    if unknown := (only - set(ROWS)) | (skipped - set(PLAN)):
        raise SystemExit(f"bench: there is no {', '.join(sorted(unknown))}")
    # SIGTERM ends us as Ctrl-C does, through every `finally`.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    processes.adopt_orphans()
    if (load := machine.load()) > 0.5:
        say(f"warning: the machine is busy (load {load:.1f}); figures of this run mean little")
    results: dict[str, Samples] = {}
    facts = machine.describe() | {"evercell": "–"}
    began = monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="evercell-bench-") as directory:
            for name, (make, rows) in PLAN.items():
                wanted = [row for row in rows if row in only]
                if name in skipped or not wanted:
                    continue
                system = make(Path(directory) / name)
                results[system.name] = asyncio.run(measure(system, wanted, sizes))
                if isinstance(system, Evercell):
                    facts["evercell"] = system.ready["version"]
            if asked.only is None or "checkpoint" in asked.only.split(","):
                system = checkpoint.CheckpointEvercell(Path(directory) / "checkpoint")
                results[system.name] = asyncio.run(measure_checkpoints(system, asked.quick))
            if asked.only is None or "docker" in asked.only.split(","):
                results |= measure_containers(Path(directory) / "docker", asked.quick)
    except KeyboardInterrupt:
        raise SystemExit("bench: stopped") from None
    finally:
        processes.end_all()
    say(f"done in {monotonic() - began:.0f} s")
    parts = [report.table(results)] if only else []
    if own := results.get(checkpoint.CheckpointEvercell.name):
        parts.append(checkpoint.table(own))
    if containers := results.get(docker.DockerEvercell.name):
        parts.append(docker.table(containers))
    text = "\n\n".join([*parts, report.notes(results, facts, asdict(sizes))])
    OUTPUT.mkdir(parents=True, exist_ok=True)
    record = {"machine": facts, "sizes": asdict(sizes), "results": results}
    (OUTPUT / "results.json").write_text(json.dumps(record, indent=1) + "\n")
    (OUTPUT / "table.md").write_text(text + "\n")
    jupyter = report.like_for_like(results) + "\n\n" + report.notes_like_for_like(facts)
    (OUTPUT / "jupyter.md").write_text(jupyter + "\n")
    print(text)
    for line in report.goals(results):
        say(line)
    if asked.readme:
        report.put_into(ROOT / "README.md", text)
        report.put_into(ROOT / "docs" / "jupyter.md", jupyter)
        say("the tables are in README.md and docs/jupyter.md")


if __name__ == "__main__":
    main()
