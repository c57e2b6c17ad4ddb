"""The `data` of the events that Holdfast writes into a node's own log: what consumers may read, for ever."""

from __future__ import annotations

from typing import Any, Final, Literal

from actors.protocol.fields import Count, Id
from actors.protocol.node_codes import NODE_EVENT_TYPES, InvocationError, PresenceReason, ReportedState
from actors.protocol.payloads import Payload


class NodeConnected(Payload):
    """resumed: within the grace time of the same role."""

    role: str
    connection_id: Id
    epoch: Count
    instance_id: Id
    attempt: Count | None
    client: dict[str, Any]
    resumed: bool


class NodeDisconnected(Payload):
    role: str
    connection_id: Id
    presence: PresenceReason
    reason: str
    ws_close_code: int | None
    ws_close_reason: str


class NodeSuperseded(Payload):
    role: str
    connection_id: Id | None
    by: Id


class NodeState(Payload):
    role: str
    state: ReportedState
    task_id: Id | None
    attempt: Count | None


class NodeCommand(Payload):
    """An invocation (requested, then settled) or a task command (requested)."""

    stage: Literal["requested", "settled"]
    command: str
    role: str
    invocation_id: Id | None = None
    task_id: Id | None = None
    attempt: Count | None = None
    ok: bool | None = None
    code: InvocationError | None = None
    dispatched: bool | None = None
    by: str | None = None


NODE_PAYLOADS: Final[dict[str, type[Payload]]] = {
    "node.connected": NodeConnected,
    "node.disconnected": NodeDisconnected,
    "node.superseded": NodeSuperseded,
    "node.state": NodeState,
    "node.command": NodeCommand,
}
assert NODE_PAYLOADS.keys() == NODE_EVENT_TYPES.keys()
