"""Negative controls: the same proxy, recorders, dump and judge over services and clients that break a promise.

If one of these came out clean, a clean nemesis run would mean nothing. The service is the real gateway over the real
store, in this process; the liars are a wrapper, a subscriber and a store.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from actors.history import Observation, check, read
from actors.protocol.codes import SUBPROTOCOL
from actors.store.contract import GroupResult
from actors.store.sqlite import SqliteStore
from tests.gateway.house import TOKENS, House, Socket, eventually, final, hello, output, started
from tests.nemesis.clients import Subscriber
from tests.nemesis.dump import dump
from tests.nemesis.proxy import Link
from tests.nemesis.record import Recorder
from tests.nemesis.run import LIMITS

SID, EID = "s", "e"


class Scene:
    """One session through a Link, its agent's words, and a subscriber; `judge` is the end of it."""

    def __init__(self, house: House, folder: Path) -> None:
        self.house, self.folder = house, folder
        folder.mkdir()
        self.agent, self.line = Recorder(folder, f"agent-{EID}"), Recorder(folder, f"line-{SID}")

    @asynccontextmanager
    async def playing(self) -> AsyncIterator[Socket]:
        parts = urlsplit(self.house.url)
        upstream = (str(parts.hostname), int(parts.port or 0))
        link = self.link = await Link(SID, lambda: upstream, self.line).open()
        watcher = Subscriber(Recorder(self.folder, "watcher"), SID, lambda: self.house.url, lambda: TOKENS["reader"])
        await self.house.session(SID)
        watching = asyncio.create_task(watcher.run())
        try:
            async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {TOKENS['wrapper']}"}) as http:
                url = f"{link.url}/v1/sessions/{SID}/ingest"
                socket = Socket(await http.ws_connect(url, protocols=(SUBPROTOCOL,), compress=0))
                await socket.say(hello(), {"type": "ready"})
                await socket.hear("hello_ack")
                await self.house.submit(SID, EID)
                await socket.hear("command")
                await socket.say(started(EID))
                await socket.acked(1)
                self.agent.say("ran", session=SID, execution=EID)
                yield socket
                await socket.close()
            last = (await self.house.call("GET", f"/v1/sessions/{SID}"))["last_seq"]
            await eventually(lambda: watcher.cursor >= last, what="the watcher has read what stands")
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            await link.close()

    def writes(self, text: str) -> None:
        for what in ("writing", "wrote"):
            self.agent.say(what, session=SID, execution=EID, text=text)

    def history(self, *, settled: bool = True) -> list[Observation]:
        store = Recorder(self.folder, "store")
        dump(self.house.settings.store_path, store, LIMITS, settled=settled)
        return read(str(path) for path in self.folder.iterdir())


def codes(history: list[Observation]) -> set[str]:
    return {anomaly.code for anomaly in check(history)}


async def three_lines(scene: Scene, socket: Socket) -> None:
    """An honest wrapper: every line of the agent once, and its end."""
    for i in range(3):
        scene.writes(f"line {i}\n")
        await socket.say(output(2 + i, f"line {i}\n"))
    await socket.acked(4)
    scene.agent.say("exited", session=SID, execution=EID)
    await socket.say(final(5))
    await socket.acked(5)


async def test_honest_clients_are_clean_even_when_every_frame_is_doubled(tmp_path: Path) -> None:
    house = await House(tmp_path / "house").open()
    scene = Scene(house, tmp_path / "histories")
    async with scene.playing() as socket:
        scene.link.weather.double += 1
        await three_lines(scene, socket)
    await house.close()
    history = scene.history()
    assert scene.link.doubled == 4
    assert check(history) == []
    assert {"owned", "sent", "acked", "delivered", "stored", "wrote"} <= {o.what for o in history}


