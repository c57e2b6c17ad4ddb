"""Those who watch: a thousand who never read, one who comes late to a long story; nobody else waits for them."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import socket as sockets
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.e2e.service import Service
from tests.e2e.test_faults import frames, socket

STALLED = 990  # a session takes 1,000 subscribers
BATCH = 200


async def stalled(service: Service, sid: str) -> sockets.socket:
    """A WebSocket by hand that asks for everything and never reads a byte of it."""
    raw = sockets.socket()
    raw.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4096)
    raw.setblocking(False)
    host, port = service.url.removeprefix("http://").split(":")
    loop = asyncio.get_running_loop()
    await loop.sock_connect(raw, (host, int(port)))
    key = base64.b64encode(os.urandom(16)).decode()
    await loop.sock_sendall(
        raw,
        (
            f"GET /v1/sessions/{sid}/stream?after_seq=0 HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n"
            f"Authorization: Bearer {service.token}\r\n\r\n"
        ).encode(),
    )
    return raw


async def ingest(ws: aiohttp.ClientWebSocketResponse, first: int, n: int) -> float:
    """n records from `first` on, a window at a time; returns the seconds until all are acknowledged."""
    began, text = time.monotonic(), "x" * 100
    for start in range(first, first + n, BATCH):
        events = [{"type": "output", "ts_ms": 1, "data": {"n": start + i, "text": text}} for i in range(BATCH)]
        await ws.send_json({"type": "events", "execution_id": "e1", "seq": start, "events": events})
        while (await frames(ws, "ack"))[-1]["seq"] < start + BATCH - 1:
            continue
    return time.monotonic() - began


async def started(service: Service, sid: str, ws: aiohttp.ClientWebSocketResponse) -> None:
    await asyncio.to_thread(service.submit, sid, "e1")
    await ws.send_json({"type": "started", "execution_id": "e1", "seq": 1, "pid": 1})
    await frames(ws, "ack")


async def watch(service: Service, sid: str, until_n: int) -> tuple[list[int], float]:
    """Every n in order of arrival from the very beginning until `until_n`, and the seconds until caught_up."""
    seen: list[int] = []
    last, caught, began = 0, 0.0, time.monotonic()
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {service.token}"}) as http:
        async with http.ws_connect(f"{service.url}/v1/sessions/{sid}/stream?after_seq=0", max_msg_size=0) as ws:
            async for message in ws:
                frame: dict[str, Any] = json.loads(message.data)
                if frame["type"] == "caught_up":
                    caught = time.monotonic() - began
                for event in frame.get("events", ()):
                    assert event["seq"] == last + 1, "contiguous"
                    last = event["seq"]
                    if event["type"] == "output":
                        seen.append(event["data"]["n"])
                if seen and seen[-1] >= until_n and caught:
                    break
    return seen, caught


def rss_mib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


@pytest.mark.alone
def test_a_thousand_stalled_subscribers_leave_ingest_and_a_healthy_one_unharmed(service: Service) -> None:
    n = 20_000
    service.create("quiet")
    service.create("stalls")

    async def story() -> tuple[float, float, float]:
        async with socket(service, "quiet") as alone:
            await started(service, "quiet", alone)
            unwatched = await ingest(alone, 2, n)
        before = rss_mib(service.gateway_pid())
        deaf = [await stalled(service, "stalls") for _ in range(STALLED)]
        async with socket(service, "stalls", instance_id="i_2") as ws:
            await started(service, "stalls", ws)
            healthy = asyncio.create_task(watch(service, "stalls", n + 1))
            watched = await ingest(ws, 2, n)
            seen, _ = await asyncio.wait_for(healthy, 60)
            grown = rss_mib(service.gateway_pid()) - before
        for raw in deaf:
            raw.close()
        assert seen == list(range(2, n + 2))
        return unwatched, watched, grown

    unwatched, watched, grown = asyncio.run(story())
    print(f"ingest of {n}: {unwatched:.2f} s alone, {watched:.2f} s beside {STALLED} deaf; +{grown:.0f} MiB")
    # Loose, for a busy machine: a gateway that waited for the deaf would stand still for ever.
    assert watched < 10 * unwatched + 10
    assert grown < 400, "what the deaf cost is bounded: a few frames each, not the story"


@pytest.mark.alone
def test_who_comes_late_to_a_hundred_thousand_events_catches_up_and_holds_up_nobody(service: Service) -> None:
    n = 100_000
    service.create("long")
    service.create("beside")

    async def story() -> tuple[float, float]:
        async with socket(service, "long") as ws:
            await started(service, "long", ws)
            await ingest(ws, 2, n)
        # Only now, and never silent: on a slow machine the long story takes longer than a silence may.
        async with socket(service, "beside", instance_id="i_2") as beside:
            await started(service, "beside", beside)
            late = asyncio.create_task(watch(service, "long", n + 1))
            worst, seq = 0.0, 2
            while not late.done():
                worst = max(worst, await ingest(beside, seq, BATCH))
                seq += BATCH
                await asyncio.sleep(0.02)  # paces the neighbour; the reader sets the length
            seen, caught = await late
            assert seen == list(range(2, n + 2))
            return caught, worst

    caught, worst = asyncio.run(story())
    print(f"{n} events to caught_up: {caught:.2f} s; a neighbour's worst group of {BATCH}: {worst * 1000:.0f} ms")
    assert caught < 60 and worst < 5
