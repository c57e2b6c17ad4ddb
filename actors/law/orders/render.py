"""Rows as the resources of protocol/order_resources.py. A test validates every answer against them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from actors.law.nodes.model import Notice
from actors.law.orders import quota
from actors.law.orders.model import Batch, Binding, Collector, Counts, Group, GroupKey, Order, Station, total
from actors.protocol.node_codes import TASK_STATUSES


def every(counts: Counts) -> dict[str, int]:
    return {status: counts.get(status, 0) for status in TASK_STATUSES}


def order(o: Order, counts: Counts, batches: int) -> dict[str, Any]:
    return {
        "order_id": o.order_id,
        "name": o.name,
        "target_count": o.target_count,
        "status": o.status,
        "completed_count": counts.get("completed", 0),
        "task_count": total(counts),
        "remaining_assignable": quota.remaining(o, counts),
        "quota_policy": o.quota_policy,
        "batch_count": batches,
        "tasks": every(counts),
        "created_at_ms": o.created_at_ms,
        "started_at_ms": o.started_at_ms,
        "completed_at_ms": o.completed_at_ms,
        "cancelled_at_ms": o.cancelled_at_ms,
    }


def batch(
    b: Batch, groups: Iterable[Group], counts: Mapping[GroupKey, Counts], binding: Binding | None
) -> dict[str, Any]:
    of = {status: sum(c.get(status, 0) for c in counts.values()) for status in TASK_STATUSES}
    return {
        "batch_id": b.batch_id,
        "order_id": b.order_id,
        "station_id": b.station_id,
        "node_id": binding.node_id if binding is not None else None,
        "status": b.status,
        "task_count": sum(of.values()),
        "completed_count": of["completed"],
        "tasks": of,
        "groups": [group(g, counts.get(g.key, {})) for g in groups],
        "created_at_ms": b.created_at_ms,
        "started_at_ms": b.started_at_ms,
        "completed_at_ms": b.completed_at_ms,
        "cancelled_at_ms": b.cancelled_at_ms,
        "recalled_at_ms": b.recalled_at_ms,
    }


def names(g: Group) -> dict[str, Any]:
    return {
        "sop_id": g.sop_id,
        "subscene_id": g.subscene_id,
        "sop_slug": g.sop_slug,
        "sop_version": g.sop_version,
        "scene_name": g.scene_name,
        "subscene_name": g.subscene_name,
    }


def group(g: Group, counts: Counts) -> dict[str, Any]:
    return {**names(g), "params": g.params, "quantity": total(counts), **every(counts)}


def notice(n: Notice) -> dict[str, Any]:
    return {
        "notice_id": n.notice_id,
        "order_id": n.order_id,
        "node_id": n.node_id,
        "cause": n.cause,
        "tasks": [{"task_id": task_id, "attempt": attempt} for task_id, attempt in n.tasks],
        "sends": n.sends,
        "settled": n.settled_at_ms is not None,
        "created_at_ms": n.created_at_ms,
        "settled_at_ms": n.settled_at_ms,
    }


def station(s: Station, now: Binding | None, version: int, open_batches: int) -> dict[str, Any]:
    return {
        "station_id": s.station_id,
        "name": s.name,
        "collector_id": now.collector_id if now is not None else None,
        "node_id": now.node_id if now is not None else None,
        "version": version,
        "node_type": None
        if s.capabilities is None
        else {"name": s.node_type_name, "capabilities": dict(s.capabilities)},
        "open_batches": open_batches,
        "created_at_ms": s.created_at_ms,
    }


def binding(b: Binding) -> dict[str, Any]:
    return {
        "station_id": b.station_id,
        "version": b.version,
        "collector_id": b.collector_id,
        "node_id": b.node_id,
        "bound_at_ms": b.bound_at_ms,
        "ended_at_ms": b.ended_at_ms,
        "by": b.by,
    }


def collector(c: Collector, station_id: str | None) -> dict[str, Any]:
    return {
        "collector_id": c.collector_id,
        "name": c.name,
        "operator_id": c.operator_id,
        "station_id": station_id,
        "created_at_ms": c.created_at_ms,
    }


def node_type(s: Station, declared: Mapping[str, Any]) -> dict[str, Any]:
    """The station's; if it says none, what its node declares. A missing `requires_axon` means true."""
    name, capabilities = (None, declared) if s.capabilities is None else (s.node_type_name, s.capabilities)
    return {"name": name, "capabilities": {"requires_axon": True, **capabilities}}


def handoff(g: Group, c: Collector | None, b: Binding | None, s: Station | None) -> str:
    """The line that an external device parses: these keys, in this order, strings all of them, `""` for what is
    missing, on one line, without spaces between, other alphabets as they are written."""
    values = {
        "sop_slug": g.sop_slug,
        "sop_version": g.sop_version,
        "scene_name": g.scene_name,
        "subscene_name": g.subscene_name,
        "collector_name": c.name if c is not None else None,
        "collector_operator_id": c.operator_id if c is not None else None,
        "device_id": b.node_id if b is not None else None,
        "device_type": s.node_type_name if s is not None else None,
    }
    line = {key: "" if value is None else str(value) for key, value in values.items()}
    return json.dumps(line, ensure_ascii=False, separators=(",", ":"))
