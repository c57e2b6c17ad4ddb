"""Invocations: `pending → dispatched → settled`, durable, each with exactly one outcome.

    pending: not a byte of it was sent, for certain      dispatched: committed before the first byte goes out
A result counts only for a dispatched one, from the very connection that it was sent on, in time. Settled is absorbing.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, Final, Literal

from actors.law.effects import Done, InvocationSettled, Refuse, Show
from actors.law.model import Json
from actors.law.nodes import frames
from actors.law.nodes.allow import may_use
from actors.law.nodes.answers import Fetched, Frame, Ignored
from actors.law.nodes.draft import NodeDraft
from actors.law.nodes.effects import DropPosted, InsertInvocation, MarkFetched, NodeDecision
from actors.law.nodes.fence import fence
from actors.law.nodes.model import Invocation, Node, NodeView, OutboxRow, Role
from actors.law.nodes.requests import CancelInvocation, Invoke, InvokeProgress, InvokeResult, NodeFetch
from actors.protocol.defaults import INVOCATIONS_MAX, INVOKE_PAYLOAD_BYTES
from actors.protocol.node_codes import InvocationError, InvocationState

Step = Literal["fetched", "result", "cancelled", "timed_out", "lost"]
TRANSITIONS: Final[dict[tuple[InvocationState, Step], InvocationState]] = {
    ("pending", "fetched"): "dispatched",
    ("pending", "cancelled"): "settled",
    ("pending", "timed_out"): "settled",
    ("pending", "lost"): "settled",
    ("dispatched", "result"): "settled",
    ("dispatched", "cancelled"): "settled",
    ("dispatched", "timed_out"): "settled",
    ("dispatched", "lost"): "settled",
}
# After these the node may still be at work on it: it is told to stop, if it is still there.
_STOPPED: Final[frozenset[InvocationError]] = frozenset({"TIMEOUT", "IDLE_TIMEOUT", "CANCELLED"})


def size_of(payload: Json) -> int:
    return len(json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode())


def settle(
    draft: NodeDraft,
    invocation: Invocation,
    code: InvocationError | None,
    message: str | None = None,
    *,
    payload: Json = None,
    node_code: str | None = None,
) -> Invocation:
    """The one end of an invocation. code None: it went well."""
    assert not invocation.settled, "settled is absorbing"
    iid = invocation.invocation_id
    settled = draft.set_invocation(
        iid,
        state="settled",
        ok=code is None,
        payload=payload,
        error_code=code,
        error_message=message,
        error_node_code=node_code,
        settled_at_ms=draft.view.wall_ms,
    )
    if invocation.due_service_ms is not None:
        draft.disarm("invocation", iid)
    if invocation.idle_due_service_ms is not None:
        draft.disarm("invocation_idle", iid)
    if not invocation.dispatched:
        draft.do(DropPosted(draft.node_id, invocation.role, iid))
    elif code in _STOPPED:
        owner = draft.connected(invocation.role)
        if owner is not None and owner.connection_id == invocation.connection_id:
            draft.post(invocation.role, frames.invoke_cancel(iid))
    draft.say(InvocationSettled(iid))
    _log(draft, settled)
    return settled


def _log(draft: NodeDraft, i: Invocation) -> None:
    told: dict[str, Any] = {
        "stage": "settled" if i.settled else "requested",
        "command": i.command,
        "role": i.role,
        "invocation_id": i.invocation_id,
        "by": i.by,
    }
    if i.settled:
        told |= {"ok": i.ok, "code": i.error_code, "dispatched": i.dispatched}
    draft.log("node.command", told)


# ---------------------------------------------------------------- asked by operators


def invoke(view: NodeView, request: Invoke) -> NodeDecision:
    if (known := view.invocations.get(request.invocation_id)) is not None:
        return _show(known, changed=False)
    node = view.node
    if node is None:
        return NodeDecision(Refuse("node_not_found"))
    draft = NodeDraft(view, request.node_id)
    role = draft.roles.get(request.role)
    invocation = Invocation(
        invocation_id=request.invocation_id,
        node_id=request.node_id,
        role=request.role,
        command=request.command,
        params=request.params,
        by=request.by,
        created_at_ms=view.wall_ms,
        timeout_s=request.timeout_s,
        idle_timeout_s=request.idle_timeout_s,
        idempotency_key=request.idempotency_key,
        connection_id=role.connection_id if role is not None and role.connected else None,
        due_service_ms=draft.service_after(request.timeout_s) if request.timeout_s else None,
        idle_due_service_ms=draft.service_after(request.idle_timeout_s) if request.idle_timeout_s else None,
    )
    if (refusal := _refusal(view, request, node, role)) is not None:
        code, message = refusal
        return _refused(draft, invocation, code, message)
    draft.invocations[invocation.invocation_id] = invocation
    draft.do(InsertInvocation(invocation))
    draft.post(request.role, {}, invocation.invocation_id)
    if request.timeout_s:
        draft.arm("invocation", invocation.invocation_id, request.timeout_s)
    if request.idle_timeout_s:
        draft.arm("invocation_idle", invocation.invocation_id, request.idle_timeout_s)
    _log(draft, invocation)
    return draft.decide(Show("invocation", 202, object_id=invocation.invocation_id))


def _refusal(view: NodeView, request: Invoke, node: Node, role: Role | None) -> tuple[InvocationError, str] | None:
    if node.drained:
        return "UNAVAILABLE", "drained: the node takes no new invocations"
    if role is None or not role.connected:
        return "NOT_CONNECTED", f"the role {request.role} is not connected"
    if request.expected_connection_id not in (None, role.connection_id):
        return "ROUTE_CHANGED", f"the role {request.role} is owned by {role.connection_id}"
    if not may_use(request.command, role, node, view.policy.node_commands):
        return "NOT_ALLOWED", f"{request.command} is not declared by the node, or not allowed"
    if sum(not i.settled for i in view.invocations.values()) >= INVOCATIONS_MAX:
        return "UNAVAILABLE", f"{INVOCATIONS_MAX} invocations of the node are waiting already"
    return None


def _refused(draft: NodeDraft, invocation: Invocation, code: InvocationError, message: str) -> NodeDecision:
    """Stored all the same, so that a later look tells what the caller was told."""
    settled = replace(
        invocation,
        state="settled",
        ok=False,
        error_code=code,
        error_message=message,
        settled_at_ms=draft.view.wall_ms,
        due_service_ms=None,
        idle_due_service_ms=None,
    )
    draft.do(InsertInvocation(settled))
    _log(draft, settled)
    return draft.decide(Show("invocation", 200, object_id=settled.invocation_id))


def cancel(view: NodeView, request: CancelInvocation) -> NodeDecision:
    known = view.invocations.get(request.invocation_id)
    if known is None or known.node_id != request.node_id:
        return NodeDecision(Refuse("invocation_not_found"))
    if known.settled:
        return _show(known, changed=False)
    draft = NodeDraft(view, request.node_id)
    settle(draft, known, "CANCELLED", "cancelled by an operator")
    return draft.decide(Show("invocation", 200, object_id=known.invocation_id))


def _show(known: Invocation, *, changed: bool) -> NodeDecision:
    status = 200 if known.settled else 202
    return NodeDecision(Show("invocation", status, changed=changed, object_id=known.invocation_id))


# ---------------------------------------------------------------- the connection fetches


def fetch(view: NodeView, request: NodeFetch) -> NodeDecision:
    """Whatever of it is an invocation is dispatched from here on: the commit comes before the first byte."""
    if fenced := fence(view, request):
        return NodeDecision(fenced)
    again = tuple(row for row in view.outbox if row.fetched_seed == request.seed)
    if again:  # asked again after an unknown outcome: the same frames, and nothing else happens
        told = (_frame(view, view.invocations.get(row.invocation_id or ""), row) for row in again)
        waiting = any(row.fetched_seed is None for row in view.outbox)
        return NodeDecision(Fetched(tuple(f for f in told if f is not None), waiting))
    draft = NodeDraft(view, request.node_id)
    waiting_rows = [row for row in view.outbox if row.fetched_seed is None]
    taken, out = waiting_rows[: request.limit], []
    for row in taken:
        if row.invocation_id is not None:
            _dispatch(draft, row.invocation_id)
        # What is refused at this last look has no frame: not a byte of it is sent.
        if (frame := _frame(view, draft.invocations.get(row.invocation_id or ""), row)) is not None:
            out.append(frame)
    if taken:
        draft.do(MarkFetched(request.node_id, request.role, tuple(row.n for row in taken), request.seed))
    return draft.decide(Fetched(tuple(out), len(waiting_rows) > len(taken)))


def _frame(view: NodeView, invocation: Invocation | None, row: OutboxRow) -> Frame | None:
    if row.invocation_id is None:
        return dict(row.frame)
    if invocation is None or not invocation.dispatched:
        return None
    return frames.invoke(invocation, view.service_ms)


def _dispatch(draft: NodeDraft, invocation_id: str) -> None:
    """The last look: the list may have changed, or its time may have passed, while it waited."""
    view, known = draft.view, draft.invocations.get(invocation_id)
    if known is None or known.state != "pending" or view.node is None:
        return
    role = draft.roles[known.role]
    if not may_use(known.command, role, view.node, view.policy.node_commands):
        settle(draft, known, "NOT_ALLOWED", f"{known.command} is not allowed any more")
    elif (code := overdue(view, known)) is not None:
        settle(draft, known, code, "it was not sent in time")
    else:
        draft.set_invocation(invocation_id, state="dispatched", dispatched=True, dispatched_at_ms=view.wall_ms)


def overdue(view: NodeView, i: Invocation) -> InvocationError | None:
    """By the service clock of this very transition, whether the reaper came or not."""
    if i.due_service_ms is not None and view.service_ms >= i.due_service_ms:
        return "TIMEOUT"
    if i.idle_due_service_ms is not None and view.service_ms >= i.idle_due_service_ms:
        return "IDLE_TIMEOUT"
    return None


# ---------------------------------------------------------------- said by the node


def _meant(view: NodeView, draft: NodeDraft, frame: InvokeResult | InvokeProgress) -> Invocation | NodeDecision:
    """The invocation for which the frame counts; or what comes of a frame that does not."""
    if fenced := fence(view, frame):
        return NodeDecision(fenced)
    known = view.invocations.get(frame.invocation_id)
    if known is None or not _counts(known, frame):
        return NodeDecision(Ignored(frame.invocation_id))
    if (code := overdue(view, known)) is not None:
        settle(draft, known, code, _LATE[code])
        return draft.decide(Ignored(frame.invocation_id, changed=True))
    return known


def receive_result(view: NodeView, frame: InvokeResult) -> NodeDecision:
    draft = NodeDraft(view, frame.node_id)
    known = _meant(view, draft, frame)
    if isinstance(known, NodeDecision):
        return known
    if size_of(frame.payload) > INVOKE_PAYLOAD_BYTES:
        settle(draft, known, "NODE_ERROR", f"payload too large: more than {INVOKE_PAYLOAD_BYTES} bytes")
    elif frame.ok:
        settle(draft, known, None, payload=frame.payload)
    else:
        said = frame.error if isinstance(frame.error, dict) else {}
        settle(
            draft,
            known,
            "NODE_ERROR",
            str(said.get("message") or "the node gave no reason"),
            payload=frame.payload,
            node_code=said.get("code"),
        )
    return draft.decide(Done(changed=True))


_LATE: Final[dict[InvocationError, str]] = {
    "TIMEOUT": "no result in time",
    "IDLE_TIMEOUT": "no progress in time",
}


def _counts(known: Invocation, frame: InvokeResult | InvokeProgress) -> bool:
    """Matched by the socket's own node and connection, never by what the payload says."""
    return known.state == "dispatched" and known.node_id == frame.node_id and known.connection_id == frame.connection_id


