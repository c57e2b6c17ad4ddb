"""The only file that imports ray: names, placement, restarts, handles. Its Ray classes are shells without decisions.

Everything that may ask Ray's control plane goes to a small pool of daemon threads with a deadline; the event loop only
ever touches handles that it has. Session actors: detached, max_restarts=0 (one way to revive: whoever calls). Gateway
and reaper: detached, max_restarts=-1, and their __init__ never raises, because Ray takes that for a wish to stay dead.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import gc
import hashlib
import json
import os
import pickle
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import ray.exceptions as rx

from actors import processes, telemetry
from actors.config import Settings
from actors.law.effects import Speech
from actors.law.nodes.requests import NODE, ORDER, TASK
from actors.law.orders.requests import COLLECTOR, STATION
from actors.law.requests import Request, SessionRequest
from actors.mailbox import Asleep, Mailbox, OutcomeUnknown
from actors.objects import object_store
from actors.pool import DaemonPool, PoolFull
from actors.protocol.errors import HoldfastError, StorageUnavailable
from actors.protocol.ids import ulid
from actors.store.contract import ActorRow, IdempotencyKey, Outcome, Token
from actors.store.sqlite import SqliteStore
from actors.store.worker import StoreWorker

NAMESPACE = "holdfast"
GATEWAY, REAPER = "gateway", "reaper"
EXIT_BROKEN = 70  # the storage cannot be trusted: the process ends, Ray or the next caller starts another
FIND_S = 1.0  # a look-up takes 0.3 ms; beyond this Ray's control plane hangs, and the caller decides without the actor
ASK_S = 5.0  # how often Ray is asked whether it is there, for /readyz
ONLY_S = 10.0  # a predecessor's process is gone in milliseconds
BORN_S = 30.0  # 0.36 s alone, 13 s when fifty come at once
WAKES_AT_ONCE = 1  # starting a worker takes all of a core for 0.3 s; more at once starve the gateway
WAKE_REST = 1.0  # after a wake, this many times its length without one: half a core is left to those who work
WAKE_BELOW = 0.6  # of a core; a process that works more has no time for wakes, and decides by itself as quickly
WAKE_SPARE = 0.9  # of a core, idle: a wake takes all of one for a second, and not from those who work beside us
WAKE_PATIENCE_S = 5.0  # for that; a machine that is never idle has its actors all the same
WAKE_STALE_S = 2.0  # who asked longer ago, and has no execution any more, is served without
WAKE_LOOK_S = 1.0  # before the first wake, and between two looks; `believe` comes as often
WAKES_WAITING = 256  # a wake that is dropped costs nothing: the transition runs without the actor
# Seconds after which a thread that waits for the interpreter is given it, instead of 0.005. The writer asks for
# it after each statement of a group: 40 of 60 ms of a large group were waiting beside a busy loop.
HANDOVER_S = 0.0005
# The collector's thresholds. Python's 700 young objects come together with every group or two. A pass over the middle
# generation takes half a microsecond an object, in which nothing else happens: 47 to 68 ms at 10,000 and 10, once a
# crowd of 400 had come. The last one, of everything, is as rare as it was: a million objects.
YOUNG, MIDDLE, OLD = 5000, 3, 66
PENDING_CALLS = 1000  # to one actor, unanswered; past it hints are dropped and calls decided elsewhere

Forget = Callable[[str, str], Awaitable[object]]


def placement_name(subject: str, settings: Settings) -> str | None:
    """Which actor a session, a node or an order lives in: its own, or a cell shared with others. Stable over processes
    and versions. None: it has no actor (a task without an order, a station, a collector); whoever asks decides."""
    if subject.startswith((TASK, STATION, COLLECTOR)):
        return None
    if settings.cells is None:
        return subject if subject.startswith((NODE, ORDER)) else f"session/{subject}"
    digest = hashlib.sha256(subject.encode()).digest()  # not hash(): that one is salted per process
    return f"session-cell/{int.from_bytes(digest[:8], 'big') % settings.cells}"


class Worked:
    """How much of a core this process took since the last look."""

    def __init__(
        self, cpu_s: Callable[[], float] = time.process_time, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._cpu_s, self._now = cpu_s, now
        self._last = cpu_s(), now()

    def __call__(self) -> float:
        (cpu_s, at), self._last = self._last, (self._cpu_s(), self._now())
        return (self._last[0] - cpu_s) / max(0.001, self._last[1] - at)


class Spare:
    """How many cores of the machine were idle since the last look."""

    def __init__(self, stat: Callable[[], bytes] = Path("/proc/stat").read_bytes) -> None:
        self._stat = stat
        self._last = self._look()

    def _look(self) -> tuple[int, int, int]:
        """Ticks of all cores, those in which they waited, and how many cores these are."""
        everything, *lines = self._stat().splitlines()
        ticks = [int(n) for n in everything.split()[1:9]]  # (what guests take is in the first of them)
        return sum(ticks), ticks[3] + ticks[4], sum(line.startswith(b"cpu") for line in lines)

    def __call__(self) -> float:
        (total, idle, _), self._last = self._last, self._look()
        return self._last[2] * (self._last[1] - idle) / max(1, self._last[0] - total)


@dataclass(slots=True)
class Wanted:
    """A wake that waits, or is under way."""

    name: str
    subject: str
    asked_at: float
    again_at: float


class RayPort:
    """actors.mailbox.ActorPort over Ray. All of it is hints: whatever goes wrong here, the caller decides by itself."""

    def __init__(
        self,
        settings: Settings,
        cluster: str,
        forget: Forget,
        *,
        works: Callable[[str], Awaitable[bool]] | None = None,
        worked: Callable[[], float] | None = None,
        spare: Callable[[], float] | None = None,
        wake_look_s: float = WAKE_LOOK_S,
        wake_patience_s: float = WAKE_PATIENCE_S,
        wake_stale_s: float = WAKE_STALE_S,
    ) -> None:
        """works: whether an actor would have anything to do for a subject. worked: how much of a core this process
        took since it was asked last; spare: how many cores nobody took."""
        self.settings, self.cluster, self._forget = settings, cluster, forget
        self.rows: dict[str, ActorRow] = {}
        self.handles: dict[str, Any] = {}
        self._finding: dict[str, asyncio.Task[Any]] = {}
        self._to_wake: deque[Wanted] = deque()
        self._waking: dict[str, Wanted] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._pool = DaemonPool("ray-control")
        self._asked_at, self._answered_at = 0.0, time.monotonic()
        self._works, self._wake_look_s = works, wake_look_s
        self._wake_patience_s, self._wake_stale_s = wake_patience_s, wake_stale_s
        self._worked, self._busy = worked or Worked(), False
        self._spare = spare or Spare()

    def believe(self, rows: list[ActorRow]) -> None:
        """What the registry says now. A row that went takes its handle along: that actor has left."""
        now = {row.name: row for row in rows if row.cluster == self.cluster}
        for name, row in self.rows.items():
            if name not in now or now[name].incarnation != row.incarnation:
                self.handles.pop(name, None)
        self.rows = now
        self._busy = self._worked() > WAKE_BELOW
        if time.monotonic() - self._asked_at > ASK_S and not self._tasks_named("ask"):
            self._asked_at = time.monotonic()
            self._spawn(self._ask(), "ask")

    def reachable(self) -> bool:
        """Whether Ray's control plane answered lately; a belief for /readyz, asked behind `believe`."""
        return time.monotonic() - self._answered_at < 3 * ASK_S

    async def _ask(self) -> None:
        try:
            await self._pool.run(lambda: _named(REAPER), FIND_S)
        except ValueError:
            telemetry.emit("reaper.missing")  # it answered: the reaper is not there yet
        except (PoolFull, TimeoutError, rx.RayError) as error:
            telemetry.emit("ray.unreachable", error=error)
            return
        self._answered_at = time.monotonic()

    def awake(self, subject: str) -> bool:
        name = placement_name(subject, self.settings)
        return name in self.handles or name in self.rows

    async def call(self, request: Request, key: IdempotencyKey | None, within_s: float) -> Outcome:
        name = placement_name(request.addressee, self.settings)
        if name is None:
            raise Asleep(request.addressee)
        deadline = asyncio.get_running_loop().time() + within_s
        handle = self.handles.get(name) or await self._found(name)
        asked = _packed((request, key))
        try:
            async with asyncio.timeout_at(deadline):
                outcome = _unpacked(await handle.perform.remote(asked))
        except TimeoutError:
            raise
        except rx.RayTaskError as error:
            if isinstance(error.cause, HoldfastError):
                raise error.cause from None
            telemetry.emit("actor.call.failed", name=name, error=error.cause)
            raise OutcomeUnknown(name) from error
        except rx.PendingCallsLimitExceeded as error:
            raise Asleep(name) from error  # refused on our side: it never left
        except rx.RayError as error:
            self._drop(name, handle, dead=isinstance(error, rx.ActorDiedError))
            raise OutcomeUnknown(name) from error
        assert isinstance(outcome, Outcome)
        return outcome

    def wake(self, subject: str) -> None:
        name = placement_name(subject, self.settings)
        if name is None or name in self.handles:
            return
        now = time.monotonic()
        if (wanted := self._waking.get(name)) is not None:
            wanted.subject, wanted.again_at = subject, now
            return
        if len(self._to_wake) >= WAKES_WAITING:  # a storm: nobody needs the actor to get an answer
            del self._waking[self._to_wake.popleft().name]
        self._waking[name] = wanted = Wanted(name, subject, now, now)
        self._to_wake.append(wanted)
        if self._tasks_named("wake") < WAKES_AT_ONCE:
            self._spawn(self._wake_some(), "wake")

    def end_frozen(self, subject: str) -> None:
        name = placement_name(subject, self.settings)
        if name is None:
            return
        row = self.rows.get(name)
        if row is not None:
            killed = processes.end_exactly(row.pid, row.pid_started)
            telemetry.emit("actor.frozen", name=name, pid=row.pid, killed=killed)
        self._drop(name, self.handles.get(name), dead=True)

    # ---------------------------------------------------------------- behind

    async def _found(self, name: str) -> Any:
        """The handle of a living actor; single flight. Raises Asleep: in every case nothing was executed."""
        task = self._finding.get(name)
        if task is None:
            task = self._finding[name] = self._spawn(self._find(name), "find")
            task.add_done_callback(lambda _: self._finding.pop(name, None))
        return await asyncio.shield(task)

    async def _find(self, name: str) -> Any:
        try:
            handle = await self._pool.run(lambda: _named(name), FIND_S)
        except ValueError:
            self._drop(name, None, dead=True)
            raise Asleep(name) from None
        except (PoolFull, TimeoutError, rx.RayError) as error:
            raise Asleep(name) from error  # Ray's control plane is at fault, not the actor: it must not be killed
        self.handles[name] = handle
        return handle

    async def _wake_some(self) -> None:
        rest_s = self._wake_look_s  # what was asked for begins first, and may be over before anybody is awake
        looks, full = True, False
        while self._to_wake:
            if looks:
                self._spare()
                await asyncio.sleep(rest_s)
                full = self._spare() < WAKE_SPARE  # of this very rest
            # The newest first: after a storm, the oldest may have nothing left to do.
            wanted, began = self._to_wake[-1], time.monotonic()
            if self._busy or (full and not await self._overdue(began)):
                rest_s, looks = self._wake_look_s, True
                continue
            if not self._to_wake or self._to_wake[-1] is not wanted:
                continue  # over by now, or somebody newer came while that was found out
            self._to_wake.pop()
            looks = False
            try:
                if self.settings.cells is None and len(self.rows) >= self.settings.awake_max:
                    continue  # enough processes: its decisions are made by whoever asks, as while it sleeps
                if await self._is_over(wanted, began):
                    continue
                await self._wake(wanted.name)
                rest_s, looks = WAKE_REST * (time.monotonic() - began), True
            except (PoolFull, TimeoutError, ValueError, rx.RayError) as error:
                telemetry.emit("actor.wake.failed", name=wanted.name, error=error)
            finally:
                self._waking.pop(wanted.name, None)

    async def _overdue(self, now: float) -> bool:
        """Whether somebody has waited for a spare core for too long. One who has nothing to do any more has not: his
        impatience would fall to whoever asked last, a command that has the machine to itself."""
        while self._to_wake and now - (oldest := self._to_wake[0]).asked_at >= self._wake_patience_s:
            if not await self._is_over(oldest, now):
                return True
            if self._to_wake and self._to_wake[0] is oldest:
                del self._waking[self._to_wake.popleft().name]
        return False

    async def _is_over(self, wanted: Wanted, now: float) -> bool:
        asked_at = wanted.again_at
        if now - asked_at < self._wake_stale_s or self._works is None or await self._works(wanted.subject):
            return False
        return wanted.again_at == asked_at  # somebody may have asked again meanwhile

    async def _wake(self, name: str) -> None:
        handle = await self._pool.run(lambda: mailbox_actor(name, self.settings, self.cluster), BORN_S)
        try:
            async with asyncio.timeout(BORN_S):
                row = await handle.who.remote()
        except TimeoutError:  # neither born nor dead: free its name for the next
            await self._pool.run(lambda: ray.kill(handle, no_restart=True), FIND_S)
            raise
        self.handles[name] = handle
        self.rows[name] = row

    def _drop(self, name: str, handle: Any, *, dead: bool) -> None:
        if self.handles.get(name) is handle:
            self.handles.pop(name, None)
        if dead and (row := self.rows.pop(name, None)) is not None:
            self._spawn(self._say_forget(row), "forget")

    async def _say_forget(self, row: ActorRow) -> None:
        try:
            await self._forget(row.name, row.incarnation)
        except (
            HoldfastError
        ) as error:  # the row stays and is found dead again; it cannot mislead for longer than a call
            telemetry.emit("actor.forget.failed", name=row.name, error=error)

    def _tasks_named(self, name: str) -> int:
        return sum(task.get_name() == name and not task.done() for task in self._tasks)

    def _spawn(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) and not isinstance(error, Asleep):
            telemetry.emit("runtime.task.failed", task=task.get_name(), error=error)


