"""Where it was measured, as far as it matters to who reads the figures."""

from __future__ import annotations

import os
import platform
from datetime import date
from importlib.metadata import version
from pathlib import Path


def describe() -> dict[str, str]:
    """The machine and the versions of what ran on it."""
    memory = next(
        int(line.split()[1])
        for line in Path("/proc/meminfo").read_text().splitlines()
        if line.startswith("MemTotal:")
    )
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return {
        "date": date.today().isoformat(),
        "cores": str(len(os.sched_getaffinity(0))),
        "model": model,
        "memory": f"{memory / 1024**2:.0f} GiB",
        "kernel": ".".join(platform.release().split("-")[0].split(".")[:2]),
        "python": platform.python_version(),
        "gateway": version("jupyter-kernel-gateway"),
        "ipykernel": version("ipykernel"),
        "ipython": version("ipython"),
        "numpy": version("numpy"),
        "pandas": version("pandas"),
        "scikit-learn": version("scikit-learn"),
        "matplotlib": version("matplotlib"),
    }


def load() -> float:
    """How many processes want to run, over the last minute."""
    return os.getloadavg()[0]
