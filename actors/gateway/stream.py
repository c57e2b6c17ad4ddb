"""Watching: a session's stream over WebSocket or SSE, and the fleet. One cursor path (feed.py), two ways to write it.

A subscriber that takes nothing for SLOW_CONSUMER_S is closed with 4008; its cursor brings it back. Nothing is kept for
it meanwhile: what it has not read stands in the store.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from typing import Any, Final, assert_never

import orjson
from aiohttp import WSMsgType, web

from actors import telemetry
from actors.gateway.auth import MAY_READ, Authority, Caller
from actors.gateway.door import Door
from actors.gateway.entrance import arrived_at, check_entry, is_websocket
from actors.gateway.feed import Batch, CaughtUp, Ephemeral, Gone, Reset, Step, Subscription
from actors.gateway.fleet import Screen
from actors.gateway.query import Query
from actors.gateway.sockets import CLOSE_OF_ERROR
from actors.gateway.wire import Slow, Wire, websocket
from actors.protocol import ids
from actors.protocol.codes import CLOSE, SUBPROTOCOL
from actors.protocol.defaults import SLOW_CONSUMER_S
from actors.protocol.errors import HoldfastError

SSE_COMMENT_S: Final = 15.0  # proxies cut a silent response after 30 s and more
SSE_HEADERS: Final[Mapping[str, str]] = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",
}
WATCHER_FRAME_MAX: Final = 4096  # a watcher has nothing to say but pings


class Watcher:
    """A live subscriber as the door's sweep sees it."""

    def __init__(self, token_hash: str | None, wire: Wire | None, task: asyncio.Task[Any], kind: str) -> None:
        self.token_hash = token_hash
        self.kind = kind
        self.wire, self.task = wire, task
        self.end_code: int | None = None
        self.end_reason = ""

    def tend(self) -> None:
        if self.wire is not None:
            self.wire.tend()
            if self.wire.excess is not None:
                self.end(CLOSE["rate_limited"], f"too many {self.wire.excess}")

    def end(self, code: int, reason: str = "", *, drain: bool = False) -> None:
        if self.end_code is None:
            self.end_code, self.end_reason = code, reason
            self.task.cancel()