async def test_a_wrapper_that_resends_under_a_new_seq_is_found(tmp_path: Path) -> None:
    """Each number is right, the service did nothing wrong, and the agent's line stands twice."""
    house = await House(tmp_path / "house").open()
    scene = Scene(house, tmp_path / "histories")
    async with scene.playing() as socket:
        scene.writes("once\n")
        scene.writes("and again\n")
        await socket.say(output(2, "once\n"))
        await socket.acked(2)
        await socket.say(output(3, "once\n"))  # as if the ack had been lost, but not under its number
        await socket.say(output(4, "and again\n"), final(5))
        await socket.acked(5)
    await house.close()
    assert codes(scene.history()) == {"duplicate"}


async def test_a_wrapper_that_forgets_a_line_is_found(tmp_path: Path) -> None:
    house = await House(tmp_path / "house").open()
    scene = Scene(house, tmp_path / "histories")
    async with scene.playing() as socket:
        scene.writes("kept\n")
        scene.writes("forgotten\n")
        await socket.say(output(2, "kept\n"), final(3))
        await socket.acked(3)
    await house.close()
    assert codes(scene.history()) == {"lost"}


async def test_a_subscriber_whose_history_is_edited_is_found(tmp_path: Path) -> None:
    house = await House(tmp_path / "house").open()
    scene = Scene(house, tmp_path / "histories")
    async with scene.playing() as socket:
        await three_lines(scene, socket)
    await house.close()
    assert codes(scene.history()) == set()
    path = scene.folder / "watcher.jsonl"
    honest = [json.loads(line) for line in path.read_text().splitlines()]

    def edited(change: Any) -> set[str]:
        lines = json.loads(json.dumps(honest))
        change([line for line in lines if line["what"] == "delivered"])
        path.write_text("\n".join(json.dumps(line) for line in lines))
        return codes(read(str(p) for p in scene.folder.iterdir()))

    def merged(batches: list[Any]) -> list[Any]:
        """All in one batch, so that any two events can be touched."""
        everything = [event for batch in batches for event in batch["events"]]
        for batch in batches[1:]:
            batch["events"] = []
        batches[0]["events"] = everything
        return everything

    assert edited(merged) == set()
    assert edited(lambda batches: merged(batches).pop(2)) == {"gap"}
    assert edited(lambda batches: merged(batches).insert(3, [3, batches[0]["events"][2][1]])) == {"duplicate"}
    assert edited(lambda batches: merged(batches)[2].__setitem__(1, "0" * 16)) == {"divergence"}


class Hasty(SqliteStore):
    """Answers when it has written, and means to commit later: the oldest lie of stores. Killed, it has forgotten."""

    hasty = False

    def commit_group(self, jobs: Sequence[Any]) -> GroupResult:
        if not self.hasty:
            return super().commit_group(jobs)
        if not self._c.in_transaction:
            self._c.execute("begin immediate")
        return self._group(jobs)

    def tick(self, gateway_id: str) -> int:
        return 0 if self.hasty else super().tick(gateway_id)  # it would commit for us


class HastyHouse(House):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.stores: list[Hasty] = []

    def _store(self) -> SqliteStore:
        made = Hasty.open(self.settings.store_path, self.settings.policy(), checkpoints=True, synchronous="OFF")
        assert isinstance(made, Hasty)
        self.stores.append(made)
        return made


async def test_a_service_that_acks_before_its_commit_and_dies_is_found(tmp_path: Path) -> None:
    house = HastyHouse(tmp_path / "house")
    await house.open()
    scene = Scene(house, tmp_path / "histories")
    async with scene.playing() as socket:
        scene.writes("safe\n")
        await socket.say(output(2, "safe\n"))
        await socket.acked(2)
        house.stores[0].hasty = True
        scene.writes("promised\n")
        await socket.say(output(3, "promised\n"))
        await socket.acked(3)
    await house.close()  # the writer's connection ends inside its transaction: what a kill -9 leaves
    history = scene.history(settled=False)
    found = check(history)
    assert {a.code for a in found} >= {"ack_without_row"}, found
    assert {a.code for a in found} <= {"ack_without_row", "lost"}, found  # lost: the watcher was given it too
    (broken,) = [a for a in found if a.code == "ack_without_row"]
    assert broken.evidence[0]["seq"] == 3 and broken.evidence[0].what == "acked"
