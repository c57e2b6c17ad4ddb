"""Routes for who keeps the service: webhooks (list, show, replay) and the audit."""

from __future__ import annotations

import hashlib
from typing import Any, Final

from aiohttp import web

from actors.gateway.auth import MAY_ADMINISTER, MAY_OPERATE, Authority, Caller
from actors.gateway.door import Door
from actors.gateway.problems import answer
from actors.gateway.query import Query
from actors.gateway.room import key_of, read_raw
from actors.protocol import ids
from actors.protocol.defaults import REQUEST_TIMEOUT_S
from actors.protocol.errors import HoldfastError

STATES: Final = ("due", "delivered", "dead")


class Operations:
    def __init__(self, door: Door, authority: Authority, *, body_timeout_s: float = REQUEST_TIMEOUT_S) -> None:
        self.door, self.authority, self.body_timeout_s = door, authority, body_timeout_s

    async def list_webhooks(self, request: web.Request) -> web.Response:
        caller = await self.authority.caller(request)
        query = Query(request)
        session_id, state = query.id("session_id"), query.one_of("state", STATES)
        caller.need(MAY_OPERATE, session_id)
        limit, cursor = query.limit(), query.text("cursor", 500)
        page = await self.door.worker.read(lambda store: store.webhooks(state, session_id, limit, cursor))
        return answer({"items": page.items, "next_cursor": page.next_cursor})

    async def show_webhook(self, request: web.Request) -> web.Response:
        _, found = await self._named(request)
        return answer(found)

    async def replay(self, request: web.Request) -> web.Response:
        """Due at once, whatever became of it, under the same id → 202."""
        caller, found = await self._named(request)
        key = key_of(request, caller, hashlib.sha256(await read_raw(request, self.body_timeout_s)).hexdigest())
        wid, by = found["webhook_id"], caller.name
        shown, repeated = await self.door.worker.write(lambda store: store.replay_webhook(wid, by, key))
        return answer(shown, 202, {"Idempotent-Replayed": "true"} if repeated else None)

    async def audit(self, request: web.Request) -> web.Response:
        caller = await self.authority.caller(request)
        query = Query(request)
        session_id = query.id("session_id")
        caller.need(MAY_ADMINISTER, session_id)
        limit, cursor = query.limit(), query.text("cursor", 500)
        page = await self.door.worker.read(lambda store: store.audit(session_id, limit, cursor))
        return answer({"items": page.items, "next_cursor": page.next_cursor})

    async def _named(self, request: web.Request) -> tuple[Caller, dict[str, Any]]:
        """Whoever may not see its session is told that there is no such webhook."""
        caller = await self.authority.caller(request)
        caller.need(MAY_OPERATE, caller.token.session_id)
        wid = request.match_info["wid"]
        if not ids.valid_id(wid):
            raise HoldfastError("webhook_not_found", f"{wid[:80]!r} is not an id")
        found = await self.door.worker.read(lambda store: store.webhook(wid))
        if caller.token.session_id not in (None, found["session_id"]):
            raise HoldfastError("webhook_not_found")
        return caller, found
