"""Rules of the log (G1, G2, G6, G13): every record once, in order, as it was sent, by whoever owned the session.

They read stored rows against what went over the wire and what the agent says that it wrote.
"""

from __future__ import annotations

import base64
from collections import Counter
from typing import Final

from actors.history.court import TERMINAL, Case, Court
from actors.history.reading import Observation, content_hash

MADE_OF_FRAMES: Final = ("execution.started", "output.gap", "approval.requested", *TERMINAL)  # not event for event
CONNECTS: Final = ("wrapper.connected", "wrapper.resumed")


def session_numbers(court: Court) -> None:
    """seq: from first_seq to last_seq, each once."""
    for sid, session in court.sessions.items():
        rows, expected = court.rows[sid], session["first_seq"]
        before: Observation | None = session
        for r in rows:
            if r["seq"] < expected:
                court.flag("duplicate", f"{sid}: seq {r['seq']} stands twice", before, r)
                continue
            if r["seq"] > expected:
                court.flag("gap", f"{sid}: seq {expected} to {r['seq'] - 1} are missing", before, r)
            expected, before = r["seq"] + 1, r
        if expected <= session["last_seq"]:
            court.flag("gap", f"{sid}: seq {expected} to {session['last_seq']} are missing at the end", before, session)


def record_numbers(court: Court) -> None:
    """exec_seq: 1, 2, 3 … but for what an output.gap covers; and nothing acknowledged that stands nowhere."""
    for (sid, eid), case in court.cases.items():
        session = court.sessions.get(sid)
        if session is None or session["first_seq"] > 1:
            continue  # no dump, or retention has taken the beginning
        name, covered, last = f"{sid}/{eid}", 0, None
        for r in case.rows:
            n = r.get("exec_seq")
            if n is None:
                continue
            if n <= covered:
                same = last is not None and any(o.get("exec_seq") == n for o in case.rows if o["seq"] < r["seq"])
                code, words = ("duplicate", "stands twice") if same else ("reorder", "stands behind a later one")
                court.flag(code, f"{name}: record {n} {words}", last, r)
                continue
            if n > covered + 1:
                court.flag("gap", f"{name}: records {covered + 1} to {n - 1} are missing", last, r)
            covered = r["data"]["to_seq"] if r["type"] == "output.gap" else n
            last = r
        standing = {r.get("exec_seq") for r in case.rows}
        promised = max(case.by_what["acked"], key=lambda o: int(o["seq"]), default=None)
        if promised is not None and promised["seq"] > covered:
            court.flag("ack_without_row", f"{name}: {promised['seq']} acknowledged, {covered} stored", promised, last)
        elif promised is not None and not any(r["type"] == "output.gap" for r in case.rows):
            gone = [n for n in range(1, promised["seq"] + 1) if n not in standing]
            if gone:
                court.flag("ack_without_row", f"{name}: records {gone[:5]} acknowledged and not stored", promised)


def contents(court: Court) -> None:
    """A stored record is what some frame carried at that number."""
    for (sid, eid), case in court.cases.items():
        if not case.sent:
            continue
        for r in case.rows:
            n = r.get("exec_seq")
            if n is None or r["type"] in MADE_OF_FRAMES:
                continue
            mine = content_hash(r["type"], r["data"])
            sent = case.sent.get(n, [])
            if all(digest != mine for digest, _ in sent):
                words = "is not what was sent" if sent else "was never sent"
                court.flag("altered", f"{sid}/{eid}: record {n} {words}", r, *(o for _, o in sent))


def ownership(court: Court) -> None:
    """Epochs grow; a close is of the owner; a record came over the connection that owned the session at its place."""
    epochs: dict[int, Observation] = {}
    for sid, rows in court.rows.items():
        owner: str | None = None
        took: Observation | None = None
        highest = 0
        for r in rows:
            data = r["data"]
            if r["type"] in CONNECTS:
                if data["epoch"] <= highest or data["epoch"] in epochs:
                    court.flag("epoch_overlap", f"{sid}: epoch {data['epoch']} again", epochs.get(data["epoch"]), r)
                highest, owner, took = max(highest, data["epoch"]), data["connection_id"], r
                epochs[data["epoch"]] = r
            elif r["type"] == "wrapper.disconnected":
                if data["connection_id"] != owner:
                    court.flag("epoch_overlap", f"{sid}: a connection that owned nothing was closed as owner", took, r)
                owner = None
            elif r.get("exec_seq") is not None:
                _by_the_owner(court, r, owner, took)
    for o in court.by_what["owned"]:
        known = epochs.get(o["epoch"])
        if known is not None and known["data"]["connection_id"] != o["connection"]:
            court.flag("epoch_overlap", f"epoch {o['epoch']} was given to two connections", known, o)


