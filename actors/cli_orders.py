"""`holdfast order …` and `holdfast batch …`: imported when one of them is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from actors.cli_base import CONTEXT, ID, LIMIT, Group, Where, client_options
from actors.protocol.codes import EXIT_OK
from actors.protocol.ids import valid_id
from actors.protocol.order_codes import BATCH_STATUSES, ORDER_STATUSES, QUOTA_POLICIES

if TYPE_CHECKING:
    from actors.http_client import Client

COUNT = click.IntRange(1)
KEY = click.option("--key", help="A repeat with the same key is the same request, answered as the first.")


class GroupType(click.ParamType[dict[str, Any]]):
    """SOP_ID/SUBSCENE_ID=QUANTITY; what else a group may have is written as JSON (`--groups`)."""

    name = "sop/subscene=n"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, Any]:
        if isinstance(value, dict):
            return value
        which, equals, quantity = str(value).rpartition("=")
        sop_id, slash, subscene_id = which.partition("/")
        ids = slash and valid_id(sop_id) and valid_id(subscene_id)
        if not (equals and ids and quantity.isascii() and quantity.isdigit()):
            self.fail(f"{value!r} is not SOP_ID/SUBSCENE_ID=QUANTITY", param, ctx)
        return {"sop_id": sop_id, "subscene_id": subscene_id, "quantity": int(quantity)}


GROUP = click.option("--group", "-g", "groups", multiple=True, type=GroupType(), help="Any number of them.")
GROUPS_JSON = click.option("--groups", "groups_json", metavar="JSON", help="A list of groups, with names; - is stdin.")


@click.group(cls=Group, context_settings=CONTEXT)
def order() -> None:
    """Work orders: so many recordings, in batches that stations carry out."""


@order.command("create", context_settings=CONTEXT)
@click.argument("target", type=COUNT)
@click.argument("order_id", type=ID, required=False)
@click.option("--name", help="For people.")
@click.option("--quota", "quota_policy", type=click.Choice(list(QUOTA_POLICIES)), help="[default: rows]")
@KEY
@client_options
def order_create(where: Where, target: int, key: str | None, as_json: bool, **more: str | None) -> None:
    """A new order for TARGET completed tasks; prints its id."""

    async def work(client: Client) -> int:
        from actors import show

        body = {"target_count": target, **{name: value for name, value in more.items() if value is not None}}
        made = await client.post("/v1/orders", body, key=key)
        show.data(made, as_json, made["order_id"])
        return EXIT_OK

    where.run(work)


@order.command("list", context_settings=CONTEXT)
@click.option("--status", type=click.Choice(list(ORDER_STATUSES)))
@click.option("--query", "-q", help="In ids and names.")
@LIMIT
@client_options
def order_list(where: Where, status: str | None, query: str | None, limit: int, as_json: bool) -> None:
    """Newest first."""

    async def work(client: Client) -> int:
        from actors import show, show_orders

        items = await client.listed("/v1/orders", {"status": status, "q": query}, limit)
        rows = [show_orders.order_row(one) for one in items]
        show.data({"items": items}, as_json, show.table(rows, show_orders.ORDER_HEAD))
        return EXIT_OK

    where.run(work)


@order.command("show", context_settings=CONTEXT)
@click.argument("order_id", type=ID)
@client_options
def order_show(where: Where, order_id: str, as_json: bool) -> None:
    """One order: how far it is, and its batches."""

    async def work(client: Client) -> int:
        from actors.operate_orders import show_order

        return await show_order(client, order_id, as_json=as_json)

    where.run(work)


@order.command("update", context_settings=CONTEXT)
@click.argument("order_id", type=ID)
@click.option("--name")
@click.option("--target", "target_count", type=COUNT, help="Raised above what is completed, it reopens the order.")
@client_options
def order_update(where: Where, order_id: str, name: str | None, target_count: int | None, as_json: bool) -> None:
    """Another name, another target."""
    change = {k: v for k, v in {"name": name, "target_count": target_count}.items() if v is not None}
    if not change:
        raise click.UsageError("nothing to change: --name, or --target")
    _change(where, order_id, change, as_json)


@order.command("pause", context_settings=CONTEXT)
@click.argument("order_id", type=ID)
@client_options
def order_pause(where: Where, order_id: str, as_json: bool) -> None:
    """Nothing new begins; what runs goes on and counts."""
    _change(where, order_id, {"status": "paused"}, as_json)


@order.command("resume", context_settings=CONTEXT)
@click.argument("order_id", type=ID)
@client_options
def order_resume(where: Where, order_id: str, as_json: bool) -> None:
    """Go on with a paused order."""
    _change(where, order_id, {"status": "in_progress"}, as_json)


@order.command("cancel", context_settings=CONTEXT)
@click.argument("order_id", type=ID)
@client_options
def order_cancel(where: Where, order_id: str, as_json: bool) -> None:
    """End it, with everything that is open of it.

    Its open batches and tasks are cancelled; devices that hold one are told, and drop what they recorded.
    """
    _change(where, order_id, {"status": "cancelled"}, as_json)


def _change(where: Where, order_id: str, change: dict[str, Any], as_json: bool) -> None:
    async def work(client: Client) -> int:
        from actors import show, show_orders

        changed = await client.patch(f"/v1/orders/{order_id}", change)
        show.data(changed, as_json, show_orders.order(changed))
        return EXIT_OK

    where.run(work)


@order.command("delete", context_settings=CONTEXT)
@click.argument("order_id", type=ID)
@client_options
def order_delete(where: Where, order_id: str, as_json: bool) -> None:
    """As if it never was; only while nothing of it has begun. Otherwise `cancel`."""

    async def work(client: Client) -> int:
        from actors import show

        await client.delete(f"/v1/orders/{order_id}")
        show.data({"order_id": order_id, "deleted": True}, as_json, f"deleted {order_id}")
        return EXIT_OK

    where.run(work)


@order.command("dispatch", context_settings=CONTEXT)
@click.argument("order_id", type=ID)
@click.argument("station_id", type=ID)
@click.option("--batch-id", type=ID)
@GROUP
@GROUPS_JSON
@KEY
@client_options
def order_dispatch(
    where: Where,
    order_id: str,
    station_id: str,
    batch_id: str | None,
    groups: tuple[dict[str, Any], ...],
    groups_json: str | None,
    key: str | None,
    as_json: bool,
) -> None:
    """A batch of tasks for a station, all or nothing; prints its id."""
    _needs_groups(groups, groups_json)

    async def work(client: Client) -> int:
        from actors.operate_orders import dispatch

        more = {"batch_id": batch_id, "key": key}
        return await dispatch(client, order_id, station_id, groups, groups_json, as_json=as_json, **more)

    where.run(work)


@order.command("adjust", context_settings=CONTEXT)
@click.argument("batch_id", type=ID)
@GROUP
@GROUPS_JSON
@KEY
@client_options
def order_adjust(
    where: Where,
    batch_id: str,
    groups: tuple[dict[str, Any], ...],
    groups_json: str | None,
    key: str | None,
    as_json: bool,
) -> None:
    """How many tasks groups of a batch are to have.

    All or nothing; groups that are not named stay as they are.
    """
    _needs_groups(groups, groups_json)

    async def work(client: Client) -> int:
        from actors.operate_orders import adjust

        return await adjust(client, batch_id, groups, groups_json, key=key, as_json=as_json)

    where.run(work)


def _needs_groups(groups: tuple[dict[str, Any], ...], groups_json: str | None) -> None:
    if not groups and groups_json is None:
        raise click.UsageError("no group: --group SOP_ID/SUBSCENE_ID=QUANTITY, or --groups JSON")


@order.command("notices", context_settings=CONTEXT)
@click.argument("order_id", type=ID)
@LIMIT
@client_options
def order_notices(where: Where, order_id: str, limit: int, as_json: bool) -> None:
    """What devices were told of it, and whether they have let go."""

    async def work(client: Client) -> int:
        from actors import show, show_orders

        items = await client.listed(f"/v1/orders/{order_id}/notices", {}, limit)
        rows = [show_orders.notice_row(one) for one in items]
        show.data({"items": items}, as_json, show.table(rows, show_orders.NOTICE_HEAD))
        return EXIT_OK

    where.run(work)


# -------------------------------------------------------------------- batches


@click.group(cls=Group, context_settings=CONTEXT)
def batch() -> None:
    """What a station was given of an order."""


@batch.command("list", context_settings=CONTEXT)
@click.option("--order", "order_id", type=ID)
@click.option("--station", "station_id", type=ID)
@click.option("--status", type=click.Choice(list(BATCH_STATUSES)))
@LIMIT
@client_options
def batch_list(where: Where, limit: int, as_json: bool, **wanted: str | None) -> None:
    """Newest first."""

    async def work(client: Client) -> int:
        from actors import show, show_orders

        items = await client.listed("/v1/batches", wanted, limit)
        rows = [show_orders.batch_row(one) for one in items]
        show.data({"items": items}, as_json, show.table(rows, show_orders.BATCH_HEAD))
        return EXIT_OK

    where.run(work)


@batch.command("show", context_settings=CONTEXT)
@click.argument("batch_id", type=ID)
@client_options
def batch_show(where: Where, batch_id: str, as_json: bool) -> None:
    """One batch: its groups, and how many tasks stand where."""

    async def work(client: Client) -> int:
        from actors import show, show_orders

        found = await client.get(f"/v1/batches/{batch_id}")
        show.data(found, as_json, show_orders.batch(found))
        return EXIT_OK

    where.run(work)


@batch.command("cancel", context_settings=CONTEXT)
@click.argument("batch_id", type=ID)
@client_options
def batch_cancel(where: Where, batch_id: str, as_json: bool) -> None:
    """End it, with every open task.

    What was recorded of them is discarded.
    """

    async def work(client: Client) -> int:
        from actors import show, show_orders

        changed = await client.patch(f"/v1/batches/{batch_id}", {"status": "cancelled"})
        show.data(changed, as_json, show_orders.batch(changed))
        return EXIT_OK

    where.run(work)


@batch.command("recall", context_settings=CONTEXT)
@click.argument("batch_id", type=ID)
@client_options
def batch_recall(where: Where, batch_id: str, as_json: bool) -> None:
    """Take back what has not begun.

    What is being recorded or uploaded goes on and counts.
    """

    async def work(client: Client) -> int:
        from actors import show, show_orders

        changed = await client.post(f"/v1/batches/{batch_id}/recall")
        show.data(changed, as_json, show_orders.batch(changed))
        return EXIT_OK

    where.run(work)


@batch.command("delete", context_settings=CONTEXT)
@click.argument("batch_id", type=ID)
@client_options
def batch_delete(where: Where, batch_id: str, as_json: bool) -> None:
    """As if it never was; only while nothing of it has begun. Otherwise `cancel`."""

    async def work(client: Client) -> int:
        from actors import show

        await client.delete(f"/v1/batches/{batch_id}")
        show.data({"batch_id": batch_id, "deleted": True}, as_json, f"deleted {batch_id}")
        return EXIT_OK

    where.run(work)


@batch.command("complete", context_settings=CONTEXT)
@click.argument("batch_id", type=ID)
@click.argument("sop_id", type=ID)
@click.argument("subscene_id", type=ID)
@click.argument("quantity", type=COUNT, default=1)
@KEY
@client_options
def batch_complete(
    where: Where, batch_id: str, sop_id: str, subscene_id: str, quantity: int, key: str | None, as_json: bool
) -> None:
    """An external device did QUANTITY planned tasks.

    All or nothing, oldest first. It waits through a restart of the service, and completes once; so does a repeat by
    hand with the same --key.
    """

    async def work(client: Client) -> int:
        from actors.operate_orders import complete

        return await complete(client, batch_id, sop_id, subscene_id, quantity, key=key, as_json=as_json)

    where.run(work)


@batch.command("handoff", context_settings=CONTEXT)
@click.argument("batch_id", type=ID)
@click.argument("sop_id", type=ID)
@click.argument("subscene_id", type=ID)
@client_options
def batch_handoff(where: Where, batch_id: str, sop_id: str, subscene_id: str, as_json: bool) -> None:
    """What an external device is given of a group.

    One line of JSON, byte for byte, with or without --json.
    """

    async def work(client: Client) -> int:
        from actors.operate_orders import handoff

        return await handoff(client, batch_id, sop_id, subscene_id)

    where.run(work)
