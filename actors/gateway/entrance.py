"""A TCP connection before and between its requests: who never finishes asking, and who never takes the answer, is cut.

aiohttp has one clock for a connection that asks nothing, and it is the one of idle keep-alive: too long for a stranger
who dribbles headers. So each connection gets our own for its first request; for the later ones keep-alive's holds,
because dribbling does not restart it. Bytes are counted as they arrive, for frames that never end (limits.py).

What the HTTP parser refuses never reaches a handler. It is answered here with a problem document, and told by the name
of the mistake alone: aiohttp would log and echo the offending line, and that may be a header with a token in it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong

from actors import telemetry
from actors.config import Settings
from actors.gateway.door import SOCKETS_MAX
from actors.gateway.limits import Limits
from actors.gateway.problems import problem
from actors.protocol.defaults import REQUEST_TIMEOUT_S, SLOW_CONSUMER_S
from actors.protocol.errors import HoldfastError

# Connections that are no sockets: requests on their way, keep-alive, strangers. Past both together nothing is said.
OTHERS_MAX: Final = 4096
HEADERS_MAX: Final = 64  # browsers send about 20
HEADER_BYTES: Final = 8190  # one line or field, the default of most servers; a token has 47 characters


class Visitor(web.RequestHandler):
    """aiohttp's protocol of one connection, with a deadline, a count, and discretion."""

    __slots__ = ("_deadline", "_left", "_stalled", "address", "arrived", "surplus")

    def __init__(self, entrance: Entrance, **kwargs: Any) -> None:
        super().__init__(entrance, **kwargs)
        self.address: str | None = None
        self.arrived = 0  # bytes
        self.surplus = False  # one more than its address may have
        self._deadline: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None
        self._left = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        entrance = self._manager
        assert isinstance(entrance, Entrance)
        peer = transport.get_extra_info("peername")
        self.address = str(peer[0]) if isinstance(peer, tuple) and peer else None
        self._deadline = self._loop.call_later(entrance.within_s, self._late)
        self.surplus = not entrance.arrive(self.address)
        if entrance.full:
            self._cut("full")

    def connection_lost(self, exc: BaseException | None) -> None:
        if isinstance(self._manager, Entrance):
            self._manager.leave(self.address)
        for timer in (self._deadline, self._stalled):
            if timer is not None:
                timer.cancel()
        self._deadline = self._stalled = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self.arrived += len(data)
        super().data_received(data)

    # ------------------------------------------------------------ too slow

    def asked(self) -> None:
        """The first request stands, with all its headers."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _late(self) -> None:
        self._deadline = None
        self._cut("no request in time")

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch()

    def resume_writing(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
        super().resume_writing()

    def _watch(self) -> None:
        """An answer that is taken at no speed at all. Sockets have a rule of their own (wire.py)."""
        if self.transport is not None:
            self._left = self.transport.get_write_buffer_size()
            self._stalled = self._loop.call_later(SLOW_CONSUMER_S, self._still_stalled)

    def _still_stalled(self) -> None:
        self._stalled = None
        if self.transport is None or self._payload_parser is not None:
            return
        if self.transport.get_write_buffer_size() >= self._left:
            self._cut("takes no answer")
        else:
            self._watch()

    def _cut(self, why: str) -> None:
        if isinstance(self._manager, Entrance):
            self._manager.cut[why] += 1
        if self.transport is not None:
            self.transport.abort()

    # ------------------------------------------------------------ what is not HTTP

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        telemetry.emit("gateway.bad_http", status=status, error=type(exc).__name__)
        if request.writer.output_size > 0:
            raise ConnectionError("an answer was begun; it cannot become an error")
        if isinstance(exc, LineTooLong):
            made = problem(HoldfastError("headers_too_large"))
        else:
            made = problem(HoldfastError("bad_request" if status < 500 else "internal", "this is not valid HTTP"))
        made.force_close()
        return made

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """Unhandled, in aiohttp itself: its name is enough, its text may hold what a stranger sent."""
        error = kw.get("exc_info")
        telemetry.emit("gateway.connection_failed", error=type(error).__name__)


class Entrance(web.Server):
    """Makes visitors and counts them by address."""

    def __init__(self, server: web.Server, limits: Limits, settings: Settings, within_s: float) -> None:
        super().__init__(
            server.request_handler,
            request_factory=server.request_factory,
            handler_cancellation=server.handler_cancellation,
            **server._kwargs,
        )
        self._limits, self._most, self.within_s = limits, settings.connections_per_address, within_s
        self._by_address: Counter[str] = Counter()
        self.cut: Counter[str] = Counter()  # by why; for /metrics

    def __call__(self) -> web.RequestHandler:
        return Visitor(self, loop=self._loop, **self._kwargs)

    @property
    def full(self) -> bool:
        return len(self._connections) > SOCKETS_MAX + OTHERS_MAX

    def arrive(self, address: str | None) -> bool:
        """False: more than this address may have."""
        self._by_address[address or ""] += 1
        return self._limits.spares(address) or self._by_address[address or ""] <= self._most

    def leave(self, address: str | None) -> None:
        self._by_address[address or ""] -= 1
        if self._by_address[address or ""] <= 0:
            del self._by_address[address or ""]


class Runner(web.AppRunner):
    """aiohttp's, with our entrance in front."""

    def __init__(
        self,
        app: web.Application,
        limits: Limits,
        settings: Settings,
        *,
        within_s: float = REQUEST_TIMEOUT_S,
        **kw: Any,
    ) -> None:
        super().__init__(
            app,
            handle_signals=False,
            access_log=None,  # a URL may hold a ticket
            auto_decompress=False,  # a body is refused compressed, never unpacked
            max_line_size=HEADER_BYTES,
            max_field_size=HEADER_BYTES,
            max_headers=HEADERS_MAX,
            **kw,
        )
        self._limits, self._settings, self._within_s = limits, settings, within_s

    async def _make_server(self) -> web.Server:
        return Entrance(await super()._make_server(), self._limits, self._settings, self._within_s)


def is_websocket(request: web.Request) -> bool:
    return request.headers.get("Upgrade", "").lower() == "websocket"


def arrived_at(request: web.Request) -> Callable[[], int]:
    """How many bytes the request's connection has brought so far."""
    visitor = request.protocol
    return (lambda: visitor.arrived) if isinstance(visitor, Visitor) else (lambda: 0)


def check_entry(request: web.Request, limits: Limits) -> None:
    """Before anything else is done for the request. Raises too_many_connections, rate_limited: for a socket that
    becomes a close code, so its handler asks; for the others the gateway's middleware does."""
    visitor = request.protocol
    if isinstance(visitor, Visitor) and visitor.surplus:
        limits.refused["connections_per_address"] += 1
        raise HoldfastError("too_many_connections", "this address holds as many connections as one may")
    limits.request(f"@{request.remote}", request.remote)
