"""The whole service, its machines and its people in one process: who is alive, who is born again, what befalls them."""

from __future__ import annotations

import asyncio
import random
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import WSMsgType

from actors import telemetry
from actors.config import Settings
from actors.gateway.connection import Connection
from actors.law import requests as rq
from actors.store.backup import _nobody_is_here
from actors.store.contract import Outcome
from tests.simulation import faults
from tests.simulation.host import ORPHAN_AFTER_S, Host, SimSpool
from tests.simulation.invariants import Watchman
from tests.simulation.kernel import US, Kernel, Process, Violation
from tests.simulation.net import End, Line
from tests.simulation.people import Operator, Watcher
from tests.simulation.plan import Happening, Plan
from tests.simulation.service import ActorProcess, GatewayProcess, ReaperProcess
from tests.simulation.storage import Disk, SimStore, SimWorker
from wrapper.app import Settings as WrapperSettings
from wrapper.app import Wrapper
from wrapper.connection import CONNECT_TIMEOUT_S, Closed, Socket
from wrapper.drivers.jsonl import JsonlDriver
from wrapper.ports import Ports

BORN_AGAIN_US = (US // 2, 3 * US)
# Events of telemetry that say "a bug of ours was caught and told"; storage and peers have others.
BUGS = frozenset(
    {
        "gateway.task_failed",
        "gateway.after_group_failed",
        "gateway.turn_failed",
        "stream.failed",
        "gateway.close_failed",
        "gateway.tick_failed",
        "gateway.tend_failed",
        "gateway.seen_failed",
        "gateway.look_failed",
        "gateway.reaper_failed",
        "store.answer_failed",
        "store.job_failed",
        "ingest.control_failed",
        "reaper.tick_failed",
    }
)

_settings: dict[tuple[bool, bool, bool], Settings] = {}


def settings_for(plan: Plan) -> Settings:
    odds = plan.odds
    key = (odds.hung, odds.max_runtime, odds.stale_only)
    if key not in _settings:
        _settings[key] = Settings(
            allow_short_grace=True,
            pending_s=9.0,
            stale_s=7.0,
            grace_s=5.0,
            interrupt_s=4.0,
            hung_s=6.0 if odds.hung else None,
            max_runtime_s=9.0 if odds.max_runtime else None,
            heartbeat_s=2.0,
            server_ping_s=4.0,
            server_pong_s=3.0,
            takeover="stale_only" if odds.stale_only else "latest_wins",
            takeover_threshold_s=3.0,
            tick_s=1.0,
        )
    return _settings[key]


@dataclass(frozen=True)
class Parts:
    """What a world is made of; a test that plants a bug puts its own there."""

    store: type[SimStore] = SimStore
    worker: type[SimWorker] = SimWorker
    spool: type[SimSpool] = SimSpool
    host: type[Host] = Host
    connection: type[Connection] = Connection


class World:
    def __init__(self, plan: Plan, *, story: bool = False, parts: Parts | None = None) -> None:
        self.plan, self.odds, self.parts = plan, plan.odds, parts or Parts()
        self.kernel = Kernel(plan.seed)
        if story:
            self.kernel.story = []
        self.settings = settings_for(plan)
        self.watchman = Watchman(self)
        self.disk = Disk(self.kernel, self.settings.policy(), self.parts.store)
        self.people = Process(self.kernel, "people")
        self.operator = Operator(self)
        self.watchers: list[Watcher] = []
        self.gateways: list[GatewayProcess] = []
        self.actors: list[ActorProcess] = []
        self.reaper: ReaperProcess | None = None
        self.hosts: list[Host] = []
        self.lines: list[Line] = []
        self.sessions: list[str] = []
        self.executions: list[tuple[str, str]] = []
        self.down_until = 0  # no process of the service is born before
        self.restoring = False
        self._waking: set[str] = set()
        self._births = self._pids = self._names = 0
        self._told = telemetry.subscribe(self._telemetry)
        self._found()

    # ------------------------------------------------------------ the beginning

    def _found(self) -> None:
        self.birth_gateway()
        self.birth_reaper()
        self.kernel.settle()
        for n in range(self.odds.sessions):
            sid = f"s{n}"
            self.sessions.append(sid)
            self.disk.store("people").transact(rq.CreateSession(session_id=sid, seed=self.kernel.mint()))
            self.watchman.look(sid)
            self.add_host(sid)
        for happening in self.plan.happenings:
            self.kernel.at(happening.at_us, self._happens, happening)

    def _happens(self, happening: Happening) -> None:
        if not self.kernel.calm:
            faults.befall(self, happening)

    def add_host(self, session_id: str) -> Host:
        host = self.parts.host(self, f"host-{len(self.hosts)}", session_id)
        self.hosts.append(host)
        self.kernel.after(self.kernel.latency(100_000), self.birth_wrapper, host)
        return host

    # ------------------------------------------------------------ processes are born

    def _n(self) -> int:
        self._births += 1
        return self._births

    def next_pid(self) -> int:
        self._pids += 2
        return 1000 + self._pids

    def birth_gateway(self) -> None:
        if self.kernel.now < self.down_until:
            self.kernel.at(self.down_until, self.birth_gateway)
            return
        if any(g.process.alive and not g.process.frozen for g in self.gateways):
            return
        born = GatewayProcess(self, self._n())
        self.kernel.said(born.process.name, "* is born")
        self.gateways.append(born)
        born.process.on_death.append(lambda: self._again(self.birth_gateway))

    def birth_reaper(self) -> None:
        if self.kernel.now < self.down_until:
            self.kernel.at(self.down_until, self.birth_reaper)
            return
        if self.reaper is not None and self.reaper.process.alive and not self.reaper.process.frozen:
            return
        self.reaper = ReaperProcess(self, self._n())
        self.kernel.said(self.reaper.process.name, "* is born")
        self.reaper.process.on_death.append(lambda: self._again(self.birth_reaper))

    def _again(self, birth: Callable[..., None], *args: Any) -> None:
        least, most = BORN_AGAIN_US
        self.kernel.after(least + int(self.kernel.rng.random() * (most - least)), birth, *args)

    def wake(self, session_id: str, *, twice: bool = False) -> None:
        if not self.odds.actors and not twice:
            return
        if (session_id in self._waking or self.actor_named(f"session/{session_id}") is not None) and not twice:
            return
        self._waking.add(session_id)
        self.kernel.after(self.kernel.latency(360_000), self._born_actor, session_id)

    def _born_actor(self, session_id: str) -> None:
        self._waking.discard(session_id)
        if self.kernel.now >= self.down_until:
            born = ActorProcess(self, session_id, self._n())
            self.kernel.said(born.process.name, f"* is born for {session_id}")
            self.actors = [actor for actor in self.actors if actor.process.alive]
            self.actors.append(born)

    def actor_named(self, name: str, born_before: int | None = None) -> ActorProcess | None:
        """The one that a name leads to: Ray says the youngest; two may be alive."""
        for actor in reversed(self.actors):
            is_it = actor.process.alive and actor.open and actor.row.name == name
            if is_it and (born_before is None or actor.born_at <= born_before):
                return actor
        return None

    def open_gateway(self) -> GatewayProcess | None:
        """Whom a newcomer's connection reaches: the one that listens."""
        return self.gateways[-1] if self.gateways and self.gateways[-1].process.alive else None

    def may_kill(self, process: Process) -> bool:
        return True

    def hint(self, outcome: Outcome) -> None:
        """From the reaper to the gateway; one in ten is lost."""
        if self.kernel.rng.random() < 0.9 and (gateway := self.open_gateway()) is not None:
            self.kernel.after(self.kernel.latency(300, US, 0.01), gateway.hint, outcome)

    # ------------------------------------------------------------ wrappers

    def birth_wrapper(self, host: Host) -> None:
        if not host.wanted or (host.process is not None and host.process.alive):
            return
        host.born += 1
        process = host.process = Process(self.kernel, f"{host.name}/{host.born}")
        ports = Ports(
            clock=process.time,
            wall_ms=host.wall_ms,
            uniform=self.kernel.rng.uniform,
            mint=self.kernel.mint,
            spool=lambda directory, session_id, *, limit_bytes, policy: self.parts.spool(
                host, session_id, limit_bytes, policy
            ),
            dialer=lambda url, session_id: SimDialer(self, host, process),  # type: ignore[arg-type,return-value]
            driver=lambda name: JsonlDriver(self.kernel.mint),
            shims=host,  # type: ignore[arg-type]
        )
        small = self.odds.small_spool
        settings = WrapperSettings(
            url="http://sim",
            session_id=host.session_id,
            argv=("agent",),
            spool_dir=host.name,
            events="jsonl",
            backoff_s=(0.3, 0.6, 1.2),
            orphan_after_s=ORPHAN_AFTER_S,
            spool_limit_bytes=24_000 if small else 1 << 30,
            spool_policy="trim" if small and host.name.endswith(("1", "3")) else "block",
        )
        self.kernel.said(process.name, "* is born")
        process.on_death.append(lambda: self._again(self.birth_wrapper, host))
        process.create_task(self._live(host, process, settings, ports))

    async def _live(self, host: Host, process: Process, settings: WrapperSettings, ports: Ports) -> None:
        from wrapper.spoolfile import SpoolError, SpoolFull

        def emit(event: str, **fields: Any) -> None:
            if self.kernel.story is not None and not event.startswith("connection.opening"):
                self.kernel.said(process.name, f". {event} " + " ".join(f"{k}={v}" for k, v in fields.items()))

        try:
            wrapper = host.wrapper = Wrapper(settings, emit, ports)
            ended = await wrapper.run()
        except SpoolFull:
            process.crash()
            return
        except SpoolError as error:
            raise Violation("G2", f"the wrapper of {host.name} fell over its spool: {error!r}") from error
        except Exception as error:
            raise Violation("G2", f"the wrapper of {host.name} fell: {error!r}") from error
        self.kernel.said(process.name, f"* ends: {ended.why} {ended.close_code or ''} {ended.reason}")
        host.ended = ended
        if ended.why == "stopped":
            # Told not to come back. Whoever runs it may start it anew; for a deleted session nobody does.
            process.on_death.pop(0)
            if ended.close_code == 4001 and not self.kernel.calm:
                self.kernel.after(int((2 + self.kernel.rng.random() * 10) * US), self._started_anew, host)
        process.crash()

    def _started_anew(self, host: Host) -> None:
        if not self.kernel.calm:
            self.birth_wrapper(host)

    # ------------------------------------------------------------ lines

    def line(
        self, client: Process, server: Process, name: str, listener: Callable[[End, Any], None] | None = None
    ) -> Line:
        self._names += 1
        made = Line(self.kernel, client, server, f"{name}#{self._names}", listener or (lambda end, message: None))
        self.lines = [line for line in self.lines if not line.over]
        self.lines.append(made)
        return made

    def dial(self, host: Host, process: Process, answer: Callable[[Line | None], None]) -> None:
        gateway = self.open_gateway()
        if gateway is None or not gateway.accepting or gateway.process.frozen:
            if gateway is None or not gateway.process.frozen:
                self.kernel.after(1000, answer, None)
            return  # a frozen gateway's kernel takes the connection, and nobody answers
        session_id = host.session_id

        def listen(end: End, message: Any) -> None:
            if message.type is WSMsgType.TEXT:
                if end.server:
                    self.watchman.gateway_says(session_id, end.connection, message.data)  # type: ignore[attr-defined]
                if self.kernel.story is not None:
                    arrow = "<" if end.server else ">"
                    self.kernel.said(process.name, f"{arrow} {message.data.decode()}")
            elif message.type is WSMsgType.CLOSE and self.kernel.story is not None:
                self.kernel.said(process.name, f"{'<' if end.server else '>'} close {message.data} {message.extra}")

        line = self.line(process, gateway.process, host.name, listen)
        gateway.ingest(line, session_id)
        self.kernel.after(self.kernel.latency(600), answer, line)

    # ------------------------------------------------------------ backups

    def restore_store(self) -> None:
        """As `holdfast restore`: everything is down, the file is an old one, and `come_back` makes it safe."""
        for gateway in self.gateways:
            gateway.process.crash()
        for actor in self.actors:
            actor.process.crash()
        if self.reaper is not None:
            self.reaper.process.crash()
        self.down_until = self.kernel.now + 4 * US
        self.disk.go_back()
        store, c = self.disk.store("restore"), self.disk.connection
        self.restoring = True
        store._alone(lambda: _nobody_is_here(store))
        for (sid,) in c.execute("select id from sessions where deleted_at_ms is null order by id").fetchall():
            store.transact(rq.Restored(session_id=sid, seed=self.kernel.mint()))
        self.watchman.restored()
        self.restoring = False

    # ------------------------------------------------------------ odds and ends

    def rng_of(self, execution_id: str) -> random.Random:
        return random.Random(zlib.crc32(f"{self.plan.seed} {execution_id}".encode()))

    def _telemetry(self, event: str, fields: Any) -> None:
        if event in BUGS and "storage_unavailable" not in str(fields.get("error")):
            Violation("G5", f"{event}: {dict(fields)}")  # telemetry would swallow it; made is enough

    def processes(self) -> list[Process]:
        found = [self.people, *(g.process for g in self.gateways), *(a.process for a in self.actors)]
        found += [host.process for host in self.hosts if host.process is not None]
        return found + ([self.reaper.process] if self.reaper is not None else [])

    def close(self) -> None:
        telemetry.subscribe(self._told)
        self.kernel.bury(self.processes())
        Violation.made.clear()


class SimDialer:
    """wrapper.connection.Dialer without TCP."""

    def __init__(self, world: World, host: Host, process: Process) -> None:
        self.world, self.host, self.process = world, host, process

    async def dial(self, token: str) -> Socket:
        await asyncio.sleep(self.world.kernel.latency(800, 2 * US, 0.01) / US)
        future = self.process.create_future()

        def answer(line: Line | None) -> None:
            if not future.done():
                future.set_result(line)

        self.world.dial(self.host, self.process, answer)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                line = await future
        except TimeoutError as error:
            raise Closed(None, "no answer within the connect timeout") from error
        if line is None:
            raise Closed(None, "cannot connect")
        return Socket(line.client)

    async def close(self) -> None:
        return
