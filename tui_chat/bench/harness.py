"""Fair comparisons: interleaved runs, medians, spreads, and a table that names the machine."""

import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Literal, TypeVar

Measure = Callable[[], float]
Report = Callable[[str], None]
"""Takes one line of progress for the reader."""
Unit = Literal["s", "ms", "tokens/s"]
T = TypeVar("T")


class BenchError(Exception):
    """A benchmark cannot go on; `str()` is one sentence that a user can act on."""


class Kept:
    """Things that several benchmarks of one run use: made once, closed together at its end."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._things: dict[Hashable, object] = {}

    def get(self, key: Hashable, make: Callable[[], AbstractContextManager[T]]) -> T:
        """What `make` opens, the same for the same `key`."""
        if key not in self._things:
            self._things[key] = self._stack.enter_context(make())
        return self._things[key]  # type: ignore[return-value]

    def close(self) -> None:
        """Close everything, the newest first."""
        self._things.clear()
        self._stack.close()


@dataclass(frozen=True, slots=True)
class Setup:
    """What the command line asks of every benchmark."""

    rows: frozenset[str] = frozenset()
    """The names that were chosen."""
    runs: int = 0
    """Measured rounds, after one that is thrown away; 0 lets the benchmark choose."""
    model: str | None = None
    """What `--model` takes; None lets each benchmark choose."""
    shapes: tuple[str, ...] = ("0.5b", "30m")
    """Random-weight models to build where no model is given."""
    tokens: int = 0
    """Tokens of each reply; 0 lets the benchmark choose."""
    minutes: float = 10.0
    """How long the soak lasts."""
    seed: int = 1
    """What the faults and inputs of a run come from; the same seed throws the same."""
    kept: Kept = field(default_factory=Kept)
    """What the benchmarks of this run share."""


@dataclass(frozen=True, slots=True)
class Row:
    """One comparison: the plain way or the start against ours or the end."""

    row: str
    before: float
    """Median of the first side."""
    after: float
    """Median of the second side."""
    unit: str
    ratio: float
    """Median over the rounds: how many times better after is, or after / before (`compare`)."""
    runs: int
    spread: tuple[float, float]
    """Lowest and highest ratio of a round."""
    note: str = ""
    """The target, and what else was found."""


@dataclass(frozen=True, slots=True)
class Machine:
    """Where the figures come from."""

    cpu: str
    cores: str
    memory: str
    gpu: str
    load: str
    """What else the machine was doing before the first run."""
    versions: str

    def lines(self) -> list[str]:
        """One line for each thing that is known."""
        return [f"{name}: {value}" for name, value in asdict(self).items() if value]


def interleave(
    measures: Mapping[str, Measure], runs: int, report: Report, *, warm_up: bool = True
) -> dict[str, list[float]]:
    """Call the measures in turn, A B A B, so that a busy spell of the machine meets all.

    Returns the figures of each measure, one for each of `runs` rounds; with `warm_up` a round
    before them fills caches and is thrown away.
    """
    found: dict[str, list[float]] = {name: [] for name in measures}
    for number in range(0 if warm_up else 1, runs + 1):
        for name, measure in measures.items():
            value = measure()
            step = f"run {number} of {runs}" if number else "warm-up"
            report(f"{name}, {step}: {value:.4g}")
            if number:
                found[name].append(value)
    return found


def gain(
    row: str, before: Sequence[float], after: Sequence[float], *, unit: Unit, note: str = ""
) -> Row:
    """The row of an optimisation: its ratio is how many times better `after` is than `before`.

    That is before / after for times and after / before for rates, so more is always better.

    Raises:
        ValueError: as `compare`.
    """
    if unit == "tokens/s":
        return compare(row, before, after, unit=unit, note=note)
    turned = compare(row, after, before, unit=unit, note=note)
    return replace(turned, before=turned.after, after=turned.before)


def compare(
    row: str, before: Sequence[float], after: Sequence[float], *, unit: str, note: str = ""
) -> Row:
    """The row of two sides that were measured in the same rounds; its ratio is after / before.

    The ratio is taken round by round, because what slows the machine slows both sides of a round.

    Raises:
        ValueError: the sides have no rounds or not equally many, or a figure is not above 0.
    """
    if not before or len(before) != len(after) or min(*before, *after) <= 0:
        raise ValueError("each side needs a figure above 0 for each round")
    ratios = [second / first for first, second in zip(before, after, strict=True)]
    return Row(
        row=row,
        before=statistics.median(before),
        after=statistics.median(after),
        unit=unit,
        ratio=statistics.median(ratios),
        runs=len(ratios),
        spread=(min(ratios), max(ratios)),
        note=note,
    )


def as_json(rows: Sequence[Row]) -> str:
    """A list of objects, one for each row."""
    return json.dumps([asdict(row) for row in rows], indent=2)


def as_table(rows: Sequence[Row]) -> str:
    """An aligned table, a line for each row, then the notes."""
    head = ("row", "before", "after", "unit", "ratio", "lowest..highest", "runs")
    cells = [
        (
            row.row,
            _short(row.before),
            _short(row.after),
            row.unit,
            _ratio(row.ratio),
            f"{_ratio(row.spread[0])}..{_ratio(row.spread[1])}",
            str(row.runs),
        )
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(head, *cells, strict=True)]
    lines = []
    for line in (head, *cells):
        parts = [
            cell.ljust(width) if index in (0, 3) else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        lines.append("  ".join(parts).rstrip())
    notes = [f"{row.row}: {row.note}" for row in rows if row.note]
    return "\n".join([*lines, *([""] if notes else []), *notes])


def _ratio(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.3f}"


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 1000 else f"{value:.3g}"


def describe_machine() -> Machine:
    """Name the hardware and the versions; imports none of the libraries it names."""
    import psutil

    physical = psutil.cpu_count(logical=False)
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    versions = [f"Python {platform.python_version()}"]
    for name in ("torch", "transformers", "textual"):
        try:
            versions.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            versions.append(f"no {name}")
    return Machine(
        cpu=f"{_cpu_name()} ({platform.system()} {platform.machine()})",
        cores=f"{usable} usable, {physical} physical",
        memory=f"{psutil.virtual_memory().total / 1e9:.1f} GB",
        gpu=_gpu_names(),
        load=f"{os.getloadavg()[0]:.1f} on average over the last minute",
        versions=", ".join(versions),
    )


def _cpu_name() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    if sys.platform == "darwin":
        return _output_of("sysctl", "-n", "machdep.cpu.brand_string")
    return platform.processor() or "unknown processor"


def _gpu_names() -> str:
    query = ("--query-gpu=name,memory.total", "--format=csv,noheader")
    return "; ".join(_output_of("nvidia-smi", *query).splitlines()) or "none found"


def _output_of(program: str, *arguments: str) -> str:
    """What a program of the system prints; empty when there is none or it fails."""
    if shutil.which(program) is None:
        return ""
    try:
        done = subprocess.run(
            [program, *arguments], capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
