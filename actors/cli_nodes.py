"""`holdfast node …`, `holdfast invocation …`, `holdfast task …`: imported when one of them is asked for."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from actors.cli_base import CONTEXT, ID, LIMIT, URL, Group, Where, client_options
from actors.protocol.codes import EXIT_CONFLICT, EXIT_FAILURE, EXIT_OK
from actors.protocol.defaults import ENROLMENT_CODE_S
from actors.protocol.node_codes import ROLES, TASK_ACTIONS, TASK_STATUSES, EnrolmentState

if TYPE_CHECKING:
    from actors.http_client import Client


@click.group(cls=Group, context_settings=CONTEXT)
def node() -> None:
    """Machines and devices: look, invoke, enrol, drain; a live proof, a fake device."""


@node.command("list", context_settings=CONTEXT)
@click.option("--connected/--offline", default=None, help="Only those.")
@click.option("--role", type=click.Choice(list(ROLES)), help="That have this role.")
@click.option("--query", "-q", help="In ids and names.")
@LIMIT
@client_options
def node_list(where: Where, connected: bool | None, role: str, query: str, limit: int, as_json: bool) -> None:
    """Connected ones first."""

    async def work(client: Client) -> int:
        from actors import show, show_nodes

        said = None if connected is None else str(connected).lower()
        items = await client.listed("/v1/nodes", {"connected": said, "role": role, "q": query}, limit)
        rows = [show_nodes.node_row(one) for one in items]
        show.data({"items": items}, as_json, show.table(rows, show_nodes.NODE_HEAD))
        return EXIT_OK

    where.run(work)


@node.command("show", context_settings=CONTEXT)
@click.argument("node_id", type=ID)
@client_options
def node_show(where: Where, node_id: str, as_json: bool) -> None:
    """One node: its roles, what they report, its commands."""

    async def work(client: Client) -> int:
        from actors import show, show_nodes

        found = await client.get(f"/v1/nodes/{node_id}")
        show.data(found, as_json, show_nodes.node(found))
        return EXIT_OK

    where.run(work)


@node.command("create", context_settings=CONTEXT)
@click.argument("node_id", type=ID, required=False)
@click.option("--name")
@click.option("--allow", multiple=True, metavar="PATTERN", help="Commands that may be used; `x.*` too.  [default: any]")
@client_options
def node_create(where: Where, node_id: str | None, name: str | None, allow: tuple[str, ...], as_json: bool) -> None:
    """A new node; prints its id. It connects with a token of scope `node`: `holdfast token create`."""

    async def work(client: Client) -> int:
        from actors import show

        body: dict[str, Any] = {"node_id": node_id, "name": name, "allow": list(allow) or None}
        made = await client.post("/v1/nodes", {k: v for k, v in body.items() if v is not None})
        show.data(made, as_json, made["node_id"])
        return EXIT_OK

    where.run(work)


@node.command("rename", context_settings=CONTEXT)
@click.argument("node_id", type=ID)
@click.argument("name")
@client_options
def node_rename(where: Where, node_id: str, name: str, as_json: bool) -> None:
    """Give it another name for people; its id stays."""
    _change(where, node_id, {"name": name}, as_json)


@node.command("allow", context_settings=CONTEXT)
@click.argument("node_id", type=ID)
@click.argument("patterns", nargs=-1)
@click.option("--any", "anything", is_flag=True, help="Whatever it declares, within the service's own list.")
@client_options
def node_allow(where: Where, node_id: str, patterns: tuple[str, ...], anything: bool, as_json: bool) -> None:
    """Which of its declared commands may be used, from now on; none named: none."""
    if anything and patterns:
        raise click.UsageError("either patterns, or --any")
    _change(where, node_id, {"allow": None if anything else list(patterns)}, as_json)


@node.command("drain", context_settings=CONTEXT)
@click.argument("node_id", type=ID)
@click.option("--off", is_flag=True, help="Take new work again.")
@client_options
def node_drain(where: Where, node_id: str, off: bool, as_json: bool) -> None:
    """No new invocations and task begins; what runs goes on to its end."""
    _change(where, node_id, {"drained": not off}, as_json)


def _change(where: Where, node_id: str, change: dict[str, Any], as_json: bool) -> None:
    async def work(client: Client) -> int:
        from actors import show, show_nodes

        changed = await client.patch(f"/v1/nodes/{node_id}", change)
        show.data(changed, as_json, show_nodes.node(changed))
        return EXIT_OK

    where.run(work)


@node.command("forget", context_settings=CONTEXT)
@click.argument("node_id", type=ID)
@client_options
def node_forget(where: Where, node_id: str, as_json: bool) -> None:
    """Close its sockets, settle its invocations, revoke its tokens, remove it."""

    async def work(client: Client) -> int:
        from actors import show

        await client.delete(f"/v1/nodes/{node_id}")
        show.data({"node_id": node_id, "forgotten": True}, as_json, f"forgot {node_id}")
        return EXIT_OK

    where.run(work)


@node.command("events", context_settings=CONTEXT)
@click.argument("node_id", type=ID)
@click.option("--after", "after_seq", type=click.IntRange(0), help="After this seq.  [default: the last --limit]")
@click.option("--follow", "-f", is_flag=True, help="Go on until Ctrl-C.")
@LIMIT
@client_options
def node_events(where: Where, node_id: str, after_seq: int | None, follow: bool, limit: int, as_json: bool) -> None:
    """The node's own log, oldest first."""

    async def work(client: Client) -> int:
        from actors.operate_nodes import events

        return await events(client, node_id, after_seq=after_seq, limit=limit, follow=follow, as_json=as_json)

    where.run(work)


