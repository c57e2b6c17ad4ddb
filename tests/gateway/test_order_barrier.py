"""Frames of one socket take effect in the order received, also where an actor in another process decides the control
frames: it shares neither the gateway's writer nor its queue, so only the lane keeps the order (DESIGN §1, Order).
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from actors.gateway.connection import Connection
from actors.law.requests import Final, Request, Started
from actors.store.contract import IdempotencyKey, Outcome
from actors.store.sqlite import SqliteStore
from tests.gateway.house import House, eventually, final, output, started, texts

BEAT = {"type": "heartbeat", "execution_id": "e", "busy": True}  # noted when it is read, whatever stands in the lane


class Actor:
    """An actor that is awake: a writer of its own on the same file. It may be made to wait before it decides."""

    def __init__(self, house: House) -> None:
        self.asked: list[Request] = []
        self.may_decide = asyncio.Event()
        self.may_decide.set()
        self._house = house
        self._store: SqliteStore | None = None

    def awake(self, session_id: str) -> bool:
        return True

    async def call(self, request: Request, key: IdempotencyKey | None, within_s: float) -> Outcome:
        self.asked.append(request)
        await self.may_decide.wait()
        if self._store is None:
            self._store = self._house._store()
        return await asyncio.to_thread(self._store.transact, request, key)

    def wake(self, session_id: str) -> None:
        return None

    def end_frozen(self, session_id: str) -> None:
        return None

    def close(self) -> None:
        if self._store is not None:
            self._store.close()


@pytest.fixture
async def staffed(tmp_path: Path) -> AsyncIterator[tuple[House, Actor]]:
    house = House(tmp_path)
    actor = Actor(house)
    house.actors = actor
    await house.open()
    yield house, actor
    await house.close()
    actor.close()


def connection_of(house: House) -> Connection:
    (connection,) = house.gateway.door.connections.values()
    return connection


async def read_so_far(connection: Connection) -> None:
    """Everything up to the BEAT that was sent last is read, and the lane has done with it what it can."""
    await eventually(lambda: connection.progressed)
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_control_frame_waits_until_every_event_before_it_is_committed(staffed: tuple[House, Actor]) -> None:
    house, actor = staffed
    wrapper = await house.running()
    await house.gateway.loops.stop()
    connection, release = connection_of(house), threading.Event()
    connection.progressed = False
    held = asyncio.ensure_future(house.worker.write(lambda store: release.wait(30)))
    try:
        await wrapper.say(output(2, "a", "b"), final(4), BEAT)
        await read_so_far(connection)
        assert house.worker.depth == 1, "the events wait for the writer"
        assert not [r for r in actor.asked if isinstance(r, Final)], "and the final waits for them"
    finally:
        release.set()
        await held
    await wrapper.acked(4)
    assert [f["type"] for f in wrapper.heard if f["type"] == "nack"] == []
    stored = await house.events()
    assert texts(stored) == ["a", "b"] and stored[-1]["type"] == "execution.completed"
    await wrapper.close()


async def test_events_wait_for_the_answer_to_the_control_frame_before_them(staffed: tuple[House, Actor]) -> None:
    house, actor = staffed
    await house.session()
    wrapper = await house.wrapper()
    await house.submit()
    await wrapper.hear("command")
    await house.gateway.loops.stop()
    connection = connection_of(house)
    connection.progressed = False
    actor.may_decide.clear()
    release = threading.Event()
    held = asyncio.ensure_future(house.worker.write(lambda store: release.wait(30)))
    try:
        await wrapper.say(started(), output(2, "a", "b"), BEAT)
        await read_so_far(connection)
        assert isinstance(actor.asked[-1], Started)
        assert house.worker.depth == 0, "no event was handed to the writer"
    finally:
        release.set()
        await held
        actor.may_decide.set()
    await wrapper.acked(3)
    assert [f["type"] for f in wrapper.heard if f["type"] == "nack"] == []
    assert texts(await house.events()) == ["a", "b"]
    await wrapper.close()


async def test_frames_received_before_a_close_are_applied_before_it(house: House) -> None:
    """Also those that have to wait: the events for the writer, the final for the events."""
    wrapper = await house.running()
    release = threading.Event()
    held = asyncio.ensure_future(house.worker.write(lambda store: release.wait(30)))
    try:
        await wrapper.say(output(2, "a"), final(3))
        await wrapper.close(4321)  # returns when the gateway has read it
    finally:
        release.set()
        await held

    async def gone() -> list[str]:
        types = [e["type"] for e in await house.events()]
        return types if "wrapper.disconnected" in types else []

    assert (await eventually(gone))[-3:] == ["output", "execution.completed", "wrapper.disconnected"]