class Hints:
    """Rows up to seq N: said to the gateway by the reaper, one way, dropped when it does not listen (it reads the store
    anyway). An actor says none: whoever asked has the outcome, and a hint cost as much again as the answer."""

    def __init__(self) -> None:
        self._gateway: Any = None
        self._pool = DaemonPool("ray-hints", threads=1, waiting=1)
        self._looking: asyncio.Task[None] | None = None
        self._look_again = 0.0

    def __call__(self, outcome: Outcome) -> None:
        if self._gateway is None:
            self.look()
            return
        try:
            hint = self._gateway.hint.options(num_returns=0)
            hint.remote(outcome.session_id, outcome.last_seq, outcome.speech)
        except rx.PendingCallsLimitExceeded:
            return  # it is frozen or swamped: on its feet again, it catches up by its cursors
        except rx.RayError:
            self._gateway = None

    def look(self) -> None:
        now = time.monotonic()
        if now >= self._look_again and (self._looking is None or self._looking.done()):
            self._look_again = now + 1.0
            self._looking = asyncio.get_running_loop().create_task(self._find())

    async def _find(self) -> None:
        try:
            self._gateway = await self._pool.run(lambda: _named(GATEWAY), FIND_S)
        except (PoolFull, TimeoutError, ValueError, rx.RayError) as error:
            telemetry.emit("hint.dropped", error=error)


