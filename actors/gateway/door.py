"""What every room of the gateway shares: settings, the store's worker, the mailbox, and who is here.

`perform` is the one way to a control decision; what an outcome wants spoken is spoken here and nowhere else. Whatever
runs in the background is held here, so that nothing is lost by a forgotten task and `stop` can wait for it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final, Protocol

from actors import telemetry
from actors.carry import Carrier
from actors.config import Settings
from actors.gateway.counts import Counts
from actors.gateway.hub import Hub
from actors.gateway.limits import Limits
from actors.gateway.notices import Notices
from actors.gateway.waiting import Waiting
from actors.law.effects import CloseSocket, CommandsWait, InvocationSettled, NodeNoticed, NodeWaits, Wake
from actors.law.nodes.answers import Upward
from actors.law.nodes.requests import NODE
from actors.law.requests import Request, SessionRequest
from actors.mailbox import Mailbox
from actors.objects import ObjectStore
from actors.protocol import ids
from actors.protocol.errors import HoldfastError
from actors.store.contract import IdempotencyKey, Outcome
from actors.store.worker import StoreWorker

if TYPE_CHECKING:
    from actors.gateway.peer import Peer

SOCKETS_MAX: Final = 20_000  # per gateway: about 1 GiB of them at 50 KiB each; the next gets 4429
CLOSED_RETRY_S: Final = (0.2, 1.0, 2.0, 5.0)  # then every 5 s: a close that nobody heard is an execution without an end


class Tended(Protocol):
    """A live socket: looked after every second, and asked whether its token still holds."""

    token_hash: str | None
    kind: str  # ingest, node, stream, sse, fleet or fleet_sse; for /metrics

    def tend(self) -> None: ...
    def end(self, code: int, reason: str = "", *, drain: bool = False) -> None: ...


class Door:
    def __init__(
        self,
        settings: Settings,
        worker: StoreWorker,
        mailbox: Mailbox,
        objects: ObjectStore,
        *,
        gateway_id: str,
        now: Callable[[], float],
        wall_ms: Callable[[], int],
        mint: ids.Mint = ids.ulid,
    ) -> None:
        self.settings, self.worker, self.mailbox, self.gateway_id = settings, worker, mailbox, gateway_id
        self.wall_ms, self.mint = wall_ms, mint
        self.clock = FairClock(now)
        self.hub = Hub(worker, self.spawn)
        self.limits = Limits(settings, now)
        self.counts = Counts()
        self.waiting = Waiting(worker)
        self.carrier = Carrier(self.perform, objects, self.spawn, mint)
        self.notices = Notices(self.perform, self.spawn, mint)
        # In order of arrival: the order of a set is that of memory addresses, and no run could be repeated.
        self.sockets: dict[Tended, None] = {}
        self.connections: dict[str, Peer] = {}
        self.of_subject: dict[str, list[Peer]] = {}  # oldest first; a predecessor leaves when its socket ends
        self.dirty: dict[Peer, None] = {}  # connections with something to say after this group
        self._soon: list[Callable[[], None]] = []
        self.accepting = True
        self._tasks: set[asyncio.Task[Any]] = set()
        worker.after_group = self.after_group

    # ------------------------------------------------------------ control decisions

    async def perform(self, request: Request, key: IdempotencyKey | None = None, *, wake: bool = False) -> Outcome:
        """What the decision wants carried upward is carried before this returns (a connect's is the connection's own
        to carry: its hello_ack goes first). Raises HoldfastError of the store; anything else is our own mistake and
        becomes `internal`."""
        outcome = await self.mailbox.perform(request, key, wake=wake)
        self.speak(outcome)
        if isinstance(outcome.answer, Upward):
            await self.carrier.carry(outcome)
        return outcome

    def speak(self, outcome: Outcome) -> None:
        """After the commit. All of it is hints: what they are about stands in rows and is found by the poll too."""
        for said in outcome.speech:
            if isinstance(said, CloseSocket):
                if connection := self.connections.get(said.connection_id):
                    connection.end(said.code, said.reason)
            elif isinstance(said, CommandsWait):
                self.commands_wait(outcome.session_id)
            elif isinstance(said, NodeWaits):
                self.commands_wait(NODE + said.node_id)
            elif isinstance(said, InvocationSettled):
                self.waiting.settled(said.invocation_id)
            elif isinstance(said, NodeNoticed):
                self.notices.later(said)
            else:
                assert isinstance(said, Wake)
                self.mailbox.port.wake(outcome.session_id)
        if SessionRequest.owns(outcome.session_id):
            self.hub.advance(outcome.session_id, outcome.last_seq)

    def commands_wait(self, subject: str) -> None:
        """Only the youngest connection of a role may have them: an older one is fenced, its close is on its way."""
        youngest: dict[str, Peer] = {}
        for peer in self.of_subject.get(subject, ()):
            if peer.role not in youngest or peer.epoch >= youngest[peer.role].epoch:
                youngest[peer.role] = peer
        for peer in youngest.values():
            peer.commands_wait()

    def report_closed(self, request: Request) -> None:
        """A Closed or NodeClosed, in the background and until it is heard: grace hangs on it."""
        self.spawn(self._until_heard(request))

    async def _until_heard(self, request: Request) -> None:
        tries = 0
        while True:
            try:
                await self.perform(request)
                return
            except HoldfastError as error:
                telemetry.emit("gateway.close_unheard", subject=request.addressee, code=error.code)
                if not error.retryable:
                    return  # it was decided, and refused: no such session
            except Exception as error:  # a bug of ours may not leave a session connected to nobody
                telemetry.emit("gateway.close_failed", subject=request.addressee, error=repr(error))
            await asyncio.sleep(CLOSED_RETRY_S[min(tries, len(CLOSED_RETRY_S) - 1)])
            tries += 1

    # ------------------------------------------------------------ groups

    def soon(self, work: Callable[[], None]) -> None:
        """When this turn of the loop has read all there was; one turn more for everybody, not one for each."""
        if not self._soon:
            asyncio.get_running_loop().call_soon(self._now)
        self._soon.append(work)

    def _now(self) -> None:
        works, self._soon = self._soon, []
        for work in works:
            try:
                work()
            except Exception as error:  # one connection's trouble is not the next one's
                telemetry.emit("gateway.turn_failed", error=repr(error))

    def after_group(self) -> None:
        """Acks and fan-out once per group, not per frame."""
        dirty, self.dirty = self.dirty, {}
        for connection in dirty:
            try:
                connection.after_group()
            except Exception as error:  # one connection's trouble is not the next one's
                telemetry.emit("gateway.after_group_failed", subject=connection.subject, error=repr(error))
        self.hub.group_told()
        self.counts.group_told()

    # ------------------------------------------------------------ who is here

    def admit(self, peer: Peer) -> None:
        self.connections[peer.connection_id] = peer
        self.of_subject.setdefault(peer.subject, []).append(peer)
        self.sit(peer)

    def sit(self, socket: Tended) -> None:
        self.sockets[socket] = None
        self.limits.sit(socket.token_hash)

    def rise(self, socket: Tended) -> None:
        if socket in self.sockets:
            del self.sockets[socket]
            self.limits.rise(socket.token_hash)

    def room(self, token_hash: str, address: str | None) -> None:
        """Raises unavailable, too_many_connections: whether one more socket may stay."""
        if not self.accepting:
            raise HoldfastError("unavailable")
        if len(self.sockets) >= SOCKETS_MAX:
            raise HoldfastError("too_many_connections")
        self.limits.room(token_hash, address)

    def dismiss(self, peer: Peer) -> None:
        self.rise(peer)
        self.dirty.pop(peer, None)
        if self.connections.pop(peer.connection_id, None) is not None:
            here = self.of_subject[peer.subject]
            here.remove(peer)
            if not here:
                del self.of_subject[peer.subject]

    async def emptied(self, within_s: float) -> None:
        """Until the last socket has left, and for no longer than that."""
        until = time.monotonic() + within_s
        while self.sockets and time.monotonic() < until:  # noqa: ASYNC110 - once, at the end; an event for it is worse
            await asyncio.sleep(0.01)

    # ------------------------------------------------------------ background

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            telemetry.emit("gateway.task_failed", task=task.get_coro().__qualname__, error=repr(error))  # type: ignore[union-attr]

    async def settle(self, within_s: float) -> None:
        """Waits for the background; what is left then is cancelled."""
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=within_s)
        for task in (left := set(self._tasks)):
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=1.0)


class FairClock:
    """Seconds in which this loop was awake. A process that was frozen, or a loop that was held, finds its peers'
    frames waiting in the kernel: their deadlines must not have run meanwhile (they could not be heard)."""

    STEP_MAX_S = 2.0

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now, self._at, self._fair = now, now(), 0.0

    def __call__(self) -> float:
        at = self._now()
        self._fair += min(at - self._at, self.STEP_MAX_S)
        self._at = at
        return self._fair
