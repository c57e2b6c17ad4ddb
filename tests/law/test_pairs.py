"""Every (status, request) pair of an execution: what it becomes, or that nothing was changed."""

from __future__ import annotations

from typing import Any

import pytest

from actors.law import requests as rq
from actors.law.decide import TABLE, decide
from actors.law.effects import Acked, Append, Fenced, Nacked, Refuse, SetExecution, Show
from actors.law.execution import TRANSITIONS
from actors.law.model import Command, Execution, Limits, Policy, Session, View
from actors.protocol.codes import CAUSES, STATUSES, TERMINAL
from actors.protocol.ids import ulid

LIMITS = Limits(180, 90, 30, 60, 3600, 20)


def session(**changes: Any) -> Session:
    return Session(
        **{
            "session_id": "s",
            "stream_id": "str_1",
            "title": None,
            "labels": {},
            "created_at_ms": 1,
            "updated_at_ms": 1,
            "last_seq": 10,
            "first_seq": 1,
            "limits": {},
            "callback": None,
            "link": "connected",
            "connection_id": "con_1",
            "connection_epoch": 7,
            "wrapper_id": "w_1",
            "instance_id": "i_1",
            "attempt": 3,
            "gateway_id": "gw_1",
            **changes,
        }
    )


def execution(status: str, **changes: Any) -> Execution:
    acked = {"queued": 0, "pending": 0}.get(status, 5)
    return Execution(
        **{
            "execution_id": "e1",
            "session_id": "s",
            "ordinal": 1,
            "status": status,
            "input": None,
            "limits": {},
            "callback": None,
            "created_at_ms": 1,
            "acked_seq": acked,
            **changes,
        }
    )


def view(*executions: Execution, due: int | None = 0, s: Session | None = None, **changes: Any) -> View:
    return View(
        **{
            "session": s or session(),
            "executions": {e.execution_id: e for e in executions},
            "approvals": {},
            "command": None,
            "deadline_due": due,
            "service_ms": 1_000_000,
            "wall_ms": 1_700_000_000_000,
            "next_epoch": 8,
            "next_ordinal": 3,
            "policy": Policy(LIMITS),
            **changes,
        }
    )


F = {"session_id": "s", "seed": ulid(), "connection_id": "con_1", "epoch": 7, "instance_id": "i_1"}
S = {"session_id": "s", "seed": ulid()}


def sweep(kind: Any) -> rq.Sweep:
    return rq.Sweep(**S, kind=kind, subject="e1")


# request → {status: becomes}; a status that is absent stays as it is.
PAIRS: dict[str, tuple[rq.Request, dict[str, str]]] = {
    "interrupt": (rq.Interrupt(**S, execution_id="e1"), {"queued": "interrupted", "pending": "interrupted"}),
    "fail": (rq.Fail(**S, execution_id="e1"), {"queued": "interrupted", "pending": "failed", "running": "failed"}),
    "input": (rq.SendInput(**S, execution_id="e1"), {}),
    "started": (rq.Started(**F, execution_id="e1", seq=1), {"pending": "running"}),
    "started beyond": (rq.Started(**F, execution_id="e1", seq=2), {}),
    "final completed": (rq.Final(**F, execution_id="e1", seq=6, status="completed"), {"running": "completed"}),
    "final failed": (rq.Final(**F, execution_id="e1", seq=6, status="failed"), {"running": "failed"}),
    "final interrupted": (rq.Final(**F, execution_id="e1", seq=6, status="interrupted"), {"running": "interrupted"}),
    "final beyond": (rq.Final(**F, execution_id="e1", seq=7, status="completed"), {}),
    "final before": (rq.Final(**F, execution_id="e1", seq=5, status="completed"), {}),
    "approval": (rq.AskApproval(**F, execution_id="e1", seq=6, approval_id="a", title="?", options=("y",)), {}),
    "never started": (sweep("pending_start"), {"pending": "failed"}),
    "stale": (sweep("stale"), {"running": "failed"}),
    "hung": (sweep("hung"), {"running": "failed"}),
    "max runtime": (sweep("max_runtime"), {"running": "failed"}),
    "spool lost": (sweep("spool_lost"), {"running": "failed"}),
    "ladder without an interrupt": (sweep("ladder"), {}),
    "delete": (
        rq.DeleteSession(**S),
        {"queued": "interrupted", "pending": "failed", "running": "failed"},
    ),
}


def becomes(decision: Any) -> str | None:
    said = [
        e.changes["status"]
        for e in decision.effects
        if isinstance(e, SetExecution) and "status" in e.changes and e.execution_id == "e1"
    ]
    assert len(said) <= 1, said
    return said[-1] if said else None


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("name", PAIRS)
def test_pair(name: str, status: str) -> None:
    request, table = PAIRS[name]
    # A queued execution waits behind an active one: alone, it would have been promoted.
    others = [execution("running", execution_id="e0", ordinal=0)] if status == "queued" else []
    decision = decide(view(execution(status), *others), request)
    assert becomes(decision) == table.get(status)
    if status in TERMINAL:
        # Absorbing: no column of an ended execution moves but the mark of a late final, and it gets no event.
        for effect in decision.effects:
            if isinstance(effect, SetExecution):
                assert set(effect.changes) == {"late_final"}
            if isinstance(effect, Append):
                assert effect.execution_id is None
    terminal_events = [
        e
        for e in decision.effects
        if isinstance(e, Append) and e.execution_id == "e1" and e.type.removeprefix("execution.") in TERMINAL
    ]
    assert len(terminal_events) == (1 if table.get(status) in TERMINAL else 0)
    if terminal_events:
        of_it = [e for e in decision.effects if isinstance(e, Append) and e.execution_id == "e1"]
        assert of_it[-1] is terminal_events[0], "the terminal event is the last of its events"


