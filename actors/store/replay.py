"""A session's log, read page by page: as rows for whoever chooses among them, or as one text ready for the wire."""

from __future__ import annotations

from itertools import starmap
from typing import Any, Final

from actors.protocol.errors import HoldfastError
from actors.store import rows
from actors.store.contract import Page, Spelled
from actors.store.reads import Reads

_RANGE: Final = "from events where session_id = ? and seq > ? and seq <= ?"
_BYTES: Final = f"select sum(octet_length(data)) {_RANGE}"
_FITTING: Final = (
    "select coalesce(max(seq) filter (where upto <= ?), min(seq)) "
    f"from (select seq, sum(octet_length(data)) over (order by seq) as upto {_RANGE})"
)
# The inner order is kept: SQLite drops it only for aggregates that cannot tell. `type` is that of the last row.
_SPELLED: Final = (
    "select max(seq), type, cast(group_concat(words, ',') as blob) "
    f"from (select seq, type, {rows.FRAGMENT_SQL} as words {_RANGE} order by seq)"
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
        if before_seq is not None:
            where.append("seq < ?")
            values.append(before_seq)
        if types:
            where.append(f"type in ({', '.join('?' * len(types))})")
            values += types
        if execution_id is not None:
            where.append("execution_id = ?")
            values.append(execution_id)
        order = "desc" if before_seq is not None else "asc"
        sql = (
            f"select seq, execution_id, exec_seq, type, ts_ms, data from events where {' and '.join(where)} "
            f"order by seq {order} limit ?"
        )
        with self._snapshot() as c:
            head = self._head(session_id)
            found = c.execute(sql, [*values, limit]).fetchall()
        kept = _within(found, max_bytes)
        full = len(found) == limit or len(kept) < len(found)
        if before_seq is not None:
            kept.reverse()
        seqs, execution_ids, _, types_, _, _ = zip(*kept, strict=True) if kept else ((),) * 6
        return Page(
            stream_id=head[0],
            first_seq=head[1],
            last_seq=head[2],
            seqs=seqs,
            types=types_,
            execution_ids=execution_ids,
            fragments=tuple(starmap(rows.fragment, kept)),
            scanned_to=seqs[-1] if full and kept else head[2],
        )

    def spelled(self, session_id: str, after_seq: int, limit: int, *, max_bytes: int = 1 << 20) -> Spelled:
        """SQLite joins the words in one step, without the interpreter's lock: half the cost of rows (performance.md).
        The range is bounded by numbers, and by bytes before any of them is read: one event comes in any case."""
        with self._snapshot() as c:
            head = self._head(session_id)
            upto = min(after_seq + limit, head[2])
            if (c.execute(_BYTES, (session_id, after_seq, upto)).fetchone()[0] or 0) > max_bytes:
                upto = c.execute(_FITTING, (max_bytes, session_id, after_seq, upto)).fetchone()[0]
            last, last_type, joined = c.execute(_SPELLED, (session_id, after_seq, upto)).fetchone()
        return Spelled(*head, last_type=last_type, joined=joined or b"", scanned_to=max(upto, last or 0))

    def _head(self, session_id: str) -> tuple[str, int, int]:
        """stream_id, first_seq, last_seq. Raises session_not_found."""
        found: tuple[str, int, int] | None = self._c.execute(
            "select stream_id, first_seq, last_seq from sessions where id = ?", (session_id,)
        ).fetchone()
        if found is None:
            raise HoldfastError("session_not_found")
        return found


def _within(found: list[tuple[Any, ...]], max_bytes: int) -> list[tuple[Any, ...]]:
    """Events up to so many bytes of data, and the first in any case."""
    if sum([len(row[5]) for row in found]) <= max_bytes:
        return found
    size = 0
    for n, row in enumerate(found):
        size += len(row[5])
        if n and size > max_bytes:
            return found[:n]
    return found