# -------------------------------------------------------------------- the actors


class SessionRay:
    """A session's, a node's or an order's process, or a cell's: counts who is inside, leaves when nobody needs it."""

    async def __init__(self, settings_json: str, name: str, cluster: str) -> None:  # type: ignore[misc]
        from actors.node import NodeActor
        from actors.order import OrderActor
        from actors.session import SessionActor

        settings = _begin(settings_json)
        self.inside = 0
        try:
            row = ActorRow(name, cluster, ulid(), *_me())
            kinds = {NODE: NodeActor, ORDER: OrderActor}
            kind = next((one for prefix, one in kinds.items() if name.startswith(prefix)), SessionActor)
            self.actor = kind(_worker(settings, readers=1), row, settings.hibernate_after_s)
            await self.actor.open()
        except Exception as error:
            telemetry.emit("session.start.failed", name=name, error=error)
            os._exit(1)
        _settle()
        if settings.cells is None:  # a cell never leaves: others live in it
            check_s = min(1.0, settings.hibernate_after_s / 4)
            self.idle = asyncio.get_running_loop().create_task(self._leave_when_idle(check_s))

    async def perform(self, asked: bytes) -> bytes:
        """A request and its key in, an outcome out, packed."""
        self.inside += 1
        try:
            return _packed(await self.actor.perform(*_unpacked(asked)))
        finally:
            self.inside -= 1

    async def who(self) -> ActorRow:
        return self.actor.row

    async def _leave_when_idle(self, check_s: float) -> None:
        while self.inside or not self.actor.may_hibernate():
            await asyncio.sleep(check_s)
            await self.actor.look_around()
        try:
            await self.actor.leave()  # from here on nobody new believes that we are awake
        except HoldfastError as error:  # the row misleads one caller, who finds nobody and forgets it
            telemetry.emit("actor.leave.failed", name=self.actor.row.name, error=error)
        # Whoever came meanwhile is served; what comes after the exit finds nobody and decides by itself.
        while self.inside:  # noqa: ASYNC110 - milliseconds, once in a life
            await asyncio.sleep(0.01)
        ray.actor.exit_actor()  # no await between the look and this


