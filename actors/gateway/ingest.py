"""The wrapper's socket, from the upgrade to its end. It always reads: a handler that stops reading is cut by its own
ping (DESIGN §2.5). What a frame means is connection.py's; here is only the socket.

Every end is told to the session, once, after the frames received before it are applied; also that of a connection
whose Connect has an unknown outcome. A refusal before the hello is a close code (PROTOCOL §2.3), because that is the
one table that a wrapper reads.
"""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import WSMessage, WSMsgType, web

from actors import telemetry
from actors.gateway.auth import MAY_INGEST, Authority
from actors.gateway.connection import RETRY_AFTER_S, Connection, reason_of
from actors.gateway.decode import Control, Wrong, decode, hello_version
from actors.gateway.door import Door
from actors.gateway.entrance import arrived_at, check_entry
from actors.gateway.wire import Wire, websocket
from actors.protocol import frames, ids
from actors.protocol.codes import CLOSE, PROTOCOL_VERSION, SUBPROTOCOL
from actors.protocol.defaults import HELLO_TIMEOUT_S, SLOW_CONSUMER_S
from actors.protocol.errors import HoldfastError

CLOSE_OF_ERROR = {
    401: CLOSE["not_authenticated"],
    403: CLOSE["not_allowed"],
    404: CLOSE["not_found"],
    410: CLOSE["session_closed"],
    429: CLOSE["rate_limited"],
}
_GONE = (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR)


class Ingest:
    def __init__(self, door: Door, authority: Authority, *, hello_timeout_s: float = HELLO_TIMEOUT_S) -> None:
        self.door, self.authority, self.hello_timeout_s = door, authority, hello_timeout_s

    async def handle(self, request: web.Request) -> web.StreamResponse:
        settings = self.door.settings
        ws = websocket(max_msg_size=settings.max_frame_bytes + 1, protocols=(SUBPROTOCOL,))
        if not ws.can_prepare(request):
            raise HoldfastError("bad_request", "this is a WebSocket; say Upgrade: websocket")
        await ws.prepare(request)
        wire = Wire(
            ws,
            request.transport,
            now=self.door.clock,
            ping_s=settings.server_ping_s,
            pong_s=settings.server_pong_s,
            slow_s=SLOW_CONSUMER_S,
            pace=self.door.limits.pace(request),
            arrived=arrived_at(request),
        )
        try:
            caller = await self._admit(request)
        except HoldfastError as error:
            later = error.status in (429, 503)
            reason = reason_of(error.code, RETRY_AFTER_S if later else None)
            await wire.close(CLOSE_OF_ERROR.get(error.status, CLOSE["try_again_later"]), reason)
            return ws
        await self.converse(ws, Connection(self.door, wire, request.match_info["sid"], caller))
        return ws

    async def converse(self, ws: web.WebSocketResponse[Any], connection: Connection) -> None:
        """From the admission to the last word: what a socket is, whoever made it."""
        self.door.admit(connection)
        code: int | None = None
        reason = ""
        try:
            if await self._hello(ws, connection):
                code, reason = await self._read(ws, connection)
        finally:
            await self._leave(connection, code, reason)

    async def _admit(self, request: web.Request) -> str:
        sid = request.match_info["sid"]
        check_entry(request, self.door.limits)
        caller = await self.authority.caller(request)
        if not ids.valid_id(sid):
            raise HoldfastError("session_not_found")
        caller.need(MAY_INGEST, sid)
        self.door.room(caller.token_hash, request.remote)
        return caller.token_hash

    async def _hello(self, ws: web.WebSocketResponse[Any], connection: Connection) -> bool:
        """The first frame, in time. False: the socket is being closed."""
        try:
            async with asyncio.timeout(self.hello_timeout_s):
                message = await self._next(ws, connection)
        except TimeoutError:
            connection.say_error("hello_timeout", f"no hello within {self.hello_timeout_s:g} s")
            connection.end(CLOSE["protocol_error"], "hello_timeout")
            return False
        if message.type in _GONE:
            return False
        if message.type is WSMsgType.TEXT:
            version = hello_version(message.data)
            if version is not None and version != PROTOCOL_VERSION:
                connection.end(CLOSE["version_not_supported"], f"this service speaks protocol {PROTOCOL_VERSION}")
                return False
            item = decode(message.data)
            if isinstance(item, Control) and isinstance(item.frame, frames.Hello):
                connection.take(item)
                return True
            connection.say_error("bad_hello", item.message if isinstance(item, Wrong) else "hello must come first")
        connection.end(CLOSE["protocol_error"], "bad_hello")
        return False

    async def _read(self, ws: web.WebSocketResponse[Any], connection: Connection) -> tuple[int | None, str]:
        """Until the socket ends; returns how."""
        while True:
            message = await self._next(ws, connection)
            if message.type is WSMsgType.TEXT:
                connection.take(decode(message.data))
            elif message.type is WSMsgType.BINARY:
                connection.take(Wrong("invalid_frame", "frames are text", fatal=True, size=len(message.data)))
            elif message.type is WSMsgType.CLOSE:
                return message.data or 1005, message.extra or ""  # 1005: a close frame without a code
            elif message.type is WSMsgType.ERROR and ws.close_code:
                return int(ws.close_code), str(message.data)[:200]
            else:
                return None, ""

    async def _next(self, ws: web.WebSocketResponse[Any], connection: Connection) -> WSMessage:
        """Pings are answered here, and anything heard is life of the process behind the socket."""
        while True:
            message = await ws.receive()
            if message.type in _GONE:
                return message
            control = message.type is WSMsgType.PING or message.type is WSMsgType.PONG
            if not connection.wire.heard(len(message.data), control=control):
                connection.too_much()  # what came before is applied; this frame is not, and its ack will not come
            elif message.type is WSMsgType.PING:
                connection.wire.pong(message.data)
            elif not control:
                return message

    async def _leave(self, connection: Connection, code: int | None, reason: str) -> None:
        door, wire = self.door, connection.wire
        error = ""
        if connection.end_code is not None:
            code, reason = connection.end_code, connection.end_reason
        elif wire.cut_because or code in (None, 1006):
            code, error = 1006, wire.cut_because or "connection lost"
        try:
            await connection.drained()
        finally:
            connection.void()
            door.dismiss(connection)
            if connection.asked:
                door.report_closed(connection.session_id, connection.connection_id, code, reason, error)
                telemetry.emit(
                    "ingest.closed",
                    session_id=connection.session_id,
                    connection_id=connection.connection_id,
                    code=code,
                    error=error,
                )
            if connection.closing is not None:
                await asyncio.wait({connection.closing})  # bounded by CLOSE_WAIT_S
            elif not wire.ws.closed:
                wire.cut("left")
