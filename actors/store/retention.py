"""What is old goes, a chunk per transaction: events, ended executions with what belongs to them, settled commands and
callbacks, audit, stored answers, and the events of deleted sessions.

The cost is by what is due. A session is looked at when its oldest event may be too old (`oldest_at_ms`, set at its
birth and moved only here), which is as often as something of it goes. Events go as a prefix, and first_seq moves in
the same transaction: a reader sees both or neither.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Final, TypeVar

from actors.protocol.defaults import (
    AUDIT_RETENTION_S,
    ENROLMENT_KEEP_S,
    IDEMPOTENCY_KEEP_S,
    NODE_EVENTS_KEPT,
    RETENTION_CHUNK,
)
from actors.store import rows
from actors.store.hot import FRESH_KEEP_MS
from actors.store.reads import Reads

T = TypeVar("T")

SESSION_ROWS: Final = 15  # of a look at one session: 60 µs for five statements, and some 3 for a row that goes


class Retention(Reads):
    """Mixed into the store."""

    def _alone(self, work: Callable[[], T]) -> T:
        raise NotImplementedError

    def janitor(self, retention_ms: int, audit_ms: int = round(AUDIT_RETENTION_S * 1000)) -> int:
        return self._alone(lambda: self._sweep_rubbish(self.wall_ms() - retention_ms, self.wall_ms() - audit_ms))

    def _sweep_rubbish(self, before_ms: int, audit_before_ms: int) -> int:
        """At most one chunk in all, so that the write lock is never held long. Returns how much of it was used."""
        left = RETENTION_CHUNK
        forgotten_ms = self.wall_ms() - round(IDEMPOTENCY_KEEP_S * 1000)
        enrolled_ms = self.wall_ms() - round(ENROLMENT_KEEP_S * 1000)
        steps: tuple[Callable[[int], int], ...] = (
            lambda n: self.sweep_fresh(n, older_than_ms=max(self.wall_ms() - FRESH_KEEP_MS, before_ms)),
            self._deleted_sessions,
            lambda n: self._events(before_ms, n),
            lambda n: self._executions(before_ms, n),
            lambda n: self._commands(before_ms, n),
            lambda n: self._rows("callbacks", "n", "settled_at_ms", before_ms, n),
            lambda n: self._rows("audit", "n", "at_ms", audit_before_ms, n),
            lambda n: self._rows("idempotency", "token_id, route, key", "created_at_ms", forgotten_ms, n),
            lambda n: self._rows("connections", "id", "at_ms", forgotten_ms, n),
            lambda n: self._node_logs(before_ms, n),
            lambda n: self._rows("invocations", "n", "settled_at_ms", before_ms, n),
            lambda n: self._rows("order_notices", "n", "settled_at_ms", before_ms, n),
            lambda n: self._rows("enrolment_codes", "code_hash", "expires_at_ms", forgotten_ms, n),
            lambda n: self._rows("enrolments", "id", "created_at_ms", enrolled_ms, n),
        )
        for step in steps:
            left -= step(left)
            if left <= 0:
                break
        return RETENTION_CHUNK - max(left, 0)

    def _deleted_sessions(self, limit: int) -> int:
        c, used = self._c, 0
        while used < limit:
            row = c.execute("select id from sessions where deleted_at_ms is not null and oldest_at_ms >= 0 limit 1")
            if (found := row.fetchone()) is None:
                break
            gone, stands_next = self._cut(found[0], None, limit - used)
            if stands_next is None:
                c.execute("update sessions set oldest_at_ms = -1 where id = ?", found)
            used += SESSION_ROWS + gone
        return used

    def _events(self, before_ms: int, limit: int) -> int:
        """Sessions looked at, SESSION_ROWS each, and events deleted."""
        used = 0
        while used < limit:
            row = self._c.execute(
                "select id from sessions where deleted_at_ms is null and oldest_at_ms < ? "
                "order by oldest_at_ms limit 1",
                (before_ms,),
            ).fetchone()
            if row is None:
                break
            used += SESSION_ROWS + self._prefix(row[0], before_ms, limit - used)
        return used

    def _prefix(self, session_id: str, before_ms: int, limit: int) -> int:
        """The oldest events of one session, as far as they are too old and the chunk reaches."""
        self.settle(session_id)
        last_seq = self._c.execute("select last_seq from sessions where id = ?", (session_id,)).fetchone()[0]
        gone, stands_next = self._cut(session_id, before_ms, limit)
        # What comes from now on is no older than now; what stands next, no older than itself.
        first_seq, oldest_at_ms = stands_next or (last_seq + 1, self.wall_ms())
        self._c.execute(
            "update sessions set first_seq = ?, oldest_at_ms = ? where id = ?", (first_seq, oldest_at_ms, session_id)
        )
        return gone

    def _cut(self, session_id: str, before_ms: int | None, limit: int) -> tuple[int, tuple[int, int] | None]:
        """Deletes so many events at the log's beginning, as far as they are too old. A run, which is of one moment,
        goes whole; if it does not fit, the chunk counts as used up. How much of it was used; first seq and age of what
        stands next, None at the end."""
        c, gone, upto, stands_next, full = self._c, 0, 0, None, False
        sql = (
            f"select seq, {rows.LENGTH_SQL}, {rows.FIRST_SQL}, stored_at_ms from events "
            "where session_id = ? order by seq"
        )
        with closing(c.execute(sql, (session_id,))) as found:
            for seq, length, first, at_ms in found:
                old = before_ms is None or at_ms < before_ms
                full = old and gone + length > limit
                if full or not old:
                    stands_next = (first, at_ms)
                    break
                gone, upto = gone + length, seq
        if gone:
            c.execute(
                "delete from runs where id in (select run_id from events where session_id = ? and seq <= ?)",
                (session_id, upto),
            )
            c.execute("delete from events where session_id = ? and seq <= ?", (session_id, upto))
        return limit if full else gone, stands_next

    def _executions(self, before_ms: int, limit: int) -> int:
        """Ended ones, and with each its commands, approvals and callback. One whose callback is due waits for it."""
        c = self._c
        found = c.execute(
            "select session_id, id from executions e where ended_at_ms < ? and not exists (select 1 from callbacks b "
            "where b.session_id = e.session_id and b.execution_id = e.id and b.state = 'due') limit ?",
            (before_ms, limit),
        ).fetchall()
        for table in ("commands", "approvals indexed by approvals_of", "callbacks"):
            c.executemany(f"delete from {table} where session_id = ? and execution_id = ?", found)
        c.executemany("delete from executions where session_id = ? and id = ?", found)
        return len(found)

    def _commands(self, before_ms: int, limit: int) -> int:
        sql = (
            "delete from commands where n in (select n from commands "
            "where state in ('done', 'rejected', 'withdrawn') and created_at_ms < ? limit ?)"
        )
        return int(self._c.execute(sql, (before_ms, limit)).rowcount)

    def _node_logs(self, before_ms: int, limit: int) -> int:
        """Too old, or beyond what is kept of one node: a prefix goes, and first_event_seq moves with it."""
        used = 0
        while used < limit and (found := self._log_to_cut(before_ms)) is not None:
            used += max(self._cut_log(*found, limit - used), 1)
        return used

    def _log_to_cut(self, before_ms: int) -> tuple[str, int] | None:
        """A node, and up to which seq its log goes."""
        c = self._c
        long = c.execute(
            "select id, last_event_seq - ? from nodes where last_event_seq - first_event_seq >= ? limit 1",
            (NODE_EVENTS_KEPT, NODE_EVENTS_KEPT),
        ).fetchone()
        if long is not None:
            return (long[0], long[1])
        old = c.execute(
            "select node_id, seq from node_events where ts_ms < ? order by ts_ms limit 1", (before_ms,)
        ).fetchone()
        if old is None:
            return None
        young = c.execute(
            "select min(seq) from node_events where node_id = ? and ts_ms >= ?", (old[0], before_ms)
        ).fetchone()[0]
        newest = c.execute("select max(seq) from node_events where node_id = ?", (old[0],)).fetchone()[0]
        # A clock that was set back leaves an old row behind a young one: the log is cut there all the same.
        return (old[0], max(old[1], newest if young is None else young - 1))

    def _cut_log(self, node_id: str, upto: int, limit: int) -> int:
        c = self._c
        gone = c.execute(
            "delete from node_events where node_id = ? and seq in "
            "(select seq from node_events where node_id = ? and seq <= ? order by seq limit ?)",
            (node_id, node_id, upto, limit),
        ).rowcount
        c.execute(
            "update nodes set first_event_seq = coalesce((select min(seq) from node_events where node_id = ?), "
            "last_event_seq + 1) where id = ?",
            (node_id, node_id),
        )
        return int(gone)

    def _rows(self, table: str, key: str, age: str, before_ms: int, limit: int) -> int:
        sql = f"delete from {table} where ({key}) in (select {key} from {table} where {age} < ? limit ?)"
        return int(self._c.execute(sql, (before_ms, limit)).rowcount)
