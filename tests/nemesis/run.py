"""One run: a service, its clients, a plan of faults, peace, and the verdict.

Everything is real: `holdfast up`, `holdfast-wrapper` on its spool, agents as processes, sockets through the proxy. When
the faults are over nothing may be left to luck: what must become true is waited for by looking, with a deadline, and a
deadline that passes is a failure of the run as much as an anomaly.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import socket
import time
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from actors.history import Anomaly, check, content_hash, read
from tests.e2e.service import Service
from tests.nemesis import host
from tests.nemesis.clients import ENDS, Operator, Subscriber
from tests.nemesis.dump import dump
from tests.nemesis.faults import Nemesis, descendants
from tests.nemesis.keeper import Keeper
from tests.nemesis.plan import LONGEST_CI_S, Fault, plan
from tests.nemesis.proxy import Link
from tests.nemesis.record import Recorder

LIMITS: dict[str, float | None] = {
    "pending_s": 20.0,
    "stale_s": 10.0,
    "grace_s": 8.0,  # below a wrapper's longest pause and above its shortest: some come back in time, some do not
    "hung_s": None,
    "max_runtime_s": 25.0,
    "interrupt_s": 6.0,
}
SETTLE_S = 120.0  # pending, then a queue behind it: each at most its longest limit, on a host that is busy
DISK_MB = 48


@dataclass
class Report:
    seed: int
    plan: list[Fault]
    folder: Path
    able: dict[str, str]  # ability → why not; empty: yes
    done: Counter[str] = field(default_factory=Counter)
    missed: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    anomalies: list[Anomaly] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def clean(self) -> bool:
        return not self.anomalies and not self.problems

    def text(self) -> str:
        lines = [f"seed {self.seed}, {sum(self.done.values())} faults done, {sum(self.missed.values())} found nobody"]
        lines += [f"  not on this host: {name}: {why}" for name, why in self.able.items() if why]
        lines += [f"  done: {json.dumps(dict(sorted(self.done.items())))}"]
        lines += [f"  missed: {json.dumps(dict(sorted(self.missed.items())))}"] if self.missed else []
        lines += [f"  {name}: {value}" for name, value in self.facts.items()]
        if not self.clean:
            lines += ["the plan:", *(f"  {fault}" for fault in self.plan)]
        for problem in self.problems:
            lines.append(f"PROBLEM {problem}")
        for anomaly in self.anomalies:
            lines.append(f"ANOMALY {anomaly.code}: {anomaly.sentence}")
            lines += [f"    {o.source}: {json.dumps(dict(o.said), ensure_ascii=False)[:400]}" for o in anomaly.evidence]
        if not self.clean:
            lines.append(f"histories: {self.folder / 'histories'}   logs: {self.folder}")
        return "\n".join(lines)


class Run:
    """clocks: whose wall clock may be stepped, of "wrappers" and "service". A history in which the service's was is not
    judged for early reaps (docs/history.md), so it is not stepped unless that is asked for."""

    def __init__(
        self,
        folder: Path,
        seed: int,
        *,
        faults: int,
        within_s: float,
        sessions: int = 5,
        longest_s: float = LONGEST_CI_S,
        heads: int = 4,
        clocks: Collection[str] = ("wrappers",),
        disk_mb: int = DISK_MB,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.folder, self.seed, self.say = folder, seed, say
        self.names = [f"s{i}" for i in range(sessions)]
        self.histories = folder / "histories"
        self.histories.mkdir(parents=True)
        self.recorders: list[Recorder] = []
        self.record = self._recorder("nemesis")
        self.disks = {"service": folder / "data", "spools": folder / "spools"}
        self.links: dict[str, Link] = {}
        self.keepers: dict[str, list[Keeper]] = {name: [] for name in self.names}
        self.operators: list[Operator] = []
        self.subscribers: list[Subscriber] = []
        self._keeping: list[asyncio.Task[None]] = []
        self._mounted: list[Path] = []
        self.able = {"mount": host.may_mount(self.disks["service"]), "strace": host.may_inject()}
        self.clocks: dict[str, host.Clock] = {}
        for name, ability in (("wrappers", "clock"), ("service", "service clock")):
            self.able[ability] = "" if name in clocks else "not asked for (--clocks)"
            if name in clocks:
                try:
                    self.clocks[name] = host.Clock(folder, name)
                except host.Unable as error:
                    self.able[ability] = str(error)
        for disk in self.disks.values():
            disk.mkdir(exist_ok=True)
            if not self.able["mount"]:
                host.mount(disk, disk_mb)
                self._mounted.append(disk)
        able = [name for name, why in self.able.items() if not why]
        links = [*self.names, "watchers"]
        self.plan = plan(seed, faults, within_s, self.names, links, able, longest_s=longest_s, heads=heads)
        settings = {name: value for name, value in LIMITS.items() if value is not None}
        self.service = Service(folder, heartbeat_s=1, server_ping_s=2, server_pong_s=2, hibernate_after_s=5, **settings)
        # Below the range from which clients' own ports are taken: while the service is away nobody may sit on its port.
        self.service.url = f"http://127.0.0.1:{free_port(seed)}"
        self.plain_env = dict(self.service.env)
        if "service" in self.clocks:
            self.service.env |= self.clocks["service"].env
        self.report = Report(seed, self.plan, folder, self.able)

    # ------------------------------------------------------------ parts

    def _recorder(self, who: str) -> Recorder:
        self.recorders.append(Recorder(self.histories, who))
        return self.recorders[-1]

    def url(self) -> str:
        return self.service.url

    def token(self) -> str:
        return self.service.token

    def keeper(self, session_id: str) -> Keeper:
        """Who serves the session now: the newest that was not told to go."""
        mine = self.keepers[session_id]
        return next((k for k in reversed(mine) if not k.dismissed), mine[-1])

    def add_keeper(self, session_id: str) -> Keeper:
        number = len(self.keepers[session_id])
        env = self.plain_env | (self.clocks["wrappers"].env if "wrappers" in self.clocks else {})
        made = Keeper(
            session_id,
            self.links[session_id].url,
            self.folder / "token",
            self.disks["spools"] / f"{session_id}-{number}",
            self.histories,
            env,
        )
        self.keepers[session_id].append(made)
        self._keeping.append(asyncio.create_task(made.keep()))
        return made

    async def _guard(self) -> None:
        """A session whose wrappers were all told to go (two that superseded each other) gets its last one again."""
        while True:
            for mine in self.keepers.values():
                if all(k.dismissed for k in mine):
                    mine[-1].dismissed = False
            await asyncio.sleep(0.5)

    # ------------------------------------------------------------ the whole

    async def run(self) -> Report:
        began = time.monotonic()
        try:
            await asyncio.to_thread(self.service.start, 90)
            self.report.facts["boot"] = f"{time.monotonic() - began:.1f} s"
            await self._load()
        finally:
            await self._end()
        self.report.facts["whole run"] = f"{time.monotonic() - began:.1f} s"
        return self.report

    async def _load(self) -> None:
        (self.folder / "token").write_text(self.token())
        (self.folder / "token").chmod(0o600)
        parts = urlsplit(self.url())
        upstream = (parts.hostname or "127.0.0.1", int(parts.port or 0))
        self.links["watchers"] = await Link("watchers", lambda: upstream).open()
        tasks: list[asyncio.Task[None]] = []
        for name in self.names:
            await asyncio.to_thread(self.service.create, name)
            recorder = self._recorder(f"line-{name}")
            self.links[name] = await Link(name, lambda: upstream, recorder).open()
            self.add_keeper(name)
            for kind, url in (("near", self.url), ("far", lambda: self.links["watchers"].url)):
                recorder = self._recorder(f"{kind}-{name}")
                self.subscribers.append(Subscriber(recorder, name, url, self.token))
            recorder = self._recorder(f"operator-{name}")
            self.operators.append(Operator(recorder, name, f"{self.seed} {name}", self.url, self.token))
        guard = asyncio.create_task(self._guard())
        tasks += [asyncio.create_task(s.run()) for s in self.subscribers]
        working = [asyncio.create_task(o.run()) for o in self.operators]
        nemesis = Nemesis(self)
        began = time.monotonic()
        try:
            try:
                await nemesis.carry_out(self.plan, lambda fault: self.say(str(fault)))
            finally:
                await nemesis.undo()
                for operator in self.operators:
                    operator.stopping = True
            self.report.done, self.report.missed = nemesis.done, nemesis.missed
            self.report.problems += nemesis.broken
            self.report.facts["faults took"] = f"{time.monotonic() - began:.1f} s"
            if nemesis.proved:
                self.report.facts["ended by a failed fsync"] = dict(nemesis.proved)
            if nemesis.refused_to_begin:
                self.report.facts["`up` refused to begin, and was started again"] = nemesis.refused_to_begin
            began = time.monotonic()
            await self._peace()
            await self._settle(working)
            self.report.facts["settled after"] = f"{time.monotonic() - began:.1f} s"
            guard.cancel()
            for keepers in self.keepers.values():
                for keeper in keepers:
                    await keeper.end()
            await self._read_to_the_end()
        finally:
            guard.cancel()
            for task in [*tasks, *working]:
                task.cancel()
            await asyncio.gather(guard, *tasks, *working, return_exceptions=True)

    async def _peace(self) -> None:
        """From here on whatever does not move has nobody to blame: nothing is done to anybody, and the door is open."""
        deadline = time.monotonic() + SETTLE_S
        while not await asyncio.to_thread(self.service.healthy):
            if time.monotonic() > deadline:
                self.report.problems.append(f"the service did not answer within {SETTLE_S:g} s of peace")
                return
            await asyncio.sleep(0.2)
        self.record.say("quiet")

    async def _settle(self, working: list[asyncio.Task[None]]) -> None:
        deadline = time.monotonic() + SETTLE_S
        _, late = await asyncio.wait(working, timeout=SETTLE_S)
        if late:
            self.report.problems.append(f"{len(late)} operators never got their last submit answered")
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {self.token()}"}) as http:
            for name in self.names:
                while (open_ones := await self._open_ones(http, name)) != []:
                    if time.monotonic() > deadline:
                        self.report.problems.append(f"{name}: not over within {SETTLE_S:g} s of peace: {open_ones}")
                        break
                    await asyncio.sleep(0.3)

    async def _get(self, http: aiohttp.ClientSession, path: str) -> Any:
        try:
            async with asyncio.timeout(5):
                async with http.get(self.url() + path) as answer:
                    return await answer.json() if answer.status == 200 else None
        except (aiohttp.ClientError, OSError, TimeoutError):
            return None

    async def _open_ones(self, http: aiohttp.ClientSession, name: str) -> list[str] | None:
        """None: the service does not answer."""
        session = await self._get(http, f"/v1/sessions/{name}")
        if session is None:
            return None
        active = session["active_execution"]
        queued = ["queued"] * session["queued"]
        return ([active["execution_id"]] if active and active["status"] not in ENDS else []) + queued

    async def _read_to_the_end(self) -> None:
        """Every subscriber comes to the end by itself; one more reader takes all pages over HTTP."""
        deadline = time.monotonic() + 40
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {self.token()}"}) as http:
            for name in self.names:
                mine = [s for s in self.subscribers if s.session_id == name]
                while True:
                    session = await self._get(http, f"/v1/sessions/{name}")
                    quiet = session is not None and session["link"]["state"] == "offline"
                    if quiet and all(s.cursor == session["last_seq"] for s in mine):
                        for subscriber in mine:
                            subscriber.recorder.say("finished", session=name)
                        break
                    if time.monotonic() > deadline:
                        where = [s.cursor for s in mine]
                        self.report.problems.append(f"{name}: subscribers are at {where}, the session says {session}")
                        break
                    await asyncio.sleep(0.1)
                await self._pages(http, name)

    async def _pages(self, http: aiohttp.ClientSession, name: str) -> None:
        recorder, after = self._recorder(f"pages-{name}"), 0
        recorder.say("opened", session=name, after_seq=0)
        while page := await self._get(http, f"/v1/sessions/{name}/events?after_seq={after}&limit=500"):
            if not page["items"]:
                recorder.say("finished", session=name)
                break
            events = [[e["seq"], content_hash(e["type"], e["data"])] for e in page["items"]]
            recorder.say("delivered", session=name, events=events)
            after = page["next_after_seq"]

    async def _end(self) -> None:
        """Nothing of ours is left; the store is read when nobody writes it, and judged."""
        for keepers in self.keepers.values():
            for keeper in keepers:
                await keeper.end()
        for task in self._keeping:
            task.cancel()
        await asyncio.gather(*self._keeping, return_exceptions=True)
        for link in self.links.values():
            await link.close()
        up = self.service.up
        below = descendants(up.pid) if up is not None else []
        if up is not None and up.poll() is None:
            os.kill(up.pid, 18)  # SIGCONT: a plan that was broken off may have left it frozen
        await asyncio.to_thread(self.service.end)
        left = [pid for pid in below if Path(f"/proc/{pid}/fd").exists() and str(self.folder) in where(pid)]
        if left:
            self.report.problems.append(f"processes are left after the end: {left}")
        try:
            self._judge()
        finally:
            for disk in self._mounted:
                self._keep(disk)
                host.unmount(disk)

    def _keep(self, disk: Path) -> None:
        """What lay on a small disk goes with it; the store and the logs of a failed run are wanted."""
        if not self.report.clean:
            keep = self.folder / f"{disk.name}-kept"
            keep.mkdir(exist_ok=True)
            for file in (*disk.glob("*.db*"), *disk.glob("*.log")):
                (keep / file.name).write_bytes(file.read_bytes())

    def _judge(self) -> None:
        database = self.service.data / "holdfast.db"
        if not database.exists():
            self.report.problems.append("there is no store: the service never came up")
            return
        store = self._recorder("store")
        dump(database, store, LIMITS, settled=not self.report.problems)
        for recorder in self.recorders:
            recorder.close()
        observations = read(str(path) for path in sorted(self.histories.glob("*.jsonl")))
        self.report.anomalies = check(observations)
        whats = Counter(o.what for o in observations)
        for what in ("wrote", "acked", "delivered", "answered"):
            if whats[what] < len(self.plan) / 2:  # a run in which nothing happened is clean, and proves nothing
                self.report.problems.append(f"only {whats[what]} observations of {what!r}: too little was under way")
        outcomes = Counter(
            str((o.get("outcome") or {}).get("cause") or o["status"]) for o in observations if o.what == "execution"
        )
        exits = sum((k.exits for ks in self.keepers.values() for k in ks), Counter())
        self.report.facts |= {
            "observations": len(observations),
            "of": dict(sorted(whats.items())),
            "ends": dict(sorted(outcomes.items())),
            "wrapper exits": dict(sorted(exits.items())),
            "frames doubled": sum(link.doubled for link in self.links.values()),
            "streams opened": sum(s.opens for s in self.subscribers),
        }


def free_port(seed: int) -> int:
    for port in random.Random(f"port {seed} {os.getpid()}").sample(range(20_000, 32_000), 100):
        with socket.socket() as door:
            try:
                door.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
    raise OSError("a hundred ports, and none is free")


def where(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace") + os.readlink(f"/proc/{pid}/cwd")
    except OSError:
        return ""
