"""Client processes of many sockets: idle wrappers, subscribers (some of whom stall), a storm, a bare crowd."""

from __future__ import annotations

import asyncio
import json
import random
import time
from typing import Any

import aiohttp

from tests.bench.peers import (
    Steady,
    connect,
    create,
    ends,
    enter,
    http_of,
    in_turn,
    quantiles,
    ready,
    tell,
    watching,
    word,
)

HEARTBEAT_S = 10.0  # the wrapper's (protocol/defaults.py)
CONNECT_TRIES_S = 120.0


async def idle(o: dict[str, Any]) -> None:
    """names: wrappers that are connected, and heartbeat. come: all of them, the next time as themselves again; leave:
    by a broken line."""
    async with http_of(o) as http:
        sockets: dict[str, aiohttp.ClientWebSocketResponse] = {}
        attempt = 0

        async def arrive(sid: str) -> None:
            if attempt == 1:
                await create(http, o["base"], sid)
            sockets[sid], _ = await enter(http, o["base"], sid, attempt)
            # At once: the service pings those who are silent, and the last of ten thousand come a minute later.
            tasks.append(asyncio.create_task(read(sockets[sid])))
            tasks.append(asyncio.create_task(beat(sid)))

        async def read(ws: aiohttp.ClientWebSocketResponse) -> None:
            async for _ in ws:  # pings are answered
                continue

        async def beat(sid: str) -> None:
            await asyncio.sleep(HEARTBEAT_S * random.random())
            while not sockets[sid].closed:
                await sockets[sid].send_str('{"type":"heartbeat","execution_id":null,"busy":false}')
                await asyncio.sleep(HEARTBEAT_S)

        tasks: list[asyncio.Task[Any]] = []
        ready()
        while (said := await word()) and said != "end":
            if said == "leave":
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                tasks.clear()
                for ws in sockets.values():
                    ws._response.close()  # the line only: a wrapper that is killed says nothing
                sockets.clear()
                tell({})
                continue
            attempt += 1
            began = time.time()
            await in_turn(arrive, o["names"])
            tell({"seconds": time.time() - began})
        tell({"open": sum(not ws.closed for ws in sockets.values())})
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def audience(o: dict[str, Any]) -> None:
    """count subscribers of one session; the first `stalled` of them never read. Says how much the others saw."""
    async with http_of(o) as http:
        sockets: list[aiohttp.ClientWebSocketResponse] = await in_turn(
            lambda _: watching(http, o["base"], o["name"]), range(o["count"])
        )
        seen = [0] * len(sockets)
        closed: dict[int, int] = {}

        async def read(k: int, ws: aiohttp.ClientWebSocketResponse) -> None:
            last = 0
            async for message in ws:
                if message.data.startswith('{"type":"events"'):
                    # The first and the last number tell whether anything is missing: parsing all of it nine hundred
                    # times would measure this process.
                    first, last_now = ends(message.data)
                    assert not last or first == last + 1, (k, first, last)
                    seen[k] += last_now - first + 1
                    last = last_now
            closed[k] = ws.close_code or 0

        for ws in sockets[: o["stalled"]]:
            transport = ws._response.connection.transport  # type: ignore[union-attr]
            transport.pause_reading()  # type: ignore[union-attr]
        tasks = [asyncio.create_task(read(k, ws)) for k, ws in enumerate(sockets) if k >= o["stalled"]]
        ready()
        while (said := await word()) and said != "end":
            tell({"least": min(seen[o["stalled"] :], default=0), "closed": len(closed)})
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def steady(o: dict[str, Any]) -> None:
    """names: running sessions at `rate` that survive whatever is done to the service. `now`: how they are; `end`: all
    that was made is acknowledged first."""
    async with http_of(o) as http:
        crowd = [Steady(http, o["base"], sid, o["rate"]) for sid in o["names"]]
        await in_turn(lambda one: one.set_up(), crowd)
        running = [asyncio.create_task(one.run()) for one in crowd]
        until = time.time() + CONNECT_TRIES_S
        while not all(one.acked for one in crowd):
            assert time.time() < until, "they did not all come in"
            await asyncio.sleep(0.05)
        ready()
        while (said := await word()) and said != "end":
            if said == "now":
                tell(_how(crowd))
                continue
            assert said == "back", said  # all of them in again, each more often than before
            lives = [one.lives for one in crowd]
            tell({})
            until = time.time() + CONNECT_TRIES_S
            while not all(one.lives > before for one, before in zip(crowd, lives, strict=True)):
                assert time.time() < until, "they did not all come back"
                await asyncio.sleep(0.01)
            tell({"last": max(one.back_at for one in crowd)})
        for one in crowd:
            one.stopping = True
        async with asyncio.timeout(120):
            await asyncio.gather(*running)
        tell(_how(crowd) | {"made": {one.sid: one.made for one in crowd}})


def _how(crowd: list[Steady]) -> dict[str, Any]:
    took = [ms for one in crowd for ms in one.latency_ms]
    for one in crowd:
        one.latency_ms.clear()
    return {
        "acked": sum(one.acked for one in crowd),
        "made": sum(one.made for one in crowd),
        "lives": sum(one.lives for one in crowd),
    } | quantiles(took)


async def accepted(o: dict[str, Any]) -> None:
    """The bare yardstick of a storm: how long until `count` sockets have each said something and been answered."""
    async with http_of(o) as http:
        sockets: list[Any] = []

        async def one(_: int) -> None:
            ws = await connect(http, f"{o['relay']}/echo")
            await ws.send_str(json.dumps({"type": "hello"}))
            await ws.receive_str(timeout=30)
            sockets.append(ws)

        ready()
        await word()
        began = time.time()
        await in_turn(one, range(o["count"]), at_once=o["count"])
        tell({"seconds": time.time() - began})


KINDS = {"idle": idle, "audience": audience, "steady": steady, "accepted": accepted}
