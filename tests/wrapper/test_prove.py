"""The live proof passes on a registry that keeps to the rules, and fails on each that breaks one of them: the mistakes
that the proof was made against, planted one by one in a small registry in memory."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from actors.http_client import Client, Problem
from actors.protocol.codes import EXIT_CONFLICT
from actors.prove import Peer, Proof, prove
from tests.wrapper.fake_nodes import Door

MISTAKES = {
    "a stale close unregisters the node": "after_old_close.connected",
    "a stale close writes presence": "presence.reason",
    "a stale close is logged": "events.disconnected",
    "a stale result counts": "handled_by_new",
    "a late result counts": "stored_outcome_unchanged",
    "a late result is an error": "late_result_ignored",
    "the old connection is asked": "requests.old",
    "the newcomer is asked twice": "requests.new",
    "commands are forgotten": "commands",
    "nobody is superseded": "old_close_code",
    "every end looks alike": "and_when_the_owner_goes_it_is_seen",
}


class Registry(Door):
    """One node, one role. `mistake`: which rule it breaks."""

    def __init__(self, mistake: str | None) -> None:
        super().__init__()
        self.mistake = mistake
        self.owner: web.WebSocketResponse | None = None
        self.previous: web.WebSocketResponse | None = None
        self.facts: dict[web.WebSocketResponse, tuple[str, dict[str, Any]]] = {}
        self.log: list[dict[str, Any]] = []
        self.presence = "never"
        self.commands: list[str] = []
        self.withheld: dict[str, Any] = {"drained": False, "denied_commands": []}
        self.invocations: dict[str, dict[str, Any]] = {}
        self.waiting: dict[str, asyncio.Future[None]] = {}
        self.closing: set[asyncio.Task[Any]] = set()

    def add_routes(self, app: web.Application) -> None:
        node = f"/v1/nodes/{self.node_id}"
        app.router.add_get(node, self.show)
        app.router.add_get(node + "/events", self.events)
        app.router.add_get(node + "/invocations", self.list)
        app.router.add_post(node + "/invoke", self.asked)
        app.router.add_get("/v1/invocations/{iid}", self.stored)

    # ------------------------------------------------------------ HTTP

    async def show(self, request: web.Request) -> web.Response:
        role = {
            "connection_id": self.facts[self.owner][0] if self.owner else None,
            "state": "connected" if self.owner else "offline",
        }
        body = {"connected": self.owner is not None, "commands": self.commands, "roles": {"node": role}}
        return web.json_response(body | {"presence": {"reason": self.presence}} | self.withheld)

    async def events(self, request: web.Request) -> web.Response:
        after = int(request.query.get("after_seq", 0))
        items = self.log[after : after + int(request.query["limit"])]
        return web.json_response({"items": items, "next_after_seq": after + len(items), "last_seq": len(self.log)})

    async def list(self, request: web.Request) -> web.Response:
        return web.json_response({"items": list(self.invocations.values())[-1:], "next_cursor": None})

    async def asked(self, request: web.Request) -> web.Response:
        iid = f"inv_{len(self.invocations) + 1}"
        self.invocations[iid] = {"invocation_id": iid, "payload": None, "settled": False}
        if self.owner is None:
            self.invocations[iid]["settled"] = True
            return web.json_response(self.invocations[iid])
        self.waiting[iid] = asyncio.get_running_loop().create_future()
        to = [self.owner]
        if self.mistake == "the old connection is asked":
            to.append(self.previous)
        if self.mistake == "the newcomer is asked twice":
            to.append(self.owner)
        for ws in to:
            if ws is not None and not ws.closed:
                await ws.send_str(json.dumps({"type": "invoke", "invocation_id": iid, "command": "device.info"}))
        await asyncio.wait_for(self.waiting[iid], 5)
        return web.json_response(self.invocations[iid])

    async def stored(self, request: web.Request) -> web.Response:
        return web.json_response(self.invocations[request.match_info["iid"]])

    # ------------------------------------------------------------ the socket

    def note(self, name: str) -> None:
        self.log.append({"seq": len(self.log) + 1, "type": f"node.{name}", "ts_ms": 0, "data": {}})

    async def on_frame(self, role: str, frame: dict[str, Any]) -> None:
        ws = self.sockets.get(role)
        if frame["type"] == "hello":
            assert ws is not None
            self.facts[ws] = (f"con_{self._n}", frame)
            self.presence, self.commands = "connect", frame["commands"]
            if self.owner is not None:
                self.note("superseded")
                same = self.facts[self.owner][1]["instance_id"] == frame["instance_id"]
                if self.mistake == "commands are forgotten":
                    self.commands = []
                # The last two are about an old socket that is still listened to.
                lenient = ("nobody is superseded", "a stale result counts", "the old connection is asked")
                if self.mistake not in lenient:
                    self.closing.add(asyncio.create_task(self.owner.close(code=4009 if same else 4001)))
            self.note("connected")
            self.previous, self.owner = self.owner, ws
        elif frame["type"] == "invoke_result":
            await self.on_result(frame)

    async def on_result(self, frame: dict[str, Any]) -> None:
        row = self.invocations[frame["invocation_id"]]
        own = self.owner is not None and frame["payload"]["connection_id"] == self.facts[self.owner][0]
        if (own or self.mistake == "a stale result counts") and (
            not row["settled"] or self.mistake == "a late result counts"
        ):
            row["payload"] = frame["payload"] | {"n": time.monotonic_ns()}
            if not row["settled"]:
                row["settled"] = True
                self.waiting[frame["invocation_id"]].set_result(None)
                return
        answer = "error" if self.mistake == "a late result is an error" else "ignored"
        if self.owner is not None:
            await self.owner.send_str(json.dumps({"type": answer, "invocation_id": frame["invocation_id"]}))

    def on_gone(self, ws: web.WebSocketResponse) -> None:
        if ws is self.owner and self.mistake != "every end looks alike":
            self.owner, self.presence = None, "disconnect"
            self.note("disconnected")
        elif ws is not self.owner:
            if self.mistake == "a stale close unregisters the node":
                self.owner = None
            if self.mistake == "a stale close writes presence":
                self.presence = "disconnect"
            if self.mistake == "a stale close is logged":
                self.note("disconnected")


async def proof_on(registry: Registry, times: int, answer_s: float) -> Proof:
    async with Client(registry.url, "secret") as client:
        return await prove(client, registry.node_id, "secret", times=times, answer_s=answer_s)


@pytest.fixture
async def registry(request: pytest.FixtureRequest) -> AsyncIterator[Registry]:
    made = Registry(getattr(request, "param", None))
    await made.start()
    yield made
    await made.stop()


async def test_where_the_rules_are_kept_the_proof_holds(registry: Registry) -> None:
    proof = await proof_on(registry, 8, 10.0)
    assert proof.violated == [] and [one.violated for one in proof.rounds] == [[]] * 8
    assert proof.holds and proof.looked > 0
    assert {one.closed for one in proof.rounds} == {"before the invocation", "after it"}
    assert {one.newcomer for one in proof.rounds} == {"other instance", "later attempt"}
    assert [one.facts["old_close_code"] for one in proof.rounds[:2]] == [4001, 4009]


@pytest.mark.parametrize(("registry", "fact"), MISTAKES.items(), indirect=["registry"], ids=list(MISTAKES))
async def test_each_mistake_is_caught_by_the_fact_that_is_about_it(registry: Registry, fact: str) -> None:
    proof = await proof_on(registry, 4, 0.5)
    said = [*proof.violated, *(words for one in proof.rounds for words in one.violated)]
    assert not proof.holds and [words for words in said if words.startswith(fact)], said


async def test_a_node_with_a_past_and_an_owner_is_judged_by_the_proof_alone(registry: Registry) -> None:
    owner = Peer(registry.url, registry.node_id, "owner", "i_owner", 1)
    for _ in range(2):
        await owner.connect("secret")
        proof = await proof_on(registry, 2, 10.0)
        assert proof.holds, proof.violated
        assert proof.facts["log.superseded"] == 3, "the owner, and the first of each round"
        await owner.end()


@pytest.mark.parametrize(
    ("withheld", "words"),
    [({"drained": True}, "drained"), ({"denied_commands": ["fetch", "echo"]}, "may not be asked echo")],
)
async def test_a_node_that_may_not_be_asked_is_said_to_be_that_and_is_no_violation(
    registry: Registry, withheld: dict[str, Any], words: str
) -> None:
    registry.withheld |= withheld
    with pytest.raises(Problem) as refused:
        await proof_on(registry, 2, 10.0)
    assert words in refused.value.detail and refused.value.exit_code == EXIT_CONFLICT
