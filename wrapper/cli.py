"""`holdfast-wrapper`: the command line. Nothing heavy is imported before it is needed; --help stays under 200 ms."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import click

from actors.protocol.codes import (
    CLOSE,
    EXIT_CONFLICT,
    EXIT_FAILURE,
    EXIT_INTERRUPTED,
    EXIT_NOT_FOUND,
    EXIT_OK,
    EXIT_UNAVAILABLE,
)
from actors.protocol.defaults import ORPHAN_AFTER_S, SPOOL_LIMIT_BYTES
from actors.protocol.ids import valid_id
from actors.protocol.urls import is_service_url
from wrapper import VERSION

EXIT_OF_CLOSE = {
    CLOSE["normal"]: EXIT_OK,
    CLOSE["session_closed"]: EXIT_NOT_FOUND,
    CLOSE["superseded"]: EXIT_CONFLICT,
    CLOSE["not_found"]: EXIT_NOT_FOUND,
}
WORDS_OF_CLOSE = {
    CLOSE["session_closed"]: "the session was deleted",
    CLOSE["not_found"]: "there is no such session; `holdfast session create` makes one",
    CLOSE["superseded"]: "another wrapper took the session over",
    CLOSE["not_authenticated"]: "the service does not know this token: --token-file, or HOLDFAST_TOKEN",
    CLOSE["not_allowed"]: "this token may not do that",
}
FINAL_LOST = (CLOSE["session_closed"], CLOSE["not_found"])

EPILOG = """\b
Signals:
  SIGTERM  (and SIGHUP) stop for an upgrade: the wrapper exits, the agent goes on under its shim until the next wrapper
           on this spool adopts it, or is ended after --orphan-after.
  SIGINT   end the agent by the ladder (SIGINT, SIGTERM, SIGKILL), report it, exit 130. Again: by force. A third one
           kills it at once.
\b
Exit codes: 0 done or detached, 1 failure (not authenticated, protocol), 2 usage, 3 no such session,
  or it was deleted, 4 superseded or spool in use, 5 --once was not fulfilled, 130 interrupted.
