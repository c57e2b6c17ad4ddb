"""B5: ten thousand wrappers that are connected and have nothing to do but their heartbeats."""

from __future__ import annotations

import time
from collections.abc import Iterator

from tests.bench import proc
from tests.bench.figures import Benchmark, Figures, Target
from tests.bench.harness import Bench

WRAPPERS = 10_000
SETTLE_S, WATCHED_S = 12.0, 15.0  # more than a heartbeat: everybody has spoken; then what idleness costs


def measure(bench: Bench) -> Iterator[Figures]:
    count = max(200, round(WRAPPERS * bench.scale))
    watched_s, settle_s = (WATCHED_S, SETTLE_S) if bench.scale >= 1 else (2.0, 1.0)
    service = bench.service
    with bench.client("idle", names=bench.fresh(count)) as crowd:
        crowd.ready()
        for run in bench.each_run():
            if run:
                crowd.ask("leave")
            service.kill_gateway()  # a new process: what the last one had kept for reuse would look like nothing
            gateway = service.gateway_pid()
            before = proc.memory(gateway)
            took_s = crowd.ask("come")["seconds"]
            bench.say(f"{count} came in {took_s:.0f} s")
            time.sleep(settle_s)
            cpu, at = proc.cpu_s(gateway), time.monotonic()
            time.sleep(watched_s)
            cpu_s, at_s = proc.cpu_s(gateway) - cpu, time.monotonic() - at
            yield {
                "gateway KiB each": (proc.memory(gateway) - before) / 1024 / count,
                "gateway, of one core": cpu_s / at_s,
                "µs of CPU per heartbeat": cpu_s / at_s * 1e6 / (count / 10.0),
                "came in/s": count / took_s,
            }
        assert crowd.ask("end")["open"] == count


BENCHMARK = Benchmark(
    "B5",
    "10,000 connected idle wrappers with heartbeats",
    measure,
    (Target("gateway KiB each", "≤", 40), Target("gateway, of one core", "≤", 0.5)),
    "in proportion to the sockets, memory and CPU alike",
)
