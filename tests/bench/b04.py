"""B4: four hundred running sessions for a minute; the wrappers, the subscribers and the service share the machine."""

from __future__ import annotations

from collections.abc import Iterator

from tests.bench import proc
from tests.bench.figures import Benchmark, Figures, Target
from tests.bench.harness import Bench

SESSIONS, RATE, SECONDS = 400, 20, 60.0
BARE_S = 15.0  # of the same load, on the relay that commits and does nothing else
CALM_S = 5.0  # of B3's load, in the same run: its p50 is the yardstick of this p99


def measure(bench: Bench) -> Iterator[Figures]:
    seconds, sessions = max(2.0, SECONDS * bench.scale), SESSIONS if bench.scale >= 0.2 else SESSIONS // 10
    for _ in bench.each_run():
        (calm,) = bench.together(("pace", {"names": bench.fresh(20), "rate": 20, "seconds": min(CALM_S, seconds)}))
        o = {"names": bench.fresh(sessions), "rate": RATE, "seconds": seconds}
        with bench.client("pace", **o) as client:
            client.ready()
            gateway = bench.service.gateway_pid()
            cpu, before = proc.cpu_s(gateway), proc.Machine.now()
            client.say()
            ours = client.answer()
            after = proc.Machine.now()
            both, gateway_busy = before.busy_until(after), 100 * (proc.cpu_s(gateway) - cpu) / (after.at - before.at)
        # A service for each run: when the grace of 400 sessions without a wrapper is over, it has much to do.
        bench.end_services()
        o |= {"names": bench.fresh(sessions), "seconds": min(BARE_S, seconds)}
        (bare,) = bench.together(("pace", o), relay="committing")
        bench.end_bare("committing")
        yield {
            "events/s": ours["n"] / ours["seconds"],
            "of the rate asked for": ours["n"] / ours["seconds"] / (sessions * RATE),
            "wrappers told to come later": ours["closed"],
            "p50 ms": ours["p50"],
            "p99 ms": ours["p99"],
            "p99, of B3's p50": ours["p99"] / calm["p50"],
            "both cores busy, %": both,
            "of that the gateway, % of one core": gateway_busy,
            "committing relay p50 ms": bare["p50"],
            "committing relay p99 ms": bare["p99"],
            "p99, of the committing relay's": ours["p99"] / bare["p99"],
        }


BENCHMARK = Benchmark(
    "B4",
    "400 running sessions × 20 events/s for 60 s",
    measure,
    (
        Target("of the rate asked for", "≥", 0.98),
        Target("p99, of B3's p50", "≤", 10),
        Target("both cores busy, %", "<", 80),
    ),
    "with the events; a session more costs its events, and nothing while it is silent",
)
