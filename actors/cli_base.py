"""What the commands of `holdfast` share: their argument types, where the service is, and how a command ends.

Nothing heavy is imported before a command asks the service.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import os
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import click

from actors.addresses import find_url, token_path
from actors.protocol.ids import valid_id
from actors.protocol.urls import is_service_url

if TYPE_CHECKING:
    from actors.http_client import Client

Work = Callable[["Client"], Awaitable[int]]
CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}
WHOLE = 1000  # characters: more than any first sentence has


class Group(click.Group):
    """Lists its commands with their whole first sentence; click cuts it off at the edge of the terminal."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [(name, each.get_short_help_str(WHOLE)) for name, each in commands if each and not each.hidden]
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)


class IdType(click.ParamType[str]):
    name = "id"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not valid_id(value):
            self.fail(f"{value!r} is not an id: letters, digits, - and _, at most 64, the first no sign", param, ctx)
        return str(value)


class UrlType(click.ParamType[str]):
    name = "url"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not is_service_url(str(value)):
            self.fail(f"{value!r} is not a URL of a service; write http://HOST:PORT or https://HOST", param, ctx)
        return str(value)


class LabelType(click.ParamType[tuple[str, str]]):
    """K=V, as on a shell, or K:V, as in the API's `?label=`; the first of the two signs parts them."""

    name = "label"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        at = min((at for at in (str(value).find("="), str(value).find(":")) if at > 0), default=0)
        if not at:
            self.fail(f"{value!r} is not K=V", param, ctx)
        return value[:at], value[at + 1 :]


ID = IdType()
URL = UrlType()
LABEL = LabelType()
LIMIT = click.option("--limit", type=click.IntRange(1), default=50, show_default=True)


class Where:
    """Where the service is and who we are; resolved only when a command is about to ask."""

    def __init__(self, url: str | None, token: str | None, token_file: str | None, data_dir: str | None) -> None:
        self.url, self.token, self.token_file, self.data_dir = url, token, token_file, data_dir

    def import_client(self) -> None:
        """First of all, while there is one thread: 60 to 230 ms of certificates that nobody needs to ask this host."""
        from wrapper.connection import import_aiohttp

        gc.disable()  # what is imported stays; looking through it again and again took some 7 % of the time
        try:
            import_aiohttp(find_url(self.url, self.data_dir))
        finally:
            gc.freeze()
            gc.enable()

    def client(self) -> Client:
        from actors.http_client import Client, find_token

        token = find_token(self.token, self.token_file, self.data_dir, self.url)
        return Client(find_url(self.url, self.data_dir), token)

    def url_and_token(self) -> tuple[str, Callable[[], str]]:
        """For those who stay connected: the token is read anew each time, because it may be replaced; while it is, the
        function raises OSError. Raises Problem: there is none to begin with."""
        from actors.http_client import Problem, find_token

        find_token(self.token, self.token_file, self.data_dir, self.url)

        def token() -> str:
            try:
                return find_token(self.token, self.token_file, self.data_dir, self.url)
            except Problem as problem:
                raise OSError(problem.detail) from problem

        return find_url(self.url, self.data_dir), token

    def token_file_in_use(self) -> str | None:
        """None: the token came from the environment, and is there for the next command too."""
        return None if self.token else str(token_path(self.token_file, self.data_dir))

    def run(self, work: Work) -> None:
        """Exits with what `work` returns; a Problem becomes its message and its exit code."""
        from actors.http_client import Problem
        from actors.show import printable, say

        async def whole() -> int:
            async with self.client() as client:
                return await work(client)

        try:
            sys.exit(asyncio.run(whole()))
        except Problem as problem:
            say(f"holdfast: {problem.detail} [{problem.code}]")
            if numbers := problem.numbers():
                say(f"  {printable(numbers)}")
            if problem.hint:
                say(f"  {problem.hint}")
            sys.exit(problem.exit_code)


def client_options(command: Callable[..., None]) -> Callable[..., None]:
    """--url, --token-file, --data-dir and --json for every command that asks the service."""

    @click.option("--url", type=URL, envvar="HOLDFAST_URL", help="Where Holdfast is.  [default: the data directory's]")
    @click.option("--token-file", envvar="HOLDFAST_TOKEN_FILE", help="[default: DATA_DIR/token]")
    @click.option("--data-dir", envvar="HOLDFAST_DATA_DIR", help="Of the `up` on this machine.")
    @click.option("--json", "as_json", is_flag=True, help="For programs.")
    @functools.wraps(command)
    def wrapped(url: str | None, token_file: str | None, data_dir: str | None, **rest: Any) -> None:
        # No --token: others see arguments (DESIGN §8).
        where = Where(url, os.environ.get("HOLDFAST_TOKEN"), token_file, data_dir)
        where.import_client()
        command(where, **rest)

    return wrapped
