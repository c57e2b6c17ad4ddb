"""Who owns a role of a node: connect, reconcile, close, grace. The rules are a session's (law/owner.py).

A stale close changes nothing: no presence, no event, no grace, no rollback. Replacement settles what waited on the old
connection at once. What goes down to a device belongs to one connection; whoever comes next gets what reconciliation
finds, never what was left over.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from actors.law.effects import Done, RefuseConnection
from actors.law.nodes import frames, notices, uploads
from actors.law.nodes.answers import Frame, NodeConnected, Upward
from actors.law.nodes.draft import NodeDraft
from actors.law.nodes.effects import DropPosted, InsertNode, InsertRole, NodeDecision, RememberNodeConnection
from actors.law.nodes.invocations import lose
from actors.law.nodes.model import Node, NodeView, Reported, Role
from actors.law.nodes.requests import NodeClosed, NodeConnect
from actors.law.nodes.shadow import log_state, noted, report_upward, valid
from actors.law.owner import displace, late_or_too_soon
from actors.protocol.codes import CLOSE, CLOSE_CODES
from actors.protocol.defaults import PROBE_S
from actors.protocol.node_codes import HOLDING, ROLES, SHADOWED, InvocationError, PresenceReason


def connect(view: NodeView, hello: NodeConnect) -> NodeDecision:
    if hello.role not in ROLES:
        return NodeDecision(RefuseConnection(CLOSE["protocol_error"], "unknown_role"))
    owner = view.roles.get(hello.role)
    if view.node is None and (not hello.may_create or view.connection_used):
        # A connection that was here before never makes a node anew: it was forgotten while the call was on its way.
        return NodeDecision(RefuseConnection(CLOSE["not_found"], "no such node"))
    if owner is not None and owner.connection_id == hello.connection_id:
        return _repeat(view, hello, owner)
    if view.connection_used:
        return NodeDecision(RefuseConnection(CLOSE["try_again_later"], "this connection was superseded", 0.0))
    if not view.door_open:
        return NodeDecision(RefuseConnection(CLOSE["service_restart"], "this gateway is gone", 0.0))
    if not view.vouched:
        # Forgetting a node revokes its tokens: a socket that was let in just before may not bring it back.
        return NodeDecision(RefuseConnection(CLOSE["not_authenticated"], "the token was revoked or has expired"))
    if owner is not None and (
        refusal := late_or_too_soon(owner, hello.instance_id, hello.attempt, view.service_ms, view.policy)
    ):
        return NodeDecision(refusal)
    if view.node is None:
        node = Node(hello.node_id, None, view.wall_ms, hello.seed)
        view = replace(view, node=node)
        draft = NodeDraft(view, hello.node_id)
        draft.do(InsertNode(node))
    else:
        draft = NodeDraft(view, hello.node_id)
    role = _take_over(draft, hello, owner)
    return _reconciled(draft, hello, role)


def _repeat(view: NodeView, hello: NodeConnect, owner: Role) -> NodeDecision:
    """The same call again, after an unknown outcome: the same answer, and nothing else happens."""
    if not owner.connected:
        return NodeDecision(RefuseConnection(CLOSE["try_again_later"], "this connection was closed", 0.0))
    return NodeDecision(_reconciled(NodeDraft(view, hello.node_id), hello, owner).answer)


def _take_over(draft: NodeDraft, hello: NodeConnect, owner: Role | None) -> Role:
    view, name = draft.view, hello.role
    if owner is None:
        owner = Role(hello.node_id, name)
        draft.roles[name] = owner
        draft.do(InsertRole(owner))
    if displaced := displace(owner, hello.instance_id):
        draft.say(displaced)
        assert owner.connection_id is not None
        lose(draft, owner.connection_id, "DISCONNECTED", "another connection took the role over")
        draft.log("node.superseded", {"role": name, "connection_id": owner.connection_id, "by": hello.connection_id})
    _forget_connection(draft, owner)
    epoch = draft.take_epoch()
    role = draft.set_role(
        name,
        link="connected",
        connection_id=hello.connection_id,
        connection_epoch=epoch,
        instance_id=hello.instance_id,
        attempt=hello.attempt,
        gateway_id=hello.gateway_id,
        client=hello.client,
        commands=tuple(dict.fromkeys(hello.commands)),
        capabilities=dict(hello.capabilities),
        last_seen_service_ms=view.service_ms,
        last_seen_at_ms=view.wall_ms,
        grace_until_ms=None,
        presence_reason="connect",
        presence_at_ms=view.wall_ms,
        synced=False,
    )
    draft.do(RememberNodeConnection(hello.connection_id, hello.node_id, epoch))
    draft.log(
        "node.connected",
        {
            "role": name,
            "connection_id": hello.connection_id,
            "epoch": epoch,
            "instance_id": hello.instance_id,
            "attempt": hello.attempt,
            "client": hello.client,
            "resumed": owner.link == "grace",
        },
    )
    return role


def _forget_connection(draft: NodeDraft, owner: Role) -> None:
    """What belonged to the connection that owned the role until now."""
    if owner.link == "connected":
        draft.do(DropPosted(owner.node_id, owner.role))
        if owner.role in SHADOWED:
            draft.disarm("probe", owner.key)
    elif owner.link == "grace":
        draft.disarm("grace", owner.key)


def _reconciled(draft: NodeDraft, hello: NodeConnect, role: Role) -> NodeDecision:
    directives: list[Frame] = []
    if hello.reported is not None:
        before: Reported | None = role.reported
        role = draft.set_role(hello.role, **noted(draft, hello.reported))
        log_state(draft, hello.role, before, hello.reported)
    if hello.role in SHADOWED and not valid(hello.reported):
        directives.append(frames.probe())
        draft.arm("probe", role.key, PROBE_S)
    if hello.role == "recorder":
        notices.come_back(draft, directives.append)
    verify = uploads.reconcile(draft, hello, directives.append) if hello.role == "transfer" else ()
    told = tuple(u.task_id for u in hello.uploads or ()) if hello.role == "transfer" else ()
    upward = report_upward(draft, hello.seed, uploads.news(draft, told))
    answer = NodeConnected(role.connection_epoch, tuple(directives), Upward(upward.tasks, verify))
    return draft.decide(answer)


# ---------------------------------------------------------------- close and grace


def closed(view: NodeView, request: NodeClosed) -> NodeDecision:
    """Not the owner → nothing at all. The owner → grace while it holds work, otherwise offline."""
    role = view.roles.get(request.role)
    if view.node is None or role is None or not role.connected or role.connection_id != request.connection_id:
        return NodeDecision(Done(changed=False))
    draft = NodeDraft(view, request.node_id)
    reason = _presence(request)
    code: InvocationError = "UNAVAILABLE" if request.gateway_lost else "DISCONNECTED"
    lose(draft, request.connection_id, code, "gateway_lost" if request.gateway_lost else "the connection was closed")
    _forget_connection(draft, role)
    draft.log("node.disconnected", _gone(request, reason))
    epoch = draft.take_epoch()
    grace_s = view.policy.limits.grace_s
    # Work: a task that occupies it, or one that was finished and that it still recorded when we last heard of it.
    at_work = role.reported is not None and role.reported.state in HOLDING
    # In doubt it may be at one that is wanted and that nobody has accepted yet.
    may_be = not role.synced and any(i.state == "requested" for i in draft.intents.values())
    holds = request.role in SHADOWED and (at_work or may_be or bool(draft.busy_tasks()))
    waits = holds and grace_s is not None
    role = draft.set_role(
        request.role,
        link="grace" if waits else "offline",
        connection_epoch=epoch,
        gateway_id=None,
        synced=False,
        grace_until_ms=view.wall_ms + round(grace_s * 1000) if waits and grace_s is not None else None,
        presence_reason=reason,
        presence_at_ms=view.wall_ms,
        **({"lapsed_epoch": epoch} if holds and not waits else {}),
    )
    if waits and grace_s is not None:
        draft.arm("grace", role.key, grace_s)
    upward = report_upward(draft, request.seed)
    return draft.decide(upward if upward.tasks else Done(changed=True))


def _presence(request: NodeClosed) -> PresenceReason:
    if request.gateway_lost:
        return "gateway_lost"
    return "timeout" if request.timed_out else "disconnect"


def _gone(request: NodeClosed, reason: PresenceReason) -> dict[str, Any]:
    name = CLOSE_CODES[request.code].name if request.code in CLOSE_CODES else "connection lost"
    return {
        "role": request.role,
        "connection_id": request.connection_id,
        "presence": reason,
        "reason": request.close_reason or request.error or name,
        "ws_close_code": request.code,
        "ws_close_reason": request.close_reason,
    }


def sweep_grace(draft: NodeDraft, key: str) -> bool:
    """Keyed by the epoch of the loss: whoever came back since has another."""
    name, _, epoch = key.partition(":")
    role = next((r for r in draft.roles.values() if r.role == name), None)
    if role is None or role.link != "grace" or str(role.connection_epoch) != epoch:
        return False
    draft.set_role(role.role, link="offline", grace_until_ms=None, lapsed_epoch=role.connection_epoch)
    return True
