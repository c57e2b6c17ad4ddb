"""The gateway as a whole: opens the door, keeps its loops alive, closes it.

It runs inside a Ray actor, so its event loop is not the main thread: no signal handlers. Its loops are few, each is
restarted when it fails, and each only asks the store or says hints; what they find late is late, never lost.
"""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import Callable, Sequence
from typing import Final, cast

from aiohttp import web

from actors import telemetry
from actors.config import Settings
from actors.gateway import routes
from actors.gateway.api import Api
from actors.gateway.auth import Authority, own_origins
from actors.gateway.batches import BatchApi
from actors.gateway.door import Door
from actors.gateway.enrolments import EnrolmentApi
from actors.gateway.entrance import Entrance, Runner, Visitor, check_entry, is_websocket
from actors.gateway.ingest import Ingest
from actors.gateway.loops import Loops, started_at
from actors.gateway.metrics import Metrics
from actors.gateway.node_sockets import NodeSockets
from actors.gateway.nodes import NodeApi
from actors.gateway.operations import Operations
from actors.gateway.orders import OrderApi
from actors.gateway.pages import Pages
from actors.gateway.problems import Handler, problems
from actors.gateway.stations import CollectorApi, StationApi
from actors.gateway.stream import Streams
from actors.gateway.tasks import TaskApi
from actors.gateway.tokens import TokenApi
from actors.gateway.webhooks import Deliverer
from actors.law.effects import Done, Speech
from actors.law.nodes.requests import NodeClosed
from actors.law.requests import Closed, Request
from actors.mailbox import ActorPort, Mailbox
from actors.objects import ObjectStore, object_store
from actors.protocol import ids
from actors.protocol.codes import CLOSE
from actors.protocol.defaults import HELLO_TIMEOUT_S, MAX_BODY_BYTES, REQUEST_TIMEOUT_S, SLOW_CONSUMER_S
from actors.protocol.errors import HoldfastError, StorageBroken
from actors.protocol.node_codes import Role
from actors.store.contract import Outcome
from actors.store.worker import StoreWorker

BIND_TRIES_S: Final = 10.0  # a predecessor that was just killed may still hold the port
REGISTER_PAUSE_S: Final = 0.5
LOST_AT_ONCE: Final = 32  # connections of a dead gateway closed at a time, so that they do not fill the writer's queue
STOP_S: Final = 5.0
KEEPALIVE_S: Final = 75.0
LINGER_S: Final = 3.0  # for a client that still sends to read why it was refused
OPEN_WITHOUT_WAITING: Final = frozenset({"/healthz", "/readyz"})


def wall_ms() -> int:
    return time.time_ns() // 1_000_000


