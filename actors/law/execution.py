"""The life of an execution, and what operators and the wrapper's control frames do to it.

    queued → pending → running → completed | failed | interrupted      (DESIGN §2.1)
    queued | pending → interrupted        pending → failed

TRANSITIONS is the graph; a pair that is absent is the refusal and changes nothing. Terminal is absorbing.
"""

from __future__ import annotations

from typing import Final, Literal

from actors.law.draft import Draft
from actors.law.effects import (
    Acked,
    CommandsWait,
    Decision,
    Disarm,
    Fenced,
    Nacked,
    Refuse,
    SetCommand,
    Show,
    Wake,
    Withdraw,
)
from actors.law.failure import end
from actors.law.model import Execution, Session, View
from actors.law.owner import fenced_by_owner, owns
from actors.law.requests import AckCommand, Framed, Interrupt, SendInput, Started, Submit
from actors.law.requests import Final as FinalFrame
from actors.protocol.codes import CLOSE, FINAL_CAUSES, Status

Step = Literal["promote", "started", "interrupted", "failed", "completed"]

TRANSITIONS: Final[dict[tuple[Status, Step], Status]] = {
    ("queued", "promote"): "pending",
    ("queued", "interrupted"): "interrupted",
    ("pending", "started"): "running",
    ("pending", "interrupted"): "interrupted",
    ("pending", "failed"): "failed",
    ("running", "completed"): "completed",
    ("running", "failed"): "failed",
    ("running", "interrupted"): "interrupted",
}


def missing(view: View) -> Decision | None:
    """Whoever names a session that is not there, or is gone for good, is told so."""
    if view.session is None:
        return Decision(Refuse("session_not_found"))
    if view.session.deleted_at_ms is not None:
        return Decision(Refuse("session_deleted"))
    return None


def fence(view: View, frame: Framed) -> Fenced | None:
    """A frame counts only from the connection that owns the session now (DESIGN §2.3)."""
    s = view.session
    if s is not None and s.deleted_at_ms is None and owns(s, frame.connection_id, frame.epoch):
        return None
    return fenced_by(s, frame.instance_id)


def fenced_by(s: Session | None, instance_id: str) -> Fenced:
    """How to close a socket that does not own the session: it depends on who does (DESIGN §2.3)."""
    if s is None or s.deleted_at_ms is not None:
        return Fenced(CLOSE["session_closed"], "session deleted")
    return fenced_by_owner(s, instance_id, "session")


# ---------------------------------------------------------------- submit and promote


def submit(view: View, request: Submit) -> Decision:
    if refusal := missing(view):
        return refusal
    if known := view.executions.get(request.execution_id):
        if known.input != request.input:
            return Decision(Refuse("execution_mismatch", f"{known.execution_id} was submitted with another input"))
        return Decision(Show("execution", 202, known.execution_id, changed=False))
    if view.active is not None and len(view.queued) >= view.policy.queue_limit:
        return Decision(Refuse("queue_full", f"{view.policy.queue_limit} executions are waiting already"))
    draft = Draft(view, request.seed)
    draft.insert(
        Execution(
            execution_id=request.execution_id,
            session_id=request.session_id,
            ordinal=view.next_ordinal,
            status="queued",
            input=request.input,
            limits=request.limits,
            callback=request.callback,
            created_at_ms=view.wall_ms,
        )
    )
    if draft.active is None:
        promote(draft)
    else:
        draft.append("execution.queued", {"by": request.by}, request.execution_id)
    draft.say(Wake())
    return draft.decide(Show("execution", 202, request.execution_id))


def promote(draft: Draft) -> None:
    """The longest-waiting execution becomes the active one, and its start goes out."""
    if draft.active is not None or not draft.queued:
        return
    execution = draft.queued[0]
    eid = execution.execution_id
    limits = draft.limits(execution)
    draft.set_execution(eid, status=TRANSITIONS[execution.status, "promote"])
    draft.enqueue("start", eid, {"input": execution.input, "limits": limits.as_dict()})
    if limits.pending_s is not None:
        draft.arm("pending_start", eid, draft.service_after(limits.pending_s), eid)
    draft.append("execution.pending", {}, eid)
    draft.say(CommandsWait())


# ---------------------------------------------------------------- interrupts


