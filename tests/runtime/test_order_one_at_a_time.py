"""Order and node actors that do one thing at a time, in one process: if either waited for the other, both would stand.

Ray's actors take a thousand calls at once, so a wait of one for the other could go unseen for long. Here an actor has
one turn at a time, as the strictest mailbox would: a cycle is a deadlock at once, which the mailbox finds by its
deadline. The last test builds such a cycle, to show that it is found.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, defaultdict
from pathlib import Path

from actors.config import Settings
from actors.law.effects import NodeNoticed
from actors.law.nodes.answers import upward_of
from actors.law.nodes.requests import NODE, ORDER, TakeNotice
from actors.law.requests import Request
from actors.node import NodeActor
from actors.order import OrderActor
from actors.protocol.ids import ulid
from actors.session import SessionActor
from actors.store.contract import ActorRow, IdempotencyKey, Outcome
from tests.gateway.house import House, eventually
from tests.gateway.work import GROUP, Work
from tests.runtime.test_order_actor import Recorder

ROUNDS, PHONES, EACH = 15, 4, 40
MEET_S = 0.25  # how long a turn is held until the other side's is, too: below the deadline, so it is no standstill


class OneAtATime:
    """An ActorPort over the real shells in this process.

    cycle: each waits for the other inside its own turn. It first holds that turn for MEET_S until one of the other kind
    is held, too: left to chance, the two turns met in three storms of five.
    """

    def __init__(self, house: House, *, cycle: bool = False) -> None:
        self.house, self.cycle = house, cycle
        self.turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self.shells: dict[str, SessionActor] = {}
        self.answered: Counter[str] = Counter()
        self.frozen: list[str] = []
        self.held = {ORDER: asyncio.Event(), NODE: asyncio.Event()}

    def awake(self, subject: str) -> bool:
        return subject.startswith((ORDER, NODE))

    async def call(self, request: Request, key: IdempotencyKey | None, within_s: float) -> Outcome:
        async with asyncio.timeout(within_s), self.turns[request.addressee]:
            outcome = await self._shell(request.addressee).perform(request, key)
            self.answered[request.addressee.partition("/")[0]] += 1
            if self.cycle:
                await self._wait_for_the_others(outcome, within_s)
            return outcome

    def wake(self, subject: str) -> None: ...

    def end_frozen(self, subject: str) -> None:
        self.frozen.append(subject)

    def _shell(self, name: str) -> SessionActor:
        if name not in self.shells:
            kind = OrderActor if name.startswith(ORDER) else NodeActor
            row = ActorRow(name, "here", ulid(), 1, 1)
            self.shells[name] = kind(self.house.worker, row, Settings().hibernate_after_s)
        return self.shells[name]

    async def _wait_for_the_others(self, outcome: Outcome, within_s: float) -> None:
        for report in upward_of(outcome.answer).tasks:
            await self._meet(NODE, ORDER)
            await self.call(report, None, within_s)
        for said in outcome.speech:
            if isinstance(said, NodeNoticed):
                await self._meet(ORDER, NODE)
                take = TakeNotice(node_id=said.node_id, notice_id=said.notice_id, seed=ulid())
                await self.call(take, None, within_s)

    async def _meet(self, mine: str, other: str) -> None:
        self.held[mine].set()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.held[other].wait(), MEET_S)
        self.held[mine].clear()


async def storm(work: Work, port: OneAtATime) -> None:
    """Cancels and notices go down while reports go up; until it is over, or somebody stood still."""
    await work.order(5000)
    await work.batch(PHONES * EACH)
    await work.connect()
    recorder = Recorder(work.recorder)
    listening = asyncio.create_task(recorder.run())

    async def record_and_take_back(n: int) -> None:
        for k in range(ROUNDS):
            if port.frozen:
                return
            await work.batch(1, f"b-{n}-{k}")
            (task,) = await work.tasks(batch_id=f"b-{n}-{k}")
            for action in ("config", "begin"):
                headers = {"Authorization": "Bearer t-operator"}
                path = f"{work.house.url}/v1/tasks/{task['task_id']}/{action}"
                async with work.house.client.post(path, json={}, headers=headers) as answer:
                    assert answer.status in (202, 409), await answer.text()  # another task may be on the device
            reporting = asyncio.create_task(recorder.report())
            await work.call("PATCH", f"/v1/batches/b-{n}-{k}", {"status": "cancelled"})
            await reporting

    async def phone() -> None:
        for _ in range(EACH):
            if port.frozen:
                return
            await work.complete(1)

    await asyncio.gather(*(record_and_take_back(n) for n in range(2)), *(phone() for _ in range(PHONES)))
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)


async def test_an_order_and_a_node_that_do_one_thing_at_a_time_never_stand_still(tmp_path: Path) -> None:
    house = House(tmp_path / "house", objects_dir=None)
    house.actors = port = OneAtATime(house)
    work = await Work(tmp_path, house).open()
    try:
        await storm(work, port)
        assert port.frozen == [], "somebody waited for an actor that waited for somebody"
        assert (await work.of_batch())["completed_count"] == PHONES * EACH
        assert port.answered["order"] > PHONES * EACH and port.answered["node"] > 2 * ROUNDS
        assert len(await work.notices()) > 0, "something was told downward"
        group = next(g for g in (await work.of_batch())["groups"] if g["sop_id"] == GROUP["sop_id"])
        assert group["pending"] == 0
    finally:
        await house.close()


async def test_actors_that_wait_for_each_other_are_found_by_the_very_same_storm(tmp_path: Path) -> None:
    house = House(tmp_path / "house", objects_dir=None)
    house.actors = port = OneAtATime(house, cycle=True)
    work = await Work(tmp_path, house).open()
    house.gateway.door.mailbox.deadline_s = 1.0  # a standstill of a second is one
    try:
        await storm(work, port)
        await eventually(lambda: port.frozen, 10, "both stood still, and one of them was ended")
    finally:
        await house.close()