class Gateway:
    """`await start()` binds, registers and opens; returns the URL. `port` is the runtime's side of the mailbox.

    Raises OSError if the address stays taken for BIND_TRIES_S, and StorageBroken.
    """

    def __init__(
        self,
        settings: Settings,
        worker: StoreWorker,
        mailbox: Mailbox,
        port: ActorPort | None = None,
        *,
        gateway_id: str | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], int] = wall_ms,
        hello_timeout_s: float = HELLO_TIMEOUT_S,
        slow_s: float = SLOW_CONSUMER_S,
        deliverer: Callable[[Door], Deliverer] = Deliverer,
        objects: ObjectStore | None = None,
        request_timeout_s: float = REQUEST_TIMEOUT_S,
        keepalive_s: float = KEEPALIVE_S,
        mint: ids.Mint = ids.ulid,
    ) -> None:
        self.settings, self.worker, self.mailbox = settings, worker, mailbox
        self.port = port if port is not None else mailbox.port
        self.gateway_id = gateway_id or ids.new_id("gateway", mint)
        stored = objects if objects is not None else object_store(settings.objects_dir)
        self.door = Door(
            settings, worker, mailbox, stored, gateway_id=self.gateway_id, now=clock, wall_ms=wall, mint=mint
        )
        self.authority = Authority(worker, settings.allowed_origins, self.door.limits, clock, wall)
        self.ingest = Ingest(self.door, self.authority, hello_timeout_s=hello_timeout_s)
        self.node_sockets = NodeSockets(self.door, self.authority, hello_timeout_s=hello_timeout_s)
        self.streams = Streams(self.door, self.authority, slow_s=slow_s)
        self.webhooks = deliverer(self.door)
        self.loops = Loops(self.door, self.authority, self.port, self.webhooks, clock)
        self._pages = Pages(self.door, self.authority, self.loops, self.port)
        self._metrics = Metrics(self.door, self.authority)
        self._timeouts = (request_timeout_s, keepalive_s)
        self.url = ""
        self._open = asyncio.Event()
        self._runner: web.AppRunner | None = None

    # ------------------------------------------------------------ opening

    async def start(self) -> str:
        within_s, keepalive_s = self._timeouts
        self._runner = Runner(
            self._application(),
            self.door.limits,
            self.settings,
            within_s=within_s,
            shutdown_timeout=1.0,
            keepalive_timeout=keepalive_s,
            lingering_time=LINGER_S,
        )
        await self._runner.setup()
        if isinstance(self._runner.server, Entrance):
            self._metrics.entrance = self._runner.server
        self.url = await self._bind(self._runner)
        self.authority.origins |= own_origins(self.url)
        await self.open()
        return self.url

    async def open(self) -> None:
        """Everything of `start` but the address: says that this gateway is the door, ends what a dead one held."""
        lost = await self._register()
        self._open.set()
        self.loops.start()
        self.door.spawn(self._close_lost(lost))
        telemetry.emit("gateway.open", gateway_id=self.gateway_id, url=self.url, lost_connections=len(lost))

    def _application(self) -> web.Application:
        app = web.Application(middlewares=[problems, self._enter, self._when_open], client_max_size=MAX_BODY_BYTES)
        app.on_response_prepare.append(self._allow_origin)
        within_s = self._timeouts[0]
        rooms = {
            "api": Api(self.door, self.authority, body_timeout_s=within_s),
            "operations": Operations(self.door, self.authority, body_timeout_s=within_s),
            "nodes": NodeApi(self.door, self.authority, body_timeout_s=within_s),
            "tasks": TaskApi(self.door, self.authority, body_timeout_s=within_s),
            "enrolments": EnrolmentApi(self.door, self.authority, body_timeout_s=within_s),
            "orders": OrderApi(self.door, self.authority, body_timeout_s=within_s),
            "batches": BatchApi(self.door, self.authority, body_timeout_s=within_s),
            "stations": StationApi(self.door, self.authority, body_timeout_s=within_s),
            "collectors": CollectorApi(self.door, self.authority, body_timeout_s=within_s),
            "tokens": TokenApi(self.door, self.authority, body_timeout_s=within_s),
            "pages": self._pages,
            "metrics": self._metrics,
            "ingest": self.ingest,
            "node_sockets": self.node_sockets,
            "streams": self.streams,
        }
        app.add_routes(routes.bind(**rooms))
        return app

    async def _allow_origin(self, request: web.Request, response: web.StreamResponse) -> None:
        """Pages of the allow-list may read our answers; others were refused, and may not read why."""
        if request.headers.get("Origin") in self.settings.allowed_origins:
            response.headers["Access-Control-Allow-Origin"] = request.headers["Origin"]
            response.headers["Vary"] = "Origin"

    async def _bind(self, runner: web.AppRunner) -> str:
        host, until = self.settings.host, time.monotonic() + BIND_TRIES_S
        while True:
            site = web.TCPSite(runner, host, self.settings.port, backlog=1024)
            try:
                await site.start()
                break
            except OSError as error:
                await site.stop()
                if error.errno != errno.EADDRINUSE or time.monotonic() > until:
                    raise
            await asyncio.sleep(0.1)
        port = runner.addresses[0][1]
        shown = f"[{host}]" if ":" in host else host
        return f"http://{shown}:{port}"

    async def _register(self) -> list[Request]:
        """Returns how the ends of the connections are told that a dead gateway held."""
        import os

        pid = os.getpid()
        while True:
            try:
                sessions = await self.worker.write(
                    lambda store: store.register_gateway(self.gateway_id, pid, started_at(pid) or 0, self.url)
                )
                roles = await self.worker.read(lambda store: store.lost_node_roles(self.gateway_id))
                return _lost(sessions, roles, self.door.mint)
            except StorageBroken:
                raise
            except HoldfastError as error:
                telemetry.emit("gateway.register_failed", code=error.code)
                await asyncio.sleep(REGISTER_PAUSE_S)

    async def _close_lost(self, lost: Sequence[Request]) -> None:
        """Connections that a dead gateway held: their peers are on their way back, and the grace begins now."""
        for start in range(0, len(lost), LOST_AT_ONCE):
            for closed in lost[start : start + LOST_AT_ONCE]:
                self.door.report_closed(closed)
            await asyncio.sleep(0.01)

    @web.middleware
    async def _enter(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """What every request meets first, whoever asks and for what."""
        if isinstance(request.protocol, Visitor):
            request.protocol.asked()
        if "Content-Encoding" in request.headers:  # of any route: nothing here ever unpacks a body
            raise HoldfastError("unsupported_media_type", "send the body uncompressed")
        if not is_websocket(request) and request.path not in OPEN_WITHOUT_WAITING:
            check_entry(request, self.door.limits)
        return await handler(request)

    @web.middleware
    async def _when_open(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Bound but not registered yet: a connect now would be taken for one of the dead gateway."""
        if not self._open.is_set() and request.path not in OPEN_WITHOUT_WAITING:
            await self._open.wait()
        if request.method == "OPTIONS":
            return await self._pages.preflight(request)
        return await handler(request)

    # ------------------------------------------------------------ from other processes

    def hint(self, subject: str, last_seq: int = 0, speech: Sequence[Speech] = ()) -> None:
        """The reaper had something decided: rows up to last_seq, and what it said. Cheap, idempotent, may be lost."""
        self.door.speak(Outcome(subject, Done(changed=True), tuple(speech), last_seq))
        self.door.commands_wait(subject)

    # ------------------------------------------------------------ closing

    async def stop(self) -> None:
        """Sockets are told to come back (1012), their ends are committed, then the door is gone."""
        self.door.accepting = False
        self.door.waiting.leave()
        await self.loops.stop()
        await self.webhooks.stop()
        for socket in list(self.door.sockets):
            socket.end(CLOSE["service_restart"], "the gateway stops", drain=True)
        await self.door.emptied(STOP_S)
        await self.door.settle(STOP_S)
        if self._runner is not None:
            await self._runner.cleanup()
        try:
            await self.worker.write(lambda store: store.unregister_gateway(self.gateway_id))
        except HoldfastError as error:
            telemetry.emit("gateway.unregister_failed", code=error.code)
        telemetry.emit("gateway.stopped", gateway_id=self.gateway_id)


def _lost(sessions: Sequence[tuple[str, str]], roles: Sequence[tuple[str, str, str]], mint: ids.Mint) -> list[Request]:
    return [
        *(Closed(session_id=s, seed=mint(), connection_id=c, code=1006, error="gateway_lost") for s, c in sessions),
        *(
            NodeClosed(
                node_id=n,
                seed=mint(),
                role=cast(Role, r),
                connection_id=c,
                code=1006,
                error="gateway_lost",
                gateway_lost=True,
            )
            for n, r, c in roles
        ),
    ]
