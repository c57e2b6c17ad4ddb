"""The data path in SQL: the items of a group, fenced inside their statements (DESIGN §1, the append fence).

(1) the session must be owned by this very connection epoch, (2) the execution must be running and stand exactly before
this range; zero rows in either refuses the item, and one read tells why. The caller gives each item a savepoint.

Neighbours of different sessions are tried together first, the same three statements over all of them (ADR 8): each
statement gives the GIL away once, so a group costs a handful of hand-overs and not a handful per record. One row less
than asked for in (1) or (2) undoes them all, and they are taken one by one, each by the same statements.
An item of several short events is stored as runs, a row each of as many as RUN_EVENTS, spelled for the wire (ADR 11):
an insert and a replay then cost by the rows. Other events have a row of their own.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

import orjson

from actors.law.delivery import Again, Apply, Gap, cover
from actors.law.execution import fenced_by
from actors.store import rows
from actors.store.contract import Appended, AppendItem, AppendRefused, AppendResult, EncodedEvent

# The fence, in one place: what is wanted is the columns of a table, or the parameters of the only item there is (a join
# needs a table of its own inside SQLite; for one item, the most frequent group, that would cost 55 µs of 350).
_OWNED = "sessions.id = {of}sid and connection_epoch = {of}epoch and link = 'connected'"
_EXACTLY_BEFORE = (
    "executions.session_id = {of}sid and executions.id = {of}eid and status = 'running' and acked_seq = {of}before"
)
_SESSIONS = (
    "update sessions set last_seq = last_seq + {of}n {from_wanted} "
    f"where {_OWNED} returning sessions.id, last_seq, updated_at_ms"
)
# By itself, and once a second: SQLite takes out and puts in the index entry of a column that a statement sets, also
# where its value stays. That was a third of what the fence of a session cost, and a page of each commit.
ACTIVE = "update sessions set updated_at_ms = :second where id in (select value from json_each(:sids))"
_EXECUTIONS = (
    "update executions set acked_seq = {of}upto, last_progress_service_ms = :service, last_progress_at_ms = :wall "
    f"{{from_wanted}} where {_EXACTLY_BEFORE}"
)
_COLUMNS = ("sid", "epoch", "n", "eid", "before", "upto")  # of `_wanted`
# The items as one JSON text: the statement reads it without the GIL, while the event loop works.
_FROM_WANTED = (
    f"from (select {', '.join(f'value->>{k} as {name}' for k, name in enumerate(_COLUMNS))} from json_each(:items)) "
    "as wanted"
)
FENCE_ONE = tuple(sql.format(of=":", from_wanted="") for sql in (_SESSIONS, _EXECUTIONS))
FENCE_MANY = tuple(sql.format(of="wanted.", from_wanted=_FROM_WANTED) for sql in (_SESSIONS, _EXECUTIONS))
# The common table is materialized so that what an item's events share is taken out of the text once.
_INSERT = (
    "with item as materialized (select value->>0 as sid, value->>1 as seq, value->>2 as eid, value->>3 as number, "
    "value->'$[4]' as events from json_each(?1)) "
    f"insert into events ({rows.EVENT_COLUMNS}) "
    "select sid, seq + e.key, eid, number + e.key, e.value->>0, e.value->>1, ?2, {data} "
    "from item, json_each(item.events) as e"
)
INSERT = _INSERT.format(data="e.value->>2")
# Long ones travel beside the text, end to end, and the text says where each begins: 16 KiB of output inside it would
# be escaped, read, unescaped (113 µs an event, and 57 so); for 40 bytes the text is the quicker (3.0 µs, and 3.8 so).
INSERT_LONG = _INSERT.format(data="cast(substr(?3, e.value->>2, e.value->>3) as text)")
# The words of runs stand end to end beside the text, as those of long events do.
INSERT_WORDS = (
    "insert into runs (words) select cast(substr(?2, value->>6, value->>7) as text) from json_each(?1) order by key"
)
# SQLite numbers the rows of one insert one after the other, each one more than the highest there is; `events` has no
# such numbers, so the last one given stays that of the last words.
INSERT_RUNS = (
    f"insert into events ({rows.EVENT_COLUMNS}, run_id, run_bytes, run_length) "
    "select value->>0, value->>1, value->>2, value->>3, value->>4, value->>5, ?2, '', "
    "last_insert_rowid() - ?3 + 1 + key, value->>7, value->>8 from json_each(?1)"
)
RUN_EVENTS: Final = 100  # in a row at most: who begins within it reads the others in vain; the gain is had by then
LONG_BYTES: Final = 512  # on average
TEXT_BYTES: Final = 1 << 20  # of rows handed to one insert: bounds what a group needs twice in memory

Placed = tuple[AppendItem, Appended]


class Appends:
    """Mixed into the store: needs `_c` and the group's clocks."""

    _c: Any

    def append_in_transaction(self, item: AppendItem, wall_ms: int, service_ms: int) -> AppendResult:
        """One item, in its caller's savepoint `item`."""
        done = self.append_together((item,), wall_ms, service_ms)
        if done is not None:
            return done[0]
        self._c.execute("rollback to item")
        refused = self._why(item)
        if isinstance(refused, AppendRefused):
            return refused
        # Some leading records stand already (a replay after a lost ack): the rest applies.
        done = self.append_together((_without_leading(item, refused),), wall_ms, service_ms)
        assert done is not None, "the same transaction read it a moment ago"
        return replace(done[0], skipped=refused.skip)

    def append_together(self, items: Sequence[AppendItem], wall_ms: int, service_ms: int) -> list[Appended] | None:
        """All of them, or None and the caller rolls back to its savepoint. The items are of different sessions."""
        c, one = self._c, len(items) == 1
        sessions, executions = FENCE_ONE if one else FENCE_MANY
        wanted = [_wanted(item) for item in items]
        values: dict[str, Any] = {"wall": wall_ms, "service": service_ms}
        values |= dict(zip(_COLUMNS, wanted[0], strict=True)) if one else {"items": _text(wanted)}
        owned = c.execute(sessions, values).fetchall()
        if len(owned) != len(items) or c.execute(executions, values).rowcount != len(items):
            return None
        second = _whole_second(wall_ms)
        if quiet := [sid for sid, _, active_at in owned if active_at < second]:
            c.execute(ACTIVE, {"second": second, "sids": _text(quiet)})
        heads = {sid: last_seq for sid, last_seq, _ in owned}
        done = [_appended(item, heads[item.session_id]) for item in items]
        runs: list[Placed] = []
        others: list[Placed] = []
        for placed_one in zip(items, done, strict=True):
            (runs if _makes_runs(placed_one[0].events) else others).append(placed_one)
        for placed, _, _ in _portions(runs):
            text, words, n = _in_runs(placed)
            c.execute(INSERT_WORDS, (text, words))
            c.execute(INSERT_RUNS, (text, wall_ms, n))
        for placed, size, n in _portions(others):
            if n == 1:
                item, at = placed[0]
                event = item.events[0]
                c.execute(
                    rows.INSERT_EVENT,
                    (item.session_id, at.first_seq, item.execution_id, item.first, *event[:2], wall_ms, event.data),
                )
            elif size < n * LONG_BYTES:
                c.execute(INSERT, (_within(placed), wall_ms))
            else:
                text, bodies = _beside(placed)
                c.execute(INSERT_LONG, (text, wall_ms, bodies))
        return done

    def _why(self, item: AppendItem) -> AppendRefused | Apply:
        columns = ", ".join(rows.SESSION_COLUMNS)
        row = self._c.execute(f"select {columns} from sessions where id = ?", (item.session_id,)).fetchone()
        s = rows.session(row) if row else None
        if s is None or s.link != "connected" or s.connection_epoch != item.epoch:
            return AppendRefused("fenced", close_code=fenced_by(s, item.instance_id).code)
        found = self._c.execute(
            "select status, acked_seq from executions where session_id = ? and id = ?",
            (item.session_id, item.execution_id),
        ).fetchone()
        if found is None or found[0] == "queued":
            return AppendRefused("unknown_execution")
        status, acked = found
        if status == "pending":
            return AppendRefused("not_started", expected_seq=1)
        covered = cover(acked, item.first, item.first + item.covers - 1)
        if isinstance(covered, Again):
            return AppendRefused("duplicate", acked_seq=acked)
        if status != "running":
            return AppendRefused("terminal", acked_seq=acked)
        if isinstance(covered, Gap):
            return AppendRefused("gap", expected_seq=covered.expected, acked_seq=acked)
        return covered


