"""All benchmarks, a small part of each: they run, nothing is lost, no figure is missing. Times are told, not judged."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench import written
from tests.bench.catalogue import ALL, SOAK
from tests.bench.figures import Benchmark, Result, Target, document
from tests.e2e.service import ROOT

PROMISED = ("lost", "twice")  # of these even a quick run may have none


@pytest.mark.parametrize("asked", [["B99"], ["B3", "--runs", "0"], ["B13", "--minutes", "-1"]])
def test_what_cannot_be_measured_is_refused_before_anything_begins(asked: list[str]) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "tests.bench", *asked], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 2 and "error: " in ran.stderr and not ran.stdout


@pytest.mark.loud
@pytest.mark.ray
@pytest.mark.timeout(900)  # a minute and a half alone
def test_every_benchmark_says_its_figures_and_loses_nothing(tmp_path: Path) -> None:
    told = tmp_path / "told.json"
    ran = subprocess.run(
        [sys.executable, "-m", "tests.bench", "--quick", "--json", str(told)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    print(ran.stdout)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    found = json.loads(told.read_text())
    assert [b["name"] for b in found["benchmarks"]] == [b.name for b in (*ALL, SOAK)]
    for benchmark in found["benchmarks"]:
        for name, figure in benchmark["figures"].items():
            assert all(math.isfinite(v) for v in figure.values()), (benchmark["name"], name, figure)
            assert name not in PROMISED or figure["max"] == 0, (benchmark["name"], name, figure)
    assert written.svg(found).count("<rect") == 1 + sum(len(b.targets) for b in (*ALL, SOAK))


# ---------------------------------------------------------------- what is said of the figures


def _result(*values: float) -> Result:
    targets = (Target("ratio", "≥", 1.0), Target("ms", "<", 5.0))
    benchmark = Benchmark("B0", "nothing", lambda bench: iter(()), targets, "not at all")
    return Result.of(benchmark, [{"ratio": v, "ms": 10 * v} for v in values], 1.0)


def test_a_figure_is_the_median_of_its_runs_and_a_target_is_judged_by_it() -> None:
    result = _result(0.2, 3.0, 0.4)
    assert result.figures["ratio"] == {"median": 0.4, "min": 0.2, "max": 3.0}
    assert [(t["says"], t["met"], t["reach"]) for t in result.targets] == [
        ("ratio ≥ 1", False, 0.4),
        ("ms < 5", True, 1.25),
    ]
    assert "     MISSED ratio ≥ 1: 0.4" in list(result.lines())


def test_what_is_written_replaces_only_what_stands_between_the_markers(tmp_path: Path) -> None:
    page, plot = tmp_path / "page.md", tmp_path / "plot.svg"
    page.write_text("before\n" + "".join(f"<!-- {n} -->old<!-- /{n} -->\n" for n in written.NAMES) + "after\n")
    found = json.loads(json.dumps(document([_result(2.0)], quick=True, runs=1)))
    written.write(found, page, plot)
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert "| B0 | nothing | ratio ≥ 1 | 2 | met |" in text
    written.write(found, page, plot)
    assert page.read_text() == text


def test_the_page_has_a_place_for_everything_that_is_written(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(written.DOCUMENT.read_text())
    written.write(document([_result(1.0)], quick=True, runs=1), page, tmp_path / "plot.svg")