class Streams:
    def __init__(self, door: Door, authority: Authority, *, slow_s: float = SLOW_CONSUMER_S) -> None:
        self.door, self.authority, self.slow_s = door, authority, slow_s

    async def session(self, request: web.Request) -> web.StreamResponse:
        sid = request.match_info["sid"]

        async def allowed() -> Caller:
            caller = await self.authority.caller(request, ticket_ok=True)
            if not ids.valid_id(sid):
                raise HoldfastError("session_not_found")
            return self._room(request, caller.need(MAY_READ, sid))

        if is_websocket(request):
            return await self._on_socket(
                request, allowed, lambda wire: self._session_socket(request, sid, wire), "stream"
            )
        return await self._on_sse(request, await allowed(), lambda out: self._session_sse(request, sid, out), "sse")

    async def fleet(self, request: web.Request) -> web.StreamResponse:
        async def allowed() -> Caller:
            caller = await self.authority.caller(request, ticket_ok=True)
            return self._room(request, caller.need(MAY_READ))

        if is_websocket(request):
            return await self._on_socket(request, allowed, self._fleet_socket, "fleet")
        return await self._on_sse(request, await allowed(), self._fleet_sse, "fleet_sse")

    def _room(self, request: web.Request, caller: Caller) -> Caller:
        self.door.room(caller.token_hash, request.remote)
        return caller

    async def _watch(self, request: web.Request, sid: str) -> tuple[dict[str, Any], Subscription]:
        query = Query(request)
        after = query.integer("after_seq")
        last_event_id = request.headers.get("Last-Event-ID")
        if last_event_id is not None:  # a reconnect knows better than the URL it began with
            after = query.checked_integer("Last-Event-ID", last_event_id)
        return await self.door.hub.watch(
            sid,
            after_seq=after,
            came_from=query.id("stream_id"),
            types=query.types(),
            execution_id=query.id("execution_id"),
            as_frames=is_websocket(request),
        )

    # ------------------------------------------------------------ WebSocket

    async def _on_socket(self, request: web.Request, allowed: Any, serve: Any, kind: str) -> web.StreamResponse:
        ws = websocket(max_msg_size=WATCHER_FRAME_MAX, protocols=(SUBPROTOCOL,))
        if not ws.can_prepare(request):
            raise HoldfastError("bad_request", "not a valid WebSocket upgrade")
        await ws.prepare(request)
        settings = self.door.settings
        wire = Wire(
            ws,
            request.transport,
            now=self.door.clock,
            ping_s=settings.server_ping_s,
            pong_s=settings.server_pong_s,
            slow_s=self.slow_s,
            pace=self.door.limits.pace(request),
            arrived=arrived_at(request),
        )
        try:
            check_entry(request, self.door.limits)
            caller = await allowed()
        except HoldfastError as error:
            await wire.close(CLOSE_OF_ERROR.get(error.status, CLOSE["try_again_later"]), error.code)
            return ws
        await self.converse(wire, caller.token_hash, serve, kind)
        return ws

    async def converse(self, wire: Wire, token_hash: str | None, serve: Any, kind: str) -> None:
        """From the admission to the close: serves until the peer leaves or there is nothing more to say."""
        serving = asyncio.get_running_loop().create_task(serve(wire))
        watcher = Watcher(token_hash, wire, serving, kind)
        self.door.sit(watcher)
        try:
            listening = asyncio.ensure_future(self._listen(wire))
            await asyncio.wait({serving, listening}, return_when=asyncio.FIRST_COMPLETED)
            watcher.tend()  # it may have been said too much
            code, reason = self._how(serving, watcher)
            await wire.close(code, reason)
            listening.cancel()
        finally:
            serving.cancel()
            self.door.rise(watcher)

    def _how(self, serving: asyncio.Task[Any], watcher: Watcher) -> tuple[int, str]:
        if watcher.end_code is not None:
            return watcher.end_code, watcher.end_reason
        if not serving.done() or serving.cancelled():
            return CLOSE["normal"], ""
        error = serving.exception()
        if isinstance(error, Slow):
            return CLOSE["slow_consumer"], "take it up again with your cursor"
        if isinstance(error, HoldfastError):
            if error.status == 400:  # it would be as wrong the next time
                return CLOSE["protocol_error"], error.detail
            return CLOSE_OF_ERROR.get(error.status, CLOSE["try_again_later"]), error.code
        if error is not None:
            telemetry.emit("stream.failed", error=repr(error))
            return CLOSE["try_again_later"], "internal"
        return serving.result()  # type: ignore[no-any-return]

    async def _listen(self, wire: Wire) -> None:
        """Until the peer leaves. What a watcher says is not listened to, but that it lives."""
        while True:
            message = await wire.ws.receive()
            if message.type in (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR):
                return
            if not wire.heard(len(message.data), control=True):  # a watcher needs to say no more than pings
                return
            if message.type is WSMsgType.PING:
                wire.pong(message.data)

    async def _session_socket(self, request: web.Request, sid: str, wire: Wire) -> tuple[int, str]:
        return await self.follow(wire, self._watch(request, sid))

    async def follow(self, wire: Wire, watched: Awaitable[tuple[dict[str, Any], Subscription]]) -> tuple[int, str]:
        """The snapshot, then every step of the cursor, for as long as the peer takes them. Returns how to close."""
        session, subscription = await watched
        try:
            wire.send(b'{"type":"snapshot","session":%b}' % orjson.dumps(session))
            subscription.taker = wire
            while True:
                step = await subscription.step()
                if isinstance(step, Gone):
                    return CLOSE["session_closed"], "session deleted"
                wire.send(_frame(step))
                await wire.drain()
        finally:
            subscription.close()

    async def _fleet_socket(self, wire: Wire) -> tuple[int, str]:
        screen = self.door.hub.fleet.open()
        try:
            while True:
                wire.send(await screen.frames.get())
                await wire.drain()
        finally:
            self.door.hub.fleet.close(screen)

    # ------------------------------------------------------------ SSE

    async def _on_sse(self, request: web.Request, caller: Caller, serve: Any, kind: str) -> web.StreamResponse:
        out = Lines(request, self.slow_s)
        task = asyncio.current_task()
        assert task is not None
        watcher = Watcher(caller.token_hash, None, task, kind)
        self.door.sit(watcher)
        try:
            await serve(out)
        except asyncio.CancelledError:
            if watcher.end_code is None:
                raise
            task.uncancel()  # ended by us (revoked, going away): the response ends; the next request is told why
        except (ConnectionError, Slow):
            out.cut()
        except HoldfastError:
            if not out.response.prepared:
                raise
            out.cut()  # in the middle of a body nothing else can be said; the cursor brings the client back
        finally:
            self.door.rise(watcher)
        return out.response

    async def _session_sse(self, request: web.Request, sid: str, out: Lines) -> None:
        session, subscription = await self._watch(request, sid)
        try:
            await out.open()
            await out.write(b"event: snapshot\ndata: %b\n\n" % orjson.dumps({"type": "snapshot", "session": session}))
            while True:
                try:
                    async with asyncio.timeout(SSE_COMMENT_S):
                        step = await subscription.step()
                except TimeoutError:
                    await out.write(b":\n\n")
                    continue
                if isinstance(step, Gone):
                    return
                await out.write(_sse(step))
        finally:
            subscription.close()

    async def _fleet_sse(self, out: Lines) -> None:
        screen: Screen = self.door.hub.fleet.open()
        try:
            await out.open()
            while True:
                try:
                    async with asyncio.timeout(SSE_COMMENT_S):
                        frame = await screen.frames.get()
                except TimeoutError:
                    await out.write(b":\n\n")
                    continue
                await out.write(b"event: sessions\ndata: %b\n\n" % frame)
        finally:
            self.door.hub.fleet.close(screen)


