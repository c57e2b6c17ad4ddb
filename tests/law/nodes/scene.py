"""Views of a node for tests of the law: nothing is stored, nothing moves."""

from __future__ import annotations

from typing import Any

from actors.law.model import Limits, Policy
from actors.law.nodes.model import Intent, Invocation, Node, NodeView, Role, Task
from actors.protocol.ids import ulid

LIMITS = Limits(180, 90, 30, 60, 3600, 20)
SERVICE_MS = 1_000_000
SEED = ulid()


def role(name: Any = "node", **changes: Any) -> Role:
    return Role(
        **{
            "node_id": "n",
            "role": name,
            "link": "connected",
            "connection_id": "con_1",
            "connection_epoch": 7,
            "instance_id": "i_1",
            "attempt": 3,
            "gateway_id": "gw_1",
            "commands": ("device.info",),
            "last_seen_service_ms": SERVICE_MS,
            "presence_reason": "connect",
            **changes,
        }
    )


def recorder(state: Any = "idle", task_id: str | None = None, attempt: int | None = None, **changes: Any) -> Role:
    return role(
        "recorder",
        **{
            "reported_state": state,
            "reported_task_id": task_id,
            "reported_attempt": attempt,
            "reported_service_ms": SERVICE_MS - 1000,
            "synced": True,
            **changes,
        },
    )


def invocation(state: Any = "pending", **changes: Any) -> Invocation:
    settled = {"ok": True, "settled_at_ms": 1} if state == "settled" else {}
    return Invocation(
        **{
            "invocation_id": "inv",
            "node_id": "n",
            "role": "node",
            "command": "device.info",
            "params": None,
            "by": "tok",
            "created_at_ms": 1,
            "timeout_s": 30.0,
            "idle_timeout_s": None,
            "idempotency_key": None,
            "state": state,
            "connection_id": "con_1",
            "due_service_ms": SERVICE_MS + 30_000,
            "dispatched": state != "pending",
            **settled,
            **changes,
        }
    )


def task(status: Any = "pending", **changes: Any) -> Task:
    """A completed one by its recording, unless uploaded_at_ms is None: then by an external device."""
    began = status not in ("pending", "ready")
    return Task(
        **{"task_id": "t", "node_id": "n", "params": None, "created_at_ms": 1, "made_by": "x"}
        | {"uploaded_at_ms": 1 if status == "completed" else None}
        | {"status": status, "held_epoch": 7 if status != "pending" else 0, "began": began, **changes}
    )


def intent(state: Any = "requested", **changes: Any) -> Intent:
    stored = {"object_key": "k", "sha256": "ab" * 32, "size": 7} if state in ("uploaded", "kept") else {}
    return Intent(
        **{"task_id": "t", "attempt": 1, "node_id": "n", "state": state, "created_at_ms": 1, **stored, **changes}
    )


def view(*rows: Any, node: Node | None = None, there: bool = True, due: int | None = 0, **changes: Any) -> NodeView:
    """rows: roles, invocations, tasks and intents, in any order."""
    return NodeView(
        **{
            "node": (node or Node("n", None, 1, "x")) if there else None,
            "roles": {r.role: r for r in rows if isinstance(r, Role)},
            "invocations": {i.invocation_id: i for i in rows if isinstance(i, Invocation)},
            "outbox": (),
            "tasks": {t.task_id: t for t in rows if isinstance(t, Task)},
            "intents": {(i.task_id, i.attempt): i for i in rows if isinstance(i, Intent)},
            "deadline_due": due,
            "service_ms": SERVICE_MS,
            "wall_ms": 1_700_000_000_000,
            "next_epoch": 8,
            "policy": Policy(LIMITS),
            **changes,
        }
    )
