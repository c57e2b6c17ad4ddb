"""What a person or a supervisor asks of the door itself: is it alive, is it ready, what is this."""

from __future__ import annotations

import functools
import time
from typing import Final, NamedTuple

import orjson
from aiohttp import web

from actors.gateway.auth import Authority
from actors.gateway.documents import page
from actors.gateway.documents.asyncapi import asyncapi
from actors.gateway.documents.openapi import openapi
from actors.gateway.door import Door
from actors.gateway.loops import Loops
from actors.gateway.problems import answer
from actors.mailbox import ActorPort
from actors.protocol.errors import HoldfastError

TICK_AGE_MAX_S: Final = 5.0  # the writer has committed within it, or it does not count as writable


class Pages:
    def __init__(self, door: Door, authority: Authority, loops: Loops, port: ActorPort) -> None:
        self.door, self.authority, self.loops, self.port = door, authority, loops, port

    async def home(self, request: web.Request) -> web.Response:
        return web.Response(text=page.home(), content_type="text/html", headers=page.HEADERS)

    async def docs(self, request: web.Request) -> web.Response:
        return web.Response(body=_made().docs, content_type="text/html", charset="utf-8", headers=page.HEADERS)

    async def openapi(self, request: web.Request) -> web.Response:
        return _document(_made().openapi)

    async def asyncapi(self, request: web.Request) -> web.Response:
        return _document(_made().asyncapi)

    async def health(self, request: web.Request) -> web.Response:
        """The process lives, its loop turns, its writer is not stuck: a supervisor kills what does not answer this."""
        if self.loops.stuck:
            raise HoldfastError("unavailable", "the writer hangs")
        return answer({"status": "ok", "gateway_id": self.door.gateway_id})

    async def ready(self, request: web.Request) -> web.Response:
        """Whether work sent here would be done: the writer has committed lately, Ray answers, the door is not closing.
        503 says which of them is missing. A supervisor takes it out of a balancer by this, and never kills for it."""
        reachable = getattr(self.port, "reachable", None)
        found = {
            "store": self.loops.ticked_at > 0 and time.monotonic() - self.loops.ticked_at < TICK_AGE_MAX_S,
            "actors": bool(reachable()) if callable(reachable) else True,
            "accepting": self.door.accepting,
        }
        if not all(found.values()):
            missing = ", ".join(name for name, good in found.items() if not good)
            raise HoldfastError("unavailable", f"not ready: {missing}", **found)
        return answer({"status": "ready", "gateway_id": self.door.gateway_id, **found})

    async def preflight(self, request: web.Request) -> web.Response:
        """CORS, for the exact origins of the allow-list. Not a route: it would make every path known."""
        origin = self.authority.check_origin(request)
        headers = {"Vary": "Origin"}
        if origin is not None:
            headers |= {
                "Access-Control-Allow-Origin": origin,
                "Access-Control-Allow-Methods": "GET, POST, PATCH, DELETE",
                "Access-Control-Allow-Headers": "Authorization, Content-Type, Idempotency-Key, Last-Event-ID",
                "Access-Control-Max-Age": "600",
            }
        return web.Response(status=204, headers=headers)


class _Made(NamedTuple):
    openapi: bytes
    asyncapi: bytes
    docs: bytes


@functools.cache
def _made() -> _Made:
    """Once per process, when somebody asks: they are made from what does not change while it runs."""
    http, sockets = openapi(), asyncapi()
    return _Made(orjson.dumps(http), orjson.dumps(sockets), page.docs(http, sockets).encode())


def _document(body: bytes) -> web.Response:
    return web.Response(body=body, content_type="application/json", headers={"Cache-Control": "no-cache"})
