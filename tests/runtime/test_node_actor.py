"""The node's own actor, by real processes: it comes up with work, is nobody's loss when it is killed, and leaves."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest

from actors.config import Settings
from actors.protocol.codes import SUBPROTOCOL
from actors.runtime import placement_name
from actors.store.sqlite import SqliteStore
from tests.gateway.house import Socket, eventually, node_hello, result
from tests.runtime.conftest import Up


def test_a_node_has_an_actor_of_its_own_or_a_place_in_a_cell_and_a_task_has_none() -> None:
    shared = Settings(session_placement="shared:3")
    assert placement_name("node/arm", Settings()) == "node/arm"
    assert placement_name("node/arm", shared) == "session-cell/0"
    assert placement_name("task/t", Settings()) is None and placement_name("task/t", shared) is None


def actor_pid(up: Up, name: str) -> int | None:
    store = SqliteStore.open(up.data_dir / "holdfast.db", Settings().policy())
    try:
        return next((row.pid for row in store.actors_awake() if row.name == name), None)
    finally:
        store.close()


class Station:
    """A node of a running `up`, and callers of it; the test plays the device."""

    def __init__(self, up: Up, client: aiohttp.ClientSession, node_id: str) -> None:
        self.up, self.client, self.node_id = up, client, node_id
        self.path = f"{up.url}/v1/nodes/{node_id}"

    async def connect(self) -> Socket:
        ws = await self.client.ws_connect(self.path + "/connect", protocols=(SUBPROTOCOL,))
        socket = Socket(ws)
        await socket.say(node_hello())
        socket.hello_ack = await socket.hear("hello_ack")
        return socket

    def invoke(self, **body: Any) -> asyncio.Task[dict[str, Any]]:
        return asyncio.create_task(self._invoke({"command": "echo", **body}))

    async def _invoke(self, body: dict[str, Any]) -> dict[str, Any]:
        async with self.client.post(self.path + "/invoke", json=body) as answer:
            told: dict[str, Any] = await answer.json()
            assert answer.status in (200, 202), told
            return told

    async def ask(self, socket: Socket, payload: Any = None) -> dict[str, Any]:
        calling = self.invoke()
        await socket.say(result(await socket.hear("invoke"), payload))
        return await calling

    async def awake(self, socket: Socket) -> int:
        """Asked until it is: a caller that finds a dead actor's row decides without it, and the next one wakes it."""

        async def there() -> int | None:
            await self.ask(socket)
            return actor_pid(self.up, f"node/{self.node_id}")

        pid: int = await eventually(there, 60, "the node's actor is awake")
        return pid


@pytest.fixture
async def client(holdfast: Up) -> Any:
    headers = {"Authorization": f"Bearer {holdfast.token}"}
    async with aiohttp.ClientSession(headers=headers) as session:
        yield session


@pytest.mark.ray
async def test_the_actor_comes_with_work_and_leaves_when_nobody_asks(
    holdfast: Up, client: aiohttp.ClientSession
) -> None:
    station = Station(holdfast, client, "worker")
    socket = await station.connect()
    assert actor_pid(holdfast, "node/worker") is None, "a connect wakes nobody"
    assert (await station.ask(socket, 1))["payload"] == 1
    pid = await station.awake(socket)
    assert (await station.ask(socket, 2))["payload"] == 2  # by way of the actor
    await eventually(lambda: actor_pid(holdfast, "node/worker") is None, 30, "it has said that it sleeps")
    await eventually(lambda: not os.path.exists(f"/proc/{pid}"), 10, "its process is gone")
    assert (await station.ask(socket, 3))["payload"] == 3


@pytest.mark.ray
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "frozen"])
async def test_an_actor_that_falls_in_the_middle_of_an_invocation_is_nobodys_loss(
    holdfast: Up, client: aiohttp.ClientSession, how: signal.Signals
) -> None:
    station = Station(holdfast, client, f"victim-{how.name.lower()}")
    socket = await station.connect()
    for n in range(3):
        pid = await station.awake(socket)
        await asyncio.sleep(1.1)  # the gateway's belief is a second old at most
        calling = station.invoke(params=n, timeout_s=60)
        asked = await socket.hear("invoke")
        os.kill(pid, how)
        await socket.say(result(asked, {"n": n}))
        told = await asyncio.wait_for(calling, 20)
        assert (told["ok"], told["payload"]) == (True, {"n": n})
        async with client.get(station.path) as answer:
            node = await answer.json()
        assert node["connected"] and node["presence"]["reason"] == "connect"
    async with client.get(station.path + "/events", params={"limit": "500"}) as answer:
        log = (await answer.json())["items"]
    assert [e["type"] for e in log if e["type"] != "node.command"] == ["node.connected"]


@pytest.mark.ray
async def test_nodes_live_in_cells_where_sessions_do(make_up: Callable[..., Up]) -> None:
    up = make_up(session_placement="shared:1").start()
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {up.token}"}) as client:
        station = Station(up, client, "arm")
        socket = await station.connect()
        for n in range(5):
            assert (await station.ask(socket, n))["payload"] == n
            await eventually(lambda: actor_pid(up, "session-cell/0"), 30, "the cell is awake")
        assert actor_pid(up, "node/arm") is None
