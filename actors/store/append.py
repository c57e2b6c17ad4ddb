"""The data path in SQL: one item of a group, fenced inside its statements (DESIGN §1, the append fence).

(1) the session must be owned by this very connection epoch, (2) the execution must be running and stand exactly before
this range; zero rows in either refuses the item, and one read tells why. The caller gives each item a savepoint.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

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
INSERT = "insert into events values (?, ?, ?, ?, ?, ?, ?, ?)"


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

    def _append(self, item: AppendItem, wall_ms: int, service_ms: int) -> Appended | None:
        c, n = self._c, len(item.events)
        # Whole seconds: the list of sessions is ordered by activity, and its index need not move for every group.
        row = c.execute(FENCE_SESSION, (n, wall_ms - wall_ms % 1000, item.session_id, item.epoch)).fetchall()
        if not row:
            return None
        last = item.first + item.covers - 1
        fenced = c.execute(
            FENCE_EXECUTION, (last, service_ms, wall_ms, item.session_id, item.execution_id, item.first - 1)
        )
        if fenced.rowcount != 1:
            return None
        first_seq = row[0][0] - n + 1
        sid, eid = item.session_id, item.execution_id
        c.executemany(
            INSERT,
            [
                (sid, first_seq + i, eid, item.first + i, e.type, e.ts_ms, wall_ms, e.data)
                for i, e in enumerate(item.events)
            ],
        )
        return Appended(first_seq, n, last)

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
