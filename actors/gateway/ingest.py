"""The wrapper's door: who may hold a session's link. The socket itself is sockets.py, its frames are connection.py."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from actors.gateway.auth import MAY_INGEST
from actors.gateway.connection import Connection
from actors.gateway.decode import Control, decode, decode_all
from actors.gateway.entrance import check_entry
from actors.gateway.sockets import PeerSockets
from actors.gateway.wire import Wire
from actors.protocol import frames, ids
from actors.protocol.errors import HoldfastError


class Ingest(PeerSockets):
    async def admit(self, request: web.Request, wire: Wire) -> Connection:
        sid = request.match_info["sid"]
        check_entry(request, self.door.limits)
        caller = await self.authority.caller(request)
        if not ids.valid_id(sid):
            raise HoldfastError("session_not_found")
        caller.need(MAY_INGEST, sid)
        self.door.room(caller.token_hash, request.remote)
        return Connection(self.door, wire, sid, caller.token_hash)

    def decode(self, raw: bytes) -> Any:
        return decode(raw)

    def decode_all(self, raws: list[bytes]) -> list[Any]:
        return decode_all(raws)

    def is_hello(self, item: Any) -> bool:
        return isinstance(item, Control) and isinstance(item.frame, frames.Hello)
