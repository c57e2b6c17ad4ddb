"""The one terminal path. Whoever ends an execution, it ends here, once: status, terminal event, approvals, callback,
abort, deadlines, all in one transaction (DESIGN §2.2).

`fail_execution` is for everybody but the wrapper: reaper, operator, reconciliation. The wrapper's own final and an
interrupt before the start call `end` with their own status; a normal end never travels through the failure path.
"""

from __future__ import annotations

from typing import Any

from actors.law.draft import Draft
from actors.law.effects import CommandsWait, Decision, DisarmExecution, Notify, Refuse, SetApproval, Show, Withdraw
from actors.law.model import Execution, Json, View
from actors.law.requests import Fail
from actors.protocol.codes import CAUSES, Cause, Status


def fail_execution(draft: Draft, execution_id: str, cause: Cause, error: str | None = None, **detail: Any) -> bool:
    """Ends the execution with this cause. False: somebody was first, nothing changed. Does not promote the next."""
    e = draft.executions[execution_id]
    if e.terminal:
        return False
    interrupted = cause == "interrupt_timeout" or e.interrupt_id is not None or e.status == "queued"
    end(
        draft,
        execution_id,
        "interrupted" if interrupted else "failed",
        cause=cause,
        error=error or CAUSES[cause],
        data={k: v for k, v in detail.items() if v is not None},
    )
    return True


def end(
    draft: Draft,
    execution_id: str,
    status: Status,
    *,
    cause: Cause | None,
    error: str | None = None,
    exit_code: int | None = None,
    signal: str | int | None = None,
    data: Json = None,
    exec_seq: int | None = None,
    abort: bool = True,
) -> None:
    e = draft.executions[execution_id]
    assert not e.terminal, "terminal is absorbing"
    was_running = e.status == "running"
    outcome: dict[str, Any] = {
        "status": status,
        "cause": cause,
        "error": error,
        "exit_code": exit_code,
        "signal": signal,
        "data": data or {},
    }
    # Approvals first: the terminal event is the last of the execution's events (G4).
    for approval in draft.view.approvals.values():
        if approval.execution_id == execution_id and approval.state == "open":
            draft.do(SetApproval(approval.approval_id, {"state": "cancelled", "resolved_at_ms": draft.view.wall_ms}))
            draft.append("approval.cancelled", {"approval_id": approval.approval_id}, execution_id)
    changes: dict[str, Any] = {
        "status": status,
        "ended_at_ms": draft.view.wall_ms,
        "cause": cause,
        "error": error,
        "exit_code": exit_code,
        "signal": signal,
        "data": data or {},
    }
    if exec_seq is not None:
        changes["acked_seq"] = exec_seq
    draft.set_execution(execution_id, **changes)
    draft.append(f"execution.{status}", terminal_payload(e, outcome), execution_id, exec_seq)
    draft.do(DisarmExecution(execution_id), Withdraw(execution_id))
    if was_running and abort:
        draft.enqueue("abort", execution_id, {"reason": cause or status})
        draft.say(CommandsWait())
    callback = e.callback or draft.session.callback
    if callback is not None:
        draft.do(
            Notify(
                draft.mint("whk"),
                execution_id,
                callback,
                {"session_id": draft.session.session_id, "execution_id": execution_id, "outcome": outcome},
            )
        )


def terminal_payload(e: Execution, outcome: dict[str, Any]) -> dict[str, Any]:
    """The payload of a terminal event. Additive for ever: golden tests pin every key of every cause.

    Always: status, cause, error, exit_code, signal, data, interrupt_id. A failure by cause also says `fatal: true`;
    a disconnect also says why the line was cut: reason, ws_close_code, ws_close_reason (consumers read them).
    """
    payload = {**outcome, "interrupt_id": e.interrupt_id}
    if outcome["cause"] is not None:
        payload["fatal"] = True
    if outcome["cause"] == "disconnected":
        detail = outcome["data"]
        payload["reason"] = detail.get("reason")
        payload["ws_close_code"] = detail.get("ws_close_code")
        payload["ws_close_reason"] = detail.get("ws_close_reason")
    return payload


def fail(view: View, request: Fail) -> Decision:
    """An operator's `fail`: the loser of any race gets the recorded outcome."""
    from actors.law.execution import missing, promote

    if refusal := missing(view):
        return refusal
    if request.execution_id not in view.executions:
        return Decision(Refuse("execution_not_found"))
    draft = Draft(view, request.seed)
    changed = fail_execution(draft, request.execution_id, request.cause, request.error, by=request.by)
    if changed:
        promote(draft)
    return draft.decide(Show("fail", 200, request.execution_id, changed=changed))
