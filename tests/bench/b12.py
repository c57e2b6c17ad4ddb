"""B12: what the wrapper costs: how soon it speaks, and how long a command takes under it that says 200 MB."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator

from tests.bench.figures import Benchmark, Figures, Target
from tests.bench.harness import ENV, Bench

STARTS, OUTPUT_BYTES = 5, 200_000_000


def measure(bench: Bench) -> Iterator[Figures]:
    size = round(OUTPUT_BYTES * bench.scale)
    bench.end_services()  # a service of its own: what other benchmarks have left awake would be beside it
    service = bench.service
    # Lines that a program could say, numbered, so that nothing along the way can make them cheap.
    command = f"seq -f 'line %.0f of a job that has much to say about what it does' {size // 60}"
    for run in bench.each_run():
        with bench.client(
            "first_word", n=max(2, round(STARTS * bench.scale)), folder=str(bench.folder / f"r{run}")
        ) as c:
            started = c.ready().ask("go")
        target = bench.folder / "output.txt"
        began = time.perf_counter()
        with target.open("wb") as out:
            subprocess.run(["sh", "-c", command], stdout=out, check=True)
        bare_s = time.perf_counter() - began
        said = target.stat().st_size
        os.sync()  # nobody pays for what was written before
        began = time.perf_counter()
        with target.open("wb") as out:
            subprocess.run(["sh", "-c", f"{command} | cat"], stdout=out, check=True)
            pipe_s = time.perf_counter() - began
            os.fsync(out.fileno())
        synced_s = time.perf_counter() - began
        os.sync()
        (name,) = bench.fresh(1)
        began = time.perf_counter()
        with target.open("wb") as out:
            ran = subprocess.run(
                [*_holdfast(), "run", "--session", name, "--", "sh", "-c", command],
                env=service.env | {"HOLDFAST_URL": service.url, "HOLDFAST_TOKEN": service.token},
                stdout=out,
                cwd=bench.folder,
                timeout=600,
                check=True,
            )
        took_s = time.perf_counter() - began
        assert ran.returncode == 0 and target.stat().st_size == said, "not all of the output came through"
        where = [f"{bench.bare('committing')}/in/p{run}", str(bench.folder / "kept")]
        plain = [sys.executable, "-m", "tests.bench.pipe", *where, "sh", "-c", command]
        began = time.perf_counter()
        with target.open("wb") as out:
            subprocess.run(plain, env=ENV, stdout=out, timeout=600, check=True)
        plain_s = time.perf_counter() - began
        bench.end_bare("committing")
        assert target.stat().st_size == said, "not all of the output came through the plain pipe"
        target.unlink()
        yield {
            "first word of the wrapper, s": started["wrapper"],
            "bare `python -c pass`, s": started["python"],
            "bare command into a file, s": bare_s,
            "the same pipe into a file, s": pipe_s,
            "the same pipe into a file, synced, s": synced_s,
            "under `holdfast run`, s": took_s,
            "MB/s under `holdfast run`": said / 1e6 / took_s,
            "of the bare command": took_s / bare_s,
            "of the same pipe into a file": took_s / pipe_s,
            "of that, synced": took_s / synced_s,
            "through the plain pipe, s": plain_s,
            "of the plain pipe": took_s / plain_s,
        }


def _holdfast() -> list[str]:
    return [sys.executable, "-m", "actors"]


BENCHMARK = Benchmark(
    "B12",
    "the wrapper: start-up; `holdfast run` of 200 MB of output",
    measure,
    (Target("first word of the wrapper, s", "<", 0.3), Target("of the same pipe into a file", "≤", 2.5)),
    "with the bytes: spooled durably, sent, checked, stored durably, acknowledged, shown",
)
