"""B7: a hundred thousand events for a subscriber who comes late; against the relay in frames of the same size."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from tests.bench import proc
from tests.bench.figures import Benchmark, Figures, Target
from tests.bench.harness import Bench

EVENTS = 100_000


def measure(bench: Bench) -> Iterator[Figures]:
    total = round(EVENTS * bench.scale / 20) * 20
    o = {"names": bench.fresh(1), "total": total, "per_frame": 20}
    bench.together(("send", o))
    gateway = bench.service.gateway_pid()
    bench.together(("watch", o | {"late": True}))  # once, so that memory that stays with the process is there before
    for _ in bench.each_run():
        before = proc.memory(gateway)
        with Highest(gateway) as highest:
            (seen,) = bench.together(("watch", o | {"late": True}))
        ours = seen["seen"] / (seen["ended"] - seen["began"])
        frames = seen["frames"]
        bare = {"names": o["names"], "total": frames, "per_frame": 1, "bytes": seen["bytes"] // frames}
        got, sent = bench.together(("watch", bare), ("send", bare), relay=True)
        relay = seen["seen"] / (got["ended"] - sent["began"])
        yield {
            "replayed events/s": ours,
            "bare relay events/s": relay,
            "of the relay": ours / relay,
            "events a frame": seen["seen"] / frames,
            "gateway grew while it replayed, MiB": (highest.bytes - before) / (1 << 20),
        }


class Highest:
    """The highest memory of a process while something else goes on."""

    def __init__(self, pid: int) -> None:
        self.pid, self.bytes = pid, 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Highest:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.1):
            self.bytes = max(self.bytes, proc.memory(self.pid))
        self.bytes = max(self.bytes, proc.memory(self.pid))


BENCHMARK = Benchmark(
    "B7",
    "replay of 100,000 events to a late subscriber",
    measure,
    (Target("of the relay", "≥", 0.5), Target("gateway grew while it replayed, MiB", "≤", 16)),
    "with the events replayed, page by page; memory with the page",
)
