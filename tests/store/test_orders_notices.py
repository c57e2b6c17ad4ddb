"""What an order has to say to a device: one notice per device and cause, said until the device has been heard to drop
it, whoever dies on the way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.law.effects import NodeNoticed
from actors.law.nodes import requests as nq
from actors.law.orders import requests as oq
from actors.protocol import order_resources as resources
from actors.protocol.defaults import NOTICE_S
from actors.protocol.ids import ulid
from tests.order_world import OrderWorld, judged, wish


@pytest.fixture
def world(tmp_path: Path) -> Iterator[OrderWorld]:
    yield from judged(tmp_path)


def cancels(world: OrderWorld, connection: str = "rec") -> list[str]:
    world.fetch(connection)
    return [f["task_id"] for f in world.sent[connection] if f["type"] == "task" and f["action"] == "cancel"]


def only(world: OrderWorld) -> dict[str, Any]:
    (notice,) = world.notices()
    assert resources.NoticeResource.model_validate(notice)
    return notice


def busy(world: OrderWorld, tasks: int = 3, target: int = 10) -> str:
    """The node records the first task of a batch."""
    first = world.planned(tasks, target)[0]
    world.device()
    world.recording_of(first)
    return first


def test_a_completed_order_tells_each_affected_device_once(world: OrderWorld) -> None:
    first = busy(world)
    world.spoken.clear()
    world.complete(1)
    world.change(target_count=1)
    notice = only(world)
    assert (notice["cause"], notice["sends"], notice["settled"]) == ("completed:1", 1, False)
    assert [s for s in world.spoken if isinstance(s, NodeNoticed)] == [NodeNoticed("n", notice["notice_id"])]
    assert cancels(world) == [first]
    assert world.role("recorder")["desired"]["state"] == "idle"
    world.say("idle")
    assert only(world)["settled"] and only(world)["settled_at_ms"] == world.now_ms
    assert not [kind for kind, _ in world.armed() if kind == "notice"]
    world.walk(120)
    assert cancels(world) == [first] and only(world)["sends"] == 1


def test_a_device_that_nobody_told_of_a_task_hears_nothing(world: OrderWorld) -> None:
    world.planned(4)
    world.device()
    world.complete(1)
    world.change(target_count=1)
    assert world.notices() == []


def test_a_device_that_was_told_to_prepare_is_told_to_drop_it(world: OrderWorld) -> None:
    first, *_ = world.planned(3)
    world.device()
    world.act("config", first)  # on its way, or lost
    world.change(status="cancelled")
    assert only(world)["tasks"] == [{"task_id": first, "attempt": 1}]
    assert cancels(world) == [first]
    assert not only(world)["settled"]
    world.say("idle")
    assert only(world)["settled"]


def test_what_nobody_heard_is_said_by_the_deadline(world: OrderWorld) -> None:
    first = busy(world)
    world.deaf = True  # whoever should have carried it died after the commit
    world.recall()
    world.cancel_batch()
    assert world.notices() == []  # what is recorded goes on
    world.change(status="cancelled")
    assert only(world)["sends"] == 0 and cancels(world) == []
    world.walk(NOTICE_S + 1)
    assert only(world)["sends"] == 1 and cancels(world) == [first]


def test_it_is_said_again_in_growing_steps_until_the_device_drops_it(world: OrderWorld) -> None:
    first = busy(world)
    world.change(status="cancelled")
    sends = []
    for _ in range(13):
        world.walk(10)
        sends.append(only(world)["sends"])
    assert sends == [2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 4, 4, 5]  # after 10, 20, 40, 60 s
    assert set(cancels(world)) == {first}
    world.say(("recording", first, 1))
    assert not only(world)["settled"]
    world.say("unknown")
    assert not only(world)["settled"]
    world.say("idle")
    assert only(world)["settled"]


def test_a_device_that_is_away_is_told_when_it_comes_back(world: OrderWorld) -> None:
    first = busy(world)
    world.unplug("rec")
    world.change(status="cancelled")
    assert only(world)["sends"] == 0
    world.walk(100)
    assert only(world)["sends"] == 0 and not [k for k, _ in world.armed() if k == "notice"]
    answer = world.plug("rec2", role="recorder", reported=("recording", first, 1)).answer
    assert [f["task_id"] for f in answer.directives if f["type"] == "task"] == [first]  # type: ignore[union-attr]
    assert only(world)["sends"] == 1
    world.say("idle", "rec2")
    assert only(world)["settled"]


def test_a_device_that_comes_back_without_the_task_has_dropped_it(world: OrderWorld) -> None:
    busy(world)
    world.unplug("rec")
    world.change(status="cancelled")
    answer = world.plug("rec2", role="recorder", reported="idle").answer
    # It was told to record by its last command: it hears the cancel once, and its next word settles.
    assert [f["action"] for f in answer.directives if f["type"] == "task"] == ["cancel"]  # type: ignore[union-attr]
    world.say("idle", "rec2")
    assert only(world)["settled"]


def test_a_device_that_does_not_say_its_state_is_told_all_the_same(world: OrderWorld) -> None:
    first = busy(world)
    world.change(status="cancelled")
    world.unplug("rec")
    world.plug("rec2", role="recorder")
    assert first in cancels(world, "rec2")
    assert not only(world)["settled"]
    world.say("idle", "rec2")
    assert only(world)["settled"]


def test_a_notice_does_not_undo_what_the_device_was_asked_since(world: OrderWorld) -> None:
    """Its sweep comes late: the recorder is at another task already."""
    first, second, *_ = world.planned(3)
    world.device()
    world.recording_of(first)
    world.deaf = True
    world.act("cancel", first)
    world.say("idle")
    world.dispatch(wish(1), batch_id="b2")
    world.act("config", second)
    world.change(status="cancelled")
    world.order(order_id="o2")
    world.dispatch(wish(1), batch_id="b3", order_id="o2")
    other = world.task_ids(batch_id="b3")[0]
    world.act("config", other)
    world.walk(NOTICE_S + 1)
    assert world.role("recorder")["desired"] == {"state": "ready", "task_id": other, "attempt": 1}
    world.say(("ready", other, 1))
    assert only(world)["settled"] and world.task_status(other) == "ready"


def test_a_forgotten_node_is_told_nothing_any_more(world: OrderWorld) -> None:
    busy(world)
    world.unplug("rec")
    world.change(status="cancelled")
    world.do(nq.ForgetNode(node_id="n", seed=ulid()))
    assert only(world)["settled"]
    world.walk(5)


def test_taking_it_twice_or_late_is_harmless(world: OrderWorld) -> None:
    first = busy(world)
    world.change(status="cancelled")
    notice_id = only(world)["notice_id"]
    take = nq.TakeNotice(node_id="n", notice_id=notice_id, seed=ulid())
    assert not world.do(take).answer.changed  # type: ignore[union-attr]
    assert cancels(world) == [first]  # heard of by two, said to the device once
    world.say("idle")
    settled = only(world)
    assert not world.do(take).answer.changed  # type: ignore[union-attr]
    assert not world.do(nq.TakeNotice(node_id="m", notice_id=notice_id, seed=ulid())).answer.changed  # type: ignore[union-attr]
    assert only(world) == settled


def test_a_reopened_order_that_is_completed_again_may_tell_the_same_device_again(world: OrderWorld) -> None:
    busy(world)
    world.complete(1)
    world.change(target_count=1)
    world.say("idle")
    world.change(target_count=9)
    world.dispatch(wish(2), batch_id="b2")
    world.recording_of(world.task_ids(batch_id="b2")[0])
    world.change(target_count=1)
    assert world.code(world.change(target_count=4))[0] == "target_below_assigned"
    assert [(n["cause"], n["node_id"]) for n in world.notices()] == [("completed:1", "n"), ("completed:2", "n")]


def test_devices_are_told_each_of_their_own(world: OrderWorld) -> None:
    first = busy(world)
    world.station("st2", "bert", "m")
    world.dispatch(wish(2), batch_id="b2", station_id="st2")
    second = world.task_ids(batch_id="b2")[0]
    world.plug("rec_m", "m", "recorder", reported="idle")
    world.recording_of(second, "rec_m")
    world.change(status="cancelled")
    assert [(n["node_id"], [t["task_id"] for t in n["tasks"]]) for n in world.notices()] == [
        ("m", [second]),
        ("n", [first]),
    ]


def test_a_notice_that_is_settled_goes_with_its_time_and_an_order_takes_its_own_along(world: OrderWorld) -> None:
    first, *_ = world.planned(3)
    world.device()
    world.act("config", first)
    world.cancel_batch()
    world.say("idle")
    assert only(world)["settled"]
    world.now_ms += 10_000
    world.store.janitor(5_000)
    assert world.notices() == []
    world.dispatch(wish(1), batch_id="b2")
    world.act("config", world.task_ids(batch_id="b2")[0])
    world.cancel_batch("b2")
    assert not only(world)["settled"]
    assert world.do(oq.DeleteOrder(order_id="o", seed=ulid())).status == 204
    assert not [kind for kind, _ in world.armed() if kind == "notice"]