class Lines:
    """An SSE response that does not wait for ever."""

    def __init__(self, request: web.Request, slow_s: float) -> None:
        self.request, self.slow_s = request, slow_s
        self.response = web.StreamResponse(headers=SSE_HEADERS)

    async def open(self) -> None:
        await self.response.prepare(self.request)
        await self.write(b"retry: 1000\n\n")

    async def write(self, text: bytes) -> None:
        try:
            async with asyncio.timeout(self.slow_s):
                await self.response.write(text)
        except TimeoutError:
            raise Slow from None

    def cut(self) -> None:
        if self.request.transport is not None:
            self.request.transport.abort()


def _frame(step: Batch | CaughtUp | Reset | Ephemeral) -> bytes:
    if isinstance(step, Batch):
        return step.encoded()
    if isinstance(step, CaughtUp):
        return b'{"type":"caught_up","seq":%d}' % step.seq
    if isinstance(step, Ephemeral):
        return step.text.encode()
    if isinstance(step, Reset):
        return orjson.dumps(
            {
                "type": "reset",
                "reason": step.reason,
                "first_seq": step.first_seq,
                "last_seq": step.last_seq,
                "stream_id": step.stream_id,
            }
        )
    assert_never(step)


def _sse(step: Step) -> bytes:
    """Only a stored event has an id: the browser's cursor may never move for anything else. JSON has no raw newline."""
    if isinstance(step, Batch):
        return "".join(f"id: {e.seq}\nevent: {e.type}\ndata: {e.fragment}\n\n" for e in step.entries).encode()
    name = {CaughtUp: b"caught_up", Ephemeral: b"ephemeral", Reset: b"reset"}[type(step)]
    return b"event: %b\ndata: %b\n\n" % (name, _frame(step))  # type: ignore[arg-type]