# -------------------------------------------------------------------- invocations


@node.command("invoke", context_settings=CONTEXT)
@click.argument("node_id", type=ID)
@click.argument("command")
@click.argument("params", required=False)
@click.option("--role", type=click.Choice(list(ROLES)), help="[default: node]")
@click.option("--timeout", "timeout_s", type=click.FloatRange(0), help="Seconds; 0: none.  [default: 30]")
@click.option("--idle-timeout", "idle_timeout_s", type=click.FloatRange(0), help="Seconds between progress reports.")
@click.option("--expect-connection", "expected_connection_id", type=ID, help="Only over this connection.")
@click.option("--key", help="A repeat with the same key is the same invocation.")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Until it has settled.")
@client_options
def node_invoke(where: Where, node_id: str, command: str, params: str | None, as_json: bool, **more: Any) -> None:
    """Have COMMAND run with PARAMS (JSON; - reads stdin); prints its result.

    Exits with 5 when the node could not be asked and nothing was executed, 4 when another connection has it, 1 when
    the command failed or may have been executed.
    """

    async def work(client: Client) -> int:
        from actors.operate_nodes import invoke

        return await invoke(client, node_id, command, params, as_json=as_json, **more)

    where.run(work)


@click.group(cls=Group, context_settings=CONTEXT)
def invocation() -> None:
    """Commands that nodes were asked to run."""


@invocation.command("list", context_settings=CONTEXT)
@click.argument("node_id", type=ID)
@LIMIT
@client_options
def invocation_list(where: Where, node_id: str, limit: int, as_json: bool) -> None:
    """Newest first."""

    async def work(client: Client) -> int:
        from actors import show, show_nodes

        items = await client.listed(f"/v1/nodes/{node_id}/invocations", {}, limit)
        rows = [show_nodes.invocation_row(one) for one in items]
        show.data({"items": items}, as_json, show.table(rows, show_nodes.INVOCATION_HEAD))
        return EXIT_OK

    where.run(work)


@invocation.command("show", context_settings=CONTEXT)
@click.argument("invocation_id", type=ID)
@client_options
def invocation_show(where: Where, invocation_id: str, as_json: bool) -> None:
    """One invocation: what became of it, and whether it was sent."""

    async def work(client: Client) -> int:
        from actors import show

        found = await client.get(f"/v1/invocations/{invocation_id}")
        show.data(found, as_json, show.facts(found))
        return EXIT_OK

    where.run(work)


