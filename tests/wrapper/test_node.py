"""The node client in this process, against a strict door: what it says, what it does with what it hears."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import pytest
from aiohttp import web

from tests.wrapper.conftest import eventually
from tests.wrapper.fake_nodes import Door
from wrapper.node import CALLS_AT_ONCE, Call, CallFailed, Device, Node, NodeEnded, NodeSettings


class Probe(Device):
    """Does as its commands say, and writes down what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.calls: list[Call] = []
        self.ended: list[str] = []
        self.state: Mapping[str, Any] | None = None
        self.rows: Sequence[Mapping[str, Any]] | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def invoke(self, call: Call) -> Any:
        self.calls.append(call)
        try:
            match call.command:
                case "echo":
                    return call.params
                case "count":
                    for n in range(3):
                        await call.progress({"n": n})
                    return "counted"
                case "big":
                    return "x" * (300 << 10)
                case "broken":
                    raise ZeroDivisionError("a bug")
                case "bytes":
                    return {"raw": b"\x00"}
                case "nan":
                    return {"mean": float("nan")}
                case "half":
                    return "half a \ud83d character"
                case "circle":
                    found: list[Any] = []
                    found.append(found)
                    return found
                case "unnameable":
                    raise FileNotFoundError(b"\xff.bin".decode(errors="surrogateescape"))
                case "big progress":
                    await call.progress("x" * (2 << 20))
                case "wait":
                    await asyncio.Event().wait()
            raise CallFailed("cannot")
        finally:
            self.ended.append(call.invocation_id)

    def reported(self) -> Mapping[str, Any] | None:
        return self.state

    def uploads(self) -> Sequence[Mapping[str, Any]] | None:
        return self.rows

    async def on_live(self) -> None:
        self.told.append(("live",))

    async def on_task(self, order: Mapping[str, Any]) -> None:
        await self.gate.wait()
        self.told.append(("task", order["action"], order["task_id"]))

    async def on_upload_request(self, task_id: str, attempt: int) -> None:
        self.told.append(("request", task_id, attempt))

    async def on_upload_ack(self, task_id: str, attempt: int, disposition: str) -> None:
        self.told.append(("ack", task_id, attempt, disposition))


class Running:
    def __init__(self, door: Door, **settings: Any) -> None:
        self.door, self.device, self.events = door, Probe(), list[str]()
        given: dict[str, Any] = {"token": lambda: "secret", "commands": ("echo", "count"), "backoff_s": (0.01,)}
        self.node = Node(
            NodeSettings(door.url, door.node_id, **{**given, **settings}),
            self.device,
            lambda name, **fields: self.events.append(name),
        )
        self.task: asyncio.Task[NodeEnded] | None = None

    async def live(self, times: int = 1) -> None:
        if self.task is None:
            self.task = asyncio.create_task(self.node.run())
        await eventually(lambda: len(self.door.hellos) >= times and self.node.connection_id == f"con_{times}")

    async def ended(self) -> NodeEnded:
        assert self.task is not None
        async with asyncio.timeout(10):
            return await self.task


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    made = Door()
    await made.start()
    yield made
    await made.stop()
    assert not made.complaints, made.complaints


@pytest.fixture
async def running(door: Door) -> AsyncIterator[Running]:
    it = Running(door)
    yield it
    if it.task is not None:
        it.node.leave()
        await it.ended()


async def test_hello_says_who_it_is_and_only_what_it_knows(door: Door, running: Running) -> None:
    await running.live()
    hello = door.hellos[0]
    assert door.tokens == ["Bearer secret"]
    assert (hello["attempt"], hello["commands"], hello["instance_id"]) == (
        1,
        ["echo", "count"],
        running.node.instance_id,
    )
    assert "reported" not in hello and "uploads" not in hello, "what is not said is not concluded from"
    running.device.state, running.device.rows = {"state": "idle"}, []
    door.cut("node")
    await running.live(2)
    again = door.hellos[1]
    assert (again["attempt"], again["instance_id"]) == (2, hello["instance_id"])
    assert (again["reported"], again["uploads"]) == ({"state": "idle"}, [])


