"""B12: what the wrapper costs: how soon it speaks, and how long a command takes under it that says 200 MB."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.bench.figures import Benchmark, Figures, Target
from tests.bench.harness import ENV, Bench, Service

STARTS, OUTPUT_BYTES = 5, 200_000_000


def measure(bench: Bench) -> Iterator[Figures]:
    size = round(OUTPUT_BYTES * bench.scale)
    bench.end_services()  # a service of its own: what other benchmarks have left awake would be beside it
    service = bench.service
    # Lines that a program could say. They are very much alike: compressed, a fortieth of them is left. So the same is
    # measured with what gets no smaller, whatever anybody does.
    command = f"seq -f 'line %.0f of a job that has much to say about what it does' {size // 60}"
    noise = f"head -c {size // 77 * 57} /dev/urandom | base64"
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
        pipe_s, synced_s = _through_a_pipe(command, target)
        took_s, kept = _under_run(service, *bench.fresh(1), command, target)
        noise_pipe_s, _ = _through_a_pipe(noise, target)
        noise_said = target.stat().st_size
        noise_s, noise_kept = _under_run(service, *bench.fresh(1), noise, target)
        where = [f"{bench.bare('committing')}/in/p{run}", str(bench.folder / "kept")]
        plain = [sys.executable, "-m", "tests.bench.pipe", *where, "sh", "-c", command]
        os.sync()
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
            "kept of its bytes, %": 100 * kept / said,
            "noise: the same pipe into a file, s": noise_pipe_s,
            "noise: under `holdfast run`, s": noise_s,
            "noise: of the same pipe into a file": noise_s / noise_pipe_s,
            "noise: kept of its bytes, %": 100 * noise_kept / noise_said,
            "through the plain pipe, s": plain_s,
            "of the plain pipe": took_s / plain_s,
        }


def _through_a_pipe(command: str, target: Path) -> tuple[float, float]:
    """Seconds until it had ended, and until what it said was on the disk."""
    os.sync()  # nobody pays for what was written before
    began = time.perf_counter()
    with target.open("wb") as out:
        subprocess.run(["sh", "-c", f"{command} | cat"], stdout=out, check=True)
        ended_s = time.perf_counter() - began
        os.fsync(out.fileno())
    return ended_s, time.perf_counter() - began


def _under_run(service: Service, name: str, command: str, target: Path) -> tuple[float, int]:
    """Seconds, and bytes of events that its session has in the store. It must say as many as stand in `target`."""
    said = target.stat().st_size
    os.sync()
    began = time.perf_counter()
    with target.open("wb") as out:
        subprocess.run(
            [sys.executable, "-m", "actors", "run", "--session", name, "--", "sh", "-c", command],
            env=service.env | {"HOLDFAST_URL": service.url, "HOLDFAST_TOKEN": service.token},
            stdout=out,
            cwd=target.parent,
            timeout=600,
            check=True,
        )
    took_s = time.perf_counter() - began
    assert target.stat().st_size == said, "not all of the output came through"
    with sqlite3.connect(f"file:{service.data}/holdfast.db?mode=ro", uri=True, timeout=30) as db:
        kept = db.execute("select sum(length(cast(data as blob))) from events where session_id = ?", (name,))
        return took_s, int(kept.fetchone()[0])


BENCHMARK = Benchmark(
    "B12",
    "the wrapper: start-up; `holdfast run` of 200 MB of output",
    measure,
    (Target("first word of the wrapper, s", "<", 0.3), Target("of the same pipe into a file", "≤", 2.5)),
    "with the bytes: spooled durably, sent, checked, stored durably, acknowledged, shown",
)
