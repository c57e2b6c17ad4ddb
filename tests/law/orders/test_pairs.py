"""Every (state, event) pair of orders and batches, and of a task's move for those that own it: what it becomes, or that
nothing was changed."""

from __future__ import annotations

import pickle
from itertools import product
from typing import Any, get_args

import pytest

from actors.law.audit import ACTIONS
from actors.law.effects import NodeNoticed, Refuse, Show
from actors.law.nodes.requests import UNSET
from actors.law.nodes.tasks import TRANSITIONS
from actors.law.orders import graphs
from actors.law.orders import requests as oq
from actors.law.orders.advance import advance
from actors.law.orders.decide import STATION_TABLE, TABLE, decide
from actors.law.orders.draft import notice_ids
from actors.law.requests import Request
from actors.protocol.codes import ERRORS
from actors.protocol.node_codes import TASK_STATUSES, TASK_TERMINAL
from actors.protocol.order_codes import (
    BATCH_OPEN,
    BATCH_STATUSES,
    NOTICE_CAUSES,
    ORDER_OPEN,
    ORDER_STATUSES,
    QUOTA_POLICIES,
    OrderWish,
)
from tests.law.orders.memory import Memory
from tests.law.orders.scene import ORDER, SEED, B, G, now, scene

WISHES = get_args(OrderWish)


def refused(memory: Memory, request: oq.OrderRequest) -> tuple[str, dict[str, Any]]:
    rows = memory.rows()
    answer = memory.do(request)
    assert isinstance(answer, Refuse), answer
    assert memory.rows() == rows and answer.code in ERRORS
    return answer.code, dict(answer.extra)


def wish(quantity: int, sop: str = "sop", **names: Any) -> oq.GroupWish:
    return oq.GroupWish(sop_id=sop, subscene_id="sub", quantity=quantity, **names)


# ---------------------------------------------------------------- orders

ASKED: dict[Any, dict[Any, str]] = {
    # asked: {before: after}; the same status is no change, whatever is not here is refused
    "paused": {"created": "paused", "in_progress": "paused"},
    "in_progress": {"paused": "in_progress"},
    "cancelled": {"created": "cancelled", "in_progress": "cancelled", "paused": "cancelled"},
}


@pytest.mark.parametrize(("before", "asked"), list(product(ORDER_STATUSES, WISHES)))
def test_what_an_order_may_be_asked_to_become(before: Any, asked: Any) -> None:
    done = ("completed",) * 10 if before == "completed" else ()
    memory = scene(before, "completed" if before == "completed" else "pending", *done)
    request = oq.ChangeOrder(**ORDER, status=asked)
    after = ASKED[asked].get(before)
    if after is not None:
        answer = memory.do(request)
        assert answer == Show("order") and memory.orders["o"].status == after
    elif before == asked:
        rows = memory.rows()
        assert memory.do(request) == Show("order", changed=False) and memory.rows() == rows
    else:
        code = "order_conflict" if before == "created" else "order_terminal"
        assert refused(memory, request) == (code, {"current_status": before})


def test_the_graphs_are_closed_and_end() -> None:
    orders, batches = graphs.ORDER_TRANSITIONS, graphs.BATCH_TRANSITIONS
    assert {s for s, _ in orders} | set(orders.values()) == set(ORDER_STATUSES)
    assert {s for s, _ in batches} | set(batches.values()) == set(BATCH_STATUSES)
    assert {step for _, step in orders} == set(get_args(graphs.OrderStep))
    assert {step for _, step in batches} == set(get_args(graphs.BatchStep))
    assert {s for s, step in orders if s not in ORDER_OPEN} == {"completed"}  # only to be reopened
    assert {s for s, _ in batches} == set(BATCH_OPEN)
    assert "cancelled" not in {s for s, _ in orders}


