"""The bad network is bad as told, and otherwise a wire: bytes are late, held, cut or said twice, and never others."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from tests.nemesis.frames import Scanner, unmasked
from tests.nemesis.proxy import Link
from tests.nemesis.record import Recorder

HEAD = b"GET /x HTTP/1.1\r\nUpgrade: websocket\r\n\r\n"


def frame(payload: bytes, *, mask: bytes = b"", opcode: int = 1, fin: bool = True) -> bytes:
    n, bit = len(payload), 0x80 if mask else 0
    if n < 126:
        size = bytes([bit | n])
    else:
        wide = 2 if n <= 0xFFFF else 8
        size = bytes([bit | (126 if wide == 2 else 127)]) + n.to_bytes(wide, "big")
    return bytes([(0x80 if fin else 0) | opcode]) + size + mask + (unmasked(mask, payload) if mask else payload)


@given(
    sizes=st.lists(st.integers(0, 300) | st.sampled_from((125, 126, 127, 65_535, 65_536)), max_size=5),
    mask=st.binary(min_size=4, max_size=4) | st.just(b""),
    cuts=st.lists(st.integers(0, 2000), max_size=12),
)
def test_however_the_bytes_are_cut_the_frames_are_whole(sizes: list[int], mask: bytes, cuts: list[int]) -> None:
    payloads = [(bytes(range(256)) * (n // 256 + 1))[:n] for n in sizes]  # each length that the format tells apart
    stream = HEAD + b"".join(frame(p, mask=mask) for p in payloads) + frame(b"ping", mask=mask, opcode=9)
    scanner, pieces, at = Scanner(), [], 0
    for cut in [*sorted(c for c in cuts if c < len(stream)), len(stream)]:
        pieces += scanner.feed(stream[at:cut])
        at = cut
    assert b"".join(p.raw for p in pieces) == stream, "nothing is changed, nothing is kept"
    assert [p.text for p in pieces if p.text is not None] == payloads


def test_what_is_no_websocket_is_passed_on_blindly() -> None:
    scanner = Scanner()
    text = b"POST /v1 HTTP/1.1\r\nHost: x\r\n\r\n" + frame(b"not for us")
    assert b"".join(p.raw for p in scanner.feed(text)) == text
    assert [p.text for p in scanner.feed(frame(b"nor this"))] == [None]


def test_a_fragment_is_no_whole_frame() -> None:
    scanner = Scanner()
    scanner.feed(HEAD)
    assert [p.text for p in scanner.feed(frame(b"half", fin=False) + frame(b"rest", opcode=0))] == [None, None]


# -------------------------------------------------------------------- a line


class Echo:
    """Says back what it hears, and keeps it."""

    def __init__(self) -> None:
        self.heard: list[Any] = []
        self.port = 0

    async def serve(self, request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(compress=False)
        await ws.prepare(request)
        async for message in ws:
            if message.type is aiohttp.WSMsgType.TEXT:
                self.heard.append(json.loads(message.data))
                await ws.send_str(message.data)
        return ws


@asynccontextmanager
async def line(recorder: Recorder | None = None) -> AsyncIterator[tuple[Echo, Link, aiohttp.ClientWebSocketResponse]]:
    echo, app = Echo(), web.Application()
    app.router.add_get("/", echo.serve)
    runner = web.AppRunner(app, shutdown_timeout=0.2)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
    link = await Link("s", lambda: ("127.0.0.1", port), recorder).open()
    async with aiohttp.ClientSession() as http:
        ws = await http.ws_connect(link.url, compress=0)
        try:
            yield echo, link, ws
        finally:
            await link.close()
            await runner.cleanup()


async def there_and_back(ws: aiohttp.ClientWebSocketResponse, value: Any = None) -> float:
    began = time.monotonic()
    await ws.send_json(value or {"type": "heartbeat"})
    await ws.receive_json(timeout=10)
    return time.monotonic() - began


async def test_latency_and_a_thin_line_take_their_time() -> None:
    async with line() as (_, link, ws):
        link.weather.latency_s.append(0.1)
        assert await there_and_back(ws) >= 0.2
        link.weather.latency_s.clear()
        link.weather.bytes_per_s.append(5_000)
        assert await there_and_back(ws, {"x": "y" * 1000}) >= 0.35
        link.weather.bytes_per_s.clear()
        assert await there_and_back(ws) < 0.1


async def test_in_a_silence_nothing_comes_and_afterwards_all_of_it_does() -> None:
    async with line() as (echo, link, ws):
        link.silence(True)
        link.silence(True)  # two faults at once
        await ws.send_json({"n": 1})
        with pytest.raises(asyncio.TimeoutError):
            await ws.receive_json(timeout=0.2)
        async with aiohttp.ClientSession() as http:
            with pytest.raises(asyncio.TimeoutError):  # a connect is taken, and then nothing
                async with asyncio.timeout(0.2):
                    await http.ws_connect(link.url)
        link.silence(False)
        with pytest.raises(asyncio.TimeoutError):
            await ws.receive_json(timeout=0.2)
        assert echo.heard == []
        link.silence(False)
        assert await ws.receive_json(timeout=10) == {"n": 1}


async def test_a_reset_is_a_reset() -> None:
    async with line() as (_, link, ws):
        await there_and_back(ws)
        link.reset()
        message = await ws.receive(timeout=10)
        assert message.type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)
        assert ws.close_code == 1006
        assert link.lines == set() or all(known.client.is_closing() for known in link.lines)


async def test_frames_are_doubled_whole_and_hello_is_not(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, "line")
    async with line(recorder) as (echo, link, ws):
        link.weather.double = 1
        sent = {"type": "events", "execution_id": "e", "seq": 2, "events": [{"type": "output", "data": {"text": "é"}}]}
        await ws.send_json({"type": "hello"})
        await ws.send_json(sent)
        for _ in range(3):
            await ws.receive_json(timeout=10)
        assert echo.heard == [{"type": "hello"}, sent, sent]
        link.weather.double = 0
        await there_and_back(ws)
        assert len(echo.heard) == 4 and link.doubled == 1


async def test_what_passes_is_history(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, "line")
    ack = {"type": "ack", "execution_id": "e", "seq": 3}
    hello_ack = {
        "type": "hello_ack",
        "connection_id": "con_1",
        "epoch": 4,
        "executions": [{"execution_id": "e", "directive": "resume", "acked_seq": 2}],
    }
    async with line(recorder) as (_, _, ws):
        for said in (hello_ack, {"type": "final", "execution_id": "e", "seq": 3}, ack, "no frame"):
            await ws.send_json(said)
            await ws.receive_json(timeout=10)
    lines = [json.loads(text) for text in recorder.path.read_text().splitlines()]
    told = [{k: v for k, v in said.items() if k not in ("who", "at", "session")} for said in lines]
    assert told == [
        {"what": "owned", "connection": "con_1", "epoch": 4},
        {"what": "acked", "execution": "e", "seq": 2, "connection": "con_1"},
        {"what": "sent", "execution": "e", "connection": "con_1", "seq": 3, "hashes": [None], "frame": "final"},
        {"what": "acked", "execution": "e", "seq": 3, "connection": "con_1"},
    ]
