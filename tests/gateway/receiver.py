"""A receiver of webhooks that fails as it is told to, a name service that lies, and a clock for both sides."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

from actors.store.sqlite import SqliteStore
from tests.gateway.house import House

START_MS = 1_700_000_000_000


class Clock:
    def __init__(self) -> None:
        self.now_ms = START_MS

    def __call__(self) -> int:
        return self.now_ms

    def walk(self, seconds: float) -> None:
        self.now_ms += round(seconds * 1000)


class TimedHouse(House):
    """The store and the gateway's wall are the test's clock."""

    def __init__(self, folder: Path, clock: Clock, **settings: Any) -> None:
        super().__init__(folder, **{"webhook_allow": ("127.0.0.1",), **settings})
        self.clock = clock

    def _store(self) -> SqliteStore:
        return SqliteStore.open(
            self.settings.store_path, self.settings.policy(), checkpoints=True, wall=self.clock, synchronous="OFF"
        )

    async def ended(self, session_id: str, url: str, **callback: Any) -> str:
        """An execution with this callback, ended by its operator; returns the webhook's id."""
        await self.session(session_id)
        await self.submit(session_id, "e", callback={"url": url, **callback})
        await self.call("POST", f"/v1/sessions/{session_id}/executions/e/fail", {"error": "by hand"})
        page = await self.call("GET", "/v1/webhooks", params={"session_id": session_id})
        return str(page["items"][0]["webhook_id"])

    async def webhook(self, webhook_id: str) -> dict[str, Any]:
        found: dict[str, Any] = await self.call("GET", f"/v1/webhooks/{webhook_id}")
        return found


Said = tuple[dict[str, str], bytes]


class Receiver:
    """Answers with `script`, one after another, then with 204; keeps what it was told."""

    def __init__(self) -> None:
        self.heard: list[Said] = []
        self.script: list[Callable[[web.Request], Any] | web.Response | int] = []
        self.hold: asyncio.Event | None = None  # wait for it before an answer
        self.waiting = 0
        self.most = 0
        self.hosts: list[str] = []

    async def open(self) -> Receiver:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._take)
        self.runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", 0)
        await site.start()
        self.port = self.runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{self.port}/hook"
        return self

    async def _take(self, request: web.Request) -> web.StreamResponse:
        self.heard.append((dict(request.headers), await request.read()))
        self.hosts.append(request.host)
        self.waiting += 1
        self.most = max(self.most, self.waiting)
        try:
            if self.hold is not None:
                await self.hold.wait()
        finally:
            self.waiting -= 1
        answer = self.script.pop(0) if self.script else 204
        if isinstance(answer, int):
            return web.Response(status=answer)
        if isinstance(answer, web.Response):
            return answer
        made: web.StreamResponse = await answer(request)
        return made

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body in self.heard]

    def keys(self) -> list[str]:
        return [headers["Idempotency-Key"] for headers, _ in self.heard]

    async def close(self) -> None:
        if self.hold is not None:
            self.hold.set()
        await self.runner.cleanup()


class Names(AbstractResolver):
    """Answers the next list of addresses for a name each time it is asked; the last one for ever."""

    def __init__(self, **answers: list[list[str]]) -> None:
        self.answers = {name.replace("_", "."): lists for name, lists in answers.items()}
        self.asked: list[str] = []

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        self.asked.append(host)
        lists = self.answers[host]
        found = lists.pop(0) if len(lists) > 1 else lists[0]
        return [
            ResolveResult(
                hostname=host,
                host=a,
                port=port,
                family=socket.AF_INET6 if ":" in a else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for a in found
        ]

    async def close(self) -> None:
        return None
