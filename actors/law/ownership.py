"""Who owns a session: connect, reconcile, close. Sessions and node roles share these rules (DESIGN §2.3, §2.4, §2.6).

A connection is known by its id and epoch; presence, grace and rollback hang on the connection, never on the session's
name alone. A stale close changes nothing; a late open never wins.
"""

from __future__ import annotations

from actors.law.draft import Draft
from actors.law.effects import (
    Answer,
    CloseSocket,
    CommandsWait,
    Connected,
    Decision,
    Directed,
    Disarm,
    DisarmGrace,
    Done,
    RefuseConnection,
    RememberConnection,
    RequeueStart,
    Withdraw,
)
from actors.law.execution import arm_running, note_late_final, promote
from actors.law.failure import fail_execution
from actors.law.model import Execution, Session, View
from actors.law.owner import displace, late_or_too_soon
from actors.law.requests import Closed, Connect, Reported, Restored
from actors.protocol.codes import CLOSE, CLOSE_CODES

RESTORED = "the store was restored from a backup"


def connect(view: View, hello: Connect) -> Decision:
    s = view.session
    if s is None:
        return Decision(RefuseConnection(CLOSE["not_found"], "no such session"))
    if s.deleted_at_ms is not None:
        return Decision(RefuseConnection(CLOSE["session_closed"], "session deleted"))
    draft = Draft(view, hello.seed)
    if s.connection_id == hello.connection_id:
        # The same call again, after an unknown outcome. The answer is the same; nothing else happens.
        if s.link != "connected":
            return Decision(RefuseConnection(CLOSE["try_again_later"], "this connection was closed", 0.0))
        return Decision(Connected(s.connection_epoch, _directives(draft, hello, quiet=True), _grace_s(draft)))
    if view.connection_used:
        return Decision(RefuseConnection(CLOSE["try_again_later"], "this connection was superseded", 0.0))
    if not view.door_open:
        # Its gateway died while the call was on its way: the socket is gone, and nobody would ever say `closed`.
        return Decision(RefuseConnection(CLOSE["service_restart"], "this gateway is gone", 0.0))
    if refusal := late_or_too_soon(s, hello.instance_id, hello.attempt, view.service_ms, view.policy):
        return Decision(refusal)
    _take_over(draft, s, hello)
    directives = _directives(draft, hello)
    _reconcile_unmentioned(draft, hello, _mentioned(draft, hello), s.wrapper_id)
    promote(draft)
    if (active := draft.active) is not None and active.status == "running":
        arm_running(draft, active)
    draft.say(CommandsWait())
    return draft.decide(Connected(draft.session.connection_epoch, directives, _grace_s(draft)))


def _grace_s(draft: Draft) -> float:
    return float(draft.limits(draft.active).grace_s or 0.0)


def _take_over(draft: Draft, s: Session, hello: Connect) -> None:
    same_wrapper = s.wrapper_id == hello.wrapper_id
    held = s.link in ("connected", "grace")
    if displaced := displace(s, hello.instance_id):
        draft.say(displaced)
    epoch = draft.take_epoch()
    draft.do(DisarmGrace())
    draft.set_session(
        link="connected",
        connection_id=hello.connection_id,
        wrapper_id=hello.wrapper_id,
        instance_id=hello.instance_id,
        attempt=hello.attempt,
        gateway_id=hello.gateway_id,
        last_seen_service_ms=draft.view.service_ms,
        last_seen_at_ms=draft.view.wall_ms,
        grace_until_ms=None,
        grace_execution_id=None,
        lost_code=None,
        lost_reason=None,
    )
    draft.do(RememberConnection(hello.connection_id, epoch))
    if s.link == "grace" and (active := draft.active) is not None and active.status == "running":
        # The time away was not the agent's: its progress clock stood still (DESIGN §2.7).
        draft.set_execution(active.execution_id, last_progress_service_ms=draft.view.service_ms)
    who = {
        "connection_id": hello.connection_id,
        "epoch": epoch,
        "wrapper_id": hello.wrapper_id,
        "instance_id": hello.instance_id,
        "attempt": hello.attempt,
        "client": hello.client,
    }
    if held and not same_wrapper:
        draft.append("wrapper.superseded", {"wrapper_id": s.wrapper_id, "by": hello.wrapper_id})
    draft.append("wrapper.resumed" if held and same_wrapper else "wrapper.connected", who)


