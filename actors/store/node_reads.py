"""Reads of nodes, invocations and tasks: each one short, complete, and over when the call returns."""

from __future__ import annotations

from typing import Any

from actors.protocol.errors import HoldfastError
from actors.store.contract import ListPage, NodeFilter, NodeLog, TaskFilter
from actors.store.reads import Reads, _decode_cursor, _encode_cursor
from actors.store.rows import loads

_CONNECTED = "exists (select 1 from node_roles r where r.node_id = nodes.id and r.link = 'connected')"


class NodeReads(Reads):
    """Mixed into the store."""

    def node(self, node_id: str) -> dict[str, Any]:
        with self._snapshot():
            return self.node_resource(node_id)

    def nodes(self, wanted: NodeFilter) -> ListPage:
        where, values = ["1 = 1"], list[Any]()
        if wanted.connected is not None:
            where.append(_CONNECTED if wanted.connected else f"not {_CONNECTED}")
        if wanted.role:
            where.append("exists (select 1 from node_roles r where r.node_id = nodes.id and r.role = ?)")
            values.append(wanted.role)
        if wanted.q:
            like = "%" + wanted.q.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
            where.append("(id like ? escape '\\' or name like ? escape '\\')")
            values += [like, like]
        if wanted.cursor:
            away, nid = _decode_cursor(wanted.cursor, 2, (int, str))
            where.append(f"(not {_CONNECTED}, id) > (?, ?)")
            values += [away, nid]
        sql = f"select id, not {_CONNECTED} from nodes where {' and '.join(where)} order by 2, 1 limit ?"
        with self._snapshot() as c:
            found = c.execute(sql, [*values, wanted.limit + 1]).fetchall()
            items = tuple(self.node_resource(row[0]) for row in found[: wanted.limit])
        more = len(found) > wanted.limit
        last = found[wanted.limit - 1] if more else None
        return ListPage(items, _encode_cursor(last[1], last[0]) if last else None)

    def node_events(self, node_id: str, after_seq: int, limit: int) -> NodeLog:
        with self._snapshot() as c:
            head = c.execute("select first_event_seq, last_event_seq from nodes where id = ?", (node_id,)).fetchone()
            if head is None:
                raise HoldfastError("node_not_found")
            found = c.execute(
                "select seq, type, ts_ms, data from node_events where node_id = ? and seq > ? order by seq limit ?",
                (node_id, after_seq, limit),
            ).fetchall()
        items = tuple({"seq": r[0], "type": r[1], "ts_ms": r[2], "data": loads(r[3])} for r in found)
        return NodeLog(items, head[0], head[1])

    def nodes_with_outbox(self, after_n: int) -> tuple[int, list[str]]:
        with self._snapshot() as c:
            newest = c.execute("select seq from sqlite_sequence where name = 'node_outbox'").fetchone()
            found = c.execute(
                "select distinct node_id from node_outbox where n > ? and fetched_seed is null", (after_n,)
            ).fetchall()
        return (newest[0] if newest else 0), [row[0] for row in found]

    def lost_node_roles(self, gateway_id: str) -> list[tuple[str, str, str]]:
        found = self._c.execute(
            "select node_id, role, connection_id from node_roles where link = 'connected' and gateway_id is not ? "
            "order by node_id, role",
            (gateway_id,),
        ).fetchall()
        return [(row[0], row[1], row[2]) for row in found]

    def invocation(self, invocation_id: str) -> dict[str, Any]:
        with self._snapshot():
            return self.invocation_resource(invocation_id)

    def invocations(self, node_id: str, limit: int, cursor: str | None) -> ListPage:
        before = _decode_cursor(cursor, 1, (int,))[0] if cursor else 1 << 62
        sql = "select n, id from invocations where node_id = ? and n < ? order by n desc limit ?"
        with self._snapshot() as c:
            found = c.execute(sql, (node_id, before, limit + 1)).fetchall()
            items = tuple(self.invocation_resource(row[1]) for row in found[:limit])
        return ListPage(items, _encode_cursor(found[limit - 1][0]) if len(found) > limit else None)

    def task(self, task_id: str) -> dict[str, Any]:
        with self._snapshot():
            return self.task_resource(task_id)

    def tasks(self, wanted: TaskFilter) -> ListPage:
        where, values = ["1 = 1"], list[Any]()
        for column in ("node_id", "status", "order_id", "batch_id"):
            if value := getattr(wanted, column):
                where.append(f"{column} = ?")
                values.append(value)
        if wanted.station_id:
            where.append("batch_id in (select id from batches where station_id = ?)")
            values.append(wanted.station_id)
        if wanted.cursor:
            where.append("n < ?")
            values.append(_decode_cursor(wanted.cursor, 1, (int,))[0])
        sql = f"select n, id from tasks where {' and '.join(where)} order by n desc limit ?"
        with self._snapshot() as c:
            found = c.execute(sql, [*values, wanted.limit + 1]).fetchall()
            items = tuple(self.task_resource(row[1]) for row in found[: wanted.limit])
        more = len(found) > wanted.limit
        return ListPage(items, _encode_cursor(found[wanted.limit - 1][0]) if more else None)
