"""What moves with each event stands apart, and is settled before anything is decided (ADR 12).

A session that is being written to has a row in `hot`: the few numbers that each append moves, a hundred bytes where the
rows of the session and of its execution are a thousand. Its newest short events stand in `fresh`, one behind the other
in the order of all sessions, and are *packed* into `events` as a run: when there are FRESH_EVENTS of them, when
something else of the session is written, or when `fresh` has become long. So a group of events of many sessions is
written into a handful of pages, and not into three of each session's own.

Two sentences hold at each commit. The newest `hot.fresh` events of a session stand in `fresh`, all others in `events`.
While the row stands, its connection owns the session and its execution is running: whoever decides settles first
(`settle`: everything back where it belongs, the row gone), and triggers refuse who forgets. Settling says nothing new
and may happen at any time. `sessions_now` and `executions_now` are the rows as if settled.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import orjson

from actors.store import rows
from actors.store.expect import expect

FRESH_EVENTS: Final = 32  # of a session: more saves few pages, and a reader at the end of the log walks through them
FRESH_SPAN_MS: Final = 60_000  # between the first and the last of them: retention takes a run whole, by its last event
FRESH_ROWS: Final = 16_384  # in all: about 4 MiB, a quarter of the page cache. The oldest go first
SWEEP_ROWS: Final = 256  # that many new ones, and the oldest are looked at; a bound for what a group pays
FRESH_KEEP_MS: Final = 600_000  # a pass of the janitor leaves nothing older: what was deleted elsewhere goes here too

# The newest of each session is given, and each says which stands before it.
_CHAIN: Final = (
    "with recursive chain(n, prior) as ("
    "select f.n, f.prior from json_each(?1) as newest join fresh as f on f.n = newest.value "
    "union all select f.n, f.prior from chain join fresh as f on f.n = chain.prior) "
)
_OF_CHAIN: Final = "from chain join fresh on fresh.n = chain.n"
FRESH: Final = f"{_CHAIN} select seq, execution_id, exec_seq, type, ts_ms, data {_OF_CHAIN} order by seq"
PACK_WORDS = (
    f"{_CHAIN} insert into runs (words) "
    f"select group_concat({rows.FRAGMENT_SQL}, char(10) order by seq) {_OF_CHAIN} "
    "group by session_id order by session_id"
)
# Beside the only max() the other columns are those of its row, the last. A chain that has no beginning is not whole.
# SQLite numbers the rows of one insert one after the other, each one more than the highest there is; `events` has no
# such numbers, so the last one given stays that of the last words.
PACK_RUNS = (
    f"{_CHAIN}, packed as (select session_id, max(seq) as seq, execution_id, exec_seq, "
    "' ' || iif(count(distinct type) = 1, type, group_concat(type, ' ' order by seq)) || ' ' as types, ts_ms, "
    f"stored_at_ms, count(*) as length, row_number() over (order by session_id) as k {_OF_CHAIN} "
    "group by session_id having sum(fresh.prior is null) = 1) "
    f"insert into events ({rows.EVENT_COLUMNS}, run_id, run_bytes, run_length) "
    "select session_id, seq, execution_id, exec_seq, types, ts_ms, stored_at_ms, '', id, octet_length(words), length "
    "from packed join runs on id = last_insert_rowid() - ?2 + k"
)
_PACKED = "update hot set head = null, fresh = 0 where session_id in (select value from json_each(?))"
_NOT_YET = (
    "select distinct h.session_id, h.head from fresh as f join hot as h on h.session_id = f.session_id "
    "where f.n <= ? and f.seq > h.last_seq - h.fresh"
)


class Hot:
    """Mixed into the store: needs `_c`."""

    _c: Any

    def settle(self, session_id: str) -> None:
        """In an open transaction, before anything of the session is read or written that an append may have moved."""
        c = self._c
        found = c.execute(
            "delete from hot where session_id = ? "
            "returning head, last_seq, execution_id, acked_seq, progress_service_ms, progress_at_ms",
            (session_id,),
        ).fetchall()
        if not found:
            return
        head, last_seq, execution_id, acked_seq, service_ms, at_ms = found[0]
        if head is not None:
            self.pack([head])
        c.execute("update sessions set last_seq = ? where id = ?", (last_seq, session_id))
        # A heartbeat may have said later that the execution goes on.
        c.execute(
            "update executions set acked_seq = ?1, "
            "last_progress_at_ms = iif(last_progress_service_ms > ?2, last_progress_at_ms, ?3), "
            "last_progress_service_ms = max(last_progress_service_ms, ?2) where session_id = ?4 and id = ?5",
            (acked_seq, service_ms, at_ms, session_id, execution_id),
        )

    def pack(self, newest: Sequence[int], sessions: Sequence[str] = ()) -> None:
        """Into `events`, a run for each session, by the number of its newest; the caller says of which sessions the
        row in `hot` still names it."""
        heads, n = text(newest), len(newest)
        self._c.execute(PACK_WORDS, (heads,))
        written = self._c.execute(PACK_RUNS, (heads, n)).rowcount
        expect(written == n, f"of {n} sessions, only {written} have all their fresh events")
        if sessions:
            self._c.execute(_PACKED, (text(sessions),))

    def sweep_fresh(self, *, older_than_ms: int | None = None, limit: int = SWEEP_ROWS + SWEEP_ROWS // 4) -> int:
        """The oldest go: those beyond FRESH_ROWS, or those that are too old. A session that still has events among
        them gets all of its own into `events`. How many numbers were passed."""
        c = self._c
        first, newest = c.execute("select (select min(n) from fresh), (select max(n) from fresh)").fetchone()
        if first is None:
            return 0
        if older_than_ms is None:
            upto = min(first + limit - 1, newest - FRESH_ROWS)
        else:
            sql = "select max(n) from fresh where n < ? and stored_at_ms < ?"
            upto = c.execute(sql, (first + limit, older_than_ms)).fetchone()[0] or 0
        if upto < first:
            return 0
        if left := c.execute(_NOT_YET, (upto,)).fetchall():
            self.pack([head for _, head in left], [session_id for session_id, _ in left])
        c.execute("delete from fresh where n <= ?", (upto,))
        return int(upto - first + 1)


def text(values: Sequence[Any]) -> str:
    """As one JSON text: a statement reads it without the GIL, while the event loop works."""
    return orjson.dumps(values).decode()
