"""What the simulated sockets stand on, shown on aiohttp's own: where a line may be cut, and what is read after it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from typing import Any

import aiohttp
import pytest
from aiohttp import WSMsgType, web

from actors.gateway.wire import websocket
from wrapper.connection import Closed, Dialer, ingest_url

_KEY = base64.b64encode(b"0123456789abcdef").decode()
_UPGRADE = (
    "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    f"Sec-WebSocket-Key: {_KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
).encode()


def masked(opcode: int, payload: bytes) -> bytes:
    """A client's frame, by hand (RFC 6455 §5.2), with the mask 0."""
    assert len(payload) < 126
    return bytes([0x80 | opcode, 0x80 | len(payload)]) + b"\0\0\0\0" + payload


async def test_cut_at_any_byte_only_whole_messages_arrive() -> None:
    told = [b'{"type":"ready"}', b'{"n":1}', b'{"n":2}']
    frames = [masked(1, text) for text in told]
    stream = b"".join(frames)
    ends = [sum(map(len, frames[: n + 1])) for n in range(len(frames))]
    heard: list[list[bytes]] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        ws = websocket(max_msg_size=1 << 20)
        await ws.prepare(request)
        mine: list[bytes] = []
        while (message := await ws.receive()).type is WSMsgType.TEXT:
            mine.append(message.data)
        heard.append(mine)
        return ws

    app = web.Application()
    app.router.add_get("/", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    try:
        for cut in range(len(stream) + 1):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(_UPGRADE)
            await reader.readuntil(b"\r\n\r\n")
            writer.write(stream[:cut])
            writer.write_eof()
            await reader.read()
            writer.close()
            async with asyncio.timeout(10):
                while len(heard) <= cut:
                    await asyncio.sleep(0.001)
            assert heard[cut] == told[: sum(end <= cut for end in ends)], cut
    finally:
        await runner.cleanup()


async def test_a_ping_that_is_read_after_the_line_fell_ends_nothing_and_the_close_behind_it_is_heard() -> None:
    """Found by the simulation: the pong raised ConnectionResetError through the wrapper, and the wrapper died."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = (await reader.readuntil(b"\r\n\r\n")).decode()
        key = next(line.split(": ")[1] for line in asked.split("\r\n") if line.lower().startswith("sec-websocket-key"))
        accept = base64.b64encode(hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest())
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n" + b"\x89\x00" + b"\x88\x02\x0f\xa1"
        )
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    dialer = Dialer(ingest_url(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", "s"))
    try:
        socket = await dialer.dial("")
        async with asyncio.timeout(10):
            while not _fallen(socket._ws):
                await asyncio.sleep(0.001)
        with pytest.raises(Closed) as closed:
            await socket.receive()
        assert closed.value.code == 4001
    finally:
        await dialer.close()
        server.close()


def _fallen(ws: aiohttp.ClientWebSocketResponse) -> bool:
    transport: Any = ws._writer.transport
    return transport is None or transport.is_closing()
