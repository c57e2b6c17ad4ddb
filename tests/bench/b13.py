"""B13: B4's load for half an hour with a fault a minute; memory and files stay flat, and nothing is violated.

Faults in turn: kill -9 of the gateway, of the reaper, of an actor; a gateway that freezes for some seconds; half of the
wrappers cut off by their own kill. The wrappers' records are counted against the log in the end.
"""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import time
from collections.abc import Callable, Iterator

from tests.bench import proc
from tests.bench.b06 import judge
from tests.bench.figures import Benchmark, Figures, Target
from tests.bench.harness import Bench
from tests.conftest import eventually
from tests.e2e.service import Service

SESSIONS, RATE = 400, 20.0
LOOK_S, FAULT_S = 5.0, 60.0
FROZEN_S = 4.0


def measure(bench: Bench) -> Iterator[Figures]:
    count = max(20, round(SESSIONS * bench.scale))
    service, seconds = bench.service, bench.minutes * 60
    fault_s = min(FAULT_S, seconds / 4)
    with bench.client("steady", names=bench.fresh(count), rate=RATE) as wrappers:
        wrappers.ready()
        looks: list[dict[str, float]] = []
        began = time.monotonic()
        next_fault, faults = began + fault_s, 0
        while (now := time.monotonic()) < began + seconds:
            if now >= next_fault and began + seconds - now > fault_s / 2:
                next_fault, faults = next_fault + fault_s, faults + 1
                _fault(bench, service, faults)
            looks.append(_look(service) | wrappers.ask("now"))
            last = looks[-1]
            bench.say(
                f"{(now - began) / 60:.1f} of {seconds / 60:g} min, {faults} faults, gateway {last['gateway MiB']:.0f} "
                f"MiB, {last['files']:.0f} files, ack p99 {last.get('p99', 0):.0f} ms",
                every_s=30.0,
            )
            time.sleep(min(LOOK_S, seconds / 8))
        ended = wrappers.ask("end")
    third = max(1, len(looks) // 3)
    first, final = looks[:third], looks[-third:]
    yield {
        "minutes": (time.monotonic() - began) / 60,
        "faults": float(faults),
        "acknowledged/s": (looks[-1]["acked"] - looks[0]["acked"]) / max(1.0, looks[-1]["at"] - looks[0]["at"]),
        "ack p50 ms": statistics.median(look["p50"] for look in looks if "p50" in look),
        "ack p99 ms, median of looks": statistics.median(look["p99"] for look in looks if "p99" in look),
        "memory MiB, first third": _median(first, "MiB"),
        "memory MiB, last third": _median(final, "MiB"),
        "memory, last of first": _median(final, "MiB") / _median(first, "MiB"),
        "open files, first third": _median(first, "files"),
        "open files, last third": _median(final, "files"),
        "files, last of first": _median(final, "files") / _median(first, "files"),
        **judge(service, ended["made"]),
    }


def _median(looks: list[dict[str, float]], name: str) -> float:
    return statistics.median(look[name] for look in looks)


def _look(service: Service) -> dict[str, float]:
    """Of everything that `up` runs. The gateway apart, because that is who would grow."""
    assert service.up is not None
    found = {"at": time.monotonic(), "MiB": 0.0, "files": 0.0, "gateway MiB": 0.0}
    gateway = service.gateway_pid()
    for pid in proc.below(service.up.pid):
        with contextlib.suppress(OSError):  # it has just ended
            mib = proc.memory(pid) / (1 << 20)
            found["MiB"] += mib
            found["files"] += proc.files(pid)
            if pid == gateway:
                found["gateway MiB"] = mib
    return found


def _fault(bench: Bench, service: Service, number: int) -> None:
    kinds: tuple[Callable[[Service], str], ...] = (_kill_gateway, _kill_reaper, _freeze_gateway, _kill_actor)
    bench.say(f"fault {number}: {kinds[number % len(kinds)](service)}")


def _kill_gateway(service: Service) -> str:
    return f"kill -9 of the gateway, answering again after {service.kill_gateway():.1f} s"


def _kill_reaper(service: Service) -> str:
    os.kill(service.reaper_pid(), signal.SIGKILL)
    return "kill -9 of the reaper"


def _freeze_gateway(service: Service) -> str:
    pid = service.gateway_pid()
    os.kill(pid, signal.SIGSTOP)
    time.sleep(FROZEN_S)
    with contextlib.suppress(ProcessLookupError):  # `up` may have lost its patience
        os.kill(pid, signal.SIGCONT)
    eventually(service.healthy, 30, what="the gateway answers")
    return f"the gateway stood still for {FROZEN_S:g} s"


def _kill_actor(service: Service) -> str:
    row = service._row("select name, pid from actors where name like 'session/%' limit 1")
    if row is None:
        return "no actor to kill"
    with contextlib.suppress(ProcessLookupError):
        os.kill(int(row[1]), signal.SIGKILL)
    return f"kill -9 of {row[0]}"


BENCHMARK = Benchmark(
    "B13",
    "soak: B4's load with a fault a minute",
    measure,
    (
        Target("memory, last of first", "≤", 1.1),
        Target("files, last of first", "≤", 1.1),
        Target("lost", "≤", 0),
        Target("twice", "≤", 0),
    ),
    "not at all with time",
)