def _by_the_owner(court: Court, r: Observation, owner: str | None, took: Observation | None) -> None:
    n = r["exec_seq"]
    carried = [o for _, o in court.cases[r.of].sent.get(n, [])]
    if not carried:
        return
    if owner is None:
        court.flag("epoch_overlap", f"{'/'.join(r.of)}: record {n} was taken while nobody owned the session", took, r)
    elif all(o["connection"] != owner for o in carried):
        court.flag("epoch_overlap", f"{'/'.join(r.of)}: record {n} came over a fenced line", took, r, *carried)


def agents(court: Court) -> None:
    """The command ran at most once; its stdout in the log is what it wrote: whole, if it came to its own end."""
    for (sid, eid), case in court.cases.items():
        name, ran = f"{sid}/{eid}", case.by_what["ran"]
        if len(ran) > 1:
            court.flag("ran_twice", f"{name}: the command ran {len(ran)} times", *ran)
        if not case.by_what["writing"] or len(ran) > 1 or sid not in court.sessions:
            continue
        if court.sessions[sid]["first_seq"] > 1 or any(r["type"] == "output.gap" for r in case.rows):
            continue
        _output(court, name, case)


def _output(court: Court, name: str, case: Case) -> None:
    begun = "".join(o["text"] for o in case.by_what["writing"]).splitlines(keepends=True)
    done = len("".join(o["text"] for o in case.by_what["wrote"]).splitlines())
    stored = stdout_of(case.rows).splitlines(keepends=True)
    own_end = case.row is not None and case.row["status"] in ("completed", "failed") and not case.outcome.get("cause")
    data = case.outcome.get("data") or {}
    # Else it confesses to be incomplete: what lay in the pipe to a shim that was killed is nowhere.
    whole = own_end and not data.get("output") and data.get("detail") != "shim_lost"
    rows, writing = case.rows[-1:], case.by_what["writing"]
    if stored and not stored[-1].endswith("\n"):
        tail = stored.pop()  # cut in the middle of a line: the service ended it there
        if not (len(stored) < len(begun) and begun[len(stored)].startswith(tail)):
            court.flag("altered", f"{name}: the output ends with {tail[:40]!r}, which nobody wrote", *rows)
    if stored != begun[: len(stored)]:
        known, written = Counter(begun), Counter(stored)
        twice = [line for line, n in written.items() if n > known[line] > 0]
        strange = [line for line in written if line not in known]
        place = {line: i for i, line in enumerate(begun)}
        places = [place[line] for line in stored if line in place]
        missing = sorted(set(range(max(places, default=-1) + 1)) - set(places))
        evidence = (*writing[:2], *case.rows[:2])
        if strange:
            court.flag("altered", f"{name}: nobody wrote {strange[0][:40]!r}", *evidence)
        if twice:
            court.flag("duplicate", f"{name}: the line {twice[0][:40]!r} stands twice", *evidence)
        if missing:
            court.flag("lost", f"{name}: line {missing[0] + 1} of the agent is missing in the middle", *evidence)
        if places != sorted(places) and not twice:
            court.flag("reorder", f"{name}: the agent's lines stand in another order", *evidence)
    elif whole and len(stored) < done:
        court.flag("lost", f"{name}: {done} lines written, {len(stored)} stored at its own end", writing[-1], *rows)


def stdout_of(rows: list[Observation]) -> str:
    raw = b""
    for r in rows:
        data = r["data"]
        if r["type"] == "output" and data.get("stream") == "stdout":
            raw += base64.b64decode(data["base64"]) if "base64" in data else str(data.get("text", "")).encode()
    return raw.decode("utf-8", "replace")


RULES = (session_numbers, record_numbers, contents, ownership, agents)
