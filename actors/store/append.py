"""The data path in SQL: the items of a group, fenced inside their statements (DESIGN §1, the append fence).

The session must be owned by this very connection epoch, and the execution must be running and stand exactly before this
range; zero rows refuses the item, and one read tells why. The caller gives each item a savepoint.

Neighbours of different sessions are tried together first, the same statements over all of them (ADR 8): each statement
gives the GIL away once, so a group costs a handful of hand-overs and not a handful per record. One row less than asked
for undoes them all, and they are taken one by one, each by the same statements.
All that an append moves is one small row of its session (hot.py, ADR 12). The row is made by a statement that holds the
whole fence, and it stands as long as nobody decides anything: its epoch and its execution are what is left to compare.
A few short events wait in `fresh` for more of their kind. Many at once are stored as runs, a row each of as many as
RUN_EVENTS, spelled for the wire (ADR 11): an insert and a replay then cost by the rows. Long ones have their own rows.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any, Final, NamedTuple

import orjson

from actors.law.delivery import Again, Apply, Gap, cover
from actors.law.execution import fenced_by
from actors.store import rows
from actors.store.compressed import Compressor, Kept
from actors.store.contract import Appended, AppendItem, AppendRefused, AppendResult, EncodedEvent
from actors.store.hot import FRESH_EVENTS, FRESH_MOST, FRESH_SPAN_MS, SWEEP_ROWS, Hot, Run, text, within_pace
from actors.store.rows import RUN_EVENTS

# The fence, in one place: what is wanted is the columns of a table, or the parameters of the only item there is (a join
# needs a table of its own inside SQLite; for one item, the most frequent group, that would cost 55 µs of 350).
_OWNED = "sessions.id = {of}sid and connection_epoch = {of}epoch and link = 'connected'"
_EXACTLY_BEFORE = (
    "executions.session_id = {of}sid and executions.id = {of}eid and status = 'running' and acked_seq = {of}before"
)
_HOT = (
    "insert into hot {wanted} select sessions.id, connection_epoch, executions.id, last_seq, acked_seq, "
    "0, 0, 0, null, null, null, 0, 0 "  # its clocks are those of the append that follows, and so is its activity
    f"from {{from_wanted}} sessions join executions on {_EXACTLY_BEFORE} where {_OWNED} "
    "and not exists (select 1 from hot where hot.session_id = {of}sid)"
)
# rank: how many events wait in this group up to this item's last; 0 for an item that does not. Those that have waited
# longer than a run may last, or before an item that does not wait, have ended.
_GOES_ON = f"{{of}}rank and :wall - since_ms between 0 and {FRESH_SPAN_MS}"
_APPEND = (
    "update hot set last_seq = last_seq + {of}n, acked_seq = {of}upto, progress_service_ms = :service, "
    "earlier_at_ms = progress_at_ms, progress_at_ms = :wall, "
    f"prior = iif({_GOES_ON}, head, null), ended = iif({_GOES_ON}, null, head), "
    "head = iif({of}rank, (select coalesce(max(f.n), 0) from fresh as f) + {of}rank, null), "
    f"fresh = iif({{of}}rank, iif({_GOES_ON}, fresh, 0) + {{of}}n, 0), "
    f"since_ms = iif(fresh and {_GOES_ON}, since_ms, :wall) {{from_wanted}} "
    "where hot.session_id = {of}sid and hot.epoch = {of}epoch and hot.execution_id = {of}eid "
    "and hot.acked_seq = {of}before "
)
_MOVED = "last_seq, earlier_at_ms, prior, head, ended, fresh"  # of class _Moved
# As one text: a row each would be a hand-over of the interpreter each.
MOVED_MANY = (
    f"select json_group_array(json_array({_MOVED})) "
    "from json_each(?) as sid cross join hot on hot.session_id = sid.value"
)
# By itself, and once a second: SQLite takes out and puts in the index entry of a column that a statement sets, also
# where its value stays. That was a third of what the fence of a session cost, and a page of each commit.
ACTIVE = (
    "update sessions set updated_at_ms = :second "
    "where id in (select value from json_each(:sids)) and updated_at_ms < :second"
)
_COLUMNS = ("sid", "epoch", "n", "eid", "before", "upto", "rank")  # of `_wanted`
# The items as one JSON text: the statement reads it without the GIL, while the event loop works. `jsonb_each` hands on
# what it has parsed, and a materialized table is parsed once for each of its columns, however often they are named:
# 2.3 µs a row, where `json_each` and a plain subquery take 6.5.
# (The standard library's rowcount knows no statement that begins with `with`.)
_WANTED = (
    f"with wanted as materialized (select {', '.join(f'value->>{k} as {name}' for k, name in enumerate(_COLUMNS))} "
    "from jsonb_each(:items))"
)
FENCE_ONE = (
    _HOT.format(of=":", wanted="", from_wanted=""),
    f"{_APPEND.format(of=':', from_wanted='')} returning {_MOVED}",
)
FENCE_MANY = (
    _HOT.format(of="wanted.", wanted=_WANTED, from_wanted="wanted join"),
    _APPEND.format(of="wanted.", from_wanted=f"from ({_WANTED} select * from wanted) as wanted"),
)
INSERT_FRESH = (
    f"insert into fresh (n, prior, {rows.EVENT_COLUMNS}) "
    f"select {', '.join(f'value->>{k}' for k in range(8))}, ?2, value->>8 from jsonb_each(?1)"
)
INSERT_FRESH_ONE = f"insert into fresh (n, prior, {rows.EVENT_COLUMNS}) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
# Long events are parameters, a power of two of rows at a time: inside a text 16 KiB of output would be escaped, read
# and unescaped, and in one blob beside it copied four times more. One statement for many of them all the same, because
# the interpreter is handed over once for each.
_LONG_COLUMNS: Final = f"{rows.EVENT_COLUMNS}, run_bytes"
LONG_COLUMNS: Final = _LONG_COLUMNS.count(",") + 1
_LONG = f"({', '.join('?' * LONG_COLUMNS)})"
INSERT_LONG = {
    n: f"insert into events ({_LONG_COLUMNS}) values {', '.join([_LONG] * n)}" for n in (128, 64, 32, 16, 8, 4, 2, 1)
}
LONG_BYTES: Final = 512  # on average
FEW_EVENTS: Final = 8  # of one item: fewer wait for more of their kind, as many are a run
TEXT_BYTES: Final = 1 << 20  # of rows handed to one insert: bounds what a group needs twice in memory

Placed = tuple[AppendItem, Appended]


class _Moved(NamedTuple):
    """A row of `hot` after its append."""

    last_seq: int
    earlier_at_ms: int
    prior: int | None
    head: int | None
    ended: int | None
    fresh: int


class Appends(Hot):
    """Mixed into the store: needs `_c` and the group's clocks."""

    _compressor: Compressor
    _frames: dict[int, list[Kept]]  # of the group's long items, by the id of each

    @contextmanager
    def compressed(self, jobs: Iterable[object]) -> Iterator[None]:
        """What is long among the items, before their transaction is opened: no other writer waits for that."""
        try:
            for job in jobs:
                if isinstance(job, AppendItem) and _long(job.events):
                    with suppress(UnicodeEncodeError):  # its insert says so, and takes nobody else of the group along
                        self._frames[id(job)] = self._as_kept(job)
            yield
        finally:
            self._frames = {}  # an id is given again as soon as its item is gone

    def _as_kept(self, item: AppendItem) -> list[Kept]:
        return list(self._compressor.frames([data for _, _, data in item.events]))

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
        moved = (
            self._one_moved(items[0], wall_ms, service_ms)
            if len(items) == 1
            else self._moved(items, wall_ms, service_ms)
        )
        if moved is None:
            return None
        second = _whole_second(wall_ms)
        if quiet := [item.session_id for item, row in zip(items, moved, strict=True) if row.earlier_at_ms < second]:
            self._c.execute(ACTIVE, {"second": second, "sids": text(quiet)})
        done: list[Appended] = []
        waiting: list[tuple[AppendItem, Appended, _Moved]] = []
        runs: list[Placed] = []
        long: list[Placed] = []
        full: list[tuple[int, str, int]] = []
        for item, row in zip(items, moved, strict=True):
            done.append(at := _appended(item, row.last_seq))
            if row.head is not None:
                waiting.append((item, at, row))
                if row.fresh >= FRESH_EVENTS:
                    full.append((row.fresh, item.session_id, row.head))
            else:
                (long if _long(item.events) else runs).append((item, at))
        written = self._write_fresh(waiting, wall_ms) if waiting else (0, 0)
        if ended := [row.ended for row in moved if row.ended is not None]:
            self.pack(ended)
        if full:
            now = _at_once(full, sum([len(item.events) for item, _, _ in waiting]))
            self.pack([head for _, _, head in now], [session_id for _, session_id, _ in now])
        for placed in _portions(runs):
            self.write_runs([run for item, at in placed for run in _in_runs(item, at, wall_ms)])
        for placed in _portions(long):
            self._write_long(placed, wall_ms)
        self._sweep(*written)
        return done

    def _one_moved(self, item: AppendItem, wall_ms: int, service_ms: int) -> list[_Moved] | None:
        heated, appended = FENCE_ONE
        values = dict(zip(_COLUMNS, _wanted([item])[0], strict=True)) | {"wall": wall_ms, "service": service_ms}
        for attempt in range(2):
            if attempt and not self._c.execute(heated, values).rowcount:
                break
            if found := self._c.execute(appended, values).fetchall():
                return [_Moved(*found[0])]
        return None

    def _moved(self, items: Sequence[AppendItem], wall_ms: int, service_ms: int) -> list[_Moved] | None:
        """The rows of `hot`, each moved by its item; None if one of them is not as it must be."""
        c, (heated, appended) = self._c, FENCE_MANY
        values = {"items": text(_wanted(items)), "wall": wall_ms, "service": service_ms}
        n = c.execute(appended, values).rowcount
        if n < len(items):  # most often: their rows are still to be made. Who has moved does not move again
            if not c.execute(heated, values).rowcount:
                return None
            n += c.execute(appended, values).rowcount
        if n < len(items):
            return None
        (found,) = c.execute(MOVED_MANY, (text([item.session_id for item in items]),)).fetchone()
        return [_Moved(*row) for row in orjson.loads(found)]

    def _write_fresh(self, waiting: Sequence[tuple[AppendItem, Appended, _Moved]], wall_ms: int) -> tuple[int, int]:
        """The first number that was given, and the last."""
        first = newest = 0
        table: list[tuple[Any, ...]] = []
        for item, at, row in waiting:
            assert row.head is not None
            newest, prior = row.head, row.prior
            sid, eid, seq, exec_seq = item.session_id, item.execution_id, at.first_seq, item.first
            n = newest - len(item.events) + 1
            first = first or n
            for type_, ts_ms, data in item.events:
                table.append((n, prior, sid, seq, eid, exec_seq, type_, ts_ms, data))
                n, prior, seq, exec_seq = n + 1, n, seq + 1, exec_seq + 1
        if len(table) == 1:
            self._c.execute(INSERT_FRESH_ONE, (*table[0][:8], wall_ms, table[0][8]))
        else:
            self._c.execute(INSERT_FRESH, (text(table), wall_ms))
        return first, newest

    def _sweep(self, first: int, newest: int) -> None:
        """Last of all: nothing may be on its way from `fresh` to `events`. A quarter more than came, until it fits."""
        if newest // SWEEP_ROWS != (first - 1) // SWEEP_ROWS:
            self.sweep_fresh(limit=(newest - first + 1 + SWEEP_ROWS) * 5 // 4)

    def _write_long(self, placed: Sequence[Placed], wall_ms: int) -> None:
        values: list[Any] = []
        for item, at in placed:
            sid, eid, seq, exec_seq = item.session_id, item.execution_id, at.first_seq, item.first
            kept = self._frames.get(id(item)) or self._as_kept(item)
            for (type_, ts_ms, _), (data, lost) in zip(item.events, kept, strict=True):
                values += (sid, seq, eid, exec_seq, type_, ts_ms, wall_ms, data, lost)
                seq, exec_seq = seq + 1, exec_seq + 1
        begin, left = 0, len(values) // LONG_COLUMNS
        for n, sql in INSERT_LONG.items():
            while left >= n:
                end = begin + n * LONG_COLUMNS
                self._c.execute(sql, values[begin:end])
                begin, left = end, left - n

    def _why(self, item: AppendItem) -> AppendRefused | Apply:
        columns = ", ".join(rows.SESSION_COLUMNS)
        row = self._c.execute(f"select {columns} from sessions_now where id = ?", (item.session_id,)).fetchone()
        s = rows.session(row) if row else None
        if s is None or s.link != "connected" or s.connection_epoch != item.epoch:
            return AppendRefused("fenced", close_code=fenced_by(s, item.instance_id).code)
        found = self._c.execute(
            "select status, acked_seq from executions_now where session_id = ? and id = ?",
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


def _wanted(items: Sequence[AppendItem]) -> list[tuple[str | int, ...]]:
    """_COLUMNS of each: what must stand there, and what it becomes."""
    found: list[tuple[str | int, ...]] = []
    ranked = 0
    for item in items:
        n, before = len(item.events), item.first - 1
        rank = 0
        if n < FEW_EVENTS and not _long(item.events):
            rank = ranked = ranked + n
        found.append((item.session_id, item.epoch, n, item.execution_id, before, before + item.covers, rank))
    return found


def _appended(item: AppendItem, last_seq: int) -> Appended:
    n = len(item.events)
    return Appended(last_seq - n + 1, n, item.first + item.covers - 1)


def _long(events: Sequence[EncodedEvent]) -> bool:
    """Of long ones the bytes are what costs, not the rows."""
    return sum([len(e.data) for e in events]) >= len(events) * LONG_BYTES


def _at_once(full: list[tuple[int, str, int]], events: int) -> list[tuple[int, str, int]]:
    """Who of the full ones (how full, session, its newest) is packed beside so many events, the fullest first. The
    others are looked at again with their next event."""
    full.sort(reverse=True)
    taken = within_pace([fresh for fresh, _, _ in full], events)
    return [one for k, one in enumerate(full) if k < taken or one[0] >= FRESH_MOST]


def _portions(placed: Iterable[Placed]) -> Iterator[list[Placed]]:
    """The items with their places, in portions of about TEXT_BYTES."""
    held: list[Placed] = []
    size = 0
    for one in placed:
        held.append(one)
        size += sum([len(e.data) for e in one[0].events])
        if size >= TEXT_BYTES:
            yield held
            held, size = [], 0
    if held:
        yield held


def _in_runs(item: AppendItem, at: Appended, wall_ms: int) -> Iterator[Run]:
    ahead = item.first - at.first_seq
    at.words = words = rows.fragments(at.first_seq, item.execution_id, item.first, item.events)
    for k in range(0, len(item.events), RUN_EVENTS):
        events = item.events[k : k + RUN_EVENTS]
        n, seq = len(events), at.first_seq + k
        types, joined = rows.run(events, words[k : k + RUN_EVENTS])
        last, ts_ms = seq + n - 1, events[-1].ts_ms
        yield Run(item.session_id, last, item.execution_id, last + ahead, types, ts_ms, wall_ms, n, joined)
