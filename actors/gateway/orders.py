"""The HTTP handlers of orders (order_routes.py has the table of routes).

An order's requests go to the order's own mailbox. What a decision wants devices to hear is a row that their nodes are
told of behind the answer (notices.py): no handler here waits for a node.
"""

from __future__ import annotations

from typing import Any

from aiohttp import web

from actors.gateway.auth import MAY_OPERATE, MAY_READ
from actors.gateway.batches import wishes
from actors.gateway.problems import answer
from actors.gateway.query import Query
from actors.gateway.room import Room, id_of, page_of
from actors.law.orders import requests as rq
from actors.protocol import ids
from actors.protocol import order_resources as resources
from actors.protocol.order_codes import ORDER_STATUSES
from actors.store.contract import BatchFilter, OrderFilter


class OrderApi(Room):
    async def create(self, request: web.Request) -> web.Response:
        caller = (await self.authority.caller(request)).need(MAY_OPERATE)
        raw, body = await self.body(request, resources.CreateOrder)
        asked = rq.CreateOrder(
            order_id=body.order_id or ids.new_id("order"),
            seed=ids.ulid(),
            name=body.name,
            target_count=body.target_count,
            quota_policy=body.quota_policy,
            by=caller.name,
        )
        return await self.perform(request, caller, raw, asked, wake=False)

    async def list(self, request: web.Request) -> web.Response:
        caller = await self.authority.caller(request)
        query = Query(request)
        wanted = OrderFilter(
            status=query.one_of("status", tuple(ORDER_STATUSES)),
            q=query.text("q"),
            limit=query.limit(),
            cursor=query.text("cursor", 500),
        )
        caller.need(MAY_READ)
        return page_of(await self.door.worker.read(lambda store: store.orders(wanted)))

    async def show(self, request: web.Request) -> web.Response:
        oid = await self._reader(request)
        return answer(await self.door.worker.read(lambda store: store.order(oid)))

    async def change(self, request: web.Request) -> web.Response:
        """Only what is given changes; a null says nothing about a target or a status."""
        caller = (await self.authority.caller(request)).need(MAY_OPERATE)
        oid = id_of(request, "oid")
        raw, body = await self.body(request, resources.ChangeOrder)
        given: dict[str, Any] = {name: getattr(body, name) for name in body.model_fields_set}
        for name in ("target_count", "status"):
            if given.get(name, 0) is None:
                del given[name]
        asked = rq.ChangeOrder(order_id=oid, seed=ids.ulid(), by=caller.name, **given)
        return await self.perform(request, caller, raw, asked)

    async def delete(self, request: web.Request) -> web.Response:
        caller = (await self.authority.caller(request)).need(MAY_OPERATE)
        asked = rq.DeleteOrder(order_id=id_of(request, "oid"), seed=ids.ulid(), by=caller.name)
        return await self.perform(request, caller, b"", asked, wake=False)

    async def dispatch(self, request: web.Request) -> web.Response:
        caller = (await self.authority.caller(request)).need(MAY_OPERATE)
        oid = id_of(request, "oid")
        raw, body = await self.body(request, resources.DispatchBatch)
        asked = rq.DispatchBatch(
            order_id=oid,
            seed=ids.ulid(),
            batch_id=body.batch_id or ids.new_id("batch"),
            station_id=body.station_id,
            groups=wishes(body.groups),
            by=caller.name,
        )
        return await self.perform(request, caller, raw, asked)

    async def batches(self, request: web.Request) -> web.Response:
        oid = await self._reader(request)
        query = Query(request)
        wanted = BatchFilter(order_id=oid, limit=query.limit(), cursor=query.text("cursor", 500))

        def read(store: Any) -> Any:
            store.order(oid)
            return store.batches(wanted)

        return page_of(await self.door.worker.read(read))

    async def notices(self, request: web.Request) -> web.Response:
        oid = await self._reader(request)
        query = Query(request)
        limit, cursor = query.limit(), query.text("cursor", 500)
        return page_of(await self.door.worker.read(lambda store: store.notices(oid, limit, cursor)))

    async def _reader(self, request: web.Request) -> str:
        (await self.authority.caller(request)).need(MAY_READ)
        return id_of(request, "oid")