def _without_leading(item: AppendItem, rest: Apply) -> AppendItem:
    covers = item.covers - rest.skip
    if len(item.events) == item.covers:
        return replace(item, first=rest.first, covers=covers, events=item.events[rest.skip :])
    gap = item.events[0]  # one event that covers a range: the part that we have is no gap
    data = json.loads(gap.data) | {"from_seq": rest.first}
    return replace(item, first=rest.first, covers=covers, events=(EncodedEvent(gap.type, gap.ts_ms, rows.dumps(data)),))


def _whole_second(wall_ms: int) -> int:
    # The list of sessions is ordered by activity, and its index need not move for every group.
    return wall_ms - wall_ms % 1000


def _wanted(item: AppendItem) -> tuple[str | int, ...]:
    """_COLUMNS: what must stand there, and what it becomes."""
    before = item.first - 1
    return item.session_id, item.epoch, len(item.events), item.execution_id, before, before + item.covers


def _appended(item: AppendItem, last_seq: int) -> Appended:
    n = len(item.events)
    return Appended(last_seq - n + 1, n, item.first + item.covers - 1)


def _text(rows_: Sequence[Any]) -> str:
    return orjson.dumps(rows_).decode()


def _makes_runs(events: Sequence[EncodedEvent]) -> bool:
    """Several short ones. Of long ones the bytes are what costs, not the rows."""
    n = len(events)
    return n > 1 and sum([len(e.data) for e in events]) < n * LONG_BYTES


