"""What the gateway does by the clock. Each loop is restarted if it fails; a store that is away is told once per turn.

- tick (1 s): service time moves on, from the very loop that accepts sockets, so it stands still while no door is open.
- tend (≤ 1 s): pings, slow peers, silent ones; every few seconds, whether their tokens still hold.
- seen (3 s): last-seen of all connections that spoke, in a few transactions.
- look (1 s): what other processes committed: heads of what is watched, commands, actors.
- webhooks (1 s): callbacks that are due go out.
- watch over the reaper (1 s): silent for 5 s, the gateway ticks itself; a reaper that is there and frozen is ended.
"""

from __future__ import annotations

import asyncio
import functools
import math
import os
import time
from collections.abc import Awaitable, Callable
from typing import Final

from actors import processes, telemetry
from actors.gateway.auth import CACHE_S, Authority
from actors.gateway.door import Door
from actors.gateway.webhooks import Deliverer
from actors.law.nodes.requests import NODE
from actors.law.requests import SessionRequest
from actors.mailbox import ActorPort
from actors.protocol.codes import CLOSE
from actors.protocol.defaults import LAST_SEEN_FLUSH_S, TICK_S
from actors.protocol.errors import HoldfastError
from actors.store.contract import Store

REAPER_SILENT_MS: Final = 5000
# Silent in so many looks, one a second, before it is ended: after a freeze of the whole machine, or a jump of the
# wall clock, a healthy reaper has beaten again by then.
REAPER_STRIKES: Final = 3
SWEEP_LIMIT: Final = 500
# Connections per transaction: 400 in one held the writer for 8 to 10 ms. Of thousands, no more than so many
# transactions, each with its fsync: a flush is over long before the next.
FLUSH_PART: Final = 100
FLUSH_PARTS: Final = 20
TEND_PART: Final = 100  # sockets looked at in one turn of the loop
RESTART_S: Final = 1.0
STUCK_S: Final = 15.0  # a writer gives up after 4 s, a group takes milliseconds; then /healthz fails and `up` acts

started_at = processes.started_at


def _flush(sessions: list[tuple[str, str, bool]], nodes: list[tuple[str, str, str]], store: Store) -> None:
    store.flush_seen(sessions)
    store.flush_node_seen(nodes)


def at_its_moment(due: float, every_s: float, now: float) -> float:
    """`due`; or, of the moments missed since, the last: its turn comes at once, and the next ones where they would have
    been. So who was late does not drift towards the others."""
    return max(due, due + math.floor((now - due) / every_s) * every_s)


