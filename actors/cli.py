"""`holdfast`: the command line of server and operator. Nothing heavy is imported before a command needs it, so that
`--help` answers within 200 ms. Data on stdout, messages on stderr, exit codes of PROTOCOL §6.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from actors.cli_base import CONTEXT, ID, LABEL, Where, client_options
from actors.protocol.codes import EXIT_FAILURE, EXIT_INTERRUPTED, EXIT_OK, EXIT_USAGE
from actors.protocol.defaults import FINAL_WAIT_S

if TYPE_CHECKING:
    from actors.config import Settings
    from actors.http_client import Client

SERVER_PACKAGES = ("ray", "sqlite_utils", "orjson", "structlog")


# Groups whose module is imported when one of them is asked for.
LATER = {
    **dict.fromkeys(("node", "invocation", "task"), "actors.cli_nodes"),
    **dict.fromkeys(("order", "batch"), "actors.cli_orders"),
    **dict.fromkeys(("station", "collector"), "actors.cli_stations"),
}


class _Groups(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *LATER})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in LATER and cmd_name not in self.commands:
            self.add_command(getattr(import_module(LATER[cmd_name]), cmd_name))
        return super().get_command(ctx, cmd_name)


@click.group(cls=_Groups, context_settings=CONTEXT)
@click.version_option(package_name="holdfast", message="%(prog)s %(version)s")
def cli() -> None:
    """Durable sessions, nodes and work orders, for things that may vanish: agents, robots, jobs."""


# -------------------------------------------------------------------- the server


@cli.command(context_settings=CONTEXT)
@click.option("--host", help="[default: 127.0.0.1]")
@click.option("--port", type=int, help="0 picks one and keeps it.  [default: 8420]")
@click.option("--data-dir", help="The store, the token, the locks.  [default: ~/.local/share/holdfast]")
@click.option("--store", help="sqlite:///FILE  [default: holdfast.db in the data directory]")
@click.option("--session-placement", help="dedicated (one actor per session) or shared:N.")
@click.option(
    "--config", type=click.Path(path_type=Path, dir_okay=False), help="TOML.  [default: DATA_DIR/holdfast.toml]"
)
@click.option("--ready-file", type=click.Path(path_type=Path), help='When up, gets {"url","token","pid"}, mode 0600.')
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]))
@click.option("--insecure", is_flag=True, default=None, help="Allow a host beyond loopback without TLS.")
@click.option("--json", "as_json", is_flag=True, help="Say on stdout when it is up, as JSON.")
def up(config: Path | None, ready_file: Path | None, as_json: bool, **flags: Any) -> None:
    """Start the service in the foreground and watch over it; Ctrl-C ends everything."""
    _needs_server()
    settings = _settings(flags, config)
    from actors import telemetry
    from actors.up import Refused, Supervisor

    telemetry.configure(max(settings.log_level, "warning", key=telemetry.LEVELS.__getitem__), as_json or None)
    try:
        sys.exit(Supervisor(settings, ready_file=ready_file, announce_json=as_json).run())
    except Refused as refused:
        click.echo(f"holdfast: {refused}", err=True)
        sys.exit(refused.exit_code)
    except OSError as error:  # a full disk, a directory that is taken away
        click.echo(f"holdfast: could not start: {error}", err=True)
        sys.exit(EXIT_FAILURE)


@cli.command(context_settings=CONTEXT)
@click.option("--once", is_flag=True, help="Take the tour alone, check every promise, exit.")
@click.option("--json", "as_json", is_flag=True, help="One JSON line per step.")
def demo(once: bool, as_json: bool) -> None:
    """A service of its own, three scripted agents, and what to try with them."""
    _needs_server()
    from actors.demo import run

    sys.exit(run(once=once, as_json=as_json))


@cli.group(context_settings=CONTEXT)
def config() -> None:
    """The settings."""


@config.command("show", context_settings=CONTEXT)
@click.option("--config", "path", type=click.Path(path_type=Path, dir_okay=False), help="TOML file.")
@click.option("--data-dir")
@click.option("--json", "as_json", is_flag=True)
def config_show(path: Path | None, data_dir: str | None, as_json: bool) -> None:
    """Every setting, its value, and where it came from."""
    settings = _settings({"data_dir": data_dir}, path)
    from actors import show

    values = settings.model_dump(mode="json")
    rows = {name: {"value": value, "from": settings.origin_of(name)} for name, value in values.items()}
    human = show.table([(name, row["value"], row["from"]) for name, row in rows.items()], ("SETTING", "VALUE", "FROM"))
    show.data(rows, as_json, human)


@cli.command(context_settings=CONTEXT)
@client_options
def doctor(where: Where, as_json: bool) -> None:
    """What is installed, and what is reachable."""
    from actors.doctor import examine

    sys.exit(examine(where.url, where.token, where.token_file, where.data_dir, as_json))


def _needs_server() -> None:
    """The base installation has the client and the wrapper only."""
    from importlib.util import find_spec

    if any(find_spec(name) is None for name in SERVER_PACKAGES):
        click.echo("holdfast: needs the server extra: pip install '.[server]' (in the clone of Holdfast)", err=True)
        sys.exit(EXIT_FAILURE)


def _settings(flags: dict[str, Any], path: Path | None) -> Settings:
    from actors.config import ConfigError, load

    try:
        return load(flags, config=path)
    except ConfigError as error:
        for problem in error.problems:
            click.echo(f"holdfast: {problem}", err=True)
        sys.exit(EXIT_USAGE)
    except OSError as error:  # a data directory that may not even be looked into
        click.echo(f"holdfast: cannot look for settings: {error}", err=True)
        sys.exit(EXIT_USAGE)


# -------------------------------------------------------------------- run


@cli.command(context_settings={**CONTEXT, "ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--session", "session_id", type=ID, help="[default: a new one]")
@click.option("--takeover", is_flag=True, help="Even if a wrapper is connected to the session.")
@click.option("--title", help="Of a new session.")
@click.option(
    "--final-wait",
    type=click.FloatRange(0),
    default=FINAL_WAIT_S,
    show_default=True,
    help="Seconds for the end to be acknowledged; then exit 5, and the spool is kept.",
)
@click.argument("argv", nargs=-1, required=True, type=click.UNPROCESSED)
@client_options
def run(
    where: Where,
    session_id: str | None,
    takeover: bool,
    title: str | None,
    final_wait: float,
    argv: tuple[str, ...],
    as_json: bool,
) -> None:
    """Run ARGV under a wrapper, as one execution; shows its output and exits with its exit code.

    What ends this ends ARGV, by the ladder: Ctrl-C, SIGTERM, SIGHUP; the exit code is then 128 + the signal's number.
    ARGV's stdin is empty; ours is not passed on.
    """
    from actors.run import run_command

    async def work(client: Client) -> int:
        return await run_command(
            client,
            argv,
            session_id=session_id,
            takeover=takeover,
            title=title,
            final_wait_s=final_wait,
            as_json=as_json,
            token_file=where.token_file_in_use(),
        )

    where.run(work)


# -------------------------------------------------------------------- sessions


@cli.group(context_settings=CONTEXT)
def session() -> None:
    """Sessions: list, look, send, follow, interrupt."""


@session.command("list", context_settings=CONTEXT)
@click.option("--state", help="idle, or the status of the last execution.")
@click.option("--link", type=click.Choice(["connected", "grace", "offline"]))
@click.option("--label", type=LABEL, multiple=True, metavar="K=V", help="With this label; K:V is the same.")
@click.option("--query", "-q", help="In ids and titles.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True)
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


@cli.group(context_settings=CONTEXT)
def execution() -> None:
    """Executions of a session."""


@execution.command("list", context_settings=CONTEXT)
@click.argument("session_id", type=ID)
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True)
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


@cli.group(context_settings=CONTEXT)
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


# -------------------------------------------------------------------- tokens


@cli.group(context_settings=CONTEXT)
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
            show.say(f"{made['token_id']}, scope {scope}; revoke it with `holdfast token revoke {made['token_id']}`")
        return EXIT_OK

    where.run(work)


@token.command("list", context_settings=CONTEXT)
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True)
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


# -------------------------------------------------------------------- webhooks, audit, backup


@cli.group(context_settings=CONTEXT)
def webhook() -> None:
    """Callbacks: what was told to whom, and telling it again."""


@webhook.command("list", context_settings=CONTEXT)
@click.option("--state", type=click.Choice(["due", "delivered", "dead"]))
@click.option("--session-id", type=ID)
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True)
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


@cli.group(context_settings=CONTEXT)
def audit() -> None:
    """What operators did."""


@audit.command("list", context_settings=CONTEXT)
@click.option("--session-id", type=ID)
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True)
@client_options
def audit_list(where: Where, session_id: str | None, limit: int, as_json: bool) -> None:
    """Newest first; needs an admin token."""

    async def work(client: Client) -> int:
        from actors import show

        items = await client.listed("/v1/audit", {"session_id": session_id}, limit)
        show.data({"items": items}, as_json, show.table([show.audit_row(a) for a in items], show.AUDIT_HEAD))
        return EXIT_OK

    where.run(work)


# -------------------------------------------------------------------- the fleet, and shells


@cli.command(context_settings=CONTEXT)
@click.option("--interval", type=click.FloatRange(0.2), default=1.0, show_default=True, help="Seconds.")
@click.option("--once", is_flag=True, help="Print the table once; so does a pipe.")
@client_options
def top(where: Where, interval: float, once: bool, as_json: bool) -> None:
    """The fleet as a live table; Ctrl-C ends it."""

    async def work(client: Client) -> int:
        from actors import show, top

        if as_json:
            show.data({"items": await client.listed("/v1/sessions", {}, 200)}, True)
        else:
            await top.top(client, interval_s=interval, once=once)
        return EXIT_OK

    where.run(work)


@cli.command(context_settings=CONTEXT)
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=click.Path(dir_okay=False))
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def check(files: tuple[str, ...], as_json: bool) -> None:
    """Judge recorded histories: what clients saw against what the store says (docs/history.md).

    Exits with 0 if they are clean, 1 if there are anomalies, 2 if a file is no history.
    """
    from actors import verdict

    sys.exit(verdict.give(files, as_json=as_json))


@cli.command(context_settings=CONTEXT)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of a shell: `holdfast completion bash >> ~/.bashrc`."""
    from click.shell_completion import get_completion_class

    made = get_completion_class(shell)
    assert made is not None, "click knows these three"
    click.echo(made(cli, {}, "holdfast", "_HOLDFAST_COMPLETE").source())


