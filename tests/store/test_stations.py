"""Stations and collectors over the real store: who and what works where, and that work under way keeps its node."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.law.orders import requests as oq
from actors.protocol import order_resources as resources
from actors.protocol.errors import HoldfastError
from actors.protocol.ids import ulid
from actors.store.contract import StationFilter
from tests.order_world import OrderWorld, judged, wish

# What /v1/me says of the token itself.
TOKEN = dict.fromkeys(("session_id", "node_id", "expires_at_ms")) | {
    "token_id": "t",
    "scope": "collector",
    "station_id": "st",
}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[OrderWorld]:
    yield from judged(tmp_path)


def versions(world: OrderWorld, station_id: str = "st") -> list[tuple[int, str, str, bool]]:
    items = world.store.bindings(station_id, 50, None).items
    assert all(resources.BindingResource.model_validate(b) for b in items)
    return [(b["version"], b["collector_id"], b["node_id"], b["ended_at_ms"] is None) for b in items]


def test_a_station_is_made_with_its_first_binding(world: OrderWorld) -> None:
    made = world.station(name="Kitchen", node_type_name="arm", capabilities={"requires_axon": False}, by="tok")
    assert made.status == 201 and resources.StationResource.model_validate(made.body)
    assert made.body == world.store.station("st")
    assert made.body["node_type"] == {"name": "arm", "capabilities": {"requires_axon": False}}
    assert versions(world) == [(1, "anna", "n", True)]
    assert world.store.bindings("st", 1, None).items[0]["by"] == "tok"
    assert world.refused(world.station()) == "station_exists"
    assert world.store.collector("anna")["station_id"] == "st"


def test_a_station_needs_a_collector_and_a_node_that_there_are(world: OrderWorld) -> None:
    world.make()
    world.do(oq.CreateCollector(collector_id="anna", seed=ulid(), name="Anna"))
    wanted = {"station_id": "st", "seed": ulid()}
    assert world.refused(world.do(oq.CreateStation(**wanted, collector_id="x", node_id="n"))) == "collector_not_found"
    assert world.refused(world.do(oq.CreateStation(**wanted, collector_id="anna", node_id="x"))) == "node_not_found"
    assert world.refused(world.bind("none", node_id="n")) == "station_not_found"
    with pytest.raises(HoldfastError, match="station_not_found"):
        world.store.station("st")


def test_a_new_binding_supersedes_and_the_old_pair_may_come_back(world: OrderWorld) -> None:
    world.station()
    world.station("st2", "bert", "m")
    assert world.bind(collector_id="anna", node_id="n").answer.changed is False  # type: ignore[union-attr]
    world.bind(node_id="m")
    assert versions(world) == [(2, "anna", "m", True), (1, "anna", "n", False)]
    shown = world.store.station("st2")  # its node was taken from it
    assert (shown["collector_id"], shown["node_id"], shown["version"]) == (None, None, 1)
    assert resources.StationResource.model_validate(shown)
    assert world.refused(world.bind("st2", collector_id="bert")) == "bad_request"
    world.bind(node_id="n")
    world.bind("st2", collector_id="bert", node_id="m")
    assert versions(world) == [(3, "anna", "n", True), (2, "anna", "m", False), (1, "anna", "n", False)]
    assert versions(world, "st2") == [(2, "bert", "m", True), (1, "bert", "m", False)]
    page = world.store.bindings("st", 2, None)
    assert [b["version"] for b in world.store.bindings("st", 2, page.next_cursor).items] == [1]


def test_waiting_tasks_follow_their_station_to_its_new_node(world: OrderWorld) -> None:
    first, *_ = world.planned(3)
    world.complete(1)
    world.make("m")
    world.bind(node_id="m")
    nodes = [world.shown(task_id)["node_id"] for task_id in world.task_ids()]
    assert nodes == ["n", "m", "m"] and world.shown(first)["status"] == "completed"


def test_a_node_is_not_taken_from_work_that_is_under_way(world: OrderWorld) -> None:
    first, *_ = world.planned(3)
    world.device()
    world.recording_of(first)
    world.make("m")
    busy = ("station_busy", {"task_ids": [first]})
    assert world.code(world.bind(node_id="m")) == busy
    # Nor by another station, whether it wants the node or the collector.
    world.station("st2", "bert", "m")
    assert world.code(world.bind("st2", node_id="n")) == busy
    assert world.code(world.bind("st2", collector_id="anna")) == busy
    world.do(oq.CreateCollector(collector_id="cleo", seed=ulid(), name="Cleo"))
    assert world.bind(collector_id="cleo").status == 200  # another collector at the same node
    world.act("finish", first)
    assert world.code(world.bind(node_id="m")) == busy  # uploading
    world.say("idle")
    world.upload("uploaded", task_id=first)
    assert world.bind(node_id="m").status == 200


def test_nothing_begins_where_the_station_is_not(world: OrderWorld) -> None:
    first, *_ = world.planned(2)
    world.device()
    world.station("st2", "anna", "m")  # Anna leaves; the first station is unbound
    assert world.refusal(world.act("config", first)) == ("task_conflict", "station_unbound")
    world.do(oq.CreateCollector(collector_id="bert", seed=ulid(), name="Bert"))
    world.bind(collector_id="bert", node_id="n")
    assert world.act("config", first).status == 202


def test_a_station_goes_when_it_has_nothing_to_do(world: OrderWorld) -> None:
    world.planned(2)
    request = oq.DeleteStation(station_id="st", seed=ulid())
    assert world.code(world.do(request)) == ("station_busy", {"open_batches": ["b"]})
    assert world.code(world.do(oq.DeleteCollector(collector_id="anna", seed=ulid()))) == (
        "collector_bound",
        {"station_id": "st"},
    )
    world.recall()
    assert world.do(oq.DeleteStation(station_id="st", seed=ulid())).status == 204
    assert world.refused(world.do(oq.DeleteStation(station_id="st", seed=ulid()))) == "station_not_found"
    assert world.refused(world.complete(station_id="st")) == "station_not_found"
    assert world.do(oq.DeleteCollector(collector_id="anna", seed=ulid())).status == 204
    assert world.refused(world.do(oq.DeleteCollector(collector_id="anna", seed=ulid()))) == "collector_not_found"


def test_a_collector_is_renamed_and_listed(world: OrderWorld) -> None:
    made = world.do(oq.CreateCollector(collector_id="anna", seed=ulid(), name="Anna", operator_id="op-1"))
    assert made.status == 201 and resources.CollectorResource.model_validate(made.body)
    assert world.refused(world.do(oq.CreateCollector(collector_id="anna", seed=ulid(), name="A"))) == "collector_exists"
    changed = world.do(oq.ChangeCollector(collector_id="anna", seed=ulid(), name="Ann", operator_id=None))
    assert changed.body is not None and (changed.body["name"], changed.body["operator_id"]) == ("Ann", None)
    assert world.refused(world.do(oq.ChangeCollector(collector_id="x", seed=ulid(), name="A"))) == "collector_not_found"
    world.do(oq.CreateCollector(collector_id="bert", seed=ulid(), name="Bert"))
    page = world.store.collectors(1, None)
    assert [c["collector_id"] for c in page.items] == ["bert"]
    assert [c["collector_id"] for c in world.store.collectors(1, page.next_cursor).items] == ["anna"]


def test_stations_are_listed_by_who_and_what_works_there_now(world: OrderWorld) -> None:
    world.station()
    world.station("st2", "bert", "m")

    def listed(**wanted: str) -> list[str]:
        return [s["station_id"] for s in world.store.stations(StationFilter(**wanted)).items]

    assert listed() == ["st2", "st"] and listed(collector_id="anna") == ["st"] and listed(node_id="m") == ["st2"]
    world.bind(node_id="m")
    assert listed(node_id="m") == ["st"] and listed(collector_id="bert") == []


def test_a_collector_is_told_where_it_works_and_with_what(world: OrderWorld) -> None:
    world.station()
    me = world.store.me_of_station("st")
    assert resources.Me.model_validate(TOKEN | me)
    assert me["node"] == {"node_id": "n", "name": None, "connected": False}
    assert me["node_type"] == {"name": None, "capabilities": {"requires_axon": True}}
    world.plug("con", role="recorder", reported="idle", capabilities={"arms": 2, "requires_axon": False})
    assert world.store.me_of_station("st")["node_type"]["capabilities"] == {"arms": 2, "requires_axon": False}
    assert world.store.me_of_station("st")["node"]["connected"] is True
    world.bind(node_type_name="phone", capabilities={"camera": True})
    me = world.store.me_of_station("st")
    assert me["node_type"] == {"name": "phone", "capabilities": {"requires_axon": True, "camera": True}}
    world.station("st2", "anna", "m")
    me = world.store.me_of_station("st")
    assert resources.Me.model_validate(TOKEN | me) and (me["collector"], me["node"]) == (None, None)
    with pytest.raises(HoldfastError, match="station_not_found"):
        world.store.me_of_station("none")


def test_a_rebound_station_takes_its_waiting_batch_along_to_the_device(world: OrderWorld) -> None:
    world.planned(2, target=2)
    world.make("m")
    world.bind(node_id="m")
    world.plug("rec_m", "m", "recorder", reported="idle")
    world.plug("tra_m", "m", "transfer", uploads=())
    for task in world.task_ids():
        world.recording_of(task, "rec_m")
        world.act("finish", task)
        world.say("idle", "rec_m")
        world.upload("uploaded", "tra_m", task_id=task)
    assert world.shown_order()["status"] == "completed"
    assert world.dispatch(wish(1), batch_id="b2").status != 201
