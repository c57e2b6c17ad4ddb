"""The HTTP handlers of stations and collectors (order_routes.py has the table of routes)."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from actors.gateway.auth import MAY_OPERATE, MAY_READ, MAY_SEE_WORK
from actors.gateway.problems import answer
from actors.gateway.query import Query
from actors.gateway.room import Room, id_of, page_of
from actors.law.orders import requests as rq
from actors.protocol import ids
from actors.protocol import order_resources as resources
from actors.protocol.errors import HoldfastError
from actors.store.contract import StationFilter


class StationApi(Room):
    async def create(self, request: web.Request) -> web.Response:
        caller = (await self.authority.caller(request)).need(MAY_OPERATE)
        raw, body = await self.body(request, resources.CreateStation)
        asked = rq.CreateStation(
            station_id=body.station_id or ids.new_id("station"),
            seed=ids.ulid(),
            collector_id=body.collector_id,
            node_id=body.node_id,
            name=body.name,
            **_node_type(body.node_type),
            by=caller.name,
        )
        return await self.perform(request, caller, raw, asked, wake=False)

    async def list(self, request: web.Request) -> web.Response:
        caller = await self.authority.caller(request)
        query = Query(request)
        wanted = StationFilter(
            collector_id=query.id("collector_id"),
            node_id=query.id("node_id"),
            limit=query.limit(),
            cursor=query.text("cursor", 500),
        )
        caller.need(MAY_READ)
        return page_of(await self.door.worker.read(lambda store: store.stations(wanted)))

    async def show(self, request: web.Request) -> web.Response:
        caller = (await self.authority.caller(request)).need(MAY_SEE_WORK)
        sid = id_of(request, "station_id")
        if not caller.sees_station(sid):
            raise HoldfastError("station_not_found")
        return answer(await self.door.worker.read(lambda store: store.station(sid)))

    async def change(self, request: web.Request) -> web.Response:
        """Only what is given changes."""
        caller = (await self.authority.caller(request)).need(MAY_OPERATE)
        sid = id_of(request, "station_id")
        raw, body = await self.body(request, resources.ChangeStation)
        given: dict[str, Any] = {name: getattr(body, name) for name in body.model_fields_set}
        for name in ("collector_id", "node_id"):  # a null says nothing about a binding
            if given.get(name, 0) is None:
                del given[name]
        if "node_type" in given:
            del given["node_type"]
            given |= _node_type(body.node_type)
        asked = rq.ChangeStation(station_id=sid, seed=ids.ulid(), by=caller.name, **given)
        return await self.perform(request, caller, raw, asked, wake=False)

    async def delete(self, request: web.Request) -> web.Response:
        caller = (await self.authority.caller(request)).need(MAY_OPERATE)
        asked = rq.DeleteStation(station_id=id_of(request, "station_id"), seed=ids.ulid(), by=caller.name)
        return await self.perform(request, caller, b"", asked, wake=False)

    async def bindings(self, request: web.Request) -> web.Response:
        (await self.authority.caller(request)).need(MAY_READ)
        sid = id_of(request, "station_id")
        query = Query(request)
        limit, cursor = query.limit(), query.text("cursor", 500)
        return page_of(await self.door.worker.read(lambda store: store.bindings(sid, limit, cursor)))


class CollectorApi(Room):
    async def create(self, request: web.Request) -> web.Response:
        caller = (await self.authority.caller(request)).need(MAY_OPERATE)
        raw, body = await self.body(request, resources.CreateCollector)
        asked = rq.CreateCollector(
            collector_id=body.collector_id or ids.new_id("collector"),
            seed=ids.ulid(),
            name=body.name,
            operator_id=body.operator_id,
            by=caller.name,
        )
        return await self.perform(request, caller, raw, asked, wake=False)

    async def list(self, request: web.Request) -> web.Response:
        caller = await self.authority.caller(request)
        query = Query(request)
        limit, cursor = query.limit(), query.text("cursor", 500)
        caller.need(MAY_READ)
        return page_of(await self.door.worker.read(lambda store: store.collectors(limit, cursor)))

    async def show(self, request: web.Request) -> web.Response:
        (await self.authority.caller(request)).need(MAY_READ)
        cid = id_of(request, "collector_id")
        return answer(await self.door.worker.read(lambda store: store.collector(cid)))

    async def change(self, request: web.Request) -> web.Response:
        """Only what is given changes; a collector always has a name."""
        caller = (await self.authority.caller(request)).need(MAY_OPERATE)
        cid = id_of(request, "collector_id")
        raw, body = await self.body(request, resources.ChangeCollector)
        given: dict[str, Any] = {name: getattr(body, name) for name in body.model_fields_set}
        if given.get("name", "") is None:
            del given["name"]
        asked = rq.ChangeCollector(collector_id=cid, seed=ids.ulid(), by=caller.name, **given)
        return await self.perform(request, caller, raw, asked, wake=False)

    async def delete(self, request: web.Request) -> web.Response:
        caller = (await self.authority.caller(request)).need(MAY_OPERATE)
        asked = rq.DeleteCollector(collector_id=id_of(request, "collector_id"), seed=ids.ulid(), by=caller.name)
        return await self.perform(request, caller, b"", asked, wake=False)


def _node_type(said: resources.NodeType | None) -> dict[str, Any]:
    """None: that of the node which is bound there."""
    if said is None:
        return {"node_type_name": None, "capabilities": None}
    return {"node_type_name": said.name, "capabilities": said.capabilities}
