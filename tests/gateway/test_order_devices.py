"""Orders and their devices over the real door: a recording counts in the transaction that stores it, and a device that
works on what is not wanted any more is told once per cause, whoever falls silent meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from actors.gateway.loops import REAPER_SILENT_MS
from actors.gateway.notices import AT_ONCE, WAITING_MAX, Notices
from actors.law.effects import Done, NodeNoticed
from actors.law.nodes.requests import TakeNotice
from actors.law.orders.requests import ChangeOrder
from actors.law.requests import Request
from actors.mailbox import Asleep, NoActors
from actors.protocol.defaults import CONTROL_DEADLINE_S
from actors.protocol.errors import HoldfastError
from actors.protocol.ids import ulid
from actors.store.contract import Outcome
from tests.gateway.house import Frame, House, eventually
from tests.gateway.work import GROUP, Work


@pytest.fixture
async def work(tmp_path: Path) -> AsyncIterator[Work]:
    made = await Work(tmp_path).open()
    yield made
    await made.house.close()


async def ids_of(work: Work, batch_id: str = "b") -> list[str]:
    return [t["task_id"] for t in await work.tasks(batch_id=batch_id)]


async def settled(work: Work, order_id: str = "o") -> list[Frame]:
    async def all_are() -> list[Frame] | None:
        found = await work.notices(order_id)
        return found if found and all(one["settled"] for one in found) else None

    found: list[Frame] = await eventually(all_are, within=20, what="the notices are settled")
    return found


def cancelled(frames: list[Frame]) -> list[str]:
    return [f["task_id"] for f in frames if (f["type"], f.get("action")) == ("task", "cancel")]


# ---------------------------------------------------------------- upward


async def test_a_recording_that_is_stored_counts_at_once_and_completes_its_order(work: Work) -> None:
    await work.order(1)
    await work.batch(1)
    await work.connect()
    (task_id,) = await ids_of(work)
    await work.recording(task_id)
    assert (await work.of_batch())["status"] == "active"
    assert (await work.of_order())["status"] == "created", "nothing is completed yet"
    await work.act("finish", task_id)
    await work.recorder.hear("task", action="finish")
    await work.transfer.hear("upload_request")
    await work.report("idle")
    assert (await work.uploaded(task_id))["disposition"] == "keep"
    order, batch = await work.of_order(), await work.of_batch()
    assert (order["status"], order["completed_count"], batch["status"]) == ("completed", 1, "completed")
    assert (await work.uploaded(task_id))["disposition"] == "keep"
    assert (await work.of_order(), await work.of_batch()) == (order, batch), "told twice, counted once"
    assert await work.notices() == []


async def test_what_is_uploading_goes_on_when_the_order_is_completed_and_is_kept(work: Work) -> None:
    await work.order(4)
    await work.batch(4)
    await work.connect()
    first = (await ids_of(work))[0]
    await work.uploading(first)
    await work.complete(2)
    order = await work.call("PATCH", "/v1/orders/o", {"target_count": 2})
    assert (order["status"], order["tasks"]["uploading"], order["tasks"]["cancelled"]) == ("completed", 1, 1)
    assert (await work.of_batch())["status"] == "completed"
    assert (await work.uploaded(first))["disposition"] == "keep"
    order = await work.of_order()
    assert (order["status"], order["completed_count"], order["tasks"]["uploading"]) == ("completed", 3, 0)
    assert await work.notices() == []


# ---------------------------------------------------------------- downward


async def test_a_device_set_up_for_a_completed_order_is_told_once_and_settles_it(work: Work) -> None:
    await work.order(1, "o")
    await work.call("PATCH", "/v1/orders/o", {"target_count": 3})
    await work.batch(3)
    await work.connect()
    held = (await ids_of(work))[0]
    await work.ready(held)
    await work.complete(2)
    assert await work.notices() == []
    before = len(work.recorder.heard)
    order = await work.call("PATCH", "/v1/orders/o", {"target_count": 2}, status=None)
    assert (order["status"], order["tasks"]["cancelled"]) == ("completed", 1)
    told = await work.recorder.hear("task", action="cancel")
    assert (told["task_id"], told["attempt"]) == (held, 1)
    (notice,) = await work.notices()
    assert (notice["node_id"], notice["cause"], notice["settled"]) == ("n", "completed:1", False)
    assert notice["tasks"] == [{"task_id": held, "attempt": 1}] and notice["sends"] >= 1
    await work.report("idle")
    (notice,) = await settled(work)
    assert notice["settled_at_ms"] is not None
    assert cancelled(work.recorder.heard[before:]) == [held], "once"
    role = (await work.house.shown())["roles"]["recorder"]
    assert role["desired"]["state"] == "idle"


async def test_a_device_that_was_away_is_told_when_it_is_back(work: Work) -> None:
    await work.order(3)
    await work.batch(2)
    await work.connect()
    held = (await ids_of(work))[0]
    await work.recording(held)
    await work.recorder.close()
    order = await work.call("PATCH", "/v1/orders/o", {"status": "cancelled"})
    assert order["tasks"]["cancelled"] == 2
    (notice,) = await work.notices()
    assert (notice["cause"], notice["settled"], notice["sends"]) == ("cancelled", False, 0)
    reported: dict[str, Any] = {"state": "recording", "task_id": held, "attempt": 1}
    work.recorder = await work.house.node("n", "recorder", reported=reported, attempt=2)
    assert held in cancelled(work.recorder.hello_ack["directives"])
    assert not (await work.notices())[0]["settled"]
    await work.report("idle")
    await settled(work)


async def test_a_device_that_has_forgotten_by_itself_settles_what_it_owed(work: Work) -> None:
    await work.order(3)
    await work.batch(2)
    await work.connect()
    await work.ready((await ids_of(work))[0])
    await work.recorder.close()
    await work.call("POST", "/v1/batches/b/recall")
    (notice,) = await work.notices()
    assert (notice["cause"], notice["settled"]) == ("batch_recalled:b", False)
    work.recorder = await work.house.node("n", "recorder", reported={"state": "idle"}, attempt=2)
    await work.report("idle")
    await settled(work)


async def test_a_forgotten_node_owes_nothing_any_more(work: Work) -> None:
    await work.order(3)
    await work.batch(2)
    await work.connect()
    await work.ready((await ids_of(work))[0])
    await work.recorder.close()
    await work.transfer.close()
    await work.call("PATCH", "/v1/batches/b", {"status": "cancelled"})
    assert not (await work.notices())[0]["settled"]
    await work.call("DELETE", "/v1/nodes/n", status=204)
    await settled(work)


async def test_a_notice_that_nobody_heard_of_is_taken_by_its_deadline(work: Work) -> None:
    """Whoever decided for the order falls after its commit, before it could say anything."""
    await work.order(3)
    await work.batch(2)
    await work.connect()
    held = (await ids_of(work))[0]
    await work.ready(held)
    await work.house.worker.perform(ChangeOrder(order_id="o", seed=ulid(), status="cancelled"))
    assert (await work.recorder.hear("task", action="cancel", within=30))["task_id"] == held
    await work.report("idle")
    await settled(work)


async def test_a_reopened_order_that_is_completed_again_tells_again_and_each_time_once(work: Work) -> None:
    await work.order(1)
    await work.connect()
    causes = []
    for n in (1, 2):
        await work.call("PATCH", "/v1/orders/o", {"target_count": 2 * n})
        await work.batch(2, f"b{n}")
        held = (await ids_of(work, f"b{n}"))[0]
        await work.ready(held)
        await work.complete(1, f"b{n}")
        done = (await work.of_order())["completed_count"]
        await work.call("PATCH", "/v1/orders/o", {"target_count": done}, status=200)
        await work.recorder.hear("task", action="cancel", task_id=held)
        await work.report("idle")
        causes = [one["cause"] for one in await settled(work)]
    assert causes == ["completed:2", "completed:1"]


async def test_a_task_whose_station_lost_its_node_is_not_begun(work: Work) -> None:
    await work.station("st2", "bo", "n2")
    await work.order(9)
    await work.batch(1)
    await work.connect()
    (task_id,) = await ids_of(work)
    await work.call("PATCH", "/v1/stations/st2", {"node_id": "n"})
    told = await work.act("config", task_id, status=409)
    assert (told["code"], told["reason"]) == ("task_conflict", "station_unbound")


# ---------------------------------------------------------------- mailboxes


class Asked(NoActors):
    """Everybody sleeps; remembers who was looked for."""

    def __init__(self) -> None:
        self.subjects: list[str] = []

    def awake(self, subject: str) -> bool:
        self.subjects.append(subject)
        return False

    def since(self) -> set[str]:
        found, self.subjects = set(self.subjects), []
        return found


async def test_whatever_concerns_an_order_goes_to_the_one_mailbox_of_the_order(tmp_path: Path) -> None:
    house = House(tmp_path / "house")
    house.actors = asked = Asked()
    work = await Work(tmp_path, house).open()
    assert asked.since() == {"node/n", "collector/mira", "station/st"}
    await work.order(9)
    await work.batch(3)
    await work.complete(1)
    await work.call("POST", "/v1/batches/b/tasks", {"groups": [{**GROUP, "quantity": 2}]})
    await work.call("PATCH", "/v1/orders/o", {"target_count": 8})
    assert asked.since() == {"order/o"}
    await work.connect()
    task_id = (await ids_of(work))[-1]
    asked.since()
    await work.act("config", task_id)
    assert asked.since() - {"node/n"} == {"order/o"}, "the operator's command"
    await work.recorder.hear("task", action="config")
    await work.report("ready", task_id)
    await work.is_("ready", task_id)
    assert asked.since() == {"node/n", "order/o"}, "the device's report, and what it means for the task"
    await work.call("POST", "/v1/nodes/n/tasks", {"task_id": "free"})
    await work.act("cancel", "free")
    assert asked.since() - {"node/n"} == {"task/free"}
    await work.call("POST", "/v1/batches/b/recall")
    await work.recorder.hear("task", action="cancel")
    assert asked.since() == {"order/o", "node/n"}, "the order's decision, and the notice that its node takes"
    await house.close()


# ---------------------------------------------------------------- bounds


class Slow:
    """Nodes that do not answer until they are let."""

    def __init__(self) -> None:
        self.asked: list[TakeNotice] = []
        self.let = asyncio.Event()
        self.tasks: list[asyncio.Task[Any]] = []

    async def perform(self, request: Request) -> Outcome:
        assert isinstance(request, TakeNotice)
        self.asked.append(request)
        await self.let.wait()
        if request.node_id == "n0":
            raise HoldfastError("storage_unavailable")
        return Outcome(request.addressee, Done(changed=True), (), 0)

    def spawn(self, work: Any) -> None:
        self.tasks.append(asyncio.ensure_future(work))


async def test_nodes_that_do_not_answer_hold_a_few_places_and_nobody_else(house: House) -> None:
    slow = Slow()
    notices = Notices(slow.perform, slow.spawn)
    for n in range(WAITING_MAX + 50):
        notices.later(NodeNoticed(f"n{n}", "ntc"))
        notices.later(NodeNoticed(f"n{n}", "ntc"))
    assert len(slow.tasks) == WAITING_MAX, "the rest waits for its deadline; the same one twice is one"
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(slow.asked) == AT_ONCE
    slow.let.set()
    await asyncio.gather(*slow.tasks)
    assert len(slow.asked) == WAITING_MAX and len({r.seed for r in slow.asked}) == WAITING_MAX
    notices.later(NodeNoticed("n0", "ntc"))
    assert len(slow.tasks) == WAITING_MAX + 1, "there is room again, also after a failure"
    await asyncio.gather(*slow.tasks)


class Frozen(NoActors):
    """The node's actor is awake and answers nothing."""

    def __init__(self) -> None:
        self.asked = 0

    def awake(self, subject: str) -> bool:
        return subject == "node/n"

    async def call(self, request: Request, key: Any, within_s: float) -> Outcome:
        if not isinstance(request, TakeNotice):
            raise Asleep(request.addressee)
        self.asked += 1
        await asyncio.sleep(within_s)
        raise TimeoutError


