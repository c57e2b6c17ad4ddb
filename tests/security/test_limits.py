"""Sizes, counts and rates: each refused with its own code, and the service well before and after."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import tracemalloc
import zlib

import aiohttp
import pytest

from actors.config import Settings
from actors.gateway.entrance import HEADERS_MAX
from actors.gateway.limits import BUCKETS_MAX, CONTROL_BURST, Bucket, Limits, Pace
from actors.protocol.defaults import MAX_BODY_BYTES, MAX_JSON_DEPTH
from actors.protocol.errors import HoldfastError
from tests.gateway.house import TOKENS, House, hello, output
from tests.security.conftest import Open
from tests.security.raw import Raw, bearer

HEADERS = {"Authorization": f"Bearer {TOKENS['operator']}"}


# ---------------------------------------------------------------- sizes


async def test_a_body_of_the_limit_is_read_and_one_byte_more_is_413(house: House) -> None:
    for more, status in ((0, 201), (1, 413)):
        text = json.dumps({"session_id": f"b{more}", "unknown": ""})
        data = text.replace('""', '"' + "x" * (MAX_BODY_BYTES + more - len(text)) + '"').encode()
        assert len(data) == MAX_BODY_BYTES + more
        async with house.client.post(
            f"{house.url}/v1/sessions", data=io.BytesIO(data), headers=HEADERS | {"Content-Type": "application/json"}
        ) as response:
            assert response.status == status
    await house.call("GET", "/v1/sessions/b1", status=404)


async def test_a_body_without_an_announced_length_is_counted_as_it_comes(house: House) -> None:
    raw = await Raw.to(house)
    await raw.say("POST /v1/sessions HTTP/1.1", "Host: x", bearer(), "Content-Type: application/json")
    await raw.say("Transfer-Encoding: chunked", "")
    flooding = asyncio.create_task(raw.flood(b"10000\r\n" + b"x" * 65536 + b"\r\n", 10_000))
    assert (await raw.answer())[0] == 413
    await raw.ended(10)
    flooding.cancel()
    raw.close()
    await house.session("after")


@pytest.mark.parametrize(("depth", "status"), [(MAX_JSON_DEPTH, 202), (MAX_JSON_DEPTH + 1, 400), (100_000, 400)])
async def test_json_is_refused_beyond_its_depth(house: House, depth: int, status: int) -> None:
    await house.session()
    nested = depth - 1  # the body is a level itself
    text = '{"input":' + "[" * nested + "]" * nested + "}"
    async with house.client.post(
        f"{house.url}/v1/sessions/s/executions", data=text, headers=HEADERS | {"Content-Type": "application/json"}
    ) as response:
        assert response.status == status
        if status == 400:
            assert (await response.json())["code"] == "bad_json"


@pytest.mark.parametrize(
    "lines",
    [
        [f"X-Long: {'x' * 9000}"],
        [f"X-{n}: x" for n in range(HEADERS_MAX + 1)],
        [f"X-Endless: {'x' * 200_000}"],
    ],
    ids=["one long", "many", "endless"],
)
async def test_headers_too_long_or_too_many_are_refused_with_a_problem_document(house: House, lines: list[str]) -> None:
    raw = await Raw.to(house)
    await raw.say("GET /v1/sessions HTTP/1.1", "Host: x", bearer(), *lines, "")
    status, headers, body = await raw.answer()
    assert status in (400, 431) and headers["content-type"].startswith("application/problem+json")
    assert json.loads(body)["code"] in ("bad_request", "headers_too_large")
    await raw.ended(5)
    raw.close()
    await house.session()


async def test_a_long_url_is_refused(house: House) -> None:
    raw = await Raw.to(house)
    await raw.say(f"GET /v1/sessions?q={'x' * 9000} HTTP/1.1", "Host: x", bearer(), "")
    assert (await raw.answer())[0] == 431
    raw.close()


@pytest.mark.parametrize(
    "lines",
    [
        ["GET / HTTP/1.1", "Host: x", "Authorization : Bearer CANARY-1"],
        ["GET / HTTP/1.1", "Host: x", "Authorization Bearer CANARY-2"],
        ["CANARY-3"],
        ["GET / HTTP/1.1", "Content-Length: CANARY-4"],
        ["GET / HTTP/1.1", "Host: x", "Transfer-Encoding: CANARY-5", "Content-Length: 3"],
        ["GET / HTTP/9.9", "X: CANARY-6"],
    ],
)
async def test_what_is_not_http_is_answered_and_logged_without_its_words(
    house: House, lines: list[str], capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    raw = await Raw.to(house)
    await raw.say(*lines, "")
    async with asyncio.timeout(5):
        said = await raw.reader.read()
    assert b"400" in said.split(b"\r\n")[0] and b"application/problem+json" in said and b"CANARY" not in said
    told = capfd.readouterr()
    assert "CANARY" not in told.out + told.err + caplog.text
    raw.close()


async def test_a_frame_beyond_the_limit_closes_1009_on_every_socket(open_house: Open) -> None:
    house = await open_house(max_frame_bytes=4096)
    await house.session()
    wrapper = await house.ingest()
    await wrapper.say(json.dumps(hello(pad="x" * 4096)))
    assert (await wrapper.closed())[0] == 1009
    for path in ("/v1/sessions/s/stream", "/v1/stream"):
        watcher = await house.socket(path, "reader")
        await watcher.say("x" * 5000)
        assert (await watcher.closed())[0] == 1009


# ---------------------------------------------------------------- compression


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "identity", "gzip, gzip"])
async def test_a_compressed_body_is_refused_unread_on_every_route(house: House, encoding: str) -> None:
    await house.session()
    bomb = gzip.compress(b'{"input":"' + b"\0" * (64 << 20) + b'"}')
    assert len(bomb) < 100_000
    tracemalloc.start()
    for method, path in (("POST", "/v1/sessions"), ("POST", "/v1/sessions/s/executions"), ("DELETE", "/v1/sessions/s")):
        async with house.client.request(
            method,
            house.url + path,
            data=bomb,
            headers=HEADERS | {"Content-Encoding": encoding, "Content-Type": "application/json"},
            skip_auto_headers=("Content-Encoding",),
        ) as response:
            assert response.status == 415 and (await response.json())["code"] == "unsupported_media_type"
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20, "the bomb was unpacked"
    await house.call("GET", "/v1/sessions/s")


async def test_a_bomb_that_does_not_say_so_is_just_bad_json(house: House) -> None:
    bomb = gzip.compress(b"\0" * (64 << 20))
    async with house.client.post(
        f"{house.url}/v1/sessions", data=bomb, headers=HEADERS | {"Content-Type": "application/json"}
    ) as response:
        assert response.status == 400 and (await response.json())["code"] == "bad_json"


@pytest.mark.parametrize("path", ["/v1/sessions/s/ingest", "/v1/sessions/s/stream", "/v1/stream"])
async def test_compression_is_never_negotiated_and_a_compressed_frame_ends_the_socket(house: House, path: str) -> None:
    await house.session()
    raw = await Raw.to(house)
    await raw.upgrade(path, "admin", Sec_WebSocket_Extensions="permessage-deflate; client_max_window_bits")
    status, headers = await raw.head()
    assert status == 101 and "sec-websocket-extensions" not in headers
    press = zlib.compressobj(wbits=-15)
    bomb = press.compress(b"\0" * (64 << 20)) + press.flush(zlib.Z_SYNC_FLUSH)
    await raw.say(raw.frame(1, bomb[:1000], rsv1=True))
    assert await raw.closed() in (1002, 1006, 4002, 1000)
    raw.close()


# ---------------------------------------------------------------- floods


async def test_a_flood_of_pings_is_closed_4429_though_we_are_on_loopback(house: House) -> None:
    await house.session()
    for path in ("/v1/sessions/s/ingest", "/v1/sessions/s/stream", "/v1/stream"):
        raw = await (await Raw.to(house)).upgrade(path, "operator")
        assert (await raw.head())[0] == 101
        if path.endswith("ingest"):
            await raw.say(raw.frame(1, json.dumps(hello()).encode()))
        flooding = asyncio.create_task(raw.flood(raw.frame(9, b"x" * 125), 20_000))
        assert await raw.closed() == 4429, path
        flooding.cancel()
        raw.close()


async def test_a_few_pings_are_answered(house: House) -> None:
    await house.session()
    raw = await (await Raw.to(house)).upgrade("/v1/sessions/s/stream?after_seq=0", "reader")
    await raw.head()
    for _ in range(int(CONTROL_BURST) // 2):
        await raw.say(raw.frame(9, b"hi"))
    pongs = 0
    async with asyncio.timeout(5):
        while pongs < int(CONTROL_BURST) // 2:
            pongs += (await raw.reader.readuntil(b"hi")).count(b"\x8a\x02hi")
    raw.close()


async def test_a_message_that_never_ends_is_cut_by_its_size_or_by_its_bytes(open_house: Open) -> None:
    """Fragments with content meet the frame limit (1009); empty ones have none, so their bytes are counted (4429)."""
    house = await open_house(max_frame_bytes=4096)
    await house.session()
    for attempt, (content, code) in enumerate(((b"x" * 100, 1009), (b"", 4429)), 1):
        raw = await (await Raw.to(house)).upgrade("/v1/sessions/s/ingest")
        await raw.head()
        await raw.say(raw.frame(1, json.dumps(hello(attempt=attempt)).encode()))
        await raw.say(raw.frame(1, b"{", fin=False))
        flooding = asyncio.create_task(raw.flood(raw.frame(0, content, fin=False) * 2000, 100_000))
        assert await raw.closed(20) == code
        flooding.cancel()
        raw.close()


async def test_a_watcher_that_talks_is_closed_4429(house: House) -> None:
    await house.session()
    watcher = await house.watch()
    for _ in range(int(CONTROL_BURST) + 200):
        await watcher.say("{}")
    assert (await watcher.closed())[0] == 4429


# ---------------------------------------------------------------- rates


async def test_frames_beyond_the_rate_close_4429_and_what_came_before_stands(open_house: Open) -> None:
    house = await open_house(limit_loopback=True, frames_per_s=50)
    wrapper = await house.running()
    await wrapper.say(*(output(n, f"line {n}") for n in range(2, 300)))
    code, reason = await wrapper.closed()
    assert code == 4429 and json.loads(reason)["retry_after_s"] > 0
    acked = max([f["seq"] for f in wrapper.heard if f["type"] == "ack"])
    stored = [e["exec_seq"] for e in await house.events() if e["exec_seq"] is not None]
    assert stored == list(range(1, len(stored) + 1)) and acked <= len(stored) < 299
    assert not [f for f in wrapper.heard if f["type"] == "nack"]


async def test_bytes_beyond_the_rate_close_4429(open_house: Open) -> None:
    house = await open_house(limit_loopback=True, bytes_per_s=100_000, max_frame_bytes=50_000, window_bytes=1 << 20)
    wrapper = await house.running()
    for n in range(2, 20):
        await wrapper.say(output(n, "x" * 40_000))
    assert (await wrapper.closed())[0] == 4429


async def test_a_steady_wrapper_within_its_rate_is_left_alone(open_house: Open) -> None:
    house = await open_house(limit_loopback=True, frames_per_s=100)
    wrapper = await house.running()
    for n in range(2, 252):  # more than its bucket of 200, at nine tenths of its rate
        await wrapper.say(output(n))
        await asyncio.sleep(1 / 90)
    await wrapper.acked(251)
    await wrapper.close()


async def test_requests_beyond_the_rate_are_429_with_retry_after_by_token_and_by_address(open_house: Open) -> None:
    for secrets in (("t-operator",) * 60, tuple(f"nobody-{n}" for n in range(60))):
        house = await open_house(limit_loopback=True, requests_per_s=10)
        told = []
        for secret in secrets:
            headers = {"Authorization": f"Bearer {secret}"}
            async with house.client.get(f"{house.url}/v1/sessions", headers=headers) as response:
                told.append(response.status)
                if response.status == 429:
                    assert int(response.headers["Retry-After"]) >= 1
                    assert (await response.json())["code"] == "rate_limited"
        assert 429 in told[20:] and 429 not in told[:10]
        async with house.client.get(f"{house.url}/healthz") as response:
            assert response.status == 200, "whoever watches over us is always answered"
        for path, code in (("/v1/stream", 4429), ("/v1/sessions/s/ingest", 4429)):
            for _ in range(30):  # sockets count too, and are told by close code
                last = (await (await house.socket(path, "t-operator")).ws.receive(timeout=5)).data
                if last == code:
                    break
            assert last == code


async def test_one_token_from_many_addresses_is_still_one(open_house: Open) -> None:
    """A bucket holds 20; each address asks 12 times, so it is the token that is too much."""
    house = await open_house(limit_loopback=True, requests_per_s=10)
    told = []
    for address in ("127.0.0.2", "127.0.0.3"):
        connector = aiohttp.TCPConnector(local_addr=(address, 0))
        async with aiohttp.ClientSession(connector=connector) as client:
            for _ in range(12):
                async with client.get(f"{house.url}/v1/me", headers=HEADERS) as response:
                    told.append(response.status)
                    if response.status == 429:
                        assert "with this token" in (await response.json())["detail"]
    assert told[:12] == [200] * 12 and 429 in told[12:]
    await house.call("GET", "/v1/me", token="reader")  # another's token, a third address


async def test_loopback_peers_are_spared_unless_told(house: House) -> None:
    """The load tests' own shape: one token, one address, as fast as it goes."""
    house.gateway.door.limits._settings = Settings(requests_per_s=1, data_dir=house.settings.data_dir)

    async def many() -> set[int]:
        return {(await house.client.get(f"{house.url}/v1/me", headers=HEADERS)).status for _ in range(50)}

    assert await asyncio.gather(*(many() for _ in range(4))) == [{200}] * 4


