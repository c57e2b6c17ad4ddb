"""How orders, batches, stations and collectors look on a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from actors.show import ago, printable, table

ORDER_HEAD = ("ORDER", "STATUS", "COMPLETED", "TASKS", "ASSIGNABLE", "QUOTA", "CREATED", "NAME")
BATCH_HEAD = ("BATCH", "ORDER", "STATION", "STATUS", "COMPLETED", "CREATED")
GROUP_HEAD = ("SOP", "SUBSCENE", "TASKS", "PENDING", "COMPLETED")
NOTICE_HEAD = ("NOTICE", "NODE", "CAUSE", "TASKS", "SENT", "CREATED", "SETTLED")
STATION_HEAD = ("STATION", "COLLECTOR", "NODE", "TYPE", "OPEN BATCHES", "CREATED", "NAME")
BINDING_HEAD = ("VERSION", "COLLECTOR", "NODE", "BOUND", "ENDED", "BY")
COLLECTOR_HEAD = ("COLLECTOR", "STATION", "OPERATOR ID", "CREATED", "NAME")


def order_row(order: Mapping[str, Any]) -> list[object]:
    return [
        order["order_id"],
        order["status"],
        f"{order['completed_count']}/{order['target_count']}",
        order["task_count"],
        order["remaining_assignable"],
        order["quota_policy"],
        ago(order["created_at_ms"]),
        (order["name"] or "")[:40],
    ]


def order(order: Mapping[str, Any], batches: Sequence[Mapping[str, Any]] = ()) -> str:
    lines = [table([order_row(order)], ORDER_HEAD), _counts(order["tasks"])]
    if batches:
        lines += ["", table([batch_row(one) for one in batches], BATCH_HEAD)]
        if (more := order["batch_count"] - len(batches)) > 0:
            lines.append(f"and {more} more: holdfast batch list --order {order['order_id']}")
    return "\n".join(lines)


def batch_row(batch: Mapping[str, Any]) -> list[object]:
    names = ("batch_id", "order_id", "station_id", "status")
    done = f"{batch['completed_count']}/{batch['task_count']}"
    return [*(batch[name] for name in names), done, ago(batch["created_at_ms"])]


def batch(batch: Mapping[str, Any]) -> str:
    groups = [group_row(one) for one in batch["groups"]]
    return "\n".join((table([batch_row(batch)], BATCH_HEAD), _counts(batch["tasks"]), "", table(groups, GROUP_HEAD)))


def group_row(group: Mapping[str, Any]) -> list[object]:
    return [group[name] for name in ("sop_id", "subscene_id", "quantity", "pending", "completed")]


def _counts(tasks: Mapping[str, int]) -> str:
    return "tasks: " + (", ".join(f"{count} {status}" for status, count in tasks.items() if count) or "none")


def adjusted(told: Mapping[str, Any]) -> str:
    groups = [
        [one["sop_id"], one["subscene_id"], f"{one['previous_quantity']} → {one['quantity']}"] for one in told["groups"]
    ]
    counts = f"added {told['added_count']}, removed {told['removed_count']}"
    return "\n".join((table(groups, ("SOP", "SUBSCENE", "TASKS")), counts))


def completed(told: Mapping[str, Any]) -> str:
    group, batch = told["group"], told["batch"]
    words = (
        f"completed {told['completed_count']} of {group['sop_id']}/{group['subscene_id']}: "
        f"{group['completed']} of {group['total']} done, {group['pending']} pending; "
        f"batch {batch['batch_id']} is {batch['status']}, {batch['completed_count']}/{batch['task_count']}"
    )
    return printable(words)


def notice_row(notice: Mapping[str, Any]) -> list[object]:
    settled = "-" if notice["settled_at_ms"] is None else ago(notice["settled_at_ms"])
    told = [len(notice["tasks"]), notice["sends"], ago(notice["created_at_ms"]), settled]
    return [*(notice[name] for name in ("notice_id", "node_id", "cause")), *told]


def station_row(station: Mapping[str, Any]) -> list[object]:
    kind = (station["node_type"] or {}).get("name")
    names = ("station_id", "collector_id", "node_id")
    told = [kind, station["open_batches"], ago(station["created_at_ms"]), (station["name"] or "")[:40]]
    return [*(station[name] for name in names), *told]


def binding_row(binding: Mapping[str, Any]) -> list[object]:
    ended = "-" if binding["ended_at_ms"] is None else ago(binding["ended_at_ms"])
    names = ("version", "collector_id", "node_id")
    return [*(binding[name] for name in names), ago(binding["bound_at_ms"]), ended, binding["by"]]


def collector_row(collector: Mapping[str, Any]) -> list[object]:
    names = ("collector_id", "station_id", "operator_id")
    return [*(collector[name] for name in names), ago(collector["created_at_ms"]), (collector["name"] or "")[:40]]
