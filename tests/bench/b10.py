"""B10: how long a decision takes: a hello until its hello_ack, an interrupt until the wrapper has it.

By way of an awake actor, of none, and of a cell that sessions share; against a bare call of an empty method in the
same cluster.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

from tests.bench.figures import Benchmark, Figures, Target
from tests.bench.harness import Bench
from tests.conftest import eventually
from tests.e2e.service import Service

N, CALLS = 50, 500


def measure(bench: Bench) -> Iterator[Figures]:
    found: list[Figures] = [{} for _ in range(bench.runs)]
    n, calls = max(5, round(N * bench.scale)), max(50, round(CALLS * bench.scale))
    for kind, settings in (
        ("awake", {"actors_max": 64}),  # also on one core, and beside what other benchmarks have left awake
        ("asleep", {"actors_max": 0}),  # nobody is ever woken: the gateway decides, as it does for a hibernated one
        ("shared", {"session_placement": "shared:1"}),  # one cell: that it is awake is known from outside
    ):
        service = bench.service_with(**settings)
        for run in bench.each_run():
            (name,) = bench.fresh(1)
            if kind == "awake":
                with bench.client("ray_calls", data_dir=str(service.data), n=calls) as bare:
                    took = bare.ready().ask("go")
                    found[run]["bare Ray call ms"] = took["p50"]
                    found[run]["bare Ray call after 10 ms of rest, ms"] = took["rested"]
            with bench.client("control", name=name, n=n) as client:
                client.ready()
                if kind != "asleep":
                    eventually(functools.partial(_awake, service, name, kind), 30, what="the actor is awake")
                took = client.ask("go")
            found[run][f"hello → hello_ack ms, {kind}"] = took["hello"]
            found[run][f"interrupt → wrapper ms, {kind}"] = took["interrupt"]
    for figures in found:
        bare_ms = figures["bare Ray call ms"]
        worst = max(figures["hello → hello_ack ms, awake"], figures["interrupt → wrapper ms, awake"])
        yield figures | {"awake, of a bare Ray call": worst / bare_ms}


def _awake(service: Service, name: str, kind: str) -> bool:
    if kind == "awake":
        return service.actor_pid(name) is not None
    return service.actors_awake() > 0


BENCHMARK = Benchmark(
    "B10",
    "control path: hello → hello_ack, interrupt → command at the wrapper",
    measure,
    (Target("awake, of a bare Ray call", "≤", 5),),
    "not with the sessions, nor with the length of their logs",
)
