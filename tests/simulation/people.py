"""Who is outside: operators that ask and ask again, watchers that check every event that they are shown.

Both live in one process that never falls. A watcher is G3 made into a program: it knows what it was shown, comes back
with its cursor, and holds each frame against the watchman's log.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from aiohttp import WSMsgType

from actors.law import requests as rq
from actors.law.effects import Refuse
from actors.protocol.errors import HoldfastError
from actors.store.contract import IdempotencyKey
from tests.simulation.kernel import US, Violation

if TYPE_CHECKING:
    from tests.simulation.world import World

PATIENCE_S = 6.0
TRIES = 40


class Operator:
    def __init__(self, world: World) -> None:
        self.world, self.asked, self.open = world, 0, 0

    def ask(self, make: Any, *, keyed: bool) -> None:
        """make(): the request, with a fresh seed each time, as the API mints one per call."""
        self.asked += 1
        key = IdempotencyKey("tok", "POST", f"key-{self.asked}", "body") if keyed else None
        self.open += 1
        self.world.people.create_task(self._until_answered(make, key, f"ask-{self.asked}"))
        if self.world.kernel.rng.random() < 0.1:  # an impatient client
            self.open += 1
            self.world.people.create_task(self._until_answered(make, key, f"ask-{self.asked}"))

    async def _until_answered(self, make: Any, key: IdempotencyKey | None, name: str) -> None:
        try:
            for _ in range(TRIES):
                request = make()
                try:
                    async with asyncio.timeout(PATIENCE_S):
                        outcome = await self._once(request, key)
                except TimeoutError:
                    continue
                except HoldfastError as error:
                    if error.retryable:
                        await asyncio.sleep(0.5)
                        continue
                    return
                self._heard(request, outcome, key)
                return
        finally:
            self.open -= 1

    async def _once(self, request: rq.Request, key: IdempotencyKey | None) -> Any:
        world, kernel = self.world, self.world.kernel
        future = world.people.create_future()

        def settle(outcome: Any, error: BaseException | None) -> None:
            if not future.done():
                if error is None:
                    future.set_result(outcome)
                else:
                    future.set_exception(error)

        def answer(outcome: Any, error: BaseException | None) -> None:
            if kernel.calm or kernel.rng.random() > 0.08:  # else the answer is lost
                kernel.after(kernel.latency(400, US, 0.01), settle, outcome, error)

        def arrive() -> None:
            gateway = world.open_gateway()
            if gateway is None or not gateway.accepting:
                kernel.after(1000, settle, None, HoldfastError("unavailable"))
            elif kernel.calm or kernel.rng.random() > 0.04:
                gateway.ask(request, key, answer)

        kernel.said("operator", f"> {type(request).__name__} {request.session_id} {_named(request)}")
        kernel.after(kernel.latency(400, US, 0.01), arrive)
        return await future

    def _heard(self, request: rq.Request, outcome: Any, key: IdempotencyKey | None) -> None:
        watchman = self.world.watchman
        answer = outcome.answer
        if isinstance(answer, Refuse):
            self.world.kernel.said("operator", f"< {answer.code}")
            return
        self.world.kernel.said("operator", f"< {outcome.status} {type(request).__name__}")
        if key is not None:
            watchman.answered(key.key, outcome.status, outcome.body)
        if isinstance(request, rq.Interrupt) and outcome.body is not None:
            shown = outcome.body["execution"]
            if request.execution_id is not None and shown["execution_id"] != request.execution_id:
                raise Violation("G7", f"asked for {request.execution_id}, interrupted {shown['execution_id']}")
            if outcome.status == 202:
                watchman.interrupt_accepted(request.session_id, shown["execution_id"], outcome.body["interrupt_id"])


def _named(request: rq.Request) -> str:
    return str(getattr(request, "execution_id", None) or getattr(request, "approval_id", None) or "")


class Watcher:
    def __init__(
        self, world: World, name: str, session_id: str, after_seq: int | None, types: tuple[str, ...], eid: str | None
    ) -> None:
        self.world, self.name, self.session_id = world, name, session_id
        self.types, self.eid = types, eid
        self.cursor = after_seq
        self.stream_id: str | None = None
        self.line: Any = None
        self.live = self.over = False
        self.seen = self.connects = self.resets = 0
        self.restores = world.watchman.restores
        world.people.create_task(self._watch())

    async def _watch(self) -> None:
        while not self.over:
            line = await self._dial()
            if line is not None:
                self.line, self.connects = line, self.connects + 1
                await self._listen(line.client)
                self.line = None
            await asyncio.sleep(0.3)

    async def _dial(self) -> Any:
        world, kernel = self.world, self.world.kernel
        await asyncio.sleep(kernel.latency(2000) / US)
        gateway = world.open_gateway()
        if gateway is None or not gateway.accepting:
            return None
        line = world.line(world.people, gateway.process, self.name, self._server_says)
        gateway.stream(
            line,
            self.session_id,
            after_seq=self.cursor,
            came_from=self.stream_id,
            types=self.types,
            execution_id=self.eid,
        )
        return line

    def _server_says(self, end: Any, message: Any) -> None:
        if end.server and message.type is WSMsgType.TEXT and message.data.startswith(b'{"type":"events"'):
            self.world.watchman.published(self.session_id, self.stream_id or "", json.loads(message.data)["events"])

    async def _listen(self, end: Any) -> None:
        self.live = False
        snapshot = caught_up = False
        quiet_s = 12.0  # the server pings; one that says nothing for so long is gone
        while True:
            try:
                async with asyncio.timeout(quiet_s):
                    message = await end.receive()
            except TimeoutError:
                await end.close(code=1001)
                return
            if message.type is WSMsgType.PING:
                try:
                    await end.pong(message.data)
                except ConnectionError:
                    return
            elif message.type is WSMsgType.CLOSE:
                if message.data in (4000, 4004):
                    self.over = True
                return
            elif message.type in (WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR):
                return
            elif message.type is WSMsgType.TEXT:
                frame = json.loads(message.data)
                kind = frame["type"]
                if snapshot is (kind == "snapshot"):
                    raise Violation("G3", f"{self.name}: the snapshot comes first, and once")
                if kind == "snapshot":
                    snapshot = True
                    self._snapshot(frame["session"])
                elif kind == "caught_up":
                    if caught_up:
                        raise Violation("G3", f"{self.name} was told caught_up twice")
                    caught_up = self.live = True
                elif kind == "reset":
                    self._reset(frame)
                elif kind == "events":
                    self._events(frame["events"])

    def _snapshot(self, session: Any) -> None:
        if self.stream_id is None:
            self.stream_id = session["stream_id"]
        if self.cursor is None:
            self.cursor = session["last_seq"]

    def _reset(self, frame: Any) -> None:
        self.world.kernel.said(self.name, f"< reset {frame['reason']}")
        self.resets += 1
        if self.restores == self.world.watchman.restores:
            raise Violation("G3", f"{self.name} was reset ({frame['reason']}), and its cursor could be honoured")
        self.restores = self.world.watchman.restores
        self.cursor, self.stream_id = frame["first_seq"] - 1, frame["stream_id"]

    def _events(self, events: list[Any]) -> None:
        mirror = self.world.watchman.mirror(self.session_id)
        if mirror.stream_id != self.stream_id:
            return  # what a gateway said before the restore; the reset is on its way
        assert self.cursor is not None
        for event in events:
            seq = event["seq"]
            if seq <= self.cursor:
                raise Violation("G3", f"{self.name} was shown {seq} again; its cursor is {self.cursor}")
            for missed in range(self.cursor + 1, seq):
                if self._wants(*mirror.events[missed - 1][::2]):
                    raise Violation("G3", f"{self.name} was shown {seq}, and never {missed}")
            eid, exec_seq, kind, data = mirror.events[seq - 1]
            shown = (event["execution_id"], event["exec_seq"], event["type"])
            if shown != (eid, exec_seq, kind) or event["data"] != json.loads(data):
                raise Violation("G1", f"{self.name} was shown another event at {seq} than the one that stands there")
            if not self._wants(eid, kind):
                raise Violation("G3", f"{self.name} was shown {kind} at {seq}, and had not asked for it")
            self.cursor = seq
            self.seen += 1

    def _wants(self, eid: str | None, kind: str) -> bool:
        return (not self.types or kind in self.types) and (self.eid is None or eid == self.eid)

    def behind(self) -> int | None:
        """The first event that it should have seen and has not."""
        mirror = self.world.watchman.mirror(self.session_id)
        if self.over or self.cursor is None:
            return None
        for seq in range(self.cursor + 1, len(mirror.events) + 1):
            if self._wants(*mirror.events[seq - 1][::2]):
                return seq
        return None
