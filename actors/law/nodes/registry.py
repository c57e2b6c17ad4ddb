"""Nodes come into being, are named, drained, and forgotten."""

from __future__ import annotations

from actors.law.effects import CloseSocket, Refuse, Show
from actors.law.nodes import notices
from actors.law.nodes.draft import NodeDraft
from actors.law.nodes.effects import InsertNode, NodeDecision, RemoveNode, SetNode
from actors.law.nodes.invocations import settle
from actors.law.nodes.model import Node, NodeView
from actors.law.nodes.requests import ChangeNode, CreateNode, ForgetNode, Unset
from actors.law.nodes.tasks import follow_uploads, step
from actors.protocol.codes import CLOSE


def create(view: NodeView, request: CreateNode) -> NodeDecision:
    if view.node is not None:
        if view.node.made_by != request.seed:
            return NodeDecision(Refuse("node_exists"))
        return NodeDecision(Show("node", 201, changed=False))
    node = Node(request.node_id, request.name, view.wall_ms, request.seed, allow=request.allow)
    return NodeDecision(Show("node", 201), (InsertNode(node),))


def change(view: NodeView, request: ChangeNode) -> NodeDecision:
    if view.node is None:
        return NodeDecision(Refuse("node_not_found"))
    given = {"name": request.name, "drained": request.drained, "allow": request.allow}
    changes = {
        name: value
        for name, value in given.items()
        if not isinstance(value, Unset) and value != getattr(view.node, name)
    }
    if not changes:
        return NodeDecision(Show("node", changed=False))
    return NodeDecision(Show("node"), (SetNode(request.node_id, changes),))


def forget(view: NodeView, request: ForgetNode) -> NodeDecision:
    """It is lost for good: what it held is given back, what it was asked is settled. Recordings that are on their way
    stay wanted: the same id may be enrolled anew and bring them."""
    if view.node is None:
        return NodeDecision(Show("nothing", 204, changed=False))
    draft = NodeDraft(view, request.node_id)
    for role in draft.roles.values():
        if role.connected and role.connection_id is not None:
            draft.say(CloseSocket(role.connection_id, CLOSE["not_found"], "node forgotten"))
    for invocation in list(draft.invocations.values()):
        if not invocation.settled:
            settle(draft, invocation, "UNAVAILABLE", "the node was forgotten")
    # Nobody is left who could report upward: the node's rows go in this very transaction.
    for task in list(draft.tasks.values()):
        if task.node_id == request.node_id:
            follow_uploads(draft, task)
    for task in draft.busy_tasks():
        step(draft, task, "lapse")
    notices.forgotten(draft)
    draft.do(RemoveNode(request.node_id))
    return draft.decide(Show("nothing", 204))
