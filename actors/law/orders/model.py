"""The values that decisions about orders stand on, exactly as they stand in rows. Nothing here decides anything.

Times: `*_at_ms` is wall time (Unix ms, for people); service time (ms) is for deadlines.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from actors.law.model import Json
from actors.law.nodes.model import Task
from actors.protocol.node_codes import TaskStatus
from actors.protocol.order_codes import BATCH_OPEN, ORDER_OPEN, BatchStatus, OrderStatus, QuotaPolicy

Counts = Mapping[TaskStatus, int]  # tasks that are not deleted, by status; a status that is absent has none


class GroupKey(NamedTuple):
    sop_id: str
    subscene_id: str


@dataclass(frozen=True, slots=True)
class Order:
    """finalizations: how often it was completed; a reopened order may be so again."""

    order_id: str
    name: str | None
    target_count: int
    quota_policy: QuotaPolicy
    created_at_ms: int
    made_by: str  # the seed of the request that made it: a repeat of that request is no second one
    status: OrderStatus = "created"
    finalizations: int = 0
    started_at_ms: int | None = None
    completed_at_ms: int | None = None
    cancelled_at_ms: int | None = None

    @property
    def open(self) -> bool:
        return self.status in ORDER_OPEN


@dataclass(frozen=True, slots=True)
class Batch:
    batch_id: str
    order_id: str
    station_id: str
    created_at_ms: int
    made_by: str
    status: BatchStatus = "pending"
    started_at_ms: int | None = None
    completed_at_ms: int | None = None
    cancelled_at_ms: int | None = None
    recalled_at_ms: int | None = None

    @property
    def open(self) -> bool:
        return self.status in BATCH_OPEN


@dataclass(frozen=True, slots=True)
class Group:
    """What the tasks of one batch and key have in common. Names are strings, the version a string or a number."""

    batch_id: str
    sop_id: str
    subscene_id: str
    sop_slug: str | None = None
    sop_version: Json = None
    scene_name: str | None = None
    subscene_name: str | None = None
    params: Json = None

    @property
    def key(self) -> GroupKey:
        return GroupKey(self.sop_id, self.subscene_id)


@dataclass(frozen=True, slots=True)
class Station:
    """node_type_*: of whatever device stands there; name None: not said."""

    station_id: str
    name: str | None
    created_at_ms: int
    made_by: str
    node_type_name: str | None = None
    capabilities: Json = None  # None: no node type was given


@dataclass(frozen=True, slots=True)
class Binding:
    """One version of who and what works at a station. Current: not ended."""

    station_id: str
    version: int
    collector_id: str
    node_id: str
    bound_at_ms: int
    ended_at_ms: int | None = None
    by: str | None = None


@dataclass(frozen=True, slots=True)
class Collector:
    collector_id: str
    name: str
    created_at_ms: int
    made_by: str
    operator_id: str | None = None


@dataclass(frozen=True, slots=True)
class OrderView:
    """Every row that a decision about an order may stand on, read inside its own write transaction.

    counts: of the order's tasks. batches: the named one and those that a task moved in. batch_counts, group_counts: of
    each of `batches`. batch_taken: another order has a batch with the named id.
    open_batches: the order's open batches by status, read when all of them may be closed.
    oldest: of the group that is completed, its pending tasks, oldest first, as many as are asked for.
    unbegun: of each group that is to shrink, its tasks that never began (pending or cancelled), oldest first.
    held: the tasks of the order (of the batch) that occupy a recorder, or that a recorder's shadow names; read when
    they may be cancelled. shadows: which of them a recorder was told of or reports.
    binding: the present one of the batch's station; station: that it exists.
    """

    order: Order | None
    counts: Counts
    batches: Mapping[str, Batch]
    batch_counts: Mapping[str, Counts]
    group_counts: Mapping[str, Mapping[GroupKey, Counts]]
    groups: Mapping[str, Mapping[GroupKey, Group]]
    service_ms: int
    wall_ms: int
    batch_count: int = 0
    batch_taken: bool = False
    begun: int = 0  # tasks of what is to be deleted that have begun
    open_batches: Mapping[BatchStatus, int] = field(default_factory=dict)
    oldest: tuple[Task, ...] = ()
    unbegun: Mapping[GroupKey, tuple[Task, ...]] = field(default_factory=dict)
    held: Mapping[str, Task] = field(default_factory=dict)
    shadowed: frozenset[str] = frozenset()
    station: Station | None = None
    binding: Binding | None = None
    asker_station: bool = True  # the station that the asker's token speaks for still exists


@dataclass(frozen=True, slots=True)
class StationView:
    """A station, and everything that a new binding would take something from.

    node_exists, collector_exists: of those that the request names. current: every present binding of the station, of
    the named collector and of the named node. under_way: station → its tasks of open batches that are ready,
    in_progress or uploading. collector: the one that the request is about; bound_station: where it works now.
    """

    station: Station | None
    collector: Collector | None
    wall_ms: int
    version: int = 0
    node_exists: bool = False
    collector_exists: bool = False
    current: tuple[Binding, ...] = ()
    under_way: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    open_batches: tuple[str, ...] = ()


def total(counts: Counts) -> int:
    return sum(counts.values())


def merged(*counts: Counts) -> dict[TaskStatus, int]:
    found: dict[TaskStatus, int] = {}
    for one in counts:
        for status, n in one.items():
            found[status] = found.get(status, 0) + n
    return found
