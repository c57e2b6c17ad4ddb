"""What a committed decision about a node wants carried upward: reports to tasks, objects to be looked at.

None of it is lost if it is not done: a deadline of the same transaction says it again. So whoever decided carries it
at once (the gateway's connection, the reaper's sweep), keeps nothing, and lets a failure be.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

from actors.law.nodes.answers import upward_of
from actors.law.nodes.model import UploadReport
from actors.law.nodes.requests import NODE, UploadVerified
from actors.law.requests import Request
from actors.objects import ObjectStore
from actors.protocol.errors import HoldfastError
from actors.protocol.ids import Mint, ulid
from actors.store.contract import Outcome
from actors.telemetry import emit

Perform = Callable[[Request], Awaitable[Outcome]]
Spawn = Callable[[Coroutine[Any, Any, Any]], Any]
LOOKS_AT_ONCE: Final = 2  # hashing takes a core each, and the gateway wants the others
LOOKING_MAX: Final = 1000  # objects waiting to be looked at; the next is dropped, and its deadline brings it again


class Carrier:
    """perform: to a committed outcome, spoken. spawn: for what takes as long as an object is big."""

    def __init__(self, perform: Perform, objects: ObjectStore, spawn: Spawn, mint: Mint = ulid) -> None:
        self._perform, self._objects, self._spawn, self._mint = perform, objects, spawn, mint
        self._looking: set[tuple[str, int, str]] = set()
        self._turns = asyncio.Semaphore(LOOKS_AT_ONCE)

    async def carry(self, outcome: Outcome) -> None:
        """In order: a task hears of a node's report before the node's next frame is decided. Never raises ours."""
        upward = upward_of(outcome.answer)
        for report in upward.tasks:
            try:
                await self._perform(report)
            except HoldfastError as error:
                emit("carry.report_failed", task_id=report.task_id, code=error.code)
        if upward.verify:
            node_id = outcome.session_id.removeprefix(NODE)
            for uploaded in upward.verify:
                self._look_later(node_id, uploaded)

    def _look_later(self, node_id: str, uploaded: UploadReport) -> None:
        what = (uploaded.task_id, uploaded.attempt, uploaded.object_key or "")
        if what not in self._looking and len(self._looking) < LOOKING_MAX:
            self._looking.add(what)
            self._spawn(self._look(node_id, uploaded, what))

    async def _look(self, node_id: str, uploaded: UploadReport, what: tuple[str, int, str]) -> None:
        assert uploaded.object_key is not None and uploaded.sha256 is not None and uploaded.size is not None
        try:
            async with self._turns:
                verdict = await self._objects.verify(uploaded.object_key, uploaded.size, uploaded.sha256)
            await self._perform(
                UploadVerified(
                    seed=self._mint(),
                    task_id=uploaded.task_id,
                    order_id=uploaded.order_id,
                    node_id=node_id,
                    attempt=uploaded.attempt,
                    object_key=uploaded.object_key,
                    sha256=uploaded.sha256,
                    size=uploaded.size,
                    ok=verdict.ok,
                    verified=verdict.verified,
                    detail=verdict.detail,
                )
            )
        except (HoldfastError, OSError) as error:  # it could not be looked at now: nothing is concluded
            emit("carry.verify_failed", task_id=uploaded.task_id, error=str(error))
        finally:
            self._looking.discard(what)
