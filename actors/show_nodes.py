"""How nodes, invocations and tasks look on a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from actors.protocol.node_codes import SHADOWED
from actors.show import ago, printable, table

NODE_HEAD = ("NODE", "CONNECTED", "PRESENCE", "ROLES", "COMMANDS", "DRAINED", "NAME")
INVOCATION_HEAD = ("INVOCATION", "COMMAND", "STATE", "OUTCOME", "DISPATCHED", "CREATED", "BY")
TASK_HEAD = ("TASK", "NODE", "STATUS", "ATTEMPT", "UPLOAD", "CREATED", "DETAIL")
ENROLMENT_HEAD = ("ENROLMENT", "NODE", "STATE", "COMMANDS", "CREATED", "DECIDED BY", "NAME")


def node_row(node: Mapping[str, Any]) -> list[object]:
    presence = node["presence"]
    roles = " ".join(f"{name}:{role['state']}" for name, role in sorted(node["roles"].items()))
    return [
        node["node_id"],
        "yes" if node["connected"] else "no",
        f"{presence['reason']} {ago(presence['at_ms'])}",
        roles or "-",
        len(node["commands"]),
        "yes" if node["drained"] else "no",
        (node["name"] or "")[:40],
    ]


def node(node: Mapping[str, Any]) -> str:
    lines = [table([node_row(node)], NODE_HEAD)]
    for name, role in sorted(node["roles"].items()):
        told = [f"{name}: {role['state']}"]
        if role["connection_id"]:
            told.append(f"{role['connection_id']} epoch {role['epoch']}")
        if role["reported"]:
            told.append(f"reports {_state(role['reported'])} {ago(role['reported']['at_ms'])}")
        if role["desired"]:
            told.append(f"should be {_state(role['desired'])}")
        if name in SHADOWED:
            told.append("synced" if role["synced"] else "not synced")
        lines.append(", ".join(told))
    lines.append("commands: " + (" ".join(node["commands"]) or "-"))
    if node["denied_commands"]:
        lines.append("declared, not allowed: " + " ".join(node["denied_commands"]))
    if node["allow"] is not None:
        lines.append("allow: " + (" ".join(node["allow"]) or "nothing"))
    return "\n".join(printable_line(line) for line in lines)


def printable_line(text: str) -> str:
    return "\n".join(printable(line) for line in text.split("\n"))


def _state(reported: Mapping[str, Any]) -> str:
    words = [reported["state"], reported.get("task_id"), reported.get("attempt") and f"#{reported['attempt']}"]
    return " ".join(str(word) for word in words if word)


def outcome(invocation: Mapping[str, Any]) -> str:
    if invocation["ok"] is None:
        return "-"
    return "ok" if invocation["ok"] else str(invocation["error"]["code"])


def invocation_row(invocation: Mapping[str, Any]) -> list[object]:
    names = ("invocation_id", "command", "state")
    sent = "yes" if invocation["dispatched"] else "no"
    told = [outcome(invocation), sent, ago(invocation["created_at_ms"]), invocation["by"]]
    return [*(invocation[name] for name in names), *told]


def task_row(task: Mapping[str, Any]) -> list[object]:
    upload = task["upload"] and task["upload"]["state"]
    told = [upload, ago(task["created_at_ms"]), (task["detail"] or "")[:40]]
    return [task["task_id"], task["node_id"], task["status"], task["attempt"], *told]


def task(task: Mapping[str, Any]) -> str:
    lines = [table([task_row(task)], TASK_HEAD)]
    steps = [
        (at, name.removesuffix("_at_ms").replace("_", " "))
        for name, at in task.items()
        if name.endswith("_at_ms") and at is not None
    ]
    lines.append(" → ".join(f"{name} {ago(at)}" for at, name in sorted(steps, key=lambda step: step[0])))
    if task["batch_id"]:
        group = task["group"]
        lines.append(f"of order {task['order_id']}, batch {task['batch_id']}: {group['sop_id']}/{group['subscene_id']}")
    if task["artifact"]:
        artifact = task["artifact"]
        verified = "verified" if artifact["verified"] else "not verified: no object store is configured"
        lines.append(f"artifact: {artifact['object_key']}, {artifact['size']} bytes, {verified}")
    return "\n".join(printable_line(line) for line in lines)


def enrolment_row(enrolment: Mapping[str, Any]) -> list[object]:
    names = ("enrolment_id", "node_id", "state")
    told = [len(enrolment["commands"]), ago(enrolment["created_at_ms"]), enrolment["decided_by"]]
    return [*(enrolment[name] for name in names), *told, (enrolment["name"] or "")[:40]]


def log_line(row: Mapping[str, Any]) -> str:
    told = {k: v for k, v in row["data"].items() if isinstance(v, str | int | float | bool)}
    words = " ".join(f"{name}={str(value)[:80]}" for name, value in list(told.items())[:8])
    return printable(f"{row['seq']:>6}  {ago(row['ts_ms']):>12}  {row['type']}  {words}").rstrip()
