"""Rules of deadlines (G8): none ends anything before its time, and none that is over is forgotten.

Early is told by the store's own times (`at_ms` of the rows), which a step of the service's wall clock bends: a history
with such a fault (`clock`, target `service`) is not judged for it. Service time stands still during outages, so late by
the wall is no anomaly; overdue in service time is.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from actors.history.court import Case, Court
from actors.history.log import CONNECTS
from actors.history.reading import Observation

TICK_S: Final = 1.0  # the grain of service time: a due time may be that much older than the row that armed it
ROUNDING_S: Final = 0.25  # two rows of one moment are written at two
OVERDUE_S: Final = 7.0  # two ticks, and one sweep that had to be tried again


def early(court: Court) -> None:
    if any(o["fault"] == "clock" and o["target"] == "service" for o in court.by_what["fault"]):
        return
    for (sid, eid), case in court.cases.items():
        ends, cause = case.terminals, case.outcome.get("cause")
        if not ends or cause is None or case.row is None:
            continue
        end = ends[0]
        found = _basis(court.rows[sid], case, end, cause)
        if found is None:
            continue
        limit_name, basis = found
        limit = (case.row.get("limits") or {}).get(limit_name)
        if limit is None:
            continue
        if basis is None:
            court.flag("early_reap", f"{sid}/{eid}: {cause}, while its owner was connected", end)
            continue
        took = (end["at_ms"] - basis["at_ms"]) / 1000
        if took < limit - TICK_S - ROUNDING_S:
            court.flag("early_reap", f"{sid}/{eid}: {cause} after {took:.1f} s of {limit} s", basis, end)


def _basis(
    rows: Iterable[Observation], case: Case, end: Observation, cause: str
) -> tuple[str, Observation | None] | None:
    """(limit, the row from which it counts at the earliest). None: this cause waits for no time."""
    mine = [r for r in case.rows if r["seq"] < end["seq"]]
    if cause == "disconnected":
        lost = [r for r in rows if r["seq"] < end["seq"] and r["type"] in (*CONNECTS, "wrapper.disconnected")]
        return "grace_s", lost[-1] if lost and lost[-1]["type"] == "wrapper.disconnected" else None
    wanted = {
        "never_started": ("pending_s", "execution.pending"),
        "max_runtime": ("max_runtime_s", "execution.started"),
        "interrupt_timeout": ("interrupt_s", "interrupt.requested"),
    }
    if cause in wanted:
        limit, kind = wanted[cause]
        found = [r for r in mine if r["type"] == kind]
        return (limit, found[0]) if found else None
    if cause in ("hung", "stale"):
        found = [r for r in mine if r.get("exec_seq") is not None]
        return (f"{cause}_s", found[-1]) if found else None
    return None


def missing(court: Court) -> None:
    for o in court.by_what["deadline"]:
        if o["overdue_s"] > OVERDUE_S:
            court.flag("missing_reap", f"{o['session']}: {o['kind']} is {o['overdue_s']:.0f} s overdue", o)
    if not court.by_what["end"]:
        return
    end = court.by_what["end"][-1]
    since = max((o.at for o in court.by_what["quiet"]), default=None)  # without it an outage may be the reason
    for (sid, eid), case in court.cases.items():
        session = court.sessions.get(sid)
        if since is None or case.row is None or session is None or case.row["status"] != "running":
            continue
        limit = (case.row.get("limits") or {}).get("grace_s")
        if session["link"] == "grace" and limit is not None and end.at - since > limit + OVERDUE_S:
            words = f"its owner has been away for all of {end.at - since:.0f} quiet seconds, grace is {limit} s"
            court.flag("missing_reap", f"{sid}/{eid}: {words}", session, case.row)


RULES = (early, missing)
