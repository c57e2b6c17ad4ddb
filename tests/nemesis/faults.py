"""Does to the service, its wrappers and its network what the plan says; undoes what has an end; writes down both.

Whom to hit is looked up at the moment of the blow, from where an operator would look. Nobody is hit who was not started
by this run: a pid must descend from our `up`, or have our spool open. A fault that finds nobody waits a little for
somebody, and else says that it missed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from tests.e2e.service import alive
from tests.nemesis import host
from tests.nemesis.keeper import Keeper
from tests.nemesis.plan import Fault

if TYPE_CHECKING:
    from tests.nemesis.run import Run

FIND_S = 15.0  # how long a fault waits for its target to be there: a head that was killed needs 3 s, busy hosts more

UP_S = 180.0  # a new `up`, with its head killed under it more than once: each such boot may take its whole deadline
STUCK_S = UP_S + 120.0  # the slowest of them waits for a head before


class Nemesis:
    def __init__(self, run: Run) -> None:
        self.run = run
        self.done: Counter[str] = Counter()
        self.missed: Counter[str] = Counter()
        self.broken: list[str] = []  # promises about the fault itself: a process that must exit after EIO, and did not
        self.refused_to_begin = 0
        self.proved: Counter[str] = Counter()
        self._tasks: list[asyncio.Task[None]] = []
        self._up = asyncio.Lock()
        self._frozen: dict[tuple[int, str], int] = {}
        self._ballast: Counter[str] = Counter()

    async def carry_out(self, plan: list[Fault], progress: Callable[[Fault], None]) -> None:
        """All of it, overlapping; returns when the last one has been undone."""
        began = time.monotonic()
        for fault in plan:
            await asyncio.sleep(max(0.0, began + fault.at - time.monotonic()))
            progress(fault)
            self._tasks.append(asyncio.create_task(self._one(fault)))
        await asyncio.gather(*self._tasks)

    async def undo(self) -> None:
        """Whatever a plan that was broken off has left behind."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _one(self, fault: Fault) -> None:
        perform: Callable[[Fault], Awaitable[bool]] = getattr(self, f"_{fault.kind}")
        try:
            async with asyncio.timeout(fault.seconds + STUCK_S):
                hit = await perform(fault)
        except TimeoutError:
            self.broken.append(f"{fault}: neither done nor undone after {STUCK_S:g} s more")
            return
        except (ProcessLookupError, FileNotFoundError):
            hit = False  # it ended between the look and the blow
        except AssertionError as error:  # the service did not come back
            self.broken.append(f"{fault}: {error}")
            return
        (self.done if hit else self.missed)[fault.kind] += 1

    def _note(self, fault: Fault, **more: object) -> None:
        self.run.record.say("fault", fault=fault.kind, target=fault.target, seconds=fault.seconds, **more)

    # ------------------------------------------------------------ the network

    async def _during(self, fault: Fault, on: Callable[[], None], off: Callable[[], None]) -> bool:
        self._note(fault)
        on()
        try:
            await asyncio.sleep(fault.seconds)
        finally:
            off()
        return True

    async def _latency(self, fault: Fault) -> bool:
        delays = self.run.links[fault.target].weather.latency_s
        delay = float(fault.get("delay_s"))
        return await self._during(fault, lambda: delays.append(delay), lambda: delays.remove(delay))

    async def _throttle(self, fault: Fault) -> bool:
        rates = self.run.links[fault.target].weather.bytes_per_s
        rate = float(fault.get("bytes_per_s"))
        return await self._during(fault, lambda: rates.append(rate), lambda: rates.remove(rate))

    async def _silence(self, fault: Fault) -> bool:
        link = self.run.links[fault.target]

        def off() -> None:
            if fault.get("then_cut"):
                link.reset()  # else what was held comes late, from a line that may long be fenced
            link.silence(False)

        return await self._during(fault, lambda: link.silence(True), off)

    async def _reset(self, fault: Fault) -> bool:
        self._note(fault)
        self.run.links[fault.target].reset()
        return True

    async def _double(self, fault: Fault) -> bool:
        weather = self.run.links[fault.target].weather

        def change(by: int) -> None:
            weather.double += by

        return await self._during(fault, lambda: change(1), lambda: change(-1))

    # ------------------------------------------------------------ wrappers and agents

    def _any(self, fault: Fault, find: Callable[[Keeper], int | None]) -> Callable[[], int | None]:
        """The session that the plan names, or, if nothing is there, the next one where something is."""
        first = self.run.names.index(fault.target)
        order = self.run.names[first:] + self.run.names[:first]
        return lambda: next((pid for name in order if (pid := find(self.run.keeper(name))) is not None), None)

    async def _wrapper_kill(self, fault: Fault) -> bool:
        keeper = self.run.keeper(fault.target)
        if not await self._there(lambda: keeper.pid):
            return False
        self._note(fault)
        return keeper.kill(float(fault.get("away_s")))

    async def _wrapper_upgrade(self, fault: Fault) -> bool:
        keeper = self.run.keeper(fault.target)
        if not await self._there(lambda: keeper.pid):
            return False
        self._note(fault)
        return keeper.upgrade()

    async def _wrapper_stop(self, fault: Fault) -> bool:
        return await self._freeze(fault, self._any(fault, lambda keeper: keeper.pid))

    async def _rival(self, fault: Fault) -> bool:
        self._note(fault)
        self.run.add_keeper(fault.target)
        return True

    async def _agent_kill(self, fault: Fault) -> bool:
        return await self._kill(fault, self._any(fault, Keeper.agent_pid))

    async def _agent_stop(self, fault: Fault) -> bool:
        return await self._freeze(fault, self._any(fault, Keeper.agent_pid))

    async def _shim_kill(self, fault: Fault) -> bool:
        return await self._kill(fault, self._any(fault, Keeper.shim_pid))

    async def _shim_stop(self, fault: Fault) -> bool:
        return await self._freeze(fault, self._any(fault, Keeper.shim_pid))

    # ------------------------------------------------------------ the service's processes

    def _gateway(self) -> int | None:
        try:
            return self._ours(self.run.service.gateway_pid())
        except (OSError, ValueError, KeyError):
            return None

    def _reaper(self) -> int | None:
        try:
            return self._ours(self.run.service.reaper_pid())
        except (sqlite3.Error, TypeError):
            return None

    def _actor(self, fault: Fault) -> Callable[[], int | None]:
        def awake(keeper: Keeper) -> int | None:
            try:
                return self._ours(self.run.service.actor_pid(keeper.session_id))
            except sqlite3.Error:
                return None

        return self._any(fault, awake)

    def _of_head(self, program: str) -> int | None:
        up = self.run.service.up
        for pid in descendants(up.pid) if up is not None else ():
            try:
                if os.path.basename(os.readlink(f"/proc/{pid}/exe")) == program:
                    return pid
            except OSError:
                continue
        return None

    def _ours(self, pid: int | None) -> int | None:
        up = self.run.service.up
        return pid if pid is not None and up is not None and pid in descendants(up.pid) else None

    async def _gateway_kill(self, fault: Fault) -> bool:
        return await self._kill(fault, self._gateway)

    async def _gateway_stop(self, fault: Fault) -> bool:
        return await self._freeze(fault, self._gateway)

    async def _actor_kill(self, fault: Fault) -> bool:
        return await self._kill(fault, self._actor(fault))

    async def _actor_stop(self, fault: Fault) -> bool:
        return await self._freeze(fault, self._actor(fault))

    async def _reaper_kill(self, fault: Fault) -> bool:
        return await self._kill(fault, self._reaper)

    async def _reaper_stop(self, fault: Fault) -> bool:
        return await self._freeze(fault, self._reaper)

    async def _raylet_kill(self, fault: Fault) -> bool:
        await self._in_service(fault)
        return await self._kill(fault, lambda: self._of_head("raylet"))

    async def _gcs_kill(self, fault: Fault) -> bool:
        await self._in_service(fault)
        return await self._kill(fault, lambda: self._of_head("gcs_server"))

    async def _in_service(self, fault: Fault) -> None:
        """Most wait until the head stands again, or a plan of falls would never see it stand; some fall into a fall."""
        if not fault.get("at_once"):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(2 * FIND_S):
                    while self._gateway() is None or not await asyncio.to_thread(self.run.service.healthy):
                        await asyncio.sleep(0.2)

    async def _up_stop(self, fault: Fault) -> bool:
        return await self._freeze(fault, self._up_pid)

    def _up_pid(self) -> int | None:
        up = self.run.service.up
        return up.pid if up is not None and not self._up.locked() and up.poll() is None else None

    async def _up_kill(self, fault: Fault) -> bool:
        return await self._new_up(fault, signal.SIGKILL)

    async def _up_restart(self, fault: Fault) -> bool:
        return await self._new_up(fault, signal.SIGTERM)

    async def _new_up(self, fault: Fault, number: signal.Signals) -> bool:
        await self._in_service(fault)
        async with self._up:
            service = self.run.service
            assert service.up is not None
            self._note(fault)
            os.kill(service.up.pid, signal.SIGCONT)  # of whoever froze it: a TERM would wait
            os.kill(service.up.pid, number)
            await asyncio.to_thread(service.up.wait, 60)
            await asyncio.sleep(float(fault.get("away_s")))
            deadline = time.monotonic() + UP_S
            while True:
                try:
                    await asyncio.to_thread(service.start, UP_S)
                    return True
                except AssertionError:
                    # It may refuse to begin, on a full disk say, and says so; whoever supervises it tries again.
                    if service.up.poll() is None or time.monotonic() > deadline:
                        raise
                    self.refused_to_begin += 1
                    await asyncio.sleep(1.0)

    # ------------------------------------------------------------ signals

    async def _there(self, find: Callable[[], int | None]) -> int | None:
        deadline = time.monotonic() + FIND_S
        while (pid := find()) is None or not alive(pid):
            if time.monotonic() > deadline:
                return None
            await asyncio.sleep(0.1)
        return pid

    async def _kill(self, fault: Fault, find: Callable[[], int | None]) -> bool:
        pid = await self._there(find)
        if pid is None:
            return False
        self._note(fault, pid=pid)
        os.kill(pid, signal.SIGKILL)
        return True

    async def _freeze(self, fault: Fault, find: Callable[[], int | None]) -> bool:
        """SIGSTOP; SIGCONT when the last of those who froze it lets go, and only if it is still the same process."""
        pid = await self._there(find)
        if pid is None:
            return False
        who = (pid, birth(pid))
        self._note(fault, pid=pid)
        self._frozen[who] = self._frozen.get(who, 0) + 1
        os.kill(pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(fault.seconds)
        finally:
            self._frozen[who] -= 1
            if not self._frozen[who] and birth(pid) == who[1]:
                os.kill(pid, signal.SIGCONT)
        return True

    # ------------------------------------------------------------ disks and clocks

    async def _service_disk_full(self, fault: Fault) -> bool:
        return await self._fill(fault, "service")

    async def _spools_disk_full(self, fault: Fault) -> bool:
        return await self._fill(fault, "spools")

    async def _fill(self, fault: Fault, disk: str) -> bool:
        ballast = self.run.disks[disk] / "ballast"

        def on() -> None:
            self._ballast[disk] += 1
            fill(ballast)

        def off() -> None:
            self._ballast[disk] -= 1
            if not self._ballast[disk]:
                ballast.unlink(missing_ok=True)

        return await self._during(fault, on, off)

    async def _gateway_fsync_eio(self, fault: Fault) -> bool:
        return await self._eio(fault, self._gateway)

    async def _wrapper_fsync_eio(self, fault: Fault) -> bool:
        return await self._eio(fault, self._any(fault, lambda keeper: keeper.pid if keeper.agent_pid() else None))

    async def _eio(self, fault: Fault, find: Callable[[], int | None]) -> bool:
        pid = await self._there(find)
        if pid is None:
            return False
        born, log = birth(pid), self.run.folder / f"strace-{fault.kind}-{pid}-{fault.at}.log"
        self._note(fault, pid=pid)
        tracer = host.inject_eio(pid, log)
        try:
            deadline = time.monotonic() + fault.seconds
            while tracer.poll() is None and time.monotonic() < deadline and birth(pid) == born:
                await asyncio.sleep(0.05)
        finally:
            host.let_go(tracer)
        injected = "INJECTED" in log.read_text(errors="replace") if log.exists() else False
        if not injected:
            return False  # it was frozen, or had nothing to write
        self.proved[fault.kind] += 1
        deadline = time.monotonic() + 30.0  # a frozen one has to be thawed first
        while birth(pid) == born and alive(pid):
            if time.monotonic() > deadline:
                self.broken.append(f"{fault.kind}: pid {pid} lives on after a failed fsync ({log})")
                break
            await asyncio.sleep(0.1)
        return True

    async def _wrappers_clock(self, fault: Fault) -> bool:
        """Of all wrappers and their agents at once; it stays until the next step."""
        return self._step(fault, "wrappers")

    async def _service_clock(self, fault: Fault) -> bool:
        return self._step(fault, "service")

    def _step(self, fault: Fault, whose: str) -> bool:
        self.run.record.say("fault", fault="clock", target=whose, seconds=0.0, step_s=fault.get("step_s"))
        self.run.clocks[whose].step(float(fault.get("step_s")))
        return True


def birth(pid: int) -> str:
    """Start time since boot; with the pid it names one process for ever. Empty: it is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stat:
            return stat.read().rpartition(")")[2].split()[19]
    except OSError:
        return ""


def descendants(pid: int) -> list[int]:
    found, ahead = [], [pid]
    while ahead:
        parent = ahead.pop()
        try:
            for task in os.listdir(f"/proc/{parent}/task"):
                with open(f"/proc/{parent}/task/{task}/children") as children:
                    below = [int(child) for child in children.read().split()]
                found += below
                ahead += below
        except OSError:
            continue
    return found


def fill(path: os.PathLike[str]) -> None:
    """Big blocks first, then small ones, until not a byte goes in."""
    with open(path, "ab", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError:
                continue
