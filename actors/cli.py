"""`holdfast`: the command line of server and operator. Nothing heavy is imported before a command needs it, so that
`--help` answers within 200 ms. Data on stdout, messages on stderr, exit codes of PROTOCOL §6.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from actors.cli_base import CONTEXT, ID, Group, Where, client_options
from actors.protocol.codes import EXIT_FAILURE, EXIT_INTERRUPTED, EXIT_OK, EXIT_USAGE
from actors.protocol.defaults import FINAL_WAIT_S

if TYPE_CHECKING:
    from actors.config import Settings
    from actors.http_client import Client

SERVER_PACKAGES = ("ray", "sqlite_utils", "orjson", "structlog")


# Groups whose module is imported when one of them is asked for.
LATER = {
    **dict.fromkeys(("session", "execution", "approval"), "actors.cli_sessions"),
    **dict.fromkeys(("node", "invocation", "task"), "actors.cli_nodes"),
    **dict.fromkeys(("order", "batch"), "actors.cli_orders"),
    **dict.fromkeys(("station", "collector"), "actors.cli_stations"),
    **dict.fromkeys(("token", "webhook", "audit"), "actors.cli_access"),
}


class _Groups(Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *LATER})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in LATER and cmd_name not in self.commands:
            self.add_command(getattr(import_module(LATER[cmd_name]), cmd_name))
        return super().get_command(ctx, cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if self.get_command(ctx, args[0]) is None:
            for name in LATER:  # click asks "did you mean" of those that are here
                self.get_command(ctx, name)
        return super().resolve_command(ctx, args)


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


@cli.group(cls=Group, context_settings=CONTEXT)
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
    shown = [(name, _as_written(name, row["value"]), row["from"]) for name, row in rows.items()]
    human = show.table(shown, ("SETTING", "VALUE", "FROM"))
    show.data(rows, as_json, human)


def _as_written(name: str, value: Any) -> object:
    """As a variable or the file would say it."""
    if value is None and name.endswith("_s"):
        return "off"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return (",".join(map(str, value)) or None) if isinstance(value, list | tuple) else value


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


# -------------------------------------------------------------------- the fleet, shells, backup


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
