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
from actors.law.requests import Interrupt, Request, Sweep
from actors.protocol.codes import TERMINAL

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
        }
