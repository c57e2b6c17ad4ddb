"""Who takes for ever to ask, or to take the answer, is cut within a bounded time; the timeouts are shortened here."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest

from actors.gateway import entrance
from actors.protocol.defaults import HELLO_TIMEOUT_S, REQUEST_TIMEOUT_S
from tests.gateway.house import TOKENS, House, event, output
from tests.security.conftest import Open
from tests.security.raw import Raw, bearer

WITHIN_S = 0.6
SLACK_S = 3.0  # a busy machine


async def dribble(raw: Raw, text: str | bytes, every_s: float = 0.05) -> None:
    """A byte now and then, for ever."""
    data = text.encode("latin-1") if isinstance(text, str) else text
    with contextlib.suppress(ConnectionError):
        for n in range(len(data)):
            await raw.say(data[n : n + 1])
            await asyncio.sleep(every_s)


ENDLESS = "X-A: b\r\n" * 10_000


@pytest.mark.parametrize(
    "begin",
    [
        "",
        "GET /v1/sess",
        f"GET /v1/sessions HTTP/1.1\r\nHost: x\r\n{bearer()}\r\n",
        "GET /v1/sessions/s/ingest HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n",
    ],
    ids=["nothing", "half a line", "headers", "half an upgrade"],
)
@pytest.mark.parametrize("dribbling", [True, False])
async def test_who_never_finishes_asking_is_cut(open_house: Open, begin: str, dribbling: bool) -> None:
    house = await open_house({"request_timeout_s": WITHIN_S})
    raw = await Raw.to(house)
    await raw.say(begin.encode())
    endless = ENDLESS if "\r\n" in begin else "x" * 1000 if begin else "\r\n" * 1000  # empty lines may come first
    more = asyncio.create_task(dribble(raw, endless)) if dribbling else None
    took_s = await raw.ended(WITHIN_S + SLACK_S)
    assert took_s > WITHIN_S / 2, "and not at once: it may be a bad line"
    if more is not None:
        more.cancel()
    raw.close()
    await house.call("GET", "/v1/sessions")


async def test_a_second_request_is_not_dribbled_for_ever_either(open_house: Open) -> None:
    house = await open_house({"request_timeout_s": 60, "keepalive_s": WITHIN_S})
    raw = await Raw.to(house)
    await raw.say("GET /v1/sessions HTTP/1.1", "Host: x", bearer(), "")
    assert (await raw.answer())[0] == 200
    more = asyncio.create_task(dribble(raw, "GET / HTTP/1.1\r\n" + ENDLESS))
    await raw.ended(WITHIN_S + SLACK_S)
    more.cancel()
    raw.close()


async def test_a_body_that_does_not_come_is_408(open_house: Open) -> None:
    house = await open_house({"request_timeout_s": WITHIN_S})
    for length in ("Content-Length: 1000", "Transfer-Encoding: chunked"):
        raw = await Raw.to(house)
        await raw.say("POST /v1/sessions HTTP/1.1", "Host: x", bearer(), "Content-Type: application/json", length, "")
        more = asyncio.create_task(dribble(raw, '{"a":"' + "x" * 900))
        status, headers, body = await raw.answer(WITHIN_S + SLACK_S)
        if length.startswith("Content"):
            assert status == 408 and headers["connection"] == "close" and b"request_timeout" in body
        else:
            assert status in (400, 408)  # what is dribbled is not chunks
        await raw.ended(SLACK_S + 4)
        more.cancel()
        raw.close()
    assert (await house.call("GET", "/v1/sessions"))["items"] == []


async def test_a_body_nobody_asked_for_is_not_read_for_ever(open_house: Open) -> None:
    house = await open_house()
    raw = await Raw.to(house)
    await raw.say("GET /v1/sessions HTTP/1.1", "Host: x", bearer(), "Content-Length: 1000000", "")
    more = asyncio.create_task(dribble(raw, "x" * 10_000))
    assert (await raw.answer())[0] == 200
    await raw.ended(3.0 + SLACK_S)
    more.cancel()
    raw.close()


async def test_a_socket_without_a_hello_is_closed_even_if_it_pings(open_house: Open) -> None:
    house = await open_house({"hello_timeout_s": WITHIN_S})
    await house.session()
    for data in (b"", b"\x89\x80\0\0\0\0"):
        raw = await (await Raw.to(house)).upgrade("/v1/sessions/s/ingest")
        assert (await raw.head())[0] == 101
        more = asyncio.create_task(dribble(raw, data * 1000))
        assert await raw.closed(WITHIN_S + SLACK_S) == 4002
        more.cancel()
        raw.close()


async def test_a_refused_socket_does_not_wait_for_ever_for_the_peers_goodbye(house: House) -> None:
    raw = await (await Raw.to(house)).upgrade("/v1/sessions/s/ingest", "nobody")
    await raw.head()
    assert await raw.closed() == 4401
    await raw.ended(2.0 + SLACK_S)
    raw.close()


async def test_who_takes_no_answer_is_cut(open_house: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asks for pages and never reads: the answers wait in our memory, and then no longer."""
    monkeypatch.setattr(entrance, "SLOW_CONSUMER_S", WITHIN_S)  # a constant, not a setting: nobody needs another
    house = await open_house()
    wrapper = await house.running()
    big = {**event("x" * 200_000)}
    for n in range(2, 8):
        await wrapper.say({"type": "events", "execution_id": "e", "seq": n, "events": [big]})
        await wrapper.acked(n)
    raw = await Raw.to(house)
    page = ("GET /v1/sessions/s/events?limit=500 HTTP/1.1", "Host: x", f"Authorization: Bearer {TOKENS['reader']}", "")
    for _ in range(40):
        await raw.say(*page)
    began = time.monotonic()
    server = house.gateway._runner.server  # type: ignore[union-attr]
    assert isinstance(server, entrance.Entrance)
    async with asyncio.timeout(3 * WITHIN_S + SLACK_S):
        while not server.cut["takes no answer"]:
            await asyncio.sleep(0.02)
    assert time.monotonic() - began > WITHIN_S / 2
    await wrapper.say(output(8, "unharmed"))
    await wrapper.acked(8)
    await wrapper.close()
    raw.close()


def test_the_real_times_are_bounded() -> None:
    assert REQUEST_TIMEOUT_S <= 30 and HELLO_TIMEOUT_S <= 10
