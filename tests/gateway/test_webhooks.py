"""Webhooks from the outbox to a real receiver that fails as it is told, under a clock that walks."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from actors import telemetry
from actors.gateway.auth import hash_of
from actors.gateway.door import Door
from actors.gateway.targets import Targets
from actors.gateway.webhooks import Deliverer, retry_after_s
from actors.protocol.errors import HoldfastError
from actors.protocol.resources import WebhookResource
from actors.store.contract import Token
from tests.gateway.house import eventually, final
from tests.gateway.receiver import START_MS, Clock, Names, Receiver, TimedHouse

SECRET = "canary-secret-7f3a"


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    it = await Receiver().open()
    yield it
    await it.close()


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[TimedHouse]:
    clock = Clock()
    it = TimedHouse(tmp_path, clock)
    await it.open(wall=clock)
    yield it
    await it.close()


async def settled(house: TimedHouse, webhook_id: str, attempts: int) -> dict[str, Any]:
    async def done() -> dict[str, Any] | None:
        found = await house.webhook(webhook_id)
        return found if found["attempts"] == attempts else None

    found = await eventually(done)
    WebhookResource.model_validate(found)
    return dict(found)


async def test_the_end_of_an_execution_is_told_signed_as_a_cloud_event(house: TimedHouse, receiver: Receiver) -> None:
    await house.session("s", callback={"url": "http://127.0.0.1:1/never"})
    wrapper = await house.wrapper("s")
    callback = {"url": receiver.url + "?q=1", "secret": SECRET, "headers": {"X-Mine": "yes", "content-type": "text/x"}}
    await house.submit("s", "e", callback=callback)  # the execution's is over the session's
    await wrapper.hear("command")
    await wrapper.say({"type": "started", "execution_id": "e", "seq": 1, "pid": 1}, final(2, data={"answer": 42}))
    await eventually(lambda: receiver.heard)
    headers, body = receiver.heard[0]
    page = await house.call("GET", "/v1/webhooks")
    webhook_id = page["items"][0]["webhook_id"]
    assert json.loads(body) == {
        "specversion": "1.0",
        "id": webhook_id,
        "source": "/v1/sessions/s",
        "type": "holdfast.execution.completed",
        "subject": "s/e",
        "time": "2023-11-14T22:13:20.000Z",
        "datacontenttype": "application/json",
        "data": {
            "session_id": "s",
            "execution_id": "e",
            "outcome": {
                "status": "completed",
                "cause": None,
                "error": None,
                "exit_code": 0,
                "signal": None,
                "data": {"answer": 42},
            },
        },
    }
    t = START_MS // 1000
    v1 = hmac.new(SECRET.encode(), f"{t}.".encode() + body, hashlib.sha256).hexdigest()
    assert headers["Holdfast-Signature"] == f"t={t},v1={v1}"
    assert headers["Idempotency-Key"] == webhook_id
    assert headers["X-Mine"] == "yes"
    assert headers["Content-Type"] == "application/cloudevents+json"
    shown = await settled(house, webhook_id, 1)
    assert (shown["state"], shown["last_status"], shown["last_error"]) == ("delivered", 204, None)
    assert shown["url"] == receiver.url and shown["signed"] is True
    await wrapper.close()


async def test_it_is_tried_again_after_1_2_4_8_minutes_and_then_it_is_dead(
    house: TimedHouse, receiver: Receiver
) -> None:
    receiver.script = [503, 429, 500, 599, 503]
    webhook_id = await house.ended("s", receiver.url)
    pauses = []
    for attempt in range(1, 5):
        shown = await settled(house, webhook_id, attempt)
        assert shown["state"] == "due"
        pauses.append((shown["next_attempt_at_ms"] - house.clock.now_ms) / 1000)
        house.clock.walk(pauses[-1] - 0.001)
        await house.gateway.webhooks.turn()
        assert len(receiver.heard) == attempt  # a millisecond early: not yet
        house.clock.walk(0.001)
    shown = await settled(house, webhook_id, 5)
    assert pauses == [60, 120, 240, 480]
    assert (shown["state"], shown["last_status"], shown["next_attempt_at_ms"]) == ("dead", 503, None)
    assert set(receiver.keys()) == {webhook_id} and len({body for _, body in receiver.heard}) == 1
    house.clock.walk(86400)
    await house.gateway.webhooks.turn()
    assert len(receiver.heard) == 5


@pytest.mark.parametrize("status", [301, 302, 400, 401, 404, 410, 422])
async def test_an_answer_that_will_not_change_ends_it_at_once(
    house: TimedHouse, receiver: Receiver, status: int
) -> None:
    receiver.script = [web.Response(status=status, headers={"Location": receiver.url + "/elsewhere"})]
    webhook_id = await house.ended("s", receiver.url)
    shown = await settled(house, webhook_id, 1)
    assert (shown["state"], shown["last_status"]) == ("dead", status)
    assert len(receiver.heard) == 1  # and no redirect was followed


@pytest.mark.parametrize(("said", "pause"), [("300", 300), ("5", 60), ("999999", 3600), ("soon", 60)])
async def test_a_receiver_may_ask_for_patience_within_bounds(
    house: TimedHouse, receiver: Receiver, said: str, pause: int
) -> None:
    receiver.script = [web.Response(status=429, headers={"Retry-After": said})]
    shown = await settled(house, await house.ended("s", receiver.url), 1)
    assert shown["next_attempt_at_ms"] - house.clock.now_ms == pause * 1000


def test_retry_after_is_seconds_or_a_date() -> None:
    assert retry_after_s("Tue, 14 Nov 2023 22:15:20 GMT", START_MS / 1000) == 120.0
    assert retry_after_s("Tue, 14 Nov 2023 22:00:00 GMT", START_MS / 1000) == 0.0
    for nothing in (None, "", "-3", "1.5", "\u0663", "Tue, 99 Nov 99999999999 99:99:99 GMT"):
        assert retry_after_s(nothing, 0.0) in (None, 0.0)


async def test_nobody_there_is_tried_again(house: TimedHouse, receiver: Receiver) -> None:
    await receiver.close()
    shown = await settled(house, await house.ended("s", receiver.url), 1)
    assert (shown["state"], shown["last_status"]) == ("due", None)
    assert "Connect" in shown["last_error"] and "http" not in shown["last_error"].lower()


async def test_a_receiver_that_is_slow_or_endless_costs_a_timeout_and_no_memory(
    tmp_path: Path, receiver: Receiver
) -> None:
    clock = Clock()
    house = TimedHouse(tmp_path, clock)
    await house.open(wall=clock, deliverer=functools.partial(Deliverer, timeout_s=0.3))
    receiver.hold = asyncio.Event()
    shown = await settled(house, await house.ended("s", receiver.url), 1)
    assert (shown["state"], shown["last_error"]) == ("due", "no answer within 0.3 s")
    receiver.hold.set()
    sent = 0

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x" * 65536)
            sent += 65536

    receiver.script = [endless]
    shown = await settled(house, await house.ended("s2", receiver.url), 1)
    assert shown["state"] == "delivered"
    told = sent
    assert told < 8 << 20  # what the kernel's buffers took; the connection was closed, not drained
    await house.close()


async def test_killed_between_the_post_and_its_record_it_goes_out_again_with_the_same_key(
    tmp_path: Path, receiver: Receiver
) -> None:
    clock = Clock()
    house = TimedHouse(tmp_path, clock)

    class Falls(Deliverer):
        """The process ends right after the answer: nothing is recorded."""

        async def _settle(self, *args: Any) -> None:
            return None

    await house.open(wall=clock, deliverer=Falls)
    webhook_id = await house.ended("s", receiver.url)
    await eventually(lambda: receiver.heard)
    shown = await house.webhook(webhook_id)
    assert (shown["state"], shown["attempts"]) == ("due", 0)
    await house.close()

    again = TimedHouse(tmp_path, clock)
    await again.open(wall=clock)
    await again.gateway.webhooks.turn()
    assert len(receiver.heard) == 1  # the lease of the dead one still holds
    clock.walk(30)
    assert (await settled(again, webhook_id, 1))["state"] == "delivered"
    assert receiver.keys() == [webhook_id, webhook_id]
    assert receiver.heard[0][1] == receiver.heard[1][1]
    await again.close()


async def test_a_gateway_that_stops_does_not_wait_for_a_slow_receiver(tmp_path: Path, receiver: Receiver) -> None:
    clock = Clock()
    house = TimedHouse(tmp_path, clock)
    await house.open(wall=clock)
    receiver.hold = asyncio.Event()
    webhook_id = await house.ended("s", receiver.url)
    await eventually(lambda: receiver.waiting)
    loop = asyncio.get_running_loop()
    began = loop.time()
    await house.close()
    assert loop.time() - began < 4
    receiver.hold.set()
    again = TimedHouse(tmp_path, clock)
    await again.open(wall=clock)
    clock.walk(30)
    assert (await settled(again, webhook_id, 1))["state"] == "delivered"
    assert receiver.keys() == [webhook_id] * 2
    await again.close()


async def test_two_deliverers_share_the_work_and_double_nothing(house: TimedHouse, receiver: Receiver) -> None:
    await house.gateway.loops.stop()
    for n in range(10):
        await house.ended(f"s{n}", f"{receiver.url}/{n}")
    second = Deliverer(house.gateway.door)
    await asyncio.gather(house.gateway.webhooks.turn(), second.turn(), second.turn())

    async def all_told() -> bool:
        page = await house.call("GET", "/v1/webhooks", params={"state": "delivered"})
        return len(page["items"]) == 10

    await eventually(all_told)
    assert len(receiver.keys()) == len(set(receiver.keys())) == 10


async def test_one_slow_receiver_takes_its_places_and_no_more(house: TimedHouse, receiver: Receiver) -> None:
    quick = await Receiver().open()
    receiver.hold = asyncio.Event()
    for n in range(8):
        await house.ended(f"slow{n}", receiver.url)
    webhook_id = await house.ended("quick", quick.url)
    assert (await settled(house, webhook_id, 1))["state"] == "delivered"
    assert receiver.most == receiver.waiting == 4
    receiver.hold.set()
    await eventually(lambda: len(receiver.heard) == 8)
    assert receiver.most == 4
    await quick.close()


async def test_an_operator_plays_it_again_under_the_same_id(house: TimedHouse, receiver: Receiver) -> None:
    receiver.script = [400]
    webhook_id = await house.ended("s", receiver.url)
    assert (await settled(house, webhook_id, 1))["state"] == "dead"
    path = f"/v1/webhooks/{webhook_id}/replay"
    told = await house.call("POST", path, headers={"Idempotency-Key": "k"}, status=202)
    assert (told["state"], told["attempts"]) == ("due", 0)
    assert await house.call("POST", path, headers={"Idempotency-Key": "k"}, status=202) == told
    shown = await settled(house, webhook_id, 1)
    assert shown["state"] == "delivered" and receiver.keys() == [webhook_id] * 2
    await house.call("POST", path, status=202)  # a delivered one too
    await eventually(lambda: len(receiver.heard) == 3)
    acts = (await house.call("GET", "/v1/audit", token="admin"))["items"]
    assert [a["object_id"] for a in acts if a["action"] == "webhook.replay"] == [webhook_id] * 2


async def test_lists_are_paged_and_filtered(house: TimedHouse, receiver: Receiver) -> None:
    receiver.script = [400]
    dead = await house.ended("s0", receiver.url)
    await settled(house, dead, 1)
    ids = [dead] + [await house.ended(f"s{n}", receiver.url) for n in range(1, 5)]
    await settled(house, ids[-1], 1)
    first = await house.call("GET", "/v1/webhooks", params={"limit": 3})
    second = await house.call("GET", "/v1/webhooks", params={"limit": 3, "cursor": first["next_cursor"]})
    assert [w["webhook_id"] for w in first["items"] + second["items"]] == ids[::-1]
    assert second["next_cursor"] is None
    page = await house.call("GET", "/v1/webhooks", params={"state": "dead"})
    assert [w["webhook_id"] for w in page["items"]] == [dead]
    await house.call("GET", "/v1/webhooks", params={"state": "lost"}, status=400)
    await house.call("GET", "/v1/webhooks", params={"cursor": "x"}, status=400)
    await house.call("GET", "/v1/webhooks/whk_no", status=404)
    await house.call("POST", "/v1/webhooks/whk_no/replay", status=404)
    for scope, status in (("reader", 403), ("wrapper", 403), (None, 401)):
        await house.call("GET", "/v1/webhooks", token=scope, status=status)
        await house.call("GET", f"/v1/webhooks/{dead}", token=scope, status=status)
        await house.call("POST", f"/v1/webhooks/{dead}/replay", token=scope, status=status)


async def test_no_secret_is_shown_or_logged(house: TimedHouse, receiver: Receiver) -> None:
    told: list[str] = []
    before = telemetry.subscribe(lambda event, fields: told.append(f"{event} {dict(fields)}"))
    try:
        receiver.script = [503, 400]
        headers = {"Authorization": f"Bearer {SECRET}"}
        webhook_id = await house.ended("s", f"{receiver.url}?key={SECRET}", secret=SECRET, headers=headers)
        await settled(house, webhook_id, 1)
        house.clock.walk(60)
        await settled(house, webhook_id, 2)
    finally:
        telemetry.subscribe(before)
    assert receiver.heard[0][0]["Authorization"] == f"Bearer {SECRET}"
    shown = [
        await house.call("GET", path, token="admin")
        for path in (
            "/v1/sessions/s",
            "/v1/sessions/s/executions/e",
            "/v1/webhooks",
            "/v1/audit",
            "/v1/sessions/s/events",
        )
    ]
    assert any("webhook.retried" in line for line in told)
    assert SECRET not in json.dumps(shown) + "".join(told)
    claimed = await house.worker.read(lambda store: repr(store.claim_webhooks("l", 1, 1, {})))
    assert SECRET not in claimed


# ---------------------------------------------------------------- whom it may call


@pytest.mark.parametrize(
    "url",
    [
        "http://10.0.0.1/",
        "http://192.168.1.1/",
        "http://172.16.0.1/",
        "http://127.0.0.1/",
        "http://127.1/",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://0177.0.0.1/",
        "http://0.0.0.0/",
        "http://169.254.169.254/latest/meta-data/",
        "http://168.63.129.16/",
        "http://100.64.0.1/",
        "http://224.0.0.1/",
        "http://255.255.255.255/",
        "http://[::1]/",
        "http://[::]/",
        "http://[fe80::1]/",
        "http://[fd00:ec2::254]/",
        "http://[::ffff:127.0.0.1]/",
        "http://[::ffff:a00:1]/",
        "http://[64:ff9b::7f00:1]/",
        "http://[2002:7f00:1::]/",
        "http://localhost/",
        "http://LOCALHOST./",
        "http://metadata.google.internal/",
    ],
)
async def test_an_address_of_ours_is_refused_at_submit(tmp_path: Path, url: str) -> None:
    with pytest.raises(HoldfastError) as refused:
        Targets(()).check(url, {})
    assert (refused.value.code, refused.value.status) == ("webhook_not_allowed", 400)


@pytest.mark.parametrize("url", ["https://hooks.example.org/x", "http://93.184.216.34:8080/", "http://[2606:4700::1]/"])
def test_a_public_one_is_not(url: str) -> None:
    Targets(()).check(url, {})


def test_the_list_says_who_may_be_called() -> None:
    targets = Targets(("hooks.example.org", ".corp.example", "10.1.0.0/16"))
    for url in ("http://hooks.example.org/", "http://a.b.corp.example/", "http://10.1.2.3/"):
        targets.check(url, {})
    for url in ("http://93.184.216.34/", "http://10.2.0.1/", "http://169.254.169.254/"):
        with pytest.raises(HoldfastError, match="webhook_not_allowed"):
            targets.check(url, {})
    with pytest.raises(HoldfastError, match="not on the list"):
        Targets(("hooks.example.org",)).check("http://evil-hooks.example.org/", {})
    Targets(("10.0.0.0/8", "*")).check("http://93.184.216.34/", {})


async def test_a_bad_callback_is_a_problem_with_a_hint(house: TimedHouse) -> None:
    for url, code in (
        ("http://10.0.0.1/", "webhook_not_allowed"),
        ("http://93.184.216.34/", "webhook_not_allowed"),  # this house has a list
        ("http://user:pass@127.0.0.1/", "bad_request"),
        ("http://", "bad_request"),
        ("http://127.0.0.1:99999/", "bad_request"),
        ("ftp://127.0.0.1/", "bad_request"),
    ):
        told = await house.call("POST", "/v1/sessions", {"callback": {"url": url}}, status=400)
        assert told["code"] == code, url
    await house.session("s")
    for headers in (
        {"Connection": "x"},
        {"Host": "x"},
        {"a b": "x"},
        {"X": "a\r\nb"},
        {"Transfer-Encoding": "chunked"},
    ):
        body = {"callback": {"url": "http://127.0.0.1/", "headers": headers}}
        told = await house.call("POST", "/v1/sessions/s/executions", body, status=400)
        assert told["code"] == "bad_request", headers


async def test_a_name_that_answers_with_an_address_of_ours_is_not_called(tmp_path: Path, receiver: Receiver) -> None:
    clock = Clock()
    names = Names(rebind_example=[["93.184.216.34", "127.0.0.1"], ["127.0.0.1"]], inside_example=[["10.0.0.1", "::1"]])

    def deliverer(door: Door) -> Deliverer:
        return Deliverer(door, resolver=names, timeout_s=0.5)

    house = TimedHouse(tmp_path, clock, webhook_allow=())
    await house.open(wall=clock, deliverer=deliverer)
    inside = await settled(house, await house.ended("s1", "http://inside.example/"), 1)
    assert inside["state"] == "dead"
    assert inside["last_error"] == "webhook_not_allowed: inside.example has no address that may be called"
    # Public when it is asked first, ours the second time: the address that is connected to is what counts.
    rebind = await house.ended("s2", f"http://rebind.example:{receiver.port}/")
    await settled(house, rebind, 1)  # the public one: nobody answers from here
    clock.walk(60)
    assert (await settled(house, rebind, 2))["state"] == "dead"
    assert receiver.heard == []
    await house.close()


async def test_the_address_is_judged_once_more_where_the_socket_is_made(house: TimedHouse, receiver: Receiver) -> None:
    """As if a resolver had let it pass: the last gate is the connector's."""
    targets = Targets(())
    names = Names(sly_example=[["127.0.0.1"]])
    connector = targets.connector("sly.example", names)
    connector._resolver = names
    import aiohttp

    async with aiohttp.ClientSession(connector=connector) as http:
        with pytest.raises(aiohttp.ClientConnectorError, match="may be called"):
            await http.get(f"http://sly.example:{receiver.port}/")
    assert receiver.heard == []


