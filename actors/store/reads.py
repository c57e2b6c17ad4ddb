"""Reads: each one short, complete, and over when the call returns (a long reader stops the checkpoint)."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import orjson

from actors.law import render
from actors.protocol.errors import HoldfastError
from actors.store import rows
from actors.store.contract import (
    ActorRow,
    DueDeadline,
    ListPage,
    PendingCommand,
    SessionFilter,
)
from actors.store.perform import Transitions

SILENT_MS = 3_600_000
HEADS_PART: Final = 500  # sessions in one short read
HEADS: Final = (
    "select json_group_array(json_array(id, last_seq, stream_id)) from sessions_now "
    "where deleted_at_ms is null and id in (select value from json_each(?))"
)


class Reads(Transitions):
    """Mixed into the store."""

    _seen_version: int = -1

    @contextmanager
    def _snapshot(self) -> Iterator[Any]:
        """Several statements, one read transaction, never kept over an await."""
        self._c.execute("begin")
        try:
            yield self._c
        finally:
            self._c.execute("rollback")

    # ------------------------------------------------------------ resources

    def session(self, session_id: str) -> dict[str, Any]:
        with self._snapshot():
            return self.session_resource(session_id)

    def _known(self, session_id: str) -> None:
        row = self._c.execute("select deleted_at_ms from sessions where id = ?", (session_id,)).fetchone()
        if row is None:
            raise HoldfastError("session_not_found")
        if row[0] is not None:
            raise HoldfastError("session_deleted")

    def sessions(self, wanted: SessionFilter) -> ListPage:
        where, values = ["s.deleted_at_ms is null"], []
        if wanted.link:
            where.append("s.link = ?")
            values.append(wanted.link)
        for key, value in wanted.labels:
            where.append("exists (select 1 from json_each(s.labels) j where j.key = ? and j.value = ?)")
            values += [key, value]
        if wanted.q:
            like = "%" + wanted.q.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
            where.append("(s.id like ? escape '\\' or s.title like ? escape '\\')")
            values += [like, like]
        if wanted.state == "idle":
            where.append("not exists (select 1 from executions e where e.session_id = s.id)")
        elif wanted.state:
            # the state that people see: of the active execution, or else of the latest
            where.append(
                "(select e.status from executions e where e.session_id = s.id "
                "order by e.status in ('pending', 'running') desc, e.ordinal desc limit 1) = ?"
            )
            values.append(wanted.state)
        if wanted.cursor:
            at, sid = _decode_cursor(wanted.cursor, 2)
            where.append("(s.updated_at_ms, s.id) < (?, ?)")
            values += [at, sid]
        columns = ", ".join(f"s.{c}" for c in rows.SESSION_COLUMNS)
        sql = (
            f"select {columns} from sessions_now s where {' and '.join(where)} "
            "order by s.updated_at_ms desc, s.id desc limit ?"
        )
        with self._snapshot() as c:
            found = [rows.session(r) for r in c.execute(sql, [*values, wanted.limit + 1]).fetchall()]
            items = tuple(self._session_resource(s) for s in found[: wanted.limit])
        more = len(found) > wanted.limit
        last = found[wanted.limit - 1] if more else None
        return ListPage(items, _encode_cursor(last.updated_at_ms, last.session_id) if last else None)

    def counts(self) -> dict[str, int]:
        found = dict.fromkeys(("sessions", "connected", "grace", "offline", "queued", "pending", "running"), 0)
        with self._snapshot() as c:
            rows_ = c.execute(
                "select link, count(*) from sessions where deleted_at_ms is null group by link"
            ).fetchall()
            found["sessions"] = sum(n for _, n in rows_)
            rows_ += c.execute(
                "select status, count(*) from executions "
                "where status in ('queued', 'pending', 'running') group by status"
            ).fetchall()
        return found | dict(rows_)

    def execution(self, session_id: str, execution_id: str) -> dict[str, Any]:
        with self._snapshot() as c:
            self._known(session_id)
            columns = ", ".join(rows.EXECUTION_COLUMNS)
            row = c.execute(
                f"select {columns} from executions_now where session_id = ? and id = ?",
                (session_id, execution_id),
            ).fetchone()
        if row is None:
            raise HoldfastError("execution_not_found")
        return render.execution(rows.execution(row))

    def executions(self, session_id: str, limit: int, cursor: str | None) -> ListPage:
        """Newest first."""
        before = _decode_cursor(cursor, 1)[0] if cursor else 1 << 62
        columns = ", ".join(rows.EXECUTION_COLUMNS)
        with self._snapshot() as c:
            self._known(session_id)
            found = c.execute(
                f"select {columns} from executions_now "
                "where session_id = ? and ordinal < ? order by ordinal desc limit ?",
                (session_id, before, limit + 1),
            ).fetchall()
        items = [rows.execution(r) for r in found]
        more = len(items) > limit
        return ListPage(
            tuple(render.execution(e) for e in items[:limit]),
            _encode_cursor(items[limit - 1].ordinal) if more else None,
        )

    def approvals(self, session_id: str) -> list[dict[str, Any]]:
        """Open ones first, then newest first; at most 200, a page that a person reads."""
        columns = ", ".join(rows.APPROVAL_COLUMNS)
        with self._snapshot() as c:
            self._known(session_id)
            found = c.execute(
                f"select {columns} from approvals where session_id = ? "
                "order by state = 'open' desc, created_at_ms desc limit 200",
                (session_id,),
            ).fetchall()
        return [render.approval(rows.approval(r)) for r in found]

    # ------------------------------------------------------------ the stream

    def heads(self, session_ids: Sequence[str]) -> dict[str, tuple[int, str]]:
        """As one text for each part: rows would be a hand-over of the interpreter each, once a second, beside the loop
        and the writer who both want it."""
        found: dict[str, tuple[int, str]] = {}
        for start in range(0, len(session_ids), HEADS_PART):
            wanted = rows.dumps(session_ids[start : start + HEADS_PART])
            ((text,),) = self._c.execute(HEADS, (wanted,)).fetchall()
            found.update({sid: (last, stream) for sid, last, stream in orjson.loads(text)})
        return found

    # ------------------------------------------------------------ commands, deadlines, registry

    def pending_commands(self, session_id: str, after_n: int, limit: int) -> list[PendingCommand]:
        found = self._c.execute(
            "select n, id, session_id, execution_id, kind, payload from commands "
            "where session_id = ? and state = 'pending' and n > ? order by n limit ?",
            (session_id, after_n, limit),
        ).fetchall()
        return [PendingCommand(r[0], r[1], r[2], r[3], r[4], json.loads(r[5])) for r in found]

    def sessions_with_commands(self, after_n: int) -> tuple[int, list[str]]:
        with self._snapshot() as c:
            newest = c.execute("select coalesce(max(n), 0) from commands").fetchone()[0]
            found = c.execute(
                "select distinct session_id from commands where n > ? and state = 'pending'", (after_n,)
            ).fetchall()
        return newest, [r[0] for r in found]

    def due(self, limit: int) -> list[DueDeadline]:
        sql = (
            "select session_id, kind, subject, due_ms from deadlines where clock = ? and retry_ms <= ? "
            "order by retry_ms limit ?"
        )
        with self._snapshot() as c:
            t = c.execute("select t_ms from service_clock").fetchone()[0]
            found = c.execute(sql, ("service", t, limit)).fetchall()
            found += c.execute(sql, ("wall", self.wall_ms(), limit)).fetchall()
        return [DueDeadline(*r) for r in found[:limit]]

    def service_ms(self) -> int:
        return int(self._c.execute("select t_ms from service_clock").fetchone()[0])

    def actors_awake(self) -> list[ActorRow]:
        found = self._c.execute("select name, cluster, incarnation, pid, pid_started from actors").fetchall()
        return [ActorRow(*r) for r in found]

    def gateways(self) -> list[dict[str, Any]]:
        names = ("gateway_id", "pid", "pid_started", "url", "started_at_ms", "seen_at_ms")
        found = self._c.execute("select id, pid, pid_started, url, started_at_ms, seen_at_ms from gateways").fetchall()
        return [dict(zip(names, r, strict=True)) for r in found]

    def reaper_age_ms(self) -> tuple[int, int, int] | None:
        row = self._c.execute("select beat_at_ms, pid, pid_started from reaper").fetchone()
        # A clock that was set back makes no beat younger: an age below zero says nothing, so it counts as silence.
        age = self.wall_ms() - row[0] if row else 0
        return (age if age >= 0 else SILENT_MS, row[1], row[2]) if row else None

    def changed(self) -> bool:
        version = self._c.execute("pragma data_version").fetchone()[0]
        moved, self._seen_version = version != self._seen_version, version
        return bool(moved)


def _encode_cursor(*parts: Any) -> str:
    return base64.urlsafe_b64encode(rows.dumps(parts).encode()).decode().rstrip("=")


def _decode_cursor(text: str, parts: int, kinds: tuple[type, ...] = (int, str)) -> list[Any]:
    try:
        value = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (ValueError, RecursionError):
        raise HoldfastError("bad_cursor") from None
    ok = isinstance(value, list) and len(value) == parts
    if not ok or not all(type(v) is k and _bindable(v) for v, k in zip(value, kinds, strict=False)):
        raise HoldfastError("bad_cursor")
    return list(value)


def _bindable(value: object) -> bool:
    """JSON says more than SQLite takes: integers of any length, halves of surrogate pairs."""
    if isinstance(value, int):
        return -(1 << 63) <= value < 1 << 63
    return isinstance(value, str) and not any("\ud800" <= char <= "\udfff" for char in value)
