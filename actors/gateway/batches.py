"""The HTTP handlers of batches (order_routes.py has the table of routes), for operators and for a station's collector.

A batch is decided for its order, so its order is read first: that is only the way to the mailbox, the decision stands
on rows. To a collector, what is not of its own station is not there; only where it would complete something is it
told that the station is not its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from aiohttp import web

from actors.gateway.auth import MAY_COMPLETE, MAY_OPERATE, MAY_SEE_WORK, Caller
from actors.gateway.problems import answer
from actors.gateway.query import Query
from actors.gateway.room import Room, id_of, page_of
from actors.law.orders import requests as rq
from actors.protocol import ids
from actors.protocol import order_resources as resources
from actors.protocol.errors import HoldfastError
from actors.protocol.order_codes import BATCH_STATUSES
from actors.store.contract import BatchFilter, ListPage


def wishes(groups: Sequence[resources.GroupRequest | resources.GroupTarget]) -> tuple[rq.GroupWish, ...]:
    return tuple(rq.GroupWish(**group.model_dump()) for group in groups)


class BatchApi(Room):
    async def list(self, request: web.Request) -> web.Response:
        caller = await self.authority.caller(request)
        query = Query(request)
        wanted = BatchFilter(
            order_id=query.id("order_id"),
            station_id=query.id("station_id"),
            status=query.one_of("status", tuple(BATCH_STATUSES)),
            limit=query.limit(),
            cursor=query.text("cursor", 500),
        )
        caller.need(MAY_SEE_WORK)
        if caller.collects:
            own = caller.token.station_id
            if own is None or wanted.station_id not in (None, own):
                return page_of(ListPage(()))
            wanted = replace(wanted, station_id=own)
        return page_of(await self.door.worker.read(lambda store: store.batches(wanted)))

    async def show(self, request: web.Request) -> web.Response:
        caller = (await self.authority.caller(request)).need(MAY_SEE_WORK)
        return answer(await self._seen(caller, id_of(request, "bid")))

    async def handoff(self, request: web.Request) -> web.Response:
        """The very text that the store made: the device's parser reads bytes, not JSON."""
        caller = (await self.authority.caller(request)).need(MAY_SEE_WORK)
        bid = id_of(request, "bid")
        sop_id, subscene_id = id_of(request, "sop_id"), id_of(request, "subscene_id")
        await self._seen(caller, bid)
        line = await self.door.worker.read(lambda store: store.handoff(bid, sop_id, subscene_id))
        return web.Response(body=line.encode(), content_type="application/json")

    # ------------------------------------------------------------ changes

    async def change(self, request: web.Request) -> web.Response:
        caller, bid = await self._operator(request)
        raw, body = await self.body(request, resources.ChangeBatch)
        asked = rq.ChangeBatch(
            order_id=await self._order_of(bid), seed=ids.ulid(), batch_id=bid, status=body.status, by=caller.name
        )
        return await self.perform(request, caller, raw, asked)

    async def adjust(self, request: web.Request) -> web.Response:
        caller, bid = await self._operator(request)
        raw, body = await self.body(request, resources.AdjustBatch)
        asked = rq.AdjustBatch(
            order_id=await self._order_of(bid),
            seed=ids.ulid(),
            batch_id=bid,
            groups=wishes(body.groups),
            by=caller.name,
        )
        return await self.perform(request, caller, raw, asked)

    async def recall(self, request: web.Request) -> web.Response:
        caller, bid = await self._operator(request)
        raw = await self.nothing(request)
        asked = rq.RecallBatch(order_id=await self._order_of(bid), seed=ids.ulid(), batch_id=bid, by=caller.name)
        return await self.perform(request, caller, raw, asked)

    async def delete(self, request: web.Request) -> web.Response:
        caller, bid = await self._operator(request)
        asked = rq.DeleteBatch(order_id=await self._order_of(bid), seed=ids.ulid(), batch_id=bid, by=caller.name)
        return await self.perform(request, caller, b"", asked, wake=False)

    async def complete(self, request: web.Request) -> web.Response:
        """By a collector for its own station, or by an operator for any."""
        caller = (await self.authority.caller(request)).need(MAY_COMPLETE)
        bid = id_of(request, "bid")
        raw, body = await self.body(request, resources.CompleteTasks)
        order_id = await self._order_of(bid)
        if caller.collects and caller.token.station_id is None:
            raise HoldfastError("not_your_station", "this token is of no station")
        asked = rq.CompleteTasks(
            order_id=order_id,
            seed=ids.ulid(),
            batch_id=bid,
            sop_id=body.sop_id,
            subscene_id=body.subscene_id,
            quantity=body.quantity,
            station_id=caller.token.station_id if caller.collects else None,
            by=caller.name,
        )
        return await self.perform(request, caller, raw, asked)

    # ------------------------------------------------------------ shared

    async def _operator(self, request: web.Request) -> tuple[Caller, str]:
        caller = (await self.authority.caller(request)).need(MAY_OPERATE)
        return caller, id_of(request, "bid")

    async def _seen(self, caller: Caller, bid: str) -> dict[str, Any]:
        """Raises batch_not_found, also for the batch of a station that the caller does not see."""
        found: dict[str, Any] = await self.door.worker.read(lambda store: store.batch(bid))
        if not caller.sees_station(found["station_id"]):
            raise HoldfastError("batch_not_found")
        return found

    async def _order_of(self, bid: str) -> str:
        """Raises batch_not_found."""
        found = await self.door.worker.read(lambda store: store.batch(bid))
        return str(found["order_id"])