@pytest.mark.parametrize(("status", "wanted"), list(product(ORDER_STATUSES, (3, 4, 5, 7, 10, 12))))
def test_where_a_target_may_be_moved(status: Any, wanted: int) -> None:
    """Four of ten are completed; seven are assigned while it runs, four when it is completed."""
    ended = status in ("completed", "cancelled")
    done: list[Any] = ["completed"] * (0 if status == "created" else 4)
    rest = ["cancelled" if ended else "pending"] * (7 - len(done))
    target = 4 if status == "completed" else 10
    memory = scene(status, status if ended else "active" if done else "pending", *done, *rest, target_count=target)
    request = oq.ChangeOrder(**ORDER, target_count=wanted)
    if status == "cancelled":
        assert refused(memory, request) == ("order_terminal", {"current_status": "cancelled"})
        return
    if wanted < 7 and wanted != len(done):
        assert refused(memory, request) == (
            "target_below_assigned",
            {"min_target": 7, "completed_count": len(done)},
        )
        return
    memory.do(request)
    memory.check()
    assert memory.orders["o"].target_count == wanted
    becomes = "completed" if wanted == len(done) else "in_progress" if status == "completed" else status
    assert memory.orders["o"].status == becomes


@pytest.mark.parametrize(("status", "task"), list(product(ORDER_STATUSES, TASK_STATUSES)))
def test_an_order_is_deleted_only_while_nothing_of_it_has_begun(status: Any, task: Any) -> None:
    memory = scene(status, "active", task, "pending")
    request = oq.DeleteOrder(**ORDER)
    if task in ("pending", "cancelled"):
        assert memory.do(request) == Show("nothing", 204)
        assert memory.rows() == ({}, {}, {}, {}, {})
    else:
        assert refused(memory, request) == ("has_begun", {"begun_count": 1})


# ---------------------------------------------------------------- batches

GROWTH: dict[Any, str] = {"completed": "order_completed", "cancelled": "order_terminal", "paused": "order_paused"}


@pytest.mark.parametrize("status", ORDER_STATUSES)
def test_in_which_orders_a_batch_may_be_dispatched(status: Any) -> None:
    memory = scene(status, "pending")
    request = oq.DispatchBatch(**{**B, "batch_id": "b2"}, station_id="st", groups=(wish(2),))
    if status in GROWTH:
        assert refused(memory, request) == (GROWTH[status], {"current_status": status})
    else:
        assert memory.do(request) == Show("batch", 201, object_id="b2")
        assert [t.status for t in memory.of(batch_id="b2")] == ["pending", "pending"]


@pytest.mark.parametrize(("order", "batch", "quantity"), list(product(ORDER_STATUSES, BATCH_STATUSES, (1, 2, 3))))
def test_when_a_batch_may_be_adjusted(order: Any, batch: Any, quantity: int) -> None:
    """It has one completed task and one that may be taken away."""
    memory = scene(order, batch, "completed", "pending" if batch in BATCH_OPEN else "cancelled")
    request = oq.AdjustBatch(**B, groups=(wish(quantity),))
    if order == "cancelled":
        assert refused(memory, request)[0] == "order_terminal"
    elif batch in ("cancelled", "recalled"):
        assert refused(memory, request) == ("batch_terminal", {"current_status": batch})
    elif quantity == 3 and order in GROWTH:
        assert refused(memory, request)[0] == GROWTH[order]
    elif quantity == 3 and batch not in BATCH_OPEN:
        assert refused(memory, request) == ("batch_terminal", {"current_status": "completed"})
    else:
        answer = memory.do(request)
        assert isinstance(answer, Show) and answer.what == "adjusted"
        assert len(memory.of(batch_id="b")) == quantity


ENDS: dict[Any, tuple[type[oq.BatchRequest], str, dict[Any, str]]] = {
    # event: what each open task becomes
    "cancel": (oq.ChangeBatch, "cancelled", dict.fromkeys(TASK_STATUSES, "cancelled")),
    "recall": (oq.RecallBatch, "recalled", {"pending": "cancelled", "ready": "cancelled"}),
}