@invocation.command("cancel", context_settings=CONTEXT)
@click.argument("invocation_id", type=ID)
@client_options
def invocation_cancel(where: Where, invocation_id: str, as_json: bool) -> None:
    """Settle it as cancelled and tell the node; one that has settled keeps its outcome (exit 4)."""

    async def work(client: Client) -> int:
        from actors.operate_nodes import tell

        told = await client.post(f"/v1/invocations/{invocation_id}/cancel")
        tell(told, as_json)
        cancelled = told["ok"] is False and told["error"]["code"] == "CANCELLED"
        return EXIT_OK if cancelled else EXIT_CONFLICT

    where.run(work)


# -------------------------------------------------------------------- enrolment


@node.command("enrol", context_settings=CONTEXT)
@click.argument("node_id", type=ID, required=False)
@click.option("--expires-in", "expires_in_s", type=click.FloatRange(1, 3600), help="Seconds.  [default: 600]")
@client_options
def node_enrol(where: Where, node_id: str | None, expires_in_s: float | None, as_json: bool) -> None:
    """A one-time code with which a new node (NODE_ID, if given) may ask to be let in; then `approve`."""

    async def work(client: Client) -> int:
        from actors import show

        body = {"node_id": node_id, "expires_in_s": expires_in_s}
        made = await client.post("/v1/enrolment-codes", {k: v for k, v in body.items() if v is not None})
        show.data(made, as_json, made["code"])
        if not as_json:
            there = f"holdfast node join {node_id or 'NODE_ID'} --url {client.url} --save FILE"
            within = f"{(expires_in_s or ENROLMENT_CODE_S) / 60:.3g} min"
            show.say(f"holdfast: for one device, within {within}: there `{there}`, then here `holdfast node approve`")
        return EXIT_OK

    where.run(work)


@node.command("enrolments", context_settings=CONTEXT)
@click.option("--state", type=click.Choice(get_args(EnrolmentState)))
@LIMIT
@client_options
def node_enrolments(where: Where, state: str | None, limit: int, as_json: bool) -> None:
    """Who asked to be let in; newest first."""

    async def work(client: Client) -> int:
        from actors import show, show_nodes

        items = await client.listed("/v1/enrolments", {"state": state}, limit)
        rows = [show_nodes.enrolment_row(one) for one in items]
        show.data({"items": items}, as_json, show.table(rows, show_nodes.ENROLMENT_HEAD))
        return EXIT_OK

    where.run(work)


def _decide(where: Where, enrolment_id: str, body: dict[str, Any], as_json: bool) -> None:
    async def work(client: Client) -> int:
        from actors import show

        told = await client.post(f"/v1/enrolments/{enrolment_id}", body)
        show.data(told, as_json, f"{told['node_id']} {told['state']}")
        return EXIT_OK

    where.run(work)


@node.command("approve", context_settings=CONTEXT)
@click.argument("enrolment_id", type=ID)
@click.option("--allow", multiple=True, metavar="PATTERN", help="Commands that may be used.  [default: any]")
@client_options
def node_approve(where: Where, enrolment_id: str, allow: tuple[str, ...], as_json: bool) -> None:
    """Let it in, once and for all."""
    _decide(where, enrolment_id, {"decision": "approve"} | ({"allow": list(allow)} if allow else {}), as_json)


@node.command("reject", context_settings=CONTEXT)
@click.argument("enrolment_id", type=ID)
@client_options
def node_reject(where: Where, enrolment_id: str, as_json: bool) -> None:
    """Do not let it in."""
    _decide(where, enrolment_id, {"decision": "reject"}, as_json)