class Loops:
    def __init__(
        self,
        door: Door,
        authority: Authority,
        port: ActorPort,
        webhooks: Deliverer,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.door, self.authority, self.port, self.webhooks = door, authority, port, webhooks
        self._clock = clock
        self.ticked_at = 0.0  # monotonic; for /readyz
        self.tick_began: float | None = None
        self.stuck_s = STUCK_S
        self._tasks: list[asyncio.Task[None]] = []
        self._commands_n = self._outbox_n = 0
        self._silent_looks = 0
        self._looked = False

    def start(self) -> None:
        settings = self.door.settings
        tend_s = min(1.0, settings.server_ping_s / 4, settings.server_pong_s / 4, settings.stale_s / 4)
        turns = (
            ("tick", settings.tick_s, self.tick),
            ("tend", tend_s, self.tend),
            ("tokens", CACHE_S, self.tokens),
            ("seen", LAST_SEEN_FLUSH_S, self.flush_seen),
            ("look", TICK_S, self.look),
            ("reaper", TICK_S, self.watch_reaper),
            ("webhooks", TICK_S, self.webhooks.turn),
        )
        for nth, (name, every_s, turn) in enumerate(turns):
            # Apart from each other: all at once they held up everybody's events for 10 to 30 ms, every second.
            phase_s = TICK_S * nth / len(turns)
            task = asyncio.get_running_loop().create_task(
                self._every(name, every_s, turn, phase_s), name=f"gateway-{name}"
            )
            self._tasks.append(task)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    async def _every(self, name: str, every_s: float, turn: Callable[[], Awaitable[None]], phase_s: float) -> None:
        due = self._clock() + phase_s
        while True:
            await asyncio.sleep(max(0.0, due - self._clock()))
            pause = every_s
            try:
                await turn()
            except HoldfastError as error:
                telemetry.emit(f"gateway.{name}_unavailable", code=error.code)
            except Exception as error:
                telemetry.emit(f"gateway.{name}_failed", error=repr(error))
                pause = max(every_s, RESTART_S)
            due = at_its_moment(due + pause, every_s, self._clock())

    # ------------------------------------------------------------ turns

    async def tick(self) -> None:
        gateway_id = self.door.gateway_id
        self.tick_began = self._clock()
        try:
            await self.door.worker.write(lambda store: store.tick(gateway_id))
        finally:
            self.tick_began = None
        self.ticked_at = self._clock()

    @property
    def stuck(self) -> bool:
        """A tick neither succeeds nor fails: the writer thread hangs, and only another process can help."""
        return self.tick_began is not None and self._clock() - self.tick_began > self.stuck_s

    async def tend(self) -> None:
        self.door.clock()  # also while nobody is connected: the clock's step is bounded per look
        for nth, socket in enumerate(list(self.door.sockets), 1):
            socket.tend()
            if nth % TEND_PART == 0:
                await asyncio.sleep(0)  # all in one turn would hold up every event, in proportion to them

    async def tokens(self) -> None:
        hashes = {socket.token_hash for socket in self.door.sockets if socket.token_hash is not None}
        revoked = await self.authority.revoked(hashes)
        for socket in list(self.door.sockets) if revoked else ():
            if socket.token_hash in revoked:
                socket.end(CLOSE["not_authenticated"], "the token was revoked or has expired", drain=True)

    async def flush_seen(self) -> None:
        spoke = [c for c in self.door.connections.values() if c.seen and c.epoch]
        size = max(FLUSH_PART, math.ceil(len(spoke) / FLUSH_PARTS))
        for start in range(0, len(spoke), size):
            part = spoke[start : start + size]
            progressed = [c.progressed for c in part]
            sessions = [(c.subject, c.connection_id, c.progressed) for c in part if SessionRequest.owns(c.subject)]
            nodes = [
                (c.subject.removeprefix(NODE), c.role, c.connection_id) for c in part if c.subject.startswith(NODE)
            ]
            flush = functools.partial(_flush, sessions, nodes)
            for peer in part:
                peer.seen = peer.progressed = False
            try:
                await self.door.worker.write(flush)
            except HoldfastError:
                for peer, had in zip(part, progressed, strict=True):
                    peer.seen, peer.progressed = True, peer.progressed or had
                raise

    async def look(self) -> None:
        """Guarded by data_version: an idle service costs one pragma a second."""
        self.door.hub.shed()
        if not await self.door.worker.read(lambda store: store.changed()) and self._looked:
            return
        await self.door.hub.look()
        self.door.hub.fleet.changed()
        ready = {peer.kind for peer in self.door.connections.values() if peer.ready}
        if "ingest" in ready:
            after = self._commands_n
            newest, sessions = await self.door.worker.read(lambda store: store.sessions_with_commands(after))
            for session_id in sessions:
                self.door.commands_wait(session_id)
            self._commands_n = newest
        if "node" in ready:
            after = self._outbox_n
            newest, nodes = await self.door.worker.read(lambda store: store.nodes_with_outbox(after))
            for node_id in nodes:
                self.door.commands_wait(NODE + node_id)
            self._outbox_n = newest
        if (believe := getattr(self.port, "believe", None)) is not None:
            believe(await self.door.worker.read(lambda store: store.actors_awake()))
        self._looked = True

    async def watch_reaper(self) -> None:
        from actors.reaper import sweep_due

        age = await self.door.worker.read(lambda store: store.reaper_age_ms())
        if age is not None and age[0] <= REAPER_SILENT_MS:
            self._silent_looks = 0
            return
        self._silent_looks += 1
        # else it may be healthy and just unheard
        writable = self._clock() - self.ticked_at < REAPER_SILENT_MS / 1000
        if age is not None and writable and self._silent_looks % REAPER_STRIKES == 0:
            self._end_frozen(age[1], age[2])
        await sweep_due(self.door.worker, self.door.perform, limit=SWEEP_LIMIT, mint=self.door.mint)

    def _end_frozen(self, pid: int, pid_started: int) -> None:
        """By pid and start time: never a process that got the number later, never ourselves. Ray starts another."""
        if pid_started == 0 or pid == os.getpid():
            return
        if processes.end_exactly(pid, pid_started):
            telemetry.emit("gateway.reaper_killed", pid=pid)