async def test_one_tokens_connections_are_bounded_and_anothers_are_not(open_house: Open) -> None:
    house = await open_house(limit_loopback=True, connections_per_token=3)
    await house.session()
    held = [await house.watch() for _ in range(3)]
    for watcher in held:
        await watcher.hear("caught_up")
    assert (await (await house.watch()).closed())[0] == 4429
    ticket = (await house.call("POST", "/v1/tickets", {}, token="reader", status=201))["ticket"]
    by_ticket = await house.socket(f"/v1/stream?ticket={ticket}", None)
    assert (await by_ticket.closed())[0] == 4429, "a ticket counts as its token"
    async with house.client.get(
        f"{house.url}/v1/sessions/s/stream", headers={"Authorization": f"Bearer {TOKENS['reader']}"}
    ) as response:
        assert response.status == 429 and int(response.headers["Retry-After"]) >= 1
    other = await house.watch(token="operator")
    await other.hear("caught_up")
    await held.pop().close()
    again = await house.watch()
    await again.hear("caught_up")  # a seat that was left is free
    for watcher in (*held, other, again):
        await watcher.close()


async def test_one_addresss_connections_are_bounded(open_house: Open) -> None:
    house = await open_house(limit_loopback=True, connections_per_address=5)
    await house.client.close()
    house.client = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, force_close=True))
    await house.session()
    held = [await Raw.to(house) for _ in range(5)]
    for raw in held:
        await raw.say("GET /v1/sessions HTTP/1.1", "Host: x", bearer(), "")
        assert (await raw.head())[0] == 200
    assert (await house.call("GET", "/v1/sessions", status=429))["code"] == "too_many_connections"
    assert (await (await house.socket("/v1/stream", "reader")).closed())[0] == 4429
    async with house.client.get(f"{house.url}/healthz") as response:
        assert response.status == 200
    for raw in held:
        raw.close()
        await raw.writer.wait_closed()
    await house.call("GET", "/v1/sessions")