\b
The agent finds HOLDFAST_INPUT (up to 96 KiB), HOLDFAST_INPUT_FILE, HOLDFAST_EXECUTION_ID and
HOLDFAST_SESSION_ID in its environment, and the input on stdin.
"""


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}, epilog=EPILOG)
@click.option("--url", envvar="HOLDFAST_URL", required=True, help="Where Holdfast is, e.g. http://127.0.0.1:8420.")
@click.option("--session", "session_id", envvar="HOLDFAST_SESSION", required=True, help="The session to serve.")
@click.option(
    "--token-file",
    envvar="HOLDFAST_TOKEN_FILE",
    help="File with the token, read at each connect.  [else HOLDFAST_TOKEN]",
)
@click.option("--spool-dir", envvar="HOLDFAST_SPOOL_DIR", help="Default: ~/.local/state/holdfast/wrapper/SESSION.")
@click.option("--once", is_flag=True, help="End after one execution whose final is acknowledged.")
@click.option(
    "--events",
    type=click.Choice(["plain", "jsonl"]),
    default="plain",
    show_default=True,
    help="What the agent speaks on stdout.",
)
@click.option(
    "--stdin",
    type=click.Choice(["close", "keep"]),
    help="After the input: close it, or keep it for more.  [default: keep for jsonl, else close]",
)
@click.option(
    "--spool-limit",
    type=click.IntRange(1 << 16),
    default=SPOOL_LIMIT_BYTES,
    metavar="BYTES",
    help="Unacknowledged records on disk.  [default: 1 GiB]",
)
@click.option(
    "--spool-policy",
    type=click.Choice(["block", "trim"]),
    default="block",
    show_default=True,
    help="At the limit: the agent waits, or the oldest output goes.",
)
@click.option(
    "--orphan-after",
    type=click.FloatRange(min=0.1),
    default=ORPHAN_AFTER_S,
    show_default=True,
    metavar="S",
    help="An agent without a wrapper is ended after this.",
)
@click.version_option(VERSION, prog_name="holdfast-wrapper", message="%(prog)s %(version)s")
@click.option("-q", "--quiet", is_flag=True, help="Nothing on stderr but errors.")
@click.argument("argv", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- ARGV...")
def command(
    url: str,
    session_id: str,
    token_file: str | None,
    spool_dir: str | None,
    once: bool,
    events: str,
    stdin: str | None,
    spool_limit: int,
    spool_policy: str,
    orphan_after: float,
    quiet: bool,
    argv: tuple[str, ...],
) -> None:
    """Run ARGV for each execution of a session, and never lose what it says.

    Stays connected for ever. The command comes from this command line only; the server can start it, never choose it.
    """
    if not valid_id(session_id):
        raise click.BadParameter("ids match ^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$", param_hint="--session")
    if not is_service_url(url):
        raise click.BadParameter(f"{url!r} is not a URL of a service; write http://HOST:PORT", param_hint="--url")
    import asyncio
    import signal

    from wrapper.app import Ended, Settings, Wrapper
    from wrapper.connection import import_aiohttp
    from wrapper.process import settle
    from wrapper.spoolfile import SpoolError, SpoolLocked
    from wrapper.telemetry import silent, to_stderr

    import_aiohttp(url)
    settings = Settings(
        url=url,
        session_id=session_id,
        argv=argv,
        spool_dir=spool_dir or default_spool_dir(session_id),
        token=token_source(token_file),
        once=once,
        events=events,
        keep_stdin=None if stdin is None else stdin == "keep",
        spool_limit_bytes=spool_limit,
        spool_policy="trim" if spool_policy == "trim" else "block",
        orphan_after_s=orphan_after,
    )

    async def serve() -> tuple[Ended, bool]:
        settle()
        wrapper = Wrapper(settings, silent if quiet else to_stderr)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, wrapper.terminate)
        loop.add_signal_handler(signal.SIGINT, wrapper.interrupt)
        ended = await wrapper.run()
        return ended, wrapper.final is not None and not wrapper.final_acked

    try:
        ended, untold = asyncio.run(serve())
    except SpoolLocked as error:
        _fail(str(error), EXIT_CONFLICT)
    except (SpoolError, OSError) as error:
        _fail(str(error), EXIT_FAILURE)
    code = exit_code(ended.why, ended.close_code, once)
    if ended.why == "stopped" and code != EXIT_OK:
        words = WORDS_OF_CLOSE.get(ended.close_code or 0, f"told not to come back: {ended.reason}")
        lost = untold and ended.close_code in FINAL_LOST
        _fail(words + ("; the end of its execution can never be delivered" if lost else ""), code)
    sys.exit(code)


def exit_code(why: str, close_code: int | None, once: bool) -> int:
    match why:
        case "once":
            return EXIT_OK
        case "interrupted":
            return EXIT_INTERRUPTED
        case "detached":
            return EXIT_UNAVAILABLE if once else EXIT_OK
        case _:
            return EXIT_OF_CLOSE.get(close_code or 0, EXIT_FAILURE)


def default_spool_dir(session_id: str) -> str:
    state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return os.path.join(state, "holdfast", "wrapper", session_id)


def token_source(token_file: str | None) -> Callable[[], str]:
    """Reads the token anew each time. Raises OSError while a token file is missing or empty (it is being replaced):
    a connect without a token would be refused for good, and the agent ended for it."""

    def read() -> str:
        if token_file is None:
            return os.environ.get("HOLDFAST_TOKEN", "").strip()
        with open(token_file, encoding="utf-8") as file:
            token = file.read().strip()
        if not token:
            raise OSError(f"{token_file} is empty")
        return token

    return read


def _fail(message: str, code: int) -> None:
    click.echo(f"holdfast-wrapper: {message}", err=True)
    sys.exit(code)


def main() -> None:
    command(prog_name="holdfast-wrapper")


if __name__ == "__main__":
    main()
