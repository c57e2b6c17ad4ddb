"""Decisions about stations and collectors in SQL: read the StationView, perform the effects, in an open write
transaction. The unique indexes on present bindings say the same as the law: one per station, collector and node.
"""

from __future__ import annotations

from typing import Any, assert_never

from actors.law import effects as fx
from actors.law.nodes.requests import Unset
from actors.law.orders import effects as ofx
from actors.law.orders import render
from actors.law.orders import requests as oq
from actors.law.orders.decide import decide_station
from actors.law.orders.model import Binding, Collector, StationView
from actors.protocol.errors import HoldfastError
from actors.store import order_rows
from actors.store.contract import Outcome
from actors.store.expect import expect
from actors.store.orders import OrderTransitions

_COLLECTOR = order_rows.COLLECTORS.select("where id = ?")
_OF_STATION = order_rows.BINDINGS.select("where station_id = ? and ended_at_ms is null")
_OF_COLLECTOR = order_rows.BINDINGS.select("where collector_id = ? and ended_at_ms is null")
_OF_NODE = order_rows.BINDINGS.select("where node_id = ? and ended_at_ms is null")
_OPEN = "select id from batches where station_id = ? and status in ('pending', 'active') order by n"
_UNDER_WAY = (
    "select t.id from batches b join tasks t on t.batch_id = b.id where b.station_id = ? "
    "and b.status in ('pending', 'active') and t.status in ('ready', 'in_progress', 'uploading') order by t.n"
)


class StationTransitions(OrderTransitions):
    """Mixed into the store: needs `_c` (a connection), `policy` and `wall_ms()`."""

    def station_transition(self, request: oq.StationRequest | oq.CollectorRequest) -> Outcome:
        decision = decide_station(self._station_view(request), request)
        for effect in decision.effects:
            self._do_station(effect)
        status, body = self._station_rendered(request, decision.answer)
        return Outcome(request.addressee, decision.answer, (), 0, status, body)

    # ------------------------------------------------------------ reading

    def _station_view(self, request: oq.StationRequest | oq.CollectorRequest) -> StationView:
        if isinstance(request, oq.CollectorRequest):
            return StationView(
                station=None,
                collector=self._collector_row(request.collector_id),
                wall_ms=self.wall_ms(),
                current=self._bindings((_OF_COLLECTOR, request.collector_id)),
            )
        sid = request.station_id
        own = self._binding_row(sid)
        collector_id = _named(request, "collector_id", own)
        node_id = _named(request, "node_id", own)
        current = self._bindings((_OF_STATION, sid), (_OF_COLLECTOR, collector_id), (_OF_NODE, node_id))
        version = self._c.execute("select max(version) from station_bindings where station_id = ?", (sid,)).fetchone()
        return StationView(
            station=self._station_row(sid),
            collector=None,
            wall_ms=self.wall_ms(),
            version=version[0] or 0,
            node_exists=self._stands("nodes", node_id),
            collector_exists=self._stands("collectors", collector_id),
            current=current,
            under_way={b.station_id: self._ids(_UNDER_WAY, b.station_id) for b in current},
            open_batches=self._ids(_OPEN, sid) if isinstance(request, oq.DeleteStation) else (),
        )

    def _collector_row(self, collector_id: str) -> Collector | None:
        row = self._c.execute(_COLLECTOR, (collector_id,)).fetchone()
        return order_rows.COLLECTORS.read(row) if row else None

    def _bindings(self, *wanted: tuple[str, str]) -> tuple[Binding, ...]:
        """The present ones; one that is found twice is one."""
        found = {
            b.station_id: b
            for sql, key in wanted
            for b in map(order_rows.BINDINGS.read, self._c.execute(sql, (key,)).fetchall())
        }
        return tuple(found.values())

    def _ids(self, sql: str, key: str) -> tuple[str, ...]:
        return tuple(row[0] for row in self._c.execute(sql, (key,)).fetchall())

    # ------------------------------------------------------------ performing

    def _do_station(self, effect: ofx.StationEffect) -> None:
        c = self._c
        match effect:
            case ofx.InsertStation(station):
                c.execute(order_rows.STATIONS.insert, order_rows.STATIONS.values(station))
            case ofx.SetStation(station_id, changes):
                sql, values = order_rows.STATIONS.update(changes, "id = ?")
                expect(c.execute(sql, [*values, station_id]).rowcount == 1, f"station {station_id} is not there")
            case ofx.RemoveStation(station_id):
                c.execute("delete from station_bindings where station_id = ?", (station_id,))
                done = c.execute("delete from stations where id = ?", (station_id,))
                expect(done.rowcount == 1, f"station {station_id} is not there")
            case ofx.InsertBinding(binding):
                c.execute(order_rows.BINDINGS.insert, order_rows.BINDINGS.values(binding))
            case ofx.EndBinding(station_id, version):
                done = c.execute(
                    "update station_bindings set ended_at_ms = ? "
                    "where station_id = ? and version = ? and ended_at_ms is null",
                    (self.wall_ms(), station_id, version),
                )
                expect(done.rowcount == 1, f"binding {version} of {station_id} is not the present one")
            case ofx.FollowNode(station_id, node_id):
                c.execute(
                    "update tasks set node_id = ? where status = 'pending' and batch_id in "
                    "(select id from batches where station_id = ? and status in ('pending', 'active'))",
                    (node_id, station_id),
                )
            case ofx.InsertCollector(collector):
                c.execute(order_rows.COLLECTORS.insert, order_rows.COLLECTORS.values(collector))
            case ofx.SetCollector(collector_id, changes):
                sql, values = order_rows.COLLECTORS.update(changes, "id = ?")
                expect(c.execute(sql, [*values, collector_id]).rowcount == 1, f"collector {collector_id} is not there")
            case ofx.RemoveCollector(collector_id):
                done = c.execute("delete from collectors where id = ?", (collector_id,))
                expect(done.rowcount == 1, f"collector {collector_id} is not there")
            case _:
                assert_never(effect)

    # ------------------------------------------------------------ answers

    def _station_rendered(
        self, request: oq.StationRequest | oq.CollectorRequest, answer: fx.Answer
    ) -> tuple[int, dict[str, Any] | None]:
        if not isinstance(answer, fx.Show):
            return 200, None
        if answer.what == "nothing":
            return answer.status, None
        if isinstance(request, oq.CollectorRequest):
            return answer.status, self.collector_resource(request.collector_id)
        return answer.status, self.station_resource(request.station_id)

    def station_resource(self, station_id: str) -> dict[str, Any]:
        """Errors: station_not_found."""
        station = self._station_row(station_id)
        if station is None:
            raise HoldfastError("station_not_found")
        version = self._c.execute(
            "select max(version) from station_bindings where station_id = ?", (station_id,)
        ).fetchone()[0]
        return render.station(station, self._binding_row(station_id), version or 0, len(self._ids(_OPEN, station_id)))

    def collector_resource(self, collector_id: str) -> dict[str, Any]:
        """Errors: collector_not_found."""
        collector = self._collector_row(collector_id)
        if collector is None:
            raise HoldfastError("collector_not_found")
        bound = self._bindings((_OF_COLLECTOR, collector_id))
        return render.collector(collector, bound[0].station_id if bound else None)


def _named(request: oq.StationRequest, attribute: str, own: Binding | None) -> str:
    """Whom the request wants bound; if it does not say, who is bound already."""
    given = getattr(request, attribute, None)
    if given is None or isinstance(given, Unset):
        return getattr(own, attribute) if own is not None else ""
    return str(given)
