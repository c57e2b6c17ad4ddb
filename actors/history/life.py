"""Rules of an execution's life (G4, G7, G9, G12): one end, told alike to everybody; interrupts hit what they name."""

from __future__ import annotations

from typing import Any, Final

from actors.history.court import Case, Court
from actors.history.reading import Observation

ENDS: Final = ("completed", "failed", "interrupted")
OUTCOME: Final = ("status", "cause", "error", "exit_code", "signal", "data")
ONCE: Final = ("execution.queued", "execution.pending", "execution.started")
NOTICED_S: Final = 60.0  # from an agent's exit to its final in the store, on a line that works


def one_end(court: Court) -> None:
    for (sid, eid), case in court.cases.items():
        name, ends = f"{sid}/{eid}", case.terminals
        if len(ends) > 1:
            court.flag("two_terminals", f"{name}: {len(ends)} terminal events", *ends)
        for r in case.rows[case.rows.index(ends[-1]) + 1 :] if ends else []:
            court.flag("after_terminal", f"{name}: {r['type']} stands behind its end", ends[-1], r)
        if case.row is None:
            continue
        over = case.row["status"] in ENDS
        session = court.sessions.get(sid)
        trimmed = session is not None and session["first_seq"] > 1
        if over and not ends and case.rows and not trimmed:
            court.flag("outcome_disagrees", f"{name}: it is {case.row['status']} and has no terminal event", case.row)
        for r in ends:
            if not over or plain(r["data"]) != plain(case.outcome):
                court.flag("outcome_disagrees", f"{name}: event and row tell different ends", r, case.row)


def submits(court: Court) -> None:
    """What was accepted exists, for whoever looks, from then on; and begins once."""
    for (sid, eid), case in court.cases.items():
        name, session = f"{sid}/{eid}", court.sessions.get(sid)
        for kind in ONCE:
            standing = [r for r in case.rows if r["type"] == kind]
            if len(standing) > 1:
                court.flag("duplicate", f"{name}: {kind} stands {len(standing)} times", *standing)
        accepted = next((a for q, a in case.answers if q["op"] == "submit" and a["status"] < 300), None)
        if accepted is None or session is None or session["first_seq"] > 1:
            continue  # nobody was promised anything, or there is no dump, or retention has taken the beginning
        denied = next((a for q, a in case.answers if a["status"] == 404 and q.at > accepted.at), None)
        if case.row is None:
            court.flag("submit_lost", f"{name}: it was accepted and stands nowhere", accepted, denied, session)
        elif denied is not None:
            court.flag("submit_lost", f"{name}: it was accepted, and then nobody knew of it", accepted, denied)


def plain(outcome: Any) -> dict[str, Any]:
    return {name: outcome.get(name) for name in OUTCOME}


def answers(court: Court) -> None:
    """Whoever was told an end was told the same one; one `fail` at most changed anything."""
    for (sid, eid), case in court.cases.items():
        name = f"{sid}/{eid}"
        changed = [a for q, a in case.answers if q["op"] == "fail" and a.get("changed") is True]
        if len({a["id"] for a in changed}) > 1:
            court.flag("outcome_disagrees", f"{name}: two callers were told that theirs ended it", *changed)
        told: Observation | None = None
        for question, answer in case.answers:
            execution = answer.get("execution") or {}
            if answer["status"] >= 300 or "status" not in execution:
                continue
            if execution["status"] not in ENDS:
                # A read only: what is asked again with its key has its old answer again.
                if told is not None and question["op"] == "read" and question.at > told.at:
                    words = f"it was {told['execution']['status']}, and later it is {execution['status']}"
                    court.flag("outcome_disagrees", f"{name}: {words}", told, answer)
                continue
            end, against = execution.get("outcome") or {}, case.row or told
            known = case.outcome if case.row is not None else (told["execution"]["outcome"] if told else end)
            if plain(end) != plain(known):
                court.flag("outcome_disagrees", f"{name}: an answer tells another end", answer, against)
            told = told or answer


def interrupts(court: Court) -> None:
    for (sid, eid), case in court.cases.items():
        name = f"{sid}/{eid}"
        requested = [r for r in case.rows if r["type"] == "interrupt.requested"]
        if len(requested) > 1:
            court.flag("interrupt_doubled", f"{name}: {len(requested)} interrupts were requested", *requested)
        accepted = [a for q, a in case.answers if q["op"] == "interrupt" and a["status"] == 202]
        ids = {a["interrupt_id"] for a in accepted}
        if len(ids) > 1:
            court.flag("interrupt_doubled", f"{name}: accepted under {len(ids)} ids", *accepted)
        for answer in accepted:
            _accepted(court, sid, name, case, answer, requested)
        _unasked(court, name, case)


def _accepted(court: Court, sid: str, name: str, case: Case, answer: Observation, requested: list[Observation]) -> None:
    session, number = court.sessions.get(sid), answer["interrupt_id"]
    if session is None or session["first_seq"] > 1:
        return
    stands = any(r["data"]["interrupt_id"] == number for r in requested)
    kept = case.row is None or case.row.get("interrupt_id") == number
    if stands and kept:
        return
    elsewhere = [
        r
        for r in court.rows[sid]
        if r["type"].startswith("interrupt.") and r["data"].get("interrupt_id") == number and r not in case.rows
    ]
    elsewhere += [
        c.row for (s, _), c in court.cases.items() if s == sid and c is not case and c.row and _id(c.row) == number
    ]
    if elsewhere:
        court.flag("interrupt_misapplied", f"{name}: its interrupt stands on another execution", answer, *elsewhere)
    else:
        court.flag("interrupt_lost", f"{name}: accepted as {number}, and it stands nowhere", answer, case.row)


def _id(row: Observation) -> Any:
    return row.get("interrupt_id")


def _unasked(court: Court, name: str, case: Case) -> None:
    """Nobody interrupted it, and yet it was: by its status, or by the signal that its agent saw."""
    if case.row is None or case.row.get("interrupt_id"):
        return
    outcome = case.outcome
    if outcome.get("status") == "interrupted" and not outcome.get("cause") and not outcome.get("error"):
        court.flag("interrupt_misapplied", f"{name}: interrupted, and nobody asked for it", case.row)
    own_end = case.row["status"] in ("completed", "failed") and not outcome.get("cause")
    if own_end and case.by_what["signalled"]:
        court.flag("interrupt_misapplied", f"{name}: its agent was signalled", *case.by_what["signalled"], case.row)


def stuck(court: Court) -> None:
    """At the end of the history: over, if the run says that it settled; else at least with somebody behind it."""
    ends = court.by_what["end"]
    if not ends:
        return
    end = ends[-1]
    for (sid, eid), case in court.cases.items():
        if case.row is None or case.row["status"] in ENDS:
            continue
        name, session = f"{sid}/{eid}", court.sessions.get(sid)
        gone = [o for o in case.by_what["exited"] if end.at - o.at > NOTICED_S]
        if end["settled"]:
            court.flag("stuck_running", f"{name}: all had settled, and it is {case.row['status']}", case.row, end)
        elif case.row["status"] == "running" and session is not None and session["link"] == "offline":
            court.flag("stuck_running", f"{name}: running, and nobody owns its session", case.row, session)
        elif gone and session is not None and session["link"] == "connected":
            court.flag("stuck_running", f"{name}: its agent ended long ago", gone[0], case.row)


RULES = (one_end, submits, answers, interrupts, stuck)