async def test_a_call_is_answered_once_with_its_result(door: Door, running: Running) -> None:
    await running.live()
    await door.invoke("node", "inv_1", "echo", {"a": [1, None]}, idempotency_key="k")
    await door.invoke("node", "inv_2", "count")
    await eventually(lambda: len(door.results) == 2)
    assert door.results["inv_1"] == {
        "type": "invoke_result",
        "invocation_id": "inv_1",
        "ok": True,
        "payload": {"a": [1, None]},
    }
    assert [(f["seq"], f["payload"]["n"]) for f in door.of_type("invoke_progress")] == [(1, 0), (2, 1), (3, 2)]
    assert running.device.calls[0].idempotency_key == "k"
    assert len(door.of_type("invoke_result")) == 2


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("nothing", "cannot"),
        ("broken", "ZeroDivisionError: a bug"),
        ("big", "payload too large"),
        ("bytes", "not JSON"),
        ("nan", "not JSON"),
        ("half", "not JSON"),
        ("circle", "not JSON"),
        ("unnameable", "FileNotFoundError"),
        ("big progress", "payload too large"),
    ],
)
async def test_a_call_that_fails_is_that_callers_error(door: Door, running: Running, command: str, words: str) -> None:
    await running.live()
    await door.invoke("node", "inv_1", command)
    await eventually(lambda: "inv_1" in door.results)
    assert door.results["inv_1"]["ok"] is False and words in door.results["inv_1"]["error"]["message"]
    await door.invoke("node", "inv_2", "echo", 1)
    await eventually(lambda: door.results.get("inv_2", {}).get("payload") == 1)
    assert len(door.hellos) == 1, "nobody else's call pays for it"


async def test_a_cancelled_call_ends_and_says_nothing(door: Door, running: Running) -> None:
    await running.live()
    await door.invoke("node", "inv_1", "wait")
    await eventually(lambda: running.device.calls)
    await door.say("node", {"type": "invoke_cancel", "invocation_id": "inv_1"})
    await eventually(lambda: running.device.ended == ["inv_1"])
    await door.say("node", {"type": "invoke_cancel", "invocation_id": "never heard of"})
    await door.invoke("node", "inv_2", "echo", 2)
    await eventually(lambda: "inv_2" in door.results)
    assert "inv_1" not in door.results


async def test_the_same_invocation_twice_runs_once(door: Door, running: Running) -> None:
    await running.live()
    await door.invoke("node", "inv_1", "wait")
    await door.invoke("node", "inv_1", "wait")
    await door.invoke("node", "inv_2", "echo")
    await eventually(lambda: "inv_2" in door.results)
    assert [call.invocation_id for call in running.device.calls] == ["inv_1", "inv_2"]


async def test_more_calls_than_it_can_hold_are_refused_at_once(door: Door, running: Running) -> None:
    await running.live()
    for n in range(CALLS_AT_ONCE + 1):
        await door.invoke("node", f"inv_{n}", "wait")
    await eventually(lambda: door.results)
    assert "busy" in door.results[f"inv_{CALLS_AT_ONCE}"]["error"]["message"]
    assert len(running.device.calls) == CALLS_AT_ONCE


async def test_a_call_ends_with_its_connection_and_is_never_answered_on_another(door: Door, running: Running) -> None:
    await running.live()
    await door.invoke("node", "inv_1", "wait")
    await eventually(lambda: running.device.calls)
    door.cut("node")
    await running.live(2)
    assert running.device.ended == ["inv_1"] and door.results == {}


async def test_orders_come_in_order_and_directives_first(door: Door, running: Running) -> None:
    door.directives = [
        {"type": "task", "action": "cancel", "task_id": "t0", "attempt": 1, "params": None},
        {"type": "upload_ack", "task_id": "t0", "attempt": 1, "disposition": "discard"},
    ]
    await running.live()
    await door.say("node", {"type": "task", "action": "config", "task_id": "t1", "attempt": 1, "params": {}})
    await door.say("node", {"type": "upload_request", "task_id": "t1", "attempt": 1})
    await eventually(lambda: len(running.device.told) == 5)
    assert running.device.told == [
        ("live",),
        ("task", "cancel", "t0"),
        ("ack", "t0", 1, "discard"),
        ("task", "config", "t1"),
        ("request", "t1", 1),
    ]


async def test_an_order_that_takes_its_time_keeps_nobody_from_reading(door: Door, running: Running) -> None:
    await running.live()
    running.device.gate.clear()
    await door.say("node", {"type": "task", "action": "config", "task_id": "t1", "attempt": 1, "params": {}})
    await door.invoke("node", "inv_1", "echo", 1)
    await eventually(lambda: "inv_1" in door.results)
    assert running.device.told == [("live",)]
    running.device.gate.set()
    await eventually(lambda: len(running.device.told) == 2)


