"""What a benchmark says: figures (median, minimum and maximum of its runs), targets over them, and the machine's facts.

Pure: nothing here measures. A target is a comparison of one figure's median with a limit, and is printed as met or
missed together with what was measured, never without.
"""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from tests.bench.harness import Bench

Figures = dict[str, float]


@dataclass(frozen=True, slots=True)
class Target:
    figure: str
    is_: Literal["≥", "≤", "<"]
    limit: float

    def met(self, value: float) -> bool:
        return {"≥": value >= self.limit, "≤": value <= self.limit, "<": value < self.limit}[self.is_]

    def reach(self, value: float) -> float:
        """1.0: just met; 2.0: twice as good as asked for; 0.5: half."""
        if self.is_ == "≥":
            return value / self.limit if self.limit else float("inf")
        return self.limit / value if value > 0 else float("inf")

    def __str__(self) -> str:
        return f"{self.figure} {self.is_} {self.limit:g}"


@dataclass(frozen=True, slots=True)
class Benchmark:
    """measure yields the figures of one run after the other, as many as `bench.runs`."""

    name: str
    work: str
    measure: Callable[[Bench], Iterator[Figures]]
    targets: tuple[Target, ...] = ()
    grows: str = ""  # how the cost grows with the work, in a sentence


@dataclass(slots=True)
class Result:
    name: str
    work: str
    grows: str
    runs: list[Figures]
    took_s: float
    figures: dict[str, dict[str, float]] = field(default_factory=dict)
    targets: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def of(cls, benchmark: Benchmark, runs: list[Figures], took_s: float) -> Result:
        made = cls(benchmark.name, benchmark.work, benchmark.grows, runs, took_s)
        for name in runs[0]:
            values = [run[name] for run in runs]
            made.figures[name] = {"median": statistics.median(values), "min": min(values), "max": max(values)}
        for target in benchmark.targets:
            value = made.figures[target.figure]["median"]
            made.targets.append(
                {"says": str(target), "value": value, "met": target.met(value), "reach": target.reach(value)}
                | asdict(target)
            )
        return made

    def lines(self) -> Iterator[str]:
        yield f"{self.name:4} {self.work}   ({len(self.runs)} runs, {self.took_s:.0f} s)"
        for name, f in self.figures.items():
            yield f"       {name:<44} {told(f['median']):>12}   ({told(f['min'])} … {told(f['max'])})"
        for t in self.targets:
            yield f"     {'met   ' if t['met'] else 'MISSED'} {t['says']}: {told(t['value'])}"


def told(value: float) -> str:
    """Three or four figures that count."""
    size = abs(value)
    return f"{value:,.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.3g}"


def document(results: Sequence[Result], *, quick: bool, runs: int) -> dict[str, Any]:
    return {
        "at": time.strftime("%Y-%m-%d %H:%M %Z"),
        "quick": quick,
        "runs": runs,
        "machine": machine(),
        "benchmarks": [asdict(result) for result in results],
    }


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    from actors.store.locks import library

    memory = next(
        (line.split()[1] for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal")), "0"
    )
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return {
        "system": platform.platform(),
        "cpu": cpu,
        "cores": os.cpu_count(),
        "memory_gib": round(int(memory) / 1024 / 1024, 1),
        "python": platform.python_version(),
        "sqlite": library().sqlite_version,
        "commit": _commit(),
        "load_before": round(os.getloadavg()[0], 2),
        "argv": sys.argv[1:],
    }


def _commit() -> str:
    asked = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return asked.stdout.strip() or "unknown"