def test_every_change_is_in_the_graph() -> None:
    steps = {"pending": "promote", "running": "started"}
    for request, table in PAIRS.values():
        for before, after in table.items():
            assert TRANSITIONS[before, steps.get(after, after)] == after, request  # type: ignore[index,arg-type]


def test_the_graph_ends() -> None:
    assert not any(before in TERMINAL for before, _ in TRANSITIONS)


def test_every_request_has_its_line() -> None:
    concrete = {c for c in vars(rq).values() if isinstance(c, type) and issubclass(c, rq.Request)}
    assert concrete - {rq.Request, rq.SessionRequest, rq.Framed} == set(TABLE)


@pytest.mark.parametrize("name", [n for n, (r, _) in PAIRS.items() if isinstance(r, rq.Framed)])
@pytest.mark.parametrize(
    ("owner", "code"),
    [
        ({"connection_id": "con_2", "connection_epoch": 8, "instance_id": "i_2"}, 4001),
        ({"connection_id": "con_2", "connection_epoch": 8}, 4009),
        ({"connection_epoch": 8}, 4009),
        ({"link": "grace", "connection_epoch": 8}, 1001),
        ({"link": "offline", "connection_epoch": 8}, 1001),
        ({"deleted_at_ms": 5}, 4000),
    ],
)
@pytest.mark.parametrize("status", STATUSES)
def test_a_frame_of_another_connection_changes_nothing(
    name: str, owner: dict[str, Any], code: int, status: str
) -> None:
    decision = decide(view(execution(status), s=session(**owner)), PAIRS[name][0])
    assert isinstance(decision.answer, Fenced) and decision.answer.code == code
    assert decision.effects == () and decision.speech == ()


@pytest.mark.parametrize("name", list(PAIRS))
def test_a_session_that_is_not_there(name: str) -> None:
    request = PAIRS[name][0]
    decision = decide(View(**{**_plain(view()), "session": None}), request)
    assert decision.effects == ()
    if not isinstance(request, rq.Framed | rq.Sweep):
        assert decision.answer == Refuse("session_not_found")


def _plain(v: View) -> dict[str, Any]:
    return {name: getattr(v, name) for name in View.__dataclass_fields__}


@pytest.mark.parametrize("kind", ["pending_start", "stale", "hung", "max_runtime", "ladder", "spool_lost", "grace"])
@pytest.mark.parametrize("due", [None, 1_000_001])
@pytest.mark.parametrize("status", STATUSES)
def test_a_deadline_that_is_gone_or_not_due_does_nothing(kind: Any, due: int | None, status: str) -> None:
    decision = decide(view(execution(status, interrupt_id="int_1"), due=due), sweep(kind))
    assert decision.effects == ()


def test_a_started_that_comes_after_the_end_never_opens_the_gate() -> None:
    for status in TERMINAL:
        decision = decide(view(execution(status, acked_seq=9)), rq.Started(**F, execution_id="e1", seq=1))
        assert isinstance(decision.answer, Nacked) and decision.answer.code == "terminal"


def test_the_same_request_again_decides_to_the_same_ids() -> None:
    request = rq.Interrupt(**S, execution_id="e1")
    assert decide(view(execution("running")), request) == decide(view(execution("running")), request)


def test_a_command_ack_in_every_state() -> None:
    for state in ("pending", "received", "done", "rejected", "withdrawn"):
        for status in ("received", "done", "rejected"):
            for e in STATUSES:
                command = Command("cmd_1", "s", "e1", "interrupt", {}, state)  # type: ignore[arg-type]
                frame = rq.AckCommand(**F, command_id="cmd_1", status=status)  # type: ignore[arg-type]
                running = execution(e, interrupt_id="int_1", interrupt_stage="requested")
                decision = decide(view(running, command=command), frame)
                assert isinstance(decision.answer, Acked)
                if state in ("done", "rejected", "withdrawn") or state == status:
                    assert decision.effects == ()
                assert becomes(decision) is None


def test_every_cause_ends_a_running_execution_with_its_status() -> None:
    for cause in CAUSES:
        for asked in (None, "int_1"):
            before = execution("running", interrupt_id=asked)
            decision = decide(view(before), rq.Fail(**S, execution_id="e1", cause=cause))
            wanted = "interrupted" if asked or cause == "interrupt_timeout" else "failed"
            assert becomes(decision) == wanted
            assert isinstance(decision.answer, Show) and decision.answer.changed
