"""B8: one session with a thousand subscribers, a hundred of whom take nothing; what that does to ingest.

Paced: B3's load goes on at twenty sessions while one of them is watched by the crowd; every record must be
acknowledged at its rate. Saturated: one more session sends as fast as it can, first with nobody, then while the crowd
watches the others; this is told, not promised: two cores that are full have nothing to give.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from tests.bench.figures import Benchmark, Figures, Target
from tests.bench.harness import Bench, Child

SESSIONS, RATE, SECONDS = 20, 20.0, 8.0
SUBSCRIBERS, STALLED = 1000, 100
SATURATED_S = 4.0


def measure(bench: Bench) -> Iterator[Figures]:
    count = max(20, round(SUBSCRIBERS * bench.scale))
    stalled = max(2, round(STALLED * bench.scale))
    seconds = max(1.0, SECONDS * bench.scale)
    for _ in bench.each_run():
        names = bench.fresh(SESSIONS)
        with bench.client("steady", names=names, rate=RATE) as wrappers:
            wrappers.ready()
            with bench.client("audience", name=names[0], count=1, stalled=0) as one:
                one.ready()
                before = _paced(wrappers, seconds)
                full_before = _saturated(bench)
            with bench.client("audience", name=names[0], count=count, stalled=stalled) as crowd:
                crowd.ready()
                seen = crowd.ask("now")["least"]
                after = _paced(wrappers, seconds)
                seen = crowd.ask("now")["least"] - seen
                full_after = _saturated(bench)
            wrappers.ask("end")
        yield {
            "acknowledged/s, 1 subscriber": before["rate"],
            f"acknowledged/s, {count} subscribers": after["rate"],
            "ingest lost, %": 100 * (1 - after["rate"] / before["rate"]),
            "ack p50 ms, 1 subscriber": before["p50"],
            "ack p50 ms, all": after["p50"],
            "ack p99 ms, 1 subscriber": before["p99"],
            "ack p99 ms, all": after["p99"],
            "of what was sent, the slowest reader saw": seen / max(1.0, after["rate"] / SESSIONS * seconds),
            "saturated beside it/s, 1 subscriber": full_before,
            "saturated beside it/s, all": full_after,
        }


def _paced(wrappers: Child, seconds: float) -> dict[str, float]:
    acked, began = wrappers.ask("now")["acked"], time.monotonic()
    time.sleep(seconds)
    now = wrappers.ask("now")
    return {"rate": (now["acked"] - acked) / (time.monotonic() - began), "p50": now["p50"], "p99": now["p99"]}


def _saturated(bench: Bench) -> float:
    o = {"names": bench.fresh(1), "per_frame": 20, "seconds": max(0.5, SATURATED_S * bench.scale)}
    (sent,) = bench.together(("send", o))
    return float(sent["acked"] / (sent["ended"] - sent["began"]))


BENCHMARK = Benchmark(
    "B8",
    "fan-out 1 → 1,000 subscribers, 100 of them stalled",
    measure,
    (Target("ingest lost, %", "<", 5),),
    "with the frames that are sent: groups × readers; a frame is joined once for all who stand at the same place",
)
