"""Client processes: `python -m tests.bench.clients KIND JSON` prints one JSON line. Kinds: send, watch, pace.

send: saturated ingest, as a wrapper does it (window, cumulative acks). watch: a subscriber that counts. pace: both in
one process at a fixed rate, so that latency is read on one clock. The same for the relay, without acks.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import aiohttp

WINDOW = 256 << 10
TEXT = "0123456789012345678901234567890123456789"


def connect(http: aiohttp.ClientSession, url: str, **kw: Any) -> Any:
    return http.ws_connect(url, compress=0, max_msg_size=0, autoping=True, **kw)


async def opened(http: aiohttp.ClientSession, base: str, sid: str) -> aiohttp.ClientWebSocketResponse:
    """A session with a running execution e1, and its socket."""
    async with http.post(f"{base}/v1/sessions", json={"session_id": sid}) as answer:
        assert answer.status in (201, 409), await answer.text()  # 409: the subscriber was first
    async with http.post(f"{base}/v1/sessions/{sid}/executions", json={"execution_id": "e1"}) as answer:
        assert answer.status == 202, await answer.text()
    ws: aiohttp.ClientWebSocketResponse = await connect(
        http, f"{base}/v1/sessions/{sid}/ingest", protocols=("holdfast.v1",)
    )
    hello = {"type": "hello", "protocol": 1, "wrapper_id": f"w_{sid}", "instance_id": f"i_{sid}", "attempt": 1}
    await ws.send_json({**hello, "executions": [], "spool": {"state": "ok"}})
    assert (await ws.receive_json())["type"] == "hello_ack"
    await ws.send_json({"type": "ready"})
    await ws.send_json({"type": "started", "execution_id": "e1", "seq": 1, "pid": 1})
    while (frame := await ws.receive_json())["type"] != "ack":
        assert frame["type"] == "command", frame
    return ws


def frame_of(seq: int, per_frame: int) -> bytes:
    event = b'{"type":"output","ts_ms":1,"data":{"stream":"stdout","text":"%b"}}' % TEXT.encode()
    return b'{"type":"events","execution_id":"e1","seq":%d,"events":[%b]}' % (seq, b",".join([event] * per_frame))


async def send_one(ws: aiohttp.ClientWebSocketResponse, total: int, per_frame: int) -> None:
    size = len(frame_of(1_000_000, per_frame))
    frames_in_window = max(1, WINDOW // size)
    acked, room = 1, asyncio.Event()

    async def read() -> None:
        nonlocal acked
        async for message in ws:
            frame = json.loads(message.data)
            if frame["type"] == "ack":
                acked = frame["seq"]
                room.set()
                if acked >= total + 1:
                    return
            else:
                assert frame["type"] == "command", frame

    reader = asyncio.create_task(read())
    seq = 2
    while seq <= total + 1:
        while (seq - 1 - acked) // per_frame >= frames_in_window:
            room.clear()
            await room.wait()
        await ws.send_frame(frame_of(seq, per_frame), aiohttp.WSMsgType.TEXT)
        seq += per_frame
    await reader


async def send(o: dict[str, Any]) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {o['token']}"}
    async with aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(limit=0)) as http:
        if o.get("relay"):
            ws = await connect(http, f"{o['relay']}/in/{o['names'][0]}")
            go(o)
            began = time.time()
            for i in range(o["total"] // o["per_frame"]):
                await ws.send_frame(frame_of(i, o["per_frame"]), aiohttp.WSMsgType.TEXT)
            await ws.close()
        else:
            sockets = [await opened(http, o["base"], sid) for sid in o["names"]]
            go(o)
            began = time.time()
            await asyncio.gather(*(send_one(ws, o["total"], o["per_frame"]) for ws in sockets))
        return {"began": began, "ended": time.time()}


def go(o: dict[str, Any]) -> None:
    """Ready; the parent says when everybody is."""
    print("ready", flush=True)
    sys.stdin.readline()


async def watch(o: dict[str, Any]) -> dict[str, Any]:
    """Counts events (relay: frames × per_frame) of one session until `total` have come."""
    headers = {"Authorization": f"Bearer {o['token']}"}
    async with aiohttp.ClientSession(headers=headers) as http:
        relay = o.get("relay")
        sid = o["names"][0]
        url = f"{relay}/out/{sid}" if relay else f"{o['base']}/v1/sessions/{sid}/stream?after_seq={o.get('after', 0)}"
        ws = await connect(http, url)
        go(o)
        began, seen, last = time.time(), 0, 0
        async for message in ws:
            if relay:
                seen += o["per_frame"]
            elif message.data.startswith('{"type":"events"'):
                for event in json.loads(message.data)["events"]:
                    assert event["seq"] == last + 1 or not last, (event["seq"], last)
                    last = event["seq"]
                    seen += event["type"] == "output"
            if seen >= o["total"]:
                break
        return {"began": began, "ended": time.time(), "seen": seen}


async def pace(o: dict[str, Any]) -> dict[str, Any]:
    """`rate` events a second on each session for `seconds`; latency from send to a subscriber, in ms."""
    headers = {"Authorization": f"Bearer {o['token']}"}
    took: list[float] = []
    async with aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(limit=0)) as http:
        relay = o.get("relay")
        pairs = []
        for sid in o["names"]:
            if relay:
                sink = await connect(http, f"{relay}/out/{sid}")
                source = await connect(http, f"{relay}/in/{sid}")
            else:
                source = await opened(http, o["base"], sid)
                sink = await connect(http, f"{o['base']}/v1/sessions/{sid}/stream")
            pairs.append((source, sink))

        async def receive(sink: Any) -> None:
            async for message in sink:
                now = time.perf_counter_ns()
                frame = json.loads(message.data)
                for event in frame.get("events", ()):
                    if event["type"] == "output":
                        took.append((now - event["data"]["at"]) / 1e6)

        async def drain(source: Any) -> None:
            async for _ in source:
                continue

        async def produce(k: int, source: Any) -> None:
            step = 1 / o["rate"]
            due = time.perf_counter() + step * k / len(pairs)
            for i in range(round(o["rate"] * o["seconds"])):
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                due += step
                event = {"type": "output", "ts_ms": 1, "data": {"text": TEXT, "at": time.perf_counter_ns()}}
                frame = {"type": "events", "execution_id": "e1", "seq": i + 2, "events": [event]}
                await source.send_str(json.dumps(frame, separators=(",", ":")))

        listening = [asyncio.create_task(receive(sink)) for _, sink in pairs]
        listening += [asyncio.create_task(drain(source)) for source, _ in pairs]
        go(o)
        await asyncio.gather(*(produce(k, source) for k, (source, _) in enumerate(pairs)))
        await asyncio.sleep(1.0)  # the last ones arrive; not part of any figure
        for task in listening:
            task.cancel()
    took.sort()
    n = len(took)
    return {"n": n, "p50": took[n // 2], "p99": took[n * 99 // 100], "max": took[-1]}


if __name__ == "__main__":
    import uvloop

    uvloop.install()
    kind, options = sys.argv[1], json.loads(sys.argv[2])
    print(json.dumps(asyncio.run({"send": send, "watch": watch, "pace": pace}[kind](options))), flush=True)
