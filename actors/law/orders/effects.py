"""What a decision about an order or a station wants done, inside its own transaction: frozen values, imperatives.

What concerns thousands of tasks is one effect with the number that was counted, not thousands of effects: the store
does it in one statement and holds it against that number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from actors.law.effects import Answer, Speech
from actors.law.nodes.effects import ArmNode, InsertTask, SetTask
from actors.law.nodes.model import Notice
from actors.law.orders.graphs import BatchStep
from actors.law.orders.model import Batch, Binding, Collector, Group, Order, Station
from actors.protocol.node_codes import TaskStatus
from actors.protocol.order_codes import BatchStatus, OrderStatus


@dataclass(frozen=True, slots=True)
class InsertOrder:
    order: Order


@dataclass(frozen=True, slots=True)
class SetOrder:
    """Only while its status is still `expected` (compare and swap)."""

    order_id: str
    expected: OrderStatus
    changes: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class RemoveOrder:
    """The order with its batches, their groups and tasks, and its notices. tasks: how many of them there are."""

    order_id: str
    tasks: int


@dataclass(frozen=True, slots=True)
class InsertBatch:
    batch: Batch


@dataclass(frozen=True, slots=True)
class SetBatch:
    """Only while its status is still `expected`."""

    batch_id: str
    expected: BatchStatus
    changes: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class CloseBatches:
    """Every open batch of the order takes this step; exactly as many of each status as were counted."""

    order_id: str
    step: BatchStep
    expected: Mapping[BatchStatus, int]


@dataclass(frozen=True, slots=True)
class RemoveBatch:
    """The batch, its groups and its tasks, of which there are so many."""

    batch_id: str
    tasks: int


@dataclass(frozen=True, slots=True)
class InsertGroup:
    group: Group


@dataclass(frozen=True, slots=True)
class SetGroup:
    group: Group


@dataclass(frozen=True, slots=True)
class CancelTasks:
    """Every task of the order (of the batch, if one is named) that has one of these statuses; exactly so many of each.
    Whatever was wanted of their recordings is wanted no more."""

    order_id: str
    batch_id: str | None
    expected: Mapping[TaskStatus, int]
    detail: str


@dataclass(frozen=True, slots=True)
class DiscardIntents:
    """Nobody wants the recordings of these tasks any more. The devices hear it when they next tell of them."""

    task_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RemoveTasks:
    """Tasks that never began: the rows go."""

    task_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class InsertNotice:
    """One per order, cause and node, for ever: a second one is a mistake of ours."""

    notice: Notice


@dataclass(frozen=True, slots=True)
class InsertStation:
    station: Station


@dataclass(frozen=True, slots=True)
class SetStation:
    station_id: str
    changes: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class RemoveStation:
    """The station and the history of its bindings."""

    station_id: str


@dataclass(frozen=True, slots=True)
class InsertBinding:
    binding: Binding


@dataclass(frozen=True, slots=True)
class EndBinding:
    """Only while it is the present one."""

    station_id: str
    version: int


@dataclass(frozen=True, slots=True)
class FollowNode:
    """Pending tasks of the station's open batches are this node's from now on."""

    station_id: str
    node_id: str


@dataclass(frozen=True, slots=True)
class InsertCollector:
    collector: Collector


@dataclass(frozen=True, slots=True)
class SetCollector:
    collector_id: str
    changes: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class RemoveCollector:
    collector_id: str


OrderEffect = (
    InsertOrder
    | SetOrder
    | RemoveOrder
    | InsertBatch
    | SetBatch
    | CloseBatches
    | RemoveBatch
    | InsertGroup
    | SetGroup
    | InsertTask
    | SetTask
    | CancelTasks
    | DiscardIntents
    | RemoveTasks
    | InsertNotice
    | ArmNode
)
StationEffect = (
    InsertStation
    | SetStation
    | RemoveStation
    | InsertBinding
    | EndBinding
    | FollowNode
    | InsertCollector
    | SetCollector
    | RemoveCollector
)


@dataclass(frozen=True, slots=True)
class OrderDecision:
    answer: Answer
    effects: tuple[OrderEffect, ...] = ()
    speech: tuple[Speech, ...] = ()


@dataclass(frozen=True, slots=True)
class StationDecision:
    answer: Answer
    effects: tuple[StationEffect, ...] = ()