# ---------------------------------------------------------------- reconciliation


def _directives(draft: Draft, hello: Connect, *, quiet: bool = False) -> tuple[Directed, ...]:
    """One line of the table of DESIGN §2.6 for each execution that the wrapper told of. quiet: no events."""
    return tuple(_direct(draft, report, hello.wrapper_id, quiet) for report in hello.executions)


def _is_anothers(e: Execution, wrapper_id: str) -> bool:
    """It runs, and not there: its `started` was applied for another wrapper. A start may have reached two (G13)."""
    return e.status == "running" and e.wrapper_id != wrapper_id


def _mentioned(draft: Draft, hello: Connect) -> set[str]:
    """What the wrapper told of and may go on with."""
    told = {r.execution_id for r in hello.executions}
    active = draft.active
    if active is not None and _is_anothers(active, hello.wrapper_id):
        told.discard(active.execution_id)
    return told


def _direct(draft: Draft, report: Reported, hello_wrapper: str, quiet: bool) -> Directed:
    e = draft.executions.get(report.execution_id)
    eid = report.execution_id
    if e is None or e.status == "queued":
        # Not ours, or not yet begun as far as we know: nothing of it may run.
        unknown = {"received": "discard", "running": "abort", "final": "done"}[report.state]
        return Directed(eid, unknown, 0, "unknown_execution")  # type: ignore[arg-type]
    if e.terminal:
        return _direct_terminal(draft, e, report, quiet)
    if _is_anothers(e, hello_wrapper):
        elsewhere = {"received": "discard", "running": "abort", "final": "done"}[report.state]
        return Directed(eid, elsewhere, 0, "superseded")  # type: ignore[arg-type]
    draft.do(Disarm("spool_lost", eid))
    if report.state != "received" and not quiet:
        _note_rewound(draft, e, report)
    return Directed(eid, "resume", e.acked_seq)


def _direct_terminal(draft: Draft, e: Execution, report: Reported, quiet: bool) -> Directed:
    why = e.cause or e.status
    if report.state == "received":
        return Directed(e.execution_id, "discard", e.acked_seq, why)
    if report.state == "running":
        return Directed(e.execution_id, "abort", e.acked_seq, why)
    if report.last_seq > e.acked_seq and not quiet:
        note_late_final(draft, e, report.final)
    return Directed(e.execution_id, "done", e.acked_seq, why)


def _note_rewound(draft: Draft, e: Execution, report: Reported) -> None:
    """The spool is older than what we acknowledged (a restored backup, a power cut): it goes on after our mark."""
    if report.last_seq < e.acked_seq:
        draft.append("output.rewound", {"acked_seq": e.acked_seq, "spool_last_seq": report.last_seq}, e.execution_id)


def _reconcile_unmentioned(draft: Draft, hello: Connect, mentioned: set[str], owner_before: str | None) -> None:
    """Executions that we hold active and the wrapper says nothing about."""
    active = draft.active
    if active is None or active.execution_id in mentioned:
        return
    eid = active.execution_id
    if active.status == "pending":
        draft.do(RequeueStart(eid))
        return
    if not hello.spool_ok:
        grace = draft.limits(active).grace_s or 0.0
        draft.arm("spool_lost", eid, draft.service_after(grace), eid, keep=True)
        return
    cause = "lost" if hello.wrapper_id == owner_before else "superseded"
    fail_execution(draft, eid, cause, wrapper_id=hello.wrapper_id)  # type: ignore[arg-type]
    # Whoever it would be sent to does not run it.
    draft.do(Withdraw(eid))


# ---------------------------------------------------------------- close and grace


