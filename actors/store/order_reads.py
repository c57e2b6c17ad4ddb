"""Reads of orders, batches, stations and collectors: each one short, complete, and over when the call returns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from actors.law.orders import render
from actors.law.orders.model import GroupKey
from actors.protocol.errors import HoldfastError
from actors.store import order_rows
from actors.store.contract import BatchFilter, ListPage, OrderFilter, StationFilter
from actors.store.node_reads import NodeReads
from actors.store.reads import _decode_cursor, _encode_cursor


class OrderReads(NodeReads):
    """Mixed into the store."""

    def order(self, order_id: str) -> dict[str, Any]:
        with self._snapshot():
            return self.order_resource(order_id)

    def orders(self, wanted: OrderFilter) -> ListPage:
        where, values = _equal(status=wanted.status)
        if wanted.q:
            like = "%" + wanted.q.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
            where.append("(id like ? escape '\\' or name like ? escape '\\')")
            values += [like, like]
        return self._newest_first("orders", where, values, wanted.limit, wanted.cursor, self.order_resource)

    def notices(self, order_id: str, limit: int, cursor: str | None) -> ListPage:
        before = _decode_cursor(cursor, 1, (int,))[0] if cursor else 1 << 62
        sql = order_rows.NOTICES.select("where order_id = ? and n < ? order by n desc limit ?")
        with self._snapshot() as c:
            if self._order_row(order_id) is None:
                raise HoldfastError("order_not_found")
            found = list(map(order_rows.NOTICES.read, c.execute(sql, (order_id, before, limit + 1)).fetchall()))
            items = tuple(map(render.notice, found[:limit]))
            if len(found) <= limit:
                return ListPage(items)
            last = c.execute("select n from order_notices where id = ?", (found[limit - 1].notice_id,)).fetchone()[0]
        return ListPage(items, _encode_cursor(last))

    def batch(self, batch_id: str) -> dict[str, Any]:
        with self._snapshot():
            return self.batch_resource(batch_id)

    def batches(self, wanted: BatchFilter) -> ListPage:
        where, values = _equal(order_id=wanted.order_id, station_id=wanted.station_id, status=wanted.status)
        return self._newest_first("batches", where, values, wanted.limit, wanted.cursor, self.batch_resource)

    def handoff(self, batch_id: str, sop_id: str, subscene_id: str) -> str:
        with self._snapshot():
            batch = self._batch_row(batch_id)
            if batch is None:
                raise HoldfastError("batch_not_found")
            group = self._groups(batch_id).get(GroupKey(sop_id, subscene_id))
            if group is None:
                raise HoldfastError("group_not_found")
            binding = self._binding_row(batch.station_id)
            collector = self._collector_row(binding.collector_id) if binding is not None else None
            return render.handoff(group, collector, binding, self._station_row(batch.station_id))

    def station(self, station_id: str) -> dict[str, Any]:
        with self._snapshot():
            return self.station_resource(station_id)

    def stations(self, wanted: StationFilter) -> ListPage:
        bound, values = _equal(collector_id=wanted.collector_id, node_id=wanted.node_id)
        where = ["1 = 1"]
        if values:
            now = f"select station_id from station_bindings where ended_at_ms is null and {' and '.join(bound)}"
            where.append(f"id in ({now})")
        return self._newest_first("stations", where, values, wanted.limit, wanted.cursor, self.station_resource)

    def bindings(self, station_id: str, limit: int, cursor: str | None) -> ListPage:
        before = _decode_cursor(cursor, 1, (int,))[0] if cursor else 1 << 62
        sql = order_rows.BINDINGS.select("where station_id = ? and version < ? order by version desc limit ?")
        with self._snapshot() as c:
            if self._station_row(station_id) is None:
                raise HoldfastError("station_not_found")
            found = list(map(order_rows.BINDINGS.read, c.execute(sql, (station_id, before, limit + 1)).fetchall()))
        items = tuple(map(render.binding, found[:limit]))
        return ListPage(items, _encode_cursor(found[limit - 1].version) if len(found) > limit else None)

    def me_of_station(self, station_id: str) -> dict[str, Any]:
        with self._snapshot():
            station, binding = self._station_row(station_id), self._binding_row(station_id)
            shown = self.station_resource(station_id)
            assert station is not None
            node, declared, collector = None, {}, None
            if binding is not None:
                if self._stands("nodes", binding.node_id):
                    found = self.node_resource(binding.node_id)
                    node = {key: found[key] for key in ("node_id", "name", "connected")}
                    declared = found["capabilities"]
                collector = self.collector_resource(binding.collector_id)
            node_type = render.node_type(station, declared)
        return {"station": shown, "collector": collector, "node": node, "node_type": node_type}

    def collector(self, collector_id: str) -> dict[str, Any]:
        with self._snapshot():
            return self.collector_resource(collector_id)

    def collectors(self, limit: int, cursor: str | None) -> ListPage:
        return self._newest_first("collectors", ["1 = 1"], [], limit, cursor, self.collector_resource)

    def _newest_first(
        self,
        table: str,
        where: list[str],
        values: list[Any],
        limit: int,
        cursor: str | None,
        resource: Callable[[str], dict[str, Any]],
    ) -> ListPage:
        if cursor:
            where, values = [*where, "n < ?"], [*values, _decode_cursor(cursor, 1, (int,))[0]]
        sql = f"select n, id from {table} where {' and '.join(where)} order by n desc limit ?"
        with self._snapshot() as c:
            found = c.execute(sql, [*values, limit + 1]).fetchall()
            items = tuple(resource(row[1]) for row in found[:limit])
        return ListPage(items, _encode_cursor(found[limit - 1][0]) if len(found) > limit else None)


def _equal(**wanted: str | None) -> tuple[list[str], list[Any]]:
    given = {column: value for column, value in wanted.items() if value}
    return ["1 = 1", *(f"{column} = ?" for column in given)], list(given.values())
