"""The command line of nodes without a service: what it costs, what it refuses, and how it waits for a gateway."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from actors.http_client import Client, Problem
from tests.runtime.conftest import ROOT
from tests.runtime.test_cli import helps_at_once, nobody_is_there, offline

GROUPS = ("node", "invocation", "task")


@pytest.mark.parametrize("argv", [("node",), ("node", "invoke"), ("node", "fake"), ("task", "finish"), ("invocation",)])
def test_help_answers_at_once(argv: tuple[str, ...], tmp_path: Path) -> None:
    helps_at_once(*argv, home=tmp_path)


def test_the_commands_of_nodes_are_imported_when_asked_for_and_nothing_heavy_then(tmp_path: Path) -> None:
    script = (
        "import sys, actors.cli as c; assert 'actors.cli_nodes' not in sys.modules\n"
        "c.cli.get_command(None, 'node')\n"
        "print({'ray', 'aiohttp', 'pydantic', 'pysqlite3', 'wrapper'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=os.environ | {"PYTHONPATH": str(ROOT)}, text=True, capture_output=True
    )
    assert done.stdout == "set()\n", done.stderr
    said = offline("--help", home=tmp_path).stdout
    assert all(f"\n  {group} " in said for group in GROUPS)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("node", "show", "not an id"), "is not an id"),
        (("node", "invoke", "n1"), "Missing argument 'COMMAND'"),
        (("node", "invoke", "n1", "echo", "{not json"), "PARAMS is not JSON"),
        (("node", "invoke", "n1", "echo", "--role", "cook"), "'cook' is not one of"),
        (("node", "fake", "n1", "--fault", "nowhere=die"), "there is no point 'nowhere'"),
        (("node", "allow", "n1", "echo", "--any"), "either patterns, or --any"),
        (("node", "join", "n1"), "--save"),
        (("node", "join", "n1", "--save", "t", "--url", "localhost"), "is not a URL"),
        (("task", "list", "--status", "lost"), "'lost' is not one of"),
        (("task", "begin", "t1", "--attempt", "0"), "0 is not in the range"),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error_with_a_reason(argv: tuple[str, ...], words: str, tmp_path: Path) -> None:
    done = offline(*argv, home=tmp_path, HOLDFAST_TOKEN="x", HOLDFAST_URL="http://127.0.0.1:9")
    assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_nobody_there_is_5_and_says_what_to_do(tmp_path: Path) -> None:
    nobody_is_there(
        ("node", "list"), ("node", "prove"), ("node", "invoke", "n1", "echo"), ("task", "list"), home=tmp_path
    )


def test_a_device_without_a_code_asks_nobody_and_leaves_nothing(tmp_path: Path) -> None:
    where = ("--url", "http://127.0.0.1:9", "--save", str(tmp_path / "kept" / "token"))
    done = offline("node", "join", "robot-7", *where, home=tmp_path, HOLDFAST_ENROLMENT_CODE=" ")
    assert done.returncode == 2 and "no enrolment code" in done.stderr and not (tmp_path / "kept").exists()


def test_the_faults_are_listed_without_a_node(tmp_path: Path) -> None:
    done = offline("node", "fake", "--faults", home=tmp_path)
    assert done.returncode == 0 and "uploaded" in done.stdout and "SIGKILL" in done.stdout


# ---------------------------------------------------------------- waiting through a gateway's death

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Gateway:
    """Takes a request, thinks, and dies under it `deaths` times; the next one is answered."""

    def __init__(self, deaths: int, thinks_s: float) -> None:
        self.deaths, self.thinks_s, self.keys = deaths, thinks_s, list[str]()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.keys.append(request.headers["Idempotency-Key"])
        if len(self.keys) <= self.deaths:
            await asyncio.sleep(self.thinks_s)
            assert request.transport is not None
            request.transport.abort()
        return web.json_response({"after": len(self.keys)})

    async def __aenter__(self) -> str:
        return await self.open(0)

    async def open(self, port: int) -> str:
        app = web.Application()
        app.router.add_post("/v1/slow", self.handle)
        self.runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", port)
        await site.start()
        return f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"  # type: ignore[union-attr]

    async def __aexit__(self, *_: object) -> None:
        await self.runner.cleanup()


async def test_a_request_that_waited_longer_than_patience_is_repeated_with_its_key_when_the_gateway_dies() -> None:
    gateway = Gateway(deaths=2, thinks_s=0.6)
    async with gateway as url, Client(url, "x", patience_s=0.4) as client:
        assert await client.post("/v1/slow", {}, key="mine", within_s=10.0) == {"after": 3}
    assert gateway.keys == ["mine"] * 3


async def test_a_gateway_that_comes_back_late_is_waited_for_as_long_as_was_said() -> None:
    gateway = Gateway(deaths=1, thinks_s=0.2)
    async with Client("http://127.0.0.1:1", "x", patience_s=0.3) as client:
        client.url = await gateway.__aenter__()
        port = int(client.url.rpartition(":")[2])
        asking = asyncio.create_task(client.post("/v1/slow", {}, within_s=10.0, back_within_s=20.0))
        while not gateway.keys:
            await asyncio.sleep(0.01)
        await gateway.__aexit__()  # and the door is shut
        await asyncio.sleep(1.0)  # the outage itself: above the patience
        await gateway.open(port)
        assert await asking == {"after": 2}
        await gateway.__aexit__()


async def test_a_gateway_that_dies_again_and_again_is_given_up_within_the_time_that_was_given() -> None:
    gateway = Gateway(deaths=1000, thinks_s=0.1)
    began = time.monotonic()
    async with gateway as url, Client(url, "x", patience_s=0.4) as client:
        with pytest.raises(Problem) as given_up:
            await client.post("/v1/slow", {}, key="mine", within_s=1.0)
    assert given_up.value.code == "unreachable" and time.monotonic() - began < 10
    assert len(gateway.keys) >= 2 and set(gateway.keys) == {"mine"}


async def test_what_became_of_a_request_is_unknown_only_if_somebody_had_it() -> None:
    async with Gateway(deaths=1000, thinks_s=0.01) as url, Client(url, "x", patience_s=0.2) as client:
        with pytest.raises(Problem) as died:
            await client.post("/v1/slow", {}, within_s=1.0)
        with pytest.raises(Problem) as refused:
            await client.post("/v1/nothing", {}, within_s=1.0)
        client.url = "http://127.0.0.1:9"
        with pytest.raises(Problem) as away:
            await client.post("/v1/slow", {}, within_s=1.0)
    assert (died.value.unknown, refused.value.unknown, away.value.unknown) == (True, False, False)


class Service:
    """Takes an invocation, and is away from then on: at once, or when it has told its id."""

    def __init__(self, *, tells: bool) -> None:
        self.tells, self.keys = tells, set[str]()

    async def take(self, request: web.Request) -> web.StreamResponse:
        self.keys.add(request.headers["Idempotency-Key"])
        if not self.tells:
            assert request.transport is not None
            request.transport.abort()
        return web.json_response({"invocation_id": "inv_1", "state": "dispatched", "ok": None}, status=202)

    async def show(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"status": 503, "code": "storage_unavailable"}, status=503)


@pytest.mark.parametrize("tells", [False, True])
async def test_an_invocation_whose_outcome_is_not_heard_may_have_been_executed(
    tells: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """5 would say that asking again is safe."""
    from actors.operate_nodes import invoke

    service = Service(tells=tells)
    app = web.Application()
    app.router.add_post("/v1/nodes/n/invoke", service.take)
    app.router.add_get("/v1/invocations/inv_1", service.show)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"  # type: ignore[union-attr]
    given: dict[str, Any] = dict.fromkeys(("role", "idle_timeout_s", "expected_connection_id", "key"))
    async with Client(url, "x", patience_s=0.2) as client:
        code = await invoke(
            client, "n", "echo", None, timeout_s=0.1, wait=True, as_json=False, back_within_s=0.5, **given
        )
    await runner.cleanup()
    said = capsys.readouterr().err
    assert code == 1 and "may have been executed" in said
    assert (f"--key {next(iter(service.keys))} " in said) if not tells else ("invocation show inv_1" in said)


async def test_a_gateway_that_never_was_there_is_given_up_after_patience() -> None:
    began = time.monotonic()
    async with Client("http://127.0.0.1:9", "x", patience_s=0.4) as client:
        with pytest.raises(Problem):
            await client.post("/v1/slow", {}, within_s=60.0)
    assert time.monotonic() - began < 5


def test_a_claim_outlives_the_device_that_made_it(tmp_path: Path) -> None:
    """It dies while it waits for the operator, and asks on with the same claim: one enrolment, not two."""

    async def story() -> None:
        from actors.operate_nodes import join

        asked: list[dict[str, str]] = []
        decided = asyncio.Event()

        async def enrol(request: web.Request) -> web.Response:
            asked.append(await request.json())
            return web.json_response({"enrolment_id": "enr_1", "claim": asked[-1]["claim"], "state": "pending"})

        async def claim(request: web.Request) -> web.Response:
            assert (await request.json())["claim"] == asked[0]["claim"]
            state = "approved" if decided.is_set() else "pending"
            return web.json_response({"state": state, "node_id": "n1", "token": "tok" if decided.is_set() else None})

        app = web.Application()
        app.router.add_post("/v1/enrolments", enrol)
        app.router.add_post("/v1/enrolments/enr_1/claim", claim)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"  # type: ignore[union-attr]
        file = tmp_path / "device" / "token"
        async with Client(url, "none") as client:
            assert await join(client, "n1", "CODE", file, name=None, commands=(), wait=False) == 5
            decided.set()
            assert await join(client, "n1", "", file, name=None, commands=(), wait=True) == 0
        await runner.cleanup()
        assert len(asked) == 1 and file.read_text() == "tok\n" and file.stat().st_mode & 0o777 == 0o600
        assert [path.name for path in file.parent.iterdir()] == ["token"], "the claim is gone"

    asyncio.run(story())


def test_a_token_that_cannot_be_kept_is_said_before_anybody_is_asked(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    argv = ("node", "join", "n1", "--save", str(tmp_path / "file" / "token"), "--url", "http://127.0.0.1:9")
    done = offline(*argv, home=tmp_path, HOLDFAST_ENROLMENT_CODE="X")
    assert done.returncode == 1 and "cannot be kept" in done.stderr and "Traceback" not in done.stderr, done.stderr


async def test_a_log_that_is_followed_goes_on_through_a_restart_and_a_new_life_of_the_node(
    capsys: pytest.CaptureFixture[str],
) -> None:
    from actors.operate_nodes import events

    logs = {"old": 3, "new": 1}
    life, away = "old", 0

    async def log(request: web.Request) -> web.StreamResponse:
        nonlocal life, away
        after = int(request.query.get("after_seq", 0))
        if life == "old" and after == 3:
            away += 1
            if away == 1:
                return web.json_response({"status": 503, "code": "unavailable", "detail": "restarting"}, status=503)
            life = "new"
        items = [{"seq": n, "type": f"of.{life}", "ts_ms": 0, "data": {}} for n in range(after + 1, logs[life] + 1)]
        return web.json_response({"items": items, "next_after_seq": 0, "first_seq": 1, "last_seq": logs[life]})

    app = web.Application()
    app.router.add_get("/v1/nodes/n/events", log)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"  # type: ignore[union-attr]
    told = ""
    async with Client(url, "x", patience_s=0.0) as client:
        following = asyncio.create_task(events(client, "n", after_seq=0, limit=50, follow=True, as_json=True))
        async with asyncio.timeout(20):
            while "of.new" not in told:
                assert not following.done(), following
                await asyncio.sleep(0.01)
                told += capsys.readouterr().out
        following.cancel()
    await runner.cleanup()
    assert [json.loads(line)["type"] for line in told.splitlines()] == ["of.old"] * 3 + ["of.new"]
    assert away == 2


def test_json_is_what_programs_get(tmp_path: Path) -> None:
    """An outcome that is an error is data for a program, and a message for a person."""
    script = (
        "from actors.operate_nodes import tell\n"
        "error = {'code': 'TIMEOUT', 'message': 'no result in time', 'dispatched': True}\n"
        "told = {'invocation_id': 'i1', 'ok': False, 'error': error, 'payload': None, 'state': 'settled'}\n"
        "tell(told, True); tell(told, False)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=os.environ | {"PYTHONPATH": str(ROOT)}, text=True, capture_output=True
    )
    assert json.loads(done.stdout)["error"]["code"] == "TIMEOUT"
    assert done.stderr == "holdfast: i1 TIMEOUT: no result in time (it may have been executed)\n"


@pytest.mark.parametrize(
    ("code", "dispatched", "expected"),
    [
        ("NOT_CONNECTED", False, 5),
        ("UNAVAILABLE", False, 5),
        ("UNAVAILABLE", True, 1),
        ("ROUTE_CHANGED", False, 4),
        ("NOT_ALLOWED", False, 1),
        ("DISCONNECTED", True, 1),
        ("DISCONNECTED", False, 5),
        ("TIMEOUT", False, 5),
        ("CANCELLED", False, 1),
        ("NODE_ERROR", True, 1),
    ],
)
def test_only_what_was_certainly_not_executed_says_try_again(code: str, dispatched: bool, expected: int) -> None:
    from actors.operate_nodes import exit_code

    assert exit_code({"error": {"code": code, "dispatched": dispatched}}) == expected


def test_a_token_file_that_is_being_replaced_is_waited_for_and_one_that_never_was_is_an_error(tmp_path: Path) -> None:
    from actors.cli_base import Where

    file = tmp_path / "token"
    where = Where("http://127.0.0.1:9", None, str(file), None)
    with pytest.raises(Problem):
        where.url_and_token()
    file.write_text("one\n")
    _, token = where.url_and_token()
    assert token() == "one"
    file.unlink()
    with pytest.raises(OSError, match="cannot be read"):
        token()
    file.write_text("two\n")
    assert token() == "two"
