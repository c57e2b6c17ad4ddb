"""Rules of the stream (G3, and G1 for readers): contiguous for each subscriber, the same for all of them.

A cursor moves with what was delivered; a subscriber that opens again says where it goes on. `reset` is the one honest
way to lose a place, where the place is gone.
"""

from __future__ import annotations

from collections import defaultdict

from actors.history.court import Court
from actors.history.reading import Observation, content_hash


def subscribers(court: Court) -> None:
    """No hole, no repeat, no step back, across reconnects."""
    cursor: dict[tuple[str, str], int | None] = {}
    seen: dict[tuple[str, str], dict[int, Observation]] = defaultdict(dict)
    holes: dict[tuple[str, str], dict[int, Observation]] = defaultdict(dict)
    stream: dict[tuple[str, str], str] = {}
    for o in court.observations:
        if o.what not in ("opened", "reset", "delivered", "finished"):
            continue
        key = (o.who, o["session"])
        name = f"{o.who} on {o['session']}"
        if o.what == "opened":
            after = o.get("after_seq")
            cursor[key] = after
            seen[key] = {n: d for n, d in seen[key].items() if after is None or n <= after}
        elif o.what == "reset":
            _needless(court, name, o, cursor.get(key), stream.get(key), seen[key])
            cursor[key] = o["first_seq"] - 1
            seen[key].clear()
            holes[key].clear()
        elif o.what == "finished":
            session, last = court.sessions.get(o["session"]), cursor.get(key)
            if session is not None and last is not None and last != session["last_seq"]:
                court.flag("gap", f"{name}: it ended at {last}, the stream at {session['last_seq']}", o, session)
        else:
            for seq, _ in o["events"]:
                _next(court, name, o, seq, cursor, key, seen[key], holes[key])
        if o.get("stream_id"):
            stream[key] = o["stream_id"]
    for (who, sid), missing in holes.items():
        for seq, o in missing.items():
            court.flag("gap", f"{who} on {sid}: seq {seq} never came", o)


def _needless(
    court: Court, name: str, o: Observation, cursor: int | None, stream: str | None, seen: dict[int, Observation]
) -> None:
    """first_seq only grows, so a cursor that the dump could still honour could be honoured then; unless it was the
    subscriber's own invention."""
    session = court.sessions.get(o["session"])
    if session is None or cursor is None or not (cursor == 0 or cursor in seen):
        return
    if not stream or not o.get("stream_id") == stream == session.get("stream_id"):
        return
    if session["first_seq"] - 1 <= cursor <= session["last_seq"]:
        words = f"told to begin again at {o['first_seq']}, and its place behind {cursor} stands"
        court.flag("needless_reset", f"{name}: {words}", o, session)


def _next(
    court: Court,
    name: str,
    o: Observation,
    seq: int,
    cursor: dict[tuple[str, str], int | None],
    key: tuple[str, str],
    seen: dict[int, Observation],
    holes: dict[int, Observation],
) -> None:
    last = cursor.get(key)
    if seq in seen:
        court.flag("duplicate", f"{name}: seq {seq} was delivered twice", seen[seq], o)
    elif last is not None and seq <= last:
        holes.pop(seq, None)
        court.flag("reorder", f"{name}: seq {seq} came behind {last}", o)
    elif last is not None:
        holes.update(dict.fromkeys(range(last + 1, seq), o))
    seen[seq] = o
    cursor[key] = seq if last is None else max(last, seq)


def agreement(court: Court) -> None:
    """One position of one stream has one content, for every reader and in the store."""
    stream: dict[tuple[str, str], str] = {}
    given: dict[tuple[str, str, int], tuple[str, Observation]] = {}
    stored = {
        (sid, r["seq"]): (content_hash(r["type"], r["data"]), r) for sid, rows in court.rows.items() for r in rows
    }
    differ: set[tuple[str, int]] = set()
    for o in court.observations:
        if o.what in ("opened", "reset", "delivered") and o.get("stream_id"):
            stream[o.who, o["session"]] = o["stream_id"]
        if o.what != "delivered":
            continue
        sid = o["session"]
        of = stream.get((o.who, sid), "")
        session = court.sessions.get(sid)
        current = session is not None and of in ("", session.get("stream_id") or "", None)
        for seq, digest in o["events"]:
            known, first = given.setdefault((sid, of, seq), (digest, o))
            if known != digest:
                court.flag("divergence", f"{sid}: {first.who} and {o.who} were given another seq {seq}", first, o)
                differ.add((sid, seq))
            elif session is not None and current and seq >= session["first_seq"] and (sid, seq) not in differ:
                row = stored.get((sid, seq))
                if row is None:
                    court.flag("lost", f"{sid}: {o.who} was given seq {seq}, and it is not stored", o, session)
                    differ.add((sid, seq))
                elif row[0] != digest:
                    court.flag("divergence", f"{sid}: {o.who} was given another seq {seq} than stands", o, row[1])
                    differ.add((sid, seq))


RULES = (subscribers, agreement)
