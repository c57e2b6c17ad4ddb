"""Decisions about orders stand on the rows of their own transaction (G5): one that does not is rolled back whole, and
what must be once is once by the file's own word, too."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from actors.law.orders import requests as oq
from actors.law.orders.decide import decide
from actors.law.orders.effects import InsertNotice, OrderDecision
from actors.protocol.errors import HoldfastError
from actors.protocol.ids import ulid
from actors.store import order_rows
from tests.order_world import OrderWorld, wish


@pytest.fixture
def world(tmp_path: Path) -> Iterator[OrderWorld]:
    w = OrderWorld(tmp_path)
    yield w
    w.check()
    w.close()


def perform(world: OrderWorld, decision: OrderDecision) -> None:
    """As a program would that had decided on rows of an earlier transaction."""
    world.store._alone(lambda: world.store._perform_order(decision))


def stale(world: OrderWorld, request: oq.OrderRequest) -> OrderDecision:
    """Decided now; performed by the test when the world has moved on."""
    return decide(world.store._order_view(request), request)


def everything(world: OrderWorld) -> list[Any]:
    tables = ("orders", "batches", "batch_groups", "tasks", "order_notices", "deadlines")
    return [world.store._c.execute(f"select * from {table} order by 1, 2, 3").fetchall() for table in tables]


def test_an_order_that_somebody_else_has_ended_is_not_moved_by_an_old_decision(world: OrderWorld) -> None:
    world.order()
    old = stale(world, oq.ChangeOrder(order_id="o", seed=ulid(), status="paused"))
    world.change(status="cancelled")
    before = everything(world)
    with pytest.raises(HoldfastError, match="order o is not created"):
        perform(world, old)
    assert everything(world) == before


def test_an_order_is_not_completed_twice_by_two_that_both_saw_it_open(world: OrderWorld) -> None:
    world.planned(3)
    world.device()
    world.recording_of(world.task_ids()[0])
    world.complete(1)
    request = oq.ChangeOrder(order_id="o", seed=ulid(), target_count=1)
    first, second = stale(world, request), stale(world, replace(request, seed=ulid()))
    perform(world, first)
    before = everything(world)
    with pytest.raises(HoldfastError):
        perform(world, second)
    assert everything(world) == before
    assert len(world.notices()) == 1 and world.shown_order()["status"] == "completed"


def test_a_batch_that_is_gone_takes_no_step_and_what_was_counted_must_still_be_so(world: OrderWorld) -> None:
    world.planned(3)
    cancel = stale(world, oq.ChangeBatch(order_id="o", batch_id="b", seed=ulid()))
    less = stale(world, oq.AdjustBatch(order_id="o", batch_id="b", seed=ulid(), groups=(wish(0),)))
    gone = stale(world, oq.DeleteBatch(order_id="o", batch_id="b", seed=ulid()))
    world.complete(1)
    before = everything(world)
    for old in (cancel, less):
        with pytest.raises(HoldfastError):
            perform(world, old)
        assert everything(world) == before
    world.adjust(wish(2))
    with pytest.raises(HoldfastError, match="had 2 tasks, not 3"):
        perform(world, gone)


def test_a_second_notice_for_the_same_cause_and_device_is_a_mistake_of_ours(world: OrderWorld) -> None:
    world.planned(3)
    world.device()
    world.recording_of(world.task_ids()[0])
    world.change(status="cancelled")
    (row,) = world.store._c.execute(order_rows.NOTICES.select("")).fetchall()
    again = replace(order_rows.NOTICES.read(row), notice_id="ntc_another")
    with pytest.raises(Exception, match="UNIQUE constraint failed"):
        perform(world, OrderDecision(None, (InsertNotice(again),)))  # type: ignore[arg-type]
    assert len(world.notices()) == 1


def test_a_device_in_two_stations_is_a_mistake_of_ours(world: OrderWorld) -> None:
    world.station()
    world.station("st2", "bert", "m")
    with pytest.raises(Exception, match="UNIQUE constraint failed"):
        world.store._c.execute("update station_bindings set node_id = 'n' where station_id = 'st2'")


def test_two_that_complete_at_once_from_two_processes_complete_what_there_is(world: OrderWorld) -> None:
    world.planned(5, target=5)
    other = world.another_process()
    done: list[str] = []
    for store in (world.store, other) * 4:
        request = oq.CompleteTasks(order_id="o", batch_id="b", seed=ulid(), sop_id="sop", subscene_id="sub")
        outcome = store.transact(request)
        done += [task["task_id"] for task in (outcome.body or {"tasks": []})["tasks"]]
    other.close()
    assert len(done) == len(set(done)) == 5 and world.shown_order()["status"] == "completed"
