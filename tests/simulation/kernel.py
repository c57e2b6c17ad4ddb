"""One scheduler, one clock, one source of randomness. A step is one decision of it: what happens next, and when.

A `Process` is an asyncio event loop without a selector: it runs only when the kernel says so, so it can be frozen,
and can end between any two turns of any of its tasks without a single `finally` being run, as a `kill -9` ends it.
Nothing here knows Holdfast. No wall clock, no thread, no address in memory may decide anything.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import heapq
import random
import sys
import warnings
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, ClassVar

US = 1_000_000
_CONTEXT = contextvars.Context()


class Violation(AssertionError):
    """A guarantee does not hold; `guarantee` is its name, G1 … G13. It counts from the moment in which it is made:
    code under test that swallows it hides nothing."""

    made: ClassVar[list[Violation]] = []

    def __init__(self, guarantee: str, what: str) -> None:
        super().__init__(f"{guarantee}: {what}")
        self.guarantee, self.what = guarantee, what
        Violation.made.append(self)


class Handle:
    __slots__ = ("args", "callback", "context", "due", "off")

    def __init__(self, callback: Callable[..., Any], args: tuple[Any, ...], context: Any, due: float = 0.0) -> None:
        self.callback, self.args, self.context, self.due, self.off = callback, args, context, due, False

    def cancel(self) -> None:
        self.off = True
        self.callback = self.args = None  # type: ignore[assignment]

    def cancelled(self) -> bool:
        return self.off

    def when(self) -> float:
        return self.due


class Process(asyncio.AbstractEventLoop):
    """One process: its loop, its timers, and what a crash or a freeze means for it."""

    def __init__(self, kernel: Kernel, name: str) -> None:
        self.kernel, self.name = kernel, name
        self.ready: deque[Handle] = deque()
        self.timers: list[tuple[int, int, Handle]] = []
        self.wake_at: int | None = None
        self.alive, self.frozen, self.queued = True, False, False
        self.doom: tuple[int, Callable[[], None]] | None = None  # so many turns from now, this befalls it
        self.on_death: list[Callable[[], None]] = []
        self.readers: dict[Any, Handle] = {}
        self.threads: dict[Any, deque[tuple[int, Callable[[], None]]]] = {}  # by executor: what waits for its thread
        # Its own: asyncio.all_tasks looks through the tasks of every process that ever was, at each crash.
        self.tasks: weakref.WeakSet[asyncio.Task[Any]] = weakref.WeakSet()

    # ------------------------------------------------------------ asyncio's side

    def time(self) -> float:
        return self.kernel.now / US

    def call_soon(self, callback: Callable[..., Any], *args: Any, context: Any = None) -> Handle:
        handle = Handle(callback, args, context or contextvars.copy_context())
        self.ready.append(handle)
        if not self.queued:
            self.kernel.stir(self)
        return handle

    call_soon_threadsafe = call_soon

    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any, context: Any = None) -> Handle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Callable[..., Any], *args: Any, context: Any = None) -> Handle:
        kernel = self.kernel
        handle = Handle(callback, args, context or contextvars.copy_context(), when)
        # Rounded up: a timer may never fire before its time as `time()` tells it, or its owner waits again.
        due = max(-int(-when * US // 1), kernel.now)
        while due / US < when:
            due += 1
        kernel.count += 1
        heapq.heappush(self.timers, (due, kernel.count, handle))
        if self.wake_at is None or due < self.wake_at:
            self.wake_at = due
            kernel.at(due, self._wake, due)
        return handle

    def _wake(self, due: int) -> None:
        if not self.alive or self.frozen or self.wake_at != due:
            self.kernel.steps -= 1  # nothing was decided: a timer that somebody else's has overtaken
            return
        now, timers = self.kernel.now, self.timers
        while timers and timers[0][0] <= now:
            handle = heapq.heappop(timers)[2]
            if not handle.off:
                self.ready.append(handle)
        while timers and timers[0][2].off:
            heapq.heappop(timers)
        if timers:
            self.wake_at = timers[0][0]
            self.kernel.at(self.wake_at, self._wake, self.wake_at)
        else:
            self.wake_at = None
        if self.ready:
            self.kernel.stir(self)
        else:
            self.kernel.steps -= 1

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, *, name: str | None = None, context: Any = None) -> asyncio.Task[Any]:
        task = asyncio.Task(coro, loop=self, name=name or "task", context=context)
        self.tasks.add(task)
        return task

    def run_in_executor(self, executor: Any, fn: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        """The thread's work is done now or, on a slow machine, later; its answer always comes in a later turn.

        An executor that is named has one thread: its work is done in the order given. Without one each has its own.
        """
        future = self.create_future()

        def work() -> None:
            if not self.alive:
                return
            try:
                result, error = fn(*args), None
            except Exception as raised:
                result, error = None, raised
            self.call_soon(_answer, future, result, error)

        waits = deque() if executor is None else self.threads.setdefault(executor, deque())
        now, slow = self.kernel.now, self.kernel.rng.random()
        due = now + int(slow * 2 * US) if slow < 0.03 else now
        if waits:
            due = max(due, waits[-1][0])
        if waits or due > now:
            waits.append((due, work))
            self.kernel.at(due, self._next, waits)
        else:
            work()
        return future

    def _next(self, waits: deque[tuple[int, Callable[[], None]]]) -> None:
        if self.frozen:
            self.kernel.after(US // 10, self._next, waits)
        elif self.alive:
            waits.popleft()[1]()

    def add_reader(self, fd: Any, callback: Callable[..., Any], *args: Any) -> None:
        self.readers[fd] = Handle(callback, args, contextvars.copy_context())
        fd.listen(self)

    def remove_reader(self, fd: Any) -> bool:
        return self.readers.pop(fd, None) is not None

    def readable(self, fd: Any) -> None:
        if self.alive and (handle := self.readers.get(fd)) is not None:
            self.call_soon(handle.callback, *handle.args, context=handle.context)

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if self.alive and not self.kernel.over and error is not None:
            self.kernel.said(self.name, f"! {context.get('message')}: {error!r}")

    # ------------------------------------------------------------ the kernel's side

    def run(self) -> None:
        """Its turns until it is quiet, or until its doom."""
        ready, kernel = self.ready, self.kernel
        asyncio._set_running_loop(self)
        try:
            if self.doom is None:
                while ready:
                    handle = ready.popleft()
                    if not handle.off:
                        kernel.turns += 1
                        handle.context.run(handle.callback, *handle.args)
            else:
                self._run_to_doom()
        finally:
            asyncio._set_running_loop(None)

    def _run_to_doom(self) -> None:
        while self.ready and self.alive and not self.frozen:
            handle = self.ready.popleft()
            if handle.off:
                continue
            self.kernel.turns += 1
            handle.context.run(handle.callback, *handle.args)
            if self.doom is not None:
                left, befalls = self.doom
                self.doom = (left - 1, befalls)
                if left <= 0:
                    self.doom = None
                    befalls()

    def crash(self) -> None:
        """All of its memory is gone, and nothing of it runs again: not even a `finally`."""
        if not self.alive:
            return
        self.alive = False
        self.kernel.graveyard.append((self, self.ready, [task for task in self.tasks if not task.done()]))
        self.ready, self.timers = deque(), []
        self.queued = True  # never stirred again
        for tell in self.on_death:
            tell()

    def freeze(self) -> None:
        self.frozen = True

    def thaw(self) -> None:
        self.frozen = False
        if self.alive:
            if self.timers:
                self.wake_at = max(self.timers[0][0], self.kernel.now)
                self.kernel.at(self.wake_at, self._wake, self.wake_at)
            if self.ready and not self.queued:
                self.kernel.stir(self)


def _answer(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)


class Kernel:
    def __init__(self, seed: int | str, *, calm: bool = False) -> None:
        self.rng = random.Random(f"holdfast {seed}")  # a str is seeded by its bytes, not by its hash
        self.now = 0  # µs of the machine's monotonic clock
        self.steps = self.turns = self.count = 0
        self.over = False
        self.calm = calm  # no fault any more: every latency is small
        self.graveyard: list[Any] = []
        self.story: list[tuple[int, str, str]] | None = None
        self.digest = 0
        self._heap: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._stirred: deque[Process] = deque()
        self._ids = random.Random(f"ids {seed}")

    # ------------------------------------------------------------ what may be asked of it

    def at(self, when: int, fn: Callable[..., None], *args: Any) -> None:
        self.count += 1
        heapq.heappush(self._heap, (when if when > self.now else self.now, self.count, fn, args))

    def after(self, us: int, fn: Callable[..., None], *args: Any) -> None:
        self.count += 1
        heapq.heappush(self._heap, (self.now + us, self.count, fn, args))

    def latency(self, typical_us: int, worst_us: int = 0, chance: float = 0.0) -> int:
        """Around the typical one; now and then anything up to the worst."""
        if chance and not self.calm and self.rng.random() < chance:
            return int(self.rng.random() * worst_us)
        return int(typical_us * (0.5 + self.rng.random()))

    def stir(self, process: Process) -> None:
        if process.alive and not process.queued and not process.frozen:
            process.queued = True
            self._stirred.append(process)

    def mint(self) -> str:
        """A ULID of this world: its own time, its own randomness."""
        value = ((1_700_000_000_000 + self.now // 1000) << 80) | self._ids.getrandbits(80)
        return "".join("0123456789abcdefghjkmnpqrstvwxyz"[(value >> shift) & 31] for shift in range(125, -1, -5))

    def said(self, who: str, what: str) -> None:
        """A line of the story; kept only when somebody wants to read it."""
        if self.story is not None:
            self.story.append((self.now, who, what))

    # ------------------------------------------------------------ running

    def step(self) -> bool:
        """One decision and all that follows from it. False: nothing will ever happen again."""
        if not self._heap:
            return False
        when, _, fn, args = heapq.heappop(self._heap)
        self.now = when
        self.steps += 1
        self.digest = (self.digest * 1_000_003 + when) & 0xFFFF_FFFF_FFFF  # of every decision, in order
        fn(*args)
        self.settle()
        if Violation.made:
            raise Violation.made[0]
        return True

    def settle(self) -> None:
        """Whoever has something ready runs until all are quiet, in the order in which they were stirred."""
        stirred = self._stirred
        while stirred:
            process = stirred.popleft()
            if process.alive:
                process.queued = False
                if not process.frozen:
                    process.run()

    def next_at(self) -> int | None:
        return self._heap[0][0] if self._heap else None

    # ------------------------------------------------------------ the end

    def bury(self, living: list[Process]) -> None:
        """Lets go of everything without letting it speak: tasks that died do not run their `finally` for us."""
        self.over = True
        hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
        ignored = warnings.catch_warnings()
        ignored.__enter__()
        warnings.simplefilter("ignore")
        try:
            for process in living:
                process.crash()
            for _, ready, tasks in self.graveyard:
                ready.clear()
                for task in tasks:
                    task._log_destroy_pending = False
                    coro = task.get_coro()
                    for _ in range(8):  # a `finally` may await: it is thrown out of each of its waits
                        try:
                            coro.close()
                            break
                        except BaseException:
                            continue
            self.graveyard.clear()
            self._heap.clear()
            self._stirred.clear()
        finally:
            sys.unraisablehook = hook
            ignored.__exit__(None, None, None)


def quiet_collector() -> None:
    """Garbage is collected between runs, never inside one: a destructor at an unforeseen moment is a hidden decision.
    What was imported is never looked at again."""
    gc.collect()
    gc.disable()
    gc.freeze()