async def test_a_device_is_told_behind_the_answer_and_waits_for_no_deadline(work: Work) -> None:
    """While a reaper has beaten lately the gateway sweeps nothing by itself, and here there is none that would."""
    await work.order(9)
    await work.batch(2)
    await work.connect()
    held = (await ids_of(work))[0]
    await work.ready(held)
    await work.house.worker.write(lambda store: store.reaper_beat("reaper", 0, 0))
    await work.call("PATCH", "/v1/orders/o", {"status": "cancelled"})
    assert (await work.recorder.hear("task", REAPER_SILENT_MS / 1000 - 1, action="cancel"))["task_id"] == held


class Awake(NoActors):
    """An order's actor, as the runtime has it: it answers its caller, and the gateway hears of the same outcome again,
    whenever its hint arrives."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.hints: list[Outcome] = []

    def awake(self, subject: str) -> bool:
        return subject == "order/o"

    async def call(self, request: Request, key: Any, within_s: float) -> Outcome:
        outcome = await self.house.worker.perform(request, key)
        self.hints.append(outcome)
        return outcome


async def test_what_an_awake_actor_says_twice_is_told_the_device_once(tmp_path: Path) -> None:
    house = House(tmp_path / "house")
    house.actors = actor = Awake(house)
    work = await Work(tmp_path, house).open()
    await work.order(9)
    await work.batch(2)
    await work.connect()
    held = (await ids_of(work))[0]
    await work.ready(held)
    before = len(work.recorder.heard)
    await work.call("PATCH", "/v1/orders/o", {"status": "cancelled"})
    await work.recorder.hear("task", action="cancel")
    for late in actor.hints:
        house.gateway.hint(late.session_id, late.last_seq, late.speech)
    await house.gateway.door.settle(5)
    assert (await work.notices())[0]["sends"] == 1
    await work.report("idle")
    await settled(work)
    assert cancelled(work.recorder.heard[before:]) == [held]
    await house.close()


async def test_an_order_answers_while_the_node_s_actor_is_frozen_and_the_device_is_told_in_the_end(
    tmp_path: Path,
) -> None:
    house = House(tmp_path / "house")
    house.actors = frozen = Frozen()
    work = await Work(tmp_path, house).open()
    await work.order(9)
    await work.batch(2)
    await work.connect()
    held = (await ids_of(work))[0]
    await work.ready(held)
    began = asyncio.get_running_loop().time()
    order = await work.call("PATCH", "/v1/orders/o", {"status": "cancelled"})
    assert order["status"] == "cancelled" and (await work.of_batch())["status"] == "cancelled"
    assert asyncio.get_running_loop().time() - began < CONTROL_DEADLINE_S / 2
    assert (await work.recorder.hear("task", action="cancel", within=30))["task_id"] == held
    assert frozen.asked
    await house.close()
