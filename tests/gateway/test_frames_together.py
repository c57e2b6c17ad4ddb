"""The short way of text frames, in and out, leans on aiohttp's parser and queue: so it is shown on real sockets."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import WSMsgType, web
from yarl import URL

from actors.gateway.wire import Frames, websocket
from tests.gateway.house import House, eventually


@asynccontextmanager
async def serving(converse: Callable[[Frames], Awaitable[None]]) -> AsyncIterator[str]:
    """The address of a server whose every socket is given to `converse`; what that raises, the test raises."""
    failed: list[BaseException] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        ws = websocket(max_msg_size=1 << 20)
        await ws.prepare(request)
        try:
            await converse(ws)
        except Exception as error:
            failed.append(error)
            raise
        return ws

    app = web.Application()
    app.router.add_get("/", handle)
    runner = web.AppRunner(app, shutdown_timeout=1.0)  # (aiohttp's test server would cancel a handler whose line fell)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()
    assert not failed


async def test_texts_are_taken_as_they_are_read_and_the_rest_is_received() -> None:
    taken: list[bytes] = []
    received: list[tuple[Any, Any]] = []
    over = asyncio.Event()

    async def converse(ws: Frames) -> None:
        assert (await ws.receive()).data == b"frame 0"
        await eventually(lambda: len(ws._reader._buffer) == 3, what="two texts and a ping wait")  # type: ignore[union-attr]
        ws.listen(taken.append)
        assert taken == [b"frame 1", b"frame 2"], "what waited comes first"
        ws.say(b"go on")
        while (message := await ws.receive()).type is not WSMsgType.CLOSE:
            received.append((message.type, message.data))
        received.append((message.type, message.data))
        over.set()

    async with serving(converse) as url, aiohttp.ClientSession() as http:
        async with http.ws_connect(url) as client:
            for n in range(3):
                await client.send_str(f"frame {n}")
            await client.ping(b"p")
            assert await client.receive_str(timeout=10) == "go on"
            await client.send_str("frame 3")
            await client.send_bytes(b"no text")
            await client.send_str("frame 4")
            await client.close(code=4000)
        await asyncio.wait_for(over.wait(), 10)
    assert taken == [b"frame %d" % n for n in range(1, 5)]
    assert received == [(WSMsgType.PING, b"p"), (WSMsgType.BINARY, b"no text"), (WSMsgType.CLOSE, 4000)]


async def test_what_comes_after_a_close_is_not_taken() -> None:
    taken: list[bytes] = []
    over = asyncio.Event()

    async def converse(ws: Frames) -> None:
        ws.listen(taken.append)
        closed = await ws.close(code=1001)
        assert closed
        over.set()

    async with serving(converse) as url, aiohttp.ClientSession() as http:
        async with http.ws_connect(url, autoclose=False) as client:
            assert (await client.receive(timeout=10)).type is WSMsgType.CLOSE
            await client.send_str("too late")
            await client.close()
        await asyncio.wait_for(over.wait(), 10)
    assert taken == []


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, 65_537, 300_000])
async def test_a_frame_of_any_size_is_said_as_a_client_reads_it(size: int) -> None:
    text = bytes(97 + n % 26 for n in range(size))

    async def converse(ws: Frames) -> None:
        ws.say(text)
        ws.say(b"and the next")
        await ws.receive()

    async with serving(converse) as url, aiohttp.ClientSession() as http:
        async with http.ws_connect(url, max_msg_size=0) as client:
            assert (await client.receive_str(timeout=10)).encode() == text
            assert await client.receive_str(timeout=10) == "and the next"


async def test_a_peer_that_speaks_with_its_request_is_heard_from_its_first_byte() -> None:
    taken: list[bytes] = []
    over = asyncio.Event()

    async def converse(ws: Frames) -> None:
        ws.listen(taken.append)
        assert (await ws.receive()).type is WSMsgType.CLOSE
        over.set()

    async with serving(converse) as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", URL(url).port)
        key = base64.b64encode(os.urandom(16)).decode()
        asked = (
            f"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
        ).encode()
        frames = b"".join(b"\x81%c\0\0\0\0%b" % (0x80 | len(text), text) for text in (b"early", b"cut in two"))
        writer.write(asked + frames[:-4])
        await reader.readuntil(b"\r\n\r\n")
        writer.write(frames[-4:])
        await eventually(lambda: len(taken) == 2, what="both are taken")
        writer.write(b"\x88\x80\0\0\0\0")  # a close without a word
        await asyncio.wait_for(over.wait(), 10)
        writer.close()
    assert taken == [b"early", b"cut in two"]


def masked(opcode: int, payload: bytes = b"") -> bytes:
    """One whole frame of a client's."""
    assert len(payload) < 1 << 16
    long = len(payload) > 125
    size = bytes([0x80 | 126]) + struct.pack(">H", len(payload)) if long else bytes([0x80 | len(payload)])
    return bytes([0x80 | opcode]) + size + bytes(4) + payload


TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
GOODBYE = masked(CLOSE, struct.pack(">H", 1000))


@pytest.mark.parametrize("before", [b"", masked(PING, b"p"), masked(PONG), masked(PING) + masked(PONG)], ids=repr)
@pytest.mark.parametrize(
    "end", [GOODBYE, masked(BINARY, b"x"), b"\x83\x80" + bytes(4)], ids=["close", "binary", "torn"]
)
async def test_what_was_said_before_a_close_is_taken_whatever_stands_around_it(
    house: House, before: bytes, end: bytes
) -> None:
    """All of it in one piece on the line, so that the gateway reads it in one turn of its loop."""
    wrapper = await house.running()
    event = {"type": "output", "ts_ms": 1, "data": {"text": "last words"}}
    says = [{"type": "events", "execution_id": "e", "seq": n, "events": [event]} for n in (2, 3)]
    line = wrapper.ws._writer.transport
    assert line is not None
    line.write(before + b"".join(masked(TEXT, json.dumps(one).encode()) for one in says) + end)

    async def over() -> bool:
        return any(e["type"] == "wrapper.disconnected" for e in await house.events())

    await eventually(over, what="the connection has ended")
    assert [e["type"] for e in await house.events()][-3:] == ["output", "output", "wrapper.disconnected"]
    line.abort()


@pytest.mark.parametrize("before", [b"", masked(PING, b"p")], ids=repr)
async def test_a_result_of_a_node_that_leaves_with_it_is_not_lost(house: House, before: bytes) -> None:
    node = await house.node(commands=["echo"])
    asked = house.invoke(timeout_s=10)
    told = await node.hear("invoke")
    result = {
        "type": "invoke_result",
        "invocation_id": told["invocation_id"],
        "ok": True,
        "payload": {"x": 1},
    }
    line = node.ws._writer.transport
    assert line is not None
    line.write(before + masked(TEXT, json.dumps(result).encode()) + GOODBYE)
    answer = await asyncio.wait_for(asked, 10)
    assert answer["ok"] is True and answer["payload"] == {"x": 1}
    line.abort()
