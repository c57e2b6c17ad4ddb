"""B2: fifty saturated sessions in frames of twenty; against raw SQLite with the same rows and the same disk."""

from __future__ import annotations

from collections.abc import Iterator

from tests.bench import raw
from tests.bench.figures import Benchmark, Figures, Target
from tests.bench.harness import Bench

SESSIONS, PER_FRAME, EVENTS = 50, 20, 6_000


def measure(bench: Bench) -> Iterator[Figures]:
    total = max(PER_FRAME, round(EVENTS * bench.scale) // PER_FRAME * PER_FRAME)
    for _ in bench.each_run():
        o = {"names": bench.fresh(SESSIONS), "total": total, "per_frame": PER_FRAME}
        (sent,) = bench.together(("send", o))
        ours = SESSIONS * total / (sent["ended"] - sent["began"])
        bare = raw.sqlite_rows_per_s(bench.folder, 1000, seconds=max(0.3, 2.0 * bench.scale))
        yield {"acknowledged/s": ours, "raw SQLite rows/s": bare, "of raw SQLite": ours / bare}


BENCHMARK = Benchmark(
    "B2",
    "saturated ingest: 50 sessions, 20 events a frame",
    measure,
    (Target("of raw SQLite", "≥", 0.25),),
    "with the bytes: decoding is half of it, and the insert's share is that of raw SQLite",
)
