"""The commands about orders that are more than one request and a line: groups as given, completions, the hand-off."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, Final

from actors import show, show_orders
from actors.http_client import Client, Problem
from actors.operate_nodes import read_json
from actors.protocol.codes import EXIT_OK
from actors.protocol.ids import ulid

BACK_WITHIN_S: Final = 30.0  # a service that dies under a completion is back in seconds, and then knows our key
BATCHES_SHOWN: Final = 20  # of one order; `holdfast batch list --order ID` has them all


async def show_order(client: Client, order_id: str, *, as_json: bool) -> int:
    """The order; for people with its batches."""
    found = await client.get(f"/v1/orders/{order_id}")
    batches = [] if as_json else await client.listed(f"/v1/orders/{order_id}/batches", {}, BATCHES_SHOWN)
    show.data(found, as_json, show_orders.order(found, batches))
    return EXIT_OK


def wishes(groups: Sequence[dict[str, Any]], text: str | None) -> list[Any]:
    """The groups of the options and those of the JSON, as the service takes them. Raises Problem (usage)."""
    more = read_json(text, "--groups")
    if more is not None and not isinstance(more, list):
        detail, hint = "--groups is no list", """Quote it: '[{"sop_id": "a", "subscene_id": "b", "quantity": 3}]'."""
        raise Problem({"status": 400, "code": "bad_json", "detail": detail, "hint": hint})
    return [*groups, *(more or [])]


async def dispatch(
    client: Client,
    order_id: str,
    station_id: str,
    groups: Sequence[dict[str, Any]],
    groups_json: str | None,
    *,
    batch_id: str | None,
    key: str | None,
    as_json: bool,
) -> int:
    body: dict[str, Any] = {"station_id": station_id, "groups": wishes(groups, groups_json)}
    made = await client.post(
        f"/v1/orders/{order_id}/batches", body | ({"batch_id": batch_id} if batch_id else {}), key=key
    )
    show.data(made, as_json, made["batch_id"])
    return EXIT_OK


async def adjust(
    client: Client,
    batch_id: str,
    groups: Sequence[dict[str, Any]],
    groups_json: str | None,
    *,
    key: str | None,
    as_json: bool,
) -> int:
    told = await client.post(f"/v1/batches/{batch_id}/tasks", {"groups": wishes(groups, groups_json)}, key=key)
    show.data(told, as_json, show_orders.adjusted(told))
    return EXIT_OK


async def complete(
    client: Client, batch_id: str, sop_id: str, subscene_id: str, quantity: int, *, key: str | None, as_json: bool
) -> int:
    """The key is made here, before the first try: a service that dies under us is asked again for this very
    completion, never for a second one."""
    body = {"sop_id": sop_id, "subscene_id": subscene_id, "quantity": quantity}
    told = await client.post(
        f"/v1/batches/{batch_id}/complete-tasks", body, key=key or ulid(), back_within_s=BACK_WITHIN_S
    )
    show.data(told, as_json, show_orders.completed(told))
    return EXIT_OK


async def handoff(client: Client, batch_id: str, sop_id: str, subscene_id: str) -> int:
    """Its bytes and nothing else; at a terminal, a line end behind them."""
    line = await client.get_text(f"/v1/batches/{batch_id}/groups/{sop_id}/{subscene_id}/handoff")
    sys.stdout.buffer.write(line.encode() + (b"\n" if sys.stdout.isatty() else b""))
    sys.stdout.flush()
    return EXIT_OK