@cli.command(context_settings=CONTEXT)
@click.argument("dest", type=click.Path(path_type=Path))
@click.option("--data-dir", help="Of the service.  [default: ~/.local/share/holdfast]")
@click.option("--config", "path", type=click.Path(path_type=Path, dir_okay=False), help="TOML file.")
@click.option("--with-token", is_flag=True, help="The admin token too; then guard the copy like the token.")
@click.option("--json", "as_json", is_flag=True)
def backup(dest: Path, data_dir: str | None, path: Path | None, with_token: bool, as_json: bool) -> None:
    """Copy the data directory to the new directory DEST, while the service runs."""
    settings = _settings({"data_dir": data_dir}, path)
    from actors import show
    from actors.backup import BackupError
    from actors.backup import backup as copy

    try:
        made = copy(settings, dest.absolute(), with_token=with_token)
    except BackupError as error:
        click.echo(f"holdfast: {error}", err=True)
        sys.exit(error.exit_code)
    show.data(made, as_json, f"{made['path']}  {made['sessions']} sessions, {made['bytes'] / 1e6:.1f} MB, checked")


@cli.command(context_settings=CONTEXT)
@click.argument("src", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--data-dir", help="Where to.  [default: ~/.local/share/holdfast]")
@click.option("--config", "path", type=click.Path(path_type=Path, dir_okay=False), help="TOML file.")
@click.option("--force", is_flag=True, help="Even if there is a store; it is moved aside.")
@click.option("--json", "as_json", is_flag=True)
def restore(src: Path, data_dir: str | None, path: Path | None, force: bool, as_json: bool) -> None:
    """Put the backup SRC in the place of the store; the service must be stopped."""
    settings = _settings({"data_dir": data_dir}, path)
    from actors import show
    from actors.backup import BackupError
    from actors.backup import restore as put_back

    try:
        done = put_back(src.absolute(), settings, force=force)
    except BackupError as error:
        click.echo(f"holdfast: {error}", err=True)
        sys.exit(error.exit_code)
    aside = f"; what was there is in {done['moved_aside']}" if done["moved_aside"] else ""
    show.data(done, as_json, f"{done['data_dir']}  {done['sessions']} sessions{aside}")
    show.say("holdfast: tokens revoked since the backup are valid again; what ran then waits its grace for its wrapper")


# -------------------------------------------------------------------- exit codes


def main(argv: list[str] | None = None) -> None:
    try:
        cli.main(args=argv, prog_name="holdfast", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(EXIT_USAGE)
    except click.ClickException as error:
        error.show()
        sys.exit(EXIT_USAGE if isinstance(error, click.UsageError) else EXIT_FAILURE)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:  # `holdfast … | head`: the reader has what it wanted
        sys.stderr.close()
        sys.exit(EXIT_OK)


if __name__ == "__main__":
    main()