@pytest.mark.parametrize(("event", "batch", "task"), list(product(ENDS, BATCH_STATUSES, TASK_STATUSES)))
def test_how_a_batch_is_ended_and_what_that_means_for_a_task(event: str, batch: Any, task: Any) -> None:
    kind, after, moves = ENDS[event]
    memory = scene("in_progress", batch, task, told=("t0",))
    if batch == after:
        rows = memory.rows()
        assert memory.do(kind(**B)) == Show("batch", changed=False, object_id="b") and memory.rows() == rows
    elif batch not in BATCH_OPEN:
        assert refused(memory, kind(**B)) == ("batch_terminal", {"current_status": batch})
    else:
        assert memory.do(kind(**B)) == Show("batch", object_id="b")
        becomes = task if task in TASK_TERMINAL else moves.get(task, task)
        assert now(memory) == ("in_progress", after, [becomes])
        told = [(n.cause, n.tasks) for n in memory.notices.values()]
        assert told == ([(f"batch_{after}:b", (("t0", 1),))] if becomes != task else [])


@pytest.mark.parametrize("task", TASK_STATUSES)
def test_a_batch_is_deleted_only_while_nothing_of_it_has_begun(task: Any) -> None:
    memory = scene("in_progress", "active", task)
    if task in ("pending", "cancelled"):
        assert memory.do(oq.DeleteBatch(**B)) == Show("nothing", 204) and not memory.batches and not memory.tasks
    else:
        assert refused(memory, oq.DeleteBatch(**B)) == ("has_begun", {"begun_count": 1})


@pytest.mark.parametrize(("order", "batch", "task"), list(product(ORDER_STATUSES, BATCH_STATUSES, TASK_STATUSES)))
def test_what_an_external_device_may_complete(order: Any, batch: Any, task: Any) -> None:
    memory = scene(order, batch, task, "failed")
    request = oq.CompleteTasks(**B, **G, station_id="st")
    if batch not in BATCH_OPEN:
        assert refused(memory, request) == ("batch_terminal", {"current_status": batch})
    elif order == "paused":
        assert refused(memory, request)[0] == "order_paused"
    elif order not in ORDER_OPEN:
        assert refused(memory, request) == ("order_terminal", {"current_status": order})
    elif task != "pending":
        assert refused(memory, request) == ("too_few_pending", {"requested": 1, "pending": 0})
    else:
        answer = memory.do(request)
        assert isinstance(answer, Show) and answer.data == {
            "requested": 1,
            "task_ids": ("t0",),
            "group": ("sop", "sub"),
        }
        assert now(memory) == ("in_progress", "completed", ["completed", "failed"])


# ---------------------------------------------------------------- what follows by itself


@pytest.mark.parametrize(("order", "batch", "edge"), list(product(ORDER_STATUSES, BATCH_STATUSES, sorted(TRANSITIONS))))
def test_what_a_moved_task_means_for_its_batch_and_order(order: Any, batch: Any, edge: Any) -> None:
    """One more task of the batch waits; the order wants two."""
    (before, taken), after = edge, TRANSITIONS[edge]
    memory = scene(order, batch, before, "pending" if batch in BATCH_OPEN else "cancelled", target_count=2)
    memory.move("t0", taken, SEED)
    task = "cancelled" if batch == "recalled" and after in ("pending", "ready") else after
    begun = after not in ("pending", "cancelled")
    assert now(memory) == (
        "in_progress" if order == "created" and after == "completed" else order,
        "active" if batch == "pending" and begun and order in ORDER_OPEN else batch,
        [task, "pending" if batch in BATCH_OPEN else "cancelled"],
    )
    assert not memory.notices


@pytest.mark.parametrize(("order", "policy"), list(product(ORDER_STATUSES, QUOTA_POLICIES)))
def test_the_completed_task_that_was_wanted_completes_the_order_once(order: Any, policy: Any) -> None:
    batch = "completed" if order in ("completed", "cancelled") else "active"
    others = ("cancelled",) * 3 if batch == "completed" else ("in_progress", "ready", "pending")
    memory = scene(order, batch, "uploading", *others, "uploading", target_count=1, quota_policy=policy)
    memory.move("t0", "kept", SEED)
    if order in ORDER_OPEN:
        assert now(memory) == ("completed", "completed", ["completed", *["cancelled"] * 3, "uploading"])
        (notice,) = memory.notices.values()
        assert (notice.cause, notice.tasks) == ("completed:1", (("t1", 1), ("t2", 1)))
    else:
        assert now(memory)[0] == order and not memory.notices
    rows = memory.rows()
    memory.move("t4", "kept", SEED)  # what was uploading goes on, and finalizes nothing a second time
    assert memory.rows()[0] == rows[0] and memory.rows()[4] == rows[4]


