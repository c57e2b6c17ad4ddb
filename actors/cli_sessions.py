"""`holdfast session …`, `holdfast execution …`, `holdfast approval …`: imported when one of them is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from actors.cli_base import CONTEXT, ID, LABEL, LIMIT, Group, Where, client_options
from actors.protocol.codes import EXIT_OK

if TYPE_CHECKING:
    from actors.http_client import Client


@click.group(cls=Group, context_settings=CONTEXT)
def session() -> None:
    """Sessions: list, look, send, follow, interrupt."""


@session.command("list", context_settings=CONTEXT)
@click.option("--state", help="idle, or the status of the last execution.")
@click.option("--link", type=click.Choice(["connected", "grace", "offline"]))
@click.option("--label", type=LABEL, multiple=True, metavar="K=V", help="With this label; K:V is the same.")
@click.option("--query", "-q", help="In ids and titles.")
@LIMIT
@client_options
def session_list(
    where: Where, state: str, link: str, label: tuple[tuple[str, str], ...], query: str, limit: int, as_json: bool
) -> None:
    """Newest activity first."""

    async def work(client: Client) -> int:
        from actors import show

        asked = {"state": state, "link": link, "label": [f"{k}:{v}" for k, v in label], "q": query}
        items = await client.listed("/v1/sessions", asked, limit)
        show.data({"items": items}, as_json, show.table([show.session_row(s) for s in items], show.SESSION_HEAD))
        return EXIT_OK

    where.run(work)


@session.command("show", context_settings=CONTEXT)
@click.argument("session_id", type=ID)
@client_options
def session_show(where: Where, session_id: str, as_json: bool) -> None:
    """One session: its link and its executions."""

    async def work(client: Client) -> int:
        from actors import show

        found = await client.get(f"/v1/sessions/{session_id}")
        show.data(found, as_json, show.session(found))
        return EXIT_OK

    where.run(work)


@session.command("create", context_settings=CONTEXT)
@click.argument("session_id", type=ID, required=False)
@click.option("--title")
@click.option("--label", type=LABEL, multiple=True, metavar="K=V", help="Any number; K:V is the same.")
@client_options
def session_create(
    where: Where, session_id: str | None, title: str | None, label: tuple[tuple[str, str], ...], as_json: bool
) -> None:
    """A new session; prints its id."""

    async def work(client: Client) -> int:
        from actors import show

        body = {"session_id": session_id, "title": title, "labels": dict(label)}
        made = await client.post("/v1/sessions", {k: v for k, v in body.items() if v})
        show.data(made, as_json, made["session_id"])
        return EXIT_OK

    where.run(work)


def _send(where: Where, session_id: str, text: str | None, execution_id: str | None, wait: bool, as_json: bool) -> None:
    """Submit an execution with TEXT as its input (- reads stdin); --wait shows its output until it ends."""

    async def work(client: Client) -> int:
        from actors.operate import send

        return await send(client, session_id, text, execution_id=execution_id, wait=wait, as_json=as_json)

    where.run(work)


for _name, _help in (("send", _send.__doc__), ("submit", "The same as `send`, by the name that the API gives it.")):
    session.command(_name, context_settings=CONTEXT, help=_help)(
        click.argument("session_id", type=ID)(
            click.argument("text", required=False)(
                click.option("--execution-id", type=ID, help="A repeated submit with the same id has one effect.")(
                    click.option("--wait", is_flag=True, help="Until it ends; exits 0, 1 failed, 130 interrupted.")(
                        client_options(_send)
                    )
                )
            )
        )
    )


@session.command("tail", context_settings=CONTEXT)
@click.argument("session_id", type=ID)
@click.option(
    "--after", "after_seq", type=click.IntRange(0), help="Begin after this seq; 0: everything.  [default: now]"
)
@click.option("--types", help="Only these event types, with commas.")
@click.option("--execution-id", type=ID)
@click.option("--until-caught-up", is_flag=True, help="End when everything stored was shown.")
@client_options
def session_tail(where: Where, session_id: str, as_json: bool, **wanted: Any) -> None:
    """Follow the stream; comes back by its cursor after any loss."""

    async def work(client: Client) -> int:
        from actors.operate import tail

        return await tail(client, session_id, as_json=as_json, **wanted)

    where.run(work)


@session.command("interrupt", context_settings=CONTEXT)
@click.argument("session_id", type=ID)
@click.option("--execution-id", type=ID, help="[default: the active one]")
@click.option("--reason")
@click.option("--force", is_flag=True, help="Skip the polite steps of the ladder.")
@client_options
def session_interrupt(
    where: Where, session_id: str, execution_id: str | None, reason: str | None, force: bool, as_json: bool
) -> None:
    """Ask the running agent to stop; always ends within the ladder."""

    async def work(client: Client) -> int:
        from actors import show

        body = {"execution_id": execution_id, "reason": reason, "force": force}
        body = {k: v for k, v in body.items() if v is not None}
        told = await client.post(f"/v1/sessions/{session_id}/interrupt", body)
        # a named execution that has ended: 200 with its outcome and nothing to interrupt
        execution = told.get("execution", told)
        show.data(told, as_json, f"{told.get('interrupt_id', '-')}  {show.execution(execution)}")
        return EXIT_OK

    where.run(work)


@session.command("fail", context_settings=CONTEXT)
@click.argument("session_id", type=ID)
@click.argument("execution_id", type=ID, required=False)
@click.option("--error", default="ended by an operator", show_default=True)
@client_options
def session_fail(where: Where, session_id: str, execution_id: str | None, error: str, as_json: bool) -> None:
    """Record the execution (default: the active one) as failed, whatever its wrapper says.

    `holdfast session fail` and `holdfast execution fail` are the same.
    """

    async def work(client: Client) -> int:
        from actors.operate import fail

        return await fail(client, session_id, execution_id, error=error, as_json=as_json)

    where.run(work)


@session.command("delete", context_settings=CONTEXT)
@click.argument("session_id", type=ID)
@client_options
def session_delete(where: Where, session_id: str, as_json: bool) -> None:
    """Abort what runs, close its sockets, remove it for good."""

    async def work(client: Client) -> int:
        from actors import show

        await client.delete(f"/v1/sessions/{session_id}")
        show.data({"session_id": session_id, "deleted": True}, as_json, f"deleted {session_id}")
        return EXIT_OK

    where.run(work)


# -------------------------------------------------------------------- executions and approvals


@click.group(cls=Group, context_settings=CONTEXT)
def execution() -> None:
    """Executions of a session."""


@execution.command("list", context_settings=CONTEXT)
@click.argument("session_id", type=ID)
@LIMIT
@client_options
def execution_list(where: Where, session_id: str, limit: int, as_json: bool) -> None:
    """Newest first."""

    async def work(client: Client) -> int:
        from actors import show

        items = await client.listed(f"/v1/sessions/{session_id}/executions", {}, limit)
        show.data({"items": items}, as_json, show.table([show.execution_row(e) for e in items], show.EXECUTION_HEAD))
        return EXIT_OK

    where.run(work)


@execution.command("show", context_settings=CONTEXT)
@click.argument("session_id", type=ID)
@click.argument("execution_id", type=ID)
@client_options
def execution_show(where: Where, session_id: str, execution_id: str, as_json: bool) -> None:
    """One execution: status, outcome, interrupt."""

    async def work(client: Client) -> int:
        from actors import show

        found = await client.get(f"/v1/sessions/{session_id}/executions/{execution_id}")
        show.data(found, as_json, show.execution(found))
        return EXIT_OK

    where.run(work)


@execution.command("input", context_settings=CONTEXT)
@click.argument("session_id", type=ID)
@click.argument("execution_id", type=ID)
@click.argument("text")
@client_options
def execution_input(where: Where, session_id: str, execution_id: str, text: str, as_json: bool) -> None:
    """A follow-up to a running execution (- reads stdin)."""

    async def work(client: Client) -> int:
        from actors import show
        from actors.operate import read_text

        told = await client.post(
            f"/v1/sessions/{session_id}/executions/{execution_id}/input", {"input": read_text(text)}
        )
        show.data(told, as_json, "sent")
        return EXIT_OK

    where.run(work)


execution.add_command(session_fail, "fail")


@click.group(cls=Group, context_settings=CONTEXT)
def approval() -> None:
    """What agents wait for a decision on."""


@approval.command("list", context_settings=CONTEXT)
@click.argument("session_id", type=ID)
@client_options
def approval_list(where: Where, session_id: str, as_json: bool) -> None:
    """Open and decided ones."""

    async def work(client: Client) -> int:
        from actors import show

        items = (await client.get(f"/v1/sessions/{session_id}/approvals"))["items"]
        rows = [(a["approval_id"], a["state"], "|".join(a["options"]), a["decision"], a["title"]) for a in items]
        human = show.table(rows, ("APPROVAL", "STATE", "OPTIONS", "DECISION", "TITLE"))
        show.data({"items": items}, as_json, human)
        return EXIT_OK

    where.run(work)


@approval.command("resolve", context_settings=CONTEXT)
@click.argument("session_id", type=ID)
@click.argument("approval_id", type=ID)
@click.argument("decision")
@click.option("--note")
@client_options
def approval_resolve(
    where: Where, session_id: str, approval_id: str, decision: str, note: str | None, as_json: bool
) -> None:
    """Decide, once: a second decision is a conflict (exit 4) and names the first."""

    async def work(client: Client) -> int:
        from actors import show

        body = {"decision": decision} | ({"note": note} if note else {})
        told = await client.post(f"/v1/sessions/{session_id}/approvals/{approval_id}", body)
        show.data(told, as_json, f"{approval_id} {decision}")
        return EXIT_OK

    where.run(work)