class GatewayActor:
    """The door's process. Everything it is made of is built here; what it does is actors.gateway."""

    async def __init__(self, settings_json: str, cluster: str) -> None:  # type: ignore[misc]
        settings = _begin(settings_json)
        error_file = settings.data_dir / "gateway.error"
        try:
            from actors.gateway.service import Gateway

            self.door_lock = await _only_gateway(settings.data_dir)
            worker = _worker(settings, readers=2, gateway=True)
            await worker.start()
            port = _port(settings, cluster, worker)
            self.gateway = Gateway(settings, worker, Mailbox(worker.perform, port), port)
            await self.gateway.start()
            _settle()
            _write_identity(settings)
            error_file.unlink(missing_ok=True)
        except BaseException as error:  # raising would end this actor for ever; a dead process is started again
            telemetry.emit("gateway.start.failed", error=error)
            with contextlib.suppress(OSError):  # on a full disk too the process must end by itself, not by raising
                error_file.write_text(f"{type(error).__name__}: {error}\n")
            await asyncio.sleep(0.2)  # a cause that stays (a busy port) may not make a busy loop of starts
            os._exit(1)

    async def info(self) -> dict[str, Any]:
        return {"pid": os.getpid()}

    async def perform(self, request: Request) -> Outcome:
        """For actors.client: the same decision as over HTTP."""
        return await self.gateway.door.perform(request, wake=True)

    async def show(self, session_id: str) -> dict[str, Any]:
        return await self.gateway.door.worker.read(lambda store: store.session(session_id))

    async def hint(self, subject: str, last_seq: int, speech: tuple[Speech, ...]) -> None:
        self.gateway.hint(subject, last_seq, speech)


