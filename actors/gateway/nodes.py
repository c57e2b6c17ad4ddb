"""The HTTP handlers of nodes and invocations (node_routes.py has the table of routes).

An invocation is a row before anything is sent and after everything has ended; waiting for it is a convenience of this
room. What a caller is told is what that row says.
"""

from __future__ import annotations

from typing import Any, Final

from aiohttp import web

from actors.gateway.auth import MAY_OPERATE, MAY_READ
from actors.gateway.problems import answer
from actors.gateway.query import Query
from actors.gateway.room import Room, id_of, shown
from actors.law.nodes import requests as rq
from actors.protocol import ids
from actors.protocol import node_resources as resources
from actors.protocol.node_codes import ROLES
from actors.store.contract import NodeFilter

# A deadline is judged in service time and swept within two ticks; the answer comes after it.
WAIT_MARGIN_S: Final = 5.0
WAIT_UNBOUNDED_S: Final = 60.0  # for an invocation without a deadline; then 202, and the caller asks again
WAIT_MAX_S: Final = 3600.0  # no proxy holds a silent request for longer, and neither do we


class NodeApi(Room):
    # ------------------------------------------------------------ nodes

    async def create(self, request: web.Request) -> web.Response:
        caller = (await self.authority.caller(request)).need(MAY_OPERATE)
        raw, body = await self.body(request, resources.CreateNode)
        asked = rq.CreateNode(
            node_id=body.node_id or ids.new_id("node"),
            seed=ids.ulid(),
            name=body.name,
            allow=_patterns(body.allow),
            by=caller.name,
        )
        return await self.perform(request, caller, raw, asked, wake=False)

    async def list(self, request: web.Request) -> web.Response:
        caller = await self.authority.caller(request)
        query = Query(request)
        connected = query.one_of("connected", ("true", "false"))
        wanted = NodeFilter(
            connected=None if connected is None else connected == "true",
            role=query.one_of("role", tuple(ROLES)),
            q=query.text("q"),
            limit=query.limit(),
            cursor=query.text("cursor", 500),
        )
        caller.need(MAY_READ)
        page = await self.door.worker.read(lambda store: store.nodes(wanted))
        return answer({"items": page.items, "next_cursor": page.next_cursor})

    async def show(self, request: web.Request) -> web.Response:
        nid = await self._reader(request)
        return answer(await self.door.worker.read(lambda store: store.node(nid)))

    async def change(self, request: web.Request) -> web.Response:
        """Rename, drain, allow: only what is given changes."""
        caller = (await self.authority.caller(request)).need(MAY_OPERATE)
        nid = id_of(request, "nid")
        raw, body = await self.body(request, resources.ChangeNode)
        given: dict[str, Any] = {name: getattr(body, name) for name in body.model_fields_set}
        if "allow" in given:
            given["allow"] = _patterns(given["allow"])
        if given.get("drained", False) is None:  # a null says nothing about a switch
            del given["drained"]
        asked = rq.ChangeNode(node_id=nid, seed=ids.ulid(), by=caller.name, **given)
        return await self.perform(request, caller, raw, asked, wake=False)

    async def forget(self, request: web.Request) -> web.Response:
        """Repeated: 204. Its tokens are revoked in the same transaction, so nothing of it comes back by itself."""
        caller = (await self.authority.caller(request)).need(MAY_OPERATE)
        nid = id_of(request, "nid")
        asked = rq.ForgetNode(node_id=nid, seed=ids.ulid(), by=caller.name)
        made = await self.perform(request, caller, b"", asked, wake=False)
        self.authority.forget_node(nid)
        return made

    async def events(self, request: web.Request) -> web.Response:
        nid = await self._reader(request)
        query = Query(request)
        after, limit = query.integer("after_seq") or 0, query.page_limit()
        log = await self.door.worker.read(lambda store: store.node_events(nid, after, limit))
        seen = log.items[-1]["seq"] if log.items else after
        return answer(
            {"items": log.items, "next_after_seq": seen, "first_seq": log.first_seq, "last_seq": log.last_seq}
        )

    # ------------------------------------------------------------ invocations

    async def invoke(self, request: web.Request) -> web.Response:
        """200 with the outcome once there is one; 202 with the row as it stands: nobody waits, or no longer."""
        caller = (await self.authority.caller(request)).need(MAY_OPERATE)
        nid = id_of(request, "nid")
        raw, body = await self.body(request, resources.InvokeRequest)
        asked = rq.Invoke(
            node_id=nid,
            seed=ids.ulid(),
            invocation_id=ids.new_id("invocation"),
            command=body.command,
            params=body.params,
            role=body.role,
            timeout_s=body.timeout_s,
            idle_timeout_s=body.idle_timeout_s or None,
            expected_connection_id=body.expected_connection_id,
            idempotency_key=request.headers.get("Idempotency-Key"),
            by=caller.name,
        )
        outcome = await self.decided(request, caller, raw, asked)
        found = outcome.body
        assert found is not None, outcome
        iid = str(found["invocation_id"])  # of the first such request, where this is a repeat
        if body.wait and found["state"] != "settled":
            within_s = body.timeout_s + WAIT_MARGIN_S if body.timeout_s else WAIT_UNBOUNDED_S
            found = await self.door.waiting.outcome(iid, min(within_s, WAIT_MAX_S))
        elif outcome.replayed:
            found = await self.door.worker.read(lambda store: store.invocation(iid))
        headers = {"Idempotent-Replayed": "true"} if outcome.replayed else None
        return answer(found, 200 if found["state"] == "settled" else 202, headers)

    async def list_invocations(self, request: web.Request) -> web.Response:
        nid = await self._reader(request)
        query = Query(request)
        limit, cursor = query.limit(), query.text("cursor", 500)
        page = await self.door.worker.read(lambda store: store.invocations(nid, limit, cursor))
        return answer({"items": page.items, "next_cursor": page.next_cursor})

    async def show_invocation(self, request: web.Request) -> web.Response:
        (await self.authority.caller(request)).need(MAY_READ)
        iid = id_of(request, "iid")
        return answer(await self.door.worker.read(lambda store: store.invocation(iid)))

    async def cancel(self, request: web.Request) -> web.Response:
        """The outcome: of this cancel, of an earlier one, or of whatever came first."""
        caller = (await self.authority.caller(request)).need(MAY_OPERATE)
        iid = id_of(request, "iid")
        found = await self.door.worker.read(lambda store: store.invocation(iid))
        asked = rq.CancelInvocation(node_id=found["node_id"], seed=ids.ulid(), invocation_id=iid, by=caller.name)
        raw = await self.nothing(request)
        return shown(await self.decided(request, caller, raw, asked))

    async def _reader(self, request: web.Request) -> str:
        (await self.authority.caller(request)).need(MAY_READ)
        return id_of(request, "nid")


def _patterns(allow: list[str] | None) -> tuple[str, ...] | None:
    return None if allow is None else tuple(allow)
