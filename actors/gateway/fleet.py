"""The whole fleet for one screen: what changed, at most four times a second, worked out once for everybody.

It reads the newest page of sessions and sends those whose resource is not what was sent before. What changed is asked
of the store, so that changes made in other processes show too; local events only say *when* to ask.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

import orjson

from actors import telemetry
from actors.store.contract import SessionFilter
from actors.store.worker import StoreWorker

EVERY_S: Final = 0.25
PAGE: Final = 200  # newest activity first: what one screen shows; older ones are pages of GET /v1/sessions
WAITING_MAX: Final = 8  # frames for one screen; past it the oldest goes, and the next full page heals it


class Screen:
    """One watcher: frames wait here, at most WAITING_MAX."""

    def __init__(self) -> None:
        self.frames: asyncio.Queue[bytes] = asyncio.Queue(WAITING_MAX)
        self.behind = False

    def offer(self, frame: bytes) -> None:
        if self.frames.full():
            self.frames.get_nowait()
            self.behind = True
        self.frames.put_nowait(frame)


class Fleet:
    def __init__(self, worker: StoreWorker, spawn: Callable[[Coroutine[Any, Any, Any]], asyncio.Task[Any]]) -> None:
        self._worker, self._spawn = worker, spawn
        self.screens: set[Screen] = set()
        self._sent: dict[str, bytes] = {}
        self._running = False
        self._stir = asyncio.Event()

    def changed(self, session_id: str | None = None) -> None:
        if self.screens:
            self._stir.set()

    def open(self) -> Screen:
        """Starts with everything that the newest page shows."""
        screen = Screen()
        self.screens.add(screen)
        self._sent.clear()  # the next look sends the whole page: the newcomer needs it, the others can bear it
        self._stir.set()
        if not self._running:
            self._running = True
            self._spawn(self._run())
        return screen

    def close(self, screen: Screen) -> None:
        self.screens.discard(screen)
        if not self.screens:
            self._sent.clear()
            self._stir.set()  # the runner ends

    async def _run(self) -> None:
        try:
            while self.screens:
                self._stir.clear()
                try:
                    await self._look()
                except Exception as error:  # the screens stay open: the next look may succeed
                    telemetry.emit("fleet.look_failed", error=repr(error))
                await asyncio.sleep(EVERY_S)
                await self._stir.wait()
        finally:
            self._running = False

    async def _look(self) -> None:
        if any(screen.behind for screen in self.screens):
            self._sent.clear()
        page = await self._worker.read(lambda store: store.sessions(SessionFilter(limit=PAGE)))
        counts = await self._worker.read(lambda store: store.counts())
        fresh: dict[str, bytes] = {str(s["session_id"]): orjson.dumps(s) for s in page.items}
        changed = [text for sid, text in fresh.items() if self._sent.get(sid) != text]
        if not changed and self._sent.keys() <= fresh.keys() and self._sent:
            return
        self._sent = fresh
        frame = b'{"type":"sessions","changed":[%b],"counts":%b}' % (b",".join(changed), orjson.dumps(counts))
        for screen in self.screens:
            screen.behind = False
            screen.offer(frame)
