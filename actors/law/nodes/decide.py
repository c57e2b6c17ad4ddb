"""The one door of decisions about nodes and tasks: a view and a request in, a decision out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from actors.law.effects import Done, Refuse
from actors.law.nodes import (
    actions,
    connect,
    deadlines,
    invocations,
    notices,
    registry,
    requests,
    shadow,
    tasks,
    uploads,
)
from actors.law.nodes.draft import NodeDraft
from actors.law.nodes.effects import NodeDecision
from actors.law.nodes.fence import fence
from actors.law.nodes.model import NodeView
from actors.law.requests import Request
from actors.protocol.defaults import INVOKE_PAYLOAD_BYTES
from actors.protocol.node_codes import NODE_RESERVED_PREFIXES


def receive_event(view: NodeView, frame: requests.NodeEvent) -> NodeDecision:
    """A line of the node's own for its log."""
    if fenced := fence(view, frame):
        return NodeDecision(fenced)
    if frame.type.startswith(NODE_RESERVED_PREFIXES):
        return NodeDecision(Refuse("bad_request", f"types under {NODE_RESERVED_PREFIXES[0]} are Holdfast's own"))
    if invocations.size_of(frame.data) > INVOKE_PAYLOAD_BYTES:
        return NodeDecision(Refuse("too_large", f"an event is at most {INVOKE_PAYLOAD_BYTES} bytes"))
    draft = NodeDraft(view, frame.node_id)
    draft.log(frame.type, frame.data)
    return draft.decide(Done(changed=True))


TABLE: Final[dict[type[Request], Callable[[NodeView, Any], NodeDecision]]] = {
    requests.CreateNode: registry.create,
    requests.ChangeNode: registry.change,
    requests.ForgetNode: registry.forget,
    requests.NodeConnect: connect.connect,
    requests.NodeClosed: connect.closed,
    requests.NodeFetch: invocations.fetch,
    requests.Invoke: invocations.invoke,
    requests.CancelInvocation: invocations.cancel,
    requests.InvokeResult: invocations.receive_result,
    requests.InvokeProgress: invocations.receive_progress,
    requests.NodeState: shadow.receive_state,
    requests.NodeUpload: uploads.receive_upload,
    requests.NodeEvent: receive_event,
    requests.NodeSweep: deadlines.sweep,
    requests.TakeNotice: notices.receive_notice,
    requests.CreateTask: tasks.create,
    requests.TaskAction: actions.act,
    requests.TaskReport: tasks.report,
    requests.UploadVerified: uploads.verified,
}


def decide(view: NodeView, request: Request) -> NodeDecision:
    return TABLE[type(request)](view, request)