async def test_a_named_host_may_be_private_but_never_the_clouds_own(tmp_path: Path, receiver: Receiver) -> None:
    clock = Clock()
    names = Names(in_corp_example=[["127.0.0.1"]], meta_corp_example=[["169.254.169.254"]])
    house = TimedHouse(tmp_path, clock, webhook_allow=(".corp.example",))
    await house.open(wall=clock, deliverer=lambda door: Deliverer(door, resolver=names, timeout_s=0.5))
    assert (await settled(house, await house.ended("s1", f"http://in.corp.example:{receiver.port}/"), 1))[
        "state"
    ] == "delivered"
    assert receiver.hosts == [f"in.corp.example:{receiver.port}"]
    assert (await settled(house, await house.ended("s2", "http://meta.corp.example/"), 1))["state"] == "dead"
    await house.close()


async def test_a_token_of_one_session_sees_its_own_webhooks_and_no_others(
    house: TimedHouse, receiver: Receiver
) -> None:
    ours, theirs = await house.ended("ours", receiver.url), await house.ended("theirs", receiver.url)
    token = Token("tok_one", "operator", "ours")
    await house.worker.write(lambda store: store.put_token(hash_of("t-one"), token))
    page = await house.call("GET", "/v1/webhooks", token="t-one", params={"session_id": "ours"})
    assert [w["webhook_id"] for w in page["items"]] == [ours]
    await house.call("GET", f"/v1/webhooks/{ours}", token="t-one")
    await house.call("GET", "/v1/webhooks", token="t-one", status=403)
    await house.call("GET", "/v1/webhooks", token="t-one", params={"session_id": "theirs"}, status=404)
    for method, path in (("GET", f"/v1/webhooks/{theirs}"), ("POST", f"/v1/webhooks/{theirs}/replay")):
        told = await house.call(method, path, token="t-one", status=404)
        assert told["code"] == "webhook_not_found"