def interrupt(view: View, request: Interrupt) -> Decision:
    if refusal := missing(view):
        return refusal
    target = view.executions.get(request.execution_id) if request.execution_id else view.active
    if target is None:
        if request.execution_id:
            return Decision(Refuse("execution_not_found"))
        return Decision(Refuse("nothing_to_interrupt"))
    eid = target.execution_id
    if target.terminal:
        return Decision(Show("interrupt", 200, eid, changed=False))
    draft = Draft(view, request.seed)
    if target.interrupt_id is not None:
        if request.force and not target.interrupt_force:
            draft.set_execution(eid, interrupt_force=True)
            send_interrupt(draft, eid)
        return draft.decide(Show("interrupt", 202, eid, changed=bool(request.force and not target.interrupt_force)))
    target = draft.set_execution(
        eid,
        interrupt_id=draft.mint("int"),
        interrupt_stage="requested",
        interrupt_by=request.by,
        interrupt_reason=request.reason,
        interrupt_force=request.force,
        interrupt_at_ms=view.wall_ms,
    )
    draft.append(
        "interrupt.requested",
        {"interrupt_id": target.interrupt_id, "by": request.by, "reason": request.reason, "force": request.force},
        eid,
    )
    if target.status == "running":
        send_interrupt(draft, eid)
        if draft.session.link != "grace":
            arm_ladder(draft, target)
    else:
        # The agent has not been exec'd: its gate opens only on our ack of `started`, which will not come now.
        draft.set_execution(eid, interrupt_stage="done")
        end(draft, eid, "interrupted", cause=None, error=request.reason)
        promote(draft)
    return draft.decide(Show("interrupt", 202, eid))


def send_interrupt(draft: Draft, execution_id: str) -> None:
    e = draft.executions[execution_id]
    within = draft.limits(e).interrupt_s
    draft.enqueue(
        "interrupt",
        execution_id,
        {
            "interrupt_id": e.interrupt_id,
            "reason": e.interrupt_reason,
            "force": e.interrupt_force,
            "within_s": within,
        },
    )
    draft.say(CommandsWait())


def arm_ladder(draft: Draft, execution: Execution) -> None:
    """Stands still in grace, which bounds it there, and is armed again at connect (DESIGN §2.1)."""
    within = draft.limits(execution).interrupt_s
    if within is not None:
        draft.arm("ladder", execution.execution_id, draft.service_after(within), execution.execution_id)


# ---------------------------------------------------------------- follow-up input


def send_input(view: View, request: SendInput) -> Decision:
    if refusal := missing(view):
        return refusal
    target = view.executions.get(request.execution_id)
    if target is None:
        return Decision(Refuse("execution_not_found"))
    if target.terminal:
        return Decision(Refuse("execution_terminal"))
    if target.status != "running":
        return Decision(Refuse("not_running", f"the execution is {target.status}"))
    draft = Draft(view, request.seed)
    draft.enqueue("input", request.execution_id, {"input": request.input})
    draft.say(CommandsWait(), Wake())
    return draft.decide(Show("execution", 202, request.execution_id))


# ---------------------------------------------------------------- control frames


def receive_started(view: View, frame: Started) -> Decision:
    if fenced := fence(view, frame):
        return Decision(fenced)
    e = view.executions.get(frame.execution_id)
    if e is None or e.status == "queued":
        return Decision(Nacked("unknown_execution"))
    if e.terminal:
        return Decision(Nacked("terminal", detail=e.cause or e.status))  # never Acked: an ack opens the gate
    if e.status == "running":
        return Decision(Acked(e.acked_seq) if frame.seq <= e.acked_seq else Nacked("invalid", e.acked_seq + 1))
    if frame.seq != 1:
        return Decision(Nacked("gap", 1))
    draft = Draft(view, frame.seed)
    e = draft.set_execution(
        e.execution_id,
        status=TRANSITIONS[e.status, "started"],
        wrapper_id=draft.session.wrapper_id,
        started_at_ms=view.wall_ms,
        received_at_ms=e.received_at_ms or view.wall_ms,
        acked_seq=1,
        last_progress_service_ms=view.service_ms,
        last_progress_at_ms=view.wall_ms,
    )
    draft.append("execution.started", {"pid": frame.pid}, e.execution_id, 1)
    # Whatever became of its command_ack: a start that was heeded never goes out again.
    draft.do(Disarm("pending_start", e.execution_id), Withdraw(e.execution_id, ("start",)))
    arm_running(draft, e)
    limits = draft.limits(e)
    if limits.max_runtime_s is not None:
        draft.arm("max_runtime", e.execution_id, draft.service_after(limits.max_runtime_s), e.execution_id)
    draft.say(Wake())
    return draft.decide(Acked(1))


