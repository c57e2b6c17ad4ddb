"""A few daemon threads for what may block for ever: questions to Ray's control plane.

When that plane hangs, a thread that asked hangs with it until Ray answers or ends the process. So the threads are few,
their queue is short, whoever comes to a full queue is refused at once, and no exit ever waits for them (which is why
this is not a ThreadPoolExecutor: its threads are joined at interpreter exit).
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class PoolFull(Exception):
    """Nothing was asked; every thread waits already."""


class DaemonPool:
    """threads: how many questions may hang at once. waiting: how many more may queue, small so that failing is fast."""

    def __init__(self, name: str, threads: int = 4, waiting: int = 32) -> None:
        self._name, self._threads = name, threads
        self._jobs: queue.Queue[tuple[Callable[[], Any], asyncio.AbstractEventLoop, asyncio.Future[Any]]]
        self._jobs = queue.Queue(waiting)
        self._started = 0

    async def run(self, ask: Callable[[], T], within_s: float) -> T:
        """Raises PoolFull, TimeoutError (it may still happen later), or what `ask` raises."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        try:
            self._jobs.put_nowait((ask, loop, future))
        except queue.Full:
            raise PoolFull(self._name) from None
        if self._started < self._threads:
            self._started += 1
            threading.Thread(target=self._work, name=f"{self._name}-{self._started}", daemon=True).start()
        return await asyncio.wait_for(future, within_s)

    def _work(self) -> None:
        while True:
            ask, loop, future = self._jobs.get()
            if future.done():  # the asker's time is up: do not ask for nobody
                continue
            try:
                result, error = ask(), None
            except Exception as raised:
                result, error = None, raised
            try:
                loop.call_soon_threadsafe(_settle, future, result, error)
            except RuntimeError:
                return  # the loop has closed, and with it everybody who could wait


def _settle(future: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)
