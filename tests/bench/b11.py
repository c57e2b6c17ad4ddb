"""B11: how many sessions fit into a GiB: each with an actor of its own, in shared cells, and hibernated.

Private memory, of the processes that exist because of the sessions: the actors or cells, and what the gateway grew by
while their sockets came. Awake sessions have a running execution; all of them are connected.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

from tests.bench import proc
from tests.bench.figures import Benchmark, Figures, Target
from tests.bench.harness import Bench
from tests.conftest import eventually
from tests.e2e.service import Service

GIB = float(1 << 30)
DEDICATED, SHARED, HIBERNATED = 4, 1000, 2000
CELLS = 2


def measure(bench: Bench) -> Iterator[Figures]:
    found: list[Figures] = [{} for _ in range(bench.runs)]
    service = bench.service_with(session_placement=f"shared:{CELLS}")
    for run in bench.each_run():
        each = _shared(bench, service, max(50, round(SHARED * bench.scale)))
        found[run] |= {"KiB each, shared": each / 1024, "per GiB, shared": GIB / each}
    # As many awake as there may have to be: an actor outlives its session by a while, and run follows run.
    service = bench.service_with(actors_max=64)
    for run in bench.each_run():
        each = _hibernated(bench, service, max(100, round(HIBERNATED * bench.scale)))
        found[run] |= {"KiB each, hibernated, connected": each / 1024, "per GiB, hibernated, connected": GIB / each}
        each = _dedicated(bench, service)
        found[run] |= {"MiB each, dedicated": each / (1 << 20), "per GiB, dedicated": GIB / each}
    for figures in found:
        yield figures | {"shared, of dedicated": figures["per GiB, shared"] / figures["per GiB, dedicated"]}


def _dedicated(bench: Bench, service: Service) -> float:
    names = bench.fresh(DEDICATED if bench.scale >= 1 else 2)
    with bench.client("steady", names=names, rate=1.0) as crowd:
        crowd.ready()
        eventually(lambda: all(service.actor_pid(n) for n in names), 60, every=0.1, what="all actors are awake")
        time.sleep(1.0)
        each = sum(proc.memory(service.actor_pid(n) or 0) for n in names) / len(names)
        crowd.ask("end")
    for name in names:
        service.http("DELETE", f"/v1/sessions/{name}")
    return each


def _hibernated(bench: Bench, service: Service, count: int) -> float:
    service.kill_gateway()
    gateway = service.gateway_pid()
    before = proc.memory(gateway)
    with bench.client("idle", names=bench.fresh(count)) as crowd:
        crowd.ready().ask("come")
        time.sleep(2.0)
        each = (proc.memory(gateway) - before) / count
        crowd.ask("end")
    return each


def _shared(bench: Bench, service: Service, count: int) -> float:
    """With processes that are new: what older ones keep for reuse would look like nothing."""
    cells = [f"session-cell/{k}" for k in range(CELLS)]
    for cell in cells:
        if (pid := service.pid_of_actor(cell)) is not None:
            os.kill(pid, signal.SIGKILL)
    service.kill_gateway()
    gateway = service.gateway_pid()
    before = proc.memory(gateway)
    with bench.client("steady", names=bench.fresh(count), rate=0.2) as crowd:
        crowd.ready()
        eventually(lambda: all(service.pid_of_actor(c) for c in cells), 60, every=0.1, what="the cells are awake")
        time.sleep(2.0)
        total = sum(proc.memory(service.pid_of_actor(c) or 0) for c in cells) + proc.memory(gateway) - before
        crowd.ask("end")
    return total / count


BENCHMARK = Benchmark(
    "B11",
    "sessions per GiB: dedicated, shared, hibernated with an open socket",
    measure,
    (Target("shared, of dedicated", "≥", 100),),
    "a process for each that is awake and dedicated; otherwise a socket",
)
