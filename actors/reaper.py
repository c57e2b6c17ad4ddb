"""The reaper: asks the store what is due and has it swept. It decides nothing, and keeps nothing.

Twice, in two places, or late is harmless: each sweep is a transition that looks for itself whether the deadline still
stands. A failed sweep is tried again later (`retry_at`), its due time never moves, and its slot is free for others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from actors.carry import Carrier
from actors.law.requests import Request
from actors.law.sweeps import sweep_of
from actors.mailbox import Mailbox
from actors.objects import ObjectStore
from actors.protocol.defaults import AUDIT_RETENTION_S, CONTROL_DEADLINE_S, RETENTION_CHUNK
from actors.protocol.errors import HoldfastError
from actors.protocol.ids import Mint, ulid
from actors.store.contract import DueDeadline, Outcome
from actors.store.worker import StoreWorker
from actors.telemetry import emit

SWEEP_LIMIT = 1000  # deadlines per tick: what a second can do; the rest is still due in the next
CONCURRENT = 32  # one frozen actor holds one slot for one deadline, the others go on
SWEEP_WITHIN_S = CONTROL_DEADLINE_S + 1.0  # the mailbox's own deadline, and the transition that follows it
RETRY_AFTER_S = 2.0
JANITOR_S = 0.25  # of a tick: at 3 ms a chunk far more than any ingest, and half a core at the very most for a moment


Perform = Callable[[Request], Awaitable[Outcome]]


async def sweep_due(worker: StoreWorker, perform: Perform, *, limit: int = SWEEP_LIMIT, mint: Mint = ulid) -> int:
    """One tick: everything that is due, at most `limit`. perform: to a committed outcome, spoken and carried.
    Returns how many sweeps changed something."""
    due = await worker.read(lambda store: store.due(limit))
    slots = asyncio.Semaphore(CONCURRENT)

    async def one(deadline: DueDeadline) -> bool:
        async with slots:
            return await _sweep(worker, perform, deadline, mint)

    return sum(await asyncio.gather(*(one(d) for d in due)))


async def _sweep(worker: StoreWorker, perform: Perform, due: DueDeadline, mint: Mint) -> bool:
    request = sweep_of(due.session_id, due.kind, due.subject, mint())
    try:
        outcome = await asyncio.wait_for(perform(request), SWEEP_WITHIN_S)
    except (TimeoutError, HoldfastError) as error:
        emit("reaper.sweep_failed", subject=due.session_id, kind=due.kind, error=repr(error))
        try:
            await worker.write(lambda store: store.retry_later(due, RETRY_AFTER_S))
        except HoldfastError as storage:  # then it stays due, and the next tick finds it
            emit("reaper.retry_failed", error=repr(storage))
        return False
    changed = bool(getattr(outcome.answer, "changed", False))
    if changed:
        emit("deadline.fired", subject=due.session_id, kind=due.kind, key=due.subject)
    return changed


class Reaper:
    """One loop on a schedule. `runtime.py` makes it a Ray actor; the gateway ticks itself when this one is silent."""

    def __init__(
        self,
        worker: StoreWorker,
        mailbox: Mailbox,
        *,
        incarnation: str,
        pid: int,
        pid_started: int,
        tick_s: float,
        retention_s: float,
        audit_retention_s: float = AUDIT_RETENTION_S,
        on_outcome: Callable[[Outcome], None],
        objects: ObjectStore,
        mint: Mint = ulid,
    ) -> None:
        self._worker, self._mailbox, self._on_outcome, self._mint = worker, mailbox, on_outcome, mint
        self._looks: set[asyncio.Task[object]] = set()
        self._carrier = Carrier(self.perform, objects, self._spawn, mint)
        self._identity = (incarnation, pid, pid_started)
        self._tick_s, self._retention_ms = tick_s, round(retention_s * 1000)
        self._audit_ms = round(audit_retention_s * 1000)
        self.ticks = 0

    async def run(self) -> None:
        """For ever. A tick that fails is told and forgotten: the rows that it missed are still due."""
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                await self.tick()
            except Exception as error:
                emit("reaper.tick_failed", error=repr(error))
            await asyncio.sleep(max(0.0, self._tick_s - (loop.time() - began)))

    async def perform(self, request: Request) -> Outcome:
        outcome = await self._mailbox.perform(request)
        self._on_outcome(outcome)
        await self._carrier.carry(outcome)
        return outcome

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._looks.add(task)
        task.add_done_callback(self._looks.discard)

    async def tick(self) -> int:
        self.ticks += 1
        await self._worker.write(lambda store: store.reaper_beat(*self._identity))
        changed = await sweep_due(self._worker, self.perform, mint=self._mint)
        await self.tidy()
        return changed

    async def tidy(self) -> None:
        """What is old, chunk by chunk, each a transaction of its own; what is left is still old in the next tick."""
        loop = asyncio.get_running_loop()
        until = loop.time() + JANITOR_S
        while loop.time() < until:
            used = await self._worker.write(lambda store: store.janitor(self._retention_ms, self._audit_ms))
            if used < RETENTION_CHUNK:
                break