# ---------------------------------------------------------------- the buckets themselves


def test_a_bucket_gives_its_rate_and_says_when_it_will_have_more() -> None:
    bucket = Bucket(10, 20, now=0.0)
    assert [bucket.take(1, 0.0) for _ in range(20)] == [0.0] * 20
    assert bucket.take(1, 0.0) == pytest.approx(0.1)
    assert bucket.take(1, 0.1) == 0.0 and bucket.take(1, 0.1) > 0
    assert [bucket.take(1, 1000.0) for _ in range(21)] == [0.0] * 20 + [pytest.approx(0.1)]


def test_a_pace_gives_back_what_the_time_allows() -> None:
    pace = Pace(10, 0, unfinished_max=1)
    pace.tend(0.0)
    assert [pace.heard(1 << 30, False) for _ in range(21)] == [None] * 20 + ["frames"]
    pace.tend(0.5)
    assert [pace.heard(1, False) for _ in range(5)] == [None] * 4 + ["frames"]
    pace.tend(100.0)
    assert [pace.heard(1, False) for _ in range(21)] == [None] * 20 + ["frames"]


def test_buckets_do_not_pile_up() -> None:
    limits = Limits(Settings(requests_per_s=1, data_dir="/nowhere"), lambda: 0.0)
    for n in range(BUCKETS_MAX + 100):
        limits.request(f"@10.{n >> 16}.{(n >> 8) & 255}.{n & 255}", "10.0.0.1")
    assert len(limits._buckets) == BUCKETS_MAX
    with pytest.raises(HoldfastError):
        for _ in range(3):
            limits.request("@x", "10.0.0.1")
    for _ in range(10):
        limits.request("@x", "127.0.0.1")
        limits.request("@x", "::1")
