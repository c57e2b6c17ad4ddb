"""Work orders for test_http.py: what stands there, a valid request of every route, and how each refusal is provoked.

Order `o` has room and the batch `b` (station `st`, group `sop`/`sub`, 3 tasks); its batch `xb` is cancelled. Of `fresh`
nothing has begun; `done` is completed (batch `db`), `off` cancelled (`ob`), `still` paused (`pb`). Station `st` has the
collector `c` and the node `n`; at `busy` (`cb`, `nb`) a task is ready; `unbound` (batch `lost`) has lost its pair to
`taker`. Collector `cf` and node `nf` are bound nowhere.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from actors.gateway.auth import hash_of
from actors.store.contract import Token
from tests.contract.judge import Case
from tests.gateway.house import House, eventually

GROUP: Final = {"sop_id": "sop", "subscene_id": "sub"}
NAMES: Final = {"sop_slug": "fold", "sop_version": 2, "scene_name": "Küche", "subscene_name": "table"}
TAGS: Final = frozenset({"orders", "batches", "stations"})
GOOD_ORDERS: Final[dict[str, Case]] = {
    "orders_create": Case("/v1/orders", {"name": "new", "target_count": 10, "quota_policy": "live"}),
    "orders_list": Case("/v1/orders", query={"status": "created", "q": "o", "limit": "1"}),
    "orders_show": Case("/v1/orders/o"),
    "orders_change": Case("/v1/orders/o", {"name": "renamed", "target_count": 50, "status": "paused"}),
    "orders_delete": Case("/v1/orders/fresh"),
    "orders_dispatch": Case(
        "/v1/orders/o/batches", {"station_id": "st", "groups": [{**GROUP, **NAMES, "quantity": 2, "params": {"n": 1}}]}
    ),
    "orders_batches": Case("/v1/orders/o/batches", query={"limit": "1"}),
    "orders_notices": Case("/v1/orders/off/notices", query={"limit": "1"}),
    "batches_list": Case("/v1/batches", query={"order_id": "o", "station_id": "st", "status": "pending", "limit": "1"}),
    "batches_show": Case("/v1/batches/b"),
    "batches_change": Case("/v1/batches/b", {"status": "cancelled"}),
    "batches_delete": Case("/v1/batches/b"),
    "batches_adjust": Case("/v1/batches/b/tasks", {"groups": [{**GROUP, "quantity": 5}]}),
    "batches_complete": Case("/v1/batches/b/complete-tasks", {**GROUP, "quantity": 2}),
    "batches_recall": Case("/v1/batches/b/recall"),
    "batches_handoff": Case("/v1/batches/b/groups/sop/sub/handoff"),
    "stations_create": Case(
        "/v1/stations",
        {"collector_id": "cf", "node_id": "nf", "name": "new", "node_type": {"name": "arm", "capabilities": {"a": 1}}},
    ),
    "stations_list": Case("/v1/stations", query={"limit": "1"}),
    "stations_show": Case("/v1/stations/st"),
    "stations_change": Case("/v1/stations/st", {"node_id": "nf", "name": None}),
    "stations_delete": Case("/v1/stations/taker"),
    "stations_bindings": Case("/v1/stations/st/bindings", query={"limit": "1"}),
    "collectors_create": Case("/v1/collectors", {"name": "new", "operator_id": "007"}),
    "collectors_list": Case("/v1/collectors", query={"limit": "1"}),
    "collectors_show": Case("/v1/collectors/c"),
    "collectors_change": Case("/v1/collectors/c", {"name": "renamed", "operator_id": None}),
    "collectors_delete": Case("/v1/collectors/cf"),
}


# batch → order, station, tasks
BATCHES: Final = {
    "b": ("o", "st", 3),
    "xb": ("o", "st", 1),
    "fb": ("fresh", "st", 1),
    "db": ("done", "st", 1),
    "ob": ("off", "st", 1),
    "pb": ("still", "st", 1),
    "lost": ("free", "unbound", 1),
    "busy-b": ("o", "busy", 1),
    "off-b": ("off", "busy", 1),
}


async def orders_in(house: House) -> None:
    """Makes what stands there. The node `n` is there already."""
    for node_id in ("nb", "nf", "nu"):
        await house.call("POST", "/v1/nodes", {"node_id": node_id})
    for collector_id in ("c", "cb", "cf", "cu"):
        await house.call("POST", "/v1/collectors", {"collector_id": collector_id, "name": f"{collector_id} of a name"})
    await _stations(house, st="c n", busy="cb nb", unbound="cu nu")
    for order_id, target in {"free": 9, "fresh": 9, "o": 9, "done": 1, "off": 9, "still": 9}.items():
        await house.call("POST", "/v1/orders", {"order_id": order_id, "target_count": target}, status=201)
    for batch_id, (order_id, station_id, quantity) in BATCHES.items():
        groups = [{**GROUP, **NAMES, "quantity": quantity}]
        asked = {"batch_id": batch_id, "station_id": station_id, "groups": groups}
        await house.call("POST", f"/v1/orders/{order_id}/batches", asked, status=201)
    await _stations(house, taker="cu nu")
    await house.call("POST", "/v1/batches/db/complete-tasks", GROUP)
    await house.call("PATCH", "/v1/batches/xb", {"status": "cancelled"})
    await house.call("PATCH", "/v1/orders/still", {"status": "paused"})
    await _under_way(house)
    await house.call("PATCH", "/v1/orders/off", {"status": "cancelled"})
    for name, station_id in (("gone", "gone"), ("collector", "st")):
        token = Token(f"tok_{name}", "collector", station_id=station_id)
        await house.worker.write(lambda store, n=name, t=token: store.put_token(hash_of(f"t-{n}"), t))  # type: ignore[misc]


async def _stations(house: House, **pairs: str) -> None:
    for station_id, pair in pairs.items():
        collector_id, node_id = pair.split()
        made = {"station_id": station_id, "collector_id": collector_id, "node_id": node_id}
        await house.call("POST", "/v1/stations", made, status=201)


async def _under_way(house: House) -> None:
    """A task of `off` is set up at the recorder of `busy` and taken back, which its node is told; one of `o` stays."""
    recorder = await house.node("nb", "recorder", reported={"state": "idle"})
    for batch_id in ("off-b", "busy-b"):
        task_id = await task_of(house, batch_id)
        await house.call("POST", f"/v1/tasks/{task_id}/config", {})
        await recorder.hear("task", action="config")
        await recorder.say({"type": "state", "reported": {"state": "ready", "task_id": task_id, "attempt": 1}})
        await eventually(lambda t=task_id: _is_ready(house, t))  # type: ignore[misc]
        if batch_id == "off-b":
            await house.call("PATCH", "/v1/batches/off-b", {"status": "cancelled"})
            await recorder.hear("task", action="cancel")
            await recorder.say({"type": "state", "reported": {"state": "idle"}})
            await eventually(lambda: _let_go(house))


async def _let_go(house: House) -> bool:
    (notice,) = (await house.call("GET", "/v1/orders/off/notices"))["items"]
    return bool(notice["settled"])


async def task_of(house: House, batch_id: str) -> str:
    page = await house.call("GET", "/v1/tasks", params={"batch_id": batch_id})
    return str(page["items"][0]["task_id"])


async def _is_ready(house: House, task_id: str) -> bool:
    found = await house.call("GET", f"/v1/tasks/{task_id}")
    return bool(found["status"] == "ready")


# ---------------------------------------------------------------- problems

Change = Callable[[House, str, Case], Awaitable[Case]]


@dataclass(frozen=True)
class By:
    """How a code is provoked: on these routes so, elsewhere as `other` says."""

    routes: dict[str, Callable[[Case], Case]]
    other: Callable[[Case], Case] | None = None

    async def __call__(self, house: House, name: str, case: Case) -> Case:
        change = self.routes.get(name, self.other)
        assert change is not None, f"nobody says how {name} comes to this"
        return change(case)


def _at(path: str) -> Callable[[Case], Case]:
    return lambda case: case.but(path=path)


def _with(**body: Any) -> Callable[[Case], Case]:
    return lambda case: case.but(body={**case.body, **body})


def _nosuch(case: Case) -> Case:
    parts = case.path.split("/")
    parts[3] = "nosuch"
    return case.but(path="/".join(parts))


def _groups(quantity: int, *more: dict[str, Any], **names: str) -> Callable[[Case], Case]:
    return _with(groups=[{**GROUP, **names, "quantity": quantity}, *more])


async def _paused(house: House, name: str, case: Case) -> Case:
    if name == "tasks_act":
        return case.but(path=f"/v1/tasks/{await task_of(house, 'pb')}/config")
    if name == "orders_dispatch":
        return case.but(path="/v1/orders/still/batches")
    return case.but(path=case.path.replace("/b/", "/pb/"))


TWICE: Final = {**GROUP, "quantity": 1}
PROVOKED_ORDERS: Final[dict[str, Change]] = {
    "order_not_found": By({}, _nosuch),
    "batch_not_found": By({}, _nosuch),
    "group_not_found": By(
        {"batches_handoff": _at("/v1/batches/b/groups/sop/other/handoff")}, lambda case: _with(sop_id="other")(case)
    ),
    "station_not_found": By(
        {
            "orders_dispatch": _with(station_id="nosuch"),
            "batches_complete": lambda case: case.but(token="t-gone"),
        },
        _nosuch,
    ),
    "collector_not_found": By(
        {"stations_create": _with(collector_id="nosuch"), "stations_change": _with(collector_id="nosuch")}, _nosuch
    ),
    "order_exists": By({}, _with(order_id="o")),
    "batch_exists": By({}, _with(batch_id="b")),
    "station_exists": By({}, _with(station_id="st")),
    "collector_exists": By({}, _with(collector_id="c")),
    "order_completed": By(
        {"orders_dispatch": _at("/v1/orders/done/batches"), "batches_adjust": _at("/v1/batches/db/tasks")}
    ),
    "order_terminal": By(
        {
            "orders_dispatch": _at("/v1/orders/off/batches"),
            "orders_change": _at("/v1/orders/off"),
            "batches_adjust": _at("/v1/batches/ob/tasks"),
        }
    ),
    "order_paused": _paused,
    "order_conflict": By({}, lambda case: case.but(body={"status": "in_progress"})),
    "target_below_assigned": By({}, lambda case: case.but(body={"target_count": 1})),
    "quota_exceeded": By({}, _groups(500)),
    "too_many_tasks": By({}, _groups(1001)),
    "duplicate_group": By({}, _groups(1, TWICE)),
    "station_not_bound": By(
        {"orders_dispatch": _with(station_id="unbound"), "batches_adjust": _at("/v1/batches/lost/tasks")}
    ),
    "batch_terminal": By(
        {
            "batches_change": _at("/v1/batches/db"),
            "batches_recall": _at("/v1/batches/db/recall"),
            "batches_adjust": _at("/v1/batches/xb/tasks"),
            "batches_complete": _at("/v1/batches/xb/complete-tasks"),
        }
    ),
    "below_begun": By({}, lambda case: _groups(0)(case.but(path="/v1/batches/db/tasks"))),
    "too_few_pending": By({}, _with(quantity=4)),
    "not_your_station": By({}, lambda case: case.but(path=case.path.replace("/b/", "/busy-b/"), token="t-collector")),
    "has_begun": By({"orders_delete": _at("/v1/orders/done"), "batches_delete": _at("/v1/batches/db")}),
    "station_busy": By(
        {
            "stations_create": _with(node_id="nb"),
            "stations_change": lambda case: case.but(path="/v1/stations/busy"),
            "stations_delete": _at("/v1/stations/st"),
        }
    ),
    "collector_bound": By({}, _at("/v1/collectors/c")),
}
