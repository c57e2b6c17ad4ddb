"""An order in memory for tests of the law: one station, one batch, tasks of the statuses that are asked for."""

from __future__ import annotations

from typing import Any

from actors.law.nodes.model import Task
from actors.law.orders.model import Batch, Group, Order
from actors.protocol.ids import ulid
from tests.law.orders.memory import Memory

SEED = ulid()
ORDER: dict[str, Any] = {"order_id": "o", "seed": SEED}
B: dict[str, Any] = {**ORDER, "batch_id": "b"}
G: dict[str, Any] = {"sop_id": "sop", "subscene_id": "sub"}


def scene(
    order: Any = "in_progress",
    batch: Any = "active",
    *statuses: Any,
    told: tuple[str, ...] = (),
    **changes: Any,
) -> Memory:
    """An order `o` with target 10 and a batch `b` of station `st` whose tasks t0, t1, … have these statuses."""
    memory = Memory(stations={"st": "n"}, told=set(told))
    memory.orders["o"] = Order(
        **{"order_id": "o", "name": None, "target_count": 10, "quota_policy": "rows"}
        | {"created_at_ms": 1, "made_by": "x", "status": order, "finalizations": int(order == "completed"), **changes}
    )
    memory.batches["b"] = Batch("b", "o", "st", 1, "x", batch)
    group = Group("b", "sop", "sub")
    memory.groups["b", group.key] = group
    for k, status in enumerate(statuses):
        memory.tasks[f"t{k}"] = task(f"t{k}", status)
    return memory


def task(task_id: str, status: Any, **changes: Any) -> Task:
    """It has the moments that its status means it had."""
    moments = {
        "in_progress": ("started_at_ms",),
        "uploading": ("started_at_ms", "finished_at_ms"),
        "completed": ("started_at_ms", "finished_at_ms", "completed_at_ms"),
        "failed": ("started_at_ms", "finished_at_ms", "failed_at_ms"),
        "cancelled": ("cancelled_at_ms",),
    }
    return Task(
        **{"task_id": task_id, "node_id": "n", "params": None, "created_at_ms": 1, "made_by": "x"}
        | {"order_id": "o", "batch_id": "b", "sop_id": "sop", "subscene_id": "sub", "status": status}
        | dict.fromkeys(moments.get(status, ()), 1)
        | changes
    )


def now(memory: Memory) -> tuple[str, str, list[str]]:
    """The order, the batch, and its tasks."""
    return memory.orders["o"].status, memory.batches["b"].status, [t.status for t in memory.tasks.values()]
