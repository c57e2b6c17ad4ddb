"""The durable side as processes that can fall: gateways, reapers, session actors. Their code is the real one.

What Ray does is modelled here: a call may be lost with its process, an actor may be alive twice, a hint may vanish.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from actors.gateway.door import Door
from actors.gateway.limits import Pace
from actors.gateway.service import Gateway
from actors.gateway.wire import Wire
from actors.law.requests import Request
from actors.mailbox import Asleep, Mailbox, OutcomeUnknown
from actors.objects import object_store
from actors.protocol.defaults import FEED_GROUP_BYTES, RETENTION_S
from actors.protocol.errors import HoldfastError
from actors.reaper import Reaper
from actors.session import SessionActor
from actors.store.contract import ActorRow, IdempotencyKey, Outcome
from tests.simulation.kernel import US, Process
from tests.simulation.net import Line

if TYPE_CHECKING:
    from tests.simulation.world import World

SLOW_S = 5.0
HIBERNATE_S = 4.0
DIES_KNOWN_US = 300_000  # until a caller hears that the process he asked is gone


class QuietDeliverer:
    """No execution of this world has a callback; exactly-once webhooks are no guarantee."""

    def __init__(self, door: Door) -> None:
        return

    async def turn(self) -> None:
        return

    async def stop(self) -> None:
        return


class SimPort:
    """ActorPort over the kernel. Beliefs are those of the registry, and as old."""

    def __init__(self, world: World, process: Process) -> None:
        self.world, self.process = world, process
        self.rows: dict[str, ActorRow] = {}

    def believe(self, rows: list[ActorRow]) -> None:
        self.rows = {row.name: row for row in rows}

    def awake(self, session_id: str) -> bool:
        name = f"session/{session_id}"
        return name in self.rows or self.world.actor_named(name, self.process.kernel.now - US) is not None

    async def call(self, request: Request, key: IdempotencyKey | None, within_s: float) -> Outcome:
        kernel, name = self.world.kernel, f"session/{request.session_id}"
        actor = self.world.actor_named(name)
        if actor is None:
            self.rows.pop(name, None)
            raise Asleep(name)
        future = self.process.create_future()

        def settle(result: Any, error: BaseException | None) -> None:
            if self.process.alive and not future.done():
                if error is not None:
                    future.set_exception(error)
                else:
                    future.set_result(result)

        def answer(result: Any, error: BaseException | None) -> None:
            kernel.after(kernel.latency(300, 2 * US, 0.01), settle, result, error)

        def died() -> None:
            kernel.after(kernel.latency(DIES_KNOWN_US), settle, None, OutcomeUnknown(name))

        actor.process.on_death.append(died)
        kernel.after(kernel.latency(300, 2 * US, 0.01), actor.receive, request, key, answer)
        async with asyncio.timeout(within_s):
            return await future  # type: ignore[no-any-return]

    def wake(self, session_id: str) -> None:
        self.world.wake(session_id)

    def end_frozen(self, session_id: str) -> None:
        name = f"session/{session_id}"
        self.rows.pop(name, None)
        for actor in self.world.actors:
            if actor.row.name == name and actor.process.frozen and self.world.may_kill(actor.process):
                self.world.kernel.said(self.process.name, f"! ends the frozen {actor.process.name}")
                actor.process.crash()


class GatewayProcess:
    def __init__(self, world: World, n: int) -> None:
        kernel = world.kernel
        self.world = world
        self.process = Process(kernel, f"gateway-{n}")
        self.worker = world.parts.worker(self.process, world.disk, world.watchman)
        self.port = SimPort(world, self.process)
        self.gateway = Gateway(
            world.settings,
            self.worker,
            Mailbox(self.worker.perform, self.port),
            self.port,
            gateway_id=f"gw_{n}",
            clock=self.process.time,
            wall=world.disk.wall_ms,
            hello_timeout_s=4.0,
            slow_s=SLOW_S,
            deliverer=QuietDeliverer,
            mint=kernel.mint,
        )
        self.door = self.gateway.door
        self.process.create_task(self._open())

    async def _open(self) -> None:
        await self.gateway.open()

    @property
    def accepting(self) -> bool:
        return self.process.alive and self.gateway._open.is_set()

    def _wire(self, line: Line) -> Wire:
        settings, end = self.world.settings, line.server
        return Wire(
            end,  # type: ignore[arg-type]
            end,  # type: ignore[arg-type]
            now=self.door.clock,
            ping_s=settings.server_ping_s,
            pong_s=settings.server_pong_s,
            slow_s=SLOW_S,
            pace=Pace(0.0, 0.0, unfinished_max=8 * settings.max_frame_bytes),
        )

    def ingest(self, line: Line, session_id: str) -> None:
        connection = line.server.connection = self.world.parts.connection(self.door, self._wire(line), session_id, None)  # type: ignore[attr-defined]
        self.process.create_task(self.gateway.ingest.converse(line.server, connection))  # type: ignore[arg-type]

    def stream(self, line: Line, session_id: str, **query: Any) -> None:
        streams, wire = self.gateway.streams, self._wire(line)

        async def serve(wire: Wire) -> tuple[int, str]:
            return await streams.follow(wire, self.door.hub.watch(session_id, **query))

        self.process.create_task(streams.converse(wire, None, serve, "stream"))

    def ask(self, request: Request, key: IdempotencyKey | None, answer: Any) -> None:
        """An operator's request, as gateway/api.py asks the door."""

        async def asked() -> None:
            try:
                result, error = await self.door.perform(request, key, wake=True), None
            except HoldfastError as raised:
                result, error = None, raised
            answer(result, error)

        if self.accepting:
            self.process.create_task(asked())

    def hint(self, outcome: Outcome) -> None:
        if self.accepting:
            asyncio._set_running_loop(self.process)
            try:
                self.gateway.hint(outcome.session_id, outcome.last_seq, outcome.speech)
            finally:
                asyncio._set_running_loop(None)

    def memory(self) -> str | None:
        """What holds more than it may, or has lost count of what it holds, if there is anything (G11). Honest peers and
        short runs never come near a bound, so it is the counts that are judged: a bound over a wrong count is none."""
        for connection in self.door.connections.values():
            if (wrong := _miscounted(connection)) is not None:
                return wrong
        for feed in self.door.hub.feeds.values():
            ring = sum(len(entry.fragment.encode()) for entry in feed._ring)
            if feed._bytes != ring or ring > FEED_GROUP_BYTES:
                return (
                    f"the ring of {feed.session_id} counts {feed._bytes} bytes, holds {ring}, "
                    f"at most {FEED_GROUP_BYTES}"
                )
            if not feed.subscribers and not feed.arriving:
                return f"the ring of {feed.session_id} is kept, and nobody watches"
        return None


