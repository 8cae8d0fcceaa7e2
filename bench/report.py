"""Samples to figures, figures to a table, the table into the README."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

Samples = dict[str, list[float]]

BEGIN = "<!-- bench: written by `bench/run --readme` -->"
END = "<!-- bench: end -->"

OURS = ("Evercell", "Evercell, no pool")
SAME_PROTOCOL = ("Evercell, as Jupyter",)
PEERS = ("Kernel Gateway", "Kernel Gateway, tuned")


def p95(samples: list[float]) -> float:
    """The value that one in twenty exceeds."""
    return quantiles(samples, n=20, method="inclusive")[-1] if len(samples) > 1 else samples[0]


@dataclass(frozen=True)
class Unit:
    """How a value is shown."""

    name: str
    factor: float
    more_is_better: bool = False

    def show(self, value: float) -> str:
        """The value with as many digits as mean something."""
        value *= self.factor
        digits = 0 if value >= 100 else 1 if value >= 10 else 2
        return f"{value:,.{digits}f} {self.name}"


MS = Unit("ms", 1e3)
MB = Unit("MB", 1e-6)
LINES_PER_S = Unit("lines/s", 1, more_is_better=True)
MB_PER_S = Unit("MB/s", 1, more_is_better=True)
CELLS_PER_S = Unit("cells/s", 1, more_is_better=True)


@dataclass(frozen=True)
class Figure:
    """A line of the table."""

    key: str
    title: str
    unit: Unit
    of: Callable[[list[float]], float] = median
    # What is aimed at, in the unit, and as a ratio to the better of the peers.
    goal: float | None = None
    goal_ratio: float | None = None


FIGURES = (
    Figure("ready", "Session opened, first result there", MS, goal=5),
    Figure(
        "cold",
        "The same without a pool: libraries imported, first `describe()` shown",
        MS,
        goal=80,
        goal_ratio=30,
    ),
    Figure("round_trip", "Cell `1+1`, round trip", MS, goal=1, goal_ratio=8),
    Figure("round_trip", "… p95", MS, p95),
    Figure("print", "`print` to client, no flush", MS, goal=2),
    Figure("print", "… p95", MS, p95, goal=5),
    Figure("lines", "200,000 printed lines", LINES_PER_S, goal_ratio=3),
    Figure("flood", "100 MB written by a cell", MB_PER_S, goal_ratio=5),
    Figure("crowd", "20 sessions opened at once, all with a first result", MS, goal=500),
    Figure("crowd_cells", "20 sessions × 20 cells at once", CELLS_PER_S, goal=1500),
    Figure("interrupt", "Busy loop interrupted, to idle", MS, goal=5),
    Figure("restart", "Kernel restarted, to next result", MS, goal=60),
    Figure("memory", "Memory of an idle session, libraries imported", MB, goal=8, goal_ratio=20),
)


@dataclass(frozen=True)
class Cell:
    """A figure of one system."""

    value: float
    lost: float

    def show(self, unit: Unit) -> str:
        """As it stands in the table."""
        if self.lost >= 1:
            return "all of it lost"
        lost = f", {self.lost:.0%} lost" if self.lost else ""
        return unit.show(self.value) + lost


def cell(figure: Figure, results: dict[str, Samples], systems: tuple[str, ...]) -> Cell | None:
    """The figure of the first of the systems that has it."""
    for system in systems:
        samples = results.get(system, {}).get(figure.key)
        if samples:
            lost = results[system].get(f"{figure.key}_lost", [0.0])
            return Cell(figure.of(samples), max(lost))
    return None


def ratio(figure: Figure, ours: Cell | None, peers: list[Cell | None]) -> float | None:
    """How many times better ours is than the best of the peers that lose nothing."""
    values = [peer.value for peer in peers if peer is not None and peer.lost == 0]
    if ours is None or not values:
        return None
    if figure.unit.more_is_better:
        return ours.value / max(values)
    return min(values) / ours.value


def show_ratio(value: float | None) -> str:
    """As it stands in the table."""
    if value is None:
        return "–"
    return f"{value:.0f} ×" if value >= 10 else f"{value:.1f} ×"


GATEWAY = {"Kernel Gateway as shipped": PEERS[:1], "… tuned": PEERS[1:]}


def table(results: dict[str, Samples]) -> str:
    """All figures as a table in Markdown."""
    return columns(results, {"Evercell": OURS, "… over Jupyter's protocol": SAME_PROTOCOL, **GATEWAY})


def like_for_like(results: dict[str, Samples]) -> str:
    """The figures of both servers over the same protocol, as far as there are both."""
    both = [figure for figure in FIGURES if cell(figure, results, SAME_PROTOCOL)]
    return columns(results, {"Evercell": SAME_PROTOCOL, **GATEWAY}, both)


def columns(
    results: dict[str, Samples], systems: dict[str, tuple[str, ...]], figures: Sequence[Figure] = FIGURES
) -> str:
    """A table in Markdown: systems by the title of their column, and the first one's ratio to the gateway."""
    head = ["", *systems, "ratio"]
    rows = [head, ["---", *["---:"] * (len(head) - 1)]]
    for figure in figures:
        ours, *others = (cell(figure, results, names) for names in systems.values())
        if ours is None and not any(others):
            continue
        shown = [entry.show(figure.unit) if entry else "–" for entry in (ours, *others)]
        times = ratio(figure, ours, [cell(figure, results, (peer,)) for peer in PEERS])
        rows.append([figure.title, *shown, show_ratio(times)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    return "\n".join(
        "| " + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    )


MACHINE = """\
Medians of one run of `make bench` on {cores} cores ({model}), {memory}, Linux {kernel}, {date}: \
Evercell {evercell} beside Jupyter Kernel Gateway {gateway} with ipykernel {ipykernel}, one after \
the other, with the same client, the same Python {python} and the same libraries (IPython {ipython}, \
numpy {numpy}, pandas {pandas}, scikit-learn {scikit-learn}, matplotlib {matplotlib}). The second \
column is the same server over the gateway's own protocol. *Tuned* is the gateway without Nagle's \
algorithm and without its limits on output. The ratio is of the first column to the better of these \
two. The gateway has no pool: a session there is always a new kernel. Every byte of the two \
output rows is compared with what was written."""

LIKE_FOR_LIKE = """\
Of {date}, on {cores} cores ({model}), Linux {kernel}: one run of `make bench`, one server after the \
other, over `v1.kernel.websocket.jupyter.org` with the same client. Kernel Gateway {gateway} with \
ipykernel {ipykernel}; *tuned* is without Nagle's algorithm and without its limits on output."""

COUNTS = """\
Repetitions: {ready} sessions opened from a full pool, {cold} without one, {cells} cells after 20 to \
warm up, {prints} prints, {floods} times the lines and the 100 MB, {crowds} crowds of {crowd}, \
{interrupts} interrupts, {restarts} restarts. Memory is the proportional set size (PSS) of all \
processes with {idle} sessions less that with none, for each session; what a server holds with none \
is not in it ({base})."""


def notes(results: dict[str, Samples], machine: dict[str, str], sizes: dict[str, int]) -> str:
    """What one has to know to read the table, or to repeat it."""
    base = ", ".join(
        f"{system}: {MB.show(median(samples['memory_base']))}"
        for system, samples in results.items()
        if "memory_base" in samples
    )
    return MACHINE.format(**machine) + "\n\n" + COUNTS.format(**sizes, base=base or "not measured")


def goals(results: dict[str, Samples]) -> list[str]:
    """What is aimed at and not reached, or reached."""
    lines = []
    for figure in FIGURES:
        ours = cell(figure, results, OURS)
        if ours is None:
            continue
        if figure.goal is not None:
            value = ours.value * figure.unit.factor
            met = value >= figure.goal if figure.unit.more_is_better else value <= figure.goal
            sign = "≥" if figure.unit.more_is_better else "≤"
            shown = figure.unit.show(ours.value)
            lines.append(f"{verdict(met)} {figure.key}: {shown} ({sign} {figure.goal:g} {figure.unit.name})")
        times = ratio(figure, ours, [cell(figure, results, (peer,)) for peer in PEERS])
        if figure.goal_ratio is not None and times is not None:
            met = times >= figure.goal_ratio
            lines.append(
                f"{verdict(met)} {figure.key}: {show_ratio(times)} the peer (≥ {figure.goal_ratio:g} ×)"
            )
        if ours.lost:
            lines.append(f"{verdict(False)} {figure.key}: {ours.lost:.2%} lost (0)")
    return lines


def verdict(met: bool) -> str:
    """One word of the same width."""
    return "met   " if met else "MISSED"


def notes_like_for_like(machine: dict[str, str]) -> str:
    """What one has to know to read that table."""
    return LIKE_FOR_LIKE.format(**machine)


def put_into(readme: Path, text: str) -> None:
    """Replaces what stands between the markers of a page."""
    old = readme.read_text()
    if BEGIN not in old or END not in old:
        raise SystemExit(f"{readme.name} has no line `{BEGIN}` followed by one `{END}`: nothing to replace")
    before, rest = old.split(BEGIN, 1)
    after = rest.split(END, 1)[1]
    readme.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")