class ReaperActor:
    """The reaper's process: one loop for ever."""

    async def __init__(self, settings_json: str, cluster: str) -> None:  # type: ignore[misc]
        settings = _begin(settings_json)
        self.running = asyncio.get_running_loop().create_task(self._run(settings, cluster))

    async def _run(self, settings: Settings, cluster: str) -> None:
        try:
            from actors.reaper import Reaper

            worker = _worker(settings, readers=1)
            await worker.start()
            port = _port(settings, cluster, worker)
            believing = asyncio.get_running_loop().create_task(_keep_believing(port, worker))
            pid, pid_started = _me()
            hints = Hints()
            hints.look()
            _settle()
            await Reaper(
                worker,
                Mailbox(worker.perform, port),
                incarnation=ulid(),
                pid=pid,
                pid_started=pid_started,
                tick_s=settings.tick_s,
                retention_s=settings.retention_s,
                audit_retention_s=settings.audit_retention_s,
                on_outcome=hints,
                objects=object_store(settings.objects_dir),
            ).run()
            believing.cancel()
        except BaseException as error:
            telemetry.emit("reaper.crashed", error=error)
        await asyncio.sleep(0.2)
        os._exit(1)  # its loop never ends by itself; Ray starts another

    async def info(self) -> dict[str, Any]:
        return {"pid": os.getpid()}