def _miscounted(connection: Any) -> str | None:
    name, held, most = connection.connection_id, connection._held, connection._held_max
    waiting = sum(item.size for item in connection._lane)
    if held > most + connection.door.settings.max_frame_bytes:
        return f"{name} holds {held} bytes; {most} is the most"
    if held < waiting or (held > waiting and not connection._in_flight):
        return f"{name} counts {held} bytes; {waiting} wait and {connection._in_flight} items are at the writer"
    return None


class ReaperProcess:
    def __init__(self, world: World, n: int) -> None:
        self.process = Process(world.kernel, f"reaper-{n}")
        self.worker = world.parts.worker(self.process, world.disk, world.watchman)
        self.port = SimPort(world, self.process)
        self.reaper = Reaper(
            self.worker,
            Mailbox(self.worker.perform, self.port),
            incarnation=f"reaper-{n}",
            pid=0,
            pid_started=0,
            tick_s=1.0,
            retention_s=RETENTION_S,
            on_outcome=world.hint,
            objects=object_store(None),
            mint=world.kernel.mint,
        )
        self.process.create_task(self.reaper.run())


class ActorProcess:
    def __init__(self, world: World, session_id: str, n: int) -> None:
        self.world, self.session_id = world, session_id
        self.process = Process(world.kernel, f"actor-{n}")
        self.worker = world.parts.worker(self.process, world.disk, world.watchman)
        self.row = ActorRow(f"session/{session_id}", "ray", f"inc-{n}", 0, 0)
        self.born_at = world.kernel.now
        self.actor = SessionActor(self.worker, self.row, HIBERNATE_S, self.process.time)
        self.open = False
        self.inside = 0
        self.process.create_task(self._live())

    async def _live(self) -> None:
        """As runtime.SessionRay: opens, and leaves when nobody needs it."""
        try:
            await self.actor.open()
        except HoldfastError:
            self.process.crash()
            return
        self.open = True
        while self.inside or not self.actor.may_hibernate():
            await asyncio.sleep(1.0)
            await self.actor.look_around()
        try:
            await self.actor.leave()
        except HoldfastError:
            self.world.kernel.said(self.process.name, "could not sign off")
        while self.inside:
            await asyncio.sleep(0.01)
        self.process.crash()

    def receive(self, request: Request, key: IdempotencyKey | None, answer: Any) -> None:
        if not self.process.alive:
            return

        async def performed() -> None:
            self.inside += 1
            try:
                result, error = await self.actor.perform(request, key), None
            except HoldfastError as raised:
                result, error = None, raised
            finally:
                self.inside -= 1
            answer(result, error)

        self.process.create_task(performed())
