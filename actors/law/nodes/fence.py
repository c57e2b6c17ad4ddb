"""A frame counts only from the connection that owns the role now (DESIGN §2.3)."""

from __future__ import annotations

from actors.law.effects import Fenced
from actors.law.nodes.model import NodeView
from actors.law.nodes.requests import NodeFramed
from actors.law.owner import fenced_by_owner, owns
from actors.protocol.codes import CLOSE


def fence(view: NodeView, frame: NodeFramed) -> Fenced | None:
    role = view.roles.get(frame.role)
    if view.node is None or role is None:
        return Fenced(CLOSE["not_found"], "no such node")
    if owns(role, frame.connection_id, frame.epoch):
        return None
    return fenced_by_owner(role, frame.instance_id, f"role {frame.role}")
