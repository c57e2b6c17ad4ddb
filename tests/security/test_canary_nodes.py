"""The same canaries as test_canary.py, for nodes: codes, claims and tokens of an enrolment, params, payloads, progress,
what a device says of itself. None stands in a log, on a command line, or in an answer that may be asked for again."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from actors.protocol.codes import SUBPROTOCOL
from actors.up import short_dir_of
from tests.e2e.service import Service
from tests.gateway.house import Socket, node_hello, result
from tests.security.test_canary import command_lines, files_below, found_in
from tests.security.test_canary import service as service  # the fixture, one `up` of this module

WORDS = ("params", "payload", "progress", "failure", "event", "capability", "key", "bad-code", "bad-claim", "bad-frame")


@pytest.mark.ray
async def test_canaries_of_nodes_appear_in_no_log_and_no_argv(service: Service) -> None:
    canary = {name: f"CANARY-{name}-5b1e2d" for name in WORDS}
    secrets = dict(canary)
    status, made = service.http("POST", "/v1/enrolment-codes", {"node_id": "arm"})
    assert status == 201
    secrets["code"] = made["code"]
    status, asked = service.http("POST", "/v1/enrolments", {"code": made["code"], "node_id": "arm"})
    assert status == 202
    secrets["claim"] = asked["claim"]
    enrolment = f"/v1/enrolments/{asked['enrolment_id']}"
    assert service.http("POST", enrolment, {"decision": "approve"})[0] == 200
    status, told = service.http("POST", enrolment + "/claim", {"claim": asked["claim"]})
    secrets["token"] = told["token"]
    assert service.http("POST", "/v1/enrolments", {"code": canary["bad-code"], "node_id": "x"})[0] == 403
    assert service.http("POST", enrolment + "/claim", {"claim": canary["bad-claim"]})[0] == 404

    async with aiohttp.ClientSession() as client:
        socket = await connected(client, service, secrets["token"], canary)
        calling = asyncio.create_task(invoke(client, service, canary))
        call = await socket.hear("invoke")
        assert call["params"] == {"text": canary["params"]} and call["idempotency_key"] == canary["key"]
        iid = call["invocation_id"]
        await socket.say({"type": "invoke_progress", "invocation_id": iid, "seq": 1, "payload": canary["progress"]})
        await socket.say({"type": "event", "event": {"type": "note", "data": {"text": canary["event"]}}})
        await socket.say({"type": canary["bad-frame"]})
        await socket.hear("error")
        await socket.say(f'{{"type":"state","reported":"{canary["bad-frame"]}"}}')
        await socket.hear("error")
        await socket.say(result(call, {"text": canary["payload"]}))
        assert (await calling)["payload"] == {"text": canary["payload"]}
        calling = asyncio.create_task(invoke(client, service, canary, key=None))
        call = await socket.hear("invoke")
        await socket.say(result(call, ok=False, error={"code": "E", "message": canary["failure"]}))
        assert (await calling)["error"]["message"] == canary["failure"]
        while_running = command_lines()
        await asyncio.to_thread(service.kill_gateway)
        await socket.closed(30)

    asked_again = [service.patient("GET", "/v1/enrolments"), service.patient("GET", "/v1/audit")]
    asked_again += [service.patient("GET", "/v1/nodes/arm"), service.patient("GET", "/v1/tokens")]
    hidden = ("code", "claim", "token", "key", "params", "payload", "progress", "failure", "bad-code", "bad-claim")
    assert [name for name in hidden if secrets[name] in json.dumps(asked_again)] == []
    logs = [*files_below(service.data, short_dir_of(service.data)), service.log]
    assert any(b"enrolment.asked" in path.read_bytes() for path in logs if path.suffix == ".err"), "they are ours"
    assert found_in(secrets, iter(logs)) == []
    for pid, line in (while_running | command_lines()).items():
        assert [name for name, secret in secrets.items() if secret.encode() in line] == [], (pid, line[:200])


async def connected(client: aiohttp.ClientSession, service: Service, token: str, canary: dict[str, str]) -> Socket:
    headers = {"Authorization": f"Bearer {token}"}
    url = f"{service.url}/v1/nodes/arm/connect"
    socket = Socket(await client.ws_connect(url, headers=headers, protocols=(SUBPROTOCOL,)))
    await socket.say(node_hello(capabilities={"secret": canary["capability"]}))
    await socket.hear("hello_ack")
    return socket


async def invoke(
    client: aiohttp.ClientSession, service: Service, canary: dict[str, str], key: str | None = "key"
) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {service.token}"} | ({"Idempotency-Key": canary[key]} if key else {})
    body = {"command": "echo", "params": {"text": canary["params"]}}
    async with client.post(f"{service.url}/v1/nodes/arm/invoke", json=body, headers=headers) as answer:
        told: dict[str, Any] = await answer.json()
        assert answer.status == 200, told
        return told
