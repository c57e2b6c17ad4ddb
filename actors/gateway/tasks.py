"""The HTTP handlers of tasks, seen from the device that carries them out (node_routes.py has the table of routes)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from aiohttp import web

from actors.gateway.auth import MAY_OPERATE, MAY_SEE_WORK
from actors.gateway.problems import answer
from actors.gateway.query import Query
from actors.gateway.room import Room, id_of, page_of
from actors.law.nodes import requests as rq
from actors.protocol import ids
from actors.protocol import node_resources as resources
from actors.protocol.errors import HoldfastError
from actors.protocol.node_codes import TASK_ACTIONS, TASK_STATUSES
from actors.store.contract import ListPage, TaskFilter


class TaskApi(Room):
    async def create(self, request: web.Request) -> web.Response:
        caller = (await self.authority.caller(request)).need(MAY_OPERATE)
        nid = id_of(request, "nid")
        raw, body = await self.body(request, resources.CreateTask)
        asked = rq.CreateTask(
            task_id=body.task_id or ids.new_id("task"),
            seed=ids.ulid(),
            node_id=nid,
            params=body.params,
            by=caller.name,
        )
        return await self.perform(request, caller, raw, asked)

    async def list(self, request: web.Request) -> web.Response:
        caller = await self.authority.caller(request)
        query = Query(request)
        wanted = TaskFilter(
            node_id=query.id("node_id"),
            order_id=query.id("order_id"),
            batch_id=query.id("batch_id"),
            status=query.one_of("status", tuple(TASK_STATUSES)),
            limit=query.limit(),
            cursor=query.text("cursor", 500),
        )
        caller.need(MAY_SEE_WORK)
        if caller.collects:
            if caller.token.station_id is None:
                return page_of(ListPage(()))
            wanted = replace(wanted, station_id=caller.token.station_id)
        return page_of(await self.door.worker.read(lambda store: store.tasks(wanted)))

    async def show(self, request: web.Request) -> web.Response:
        caller = (await self.authority.caller(request)).need(MAY_SEE_WORK)
        found = await self._task(id_of(request, "task_id"))
        if caller.collects and not caller.sees_station(await self._station_of(found)):
            raise HoldfastError("task_not_found")
        return answer(found)

    async def act(self, request: web.Request) -> web.Response:
        """A command for the device, if the task and the device are in the state for it → 202 with the task."""
        caller = (await self.authority.caller(request)).need(MAY_OPERATE)
        task_id, action = id_of(request, "task_id"), request.match_info["action"]
        if action not in TASK_ACTIONS:
            raise HoldfastError("not_found", f"no such action; there are {', '.join(TASK_ACTIONS)}")
        raw, body = await self.body(request, resources.TaskActionRequest)
        asked = rq.TaskAction(
            task_id=task_id,
            order_id=(await self._task(task_id))["order_id"],
            seed=ids.ulid(),
            action=action,
            attempt=body.attempt,
            by=caller.name,
        )
        return await self.perform(request, caller, raw, asked)

    async def _station_of(self, task: dict[str, Any]) -> str | None:
        """Where its batch is; None: it is of no order."""
        bid = task["batch_id"]
        if bid is None:
            return None
        return str((await self.door.worker.read(lambda store: store.batch(bid)))["station_id"])

    async def _task(self, task_id: str) -> dict[str, Any]:
        return await self.door.worker.read(lambda store: store.task(task_id))
