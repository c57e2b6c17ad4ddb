"""What a due deadline means. A sweep is a transition like any other: it stands on the rows as they are now, so asking
twice, late, or from two places is harmless (DESIGN §2.7).

`stale` and `hung` are lazy: the gateway moves last_seen and last_progress without touching deadlines, and a sweep that
finds them newer arms the deadline again.
"""

from __future__ import annotations

from typing import assert_never

from actors.law.draft import Draft
from actors.law.effects import Decision, Disarm, Done, SetApproval
from actors.law.execution import promote
from actors.law.failure import fail_execution
from actors.law.model import WALL_KINDS, Execution, View
from actors.law.ownership import fail_disconnected, release_owner
from actors.law.requests import Sweep
from actors.protocol.codes import CLOSE


def sweep(view: View, request: Sweep) -> Decision:
    now = view.wall_ms if request.kind in WALL_KINDS else view.service_ms
    if view.session is None or view.deadline_due is None or now < view.deadline_due:
        return Decision(Done(changed=False))
    draft = Draft(view, request.seed)
    draft.do(Disarm(request.kind, request.subject))
    if request.kind == "grace":
        _grace(draft, request.subject)
    elif request.kind == "approval":
        _approval(draft, request.subject)
    else:
        execution = view.executions.get(request.subject)
        if execution is not None and not execution.terminal:
            _execution(draft, request, execution)
    promote(draft)
    return draft.decide(Done(changed=True))


def _execution(draft: Draft, request: Sweep, e: Execution) -> None:
    eid, running = e.execution_id, e.status == "running"
    match request.kind:
        case "pending_start":
            if e.status == "pending":
                fail_execution(draft, eid, "never_started")
        case "stale":
            if running and draft.session.link == "connected":
                _stale(draft, e)
        case "hung":
            if running:
                _hung(draft, e)
        case "max_runtime":
            if running:
                fail_execution(draft, eid, "max_runtime")
        case "ladder":
            if running and e.interrupt_id is not None:
                fail_execution(draft, eid, "interrupt_timeout")
        case "spool_lost":
            if running:
                fail_execution(draft, eid, "lost", detail="spool_unreadable")
        case "grace" | "approval":
            raise AssertionError("swept elsewhere")
        case _:
            assert_never(request.kind)


def _grace(draft: Draft, epoch: str) -> None:
    """Keyed by the epoch of the loss: whoever came back since has another, and this row means nothing to them."""
    if draft.session.link != "grace" or str(draft.session.connection_epoch) != epoch:
        return
    lost = draft.session
    draft.set_session(link="offline", grace_until_ms=None, grace_execution_id=None)
    active = draft.active
    if active is not None and active.execution_id == lost.grace_execution_id:
        fail_disconnected(draft, active)


def _stale(draft: Draft, e: Execution) -> None:
    limit = draft.limits(e).stale_s
    if limit is None:
        return
    due = draft.session.last_seen_service_ms + round(limit * 1000)
    if due > draft.view.service_ms:
        draft.arm("stale", e.execution_id, due, e.execution_id)
        return
    fail_execution(draft, e.execution_id, "stale")
    release_owner(draft, CLOSE["going_away"], "stale: no frame came for too long")


def _hung(draft: Draft, e: Execution) -> None:
    """Counts from progress, and stands still while an approval is open or grace runs."""
    limit = draft.limits(e).hung_s
    if limit is None:
        return
    waiting = draft.session.link == "grace" or any(
        a.execution_id == e.execution_id and a.state == "open" for a in draft.view.approvals.values()
    )
    since = draft.view.service_ms if waiting else e.last_progress_service_ms
    due = since + round(limit * 1000)
    if due > draft.view.service_ms:
        draft.arm("hung", e.execution_id, due, e.execution_id)
    else:
        fail_execution(draft, e.execution_id, "hung")


def _approval(draft: Draft, approval_id: str) -> None:
    approval = draft.view.approvals.get(approval_id)
    if approval is None or approval.state != "open":
        return
    draft.do(SetApproval(approval_id, {"state": "expired", "resolved_at_ms": draft.view.wall_ms}))
    draft.append("approval.expired", {"approval_id": approval_id}, approval.execution_id)
    if (e := draft.executions.get(approval.execution_id)) is not None and e.status == "running":
        draft.set_execution(e.execution_id, last_progress_service_ms=draft.view.service_ms)
        draft.enqueue("approval", e.execution_id, {"approval_id": approval_id, "decision": "expired", "note": None})
