"""Who waits for an invocation's outcome. The outcome is a row; what is said here is a hint that it is time to read it.

A caller is never left without an answer: the row is read again every second whatever is said, and when the waiting
ends the row is what it is.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

from actors.store.worker import StoreWorker

LOOK_S: Final = 1.0  # a settlement in another process (the reaper's, an actor's) whose hint was lost is seen after it


class Waiting:
    def __init__(self, worker: StoreWorker) -> None:
        self._worker = worker
        self._waiters: dict[str, set[asyncio.Event]] = {}
        self._leaving = False

    def __len__(self) -> int:
        return sum(map(len, self._waiters.values()))

    def settled(self, invocation_id: str) -> None:
        for event in self._waiters.get(invocation_id, ()):
            event.set()

    def leave(self) -> None:
        """The door closes: everybody is told what stands now."""
        self._leaving = True
        for waiters in self._waiters.values():
            for event in waiters:
                event.set()

    async def outcome(self, invocation_id: str, within_s: float) -> dict[str, Any]:
        """The invocation, settled, or as it is when the time is over. Raises what the store raises."""
        end = time.monotonic() + within_s
        event = asyncio.Event()
        self._waiters.setdefault(invocation_id, set()).add(event)  # before the first look: nothing is missed between
        try:
            while True:
                event.clear()
                found = await self._worker.read(lambda store: store.invocation(invocation_id))
                left = end - time.monotonic()
                if found["state"] == "settled" or left <= 0 or self._leaving:
                    return found
                try:
                    async with asyncio.timeout(min(LOOK_S, left)):
                        await event.wait()
                except TimeoutError:
                    pass
        finally:
            waiters = self._waiters[invocation_id]
            waiters.discard(event)
            if not waiters:
                del self._waiters[invocation_id]
