"""The socket of a peer that holds a link, from the upgrade to its end. It always reads: a handler that stops reading is
cut by its own ping (DESIGN §2.5). What a frame means is the peer's own (connection.py, node_connection.py).

Every end is told to the peer's subject, once, after the frames received before it are applied; also that of a
connection whose connect has an unknown outcome. A refusal before the hello is a close code (PROTOCOL §2.3), because
that is the one table that such a peer reads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from aiohttp import WSMessage, WSMsgType, web

from actors import telemetry
from actors.gateway.auth import Authority
from actors.gateway.decode import Wrong, hello_version
from actors.gateway.door import Door
from actors.gateway.entrance import arrived_at
from actors.gateway.peer import RETRY_AFTER_S, Peer, reason_of
from actors.gateway.wire import FRAME_HEAD_BYTES, Frames, Wire, websocket
from actors.protocol.codes import CLOSE, PROTOCOL_VERSION, SUBPROTOCOL
from actors.protocol.defaults import HELLO_TIMEOUT_S, SLOW_CONSUMER_S
from actors.protocol.errors import HoldfastError

CLOSE_OF_ERROR = {
    400: CLOSE["protocol_error"],
    401: CLOSE["not_authenticated"],
    403: CLOSE["not_allowed"],
    404: CLOSE["not_found"],
    410: CLOSE["session_closed"],
    429: CLOSE["rate_limited"],
}
TOGETHER_BYTES: Final = 256 << 10  # one read of the loop's; more is not waited for
_GONE = (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR)


class Together:
    """Frames that came in one turn of the loop: decoded and taken together, when it has read all there was."""

    def __init__(self, peer: Peer, decode_all: Callable[[list[bytes]], list[Any]]) -> None:
        self._peer, self._decode_all = peer, decode_all
        self._raws: list[bytes] = []
        self._size = 0

    def add(self, raw: bytes) -> None:
        raws = self._raws
        if not raws:
            self._peer.door.soon(self.give)
        raws.append(raw)
        self._size += len(raw) + FRAME_HEAD_BYTES
        if self._size > TOGETHER_BYTES:
            self.give()

    def give(self) -> None:
        if self._raws:
            raws, self._raws, self._size = self._raws, [], 0
            self._peer.take_all(self._decode_all(raws))


class PeerSockets:
    """Subclasses: admit (who may come in, and as what), decode, is_hello."""

    def __init__(self, door: Door, authority: Authority, *, hello_timeout_s: float = HELLO_TIMEOUT_S) -> None:
        self.door, self.authority, self.hello_timeout_s = door, authority, hello_timeout_s

    async def admit(self, request: web.Request, wire: Wire) -> Peer:
        """Raises HoldfastError, whose status becomes the close code."""
        raise NotImplementedError

    def decode(self, raw: bytes) -> Any:
        """Never raises: what is not usable is a Wrong."""
        raise NotImplementedError

    def decode_all(self, raws: list[bytes]) -> list[Any]:
        """Frames that were read together. Never raises."""
        return [self.decode(raw) for raw in raws]

    def is_hello(self, item: Any) -> bool:
        raise NotImplementedError

    # ------------------------------------------------------------ from the upgrade to the end

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
            peer = await self.admit(request, wire)
        except HoldfastError as error:
            later = error.status in (429, 503)
            reason = reason_of(error.code, RETRY_AFTER_S if later else None)
            await wire.close(CLOSE_OF_ERROR.get(error.status, CLOSE["try_again_later"]), reason)
            return ws
        await self.converse(ws, peer)
        return ws

    async def converse(self, ws: Frames, peer: Peer) -> None:
        """From the admission to the last word: what a socket is, whoever made it."""
        self.door.admit(peer)
        code: int | None = None
        reason = ""
        try:
            if await self._hello(ws, peer):
                code, reason = await self._read(ws, peer)
        finally:
            await self._leave(peer, code, reason)

    async def _hello(self, ws: Frames, peer: Peer) -> bool:
        """The first frame, in time. False: the socket is being closed."""
        try:
            async with asyncio.timeout(self.hello_timeout_s):
                message = await self._next(ws, peer)
        except TimeoutError:
            peer.say_error("hello_timeout", f"no hello within {self.hello_timeout_s:g} s")
            peer.end(CLOSE["protocol_error"], "hello_timeout")
            return False
        if message.type in _GONE:
            return False
        if message.type is WSMsgType.TEXT:
            version = hello_version(message.data)
            if version is not None and version != PROTOCOL_VERSION:
                peer.end(CLOSE["version_not_supported"], f"this service speaks protocol {PROTOCOL_VERSION}")
                return False
            item = self.decode(message.data)
            if self.is_hello(item):
                peer.take(item)
                return True
            peer.say_error("bad_hello", item.message if isinstance(item, Wrong) else "hello must come first")
        peer.end(CLOSE["protocol_error"], "bad_hello")
        return False

    async def _read(self, ws: Frames, peer: Peer) -> tuple[int | None, str]:
        """Until the socket ends; returns how. Text frames go to the peer once a turn of the loop, as they were read."""
        wire, together = peer.wire, Together(peer, self.decode_all)

        def heard(raw: bytes) -> None:
            if wire.heard(len(raw)):
                together.add(raw)
            else:
                together.give()
                peer.too_much()  # what came before is applied; this frame is not, and its ack will not come

        ws.listen(heard)
        try:
            while True:
                message = await self._next(ws, peer)
                together.give()  # what came before it, also in this very turn of the loop
                if message.type is WSMsgType.BINARY:
                    peer.take(Wrong("invalid_frame", "frames are text", fatal=True, size=len(message.data)))
                elif message.type is WSMsgType.CLOSE:
                    return message.data or 1005, message.extra or ""  # 1005: a close frame without a code
                elif message.type is WSMsgType.ERROR and ws.close_code:
                    return int(ws.close_code), str(message.data)[:200]
                else:
                    return None, ""
        finally:
            together.give()

    async def _next(self, ws: Frames, peer: Peer) -> WSMessage:
        """Pings are answered here, and anything heard is life of the process behind the socket."""
        while True:
            message = await ws.receive()
            if message.type in _GONE:
                return message
            control = message.type is WSMsgType.PING or message.type is WSMsgType.PONG
            if not peer.wire.heard(len(message.data), control=control):
                peer.too_much()
            elif message.type is WSMsgType.PING:
                peer.wire.pong(message.data)
            elif not control:
                return message

    async def _leave(self, peer: Peer, code: int | None, reason: str) -> None:
        door, wire = self.door, peer.wire
        error = ""
        if peer.end_code is not None:
            code, reason = peer.end_code, peer.end_reason
        elif wire.cut_because or code in (None, 1006):
            code, error = 1006, wire.cut_because or "connection lost"
        try:
            await peer.drained()
        finally:
            peer.void()
            door.dismiss(peer)
            if peer.asked:
                door.report_closed(peer.closed(code, reason, error))
                telemetry.emit(
                    f"{peer.kind}.closed",
                    subject=peer.subject,
                    connection_id=peer.connection_id,
                    code=code,
                    error=error,
                )
            if peer.closing is not None:
                await asyncio.wait({peer.closing})  # bounded by CLOSE_WAIT_S
            elif not wire.ws.closed:
                wire.cut("left")
