"""The yardstick: an aiohttp relay, socket in, socket out. It parses nothing, stores nothing, acknowledges nothing."""

from __future__ import annotations

import sys
from collections import defaultdict

from aiohttp import WSMsgType, web

from tests.bench import proc


def application() -> web.Application:
    out: dict[str, list[web.WebSocketResponse]] = defaultdict(list)

    async def subscribe(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(compress=False, max_msg_size=0)
        await ws.prepare(request)
        listeners = out[request.match_info["id"]]
        listeners.append(ws)
        async for _ in ws:
            continue
        listeners.remove(ws)
        return ws

    async def publish(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(compress=False, max_msg_size=0)
        await ws.prepare(request)
        listeners = out[request.match_info["id"]]
        async for message in ws:
            if message.type is WSMsgType.TEXT:
                for listener in listeners:
                    await listener.send_str(message.data)
        return ws

    async def echo(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(compress=False, max_msg_size=0)
        await ws.prepare(request)
        async for message in ws:
            await ws.send_str(message.data)
        return ws

    app = web.Application()
    app.router.add_get("/out/{id}", subscribe)
    app.router.add_get("/in/{id}", publish)
    app.router.add_get("/echo", echo)
    return app


def serve(app: web.Application, port: int) -> None:
    """Until it is told to end; on the loop that the gateway has."""
    proc.open_files()
    try:
        import uvloop

        uvloop.install()
    except ImportError:
        print("without uvloop", file=sys.stderr)
    web.run_app(app, host="127.0.0.1", port=port, print=None, access_log=None)


if __name__ == "__main__":
    serve(application(), int(sys.argv[1]))
