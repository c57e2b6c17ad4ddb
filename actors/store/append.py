"""The data path in SQL: the items of a group, fenced inside their statements (DESIGN §1, the append fence).

(1) the session must be owned by this very connection epoch, (2) the execution must be running and stand exactly before
this range; zero rows in either refuses the item, and one read tells why. The caller gives each item a savepoint.

Neighbours of different sessions are tried together first, the same three statements over all of them (ADR 8): each
statement gives the GIL away once, so a group costs a handful of hand-overs and not a handful per record. One row less
than asked for in (1) or (2) undoes them all, and they are taken one by one.
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

FENCE_SESSION = (
    "update sessions set last_seq = last_seq + ?, updated_at_ms = ? "
    "where id = ? and connection_epoch = ? and link = 'connected' returning last_seq"
)
FENCE_EXECUTION = (
    "update executions set acked_seq = ?, last_progress_service_ms = ?, last_progress_at_ms = ? "
    "where session_id = ? and id = ? and status = 'running' and acked_seq = ?"
)
# The items as one JSON text: the statement reads it without the GIL, while the event loop works. The common table is
# materialized so that what an item's events share is taken out of the text once.
INSERT = (
    "with item as materialized (select value->>0 as sid, value->>1 as seq, value->>2 as eid, value->>3 as number, "
    "value->'$[4]' as events from json_each(?1)) "
    "insert into events select sid, seq + e.key, eid, number + e.key, e.value->>0, e.value->>1, ?2, e.value->>2 "
    "from item, json_each(item.events) as e"
)
FENCE_SESSIONS = (
    "update sessions set last_seq = last_seq + wanted.n, updated_at_ms = ?2 "
    "from (select value->>0 as id, value->>1 as epoch, value->>2 as n from json_each(?1)) as wanted "
    "where sessions.id = wanted.id and connection_epoch = wanted.epoch and link = 'connected' "
    "returning sessions.id, last_seq"
)
FENCE_EXECUTIONS = (
    "update executions set acked_seq = wanted.upto, last_progress_service_ms = ?2, last_progress_at_ms = ?3 "
    "from (select value->>0 as sid, value->>1 as eid, value->>2 as upto, value->>3 as before from json_each(?1)) "
    "as wanted where executions.session_id = wanted.sid and executions.id = wanted.eid and status = 'running' "
    "and acked_seq = wanted.before"
)
TEXT_BYTES: Final = 1 << 20  # of rows handed to one insert: bounds what a group needs twice in memory


class Appends:
    """Mixed into the store: needs `_c` and the group's clocks."""

    _c: Any

    def append_in_transaction(self, item: AppendItem, wall_ms: int, service_ms: int) -> AppendResult:
        result = self._append(item, wall_ms, service_ms)
        if isinstance(result, Appended):
            return result
        self._c.execute("rollback to item")
        refused = self._why(item)
        if isinstance(refused, AppendRefused):
            return refused
        # Some leading records stand already (a replay after a lost ack): the rest applies.
        result = self._append(_without_leading(item, refused), wall_ms, service_ms)
        assert isinstance(result, Appended), "the same transaction read it a moment ago"
        return replace(result, skipped=refused.skip)

    def append_together(self, items: Sequence[AppendItem], wall_ms: int, service_ms: int) -> list[Appended] | None:
        """All of them, or None and the caller rolls back to its savepoint. The items are of different sessions."""
        c = self._c
        fences = [(item.session_id, item.epoch, len(item.events)) for item in items]
        heads = dict(c.execute(FENCE_SESSIONS, (_text(fences), _whole_second(wall_ms))).fetchall())
        if len(heads) == len(items):
            ranges = [(i.session_id, i.execution_id, i.first + i.covers - 1, i.first - 1) for i in items]
            if c.execute(FENCE_EXECUTIONS, (_text(ranges), service_ms, wall_ms)).rowcount == len(items):
                done = [_appended(item, heads[item.session_id]) for item in items]
                for text in _texts(zip(items, done, strict=True)):
                    c.execute(INSERT, (text, wall_ms))
                return done
        return None

    def _append(self, item: AppendItem, wall_ms: int, service_ms: int) -> Appended | None:
        c, n = self._c, len(item.events)
        row = c.execute(FENCE_SESSION, (n, _whole_second(wall_ms), item.session_id, item.epoch)).fetchall()
        if not row:
            return None
        last = item.first + item.covers - 1
        fenced = c.execute(
            FENCE_EXECUTION, (last, service_ms, wall_ms, item.session_id, item.execution_id, item.first - 1)
        )
        if fenced.rowcount != 1:
            return None
        done = _appended(item, row[0][0])
        for text in _texts([(item, done)]):
            c.execute(INSERT, (text, wall_ms))
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


def _appended(item: AppendItem, last_seq: int) -> Appended:
    n = len(item.events)
    return Appended(last_seq - n + 1, n, item.first + item.covers - 1)


def _text(rows_: Sequence[Any]) -> str:
    return orjson.dumps(rows_).decode()


def _texts(placed: Iterable[tuple[AppendItem, Appended]]) -> Iterator[str]:
    """The items with their places, in texts of about TEXT_BYTES."""
    held: list[tuple[str, int, str, int, list[tuple[str, int, str]]]] = []
    size = 0
    for item, at in placed:
        events = [(e.type, e.ts_ms, e.data) for e in item.events]
        held.append((item.session_id, at.first_seq, item.execution_id, item.first, events))
        size += sum([len(e.data) for e in item.events])
        if size >= TEXT_BYTES:
            yield _text(held)
            held, size = [], 0
    if held:
        yield _text(held)
