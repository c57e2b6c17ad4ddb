"""How often things happened, counted where they happen: inside the transition's own transaction.

Actors and reaper decide in processes of their own, so no process could count this in its memory; and a count that
stands in the store survives a restart. Only control decisions are counted here, a few upserts each; the data path
counts in plain integers of the gateway (gateway/metrics.py). Never a label per session: every label is from a table.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from actors.law import effects as fx
from actors.law.effects import Decision
from actors.law.model import View
from actors.law.nodes import effects as nfx
from actors.law.nodes.effects import NodeDecision
from actors.law.nodes.requests import NodeSweep
from actors.law.requests import Interrupt, Request, Sweep
from actors.protocol.codes import TERMINAL
from actors.protocol.node_codes import NODE_EVENT_TYPES

CONTROL_EVENTS = "control_events"
DEADLINES_FIRED = "deadlines_fired"  # by kind of deadline
EXECUTIONS_ENDED = "executions_ended"  # by status and cause: `failed/stale`, `completed/`
INTERRUPTS = "interrupts"  # `requested`, and how an interrupted execution ended: see `_outcome`

_UPSERT = "insert into tallies values (?, ?, ?) on conflict (name, label) do update set value = value + excluded.value"


def count(c: Any, view: View, request: Request, decision: Decision) -> None:
    if counted := counts(view, request, decision):
        c.executemany(_UPSERT, [(name, label, n) for (name, label), n in counted.items()])


def counts(view: View, request: Request, decision: Decision) -> Counter[tuple[str, str]]:
    """Pure: what this decision adds."""
    found: Counter[tuple[str, str]] = Counter()
    for effect in decision.effects:
        if not isinstance(effect, fx.Append):
            continue
        found[CONTROL_EVENTS, ""] += 1
        family, _, status = effect.type.partition(".")
        if effect.type == "interrupt.requested":
            found[INTERRUPTS, "requested"] += 1
        elif family == "execution" and status in TERMINAL:
            cause = str(effect.data.get("cause") or "")
            found[EXECUTIONS_ENDED, f"{status}/{cause}"] += 1
            known = view.executions.get(effect.execution_id or "")
            if isinstance(request, Interrupt) or (known is not None and known.interrupt_id is not None):
                found[INTERRUPTS, _outcome(status, cause)] += 1
    if isinstance(request, Sweep) and found[CONTROL_EVENTS, ""]:  # else it only looked, and armed itself anew
        found[DEADLINES_FIRED, request.kind] += 1
    return +found


NODE_EVENTS = "node_events"  # by type, of the closed table; a node's own types count as `own`
INVOCATIONS = "invocations"  # how they settled: `ok`, or the error's code


def count_node(c: Any, request: Request, decision: NodeDecision) -> None:
    if counted := node_counts(request, decision):
        c.executemany(_UPSERT, [(name, label, n) for (name, label), n in counted.items()])


def node_counts(request: Request, decision: NodeDecision) -> Counter[tuple[str, str]]:
    """Pure: what this decision adds."""
    found: Counter[tuple[str, str]] = Counter()
    for effect in decision.effects:
        match effect:
            case nfx.LogEvent(_, type_, _):
                found[NODE_EVENTS, type_ if type_ in NODE_EVENT_TYPES else "own"] += 1
            case nfx.SetInvocation(_, _, {"state": "settled", "error_code": code}):
                found[INVOCATIONS, code or "ok"] += 1
            case nfx.InsertInvocation(invocation) if invocation.settled:
                found[INVOCATIONS, invocation.error_code or "ok"] += 1
    if isinstance(request, NodeSweep) and not (isinstance(decision.answer, fx.Done) and not decision.answer.changed):
        found[DEADLINES_FIRED, f"node_{request.kind}"] += 1
    return found


def _outcome(status: str, cause: str) -> str:
    """interrupted; timeout (the ladder did not end it in time); completed or failed: it ended by itself first."""
    return "timeout" if cause == "interrupt_timeout" else status


class Meters:
    """Mixed into the store: needs `_c` and `wall_ms()`."""

    _c: Any
    wall_ms: Callable[[], int]

    def meters(self) -> dict[str, Any]:
        c, wall = self._c, self.wall_ms()
        c.execute("begin")
        try:
            sessions = dict(
                c.execute("select link, count(*) from sessions where deleted_at_ms is null group by link").fetchall()
            )
            live = dict(
                c.execute(
                    "select status, count(*) from executions "
                    "where status in ('queued', 'pending', 'running') group by status"
                ).fetchall()
            )
            service_ms, ticked_ms = c.execute("select t_ms, wall_ms from service_clock").fetchone()
            overdue = [
                max(0, now - row[0])
                for clock, now in (("service", service_ms), ("wall", wall))
                if (row := c.execute("select min(retry_ms) from deadlines where clock = ?", (clock,)).fetchone())
                and row[0] is not None
            ]
            beat = c.execute("select beat_at_ms from reaper").fetchone()
            tallies = c.execute("select name, label, value from tallies").fetchall()
            tokens = c.execute(
                "select count(*) from tokens where revoked_at_ms is null and coalesce(expires_at_ms, ?) >= ?",
                (wall, wall),
            ).fetchone()[0]
            awake = c.execute("select count(*) from actors").fetchone()[0]
            nodes = c.execute("select count(*) from nodes").fetchone()[0]
            roles = dict(
                c.execute("select role, count(*) from node_roles where link = 'connected' group by role").fetchall()
            )
            invocations = dict(
                c.execute("select state, count(*) from invocations where state != 'settled' group by state").fetchall()
            )
            tasks = dict(c.execute("select status, count(*) from tasks group by status").fetchall())
        finally:
            c.execute("rollback")
        return {
            "sessions": sessions,
            "executions": live,
            "clock_age_ms": max(0, wall - ticked_ms),
            "overdue_ms": max(overdue, default=0),
            "reaper_age_ms": None if beat is None else max(0, wall - beat[0]),
            "tallies": {(name, label): value for name, label, value in tallies},
            "tokens": tokens,
            "actors_awake": awake,
            "nodes": nodes,
            "node_roles_connected": roles,
            "invocations": invocations,
            "tasks": tasks,
        }