def _portions(placed: Iterable[Placed]) -> Iterator[tuple[list[Placed], int, int]]:
    """The items with their places, in portions of about TEXT_BYTES; characters and events of each."""
    held: list[Placed] = []
    size = n = 0
    for one in placed:
        held.append(one)
        size += sum([len(e.data) for e in one[0].events])
        n += len(one[0].events)
        if size >= TEXT_BYTES:
            yield held, size, n
            held, size, n = [], 0, 0
    if held:
        yield held, size, n


def _row(item: AppendItem, at: Appended, events: list[Any]) -> tuple[Any, ...]:
    return item.session_id, at.first_seq, item.execution_id, item.first, events


def _within(placed: Sequence[Placed]) -> str:
    return _text([_row(item, at, [(e.type, e.ts_ms, e.data) for e in item.events]) for item, at in placed])


def _beside(placed: Sequence[Placed]) -> tuple[str, bytes]:
    """The rows with the place and the length of each body, and the bodies."""
    rows_: list[Any] = []
    bodies: list[bytes] = []
    begins = 1  # as SQL counts
    for item, at in placed:
        events: list[tuple[str, int, int, int]] = []
        for e in item.events:
            bodies.append(body := e.data.encode())
            events.append((e.type, e.ts_ms, begins, len(body)))
            begins += len(body)
        rows_.append(_row(item, at, events))
    return _text(rows_), b"".join(bodies)


def _in_runs(placed: Sequence[Placed]) -> tuple[str, bytes, int]:
    """The rows of runs, each with the place and the length of its words; the words; how many rows."""
    rows_: list[Any] = []
    bodies: list[bytes] = []
    begins = 1
    for item, at in placed:
        ahead = item.first - at.first_seq
        for k in range(0, len(item.events), RUN_EVENTS):
            events = item.events[k : k + RUN_EVENTS]
            n, seq = len(events), at.first_seq + k
            last, type_, lines = seq + n - 1, *rows.run(seq, item.execution_id, seq + ahead, events)
            size = len(lines)
            place = (begins, size, n)
            rows_.append((item.session_id, last, item.execution_id, last + ahead, type_, events[-1].ts_ms, *place))
            bodies.append(lines)
            begins += size
    return _text(rows_), b"".join(bodies), len(rows_)
