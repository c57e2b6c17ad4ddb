"""Approvals: the agent asks, somebody decides once; racing deciders learn who won."""

from __future__ import annotations

from actors.law.draft import Draft
from actors.law.effects import Acked, CommandsWait, Decision, Disarm, InsertApproval, Nacked, Refuse, SetApproval, Show
from actors.law.execution import fence, missing
from actors.law.model import Approval, View
from actors.law.requests import AskApproval, ResolveApproval


def receive_approval(view: View, frame: AskApproval) -> Decision:
    if fenced := fence(view, frame):
        return Decision(fenced)
    e = view.executions.get(frame.execution_id)
    if e is None or e.status == "queued":
        return Decision(Nacked("unknown_execution"))
    if e.terminal:
        return Decision(Nacked("terminal", detail=e.cause or e.status))
    if e.status == "pending" or frame.seq > e.acked_seq + 1:
        return Decision(Nacked("gap", e.acked_seq + 1))
    if frame.seq <= e.acked_seq:
        return Decision(Acked(e.acked_seq))
    if frame.approval_id in view.approvals:
        return Decision(Nacked("invalid", e.acked_seq + 1, "this approval_id was used before"))
    draft = Draft(view, frame.seed)
    expires = None if frame.expires_in_s is None else view.wall_ms + round(frame.expires_in_s * 1000)
    draft.do(
        InsertApproval(
            Approval(
                approval_id=frame.approval_id,
                session_id=frame.session_id,
                execution_id=frame.execution_id,
                title=frame.title,
                options=frame.options,
                data=frame.data,
                created_at_ms=view.wall_ms,
                expires_at_ms=expires,
            )
        )
    )
    if expires is not None:
        draft.arm("approval", frame.approval_id, expires, frame.execution_id)
    draft.set_execution(
        e.execution_id,
        acked_seq=frame.seq,
        last_progress_service_ms=view.service_ms,
        last_progress_at_ms=view.wall_ms,
    )
    draft.append(
        "approval.requested",
        {
            "approval_id": frame.approval_id,
            "title": frame.title,
            "options": list(frame.options),
            "expires_at_ms": expires,
            "data": frame.data,
        },
        e.execution_id,
        frame.seq,
    )
    return draft.decide(Acked(frame.seq))


def resolve(view: View, request: ResolveApproval) -> Decision:
    if refusal := missing(view):
        return refusal
    approval = view.approvals.get(request.approval_id)
    if approval is None:
        return Decision(Refuse("approval_not_found"))
    if approval.state == "resolved" and approval.resolved_seed == request.seed:
        return Decision(Show("approval", 200, approval_id=request.approval_id, changed=False))
    if approval.state != "open":
        return Decision(
            Refuse(
                "already_resolved",
                f"it is {approval.state}"
                + (f": {approval.decision} by {approval.resolved_by}" if approval.decision else ""),
                {
                    "winner": {
                        "state": approval.state,
                        "decision": approval.decision,
                        "resolved_by": approval.resolved_by,
                        "resolved_at_ms": approval.resolved_at_ms,
                    }
                },
            )
        )
    if request.decision not in approval.options:
        return Decision(Refuse("bad_request", f"decision must be one of {', '.join(approval.options)}"))
    draft = Draft(view, request.seed)
    draft.do(
        SetApproval(
            request.approval_id,
            {
                "state": "resolved",
                "decision": request.decision,
                "note": request.note,
                "resolved_by": request.by,
                "resolved_at_ms": view.wall_ms,
                "resolved_seed": request.seed,
            },
        ),
        Disarm("approval", request.approval_id),
    )
    draft.append(
        "approval.resolved",
        {"approval_id": request.approval_id, "decision": request.decision, "note": request.note, "by": request.by},
        approval.execution_id,
    )
    e = draft.executions.get(approval.execution_id)
    if e is not None and e.status == "running":
        draft.set_execution(e.execution_id, last_progress_service_ms=view.service_ms)
        draft.enqueue(
            "approval",
            e.execution_id,
            {"approval_id": request.approval_id, "decision": request.decision, "note": request.note},
        )
        draft.say(CommandsWait())
    return draft.decide(Show("approval", 200, approval_id=request.approval_id))