@node.command("join", context_settings=CONTEXT)
@click.argument("node_id", type=ID)
@click.option("--save", type=click.Path(path_type=Path, dir_okay=False), required=True, help="Where its token goes.")
@click.option("--name")
@click.option("--command", "commands", multiple=True, help="That it will declare; for who approves to see.")
@click.option("--wait/--no-wait", default=True, show_default=True, help="For the decision; else exit 5, and again.")
@click.option("--url", type=URL, envvar="HOLDFAST_URL", required=True, help="Where Holdfast is.")
def node_join(node_id: str, save: Path, name: str | None, commands: tuple[str, ...], wait: bool, url: str) -> None:
    """On a new device: ask to be let in with a code (HOLDFAST_ENROLMENT_CODE, or stdin), and save the token."""
    code = os.environ.get("HOLDFAST_ENROLMENT_CODE") or sys.stdin.readline()
    where = Where(url, "none", None, None)  # the code is the credential

    async def work(client: Client) -> int:
        from actors import show
        from actors.operate_nodes import join

        try:
            return await join(client, node_id, code.strip(), save, name=name, commands=commands, wait=wait)
        except OSError as error:
            show.say(f"holdfast: the token cannot be kept: {error}")
            return EXIT_FAILURE

    where.run(work)


# -------------------------------------------------------------------- the proof, and the fake


@node.command("prove", context_settings=CONTEXT)
@click.option("--times", type=click.IntRange(1, 10_000), default=50, show_default=True)
@click.option("--node-id", type=ID, help="Take over this node (needs a token for it).  [default: one of its own]")
@client_options
def node_prove(where: Where, times: int, node_id: str | None, as_json: bool) -> None:
    """The live proof: connect twice under one id, close the old socket late; nothing may change. Exits 1 if it does."""

    async def work(client: Client) -> int:
        from actors.prove import prove_and_say

        return await prove_and_say(client, times=times, node_id=node_id, as_json=as_json)

    where.run(work)


def _list_faults(ctx: click.Context, param: click.Parameter, asked: bool) -> None:
    if not asked or ctx.resilient_parsing:
        return
    from wrapper.faults import ANYWHERE, POINTS

    click.echo("POINT, and what may happen there only:")
    for name, (when, own) in POINTS.items():
        click.echo(f"  {name:<8}  {when}" + "".join(f"\n            {one}: {what}" for one, what in own.items()))
    click.echo("An order's name is a point too: begin=… is the `begin`s among the orders.\nACTION, anywhere:")
    for name, what in ANYWHERE.items():
        click.echo(f"  {name:<8}  {what}")
    ctx.exit()


@node.command("fake", context_settings=CONTEXT)
@click.argument("node_id", type=ID)
@click.option(
    "--role",
    "roles",
    multiple=True,
    type=click.Choice(list(ROLES)),
    help="Any number.  [default: all of them]",
)
@click.option("--folder", type=click.Path(path_type=Path, file_okay=False), help="What it remembers.")
@click.option("--objects", type=click.Path(path_type=Path, file_okay=False), help="Where uploads go: `objects_dir`.")
@click.option("--fault", "faults", multiple=True, metavar="POINT[@N]=ACTION", help="`--faults` lists them.")
@click.option(
    "--faults",
    "list_faults",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_list_faults,
    help="Which there are.",
)
@click.option("--command", "commands", multiple=True, help="Declare this one too; it gives back its params.")
@click.option("--report-every", type=click.FloatRange(0.1), default=5.0, show_default=True, metavar="S")
@client_options
def node_fake(
    where: Where,
    node_id: str,
    roles: tuple[str, ...],
    folder: Path | None,
    objects: Path | None,
    faults: tuple[str, ...],
    commands: tuple[str, ...],
    report_every: float,
    as_json: bool,
) -> None:
    """A scripted device under this id: records, uploads, runs commands, and stumbles as told."""
    from wrapper.faults import parse

    try:
        script = tuple(parse(text) for text in faults)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--fault") from None
    from actors import show
    from actors.http_client import Problem
    from actors.operate_nodes import fake
    from wrapper.fakedevice import COMMANDS, FakeSettings
    from wrapper.spoolfile import SpoolError, SpoolLocked

    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state")
    try:
        url, token = where.url_and_token()
        settings = FakeSettings(
            url=url,
            node_id=node_id,
            roles=tuple(dict.fromkeys(roles)) or tuple(ROLES),
            folder=str(folder or state / "holdfast" / "fake" / node_id),
            token=token,
            objects=str(objects) if objects else None,
            faults=script,
            commands=tuple(dict.fromkeys((*COMMANDS, *commands))),
            report_every_s=report_every,
        )
        sys.exit(fake(settings, as_json=as_json))
    except Problem as problem:
        show.say(f"holdfast: {problem.detail} [{problem.code}]")
        sys.exit(problem.exit_code)
    except SpoolLocked as error:
        show.say(f"holdfast: {error}")
        sys.exit(EXIT_CONFLICT)
    except (SpoolError, OSError) as error:
        show.say(f"holdfast: {error}")
        sys.exit(EXIT_FAILURE)


