"""`holdfast demo`: a service of its own, three scripted agents, and what to try; `--once` takes the tour by itself.

The agents write down what they said; what the streams say is held against it at the end. Everything lives in a
temporary directory, and only processes that were started here, or that the service's own records name, are ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from actors import processes, show
from actors.config import Settings
from actors.demo_agents.bad_line import BadLine
from actors.http_client import Client, Problem
from actors.protocol.codes import ACTIVE, EXIT_FAILURE, EXIT_INTERRUPTED, EXIT_OK
from actors.protocol.ids import new_id
from actors.store.sqlite import SqliteStore

UP_S, STEP_S, END_S = 60.0, 45.0, 120.0
CUTS = 4  # enough to see every way of losing a socket: while sending, while replaying, while idle
SESSIONS = ("talker", "flaky", "asker")
Row = dict[str, Any]


class Failed(Exception):
    """A step did not show what it promises."""


class Demo:
    def __init__(self, root: Path, as_json: bool) -> None:
        self.root, self.as_json = root, as_json
        self.data_dir, self.truth = root / "data", root / "truth"
        self.began = time.monotonic()
        self.up: subprocess.Popen[bytes] | None = None
        self.wrappers: dict[str, subprocess.Popen[bytes]] = {}
        self.urls: dict[str, str] = {}
        self.rows: dict[str, list[Row]] = {name: [] for name in SESSIONS}
        self.submitted: dict[str, str] = {}  # execution → session
        self.moved = asyncio.Condition()
        self.followers: list[asyncio.Task[None]] = []
        self.line: BadLine | None = None

    # ---------------------------------------------------------------- saying

    def step(self, what: str, observed: str) -> None:
        at_s = round(time.monotonic() - self.began, 1)
        show.data({"step": what, "observed": observed, "at_s": at_s}, self.as_json, f"{at_s:5.1f}s  {what}: {observed}")

    def progress(self, text: str) -> None:
        show.say(f"        … {text}")

    def show_logs(self) -> None:
        for log in sorted(self.root.glob("*.log")):
            show.say(f"--- {log.name}\n{log.read_text(errors='replace')[-1500:]}")

    # ---------------------------------------------------------------- the stage

    async def start(self) -> None:
        self.truth.mkdir()
        self.progress("starting the service (Ray needs about three seconds)")
        began = time.monotonic()
        ready = self.root / "ready.json"
        argv = ["up", "--data-dir", str(self.data_dir), "--port", "0", "--ready-file", str(ready)]
        self.up = self._spawn([sys.executable, "-P", "-m", "actors", *argv], "up.log")
        while not ready.exists():
            if self.up.poll() is not None or time.monotonic() - began > UP_S:
                raise Failed(f"the service did not start; see {self.root / 'up.log'}")
            await asyncio.sleep(0.05)
        told = json.loads(ready.read_text())
        self.url, self.token = str(told["url"]), str(told["token"])
        self.step("up", f"{self.url} after {time.monotonic() - began:.1f} s")
        self.client = await Client(self.url, self.token, patience_s=15.0).__aenter__()
        where = urlsplit(self.url)
        self.line = BadLine(where.hostname or "127.0.0.1", where.port or 80)
        self.urls = {name: self.url for name in SESSIONS} | {"flaky": await self.line.start()}
        for name in SESSIONS:
            await self.client.post("/v1/sessions", {"session_id": name, "title": f"demo: {name}"})
            self.followers.append(asyncio.create_task(self._follow(name)))
            self.start_wrapper(name)
        await self.until_linked("the wrappers connect")

    def start_wrapper(self, name: str) -> None:
        agent = Path(__file__).parent / "demo_agents" / "agent.py"
        argv = ["--url", self.urls[name], "--session", name, "--token-file", str(self.data_dir / "token"), "--quiet"]
        argv += ["--spool-dir", str(self.root / f"spool-{name}"), "--events", "jsonl", "--orphan-after", "10"]
        argv += ["--", sys.executable, "-P", str(agent), name, str(self.truth)]
        self.wrappers[name] = self._spawn([sys.executable, "-P", "-m", "wrapper", *argv], f"wrapper-{name}.log")

    def _spawn(self, argv: list[str], log: str) -> subprocess.Popen[bytes]:
        env = {name: value for name, value in os.environ.items() if not name.startswith("HOLDFAST_")}
        env["PYTHONPATH"] = str(Path(__file__).resolve().parent.parent)
        with open(self.root / log, "ab") as out:
            return subprocess.Popen(
                argv,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,  # a terminal's Ctrl-C comes to us; we end them in order
                preexec_fn=processes.die_with_parent(signal.SIGTERM),
            )

    async def _follow(self, name: str) -> None:
        async for frame in self.client.follow(name, after_seq=0):
            if frame["type"] == "events":
                async with self.moved:
                    self.rows[name] += frame["events"]
                    self.moved.notify_all()

    async def submit(self, name: str, **wanted: Any) -> str:
        execution_id = new_id("execution")
        self.submitted[execution_id] = name
        body = {"execution_id": execution_id, "input": wanted}
        await self.client.post(f"/v1/sessions/{name}/executions", body)
        return execution_id

    async def end(self) -> None:
        """Wrappers end their agents by the ladder, then the service ends; nothing stays."""
        for wrapper in self.wrappers.values():
            with contextlib.suppress(ProcessLookupError):
                wrapper.send_signal(signal.SIGINT)
        for task in self.followers:
            task.cancel()
        await asyncio.gather(*self.followers, return_exceptions=True)
        await asyncio.gather(*(asyncio.to_thread(_wait_or_kill, wrapper, 15.0) for wrapper in self.wrappers.values()))
        if self.line is not None:
            await self.line.stop()
        if hasattr(self, "client"):
            await self.client.__aexit__()
        if self.up is not None:
            self.up.terminate()
            await asyncio.to_thread(_wait_or_kill, self.up, 20.0)

    # ---------------------------------------------------------------- observing

    async def seen(self, name: str, what: str, since: int, wanted: Callable[[Row], bool]) -> Row:
        """The first row of the stream from index `since` that is wanted. Raises Failed after STEP_S."""
        end = time.monotonic() + STEP_S
        while True:
            for row in self.rows[name][since:]:
                if wanted(row):
                    return row
            if time.monotonic() > end:
                raise Failed(f"{what}: not seen within {STEP_S:g} s in {name}")
            async with self.moved:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.moved.wait(), 1.0)

    async def links(self) -> list[tuple[str, str]]:
        found = [(await self.client.get(f"/v1/sessions/{name}"))["link"] for name in SESSIONS]
        return [(link["state"], link["connection_id"]) for link in found]

    async def until_linked(self, what: str, before: Sequence[tuple[str, str]] = ()) -> None:
        """Every wrapper is connected, by another connection than before: rows of a dead gateway still say connected."""
        end = time.monotonic() + STEP_S
        while True:
            now = await self.links()
            if all(state == "connected" for state, _ in now) and not {c for _, c in now} & {c for _, c in before}:
                return
            if time.monotonic() > end:
                raise Failed(f"{what}: the links are {dict(zip(SESSIONS, now, strict=True))}")
            await asyncio.sleep(0.1)

    def said(self) -> int:
        return sum("n" in row["data"] for rows in self.rows.values() for row in rows)

    # ---------------------------------------------------------------- the tour

    async def tour(self) -> bool:
        await self.start()
        first = await self.submit("talker", steps=100_000, pause_s=0.05)
        await self.submit("flaky", steps=300, pause_s=0.1)
        await self.submit("asker", steps=150, pause_s=0.1, ask_at=5)
        for name in SESSIONS:
            await self.seen(name, "first words", 0, lambda row: "n" in row["data"])
        self.step("three agents at work", "one talks, one has a line that is cut every 3 s, one will ask")
        await self._approve()
        await self._interrupt(first)
        await self._kill_wrapper()
        await self._kill_gateway()
        await self._kill_actor()
        await self._until_all_ended()
        return await self._verify()

    async def _approve(self) -> None:
        asked = await self.seen("asker", "the approval", 0, lambda row: row["type"] == "approval.requested")
        approval_id = asked["data"]["approval_id"]
        since = len(self.rows["asker"])
        await self.client.post(f"/v1/sessions/asker/approvals/{approval_id}", {"decision": "allow"})
        await self.seen("asker", "going on", since, lambda row: "said allow" in str(row["data"].get("text")))
        try:
            await self.client.post(f"/v1/sessions/asker/approvals/{approval_id}", {"decision": "deny"})
            raise Failed("a second decision was taken")
        except Problem as problem:
            self.step("approve", f"the agent went on; a second decision: {problem.status} {problem.code}")

    async def _interrupt(self, execution_id: str) -> None:
        began = time.monotonic()
        await self.client.post("/v1/sessions/talker/interrupt", {"reason": "the tour goes on"})
        row = await self.seen("talker", "the end", 0, lambda row: row["type"] == "execution.interrupted")
        if row["execution_id"] != execution_id:
            raise Failed("another execution was interrupted")
        self.step("interrupt", f"execution.interrupted after {time.monotonic() - began:.2f} s")

    async def _kill_wrapper(self) -> None:
        execution_id = await self.submit("talker", steps=200, pause_s=0.1)
        await self.seen(
            "talker", "its words", 0, lambda row: row["execution_id"] == execution_id and "n" in row["data"]
        )
        since = len(self.rows["talker"])
        self.wrappers["talker"].kill()
        self.wrappers["talker"].wait()
        before = _lines(self.truth / execution_id)
        await asyncio.sleep(1.0)
        during = _lines(self.truth / execution_id) - before
        began = time.monotonic()
        self.start_wrapper("talker")
        await self.seen("talker", "resumed", since, lambda row: row["type"] == "wrapper.resumed")
        took = time.monotonic() - began
        self.step(
            "kill -9 a wrapper", f"its agent said {during} things meanwhile; a new wrapper resumed after {took:.2f} s"
        )

    async def _kill_gateway(self) -> None:
        told = json.loads((self.data_dir / "gateway.json").read_text())
        since = {name: len(self.rows[name]) for name in SESSIONS}
        before = await self.links()
        began = time.monotonic()
        if not processes.end_exactly(told["pid"], told["pid_started"]):
            raise Failed("the gateway was not there")
        async with Client(self.url, self.token, patience_s=0.0) as eager:  # the patient one pauses ever longer
            while not await _answers(eager):  # noqa: ASYNC110 - the event happens in another process
                await asyncio.sleep(0.02)
        open_after = time.monotonic() - began
        await self.until_linked("after the gateway's fall", before)
        linked_after = time.monotonic() - began
        await self.seen("talker", "new words", since["talker"], lambda row: "n" in row["data"])
        self.step(
            "kill -9 the gateway", f"open again after {open_after:.2f} s, all wrappers back after {linked_after:.1f} s"
        )

    async def _kill_actor(self) -> None:
        row = await self._actor_of("asker")
        if not processes.end_exactly(row.pid, row.pid_started):
            raise Failed("the session actor was not there")
        began = time.monotonic()
        await self.submit("asker", steps=5, pause_s=0.05)
        took_ms = (time.monotonic() - began) * 1000
        again = await self._actor_of("asker", not_this=row.incarnation)
        self.step(
            "kill -9 a session actor", f"the next call was answered in {took_ms:.0f} ms; awake again as pid {again.pid}"
        )

    async def _actor_of(self, name: str, not_this: str = "") -> Any:
        settings = Settings(data_dir=self.data_dir)

        def look() -> Any:
            store = SqliteStore.open(settings.store_path, settings.policy())
            try:
                rows = [row for row in store.actors_awake() if row.name == f"session/{name}"]
                return next((row for row in rows if row.incarnation != not_this), None)
            finally:
                store.close()

        end = time.monotonic() + STEP_S
        while (row := await asyncio.to_thread(look)) is None:
            if time.monotonic() > end:
                raise Failed(f"no actor of {name} is awake")
            # an operator's call wakes it; this one changes nothing
            with contextlib.suppress(Problem):
                await self.client.post(f"/v1/sessions/{name}/interrupt", {"execution_id": "exe_of_nobody"})
            await asyncio.sleep(0.2)
        return row

    async def _until_all_ended(self) -> None:
        assert self.line is not None
        end, told = time.monotonic() + END_S, time.monotonic()
        while True:
            left = []
            for execution_id, name in self.submitted.items():
                found = await self.client.get(f"/v1/sessions/{name}/executions/{execution_id}")
                if found["status"] in ACTIVE or found["status"] == "queued":
                    left.append(name)
            if not left:
                break
            if self.line.cuts >= CUTS:
                self.line.heal()
            if time.monotonic() > end:
                raise Failed(f"still active: {left}")
            if time.monotonic() - told > 5:
                told = time.monotonic()
                self.progress(f"{self.said()} events so far; {', '.join(sorted(set(left)))} still at work")
            await asyncio.sleep(0.3)
        self.step("all ended", f"{len(self.submitted)} executions; the flaky line was cut {self.line.cuts} times")

    async def _verify(self) -> bool:
        """What the agents wrote down, against the streams as they stand and as the subscribers saw them."""
        wrote = lost = doubled = disorder = 0
        for name in SESSIONS:
            stored = await self._stored(name)
            if stored:
                last = stored[-1]["seq"]
                await self.seen(name, "the end of the stream", 0, lambda row, last=last: row["seq"] >= last)  # type: ignore[misc]
            watched = [row["seq"] for row in self.rows[name]]
            disorder += watched != list(range(1, len(watched) + 1))
            for execution_id in (e for e, s in self.submitted.items() if s == name):
                truth = list(range(1, _lines(self.truth / execution_id) + 1))
                found = [r["data"]["n"] for r in stored if r["execution_id"] == execution_id and "n" in r["data"]]
                wrote += len(truth)
                lost += len(set(truth) - set(found))
                doubled += sum(count - 1 for count in Counter(found).values())
                disorder += found != sorted(found) or bool(set(found) - set(truth))
                starts = sum(r["type"] == "execution.started" and r["execution_id"] == execution_id for r in stored)
                doubled += max(0, starts - 1)
        well = lost == doubled == disorder == 0
        self.step("every event", f"{wrote} written by the agents: {lost} lost, {doubled} duplicated")
        if disorder:
            self.step("order", f"{disorder} streams are out of order")
        return well

    async def _stored(self, name: str) -> list[Row]:
        rows: list[Row] = []
        after = 0
        while True:
            page = await self.client.get(f"/v1/sessions/{name}/events", {"after_seq": after, "limit": 500})
            rows += page["items"]
            after = page["next_after_seq"]
            if after >= page["last_seq"]:
                return rows

    # ---------------------------------------------------------------- for people

    async def stay(self) -> None:
        await self.start()
        pid, holdfast = self.wrappers["talker"].pid, show.program()
        show.say(_WHAT_TO_TRY.format(data_dir=self.data_dir, wrapper=pid, holdfast=holdfast))
        while True:
            for name in SESSIONS:
                if self.wrappers[name].poll() is not None:
                    self.progress(f"the wrapper of {name} is gone; starting another on its spool")
                    self.start_wrapper(name)
                with contextlib.suppress(Problem):
                    session = await self.client.get(f"/v1/sessions/{name}")
                    if session["active_execution"] is None:
                        await self.submit(name, steps=300, pause_s=0.2, **({"ask_at": 20} if name == "asker" else {}))
            await asyncio.sleep(2.0)


_WHAT_TO_TRY = """
Three agents are at work: `talker`, `flaky` (its line is cut every few seconds), `asker` (waits for you).
In another shell:

  export HOLDFAST_DATA_DIR={data_dir}
  {holdfast} session list
  # everything, then live:
  {holdfast} session tail talker --after 0
  # a new execution follows:
  {holdfast} session interrupt talker
  # what it waits for, and your decision:
  {holdfast} approval list asker
  {holdfast} approval resolve asker APPROVAL allow
  # the talker's wrapper: its agent goes on, another takes over:
  kill -9 {wrapper}
  # the gateway; kill -9 its pid: it is back in about a second:
  cat {data_dir}/gateway.json

Ctrl-C ends everything.
"""


async def _answers(client: Client) -> bool:
    try:
        await client.get("/healthz")
    except Problem:
        return False
    return True


def _lines(path: Path) -> int:
    try:
        return path.read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def _wait_or_kill(process: subprocess.Popen[bytes], within_s: float) -> None:
    try:
        process.wait(within_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


async def _whole(root: Path, once: bool, as_json: bool) -> int:
    demo = Demo(root, as_json)
    loop, me = asyncio.get_running_loop(), asyncio.current_task()
    assert me is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, me.cancel)
    try:
        if not once:
            await demo.stay()
        return EXIT_OK if await demo.tour() else EXIT_FAILURE
    except asyncio.CancelledError:
        return EXIT_INTERRUPTED if once else EXIT_OK
    except (Failed, Problem) as error:
        show.say(f"holdfast demo: {error}")
        demo.show_logs()
        return EXIT_FAILURE
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
        demo.progress("ending everything")
        await demo.end()


def run(*, once: bool, as_json: bool) -> int:
    root = Path(tempfile.mkdtemp(prefix="holdfast-demo-"))
    try:
        return asyncio.run(_whole(root, once, as_json))
    finally:
        shutil.rmtree(root, ignore_errors=True)
