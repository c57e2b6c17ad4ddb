"""A session's log, read page by page: as rows for whoever chooses among them, or as one text ready for the wire.

A row of `events` is one event in columns, or a run of them as the wire spells them (ADR 11); its seq is that of the
last one. A page may begin within a run and, where it counts events exactly, end within one: it is cut at the lines.
The newest few of a session that is being written to stand in `fresh`, behind all that is in `events` (ADR 12).
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from itertools import chain
from typing import Any, Final, NamedTuple

from actors.protocol.errors import HoldfastError
from actors.store import rows
from actors.store.contract import Page, Spelled
from actors.store.expect import expect
from actors.store.hot import FRESH, text
from actors.store.reads import Reads

_RANGE: Final = "from events where session_id = ? and seq > ? and seq <= ?"
_SIZE: Final = "octet_length(data) + run_bytes"  # as they are sent: those of a run, or those that a frame has lost
_BYTES: Final = f"select sum({_SIZE}) {_RANGE}"
_NEXT: Final = "select min(seq) from events where session_id = ? and seq > ?"
_FITTING: Final = (
    "select coalesce(max(seq) filter (where upto <= ?), min(seq)) "
    f"from (select seq, sum({_SIZE}) over (order by seq) as upto {_RANGE})"
)
_WORDS: Final = "(select words from runs where id = run_id)"
# The inner order is kept: SQLite drops it only for aggregates that cannot tell. `type` is that of the last row.
_SPELLED: Final = (
    "select max(seq), type, cast(group_concat(words, char(10)) as blob) "
    f"from (select seq, type, iif(run_length, {_WORDS}, {rows.FRAGMENT_SQL}) as words {_RANGE} order by seq)"
)

Found = tuple[int, str | None, str, str]  # seq, execution_id, type, fragment


class Head(NamedTuple):
    """Of a log. fresh: how many of its events stand in `fresh`, newest: the number of the last of them there."""

    stream_id: str
    first_seq: int
    last_seq: int
    fresh: int
    newest: int | None

    @property
    def settled_seq(self) -> int:
        """Of the last one that is in `events`."""
        return self.last_seq - self.fresh


class Asked(NamedTuple):
    """before: a page of the newest that stand before it, from its end on."""

    after: int
    before: int | None
    types: frozenset[str]

    def wants(self, row: tuple[Any, ...], execution_id: str | None) -> bool:
        """A row of one event."""
        seq, of, _, type_, *_ = row
        return (
            seq > self.after
            and (self.before is None or seq < self.before)
            and (not self.types or type_ in self.types)
            and execution_id in (None, of)
        )


class Replay(Reads):
    """Mixed into the store."""

    def page(
        self,
        session_id: str,
        after_seq: int,
        limit: int,
        *,
        before_seq: int | None = None,
        types: tuple[str, ...] = (),
        execution_id: str | None = None,
        max_bytes: int = 1 << 20,
    ) -> Page:
        where, values = ["session_id = ?", "seq > ?"], [session_id, after_seq]
        if before_seq is not None:  # within the last run there may be some that stand before it
            where += ["seq < ?", f"{rows.FIRST_SQL} < ?"]
            values += [before_seq + rows.RUN_EVENTS, before_seq]
        if types:
            among = " or ".join(["instr(type, ?)"] * len(types))
            where.append(f"(type in ({', '.join('?' * len(types))}) or (run_length and ({among})))")
            values += [*types, *(f" {type} " for type in types)]
        if execution_id is not None:
            where.append("execution_id = ?")
            values.append(execution_id)
        order = "desc" if before_seq is not None else "asc"
        sql = (
            f"select seq, execution_id, exec_seq, type, ts_ms, iif(run_length, {_WORDS}, {rows.DATA_SQL}), run_length "
            f"from events where {' and '.join(where)} order by seq {order}"
        )
        asked = Asked(after_seq, before_seq, frozenset(types))
        with self._snapshot() as c:
            head = self._head(session_id)
            fresh = [row for row in self._fresh(head) if asked.wants(row, execution_id)]
            with closing(c.execute(sql, values)) as settled:
                found = chain(settled, fresh) if before_seq is None else chain(reversed(fresh), settled)
                kept, full = _taken(found, asked, limit, max_bytes)
        if before_seq is not None:
            kept.reverse()
        seqs, execution_ids, types_, fragments = zip(*kept, strict=True) if kept else ((),) * 4
        return Page(
            stream_id=head.stream_id,
            first_seq=head.first_seq,
            last_seq=head.last_seq,
            seqs=seqs,
            types=types_,
            execution_ids=execution_ids,
            fragments=fragments,
            scanned_to=seqs[-1] if full and kept else head.last_seq,
        )

    def spelled(self, session_id: str, after_seq: int, limit: int, *, max_bytes: int = 1 << 20) -> Spelled:
        """SQLite joins the words in one step, without the interpreter's lock: half the cost of rows (performance.md).
        The range is bounded by numbers, and by bytes before any of them is read: one row comes in any case."""
        with self._snapshot() as c:
            head = self._head(session_id)
            if head.fresh and after_seq >= head.settled_seq:
                return _of_fresh(head, self._fresh(head), after_seq, limit, max_bytes)
            upto = min(after_seq + limit, head.settled_seq)
            size = c.execute(_BYTES, (session_id, after_seq, upto)).fetchone()[0]
            if size is None:  # nothing ends there: a run that is longer, or the end of the log
                upto = c.execute(_NEXT, (session_id, after_seq)).fetchone()[0] or upto
            elif size > max_bytes:
                upto = c.execute(_FITTING, (max_bytes, session_id, after_seq, upto)).fetchone()[0]
            last, type_, lines = c.execute(_SPELLED, (session_id, after_seq, upto)).fetchone()
        return Spelled(
            *head[:3],
            last_type=rows.last_type(type_) if type_ else None,
            joined=_after(lines, after_seq).replace(b"\n", b",") if lines else b"",
            scanned_to=last or upto,
        )

    def _head(self, session_id: str) -> Head:
        """Raises session_not_found."""
        found = self._c.execute(
            "select stream_id, first_seq, coalesce(hot.last_seq, sessions.last_seq), coalesce(fresh, 0), head "
            "from sessions left join hot on hot.session_id = sessions.id where sessions.id = ?",
            (session_id,),
        ).fetchone()
        if found is None:
            raise HoldfastError("session_not_found")
        return Head(*found)

    def _fresh(self, head: Head) -> list[tuple[Any, ...]]:
        """As `page` reads rows of one event."""
        if head.newest is None:
            return []
        found = [(*row, 0) for row in self._c.execute(FRESH, (text([head.newest]),)).fetchall()]
        expect(len(found) == head.fresh, "the fresh events of a session are not all there")
        return found


def _of_fresh(head: Head, fresh: Iterable[tuple[Any, ...]], after_seq: int, limit: int, max_bytes: int) -> Spelled:
    kept, _ = _taken(
        (row for row in fresh if row[0] > after_seq), Asked(after_seq, None, frozenset()), limit, max_bytes
    )
    last_type, scanned_to = (kept[-1][2], kept[-1][0]) if kept else (None, head.last_seq)
    words = ",".join([event[3] for event in kept]).encode()
    return Spelled(*head[:3], last_type=last_type, joined=words, scanned_to=scanned_to)


def _after(lines: bytes, after_seq: int) -> bytes:
    """Without those at the beginning that the cursor has passed."""
    first = int(lines[len(b'{"seq":') : lines.index(b",")])
    passed = after_seq + 1 - first
    return lines.split(b"\n", passed)[passed] if passed > 0 else lines


def _taken(found: Iterable[tuple[Any, ...]], asked: Asked, limit: int, max_bytes: int) -> tuple[list[Found], bool]:
    """Events up to so many and so many bytes, the first in any case; and whether one of the limits was met."""
    kept: list[Found] = []
    size = 0
    for seq, execution_id, exec_seq, type_, ts_ms, data, run_length in found:
        if run_length:
            kept += (run := _of_run(seq, execution_id, type_, data, run_length, asked))
            size += sum([len(event[3]) for event in run])
        else:
            kept.append((seq, execution_id, type_, rows.fragment(seq, execution_id, exec_seq, type_, ts_ms, data)))
            size += len(data)
        if len(kept) >= limit or size > max_bytes:
            return (kept if size <= max_bytes else _fitting(kept, max_bytes))[:limit], True
    return kept, False


def _of_run(seq: int, execution_id: str | None, type_: str, words: str, run_length: int, asked: Asked) -> list[Found]:
    """Those that are asked for, in the order that is asked for."""
    lines, one = words.split("\n"), type_.strip()
    kinds = [rows.type_of(line) for line in lines] if " " in one else [one] * run_length
    run = [
        (n, execution_id, kind, line)
        for n, kind, line in zip(range(seq + 1 - run_length, seq + 1), kinds, lines, strict=True)
        if n > asked.after and (asked.before is None or n < asked.before) and (not asked.types or kind in asked.types)
    ]
    return run if asked.before is None else run[::-1]


def _fitting(kept: list[Found], max_bytes: int) -> list[Found]:
    size = 0
    for n, event in enumerate(kept):
        size += len(event[3])
        if n and size > max_bytes:
            return kept[:n]
    return kept