@pytest.mark.parametrize("order", ORDER_STATUSES)
def test_asking_again_what_follows_decides_nothing_more(order: Any) -> None:
    """Level-triggered: twice, late, or by two at once is once."""
    runs = order in ORDER_OPEN
    memory = scene(order, "active" if runs else "completed", "uploading", *["pending"] * runs, target_count=1)
    memory.move("t0", "kept", SEED)
    decision = advance(memory._after("o", ("b",)), ("b",), notice_ids(SEED))
    assert decision.effects == () and decision.speech == ()


def test_the_last_open_task_of_a_batch_ends_it() -> None:
    memory = scene("in_progress", "active", "uploading", "completed", "cancelled", "failed")
    memory.move("t0", "kept", SEED)
    assert now(memory)[:2] == ("in_progress", "completed")
    memory = scene("in_progress", "active", "uploading", "cancelled")
    memory.move("t0", "upload_failed", SEED)
    assert now(memory)[:2] == ("in_progress", "active")  # nothing is completed: somebody should look


def test_a_notice_is_a_row_a_deadline_and_a_word() -> None:
    memory = scene("in_progress", "active", "in_progress")
    decision = decide(
        memory.view(oq.ChangeOrder(**ORDER, status="cancelled")), oq.ChangeOrder(**ORDER, status="cancelled")
    )
    memory.perform(decision)
    (notice,) = memory.notices.values()
    assert memory.armed == {("n", notice.notice_id)}
    assert decision.speech == (NodeNoticed("n", notice.notice_id),)
    assert notice.cause in NOTICE_CAUSES


# ---------------------------------------------------------------- all of them


def test_every_request_has_its_line_and_its_audit() -> None:
    bases = {oq.OrderRequest, oq.BatchRequest, oq.StationRequest, oq.CollectorRequest, Request}
    concrete = {c for c in vars(oq).values() if isinstance(c, type) and issubclass(c, Request)} - bases
    assert concrete == set(TABLE) | set(STATION_TABLE) == set(oq.BY_ORDER_OPERATORS)
    assert concrete <= set(ACTIONS)


@pytest.mark.parametrize("kind", sorted(TABLE, key=lambda k: k.__name__))
def test_an_order_that_is_not_there_is_not_found(kind: type[oq.OrderRequest]) -> None:
    more = {
        oq.CreateOrder: {"target_count": 1},
        oq.DispatchBatch: {"station_id": "st", "groups": (wish(1),)},
        oq.AdjustBatch: {"groups": (wish(1),)},
        oq.CompleteTasks: G,
    }
    base = B if issubclass(kind, oq.BatchRequest) else ORDER
    answer = Memory().do(kind(**base, **more.get(kind, {})))
    if kind is oq.CreateOrder:
        assert answer == Show("order", 201)
    else:
        code = "batch_not_found" if issubclass(kind, oq.BatchRequest) and kind is not oq.DispatchBatch else None
        assert isinstance(answer, Refuse) and answer.code == (code or "order_not_found")


def test_what_was_not_given_stays_so_on_its_way_to_an_actor() -> None:
    for request in (oq.ChangeOrder(**ORDER, name=None), oq.DispatchBatch(**B, station_id="st", groups=(wish(1),))):
        assert pickle.loads(pickle.dumps(request)) == request
    travelled = pickle.loads(pickle.dumps(oq.ChangeOrder(**ORDER, name=None)))
    assert travelled.target_count is UNSET and travelled.name is None


def test_where_requests_go() -> None:
    assert oq.CompleteTasks(**B, **G).addressee == "order/o"
    assert oq.DeleteStation(station_id="st", seed=SEED).addressee == "station/st"
    assert oq.DeleteCollector(collector_id="anna", seed=SEED).addressee == "collector/anna"
