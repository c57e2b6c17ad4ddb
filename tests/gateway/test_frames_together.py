"""Frames that arrived together are read without a turn of the loop each; this leans on aiohttp's queue, so it is shown
on aiohttp's own sockets."""

from __future__ import annotations

import asyncio

import aiohttp
from aiohttp import WSMsgType, web
from aiohttp.test_utils import TestServer

from actors.gateway.wire import websocket
from tests.gateway.house import eventually


async def test_what_has_arrived_is_taken_in_order_up_to_what_is_no_text() -> None:
    taken: list[bytes] = []
    behind: list[WSMsgType] = []
    over = asyncio.Event()

    async def handle(request: web.Request) -> web.StreamResponse:
        ws = websocket(max_msg_size=1 << 16)
        await ws.prepare(request)
        assert ws.more() is None, "nothing has arrived"
        taken.append((await ws.receive()).data)

        def drained() -> bool:
            while (raw := ws.more()) is not None:
                taken.append(raw)
            return len(taken) == 5

        await eventually(drained)
        message = await ws.receive()
        assert ws.more() is None
        behind.append(message.type)
        message = await ws.receive()
        behind.append(message.type)
        assert ws.more() is None, "a socket that is closing has nothing more to say"
        over.set()
        return ws

    app = web.Application()
    app.router.add_get("/", handle)
    async with TestServer(app) as server, aiohttp.ClientSession() as http:
        async with http.ws_connect(server.make_url("/")) as client:
            for n in range(5):
                await client.send_str(f"frame {n}")
            await client.ping(b"p")
            await client.close()
        await asyncio.wait_for(over.wait(), 10)
    assert taken == [b"frame %d" % n for n in range(5)]
    assert behind == [WSMsgType.PING, WSMsgType.CLOSE]
