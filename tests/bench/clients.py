"""Client processes: `python -m tests.bench.clients KIND` reads its options, says `ready`, waits for a word, answers.

send: saturated ingest, as a wrapper does it (window, cumulative acks). watch: a subscriber that counts. pace: both in
one process at a fixed rate, so that latency is read on one clock. The same for the relay, without acks. The kinds of
many sockets are in crowd.py, those of control decisions in deciders.py.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import aiohttp
import orjson

from tests.bench import proc
from tests.bench.peers import (
    TEXT,
    Line,
    connect,
    ends,
    frame_of,
    go,
    http_of,
    in_turn,
    opened,
    own_the_pipe,
    pair_of_lines,
    quantiles,
    tell,
)

TIMER_S = 0.001  # how exactly a loop sleeps
OUTPUT = '"type":"output"'


async def send_one(
    ws: aiohttp.ClientWebSocketResponse, window: int, total: int, per_frame: int, until: float = 0.0
) -> int:
    """`total` records, or until a moment. Returns how many are acknowledged."""
    size = len(frame_of(1_000_000, per_frame))
    frames_in_window = max(1, window // size)
    acked, last, room = 1, 0, asyncio.Event()

    async def read() -> None:
        nonlocal acked
        async for message in ws:
            frame = json.loads(message.data)
            if frame["type"] == "ack":
                acked = frame["seq"]
                room.set()
                if last and acked >= last:
                    return
            else:
                assert frame["type"] == "command", frame

    reader = asyncio.create_task(read())
    seq = 2
    while seq <= total + 1 and not (until and time.time() > until):
        while (seq - 1 - acked) // per_frame >= frames_in_window:
            room.clear()
            await room.wait()
        seq += per_frame
        if seq > total + 1:
            last = seq - 1
        await ws.send_frame(frame_of(seq - per_frame, per_frame), aiohttp.WSMsgType.TEXT)
    last = seq - 1
    if acked < last:
        await reader
    reader.cancel()
    return acked - 1


async def send(o: dict[str, Any]) -> None:
    """total: records of each session; seconds: instead, for so long."""
    async with http_of(o) as http:
        if o.get("relay"):
            ws = await connect(http, f"{o['relay']}/in/{o['names'][0]}")
            go()
            began = time.time()
            for i in range(o["total"] // o["per_frame"]):
                frame = b"x" * o["bytes"] if "bytes" in o else frame_of(i, o["per_frame"])
                await ws.send_frame(frame, aiohttp.WSMsgType.TEXT)
            await ws.close()
            sent = o["total"]
        else:
            sockets = await in_turn(lambda sid: opened(http, o["base"], sid), o["names"])
            go()
            began = time.time()
            until = began + o["seconds"] if "seconds" in o else 0.0
            total = o.get("total", 1 << 40)
            sent = sum(await asyncio.gather(*(send_one(*socket, total, o["per_frame"], until) for socket in sockets)))
            assert "seconds" in o or sent == total * len(sockets), "not everything was acknowledged"
        tell({"began": began, "ended": time.time(), "acked": sent})


async def watch(o: dict[str, Any]) -> None:
    """Counts events (relay: frames × per_frame) of one session until `total` have come, none missing and none twice.

    It looks at the ends of each frame only: the relay's watcher looks at nothing, and what a client does with what it
    is told is not measured. late: it connects when everything is there already.
    """
    async with http_of(o) as http:
        relay = o.get("relay")
        sid = o["names"][0]
        url = f"{relay}/out/{sid}" if relay else f"{o['base']}/v1/sessions/{sid}/stream?after_seq={o.get('after', 0)}"
        if not o.get("late"):
            ws = await connect(http, url)
        go()
        began, seen, last, size, frames = time.time(), 0, o.get("after", 0), 0, 0
        if o.get("late"):
            ws = await connect(http, url)
        async for message in ws:
            size, frames = size + len(message.data), frames + 1
            if relay:
                seen += o["per_frame"]
            elif not message.data.startswith('{"type":"events"'):
                continue
            else:
                first, last_now = ends(message.data)
                assert first == last + 1, (first, last)
                seen, last = seen + message.data.count(OUTPUT), last_now
            if seen >= o["total"]:
                break
        assert seen >= o["total"], f"{seen} of {o['total']} came"
        tell({"began": began, "ended": time.time(), "seen": seen, "bytes": size, "frames": frames})


async def pace(o: dict[str, Any]) -> None:
    """`rate` events a second on each session for `seconds`; latency from send to a subscriber, in ms. closed: wrappers
    that were told to come again later."""
    took: list[float] = []
    closed: list[int | None] = []
    async with http_of(o) as http:
        relay = o.get("relay")

        async def pair(sid: str) -> tuple[Line, Line]:
            if relay:
                sink = await Line.to(http, f"{relay}/out/{sid}")
                return await Line.to(http, f"{relay}/in/{sid}"), sink
            return await pair_of_lines(http, o["base"], sid)

        pairs = await in_turn(pair, o["names"])

        def take(raw: bytes) -> None:
            now = time.perf_counter_ns()
            frame = orjson.loads(raw)
            for event in frame.get("events", ()):
                if event["type"] == "output":
                    took.append((now - event["data"]["at"]) / 1e6)

        async def produce() -> None:
            """An event of each session in turn, evenly spread over the step."""
            open_, step = dict(enumerate(pairs)), 1 / (o["rate"] * len(pairs))
            due = time.perf_counter()
            for i in range(round(o["rate"] * o["seconds"])):
                for k in range(len(pairs)):
                    due += step
                    if due > time.perf_counter():  # what is due together is sent together: a loop sleeps a millisecond
                        await asyncio.sleep(due - time.perf_counter())
                    if k not in open_:
                        continue
                    source, _ = open_[k]
                    if source.close_code is not None:  # overload is said so; then the rate was not sustained
                        closed.append(source.close_code)
                        del open_[k]
                        continue
                    now = time.perf_counter()
                    made_at = due if now - due > TIMER_S else now  # if we are behind, that is part of the delay
                    event = {"type": "output", "ts_ms": 1, "data": {"text": TEXT, "at": round(made_at * 1e9)}}
                    frame = {"type": "events", "execution_id": "e1", "seq": i + 2, "events": [event]}
                    source.send(orjson.dumps(frame))

        for source, sink in pairs:
            source.take, sink.take = (lambda raw: None), take
        go()
        began = time.time()
        await produce()
        took_s = time.time() - began
        wanted, until = round(o["rate"] * o["seconds"]) * len(pairs), time.time() + 10
        while len(took) < wanted and time.time() < until:  # the last ones arrive; nothing may be missing
            await asyncio.sleep(0.01)
        assert not any(sink.close_code for _, sink in pairs), "a subscriber was closed"
        assert len(took) == wanted or closed, f"{len(took)} of {wanted} events came"
        tell(quantiles(took) | {"seconds": took_s, "closed": len(closed)})


def main() -> None:
    from tests.bench import crowd, deciders

    kinds = {"send": send, "watch": watch, "pace": pace} | crowd.KINDS | deciders.KINDS
    own_the_pipe()
    proc.open_files()
    try:
        import uvloop
    except ImportError:
        print("without uvloop", file=sys.stderr)
    else:
        uvloop.install()
    asyncio.run(kinds[sys.argv[1]](json.loads(sys.stdin.readline())))


if __name__ == "__main__":
    main()
