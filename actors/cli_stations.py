"""`holdfast station …` and `holdfast collector …`: imported when one of them is asked for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from actors.cli_base import CONTEXT, ID, LIMIT, Group, Where, client_options
from actors.cli_orders import KEY
from actors.protocol.codes import EXIT_OK

if TYPE_CHECKING:
    from actors.http_client import Client

KIND = click.option("--type", "type_name", help="What kind of device stands there, for the hand-off.")
CAPABILITIES = click.option("--capabilities", metavar="JSON", help="Of that kind, e.g. '{\"requires_axon\": false}'.")


@click.group(cls=Group, context_settings=CONTEXT)
def station() -> None:
    """Where a collector works with a node: one current binding each."""


@station.command("create", context_settings=CONTEXT)
@click.argument("collector_id", type=ID)
@click.argument("node_id", type=ID)
@click.argument("station_id", type=ID, required=False)
@click.option("--name", help="For people.")
@KIND
@CAPABILITIES
@KEY
@client_options
def station_create(
    where: Where, collector_id: str, node_id: str, station_id: str | None, key: str | None, as_json: bool, **more: Any
) -> None:
    """A new station of a collector and a node; prints its id.

    Where either was bound before, it is no longer.
    """
    body = _body(collector_id=collector_id, node_id=node_id, station_id=station_id, **more)

    async def work(client: Client) -> int:
        from actors import show

        made = await client.post("/v1/stations", body, key=key)
        show.data(made, as_json, made["station_id"])
        return EXIT_OK

    where.run(work)


@station.command("list", context_settings=CONTEXT)
@click.option("--collector", "collector_id", type=ID, help="Where they work now.")
@click.option("--node", "node_id", type=ID, help="Where it is used now.")
@LIMIT
@client_options
def station_list(where: Where, limit: int, as_json: bool, **wanted: str | None) -> None:
    """Newest first, each with who works there now."""

    async def work(client: Client) -> int:
        from actors import show, show_orders

        items = await client.listed("/v1/stations", wanted, limit)
        rows = [show_orders.station_row(one) for one in items]
        show.data({"items": items}, as_json, show.table(rows, show_orders.STATION_HEAD))
        return EXIT_OK

    where.run(work)


@station.command("show", context_settings=CONTEXT)
@click.argument("station_id", type=ID)
@client_options
def station_show(where: Where, station_id: str, as_json: bool) -> None:
    """One station: its current binding, its kind of device."""

    async def work(client: Client) -> int:
        from actors import show

        found = await client.get(f"/v1/stations/{station_id}")
        show.data(found, as_json, show.facts(found))
        return EXIT_OK

    where.run(work)


@station.command("update", context_settings=CONTEXT)
@click.argument("station_id", type=ID)
@click.option("--collector", "collector_id", type=ID, help="Who works there from now on.")
@click.option("--node", "node_id", type=ID, help="With what, from now on.")
@click.option("--name")
@KIND
@CAPABILITIES
@client_options
def station_update(where: Where, station_id: str, as_json: bool, **more: Any) -> None:
    """Another binding, name or kind of device.

    Another collector or node is a new binding, which supersedes the current one. Planned tasks of
    open batches follow to the new node; while one is under way on the old, it is refused (exit 4).
    """
    change = _body(**more)
    if not change:
        raise click.UsageError("nothing to change: --collector, --node, --name, or --type")
    _change(where, f"/v1/stations/{station_id}", change, as_json)


@station.command("delete", context_settings=CONTEXT)
@click.argument("station_id", type=ID)
@client_options
def station_delete(where: Where, station_id: str, as_json: bool) -> None:
    """Remove it; not while it has open batches (exit 4)."""
    _delete(where, "station", station_id, as_json)


@station.command("bindings", context_settings=CONTEXT)
@click.argument("station_id", type=ID)
@LIMIT
@client_options
def station_bindings(where: Where, station_id: str, limit: int, as_json: bool) -> None:
    """Who worked there with what, newest first."""

    async def work(client: Client) -> int:
        from actors import show, show_orders

        items = await client.listed(f"/v1/stations/{station_id}/bindings", {}, limit)
        rows = [show_orders.binding_row(one) for one in items]
        show.data({"items": items}, as_json, show.table(rows, show_orders.BINDING_HEAD))
        return EXIT_OK

    where.run(work)


def _body(*, type_name: str | None, capabilities: str | None, **plain: str | None) -> dict[str, Any]:
    """What was given of a station, as the service takes it."""
    body: dict[str, Any] = {name: value for name, value in plain.items() if value is not None}
    if type_name is not None:
        body["node_type"] = {"name": type_name, "capabilities": _object(capabilities)}
    elif capabilities is not None:
        raise click.UsageError("--capabilities are those of a --type")
    return body


def _object(text: str | None) -> Any:
    try:
        found = json.loads(text or "{}")
    except ValueError as error:
        raise click.BadParameter(f"not JSON: {error}", param_hint="--capabilities") from None
    if not isinstance(found, dict):
        raise click.BadParameter("not a JSON object", param_hint="--capabilities")
    return found


def _change(where: Where, path: str, change: dict[str, Any], as_json: bool) -> None:
    async def work(client: Client) -> int:
        from actors import show

        changed = await client.patch(path, change)
        show.data(changed, as_json, show.facts(changed))
        return EXIT_OK

    where.run(work)


def _delete(where: Where, kind: str, one_id: str, as_json: bool) -> None:
    async def work(client: Client) -> int:
        from actors import show

        await client.delete(f"/v1/{kind}s/{one_id}")
        show.data({f"{kind}_id": one_id, "deleted": True}, as_json, f"deleted {one_id}")
        return EXIT_OK

    where.run(work)


# -------------------------------------------------------------------- collectors


@click.group(cls=Group, context_settings=CONTEXT)
def collector() -> None:
    """People who record: each at one station at a time."""


@collector.command("create", context_settings=CONTEXT)
@click.argument("name")
@click.argument("collector_id", type=ID, required=False)
@click.option("--operator-id", help="Under which other systems know them; goes into the hand-off.")
@KEY
@client_options
def collector_create(
    where: Where, name: str, collector_id: str | None, operator_id: str | None, key: str | None, as_json: bool
) -> None:
    """A new collector; prints its id.

    Their token is for their station: `holdfast token create collector --station ID`.
    """

    async def work(client: Client) -> int:
        from actors import show

        body = {"name": name, "collector_id": collector_id, "operator_id": operator_id}
        made = await client.post("/v1/collectors", {k: v for k, v in body.items() if v is not None}, key=key)
        show.data(made, as_json, made["collector_id"])
        return EXIT_OK

    where.run(work)


@collector.command("list", context_settings=CONTEXT)
@LIMIT
@client_options
def collector_list(where: Where, limit: int, as_json: bool) -> None:
    """Newest first."""

    async def work(client: Client) -> int:
        from actors import show, show_orders

        items = await client.listed("/v1/collectors", {}, limit)
        rows = [show_orders.collector_row(one) for one in items]
        show.data({"items": items}, as_json, show.table(rows, show_orders.COLLECTOR_HEAD))
        return EXIT_OK

    where.run(work)


@collector.command("show", context_settings=CONTEXT)
@click.argument("collector_id", type=ID)
@client_options
def collector_show(where: Where, collector_id: str, as_json: bool) -> None:
    """One collector."""

    async def work(client: Client) -> int:
        from actors import show

        found = await client.get(f"/v1/collectors/{collector_id}")
        show.data(found, as_json, show.facts(found))
        return EXIT_OK

    where.run(work)


@collector.command("update", context_settings=CONTEXT)
@click.argument("collector_id", type=ID)
@click.option("--name")
@click.option("--operator-id")
@client_options
def collector_update(where: Where, collector_id: str, name: str | None, operator_id: str | None, as_json: bool) -> None:
    """Another name, another operator id."""
    change = {k: v for k, v in {"name": name, "operator_id": operator_id}.items() if v is not None}
    if not change:
        raise click.UsageError("nothing to change: --name, or --operator-id")
    _change(where, f"/v1/collectors/{collector_id}", change, as_json)


@collector.command("delete", context_settings=CONTEXT)
@click.argument("collector_id", type=ID)
@client_options
def collector_delete(where: Where, collector_id: str, as_json: bool) -> None:
    """Remove it; not while it is bound to a station (exit 4)."""
    _delete(where, "collector", collector_id, as_json)