def closed(view: View, request: Closed) -> Decision:
    """Not the owner → nothing at all. The owner → offline, or grace while an execution is active."""
    s = view.session
    if s is None or s.link != "connected" or s.connection_id != request.connection_id:
        return Decision(Done(changed=False))
    draft = Draft(view, request.seed)
    draft.append("wrapper.disconnected", disconnect_payload(request))
    _lose_owner(draft, request.code, request.close_reason or request.error)
    return draft.decide(Done(changed=True))


def restored(view: View, request: Restored) -> Decision:
    """A backup came back. The log is another one (so cursors into the lost tail get `reset`), whoever owned the session
    is fenced, and what ran has its whole grace to be found again by its wrapper."""
    s = view.session
    if s is None or s.deleted_at_ms is not None:
        return Decision(Done(changed=False))
    draft = Draft(view, request.seed)
    draft.set_session(stream_id=draft.mint("str"))
    if s.link == "connected" and s.connection_id is not None:
        gone = Closed(session_id=s.session_id, seed=request.seed, connection_id=s.connection_id, error=RESTORED)
        draft.append("wrapper.disconnected", disconnect_payload(gone))
    draft.do(DisarmGrace())
    active = draft.active
    if s.link != "offline" or (active is not None and active.status == "running"):
        _lose_owner(draft, None, RESTORED)
    else:
        draft.take_epoch()  # a pending one still waits for its first wrapper: its own deadline goes on
    return draft.decide(Done(changed=True))


def _lose_owner(draft: Draft, code: int | None, reason: str) -> None:
    """Offline, or grace while an execution is active. Frames of the lost socket still in flight are fenced by it."""
    view, epoch, active = draft.view, draft.take_epoch(), draft.active
    grace = draft.limits(active).grace_s
    lost = {"gateway_id": None, "lost_code": code, "lost_reason": reason}
    if active is None:
        draft.set_session(link="offline", **lost)
    elif grace is None:  # off: nobody is waited for
        draft.set_session(link="offline", **lost)
        fail_disconnected(draft, active)
        promote(draft)
        return
    else:
        draft.set_session(
            link="grace",
            grace_until_ms=view.wall_ms + round(grace * 1000),
            grace_execution_id=active.execution_id,
            **lost,
        )
        draft.arm("grace", str(epoch), draft.service_after(grace))
        draft.do(Disarm("ladder", active.execution_id))
    if active is not None:
        draft.do(Disarm("stale", active.execution_id))


def fail_disconnected(draft: Draft, active: Execution) -> None:
    """The owner is lost for good; the event says how the line was cut."""
    s = draft.session
    fail_execution(
        draft,
        active.execution_id,
        "disconnected",
        reason=s.lost_reason or "connection lost",
        ws_close_code=s.lost_code,
        ws_close_reason=s.lost_reason,
    )


def disconnect_payload(request: Closed) -> dict[str, object]:
    """Pinned by a golden test: consumers read `reason` and `ws_close_code` since the first version.

    A wrapper that says goodbye (1000, 1001) is no error; a line that is cut is.
    """
    goodbye = request.code in (CLOSE["normal"], CLOSE["going_away"]) and not request.error
    name = CLOSE_CODES[request.code].name if request.code in CLOSE_CODES else "connection lost"
    return {
        "connection_id": request.connection_id,
        "reason": request.close_reason or request.error or name,
        "ws_close_code": request.code,
        "ws_close_reason": request.close_reason,
        "error": None if goodbye else request.error or request.close_reason or name,
        "fatal": False,
    }


def release_owner(draft: Draft, code: int, reason: str) -> None:
    """The session is left without an owner by our own decision (stale, delete): fence first, then close the socket."""
    s = draft.session
    if s.link == "connected" and s.connection_id is not None:
        draft.say(CloseSocket(s.connection_id, code, reason))
    draft.take_epoch()
    draft.do(DisarmGrace())
    draft.set_session(link="offline", gateway_id=None, grace_until_ms=None, grace_execution_id=None)


__all__ = ["Answer", "closed", "connect", "disconnect_payload", "fail_disconnected", "release_owner", "restored"]