def _port(settings: Settings, cluster: str, worker: StoreWorker) -> RayPort:
    async def works(subject: str) -> bool:
        """As the actor itself would see it before it hibernates (session.py)."""
        if not SessionRequest.owns(subject):
            return True
        try:
            found = await worker.read(lambda store: store.session(subject))
        except HoldfastError as error:
            return error.retryable  # deleted: nothing to be awake for
        return found["active_execution"] is not None

    return RayPort(settings, cluster, lambda name, inc: worker.write(lambda s: s.forget_actor(name, inc)), works=works)


async def _keep_believing(port: RayPort, worker: StoreWorker) -> None:
    """Who is awake, once a second. (The gateway has a loop of its own for it.)"""
    while True:
        try:
            port.believe(await worker.read(lambda store: store.actors_awake()))
        except Exception as error:
            telemetry.emit("actors.unread", error=error)
        await asyncio.sleep(1.0)


async def _only_gateway(data_dir: Path) -> int:
    """SQLite means one door (DESIGN §4): the lock of the data directory, held for life. Raises TimeoutError."""
    fd = os.open(data_dir / "gateway.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    async with asyncio.timeout(ONLY_S):
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return fd
            except BlockingIOError:  # a predecessor that is just dying; a frozen one is ended by `up`
                await asyncio.sleep(0.02)


def _packed(what: object) -> bytes:
    """Ray passes bytes as they are. What it pickles itself costs 0.2 ms more a call: it looks for handles and
    references, and a decision has none."""
    return pickle.dumps(what, pickle.HIGHEST_PROTOCOL)


def _unpacked(packed: bytes) -> Any:
    return pickle.loads(packed)  # noqa: S301 - from a process of ours, by a call that Ray itself unpickles


def _begin(settings_json: str) -> Settings:
    settings = Settings.from_json(settings_json)
    telemetry.configure(settings.log_level, json=True)
    return settings


def _settle() -> None:
    """What stands now (Ray, aiohttp, pydantic: some 100,000 objects) stays: the collector no longer walks it, where it
    had a fifth of the samples that held a saturated gateway's interpreter. Its threads hand that over quickly."""
    sys.setswitchinterval(HANDOVER_S)
    gc.freeze()
    gc.set_threshold(YOUNG, MIDDLE, OLD)


def _worker(settings: Settings, *, readers: int, gateway: bool = False) -> StoreWorker:
    return StoreWorker(
        lambda: SqliteStore.open(settings.store_path, settings.policy(), checkpoints=gateway, guards=gateway),
        readers=readers,
        on_broken=end_broken,
    )


def _me() -> tuple[int, int]:
    pid = os.getpid()
    return pid, processes.started_at(pid) or 0


def end_broken(error: BaseException) -> None:
    telemetry.emit("store.broken", error=error)
    os._exit(EXIT_BROKEN)


def _write_identity(settings: Settings) -> None:
    """For the supervisor: whom to kill when the door does not answer. Without it (a full disk) it ends the head."""
    pid, pid_started = _me()
    path = settings.data_dir / "gateway.json"
    temporary = path.with_suffix(f".{pid}")
    try:
        temporary.write_text(json.dumps({"pid": pid, "pid_started": pid_started}))
        os.replace(temporary, path)
    except OSError as error:
        telemetry.emit("gateway.identity.failed", error=error)


# -------------------------------------------------------------------- making them (these block on Ray)


def _named(name: str) -> Any:
    """The handle of a living actor. Raises ValueError if there is none, or if this process is in no cluster at all:
    left to itself, get_actor would start or join one, and it might be a stranger's."""
    if not ray.is_initialized():
        raise ValueError(f"no cluster, so no {name}")
    return ray.get_actor(name, namespace=NAMESPACE)


def mailbox_actor(name: str, settings: Settings, cluster: str) -> Any:
    return _actor(SessionRay, name, 0, settings.to_json(), name, cluster)


def _actor(cls: type[Any], name: str, max_restarts: int, *arguments: Any) -> Any:
    # detached is mandatory: otherwise get_if_exists returns a dead actor while anybody still holds a handle to it
    remote = ray.remote(cls).options(
        name=name,
        namespace=NAMESPACE,
        lifetime="detached",
        max_restarts=max_restarts,
        num_cpus=0,
        get_if_exists=True,
        max_concurrency=1000,
        max_pending_calls=PENDING_CALLS,
    )
    return remote.remote(*arguments)


def join(address: str) -> None:
    """A program of somebody else's becomes a driver of our cluster; it keeps the connection if it has one already."""
    if not ray.is_initialized():
        ray.init(address=address, namespace=NAMESPACE, log_to_driver=False, logging_level="ERROR")


def ask_gateway(method: str, *arguments: Any, within_s: float) -> Any:
    """One method of the gateway actor; asked again after a Ray error, so it must be idempotent. Blocks.

    Raises HoldfastError (the store's and ours), TimeoutError (the outcome is unknown).
    """
    end, pause = time.monotonic() + within_s, 0.02
    while True:
        left = end - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"no answer within {within_s:g} s; the outcome is unknown")
        try:
            return ray.get(getattr(_named(GATEWAY), method).remote(*arguments), timeout=left)
        except rx.RayTaskError as error:
            if isinstance(error.cause, HoldfastError):
                raise error.cause from None
            raise
        except (rx.RayError, ValueError) as error:  # ValueError: the gateway is being born again
            telemetry.emit("client.unknown", method=method, error=error)
        time.sleep(pause)
        pause = min(pause * 2, 0.5)


