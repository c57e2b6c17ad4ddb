"""What this gateway counts while it works: an addition per item, a little per group, nothing per event.

A histogram is told one value per group: of the acknowledgements of a group, that of the item that waited longest.
"""

from __future__ import annotations

import time
from typing import Final

from prometheus_client import CollectorRegistry, Histogram

SECONDS: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
SIZES: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 4000)


class Counts:
    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=True)
        self.events = 0  # persisted through sockets of this gateway
        self.reconnects = 0
        self._oldest: float | None = None  # when the longest waiting item of this group was handed to the writer
        self._append = Histogram(
            "holdfast_append_seconds",
            "One group's transaction, its fsync included.",
            registry=self.registry,
            buckets=SECONDS,
        )
        self._ack = Histogram(
            "holdfast_ack_seconds",
            "From a frame's events handed to the writer to their acknowledgement sent; per group, the longest.",
            registry=self.registry,
            buckets=SECONDS,
        )
        self._jobs = Histogram(
            "holdfast_group_jobs", "Appends and transitions in one group.", registry=self.registry, buckets=SIZES
        )
        self._events = Histogram("holdfast_group_events", "Events in one group.", registry=self.registry, buckets=SIZES)

    def committed(self, jobs: int, events: int, took_s: float) -> None:
        """On the writer's thread, after each group."""
        self._append.observe(took_s)
        self._jobs.observe(jobs)
        self._events.observe(events)

    def settled(self, events: int, asked_at: float) -> None:
        self.events += events
        if self._oldest is None:
            self._oldest = asked_at  # a group answers in the order of arrival: the first waited longest

    def group_told(self) -> None:
        if self._oldest is not None:
            self._ack.observe(time.monotonic() - self._oldest)
            self._oldest = None
