"""Tokens over HTTP: made, listed, revoked by an admin; and `me`, for anybody who has one.

A secret is made here, answered once, and forgotten: what is kept is its hash. No Idempotency-Key (PROTOCOL §1): to
repeat an answer it would have to be kept.
"""

from __future__ import annotations

from aiohttp import web

from actors import telemetry
from actors.gateway.auth import MAY_ADMINISTER, Authority, hash_of, new_secret
from actors.gateway.door import Door
from actors.gateway.problems import answer
from actors.gateway.query import Query
from actors.gateway.room import read_body
from actors.protocol import ids, resources
from actors.protocol.codes import CLOSE
from actors.protocol.defaults import REQUEST_TIMEOUT_S
from actors.protocol.errors import HoldfastError
from actors.store.contract import Token

NO_STORE = {"Cache-Control": "no-store"}


class TokenApi:
    def __init__(self, door: Door, authority: Authority, *, body_timeout_s: float = REQUEST_TIMEOUT_S) -> None:
        self.door, self.authority, self.body_timeout_s = door, authority, body_timeout_s

    async def me(self, request: web.Request) -> web.Response:
        """A collector sees its station as it is now: none, if it is gone or its token names none."""
        token = (await self.authority.caller(request)).token
        work: dict[str, object] = {"station": None, "collector": None, "node": None, "node_type": None}
        if token.scope == "collector" and (station_id := token.station_id) is not None:
            work |= await self._work(station_id)
        return answer(_shown(token) | work, headers=NO_STORE)

    async def _work(self, station_id: str) -> dict[str, object]:
        try:
            found: dict[str, object] = await self.door.worker.read(lambda store: store.me_of_station(station_id))
        except HoldfastError as error:
            if error.code != "station_not_found":
                raise
            return {}
        return found

    async def create(self, request: web.Request) -> web.Response:
        caller = (await self.authority.caller(request)).need(MAY_ADMINISTER)
        _, body = await read_body(request, resources.TokenRequest, self.body_timeout_s)
        if body.expires_at_ms is not None and body.expires_at_ms <= self.door.wall_ms():
            raise HoldfastError("bad_request", "expires_at_ms: it lies in the past")
        secret = new_secret()
        token = Token(
            ids.new_id("token"), body.scope, body.session_id, body.expires_at_ms, body.node_id, body.station_id
        )
        hashed = hash_of(secret)
        await self.door.worker.write(lambda store: store.put_token(hashed, token, caller.name))
        telemetry.emit("token.created", token_id=token.token_id, scope=token.scope, by=caller.name)
        return answer({**_shown(token), "token": secret}, 201, NO_STORE)

    async def list(self, request: web.Request) -> web.Response:
        (await self.authority.caller(request)).need(MAY_ADMINISTER)
        query = Query(request)
        limit, cursor = query.limit(), query.text("cursor", 500)
        page = await self.door.worker.read(lambda store: store.tokens(limit, cursor))
        return answer({"items": page.items, "next_cursor": page.next_cursor}, headers=NO_STORE)

    async def revoke(self, request: web.Request) -> web.Response:
        """Repeated: 204. Its sockets are closed now; those of another process within 5 s (loops.py)."""
        caller = (await self.authority.caller(request)).need(MAY_ADMINISTER)
        token_id = request.match_info["tid"]
        if not ids.valid_id(token_id):
            raise HoldfastError("token_not_found", f"{token_id[:80]!r} is not an id")
        hashed = await self.door.worker.write(lambda store: store.revoke_token(token_id, caller.name))
        self.authority.forget(hashed)
        for socket in list(self.door.sockets):
            if socket.token_hash == hashed:
                socket.end(CLOSE["not_authenticated"], "the token was revoked", drain=True)
        telemetry.emit("token.revoked", token_id=token_id, by=caller.name)
        return web.Response(status=204)


def _shown(token: Token) -> dict[str, object]:
    return {
        "token_id": token.token_id,
        "scope": token.scope,
        "session_id": token.session_id,
        "node_id": token.node_id,
        "station_id": token.station_id,
        "expires_at_ms": token.expires_at_ms,
    }