def boot(arguments: dict[str, Any]) -> dict[str, Any]:
    """The one-shot driver of `up`: makes gateway and reaper and waits until the door is open.

    arguments: settings; address of the head, head_ready (a file that appears with it); cluster, token_sha256, within_s.
    """
    settings = Settings(**arguments["settings"])
    cluster, deadline = str(arguments["cluster"]), time.monotonic() + float(arguments["within_s"])
    store = SqliteStore.open(settings.store_path, settings.policy())
    try:
        store.put_token(arguments["token_sha256"], Token("tok_up", "admin"))
        for row in store.actors_awake():
            if row.cluster != cluster:  # it died with its head
                store.forget_actor(row.name, row.incarnation)
    except StorageUnavailable as error:  # a full disk: the token of an earlier start stands, and the door says the rest
        print(f"the store takes nothing now: {error}", file=sys.stderr)
    store.close()
    while not Path(arguments["head_ready"]).exists():
        if time.monotonic() > deadline:
            raise TimeoutError("Ray did not start")
        time.sleep(0.01)
    ray.init(address=arguments["address"], namespace=NAMESPACE, log_to_driver=False, logging_level="ERROR")
    gateway = _actor(GatewayActor, GATEWAY, -1, settings.to_json(), cluster)
    reaper = _actor(ReaperActor, REAPER, -1, settings.to_json(), cluster)
    while True:
        try:
            info: dict[str, Any] = ray.get(gateway.info.remote(), timeout=max(0.1, deadline - time.monotonic()))
            ray.get(reaper.info.remote(), timeout=max(0.1, deadline - time.monotonic()))
            return info
        except rx.RayError as error:
            if time.monotonic() > deadline or isinstance(error, rx.ActorDiedError):
                said = settings.data_dir / "gateway.error"
                raise TimeoutError(said.read_text().strip() if said.exists() else str(error)) from error
            time.sleep(0.1)


def main(argv: list[str]) -> None:
    if len(argv) != 2 or argv[0] != "boot":
        print("usage: python -m actors.runtime boot JSON", file=sys.stderr)
        os._exit(2)
    try:
        print(json.dumps(boot(json.loads(argv[1]))), flush=True)
    except Exception as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)  # detached actors live on; Ray's own exit would take a second to tidy what we do not have


if __name__ == "__main__":
    # Not this module's own names: classes of `__main__` would travel by value, and every worker would have its own.
    from actors import runtime

    runtime.main(sys.argv[1:])
