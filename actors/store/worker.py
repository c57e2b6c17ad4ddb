"""A store's threads in one process: one writer that commits whatever waits as one group, and a few readers.

The event loop only queues and is told; nothing of SQLite ever runs on it. One fsync serves everybody who waits.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from actors.law.requests import Request
from actors.protocol.errors import HoldfastError, StorageBroken, StorageError, StorageUnavailable
from actors.store.contract import AppendItem, AppendResult, IdempotencyKey, Keyed, Outcome, Store
from actors.store.locks import translate
from actors.telemetry import emit

T = TypeVar("T")
Done = Callable[[Any], None]

GROUP_JOBS = 512  # one group: about 10 ms of inserts, so that nobody behind it waits longer
GROUP_EVENTS = 4000
QUEUE_JOBS = 20_000  # connections × what their windows allow is far below; past it the store has stopped, and we say so
READ_QUEUE = 5_000  # reads waiting; each belongs to a request or a subscriber that waits for it


class StoreWorker:
    """open_store is called once per thread: (True) for the writer, (False) for a reader.

    on_broken is called, on the thread that met it, when the storage cannot be trusted any more; it should end the
    process. Until then every waiting job gets the error.
    """

    def __init__(
        self,
        open_store: Callable[[], Store],
        *,
        readers: int = 2,
        on_broken: Callable[[BaseException], None],
    ) -> None:
        self._open, self._readers, self._on_broken = open_store, readers, on_broken
        self._jobs: deque[tuple[Any, Done]] = deque()
        self._some = threading.Condition()
        self._ringing = False
        self._closing = False
        self._reads: queue.Queue[tuple[Callable[[Store], Any], Future[Any]] | None] = queue.Queue(READ_QUEUE)
        self._threads: list[threading.Thread] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self.after_group: Callable[[], None] = lambda: None
        # On the writer's thread, after each group: jobs, events, seconds of its transaction. Cheap; may not raise.
        self.observe: Callable[[int, int, float], None] = lambda jobs, events, took_s: None
        self.storage_errors = {"unavailable": 0, "broken": 0}
        self.groups = self.jobs_done = 0
        self._begun = self._told = 0  # groups that the writer has taken, and those of which the loop has been told
        # One a second at most (the look), given up after 0.25 s; the next telling clears them.
        self._until_told: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def start(self) -> None:
        """Opens every connection; raises what the store raises."""
        self._loop = asyncio.get_running_loop()
        stores = [await self._loop.run_in_executor(None, self._open) for _ in range(1 + self._readers)]
        self._spawn("store-writer", self._write_loop, stores[0])
        for i, store in enumerate(stores[1:]):
            self._spawn(f"store-reader-{i}", self._read_loop, store)

    def _spawn(self, name: str, body: Callable[[Store], None], store: Store) -> None:
        thread = threading.Thread(target=body, args=(store,), name=name, daemon=True)
        thread.start()
        self._threads.append(thread)

    @property
    def depth(self) -> int:
        """Jobs waiting for the writer."""
        return len(self._jobs)

    @property
    def reads_waiting(self) -> int:
        return self._reads.qsize()

    # ------------------------------------------------------------ from the loop

    def append(self, item: AppendItem, done: Callable[[AppendResult | HoldfastError], None]) -> None:
        """done is called on the loop after the commit; all of one group in order, then `after_group` once."""
        self._put(item, done)

    async def perform(self, request: Request, key: IdempotencyKey | None = None) -> Outcome:
        """A transition, in the next group."""
        outcome = await self._asked(Keyed(request, key) if key else request)
        assert isinstance(outcome, Outcome)
        return outcome

    async def write(self, fn: Callable[[Store], T]) -> T:
        """Any other write: a transaction of its own on the writer thread."""
        result: T = await self._asked(fn)
        return result

    def read(self, fn: Callable[[Store], T]) -> Awaitable[T]:
        """Begins at once, whenever it is awaited. Raises StorageUnavailable."""
        future: Future[T] = Future()
        try:
            self._reads.put_nowait((fn, future))
        except queue.Full:
            raise StorageUnavailable("too many reads are waiting") from None
        return asyncio.wrap_future(future)

    async def told(self) -> None:
        """Until the loop has been told of whatever the writer was at: a row that a read found may be of that group."""
        begun = self._begun
        if self._told < begun:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._until_told.append((begun, future))
            await future

    async def close(self) -> None:
        """Commits what was queued, then ends the threads."""
        with self._some:
            self._closing = True
            self._some.notify()
        for _ in range(self._readers):
            await asyncio.get_running_loop().run_in_executor(None, self._reads.put, None)
        for thread in self._threads:
            await asyncio.get_running_loop().run_in_executor(None, thread.join)

    async def _asked(self, job: Any) -> Any:
        assert self._loop is not None, "start() first"
        future: asyncio.Future[Any] = self._loop.create_future()

        def done(result: Any) -> None:
            if future.done():  # the caller gave up; the effect stands, as with any lost answer
                return
            if isinstance(result, BaseException):
                future.set_exception(result)
            else:
                future.set_result(result)

        self._put(job, done)
        return await future

    def _put(self, job: Any, done: Done) -> None:
        if len(self._jobs) >= QUEUE_JOBS or self._closing:
            done(StorageUnavailable("the store is behind" if not self._closing else "the store is closing"))
            return
        assert self._loop is not None, "start() first"
        self._jobs.append((job, done))  # no lock: the loop only adds here, the writer only takes at the other end
        if not self._ringing:
            # Once a turn: what a turn of the loop brings is one group, and one wake-up of the writer.
            self._ringing = True
            self._loop.call_soon(self._ring)

    def _ring(self) -> None:
        self._ringing = False
        with self._some:
            self._some.notify()

    # ------------------------------------------------------------ the writer thread

    def _write_loop(self, store: Store) -> None:
        while True:
            with self._some:
                while not self._jobs and not self._closing:
                    self._some.wait()
                if not self._jobs:
                    break
                batch = self._take()
            self._settle(self._run(store, batch))
        store.close()

    def _take(self) -> list[tuple[Any, Done]]:
        """A group, or one write of another kind, in the order of arrival."""
        self._begun += 1
        batch: list[tuple[Any, Done]] = []
        events = 0
        while self._jobs and len(batch) < GROUP_JOBS and events < GROUP_EVENTS:
            job = self._jobs[0][0]
            if callable(job):
                if not batch:
                    batch.append(self._jobs.popleft())
                break
            events += len(job.events) if isinstance(job, AppendItem) else 1
            batch.append(self._jobs.popleft())
        return batch

    def _run(self, store: Store, batch: list[tuple[Any, Done]]) -> list[tuple[Done, Any]]:
        try:
            if callable(batch[0][0]):
                return [(batch[0][1], batch[0][0](store))]
            began = time.monotonic()
            results = store.commit_group([job for job, _ in batch]).results
            took_s = time.monotonic() - began
            self.groups += 1
            self.jobs_done += len(batch)
            self.observe(len(batch), sum([len(j.events) for j, _ in batch if isinstance(j, AppendItem)]), took_s)
            return [(done, result) for (_, done), result in zip(batch, results, strict=True)]
        except Exception as raised:
            error = self._ours(raised)
            return [(done, error) for _, done in batch]

    def _ours(self, error: Exception) -> HoldfastError:
        """Every caller gets an error of our tree: they close sockets and answer requests by its code."""
        known = error if isinstance(error, HoldfastError) else translate(error)
        if known is None:
            emit("store.job_failed", error=repr(error))
            known = HoldfastError("internal", f"{type(error).__name__}: {error}")
        self._count(known)
        if isinstance(known, StorageBroken):
            self._on_broken(known)
        return known

    def _settle(self, results: list[tuple[Done, Any]]) -> None:
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(self._tell, results)
        except RuntimeError:  # the loop has closed: nobody is left to be told, and what is committed stays
            return

    def _tell(self, results: list[tuple[Done, Any]]) -> None:
        try:
            for done, result in results:
                try:
                    done(result)
                except Exception as error:  # a bug in one answer's handling; the others must still be told
                    emit("store.answer_failed", error=repr(error))
            self.after_group()
        finally:
            self._told += 1
            while self._until_told and self._until_told[0][0] <= self._told:
                future = self._until_told.popleft()[1]
                if not future.done():
                    future.set_result(None)

    def _count(self, error: BaseException) -> None:
        if isinstance(error, StorageError):
            self.storage_errors["broken" if isinstance(error, StorageBroken) else "unavailable"] += 1

    # ------------------------------------------------------------ the reader threads

    def _read_loop(self, store: Store) -> None:
        while (wanted := self._reads.get()) is not None:
            fn, future = wanted
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(fn(store))
            except Exception as error:
                future.set_exception(self._ours(error))
        store.close()
