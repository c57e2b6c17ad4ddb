"""The session actor: the mailbox that a session's control decisions pass while it is awake. A thin shell, one loop.

It holds no truth: each request is a transition over the store (ADR 2), so a second incarnation, a late one or none at
all changes nothing but speed. `runtime.py` makes it a Ray actor; nothing here knows Ray. One object serves one session
(`dedicated`) or all the sessions of a cell (`shared:N`).
"""

from __future__ import annotations

import time
from collections.abc import Callable

from actors.law.requests import Request
from actors.protocol.errors import HoldfastError
from actors.store.contract import ActorRow, IdempotencyKey, Outcome
from actors.store.worker import StoreWorker
from actors.telemetry import emit


class SessionActor:
    """name: `session/<id>` or `session-cell/<k>`. It speaks to nobody: whoever asked has the outcome, and says it."""

    def __init__(
        self,
        worker: StoreWorker,
        row: ActorRow,
        hibernate_after_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._worker, self.row, self._clock = worker, row, clock
        self._hibernate_after_s = hibernate_after_s
        self._in_flight = 0
        self._last_call = clock()
        self._quiet_since_call = -1.0

    async def open(self) -> None:
        """Opens the store and says that it is awake. Errors: those of the store."""
        await self._worker.start()
        await self._worker.write(lambda store: store.register_actor(self.row))
        emit("actor.awake", name=self.row.name, incarnation=self.row.incarnation)

    async def perform(self, request: Request, key: IdempotencyKey | None = None) -> Outcome:
        """One control decision. Errors: StorageUnavailable; a refusal is an answer, not an error."""
        self._in_flight += 1
        self._last_call = self._clock()
        try:
            return await self._worker.perform(request, key)
        except HoldfastError as error:
            emit("actor.refused", name=self.row.name, code=error.code)
            raise
        finally:
            self._in_flight -= 1

    async def ping(self) -> ActorRow:
        return self.row

    # ------------------------------------------------------------ hibernation

    async def look_around(self) -> None:
        """Before hibernating: is there anything in the session that still works? Remembered for `may_hibernate`."""
        asked_at = self._clock()
        if asked_at - self._last_call < self._hibernate_after_s:
            return
        self._quiet_since_call = -1.0 if await self.busy() else asked_at

    async def busy(self) -> bool:
        session_id = self.row.name.removeprefix("session/")
        try:
            resource = await self._worker.write(lambda store: store.session(session_id))
            return resource["active_execution"] is not None
        except HoldfastError as error:
            return error.retryable  # deleted or unknown: nothing to stay awake for

    def may_hibernate(self) -> bool:
        """No method in flight, none since the store was found quiet. Check it and leave without an await between."""
        idle_for = self._clock() - self._last_call
        return self._in_flight == 0 and idle_for >= self._hibernate_after_s and self._quiet_since_call > self._last_call

    async def leave(self) -> None:
        """Says that it sleeps; by its incarnation, so that it never signs off its successor."""
        await self._worker.write(lambda store: store.forget_actor(self.row.name, self.row.incarnation))
        emit("actor.asleep", name=self.row.name, incarnation=self.row.incarnation)