def arm_running(draft: Draft, execution: Execution) -> None:
    """What watches a running execution whose owner is connected; armed at `started` and at every reconnect."""
    eid, limits = execution.execution_id, draft.limits(execution)
    if limits.stale_s is not None:
        draft.arm("stale", eid, draft.service_after(limits.stale_s), eid)
    if limits.hung_s is not None:
        due = execution.last_progress_service_ms + round(limits.hung_s * 1000)
        draft.arm("hung", eid, max(due, draft.view.service_ms), eid)
    if execution.interrupt_id is not None:
        arm_ladder(draft, execution)


def receive_final(view: View, frame: FinalFrame) -> Decision:
    if fenced := fence(view, frame):
        return Decision(fenced)
    e = view.executions.get(frame.execution_id)
    if e is None or e.status == "queued":
        return Decision(Nacked("unknown_execution"))
    if e.terminal:
        if frame.seq <= e.acked_seq:  # this very final, again: its ack was lost
            return Decision(Acked(e.acked_seq))
        draft = Draft(view, frame.seed)
        note_late_final(draft, e, {"status": frame.status, "exit_code": frame.exit_code, "signal": frame.signal})
        return draft.decide(Nacked("terminal", detail=e.cause or e.status))
    if e.status == "pending" or frame.seq > e.acked_seq + 1:
        return Decision(Nacked("gap", e.acked_seq + 1))
    if frame.seq <= e.acked_seq:
        return Decision(Nacked("invalid", e.acked_seq + 1, "a final cannot stand before what is acknowledged"))
    draft = Draft(view, frame.seed)
    told = frame.data.get("cause") if frame.status == "failed" else None
    end(
        draft,
        e.execution_id,
        TRANSITIONS[e.status, frame.status],
        cause=next((cause for cause in FINAL_CAUSES if cause == told), None),
        error=frame.error,
        exit_code=frame.exit_code,
        signal=frame.signal,
        data=frame.data,
        exec_seq=frame.seq,
        abort=False,
    )
    promote(draft)
    return draft.decide(Acked(frame.seq))


def note_late_final(draft: Draft, execution: Execution, final: dict[str, object] | None) -> None:
    """Once. It is the session's event, not the execution's: the terminal event stays the execution's last (G4)."""
    if not execution.late_final:
        draft.set_execution(execution.execution_id, late_final=True)
        draft.append("execution.late_final", {"execution_id": execution.execution_id, "final": final})


def receive_command_ack(view: View, frame: AckCommand) -> Decision:
    """`received`: durably noted by the wrapper. `rejected` changes nothing of the execution; the ladder ends it."""
    if fenced := fence(view, frame):
        return Decision(fenced)
    command = view.command
    if command is None or command.state in ("done", "rejected", "withdrawn") or command.state == frame.status:
        return Decision(Acked(0))
    draft = Draft(view, frame.seed)
    draft.do(SetCommand(command.command_id, frame.status))
    e = draft.executions.get(command.execution_id)
    if command.kind == "start" and e is not None and e.status == "pending" and e.received_at_ms is None:
        draft.set_execution(e.execution_id, received_at_ms=view.wall_ms)
    if command.kind == "start" and frame.status == "rejected" and e is not None and e.status == "pending":
        end(draft, e.execution_id, "failed", cause="start_failed", error=frame.detail or frame.code, abort=False)
        promote(draft)
    if command.kind == "interrupt" and e is not None and e.status == "running":
        _interrupt_heard(draft, e, frame)
    return draft.decide(Acked(0))


def _interrupt_heard(draft: Draft, e: Execution, frame: AckCommand) -> None:
    if frame.status == "rejected":
        draft.set_execution(e.execution_id, interrupt_stage="rejected")
        return
    if e.interrupt_stage in ("requested", "rejected"):
        draft.set_execution(e.execution_id, interrupt_stage="delivered")
        draft.append("interrupt.delivered", {"interrupt_id": e.interrupt_id}, e.execution_id)
    if frame.status == "done" and draft.executions[e.execution_id].interrupt_stage == "delivered":
        draft.set_execution(e.execution_id, interrupt_stage="acknowledged")
        draft.append("interrupt.acknowledged", {"interrupt_id": e.interrupt_id}, e.execution_id)


__all__ = [
    "TRANSITIONS",
    "arm_running",
    "fence",
    "interrupt",
    "missing",
    "note_late_final",
    "promote",
    "receive_command_ack",
    "receive_final",
    "receive_started",
    "send_input",
    "submit",
]
