"""B3: how long an event takes from the wrapper, durable, to a subscriber; against relay and fdatasync, one after the
other."""

from __future__ import annotations

from collections.abc import Iterator

from tests.bench import raw
from tests.bench.figures import Benchmark, Figures, Target
from tests.bench.harness import Bench

SESSIONS, RATE, SECONDS = 20, 20, 10.0


def measure(bench: Bench) -> Iterator[Figures]:
    for _ in bench.each_run():
        o = {"names": bench.fresh(SESSIONS), "rate": RATE, "seconds": max(1.0, SECONDS * bench.scale)}
        (ours,) = bench.together(("pace", o))
        (bare,) = bench.together(("pace", o), relay=True)
        sync, sync_p99 = raw.fdatasync_ms(bench.folder, per_s=SESSIONS * RATE)
        yield {
            "p50 ms": ours["p50"],
            "p99 ms": ours["p99"],
            "relay p50 ms": bare["p50"],
            "relay p99 ms": bare["p99"],
            "fdatasync p50 ms": sync,
            "fdatasync p99 ms": sync_p99,
            "p50, of relay + fdatasync": ours["p50"] / (bare["p50"] + sync),
            "p99, of p50": ours["p99"] / ours["p50"],
            "p99, of the p99 of relay + fdatasync": ours["p99"] / (bare["p99"] + sync_p99),
        }


BENCHMARK = Benchmark(
    "B3",
    "latency wrapper → durable → subscriber: 20 sessions × 20 events/s",
    measure,
    (Target("p50, of relay + fdatasync", "≤", 2.5), Target("p99, of p50", "≤", 5)),
    "not with the sessions that are open, but with what waits for the same commit",
)