# -------------------------------------------------------------------- tasks


@click.group(cls=Group, context_settings=CONTEXT)
def task() -> None:
    """What recorders are to record: create, look, act."""


@task.command("create", context_settings=CONTEXT)
@click.argument("node_id", type=ID)
@click.argument("task_id", type=ID, required=False)
@click.option("--params", help="JSON, for the device; - reads stdin.")
@client_options
def task_create(where: Where, node_id: str, task_id: str | None, params: str | None, as_json: bool) -> None:
    """A new task of a node; prints its id."""

    async def work(client: Client) -> int:
        from actors import show
        from actors.operate_nodes import read_json

        body = {"task_id": task_id, "params": read_json(params, "--params")}
        made = await client.post(f"/v1/nodes/{node_id}/tasks", {k: v for k, v in body.items() if v is not None})
        show.data(made, as_json, made["task_id"])
        return EXIT_OK

    where.run(work)


@task.command("list", context_settings=CONTEXT)
@click.option("--node-id", type=ID)
@click.option("--order", "order_id", type=ID)
@click.option("--batch", "batch_id", type=ID)
@click.option("--status", type=click.Choice(list(TASK_STATUSES)))
@LIMIT
@client_options
def task_list(where: Where, limit: int, as_json: bool, **wanted: str | None) -> None:
    """Newest first."""

    async def work(client: Client) -> int:
        from actors import show, show_nodes

        items = await client.listed("/v1/tasks", wanted, limit)
        rows = [show_nodes.task_row(one) for one in items]
        show.data({"items": items}, as_json, show.table(rows, show_nodes.TASK_HEAD))
        return EXIT_OK

    where.run(work)


@task.command("show", context_settings=CONTEXT)
@click.argument("task_id", type=ID)
@client_options
def task_show(where: Where, task_id: str, as_json: bool) -> None:
    """One task: its status, its times, its upload."""

    async def work(client: Client) -> int:
        from actors import show, show_nodes

        found = await client.get(f"/v1/tasks/{task_id}")
        show.data(found, as_json, show_nodes.task(found))
        return EXIT_OK

    where.run(work)


ANSWERED = ("config", "begin", "pause", "resume")  # the others are decided here, and the device is told


def _act(action: str, does: str) -> None:
    @task.command(action, context_settings=CONTEXT, help=does)
    @click.argument("task_id", type=ID)
    @click.option("--attempt", type=click.IntRange(1), help="Only if this is the present one.")
    @client_options
    def act(where: Where, task_id: str, attempt: int | None, as_json: bool) -> None:
        async def work(client: Client) -> int:
            from actors import show, show_nodes

            body = {} if attempt is None else {"attempt": attempt}
            told = await client.post(f"/v1/tasks/{task_id}/{action}", body)
            show.data(told, as_json, show_nodes.task(told))
            if action in ANSWERED and not as_json:
                show.say("holdfast: the device is asked; its report moves the task: `holdfast task show`")
            return EXIT_OK

        where.run(work)


for _action, _does in TASK_ACTIONS.items():
    _act(_action, f"{_does[0].upper()}{_does[1:]}.")
