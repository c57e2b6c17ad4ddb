"""How each event that Holdfast writes comes about, in the real law and the real store under a clock that walks.

`python -m tests.contract.happenings` writes golden/events.json anew: do it only to *add*. Consumers read these keys.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from actors.law.requests import DeleteSession, Reported, ResolveApproval
from actors.protocol.codes import CAUSES
from actors.protocol.ids import ulid
from tests.world import World

GOLDEN = Path(__file__).parent / "golden" / "events.json"
MADE_ID = re.compile(r"^([a-z]{1,3})_[0-9a-hjkmnp-tv-z]{26}$")
Happening = Callable[[World], None]


def _running_with(**limits: Any) -> Happening:
    return lambda world: world.running("e1", limits=limits)


def _steps(*steps: Callable[[World], Any]) -> Happening:
    def made(world: World) -> None:
        for step in steps:
            step(world)

    return made


def _interrupted_command(status: str) -> Callable[[World], Any]:
    def made(world: World) -> None:
        (command,) = [c for c in world.store.pending_commands("s", 0, 9) if c.kind == "interrupt"]
        world.ack_command(command.command_id, status)

    return made


def _start_rejected(world: World) -> None:
    (command,) = world.store.pending_commands("s", 0, 9)
    world.ack_command(command.command_id, "rejected", code="start_failed", detail="no such file: agent")


def _live(w: World) -> None:
    w.running("e1")


def _waiting(w: World) -> None:
    w.create()
    w.connect()
    w.submit("e1")


def _cut(w: World) -> None:
    w.closed(code=1006, error="ping timeout")


def _walk(seconds: float) -> Callable[[World], Any]:
    return lambda w: w.walk(seconds)


# Cause → how an execution ends by it.
BY_CAUSE: dict[str, Happening] = {
    "never_started": _steps(_waiting, _walk(182)),
    "stale": _steps(_live, _walk(93)),
    "disconnected": _steps(_live, _cut, _walk(32)),
    "hung": _steps(_running_with(hung_s=5.0), _walk(7)),
    "max_runtime": _steps(_running_with(max_runtime_s=5.0), _walk(7)),
    "start_failed": _steps(_waiting, _start_rejected),
    "interrupt_timeout": _steps(_live, lambda w: w.interrupt(reason="stop"), _walk(22)),
    "lost": _steps(_live, _cut, lambda w: w.connect("con_2", attempt=2)),
    "superseded": _steps(_live, _cut, lambda w: w.connect("con_2", wrapper="w_2", instance="i_2")),
    "agent_error": _steps(_live, lambda w: w.fail(cause="agent_error", by="tok_1")),
    "operator": _steps(_live, lambda w: w.fail(by="tok_1")),
}
# (type, what is special about it) → how it comes about.
OTHERS: dict[tuple[str, str], Happening] = {
    ("execution.queued", ""): _steps(_live, lambda w: w.submit("e2", by="tok_1")),
    ("execution.pending", ""): _waiting,
    ("execution.started", ""): _live,
    ("execution.completed", "the wrapper's final"): _steps(_live, lambda w: w.final(2, data={"answer": 42})),
    ("execution.failed", "the wrapper's final"): _steps(
        _live, lambda w: w.final(2, status="failed", exit_code=3, error="exit code 3")
    ),
    ("execution.failed", "the wrapper's final, start_failed"): _steps(
        _live, lambda w: w.final(2, status="failed", exit_code=None, error="no", data={"cause": "start_failed"})
    ),
    ("execution.failed", "the wrapper's final, agent_error"): _steps(
        _live,
        lambda w: w.final(
            2, status="failed", exit_code=None, error="gone", data={"cause": "agent_error", "detail": "shim_lost"}
        ),
    ),
    ("execution.failed", "lost, its spool is unreadable"): _steps(
        _live, _cut, lambda w: w.connect("con_2", attempt=2, spool_ok=False), _walk(32)
    ),
    ("execution.interrupted", "before the start"): _steps(_waiting, lambda w: w.interrupt(reason="stop", by="tok_1")),
    ("execution.interrupted", "the wrapper's final"): _steps(
        _live,
        lambda w: w.interrupt(reason="stop", by="tok_1"),
        lambda w: w.final(2, status="interrupted", exit_code=None, signal="SIGINT"),
    ),
    ("execution.interrupted", "a cause after an interrupt"): _steps(_live, lambda w: w.interrupt(), _cut, _walk(32)),
    ("execution.interrupted", "queued, failed by hand"): _steps(
        _live, lambda w: w.submit("e2"), lambda w: w.fail("e2", by="tok_1")
    ),
    ("execution.late_final", "a frame"): _steps(_live, lambda w: w.fail(), lambda w: w.final(2)),
    ("execution.late_final", "a hello"): _steps(
        _live,
        _cut,
        lambda w: w.fail(),
        lambda w: w.connect(
            "con_2", attempt=2, executions=(Reported("e1", "final", 1, 2, {"status": "completed", "exit_code": 0}),)
        ),
    ),
    ("interrupt.requested", ""): _steps(_live, lambda w: w.interrupt(reason="stop", by="tok_1")),
    ("interrupt.delivered", ""): _steps(_live, lambda w: w.interrupt(), _interrupted_command("received")),
    ("interrupt.acknowledged", ""): _steps(_live, lambda w: w.interrupt(), _interrupted_command("done")),
    ("wrapper.connected", ""): _steps(
        lambda w: w.create(), lambda w: w.connect(client={"name": "holdfast-wrapper", "version": "1"})
    ),
    ("wrapper.disconnected", "cut"): _steps(_live, _cut),
    ("wrapper.disconnected", "closed"): _steps(_live, lambda w: w.closed(code=1000, close_reason="bye")),
    ("wrapper.disconnected", "nothing is known"): _steps(_live, lambda w: w.closed()),
    ("wrapper.resumed", ""): _steps(
        _live, _cut, lambda w: w.connect("con_2", attempt=2, executions=(Reported("e1", "running", 2, 1),))
    ),
    ("wrapper.superseded", ""): _steps(_live, lambda w: w.connect("con_2", wrapper="w_2", instance="i_2")),
    ("approval.requested", ""): _steps(_live, lambda w: w.ask(2, expires_in_s=5, data={"path": "/"})),
    ("approval.requested", "without an end"): _steps(_live, lambda w: w.ask(2)),
    ("approval.resolved", ""): _steps(
        _live,
        lambda w: w.ask(2),
        lambda w: w.do(
            ResolveApproval(session_id="s", seed=ulid(), approval_id="apr_1", decision="deny", note="never", by="tok_1")
        ),
    ),
    ("approval.expired", ""): _steps(_live, lambda w: w.ask(2, expires_in_s=5), _walk(7)),
    ("approval.cancelled", ""): _steps(_live, lambda w: w.ask(2), lambda w: w.fail()),
    ("output.rewound", ""): _steps(
        _live,
        lambda w: w.append(w.item(2, 5)),
        _cut,
        lambda w: w.connect("con_2", attempt=2, executions=(Reported("e1", "running", 1, 3),)),
    ),
    ("session.closed", ""): _steps(
        lambda w: w.create(), lambda w: w.do(DeleteSession(session_id="s", seed=ulid(), by="tok_1"))
    ),
}
# Written by the gateway itself, from a wrapper's `gap`: test_events.py drives it through the socket.
BY_THE_GATEWAY = {"output.gap": {"": {"from_seq": 2, "to_seq": 9, "bytes": 700, "reason": "trimmed"}}}


def shown(value: Any) -> Any:
    """Ids that we make differ every time; what they name does not."""
    if isinstance(value, dict):
        return {k: shown(v) for k, v in value.items()}
    if isinstance(value, list):
        return [shown(v) for v in value]
    return MADE_ID.sub(r"\1_X", value) if isinstance(value, str) else value


def last(world: World, kind: str) -> dict[str, Any]:
    return [e for e in world.events() if e["type"] == kind][-1]


def of_cause(world: World, cause: str) -> dict[str, Any]:
    """The terminal event. It is always failed, but after an interrupt."""
    BY_CAUSE[cause](world)
    return last(world, "execution.interrupted" if cause == "interrupt_timeout" else "execution.failed")


def every(fresh: Callable[[], World]) -> dict[str, dict[str, Any]]:
    made: dict[str, dict[str, Any]] = {k: dict(v) for k, v in BY_THE_GATEWAY.items()}
    for cause in CAUSES:
        event = of_cause(fresh(), cause)
        made.setdefault(event["type"], {})[f"cause {cause}"] = shown(event["data"])
    for (kind, special), happening in OTHERS.items():
        world = fresh()
        happening(world)
        made.setdefault(kind, {})[special] = shown(last(world, kind)["data"])
    return {kind: dict(sorted(of.items())) for kind, of in sorted(made.items())}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        count = iter(range(1000))

        def fresh() -> World:
            (place := Path(folder) / str(next(count))).mkdir()
            return World(place)

        text = json.dumps(every(fresh), indent=1, ensure_ascii=False)
    GOLDEN.write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()
