"""`GET /metrics` for Prometheus: what this gateway counted, what the store knows, and who is connected now.

A token of scope reader (or wider, and for no single session) is needed, because the numbers are of the whole fleet; or
`metrics_open` lets loopback peers in without one, if they name the host by a name of ours (a page whose name was
rebound to loopback does not). Never a label per session, token or address: every label is from a table.

The store is asked at most once in STORE_EVERY_S, however often somebody scrapes.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Final

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector

from actors.config import is_loopback
from actors.gateway.auth import MAY_READ, Authority
from actors.gateway.door import Door
from actors.gateway.entrance import Entrance
from actors.protocol.errors import HoldfastError
from actors.protocol.node_codes import INVOCATION_ERRORS, NODE_EVENT_TYPES, ROLES, TASK_STATUSES

STORE_EVERY_S: Final = 5.0
KINDS: Final = ("ingest", "node", "stream", "sse", "fleet", "fleet_sse")


class Metrics:
    def __init__(self, door: Door, authority: Authority) -> None:
        self.door, self.authority = door, authority
        self.entrance: Entrance | None = None
        self._stored: dict[str, Any] | None = None
        self._read_at = float("-inf")
        self._reading = asyncio.Lock()
        door.worker.observe = door.counts.committed
        door.counts.registry.register(self)
        ProcessCollector(registry=door.counts.registry)

    async def show(self, request: web.Request) -> web.Response:
        if not self._open_to(request):
            (await self.authority.caller(request)).need(MAY_READ)
        await self._look()
        text = generate_latest(self.door.counts.registry)
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_LATEST, "Cache-Control": "no-store"})

    def _open_to(self, request: web.Request) -> bool:
        if not self.door.settings.metrics_open or "Origin" in request.headers or "Authorization" in request.headers:
            return False
        ours = {origin.partition("://")[2] for origin in self.authority.origins}
        return request.remote is not None and is_loopback(request.remote) and request.host in ours

    async def _look(self) -> None:
        """A store that is away leaves its numbers out; the others are what one needs then."""
        async with self._reading:
            now = self.door.clock()
            if now - self._read_at < STORE_EVERY_S:
                return
            self._read_at = now
            try:
                self._stored = await self.door.worker.read(lambda store: store.meters())
            except HoldfastError:
                self._stored = None

    # ------------------------------------------------------------ the families

    def describe(self) -> list[Metric]:
        return []  # nothing to check for doubles, and nothing to read yet

    def collect(self) -> Iterator[Metric]:
        yield from self._of_gateway()
        if self._stored is not None:
            yield from of_store(self._stored, self.door.counts.events)

    def _of_gateway(self) -> Iterator[Metric]:
        door = self.door
        here = Counter(socket.kind for socket in door.sockets)
        yield gauge("connections", "Live sockets and streams, by kind.", {k: here[k] for k in KINDS}, "kind")
        yield count("reconnects", "Wrappers that came back: hellos of a later attempt.", door.counts.reconnects)
        lags = [max(0, feed.head - watcher.cursor) for feed in door.hub.feeds.values() for watcher in feed.subscribers]
        yield gauge(
            "fanout_lag_events", "The subscriber furthest behind its session's head, in events.", max(lags, default=0)
        )
        yield gauge("subscribers", "Subscribers of session streams.", len(lags))
        yield gauge("subscribers_behind", "Of these, those not at the head.", sum(lag > 0 for lag in lags))
        yield gauge("invocations_awaited", "Callers that wait for an invocation's outcome.", len(door.waiting))
        yield gauge("writer_queue_jobs", "Jobs waiting for the writer.", door.worker.depth)
        yield gauge("reads_waiting", "Reads waiting for a reader.", door.worker.reads_waiting)
        yield count("groups", "Group commits.", door.worker.groups)
        yield count("storage_errors", "Errors of the store, by kind.", door.worker.storage_errors, "kind")
        yield count("refused", "Refused for a limit, by what was too much.", dict(door.limits.refused), "limit")
        if self.entrance is not None:
            yield count("connections_cut", "Cut before or between requests, by why.", dict(self.entrance.cut), "why")
            yield gauge("tcp_connections", "Open connections of any kind.", len(self.entrance.connections))


def of_store(stored: dict[str, Any], events_here: int) -> Iterator[Metric]:
    tallies: dict[tuple[str, str], int] = stored["tallies"]

    def tally(name: str) -> dict[str, int]:
        return {label: value for (of, label), value in tallies.items() if of == name}

    links = ("connected", "grace", "offline")
    yield gauge("sessions", "Sessions, by the state of their link.", _all(links, stored["sessions"]), "state")
    live = ("queued", "pending", "running")
    yield gauge("executions", "Live executions, by status.", _all(live, stored["executions"]), "status")
    ended = CounterMetricFamily(
        "holdfast_executions_ended", "Executions that ended, by status and cause.", labels=("status", "cause")
    )
    for label, value in sorted(tally("executions_ended").items()):
        ended.add_metric(label.split("/"), value)
    yield ended
    yield count(
        "events_persisted",
        "Events in the store: of wrappers through this gateway since it started, and of Holdfast itself since ever.",
        {"wrapper": events_here, "holdfast": tally("control_events").get("", 0)},
        "origin",
    )
    yield count("deadlines_fired", "Deadlines that fired, by kind.", tally("deadlines_fired"), "kind")
    yield count(
        "interrupts", "Interrupts requested, and how interrupted executions ended.", tally("interrupts"), "outcome"
    )
    yield from of_nodes(stored, tally)
    yield gauge("service_clock_age_seconds", "Since a gateway moved service time on.", stored["clock_age_ms"] / 1000)
    yield gauge("reaper_lag_seconds", "How long the oldest due deadline has been due.", stored["overdue_ms"] / 1000)
    if stored["reaper_age_ms"] is not None:
        yield gauge("reaper_beat_age_seconds", "Since the reaper's last beat.", stored["reaper_age_ms"] / 1000)
    yield gauge("actors_awake", "Session actors that say they are awake.", stored["actors_awake"])
    yield gauge("tokens", "Tokens that hold.", stored["tokens"])


def of_nodes(stored: dict[str, Any], tally: Callable[[str], dict[str, int]]) -> Iterator[Metric]:
    yield gauge("nodes", "Nodes that are known.", stored["nodes"])
    roles = _all(tuple(ROLES), stored["node_roles_connected"])
    yield gauge("node_roles_connected", "Roles of nodes that are connected, by role.", roles, "role")
    open_ones = _all(("pending", "dispatched"), stored["invocations"])
    yield gauge("invocations", "Invocations that have not settled, by state.", open_ones, "state")
    outcomes = _all(("ok", *INVOCATION_ERRORS), tally("invocations"))
    yield count("invocations_settled", "Invocations that settled: ok, or the error's code.", outcomes, "outcome")
    events = _all((*NODE_EVENT_TYPES, "own"), tally("node_events"))
    yield count("node_events", "Events in the logs of nodes; own: of a type of the node's.", events, "type")
    yield gauge("tasks", "Tasks, by status.", _all(tuple(TASK_STATUSES), stored["tasks"]), "status")


def _all(names: tuple[str, ...], found: dict[str, int]) -> dict[str, int]:
    return dict.fromkeys(names, 0) | found


def gauge(name: str, help: str, values: float | dict[str, int], label: str = "") -> Metric:
    if not isinstance(values, dict):
        return GaugeMetricFamily(f"holdfast_{name}", help, value=values)
    family = GaugeMetricFamily(f"holdfast_{name}", help, labels=(label,))
    for key, value in values.items():
        family.add_metric((key,), value)
    return family


def count(name: str, help: str, values: int | dict[str, int], label: str = "") -> Metric:
    if not isinstance(values, dict):
        return CounterMetricFamily(f"holdfast_{name}", help, value=values)
    family = CounterMetricFamily(f"holdfast_{name}", help, labels=(label,))
    for key, value in sorted(values.items()):
        family.add_metric((key,), value)
    return family
