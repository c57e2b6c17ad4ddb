"""What is old goes, a chunk per transaction: events, ended executions with what belongs to them, settled commands and
callbacks, audit, stored answers, and the events of deleted sessions.

The cost is by what is due. A session is looked at when its oldest event may be too old (`oldest_at_ms`, moved only
here), which is once at its birth and then as often as something of it goes. Events go as a prefix, and first_seq moves
in the same transaction: a reader sees both or neither.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from actors.protocol.defaults import AUDIT_RETENTION_S, IDEMPOTENCY_KEEP_S, RETENTION_CHUNK
from actors.store.reads import Reads

T = TypeVar("T")


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
        steps: tuple[Callable[[int], int], ...] = (
            self._deleted_sessions,
            lambda n: self._events(before_ms, n),
            lambda n: self._executions(before_ms, n),
            lambda n: self._commands(before_ms, n),
            lambda n: self._rows("callbacks", "n", "settled_at_ms", before_ms, n),
            lambda n: self._rows("audit", "n", "at_ms", audit_before_ms, n),
            lambda n: self._rows("idempotency", "token_id, route, key", "created_at_ms", forgotten_ms, n),
            lambda n: self._rows("connections", "id", "at_ms", forgotten_ms, n),
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
            room = limit - used
            gone = c.execute(
                "delete from events where session_id = ? and seq in "
                "(select seq from events where session_id = ? order by seq limit ?)",
                (found[0], found[0], room),
            ).rowcount
            if gone < room:
                c.execute("update sessions set oldest_at_ms = -1 where id = ?", found)
            used += 1 + gone
        return used

    def _events(self, before_ms: int, limit: int) -> int:
        """Sessions looked at and events deleted, both counted."""
        used = 0
        while used < limit:
            row = self._c.execute(
                "select id, last_seq from sessions where deleted_at_ms is null and oldest_at_ms < ? "
                "order by oldest_at_ms limit 1",
                (before_ms,),
            ).fetchone()
            if row is None:
                break
            used += 1 + self._prefix(row[0], row[1], before_ms, limit - used)
        return used

    def _prefix(self, session_id: str, last_seq: int, before_ms: int, limit: int) -> int:
        """The oldest events of one session, as far as they are too old and the chunk reaches."""
        c = self._c
        found = c.execute(
            "select seq, stored_at_ms from events where session_id = ? order by seq limit ?", (session_id, limit + 1)
        ).fetchall()
        old = next((i for i, (_, at_ms) in enumerate(found) if at_ms >= before_ms), len(found))
        old = min(old, limit)
        if old:
            c.execute("delete from events where session_id = ? and seq <= ?", (session_id, found[old - 1][0]))
        # What comes from now on is no older than now; what stands next, no older than itself.
        first_seq, oldest_at_ms = found[old] if old < len(found) else (last_seq + 1, self.wall_ms())
        c.execute(
            "update sessions set first_seq = ?, oldest_at_ms = ? where id = ?", (first_seq, oldest_at_ms, session_id)
        )
        return old

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

    def _rows(self, table: str, key: str, age: str, before_ms: int, limit: int) -> int:
        sql = f"delete from {table} where ({key}) in (select {key} from {table} where {age} < ? limit ?)"
        return int(self._c.execute(sql, (before_ms, limit)).rowcount)
