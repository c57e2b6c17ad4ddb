"""Asks the law itself what it does with a link and with a hello, so that a diagram cannot say something else.

One session `s` with at most one execution `e1`; the owner is con_1 of instance i_1 of wrapper w_1, epoch 7.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from actors.law import requests as rq
from actors.law.decide import decide
from actors.law.effects import (
    Answer,
    Append,
    Arm,
    Connected,
    Decision,
    Done,
    RefuseConnection,
    RequeueStart,
    SetSession,
)
from actors.law.model import Execution, Limits, Policy, Session, View
from actors.protocol.codes import CLOSE_CODES

SEED = "0" * 26
ASK: dict[str, Any] = {"session_id": "s", "seed": SEED}
LIMITS = Limits(pending_s=180, stale_s=90, grace_s=30, hung_s=None, max_runtime_s=None, interrupt_s=20)
ACKED = 10  # what the server has of a running execution


def session(link: str, active: bool) -> Session:
    return Session(
        session_id="s",
        stream_id="str_1",
        title=None,
        labels={},
        created_at_ms=1,
        updated_at_ms=1,
        last_seq=50,
        first_seq=1,
        limits={},
        callback=None,
        link=link,  # type: ignore[arg-type]
        connection_id="con_1",
        connection_epoch=7,
        wrapper_id="w_1",
        instance_id="i_1",
        attempt=3,
        gateway_id="gw_1",
        grace_execution_id="e1" if link == "grace" and active else None,
    )


def execution(status: str) -> Execution:
    acked = 0 if status in ("queued", "pending") else ACKED
    cause: Any = "operator" if status == "failed" else None
    return Execution("e1", "s", 1, status, None, {}, None, 1, acked_seq=acked, cause=cause, wrapper_id="w_1")  # type: ignore[arg-type]


def view(link: str, status: str | None) -> View:
    active = status in ("pending", "running")
    return View(
        session=session(link, active),
        executions={"e1": execution(status)} if status else {},
        approvals={},
        command=None,
        deadline_due=0,
        service_ms=10_000_000,
        wall_ms=1_700_000_000_000,
        next_epoch=8,
        next_ordinal=2,
        policy=Policy(LIMITS),
    )


def hello(wrapper: str = "w_1", instance: str = "i_1", attempt: int = 4, **fields: Any) -> rq.Connect:
    return rq.Connect(
        **ASK,
        connection_id="con_2",
        gateway_id="gw_1",
        wrapper_id=wrapper,
        instance_id=instance,
        attempt=attempt,
        **fields,
    )


# ---------------------------------------------------------------- the link

LINK_EVENTS: dict[str, tuple[str, rq.Request]] = {
    "hello": ("a hello of the same wrapper, a later attempt", hello()),
    "hello of another": ("a hello of another wrapper", hello("w_2", "i_2", 1)),
    "late hello": ("a hello of the owner's instance, an attempt not later than the owner's", hello(attempt=3)),
    "close": ("the owner's socket closed", rq.Closed(**ASK, connection_id="con_1", code=1006)),
    "stale close": ("another connection's socket closed", rq.Closed(**ASK, connection_id="con_0", code=1006)),
    "grace is over": ("the `grace` deadline of this loss is due", rq.Sweep(**ASK, kind="grace", subject="7")),
    "old grace is over": ("the `grace` deadline of an earlier loss is due", rq.Sweep(**ASK, kind="grace", subject="6")),
    "stale": ("the `stale` deadline is due, and no frame came", rq.Sweep(**ASK, kind="stale", subject="e1")),
    "delete": ("an operator deletes the session", rq.DeleteSession(**ASK)),
}
LINKS = ("offline", "connected", "grace")


@dataclass(frozen=True)
class Moved:
    event: str
    before: str
    execution: str | None
    after: str
    appended: tuple[str, ...]
    answer: str


def link_moves() -> list[Moved]:
    """Every (link, execution, event); an event that the law answers with silence has no `appended` and no move."""
    moves = []
    for name, (_, request) in LINK_EVENTS.items():
        for link in LINKS:
            for status in (None, "running"):
                # The running execution is told of, so that reconciliation has nothing to say here.
                if isinstance(request, rq.Connect) and status == "running":
                    said = rq.Reported("e1", "running", ACKED + 1, ACKED)
                    asked: rq.Request = hello(
                        request.wrapper_id, request.instance_id, request.attempt, executions=(said,)
                    )
                else:
                    asked = request
                decision = decide(view(link, status), asked)
                moves.append(
                    Moved(name, link, status, _link_after(link, decision), _types(decision), _answer(decision.answer))
                )
    return moves


def _link_after(before: str, decision: Decision) -> str:
    after = before
    for effect in decision.effects:
        if isinstance(effect, SetSession):
            if "deleted_at_ms" in effect.changes:
                return "deleted"
            after = effect.changes.get("link", after)
    return after


def _types(decision: Decision) -> tuple[str, ...]:
    return tuple(
        f"`{effect.type}`" + (f" (`{effect.data['cause']}`)" if effect.data.get("cause") else "")
        for effect in decision.effects
        if isinstance(effect, Append)
    )


def _answer(answer: Answer) -> str:
    if isinstance(answer, RefuseConnection):
        return f"refused, {answer.code} {CLOSE_CODES[answer.code].name}"
    if isinstance(answer, Done):
        return "done" if answer.changed else "nothing"
    return "owns" if isinstance(answer, Connected) else "done"


# ---------------------------------------------------------------- reconciliation

SAYS: dict[str, rq.Connect] = {
    "running": hello(executions=(rq.Reported("e1", "running", ACKED + 1, ACKED + 5),)),
    "running, but its spool is older than what we acknowledged": hello(
        executions=(rq.Reported("e1", "running", 1, ACKED - 5),)
    ),
    "received, not started": hello(executions=(rq.Reported("e1", "received", 1, 0),)),
    "final, not acknowledged": hello(executions=(rq.Reported("e1", "final", ACKED + 1, ACKED + 5, {}),)),
    "nothing; the same wrapper": hello(),
    "nothing; another wrapper": hello("w_2", "i_2", 1),
    "nothing; its spool is unreadable": hello("w_2", "i_2", 1, spool_ok=False),
}
KNOWS: dict[str, str | None] = {"unknown": None, "pending": "pending", "running": "running", "ended": "failed"}
_OF_THE_LINK = ("wrapper.",)


def reconciled(says: str, knows: str) -> str:
    """One cell of the table, in words: the directive and what else the transition does about the execution."""
    decision = decide(view("grace", KNOWS[knows]), SAYS[says])
    assert isinstance(decision.answer, Connected), decision.answer
    said = []
    for told in decision.answer.directives:
        start = "1" if told.acked_seq == 0 else "`acked_seq` + 1"
        said.append(f"`{told.directive}`" + (f" from {start}" if told.directive == "resume" else ""))
    for effect in decision.effects:
        if isinstance(effect, RequeueStart):
            said.append("its `start` goes out again")
        elif isinstance(effect, Arm) and effect.kind == "spool_lost":
            said.append("fails after grace (`lost`, `spool_unreadable`)")
        elif isinstance(effect, Append) and not effect.type.startswith(_OF_THE_LINK):
            cause = effect.data.get("cause")
            said.append(f"`{effect.type}`" + (f", cause `{cause}`" if cause else ""))
    return "; ".join(said) or "–"
