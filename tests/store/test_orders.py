"""Orders, batches and external completion over the real store: the counts, the refusals with their numbers, and what
follows by itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.law.nodes.requests import UNSET
from actors.law.orders import requests as oq
from actors.protocol import order_resources as resources
from actors.protocol.errors import HoldfastError
from actors.protocol.ids import ulid
from actors.store.contract import BatchFilter, IdempotencyKey, OrderFilter, TaskFilter
from tests.order_world import OrderWorld, judged, wish


@pytest.fixture
def world(tmp_path: Path) -> Iterator[OrderWorld]:
    yield from judged(tmp_path)


# ---------------------------------------------------------------- orders


def test_an_order_is_made_once_and_shown(world: OrderWorld) -> None:
    request = oq.CreateOrder(order_id="o", seed=ulid(), target_count=7, name="Kitchens", by="tok")
    made = world.do(request)
    assert made.status == 201 and made.body == world.shown_order()
    assert resources.OrderResource.model_validate(made.body)
    assert made.body["status"] == "created" and made.body["remaining_assignable"] == 7
    again = world.do(request)
    assert (again.status, again.body) == (201, made.body)
    assert world.refused(world.order()) == "order_exists"


def test_orders_are_listed_newest_first_by_status_and_name(world: OrderWorld) -> None:
    for k in range(5):
        world.order(order_id=f"o{k}", name=f"Kitchen {k}")
    world.change("o3", status="cancelled")
    page = world.store.orders(OrderFilter(limit=2))
    assert [o["order_id"] for o in page.items] == ["o4", "o3"]
    rest = world.store.orders(OrderFilter(limit=9, cursor=page.next_cursor))
    assert [o["order_id"] for o in rest.items] == ["o2", "o1", "o0"] and rest.next_cursor is None
    assert [o["order_id"] for o in world.store.orders(OrderFilter(status="cancelled")).items] == ["o3"]
    assert [o["order_id"] for o in world.store.orders(OrderFilter(q="chen 1")).items] == ["o1"]
    assert world.store.orders(OrderFilter(q="%")).items == ()


def test_an_order_that_is_paused_takes_nothing_new_and_counts_what_runs(world: OrderWorld) -> None:
    task, *_ = world.planned(3)
    world.device()
    world.recording_of(task)
    assert world.change(status="paused").body["status"] == "paused"  # type: ignore[index]
    paused = ("order_paused", {"current_status": "paused"})
    assert world.code(world.dispatch(wish(1), batch_id="b2")) == paused
    assert world.code(world.adjust(wish(4))) == paused
    assert world.code(world.complete()) == paused
    world.act("finish", task)
    world.say("idle")
    world.upload("uploaded", task_id=task)
    assert world.task_status(task) == "completed"
    assert (world.shown_order()["status"], world.shown_order()["completed_count"]) == ("paused", 1)
    assert world.code(world.act("config", world.task_ids("pending")[0])) == paused
    assert world.adjust(wish(2)).status == 200  # less is always possible
    assert world.change(status="in_progress").body["status"] == "in_progress"  # type: ignore[index]
    assert world.complete().status == 200


def test_cancelling_an_order_ends_all_of_it_and_discards_what_is_uploaded(world: OrderWorld) -> None:
    first, second, *_ = world.planned(4)
    world.dispatch(wish(2), batch_id="b2")
    world.device()
    world.recording_of(first)
    world.act("finish", first)
    world.say("idle")
    world.upload("accepted", task_id=first)
    world.recording_of(second)
    body = world.change(status="cancelled").body
    assert body is not None and body["tasks"]["cancelled"] == 6 and body["cancelled_at_ms"] == world.now_ms
    assert {world.shown_batch(b)["status"] for b in ("b", "b2")} == {"cancelled"}
    assert ("upload_resend", f"{first}:1") not in world.armed()
    world.upload("progress", task_id=first)
    world.fetch("tra")
    assert world.sent["tra"][-1]["disposition"] == "discard"
    (notice,) = world.notices()
    assert (notice["cause"], notice["node_id"]) == ("cancelled", "n")
    assert notice["tasks"] == [{"task_id": second, "attempt": 1}]
    for outcome in (world.change(name="x"), world.change(target_count=99), world.dispatch(wish(1), batch_id="b3")):
        assert world.code(outcome) == ("order_terminal", {"current_status": "cancelled"})
    assert world.code(world.adjust(wish(1))) == ("order_terminal", {"current_status": "cancelled"})
    assert world.code(world.complete()) == ("batch_terminal", {"current_status": "cancelled"})
    again = world.change(status="cancelled")
    assert again.status == 200 and not again.answer.changed  # type: ignore[union-attr]


def test_the_target_is_never_below_what_is_assigned_but_may_be_exactly_what_is_done(world: OrderWorld) -> None:
    world.planned(6)
    world.complete(2)
    numbers = {"min_target": 6, "completed_count": 2}
    assert world.code(world.change(target_count=5)) == ("target_below_assigned", numbers)
    assert world.code(world.change(target_count=1)) == ("target_below_assigned", numbers)
    assert world.change(target_count=6).status == 200
    body = world.change(target_count=2).body
    assert body is not None and body["status"] == "completed" and body["remaining_assignable"] == 0
    assert body["tasks"] == {**body["tasks"], "completed": 2, "cancelled": 4, "pending": 0}
    assert world.shown_batch()["status"] == "completed"


def test_a_completed_order_is_reopened_by_raising_its_target_and_completed_again(world: OrderWorld) -> None:
    world.planned(2, target=2)
    world.complete(2)
    first = world.shown_order()
    assert (first["status"], first["completed_at_ms"]) == ("completed", world.now_ms)
    assert world.code(world.change(status="paused"))[0] == "order_terminal"
    assert world.code(world.dispatch(wish(1), batch_id="b2"))[0] == "order_completed"
    assert world.code(world.adjust(wish(3)))[0] == "order_completed"
    world.walk(1)
    raised = world.change(target_count=3).body
    assert raised is not None and (raised["status"], raised["completed_at_ms"]) == ("in_progress", None)
    assert world.shown_batch()["status"] == "completed"  # it stays as it is
    assert world.code(world.adjust(wish(3))) == ("batch_terminal", {"current_status": "completed"})
    world.dispatch(wish(1), batch_id="b2")
    world.complete(1, "b2")
    last = world.shown_order()
    assert (last["status"], last["completed_at_ms"], last["started_at_ms"]) == (
        "completed",
        world.now_ms,
        first["started_at_ms"],
    )


def test_an_order_is_deleted_before_it_begins_and_never_after(world: OrderWorld) -> None:
    world.planned(3)
    request = oq.DeleteBatch(order_id="o", batch_id="b", seed=ulid())
    assert world.do(request).status == 204
    assert world.do(request).status == 204  # the same call: the same answer
    assert world.shown_order()["task_count"] == 0 and world.shown_order()["remaining_assignable"] == 10
    assert world.refused(world.do(oq.DeleteBatch(order_id="o", batch_id="b", seed=ulid()))) == "batch_not_found"
    world.dispatch(wish(3))
    world.cancel_batch()
    assert world.do(oq.DeleteOrder(order_id="o", seed=ulid())).status == 204
    assert world.refused(world.do(oq.DeleteOrder(order_id="o", seed=ulid()))) == "order_not_found"
    assert world.task_ids() == [] and world.store.batches(BatchFilter()).items == ()
    world.order()
    world.dispatch(wish(3))
    world.complete(2)
    begun = ("has_begun", {"begun_count": 2})
    assert world.code(world.do(oq.DeleteBatch(order_id="o", batch_id="b", seed=ulid()))) == begun
    assert world.code(world.do(oq.DeleteOrder(order_id="o", seed=ulid()))) == begun


def test_what_a_recorder_was_set_up_for_has_begun(world: OrderWorld) -> None:
    task, *_ = world.planned(2)
    world.device()
    world.act("config", task)
    world.say(("ready", task, 1))
    assert world.code(world.do(oq.DeleteOrder(order_id="o", seed=ulid()))) == ("has_begun", {"begun_count": 1})
    assert world.code(world.adjust(wish(0))) == (
        "below_begun",
        {"sop_id": "sop", "subscene_id": "sub", "begun_count": 1},
    )
    world.act("clear", task)
    assert world.adjust(wish(0)).status == 200


# ---------------------------------------------------------------- dispatch


def test_a_batch_is_dispatched_with_its_groups_and_names(world: OrderWorld) -> None:
    world.station()
    world.order()
    body = world.dispatch(
        wish(2, sop_slug="pour", sop_version=3, scene_name="Küche", params={"lux": 300}), wish(1, subscene="sink")
    ).body
    assert resources.BatchResource.model_validate(body) and body == world.shown_batch()
    assert [(g["subscene_id"], g["quantity"], g["pending"]) for g in body["groups"]] == [("sub", 2, 2), ("sink", 1, 1)]
    task = world.shown(world.task_ids()[0])
    assert task["node_id"] == "n" and task["order_id"] == "o"
    assert task["params"] == {
        "lux": 300,
        "sop_id": "sop",
        "subscene_id": "sub",
        "sop_slug": "pour",
        "sop_version": 3,
        "scene_name": "Küche",
    }
    assert task["group"] == {
        "sop_id": "sop",
        "subscene_id": "sub",
        "sop_slug": "pour",
        "sop_version": 3,
        "scene_name": "Küche",
        "subscene_name": None,
    }
    assert world.shown_order()["batch_count"] == 1


def test_a_dispatch_that_cannot_be_is_refused_with_the_numbers(world: OrderWorld) -> None:
    world.station()
    world.order(target=5)
    assert world.refused(world.dispatch(wish(1), order_id="none")) == "order_not_found"
    assert world.refused(world.dispatch(wish(1), station_id="none")) == "station_not_found"
    assert world.refused(world.dispatch(wish(0))) == "bad_request"
    assert world.refused(world.dispatch()) == "bad_request"
    twice = {"sop_id": "sop", "subscene_id": "sub"}
    assert world.code(world.dispatch(wish(1), wish(2))) == ("duplicate_group", twice)
    assert world.code(world.dispatch(wish(1001))) == ("too_many_tasks", {"requested": 1001, "max": 1000})
    world.dispatch(wish(3))
    assert world.code(world.dispatch(wish(3), batch_id="b2")) == (
        "quota_exceeded",
        {"requested": 3, "remaining_assignable": 2, "target_count": 5, "task_count": 3, "assigned_count": 3},
    )
    assert world.refused(world.dispatch(wish(1))) == "batch_exists"
    world.order(order_id="other")
    assert world.refused(world.dispatch(wish(1), order_id="other")) == "batch_exists"
    assert world.shown_order()["task_count"] == 3
    world.station("st2", "anna", "m")  # takes Anna away: the first station has nobody now
    assert world.refused(world.dispatch(wish(1), batch_id="b2")) == "station_not_bound"
    world.complete(3)
    assert world.dispatch(wish(2), batch_id="b2", station_id="st2").status == 201


def test_the_same_dispatch_again_is_the_same_batch(world: OrderWorld) -> None:
    world.station()
    world.order()
    request = oq.DispatchBatch(order_id="o", batch_id="b", seed=ulid(), station_id="st", groups=(wish(2),))
    first = world.do(request)
    key = IdempotencyKey("tok", "route", "key", "hash")
    assert world.do(request).body == first.body and world.do(request, key).answer.changed is False  # type: ignore[union-attr]
    assert len(world.task_ids()) == 2


@pytest.mark.parametrize("policy", ["rows", "live"])
def test_what_a_cancelled_batch_had_counts_by_the_policy(world: OrderWorld, policy: Any) -> None:
    world.planned(6, quota_policy=policy)
    world.complete(2)
    world.cancel_batch()
    left = 4 if policy == "rows" else 8
    assert world.shown_order()["remaining_assignable"] == left
    assert world.code(world.dispatch(wish(left + 1), batch_id="b2"))[1]["remaining_assignable"] == left
    assert world.dispatch(wish(left), batch_id="b2").status == 201


# ---------------------------------------------------------------- adjust


def test_a_group_is_given_more_and_another_is_added(world: OrderWorld) -> None:
    world.planned(2)
    body = world.adjust(wish(3, sop_slug="pour"), wish(4, subscene="sink")).body
    assert resources.Adjusted.model_validate(body)
    assert (body["added_count"], body["removed_count"]) == (5, 0)
    assert [(g["subscene_id"], g["quantity"], g["previous_quantity"]) for g in body["groups"]] == [
        ("sub", 3, 2),
        ("sink", 4, 0),
    ]
    ids = world.task_ids()
    assert world.shown(ids[0])["params"].get("sop_slug") is None  # what was made stays as it was made
    assert world.shown(ids[2])["params"]["sop_slug"] == "pour"
    assert world.shown(ids[0])["group"]["sop_slug"] == "pour"


def test_the_newest_pending_go_first_and_what_has_begun_never(world: OrderWorld) -> None:
    tasks = world.planned(5)
    world.complete(2)
    body = world.adjust(wish(3)).body
    assert body is not None and (body["added_count"], body["removed_count"]) == (0, 2)
    assert world.task_ids() == tasks[:3]
    refused = ("below_begun", {"sop_id": "sop", "subscene_id": "sub", "begun_count": 2})
    assert world.code(world.adjust(wish(1))) == refused
    assert world.code(world.adjust(wish(1), wish(3, subscene="sink"))) == refused  # all or nothing
    assert len(world.shown_batch()["groups"]) == 1


def test_less_that_leaves_only_what_is_completed_completes_the_batch(world: OrderWorld) -> None:
    world.planned(3)
    world.complete(1)
    assert world.shown_batch()["status"] == "active"
    assert world.adjust(wish(1)).body["batch"]["status"] == "completed"  # type: ignore[index]
    assert world.adjust(wish(1)).answer.changed is False  # type: ignore[union-attr]


def test_growth_beyond_the_quota_names_the_most_that_the_batch_can_have(world: OrderWorld) -> None:
    world.planned(4, target=8)
    world.dispatch(wish(2), batch_id="b2")
    assert world.code(world.adjust(wish(7))) == (
        "quota_exceeded",
        {
            "requested": 7,
            "max_batch_target": 6,
            "remaining_assignable": 2,
            "target_count": 8,
            "task_count": 6,
            "assigned_count": 6,
        },
    )
    assert world.adjust(wish(6)).status == 200
    # What one group gives up another may have, in the same call.
    assert world.adjust(wish(1), wish(5, subscene="sink")).status == 200


def test_a_batch_holds_a_thousand_tasks_and_no_more(world: OrderWorld) -> None:
    world.planned(999, target=5000)
    assert world.code(world.adjust(wish(999), wish(2, subscene="x"))) == (
        "too_many_tasks",
        {"requested": 1001, "max": 1000},
    )
    assert world.adjust(wish(1000)).status == 200
    assert world.adjust(wish(0), wish(1000, subscene="x")).status == 200


def test_a_completed_order_gives_back_what_never_began(world: OrderWorld) -> None:
    world.planned(6)
    world.complete(2)
    world.change(target_count=2)
    body = world.adjust(wish(2)).body
    assert body is not None and (body["removed_count"], body["batch"]["status"]) == (4, "completed")
    assert world.shown_order()["task_count"] == 2
    assert world.code(world.adjust(wish(3)))[0] == "order_completed"


@pytest.mark.parametrize("ended", ["cancelled", "recalled"])
def test_a_batch_that_was_ended_is_not_adjusted(world: OrderWorld, ended: str) -> None:
    world.planned(3)
    assert (world.cancel_batch() if ended == "cancelled" else world.recall()).status == 200
    for quantity in (0, 3, 4):
        assert world.code(world.adjust(wish(quantity))) == ("batch_terminal", {"current_status": ended})


def test_under_live_a_group_counts_without_what_was_cancelled(world: OrderWorld) -> None:
    tasks = world.planned(4, quota_policy="live")
    world.act("cancel", tasks[0])
    body = world.adjust(wish(4)).body
    assert body is not None and (body["added_count"], body["groups"][0]["previous_quantity"]) == (1, 3)
    assert world.shown_batch()["task_count"] == 5
    assert world.adjust(wish(0)).body["removed_count"] == 4  # type: ignore[index]
    assert world.task_ids() == [tasks[0]]


# ---------------------------------------------------------------- cancel and recall


def test_a_recall_takes_back_what_waits_and_lets_go_on_what_runs(world: OrderWorld) -> None:
    first, *_ = world.planned(4)
    world.device()
    world.recording_of(first)
    body = world.recall().body
    assert body is not None and body["status"] == "recalled" and body["recalled_at_ms"] == world.now_ms
    assert body["tasks"] == {**body["tasks"], "in_progress": 1, "cancelled": 3, "pending": 0}
    assert world.notices() == []  # what waited, no device knew of
    again = world.recall()
    assert again.body == body and again.answer.changed is False  # type: ignore[union-attr]
    assert world.code(world.cancel_batch()) == ("batch_terminal", {"current_status": "recalled"})
    world.act("finish", first)
    world.say("idle")
    world.upload("uploaded", task_id=first)
    assert (world.shown_order()["completed_count"], world.shown_batch()["status"]) == (1, "recalled")


def test_a_recall_of_what_a_recorder_is_set_up_for_tells_it(world: OrderWorld) -> None:
    first, *_ = world.planned(2)
    world.device()
    world.act("config", first)
    world.say(("ready", first, 1))
    world.recall()
    (notice,) = world.notices()
    assert (notice["cause"], notice["settled"]) == ("batch_recalled:b", False)


def test_a_recording_that_is_given_back_to_a_recalled_batch_ends_there(world: OrderWorld) -> None:
    first, *_ = world.planned(2)
    world.device()
    world.recording_of(first)
    world.recall()
    world.unplug("rec")
    world.walk(31)
    assert world.task_status(first) == "cancelled"


def test_cancelling_a_batch_ends_it_with_what_is_recorded_and_uploaded(world: OrderWorld) -> None:
    first, *_ = world.planned(2)
    world.device()
    world.recording_of(first)
    body = world.cancel_batch().body
    assert body is not None and (body["status"], body["tasks"]["cancelled"]) == ("cancelled", 2)
    assert world.cancel_batch().answer.changed is False  # type: ignore[union-attr]
    assert world.code(world.recall()) == ("batch_terminal", {"current_status": "cancelled"})
    assert world.shown_order()["status"] == "created"


# ---------------------------------------------------------------- external completion


def test_the_oldest_pending_are_completed_and_each_answer_adds_up(world: OrderWorld) -> None:
    tasks = world.planned(5)
    body = world.complete(2, station_id="st").body
    assert resources.Completed.model_validate(body)
    assert [t["task_id"] for t in body["tasks"]] == tasks[:2]
    assert {t["status"] for t in body["tasks"]} == {"completed"}
    assert (body["requested_count"], body["completed_count"], body["created_count"]) == (2, 2, 0)
    assert {k: body["group"][k] for k in ("pending", "completed", "total")} == {
        "pending": 3,
        "completed": 2,
        "total": 5,
    }
    assert body["batch"] == world.shown_batch() and body["batch"]["status"] == "active"
    assert world.shown_order()["status"] == "in_progress"


def test_a_completion_that_cannot_be_is_refused_and_changes_nothing(world: OrderWorld) -> None:
    world.planned(2)
    for quantity in (0, -1, 1001):
        assert world.refused(world.complete(quantity)) == "bad_request"
    assert world.refused(world.complete(sop_id="")) == "bad_request"
    assert world.refused(world.complete(batch_id="none")) == "batch_not_found"
    assert world.refused(world.complete(order_id="none")) == "batch_not_found"
    assert world.refused(world.complete(sop_id="none")) == "group_not_found"
    assert world.code(world.complete(3)) == ("too_few_pending", {"requested": 3, "pending": 2})
    world.station("st2", "bert", "m")
    assert world.refused(world.complete(station_id="st2")) == "not_your_station"
    assert world.refused(world.complete(station_id="gone")) == "station_not_found"
    assert world.shown_batch()["completed_count"] == 0


def test_the_same_key_completes_once(world: OrderWorld) -> None:
    world.planned(4)
    key = IdempotencyKey("tok", "POST /complete", "k1", "hash")
    first = world.complete(2, key=key)
    again = world.complete(2, key=key)
    assert (again.body, again.replayed) == (first.body, True)
    assert world.shown_batch()["completed_count"] == 2
    other = IdempotencyKey("tok", "POST /complete", "k1", "another hash")
    assert world.refused(world.complete(1, key=other)) == "idempotency_mismatch"


def test_the_last_completion_ends_batch_and_order_at_once(world: OrderWorld) -> None:
    world.planned(3, target=3)
    world.complete(2)
    body = world.complete(1).body
    assert body is not None and body["batch"]["status"] == "completed"
    assert world.shown_order()["status"] == "completed"
    assert world.code(world.complete()) == ("batch_terminal", {"current_status": "completed"})


def test_a_recording_of_what_an_external_device_has_done_is_a_surplus(world: OrderWorld) -> None:
    """The device is never told `keep` for what we do not have."""
    task, *_ = world.planned(2)
    world.device()
    world.recording_of(task)
    world.unplug("rec")
    world.walk(31)  # given back
    assert world.task_status(task) == "pending"
    world.complete(1)
    assert world.task_status(task) == "completed"
    world.upload("uploaded", task_id=task)
    world.fetch("tra")
    assert world.sent["tra"][-1] == {"type": "upload_ack", "task_id": task, "attempt": 1, "disposition": "discard"}
    assert world.shown(task)["artifact"] is None


# ---------------------------------------------------------------- lists, handoff, audit


def test_batches_and_tasks_are_listed_by_what_they_belong_to(world: OrderWorld) -> None:
    world.planned(2)
    world.station("st2", "bert", "m")
    world.dispatch(wish(1), batch_id="b2", station_id="st2")
    world.complete(1)
    store = world.store
    assert [b["batch_id"] for b in store.batches(BatchFilter(order_id="o")).items] == ["b2", "b"]
    assert [b["batch_id"] for b in store.batches(BatchFilter(station_id="st2")).items] == ["b2"]
    assert [b["batch_id"] for b in store.batches(BatchFilter(status="active")).items] == ["b"]
    page = store.batches(BatchFilter(order_id="o", limit=1))
    assert [b["batch_id"] for b in store.batches(BatchFilter(order_id="o", cursor=page.next_cursor)).items] == ["b"]
    assert len(store.tasks(TaskFilter(order_id="o")).items) == 3
    assert {t["batch_id"] for t in store.tasks(TaskFilter(station_id="st2")).items} == {"b2"}
    assert len(store.tasks(TaskFilter(order_id="o", status="completed")).items) == 1


def test_the_handoff_is_one_line_byte_for_byte(world: OrderWorld) -> None:
    world.do(oq.CreateCollector(collector_id="li", seed=ulid(), name="李明", operator_id="op-7"))
    world.make("arm-1")
    world.do(
        oq.CreateStation(
            station_id="st",
            seed=ulid(),
            collector_id="li",
            node_id="arm-1",
            node_type_name='Arm "2"',
            capabilities={"requires_axon": False},
        )
    )
    world.order()
    world.dispatch(wish(1, sop_slug="pour-water", sop_version=3, scene_name="Küche", subscene_name="Spüle"))
    line = world.store.handoff("b", "sop", "sub")
    assert (
        line.encode()
        == (
            '{"sop_slug":"pour-water","sop_version":"3","scene_name":"Küche","subscene_name":"Spüle",'
            '"collector_name":"李明","collector_operator_id":"op-7","device_id":"arm-1","device_type":"Arm \\"2\\""}'
        ).encode()
    )


def test_what_the_handoff_does_not_know_is_empty(world: OrderWorld) -> None:
    world.planned(1)
    world.station("st2", "anna", "m")  # the first station is unbound now
    assert world.store.handoff("b", "sop", "sub") == (
        '{"sop_slug":"","sop_version":"","scene_name":"","subscene_name":"",'
        '"collector_name":"","collector_operator_id":"","device_id":"","device_type":""}'
    )
    with pytest.raises(HoldfastError, match="group_not_found"):
        world.store.handoff("b", "sop", "none")
    with pytest.raises(HoldfastError, match="batch_not_found"):
        world.store.handoff("none", "sop", "sub")


def test_who_did_what_stands_in_the_audit(world: OrderWorld) -> None:
    world.planned(2)
    world.do(oq.CompleteTasks(order_id="o", batch_id="b", seed=ulid(), sop_id="sop", subscene_id="sub", by="tok_1"))
    world.do(oq.ChangeOrder(order_id="o", seed=ulid(), name=UNSET, status="cancelled", by="tok_2"))
    world.do(oq.RecallBatch(order_id="o", batch_id="b", seed=ulid(), by="tok_3"))
    found = [(a["by"], a["action"], a["object_id"], a["outcome"]) for a in world.store.audit(None, 3, None).items]
    assert found == [
        ("tok_3", "batch.recall", "b", "batch_terminal"),
        ("tok_2", "order.change", "o", "ok"),
        ("tok_1", "batch.complete", "b", "ok"),
    ]
