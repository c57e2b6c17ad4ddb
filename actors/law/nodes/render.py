"""Rows as the resources of protocol/node_resources.py. A test validates every answer against them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from actors.law.nodes.allow import allowed
from actors.law.nodes.model import Artifact, Enrolment, Intent, Invocation, Node, Role, Task


def node(n: Node, roles: Iterable[Role], policy: tuple[str, ...]) -> dict[str, Any]:
    """connected and presence are computed from the connections as they are, never stored beside them."""
    held = sorted(roles, key=lambda r: r.role)
    declared = tuple(dict.fromkeys(command for role in held for command in role.commands))
    capabilities: dict[str, Any] = {}
    for role in sorted(held, key=lambda r: r.connection_epoch):
        capabilities |= role.capabilities
    return {
        "node_id": n.node_id,
        "name": n.name,
        "connected": any(role.connected for role in held),
        "commands": [c for c in declared if allowed(c, policy, n.allow)],
        "denied_commands": [c for c in declared if not allowed(c, policy, n.allow)],
        "capabilities": capabilities,
        "roles": {role.role: _role(role) for role in held},
        "presence": _presence(n, held),
        "drained": n.drained,
        "allow": None if n.allow is None else list(n.allow),
        "created_at_ms": n.created_at_ms,
    }


def _presence(n: Node, roles: list[Role]) -> dict[str, Any]:
    """Of a connected node why it is here: its latest connect. Of another why it is away: its latest loss."""
    here = [r for r in roles if r.connected] or [r for r in roles if r.presence_reason != "never"]
    if not here:
        return {"reason": "never", "at_ms": n.created_at_ms}
    latest = max(here, key=lambda r: r.connection_epoch)
    return {"reason": latest.presence_reason, "at_ms": latest.presence_at_ms}


def _role(r: Role) -> dict[str, Any]:
    said, wanted = r.reported, r.desired
    return {
        "state": r.link,
        "connection_id": r.connection_id,
        "epoch": r.connection_epoch,
        "instance_id": r.instance_id,
        "gateway_id": r.gateway_id,
        "client": r.client,
        "commands": list(r.commands),
        "last_seen_at_ms": r.last_seen_at_ms,
        "grace_until_ms": r.grace_until_ms,
        "reported": None
        if said is None
        else {
            "state": said.state,
            "task_id": said.task_id,
            "attempt": said.attempt,
            "at_ms": r.reported_at_ms,
        },
        "desired": None
        if wanted is None
        else {"state": wanted.state, "task_id": wanted.task_id, "attempt": wanted.attempt},
        "synced": r.synced,
    }


def invocation(i: Invocation) -> dict[str, Any]:
    failure = None
    if i.error_code is not None:
        failure = {
            "code": i.error_code,
            "message": i.error_message or "",
            "dispatched": i.dispatched,
            "node_code": i.error_node_code,
        }
    progress = None
    if i.progress_seq:
        progress = {"seq": i.progress_seq, "payload": i.progress, "at_ms": i.progress_at_ms}
    return {
        "invocation_id": i.invocation_id,
        "node_id": i.node_id,
        "role": i.role,
        "command": i.command,
        "params": i.params,
        "state": i.state,
        "dispatched": i.dispatched,
        "ok": i.ok,
        "payload": i.payload,
        "error": failure,
        "progress": progress,
        "connection_id": i.connection_id,
        "by": i.by,
        "timeout_s": i.timeout_s,
        "idle_timeout_s": i.idle_timeout_s,
        "created_at_ms": i.created_at_ms,
        "dispatched_at_ms": i.dispatched_at_ms,
        "settled_at_ms": i.settled_at_ms,
    }


def task(
    t: Task, intent: Intent | None, artifact: Artifact | None, group: dict[str, Any] | None = None
) -> dict[str, Any]:
    """group: what it is called, of a batch's task."""
    upload = None
    if intent is not None:
        upload = {"state": intent.state, "attempt": intent.attempt, "tries": intent.tries, "detail": intent.detail}
    stored = None
    if artifact is not None:
        stored = {
            "object_key": artifact.object_key,
            "sha256": artifact.sha256,
            "size": artifact.size,
            "verified": artifact.verified,
            "stored_at_ms": artifact.stored_at_ms,
        }
    return {
        "task_id": t.task_id,
        "node_id": t.node_id,
        "order_id": t.order_id,
        "batch_id": t.batch_id,
        "group": group,
        "params": t.params,
        "status": t.status,
        "attempt": t.attempt,
        "detail": t.detail,
        "upload": upload,
        "artifact": stored,
        "created_at_ms": t.created_at_ms,
        "ready_at_ms": t.ready_at_ms,
        "started_at_ms": t.started_at_ms,
        "paused_at_ms": t.paused_at_ms,
        "finished_at_ms": t.finished_at_ms,
        "uploaded_at_ms": t.uploaded_at_ms,
        "completed_at_ms": t.completed_at_ms,
        "cancelled_at_ms": t.cancelled_at_ms,
        "failed_at_ms": t.failed_at_ms,
    }


def enrolment(e: Enrolment) -> dict[str, Any]:
    return {
        "enrolment_id": e.enrolment_id,
        "node_id": e.node_id,
        "name": e.name,
        "commands": list(e.commands),
        "capabilities": e.capabilities,
        "state": e.state,
        "allow": None if e.allow is None else list(e.allow),
        "created_at_ms": e.created_at_ms,
        "decided_at_ms": e.decided_at_ms,
        "decided_by": e.decided_by,
        "claimed_at_ms": e.claimed_at_ms,
    }
