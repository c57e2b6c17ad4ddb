"""Five hundred interleavings on a live service: adjust, advance, complete, recall, cancel and the rest, at once.

Four lines, each with a device that records and uploads by itself, a foreman who drives its tasks, and one order at a
time. An interleaving is a handful of seeded requests about the order, all sent together; after each one the order and
its batches are looked at. What was answered must add up to what there is: no quota is broken, nothing is completed
twice or lost, an order is completed once for each time that it was open, a device is told once of each cause. The
requests are seeded; in which order they are decided is the machine's. In a storm, gateway and actors are killed all the
while, and whoever did not get an answer asks again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sqlite3
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from actors.protocol.order_codes import NOTICE_CAUSES
from tests.e2e.floor import (
    BATCH_OPEN,
    OPEN,
    Caller,
    Station,
    check_batch,
    check_completed,
    check_notices,
    check_order,
    make_station,
)
from tests.e2e.service import Service, alive
from wrapper.fakedevice import FakeDevice, FakeSettings

LINES, AT_ONCE, ORDER_ROUNDS = 4, 6, 25
SOPS = ("pick", "place")
# What a request may be refused with, because of what others did a moment ago. Anything else is a failure.
MAY_SAY = {
    "complete": {"too_few_pending", "batch_terminal", "order_paused", "batch_not_found", "group_not_found"},
    "adjust": {
        "quota_exceeded", "below_begun", "batch_terminal", "order_completed", "order_terminal", "order_paused",
        "batch_not_found",
    },
    "dispatch": {"quota_exceeded", "order_completed", "order_terminal", "order_paused"},
    "recall": {"batch_terminal", "batch_not_found", "order_terminal"},
    "cancel": {"batch_terminal", "batch_not_found", "order_terminal"},
    "delete": {"has_begun", "batch_not_found", "batch_terminal"},
    "target": {"target_below_assigned", "order_terminal"},
    "finish": {"target_below_assigned", "order_terminal"},
    "pause": {"order_conflict", "order_completed", "order_terminal"},
    "resume": {"order_conflict", "order_completed", "order_terminal"},
    "end": {"order_conflict", "order_completed", "order_terminal"},
    "drop": {"task_conflict", "task_not_found", "state_unknown", "attempt_mismatch", "order_paused", "order_terminal"},
}  # fmt: skip
WEIGHTS = {
    "complete": 7, "adjust": 5, "dispatch": 3, "recall": 1, "cancel": 1, "delete": 0.5, "target": 2, "finish": 0.5,
    "pause": 0.7, "resume": 2, "end": 0.2, "drop": 1.5,
}  # fmt: skip


class Line:
    """One order at a time, and who works on it."""

    def __init__(self, name: str, operator: Caller, phone: Caller, station: Station) -> None:
        self.name, self.random = name, random.Random(name)
        self.operator, self.phone, self.station = operator, phone, station
        self.orders: list[str] = []
        self.policy = "rows"
        self.batches: list[str] = []
        self.said: Counter[str] = Counter()
        self.completed_by_answers: Counter[str] = Counter()
        self.completed_tasks: dict[str, set[str]] = defaultdict(set)
        self.made = 0

    @property
    def order_id(self) -> str:
        return self.orders[-1]

    async def new_order(self) -> None:
        self.orders.append(f"{self.name}-{len(self.orders)}")
        self.policy, self.batches = self.random.choice(("rows", "live")), []
        body = {"order_id": self.order_id, "target_count": 30, "quota_policy": self.policy}
        status, told = await self.operator.ask("POST", "/v1/orders", body)
        assert status == 201, told
        await self.dispatch()

    # ------------------------------------------------------------ one interleaving

    async def interleaving(self, nth: int) -> None:
        order = await self.operator.get(f"/v1/orders/{self.order_id}")
        if nth % ORDER_ROUNDS == ORDER_ROUNDS - 1:  # one that has used up its quota would refuse everything for ever
            await self.end()
        elif order["status"] == "cancelled":
            await self.new_order()
        elif order["status"] == "completed":
            await self.change("target", {"target_count": order["task_count"] + 10})
        if not self.batches:
            await self.dispatch()
        deeds = self.random.choices(list(WEIGHTS), list(WEIGHTS.values()), k=AT_ONCE)
        await asyncio.gather(*(getattr(self, deed)() for deed in deeds))
        await self.look()

    async def look(self) -> None:
        order = await self.operator.get(f"/v1/orders/{self.order_id}")
        check_order(order)
        batches = (await self.operator.get(f"/v1/orders/{self.order_id}/batches?limit=20"))["items"]
        for batch in batches:
            check_batch(batch)
        self.batches = [one["batch_id"] for one in batches if one["status"] in BATCH_OPEN]

    def hear(self, deed: str, status: int, told: Any) -> bool:
        if status >= 400:
            assert told["code"] in MAY_SAY[deed], (deed, status, told)
            self.said[f"{deed}: {told['code']}"] += 1
            return False
        self.said[deed] += 1
        return True

    def batch(self) -> str:
        """One that was open when it was last looked at; or none that there is."""
        return self.random.choice(self.batches or ["nowhere"])

    async def complete(self) -> None:
        quantity, order_id, batch_id = self.random.randint(1, 3), self.order_id, self.batch()
        status, told = await self.phone.complete(batch_id, quantity, sop_id=self.random.choice(SOPS))
        if self.hear("complete", status, told):
            check_completed(told, quantity)
            self.completed_by_answers[order_id] += quantity
            tasks = {task["task_id"] for task in told["tasks"]}
            assert not tasks & self.completed_tasks[order_id], "completed before"
            self.completed_tasks[order_id] |= tasks

    async def adjust(self) -> None:
        wish = {"sop_id": self.random.choice(SOPS), "subscene_id": "sink", "quantity": self.random.randint(0, 12)}
        status, told = await self.operator.ask("POST", f"/v1/batches/{self.batch()}/tasks", {"groups": [wish]})
        if self.hear("adjust", status, told):
            (one,) = told["groups"]
            live = one["quantity"] - (one["failed"] + one["cancelled"] if self.policy == "live" else 0)
            assert live == wish["quantity"], (wish, told)
            check_batch(told["batch"])

    async def dispatch(self) -> None:
        self.made += 1
        batch_id, order_id = f"{self.name}-b{self.made}", self.order_id
        groups = [{"sop_id": sop, "subscene_id": "sink", "quantity": self.random.randint(1, 5)} for sop in SOPS]
        body = {"batch_id": batch_id, "station_id": self.station.station_id, "groups": groups}
        status, told = await self.operator.ask("POST", f"/v1/orders/{order_id}/batches", body)
        if self.hear("dispatch", status, told):
            check_batch(told)
            assert told["task_count"] == sum(one["quantity"] for one in groups) == told["tasks"]["pending"]
            self.batches.append(batch_id)

    async def recall(self) -> None:
        status, told = await self.operator.ask("POST", f"/v1/batches/{self.batch()}/recall", {})
        if self.hear("recall", status, told):
            assert told["status"] == "recalled"
            check_batch(told)

    async def cancel(self) -> None:
        status, told = await self.operator.ask("PATCH", f"/v1/batches/{self.batch()}", {"status": "cancelled"})
        if self.hear("cancel", status, told):
            assert told["status"] == "cancelled"
            check_batch(told)

    async def delete(self) -> None:
        status, told = await self.operator.ask("DELETE", f"/v1/batches/{self.batch()}")
        self.hear("delete", status, told)

    async def change(self, deed: str, body: dict[str, Any]) -> None:
        status, told = await self.operator.ask("PATCH", f"/v1/orders/{self.order_id}", body)
        if self.hear(deed, status, told):
            check_order(told)

    async def target(self) -> None:
        await self.change("target", {"target_count": self.random.randint(5, 60)})

    async def finish(self) -> None:
        """The target becomes what is completed: the order ends with what it has, and takes back what runs."""
        order = await self.operator.get(f"/v1/orders/{self.order_id}")
        await self.change("finish", {"target_count": max(1, order["completed_count"])})

    async def pause(self) -> None:
        await self.change("pause", {"status": "paused"})

    async def resume(self) -> None:
        await self.change("resume", {"status": "in_progress"})

    async def end(self) -> None:
        await self.change("end", {"status": "cancelled"})

    async def drop(self) -> None:
        """One task alone, whatever it is at: perhaps being recorded, perhaps being uploaded."""
        page = await self.operator.get(f"/v1/tasks?batch_id={self.batch()}&limit=100")
        tasks = [task for task in page["items"] if task["status"] in OPEN]
        if tasks:
            task_id = self.random.choice(tasks)["task_id"]
            status, told = await self.operator.ask("POST", f"/v1/tasks/{task_id}/cancel", {})
            self.hear("drop", status, told)

    # ------------------------------------------------------------ meanwhile

    async def drive(self, go: asyncio.Event, over: asyncio.Event) -> None:
        """The foreman: whatever the device may do next of this order, it is told to."""
        step = {"ready": "begin", "in_progress": "finish", "pending": "config"}
        while not over.is_set():
            await go.wait()
            for status, action in step.items():
                query = f"/v1/tasks?node_id={self.station.node_id}&order_id={self.order_id}&status={status}&limit=1"
                items = (await self.operator.get(query))["items"]
                if items:
                    await self.operator.ask("POST", f"/v1/tasks/{items[0]['task_id']}/{action}", {})
                    break
            await asyncio.sleep(0.01)  # how fast a foreman's hand is

    # ------------------------------------------------------------ the end

    async def balance(self) -> Counter[str]:
        """What was answered is what there is, order by order."""
        found: Counter[str] = Counter()
        for order_id in self.orders:
            order = await self.operator.get(f"/v1/orders/{order_id}")
            check_order(order)
            tasks = await self.operator.all(f"/v1/tasks?order_id={order_id}")
            assert Counter(task["status"] for task in tasks) == Counter(
                {status: n for status, n in order["tasks"].items() if n}
            )
            completed = {task["task_id"] for task in tasks if task["status"] == "completed"}
            recorded = {task["task_id"] for task in tasks if task["artifact"] is not None}
            by_phone = self.completed_tasks[order_id]
            assert len(by_phone) == self.completed_by_answers[order_id]
            assert completed == by_phone | recorded and not by_phone & recorded
            found["by phone"] += len(by_phone)
            found["by device"] += len(recorded)
            notices = await self.operator.all(f"/v1/orders/{order_id}/notices")
            check_notices(notices)
            assert all(notice["settled"] for notice in notices), "every device has let go"
            found[f"order {order['status']}"] += 1
            for notice in notices:
                found[f"notices of {notice['cause'].partition(':')[0]}"] += 1
        return found


@contextlib.asynccontextmanager
async def device(service: Service, folder: Path, node_id: str, token: str) -> AsyncIterator[FakeDevice]:
    settings = FakeSettings(
        url=service.url,
        node_id=node_id,
        roles=("recorder", "transfer"),
        folder=str(folder / node_id),
        token=lambda: token,
        objects=str(service.folder / "objects"),
        report_every_s=1.0,
    )
    made = FakeDevice(settings)
    running = asyncio.create_task(made.run())
    try:
        yield made
    finally:
        made.leave()
        await running


async def facts(fact: Callable[[], Awaitable[bool]], within: float, what: str) -> None:
    end = time.monotonic() + within
    while not await fact():
        assert time.monotonic() < end, f"not within {within} s: {what}"
        await asyncio.sleep(0.1)


# A storm goes on until so many have fallen; in calm weather nobody does.
FALLS = {"gateway": 2, "order": 2}
RECORDED = 3  # by devices: more than that, or the storm was the phones' alone


async def blow(
    service: Service, chance: random.Random, did: Counter[str], go: asyncio.Event, over: asyncio.Event
) -> None:
    """Kills the gateway now and then, and in between whichever actor of an order or a node is awake.

    A gateway that has its hands full wakes nobody, and then no actor can fall: until enough of them have, all hold
    still for as long as nobody is awake."""

    def awake() -> list[tuple[str, int]]:
        with sqlite3.connect(f"file:{service.data}/holdfast.db?mode=ro", uri=True, timeout=5) as db:
            rows = db.execute("select name, pid from actors where name like 'order/%' or name like 'node/%'").fetchall()
        return [(name, pid) for name, pid in rows if alive(pid)]

    async def an_order_is() -> bool:
        return any(name.startswith("order/") for name, _ in await asyncio.to_thread(awake))

    while not over.is_set():
        if did["order"] < FALLS["order"] and not await an_order_is():
            go.clear()
            # (Who was asked for before a gateway fell has to be asked for again.)
            with contextlib.suppress(AssertionError, sqlite3.Error):
                await facts(an_order_is, 10, "an order's actor is awake")
            go.set()
        elif chance.random() < 0.15:
            await asyncio.to_thread(service.kill_gateway, 60)
            did["gateway"] += 1
        elif found := await asyncio.to_thread(awake):
            name, pid = chance.choice(found)
            with contextlib.suppress(ProcessLookupError):  # it has just left by itself
                os.kill(pid, signal.SIGKILL)
                did[name.partition("/")[0]] += 1
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(over.wait(), 0.4)


@pytest.mark.parametrize(("weather", "rounds"), [("calm", 125), ("storm", 30)])
def test_five_hundred_interleavings_break_no_quota_lose_no_count_and_tell_each_device_once(
    service: Service, tmp_path: Path, weather: str, rounds: int
) -> None:
    names = [f"{weather}-{n}" for n in range(LINES)]
    stations = [make_station(service, name) for name in names]
    tokens = [
        service.patient("POST", "/v1/tokens", {"scope": "node", "node_id": one.node_id})["token"] for one in stations
    ]

    async def story() -> None:
        async with contextlib.AsyncExitStack() as stack:
            operator = await stack.enter_async_context(Caller(service))
            lines = []
            for name, station, token in zip(names, stations, tokens, strict=True):
                await stack.enter_async_context(device(service, tmp_path, station.node_id, token))
                phone = await stack.enter_async_context(Caller(service, station.token))
                lines.append(Line(name, operator, phone, station))
            for line in lines:
                await line.new_order()
            go, over, fell = asyncio.Event(), asyncio.Event(), Counter[str]()
            go.set()

            def enough() -> bool:
                """What the story is about has happened; how soon depends on who is quicker, devices or operators."""
                if weather == "storm":
                    return fell >= Counter(FALLS)
                said = sum((line.said for line in lines), Counter[str]())
                recorded, causes = on_the_devices_side(service, weather)
                return recorded > RECORDED and causes >= set(NOTICE_CAUSES) and all(said[deed] for deed in WEIGHTS)

            async def run(line: Line) -> None:
                nth = 0
                while nth < rounds or (nth < 10 * rounds and not await asyncio.to_thread(enough)):
                    await go.wait()
                    await line.interleaving(nth)
                    nth += 1

            began = time.monotonic()
            async with asyncio.TaskGroup() as beside:
                for line in lines:
                    beside.create_task(line.drive(go, over))
                if weather == "storm":
                    beside.create_task(blow(service, random.Random(2), fell, go, over))
                async with asyncio.TaskGroup() as shift:
                    for line in lines:
                        shift.create_task(run(line))
                over.set()
            took = time.monotonic() - began

            async def quiet() -> bool:
                """Nothing is being uploaded, and every device has heard what it was told."""
                for line in lines:
                    for order_id in line.orders:
                        order = await operator.get(f"/v1/orders/{order_id}")
                        if order["tasks"]["uploading"]:
                            return False
                        notices = await operator.all(f"/v1/orders/{order_id}/notices")
                        if not all(notice["settled"] for notice in notices):
                            return False
                return True

            await facts(quiet, 60, "what was recorded is uploaded, what was told is heard")
            found: Counter[str] = Counter()
            said: Counter[str] = Counter()
            for line in lines:
                found += await line.balance()
                said += line.said
            print(f"{weather}: {took:.1f} s; {dict(found)}; {dict(sorted(said.items()))}")
            if weather == "storm":
                repeats = operator.repeats + sum(line.phone.repeats for line in lines)
                print(f"killed {dict(fell)}; {repeats} requests repeated")
                assert fell >= Counter(FALLS) and repeats > 0 and found["by phone"] > 25
                return
            assert found["by phone"] > 100 and found["by device"] > RECORDED, found
            for cause in NOTICE_CAUSES:
                assert found[f"notices of {cause}"] > 0, f"no device was ever told of {cause}"
            for deed in WEIGHTS:
                assert said[deed] > 0, f"{deed} was never done: the storm proves nothing about it"

    asyncio.run(story())
    check_finalizations(service, weather)


def on_the_devices_side(service: Service, weather: str) -> tuple[int, set[str]]:
    """How many recordings are kept, and of which causes a device was told."""
    ours = (f"{weather}-%",)
    with sqlite3.connect(f"file:{service.data}/holdfast.db?mode=ro", uri=True, timeout=5) as db:
        kept = "select count(*) from artifacts where task_id in (select id from tasks where order_id like ?)"
        (recorded,) = db.execute(kept, ours).fetchone()
        causes = db.execute("select distinct cause from order_notices where order_id like ?", ours).fetchall()
    return recorded, {cause.partition(":")[0] for (cause,) in causes}


def check_finalizations(service: Service, weather: str) -> None:
    """An order that is completed was so once more than it was reopened; a notice is of one of those times, once."""
    with sqlite3.connect(f"file:{service.data}/holdfast.db?mode=ro", uri=True, timeout=5) as db:
        orders = db.execute("select id, status, finalizations from orders where id like ?", (f"{weather}-%",))
        counted = {order_id: (status, n) for order_id, status, n in orders.fetchall()}
        causes = db.execute("select order_id, cause, count(*) from order_notices group by order_id, cause, node_id")
        told = [row for row in causes.fetchall() if row[0] in counted]
    assert any(n for _, n in counted.values()), "no order was ever completed"
    assert all(n >= 1 for status, n in counted.values() if status == "completed")
    for order_id, cause, times in told:
        kind, _, nth = cause.partition(":")
        assert times == 1 and (kind != "completed" or 1 <= int(nth) <= counted[order_id][1])
