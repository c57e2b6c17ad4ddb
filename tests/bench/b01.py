"""B1: one saturated session, an event a frame, one subscriber; against a relay that stores and acknowledges nothing."""

from __future__ import annotations

from collections.abc import Iterator

from tests.bench import proc
from tests.bench.figures import Benchmark, Figures, Target
from tests.bench.harness import Bench

EVENTS = 60_000


def measure(bench: Bench) -> Iterator[Figures]:
    total = round(EVENTS * bench.scale)
    gateway = bench.service.gateway_pid()
    for _ in bench.each_run():
        o = {"names": bench.fresh(1), "total": total, "per_frame": 1}
        (sent,) = bench.together(("send", o))
        alone = total / (sent["ended"] - sent["began"])
        o["names"] = bench.fresh(1)
        bench.service.create(o["names"][0])
        cpu = proc.cpu_s(gateway)
        sent, seen = bench.together(("send", o), ("watch", o))
        cpu = proc.cpu_s(gateway) - cpu
        watched = total / (seen["ended"] - sent["began"])
        seen, sent = bench.together(("watch", o), ("send", o), relay=True)
        relay = total / (seen["ended"] - sent["began"])
        yield {
            "acknowledged/s, nobody watches": alone,
            "seen by the subscriber/s": watched,
            "gateway µs of CPU an event, watched": cpu / total * 1e6,
            "bare relay/s": relay,
            "of the relay": watched / relay,
        }


BENCHMARK = Benchmark(
    "B1",
    "saturated ingest: 1 session, 1 event a frame, 1 subscriber",
    measure,
    (Target("of the relay", "≥", 1.0),),
    "with the number of frames: each is decoded and checked by itself, while groups and acknowledgements coalesce",
)
