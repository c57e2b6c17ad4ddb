"""`holdfast token …`, `holdfast webhook …`, `holdfast audit …`: imported when one of them is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from actors.cli_base import CONTEXT, ID, LIMIT, Group, Where, client_options
from actors.protocol.codes import EXIT_OK

if TYPE_CHECKING:
    from actors.http_client import Client


@click.group(cls=Group, context_settings=CONTEXT)
def token() -> None:
    """Who may come in, and what they may do."""


@token.command("create", context_settings=CONTEXT)
@click.argument("scope", type=click.Choice(["admin", "operator", "reader", "wrapper", "node", "collector"]))
@click.option("--session", "session_id", type=ID, help="For this session only (operator, reader, wrapper).")
@click.option("--node", "node_id", type=ID, help="For this node only (node).")
@click.option("--station", "station_id", type=ID, help="For this station only (collector).")
@click.option("--expires-in", "expires_in_s", type=click.IntRange(1), metavar="SECONDS", help="[default: never]")
@client_options
def token_create(where: Where, scope: str, expires_in_s: int | None, as_json: bool, **bound: str | None) -> None:
    """Make a token and print its secret: this once, it is kept nowhere."""

    async def work(client: Client) -> int:
        import time

        from actors import show

        body: dict[str, Any] = {"scope": scope, **{name: value for name, value in bound.items() if value}}
        if expires_in_s is not None:
            body["expires_at_ms"] = (int(time.time()) + expires_in_s) * 1000
        made = await client.post("/v1/tokens", body)
        show.data(made, as_json, made["token"])
        if not as_json:
            what = ", ".join([f"scope {scope}", *(f"for {value} only" for value in bound.values() if value)])
            show.say(f"holdfast: {what}; shown this once. To revoke it: `holdfast token revoke {made['token_id']}`")
        return EXIT_OK

    where.run(work)


@token.command("list", context_settings=CONTEXT)
@LIMIT
@client_options
def token_list(where: Where, limit: int, as_json: bool) -> None:
    """Newest first; never a secret."""

    async def work(client: Client) -> int:
        from actors import show

        items = await client.listed("/v1/tokens", {}, limit)
        show.data({"items": items}, as_json, show.table([show.token_row(t) for t in items], show.TOKEN_HEAD))
        return EXIT_OK

    where.run(work)


@token.command("revoke", context_settings=CONTEXT)
@click.argument("token_id", type=ID)
@client_options
def token_revoke(where: Where, token_id: str, as_json: bool) -> None:
    """It holds no longer; its live sockets are closed within 5 s."""

    async def work(client: Client) -> int:
        from actors import show

        await client.delete(f"/v1/tokens/{token_id}")
        show.data({"token_id": token_id, "revoked": True}, as_json, f"revoked {token_id}")
        return EXIT_OK

    where.run(work)


@click.group(cls=Group, context_settings=CONTEXT)
def webhook() -> None:
    """Callbacks: what was told to whom, and telling it again."""


@webhook.command("list", context_settings=CONTEXT)
@click.option("--state", type=click.Choice(["due", "delivered", "dead"]))
@click.option("--session-id", type=ID)
@LIMIT
@client_options
def webhook_list(where: Where, state: str | None, session_id: str | None, limit: int, as_json: bool) -> None:
    """Newest first."""

    async def work(client: Client) -> int:
        from actors import show

        items = await client.listed("/v1/webhooks", {"state": state, "session_id": session_id}, limit)
        show.data({"items": items}, as_json, show.table([show.webhook_row(w) for w in items], show.WEBHOOK_HEAD))
        return EXIT_OK

    where.run(work)


@webhook.command("show", context_settings=CONTEXT)
@click.argument("webhook_id", type=ID)
@client_options
def webhook_show(where: Where, webhook_id: str, as_json: bool) -> None:
    """One delivery: where to, how often, what came back."""

    async def work(client: Client) -> int:
        from actors import show

        found = await client.get(f"/v1/webhooks/{webhook_id}")
        show.data(found, as_json, show.facts(found))
        return EXIT_OK

    where.run(work)


@webhook.command("replay", context_settings=CONTEXT)
@click.argument("webhook_id", type=ID)
@client_options
def webhook_replay(where: Where, webhook_id: str, as_json: bool) -> None:
    """Deliver it once more, now, under the same id."""

    async def work(client: Client) -> int:
        from actors import show

        told = await client.post(f"/v1/webhooks/{webhook_id}/replay")
        show.data(told, as_json, f"{webhook_id} {told['state']}")
        return EXIT_OK

    where.run(work)


@click.group(cls=Group, context_settings=CONTEXT)
def audit() -> None:
    """What operators did."""


@audit.command("list", context_settings=CONTEXT)
@click.option("--session-id", type=ID)
@LIMIT
@client_options
def audit_list(where: Where, session_id: str | None, limit: int, as_json: bool) -> None:
    """Newest first; needs an admin token."""

    async def work(client: Client) -> int:
        from actors import show

        items = await client.listed("/v1/audit", {"session_id": session_id}, limit)
        show.data({"items": items}, as_json, show.table([show.audit_row(a) for a in items], show.AUDIT_HEAD))
        return EXIT_OK

    where.run(work)