def receive_progress(view: NodeView, frame: InvokeProgress) -> NodeDecision:
    draft = NodeDraft(view, frame.node_id)
    known = _meant(view, draft, frame)
    if isinstance(known, NodeDecision):
        return known
    if frame.seq <= known.progress_seq:
        return NodeDecision(Ignored(frame.invocation_id))
    if frame.seq > known.progress_seq + 1:
        draft.set_invocation(known.invocation_id, progress_gaps=known.progress_gaps + 1)
        return draft.decide(Ignored(frame.invocation_id))
    if size_of(frame.payload) > INVOKE_PAYLOAD_BYTES:
        return NodeDecision(Refuse("too_large", f"progress is at most {INVOKE_PAYLOAD_BYTES} bytes; send it smaller"))
    changes: dict[str, Any] = {
        "progress_seq": frame.seq,
        "progress": frame.payload,
        "progress_at_ms": view.wall_ms,
    }
    if known.idle_timeout_s:
        changes["idle_due_service_ms"] = draft.service_after(known.idle_timeout_s)
        draft.arm("invocation_idle", known.invocation_id, known.idle_timeout_s)
    draft.set_invocation(known.invocation_id, **changes)
    return draft.decide(Done(changed=True))


# ---------------------------------------------------------------- swept


def sweep(draft: NodeDraft, invocation_id: str) -> bool:
    """Either of its deadlines came due. Whether it still stands is asked of the row. True: it was settled."""
    known = draft.invocations.get(invocation_id)
    if known is None or known.settled or (code := overdue(draft.view, known)) is None:
        return False
    settle(draft, known, code, _LATE[code])
    return True


def lose(draft: NodeDraft, connection_id: str, code: InvocationError, message: str) -> None:
    """Its connection is gone or replaced: everything that waits on it is settled now, with its `dispatched` bit."""
    for known in list(draft.invocations.values()):
        if not known.settled and known.node_id == draft.node_id and known.connection_id == connection_id:
            settle(draft, known, code, message)
