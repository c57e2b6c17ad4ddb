"""What moves with each event stands apart, and is settled before anything is decided (ADR 12).

A session that is being written to has a row in `hot`: the few numbers that each append moves, a hundred bytes where the
rows of the session and of its execution are a thousand. Its newest short events stand in `fresh`, one behind the other
in the order of all sessions, and are *packed* into `events` as a run: from FRESH_EVENTS of them on, when something else
of the session is written, or when `fresh` has become long. So a group of events of many sessions is
written into a handful of pages, and not into three of each session's own.

Two sentences hold at each commit. The newest `hot.fresh` events of a session stand in `fresh`, all others in `events`.
While the row stands, its connection owns the session and its execution is running: whoever decides settles first
(`settle`: everything back where it belongs, the row gone), and triggers refuse who forgets. Settling says nothing new
and may happen at any time. `sessions_now` and `executions_now` are the rows as if settled.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

import orjson

from actors.store import rows
from actors.store.expect import expect

FRESH_EVENTS: Final = 32  # of a session: more saves few pages, and a reader at the end of the log walks through them
# Sessions that began together are full together: 400 of them, packed in one group, held the writer for 60 to 160 ms.
# So a group packs one run and as many more as make so many times what it brings, the rest with their next events unless
# they have FRESH_MOST; after that their places are apart. Twice: all are done in half the time in which 32 more come.
# A sweep keeps to it, too: that is still more than comes, so `fresh` stays about as long as it may be.
PACK_PACE: Final = 2
FRESH_MOST: Final = 64  # with the seven that may come at once far below RUN_EVENTS, the longest run that readers expect
FRESH_SPAN_MS: Final = 60_000  # between the first and the last of them: retention takes a run whole, by its last event
FRESH_ROWS: Final = 16_384  # in all: about 4 MiB, a quarter of the page cache. The oldest go first
SWEEP_ROWS: Final = 256  # that many new ones, and the oldest are looked at
FRESH_KEEP_MS: Final = 600_000  # a pass of the janitor leaves nothing older: what was deleted elsewhere goes here too

# The newest of each session is given, and each says which stands before it.
_CHAIN: Final = (
    "with recursive chain(head, n, prior) as ("
    "select f.n, f.n, f.prior from json_each(?1) as newest join fresh as f on f.n = newest.value "
    "union all select head, f.n, f.prior from chain join fresh as f on f.n = chain.prior) "
)
FRESH: Final = (
    f"{_CHAIN} select seq, execution_id, exec_seq, type, ts_ms, data "
    "from chain join fresh on fresh.n = chain.n order by seq"
)
# A row for each chain, as `write_runs` takes it. One that has no beginning is not whole. As old as the youngest event:
# a clock may have been set back. The inner order is kept: SQLite drops it only for aggregates that cannot tell.
_AS_RUNS: Final = (
    f"{_CHAIN}, joined as (select head, cast(group_concat(spelled, char(10)) as blob) as words, count(*) as length, "
    "iif(min(type) = max(type), min(type), group_concat(type, ' ')) as types, max(stored_at_ms) as latest from ("
    f"select head, type, stored_at_ms, chain.prior is null as first, {rows.FRESH_FRAGMENT_SQL} as spelled "
    "from chain join fresh on fresh.n = chain.n order by head, seq) "
    "group by head having max(first)) "
    "select session_id, seq, execution_id, exec_seq, ' ' || types || ' ', ts_ms, latest, length, words "
    "from joined join fresh on fresh.n = joined.head"
)
# The words of runs stand end to end beside the text.
INSERT_WORDS = (
    "insert into runs (words) select cast(substr(?2, value->>8, value->>9) as text) from jsonb_each(?1) order by key"
)
# SQLite numbers the rows of one insert one after the other, each one more than the highest there is; `events` has no
# such numbers, so the last one given stays that of the last words.
INSERT_RUNS = (
    f"insert into events ({rows.EVENT_COLUMNS}, run_id, run_bytes, run_length) "
    "select value->>0, value->>1, value->>2, value->>3, value->>4, value->>5, value->>6, '', "
    "last_insert_rowid() - ?2 + 1 + key, value->>9, value->>7 from jsonb_each(?1)"
)
_PACKED = "update hot set head = null, fresh = 0 where session_id in (select value from json_each(?))"
_LEFT = "from fresh as f join hot as h on h.session_id = f.session_id where f.n <= ? and f.seq > h.last_seq - h.fresh"
_NOT_YET = f"select h.session_id, h.head, h.fresh, min(f.n) {_LEFT} group by h.session_id order by min(f.n)"
_FIRST_LEFT = f"select min(f.n) {_LEFT} and f.session_id in (select value from json_each(?))"


class Run(NamedTuple):
    """Events that follow each other in one execution; the columns are those of the last. words: one event a line."""

    session_id: str
    seq: int
    execution_id: str
    exec_seq: int
    types: str
    ts_ms: int
    stored_at_ms: int
    length: int
    words: bytes


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
        n = c.execute("update sessions set last_seq = ? where id = ?", (last_seq, session_id)).rowcount
        # A heartbeat may have said later that the execution goes on.
        n += c.execute(
            "update executions set acked_seq = ?1, "
            "last_progress_at_ms = iif(last_progress_service_ms > ?2, last_progress_at_ms, ?3), "
            "last_progress_service_ms = max(last_progress_service_ms, ?2) where session_id = ?4 and id = ?5",
            (acked_seq, service_ms, at_ms, session_id, execution_id),
        ).rowcount
        expect(n == 2, f"session {session_id} or its execution {execution_id} is gone while it was being written to")

    def pack(self, newest: Sequence[int], sessions: Sequence[str] = ()) -> None:
        """Into `events`, a run for each session, by the number of its newest; the caller says of which sessions the
        row in `hot` still names it."""
        runs = self._as_runs(newest)
        expect(len(runs) == len(newest), "the fresh events of a session are not all there")
        self.write_runs(runs)
        if sessions:
            self._c.execute(_PACKED, (text(sessions),))

    def _as_runs(self, newest: Sequence[int]) -> list[Run]:
        return [Run(*row) for row in self._c.execute(_AS_RUNS, (text(newest),)).fetchall()]

    def write_runs(self, runs: Iterable[Run]) -> None:
        table: list[Any] = []
        bodies: list[bytes] = []
        begins = 1  # as SQL counts
        for run in runs:
            table.append((*run[:-1], begins, size := len(run.words)))
            bodies.append(run.words)
            begins += size
        if not table:
            return
        placed = text(table)
        self._c.execute(INSERT_WORDS, (placed, b"".join(bodies)))
        self._c.execute(INSERT_RUNS, (placed, len(table)))

    def sweep_fresh(self, limit: int, *, older_than_ms: int | None = None) -> int:
        """The oldest of so many numbers go: those beyond FRESH_ROWS, or those that are too old. A session that still
        has events among them gets all of its own into `events`. How many numbers were passed."""
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
        found = c.execute(_NOT_YET, (upto,)).fetchall()
        if older_than_ms is None:
            taken = within_pace([fresh for _, _, fresh, _ in found], limit)
            if taken < len(found):
                found, upto = found[:taken], found[taken][3] - 1
        if left := {session_id: head for session_id, head, _, _ in found}:
            runs = self._as_runs([*left.values()])
            whole = [run.session_id for run in runs]
            if len(whole) < len(left):  # a store that is not sound: its session says so, and holds up nobody else
                broken = text([session_id for session_id in left if session_id not in whole])
                upto = c.execute(_FIRST_LEFT, (upto, broken)).fetchone()[0] - 1
            self.write_runs(runs)
            c.execute(_PACKED, (text(whole),))
        c.execute("delete from fresh where n <= ?", (upto,))
        return int(max(0, upto - first + 1))


def within_pace(lengths: Sequence[int], events: int) -> int:
    """How many of these runs, in order, are packed beside so many new events; the first one always is."""
    room = FRESH_EVENTS + PACK_PACE * events - sum(lengths[:1])
    n = min(1, len(lengths))
    while n < len(lengths) and (room := room - lengths[n]) >= 0:
        n += 1
    return n


def text(values: Sequence[Any]) -> str:
    """As one JSON text: a statement reads it without the GIL, while the event loop works."""
    return orjson.dumps(values).decode()
