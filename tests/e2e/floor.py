"""A production floor beside a real service: stations with their collectors, and callers who ask until they know.

A caller repeats a request whose answer it did not get, with the same key, as a phone in a hall with bad reception does;
what it gets in the end is its answer. Everything goes over the public HTTP, each with the token that it would have.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import aiohttp

from actors.protocol.ids import ulid
from tests.e2e.service import Service

PATIENCE_S = 60.0  # a killed gateway is back in one second, on a busy machine in ten
UNKNOWN = frozenset({429, 500, 502, 503, 504})  # says nothing about what became of the request


@dataclass(frozen=True)
class Station:
    """`token`: its collector's, for this station and nothing else."""

    station_id: str
    node_id: str
    collector_id: str
    token: str


def make_station(service: Service, name: str, node_id: str | None = None) -> Station:
    """A node (made here unless one is named), a collector, a station that binds them, the collector's token."""
    if node_id is None:
        node_id = f"{name}-node"
        service.patient("POST", "/v1/nodes", {"node_id": node_id})
    collector = service.patient("POST", "/v1/collectors", {"collector_id": f"{name}-col", "name": f"C. {name}"})
    bound = {"station_id": f"{name}-st", "collector_id": collector["collector_id"], "node_id": node_id}
    made = service.patient("POST", "/v1/stations", bound)
    token = service.patient("POST", "/v1/tokens", {"scope": "collector", "station_id": made["station_id"]})
    return Station(made["station_id"], node_id, collector["collector_id"], token["token"])


def make_order(service: Service, order_id: str, target: int, **fields: Any) -> Any:
    return service.patient("POST", "/v1/orders", {"order_id": order_id, "target_count": target, **fields})


def group(quantity: int, sop_id: str = "pick", subscene_id: str = "sink", **fields: Any) -> dict[str, Any]:
    return {"sop_id": sop_id, "subscene_id": subscene_id, "quantity": quantity, **fields}


def dispatch(service: Service, order_id: str, batch_id: str, station: Station, *groups: Mapping[str, Any]) -> Any:
    body = {"batch_id": batch_id, "station_id": station.station_id, "groups": list(groups)}
    return service.patient("POST", f"/v1/orders/{order_id}/batches", body)


class Caller:
    """One program with one token. `ask` comes back with an answer; how often it had to ask is in `repeats`."""

    def __init__(self, service: Service, token: str | None = None) -> None:
        self.service, self.token = service, token or service.token
        self.repeats = 0
        self.took_s: list[float] = []

    async def __aenter__(self) -> Self:
        self.http = aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {self.token}"}, timeout=aiohttp.ClientTimeout(total=15, connect=5)
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.close()

    async def ask(self, method: str, path: str, body: Any = None, *, key: str | None = None) -> tuple[int, Any]:
        headers = {"Idempotency-Key": key or ulid()} if method == "POST" else {}
        end = time.monotonic() + PATIENCE_S
        while True:
            began = time.monotonic()
            try:
                async with self.http.request(method, self.service.url + path, json=body, headers=headers) as answer:
                    told = await answer.json(content_type=None) if answer.status != 204 else None
                    if answer.status not in UNKNOWN:
                        self.took_s.append(time.monotonic() - began)
                        return answer.status, told
                    why: object = (answer.status, told)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                why = error
            assert time.monotonic() < end, f"{method} {path}: no answer within {PATIENCE_S} s ({why!r})"
            self.repeats += 1
            await asyncio.sleep(0.1)

    async def get(self, path: str) -> Any:
        status, told = await self.ask("GET", path)
        assert status == 200, (path, status, told)
        return told

    async def all(self, path: str) -> list[Any]:
        """Every item of a list, page by page."""
        items: list[Any] = []
        cursor, sign = "", "&" if "?" in path else "?"
        while True:
            page = await self.get(f"{path}{sign}limit=100" + (f"&cursor={cursor}" if cursor else ""))
            items += page["items"]
            cursor = page["next_cursor"]
            if not cursor:
                return items

    async def complete(
        self,
        batch_id: str,
        quantity: int = 1,
        *,
        sop_id: str = "pick",
        subscene_id: str = "sink",
        key: str | None = None,
    ) -> tuple[int, Any]:
        body = {"quantity": quantity, "sop_id": sop_id, "subscene_id": subscene_id}
        return await self.ask("POST", f"/v1/batches/{batch_id}/complete-tasks", body, key=key)


# ---------------------------------------------------------------- what must be true of what is shown

BATCH_OPEN = ("pending", "active")
OPEN = ("pending", "ready", "in_progress", "uploading")
RELEASED = ("failed", "cancelled")


def counted(order: Mapping[str, Any]) -> int:
    """What the quota counts, by the order's policy."""
    released = sum(order["tasks"].get(status, 0) for status in RELEASED) if order["quota_policy"] == "live" else 0
    return int(order["task_count"]) - released


def check_order(order: Mapping[str, Any]) -> None:
    """One snapshot of an order: whatever happened at once, it adds up."""
    tasks, status, target = order["tasks"], order["status"], order["target_count"]
    assert sum(tasks.values()) == order["task_count"], order
    assert tasks.get("completed", 0) == order["completed_count"], order
    # A target may be lowered to what is completed: the order ends, and what the quota counted beyond it is cancelled.
    assert counted(order) <= target or status == "completed", order
    assert order["remaining_assignable"] == max(0, target - counted(order)), order
    if status == "completed":
        assert order["completed_count"] >= target and order["completed_at_ms"] is not None, order
        assert not any(tasks.get(one) for one in ("pending", "ready", "in_progress")), order
    elif status == "cancelled":
        assert order["cancelled_at_ms"] is not None and not any(tasks.get(one) for one in OPEN), order
    else:
        assert order["completed_count"] < target, order
    if status == "created":
        assert order["completed_count"] == 0, order


def check_batch(batch: Mapping[str, Any]) -> None:
    tasks, status = batch["tasks"], batch["status"]
    assert sum(tasks.values()) == batch["task_count"] == sum(g["quantity"] for g in batch["groups"]), batch
    assert tasks.get("completed", 0) == batch["completed_count"] == sum(g["completed"] for g in batch["groups"]), batch
    for one in batch["groups"]:
        assert sum(one[name] for name in (*OPEN, "completed", *RELEASED)) == one["quantity"], one
    if status == "cancelled":
        assert not any(tasks.get(one) for one in OPEN), batch
    if status in ("completed", "recalled"):
        assert not any(tasks.get(one) for one in ("pending", "ready")), batch


def check_completed(told: Mapping[str, Any], quantity: int) -> None:
    """The answer to a completion, by itself."""
    assert (told["requested_count"], told["completed_count"], told["created_count"]) == (quantity, quantity, 0), told
    assert len({task["task_id"] for task in told["tasks"]}) == quantity
    assert all(task["status"] == "completed" and task["batch_id"] == told["batch_id"] for task in told["tasks"])
    assert (
        told["group"]["total"]
        == told["group"]["quantity"]
        == sum(told["group"][name] for name in (*OPEN, "completed", *RELEASED))
    ), told
    check_batch(told["batch"])


def check_notices(notices: Iterable[Mapping[str, Any]]) -> None:
    """One per device and cause; and a cause is one event of one order's life."""
    rows = list(notices)
    assert len({(n["order_id"], n["cause"], n["node_id"]) for n in rows}) == len(rows), rows