async def test_orders_of_a_connection_that_is_gone_are_dropped(door: Door, running: Running) -> None:
    """The service sends again what still holds; an old order after a new one would turn back the clock."""
    await running.live()
    running.device.gate.clear()
    for name in ("t1", "t2"):
        await door.say("node", {"type": "task", "action": "config", "task_id": name, "attempt": 1, "params": {}})
    await door.invoke("node", "inv_1", "echo", 1)
    await eventually(lambda: "inv_1" in door.results)
    door.cut("node")
    await eventually(lambda: running.node.connection_id is None)
    await running.live(2)
    running.device.gate.set()
    await door.say("node", {"type": "upload_request", "task_id": "t3", "attempt": 1})
    await eventually(lambda: ("request", "t3", 1) in running.device.told)
    assert ("task", "config", "t1") in running.device.told, "the one at hand is finished"
    assert ("task", "config", "t2") not in running.device.told


async def test_a_probe_is_answered_by_the_state_and_silence_is_not_a_state(door: Door, running: Running) -> None:
    await running.live()
    await door.say("node", {"type": "probe"})
    await door.invoke("node", "inv_1", "echo", 1)
    await eventually(lambda: "inv_1" in door.results)
    running.device.state = {"state": "ready", "task_id": "t1", "attempt": 2}
    await door.say("node", {"type": "probe"})
    await eventually(lambda: door.of_type("state"))
    assert [f["reported"] for f in door.of_type("state")] == [{"state": "ready", "task_id": "t1", "attempt": 2}]


async def test_it_shows_life_and_a_role_with_a_state_repeats_it(door: Door) -> None:
    plain, recorder = Running(door), Running(door, role="recorder", report_every_s=0.05)
    recorder.device.state = {"state": "idle"}
    tasks = [asyncio.create_task(one.node.run()) for one in (plain, recorder)]
    await eventually(lambda: door.of_type("heartbeat") and len(door.of_type("state")) >= 2)
    for one in (plain, recorder):
        one.node.leave()
    assert [ended.why for ended in await asyncio.gather(*tasks)] == ["left", "left"]


@pytest.mark.parametrize("code", [4001, 4004, 4403, 4000])
async def test_told_not_to_come_back_it_does_not(door: Door, running: Running, code: int) -> None:
    await running.live()
    await door.close("node", code, "as scripted")
    assert await running.ended() == NodeEnded("stopped", code, "as scripted")
    assert len(door.hellos) == 1


@pytest.mark.parametrize("code", [1001, 1012, 1013, 4009, 4429])
async def test_any_other_close_brings_it_back_with_a_greater_attempt(door: Door, running: Running, code: int) -> None:
    await running.live()
    await door.close("node", code)
    await running.live(2)
    assert [hello["attempt"] for hello in door.hellos] == [1, 2]


async def test_a_refused_upgrade_of_ours_is_a_word_and_ends_it(door: Door) -> None:
    door.refuse = web.Response(status=404)
    running = Running(door)
    running.task = asyncio.create_task(running.node.run())
    assert (await running.ended()).close_code == 4004


async def test_a_token_that_cannot_be_read_is_waited_for(door: Door) -> None:
    tokens: list[str] = []

    def token() -> str:
        if not tokens:
            tokens.append("new")
            raise OSError("it is being replaced")
        return tokens[0]

    running = Running(door, token=token)
    running.task = asyncio.create_task(running.node.run())
    await eventually(lambda: running.node.connection_id)
    assert door.tokens == ["Bearer new"] and running.node.attempt == 2
    running.node.leave()
    await running.ended()


async def test_what_it_does_not_know_changes_nothing(door: Door, running: Running) -> None:
    await running.live()
    await door.say("node", {"type": "of a later version", "task_id": "t1"})
    await door.say("node", {"type": "error", "code": "foreign_task", "message": "not yours"})
    await door.say("node", {"type": "ignored", "invocation_id": "inv_0"})
    await door.invoke("node", "inv_1", "echo", 1)
    await eventually(lambda: "inv_1" in door.results)
    assert running.device.told == [("live",)]
    assert running.events[-2:] == ["server.error", "result.ignored"]


async def test_a_device_that_breaks_ends_its_node(door: Door) -> None:
    class Broken(Probe):
        async def on_upload_request(self, task_id: str, attempt: int) -> None:
            raise ZeroDivisionError

    running = Running(door)
    running.device = running.node.device = Broken()
    await running.live()
    await door.say("node", {"type": "upload_request", "task_id": "t1", "attempt": 1})
    with pytest.raises(ZeroDivisionError):
        await running.ended()
