"""What the client processes share: a session with a running execution, a wrapper's frames, and one that survives.

`Steady` is a wrapper with its spool in memory: numbered records, a window, cumulative acknowledgements, `hello` again
with what it has whenever the line breaks. It has no patience (a tenth of a second between tries), because the
service's way back is measured and not the wrapper's back-off.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

import aiohttp
from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from actors.protocol.codes import SUBPROTOCOL

TEXT = "0123456789012345678901234567890123456789"
PAUSE_S = 0.1
AT_ONCE = 64  # connects or requests at a time: a crowd that comes through a door, not a flood of half-open sockets


def http_of(o: dict[str, Any]) -> aiohttp.ClientSession:
    headers = {"Authorization": f"Bearer {o['token']}"}
    return aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(limit=0))


async def connect(http: aiohttp.ClientSession, url: str, **kw: Any) -> aiohttp.ClientWebSocketResponse:
    return await http.ws_connect(url, compress=0, max_msg_size=0, autoping=True, **kw)


class Line(WSListener):  # type: ignore[misc]  # it is compiled, and says no types
    """A socket at the price of its frames: what aiohttp takes for one (a future, a task's turn, three coroutines) is
    taken from the cores that the service is measured on. It speaks JSON while it is opened; then `take` has the texts.
    """

    def __init__(self) -> None:
        self.close_code: int | None = None
        self.take: Callable[[bytes], object] = self._keep
        self._kept: asyncio.Queue[bytes] = asyncio.Queue()  # a handful, while it is being opened
        self._transport: WSTransport

    @classmethod
    async def to(cls, http: aiohttp.ClientSession, url: str, subprotocol: str = "") -> Line:
        headers = dict(http.headers) | ({"Sec-WebSocket-Protocol": subprotocol} if subprotocol else {})
        _, line = await ws_connect(cls, url.replace("http", "ws", 1), extra_headers=headers)
        return line  # type: ignore[no-any-return]

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.TEXT:
            self.take(frame.get_payload_as_bytes())
        elif frame.msg_type == WSMsgType.CLOSE:
            self.close_code = int(frame.get_close_code())
            transport.disconnect()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.close_code = self.close_code or 1006

    def send(self, text: bytes) -> None:
        self._transport.send(WSMsgType.TEXT, text)

    async def send_json(self, frame: dict[str, Any]) -> None:
        self.send(json.dumps(frame).encode())

    async def receive_json(self, *, timeout: float) -> Any:
        return json.loads(await asyncio.wait_for(self._kept.get(), timeout))

    def _keep(self, text: bytes) -> None:
        self._kept.put_nowait(text)


class Socket(Protocol):
    """What aiohttp's and a `Line` have in common."""

    async def send_json(self, frame: dict[str, Any], /) -> None: ...

    async def receive_json(self, *, timeout: float) -> Any: ...


async def watching(http: aiohttp.ClientSession, base: str, sid: str) -> aiohttp.ClientWebSocketResponse:
    """A subscriber of what comes from here on. It stands where its snapshot says, and nowhere before it came."""
    ws = await connect(http, f"{base}/v1/sessions/{sid}/stream")
    await stands(ws)
    return ws


async def stands(ws: Socket) -> None:
    """Until a subscriber's snapshot has come."""
    snapshot = await ws.receive_json(timeout=60)
    assert snapshot["type"] == "snapshot", snapshot


async def create(http: aiohttp.ClientSession, base: str, sid: str) -> None:
    async with http.post(f"{base}/v1/sessions", json={"session_id": sid}) as answer:
        assert answer.status in (201, 409), await answer.text()  # 409: a subscriber was first


async def submit(http: aiohttp.ClientSession, base: str, sid: str, execution_id: str = "e1") -> None:
    async with http.post(f"{base}/v1/sessions/{sid}/executions", json={"execution_id": execution_id}) as answer:
        assert answer.status == 202, await answer.text()


async def enter(
    http: aiohttp.ClientSession, base: str, sid: str, attempt: int = 1, executions: list[Any] | None = None
) -> tuple[aiohttp.ClientWebSocketResponse, dict[str, Any]]:
    """A wrapper's socket up to `ready`, and the hello_ack."""
    ws = await connect(http, f"{base}/v1/sessions/{sid}/ingest", protocols=(SUBPROTOCOL,))
    return ws, await greet(ws, sid, attempt, executions)


async def greet(ws: Socket, sid: str, attempt: int = 1, executions: list[Any] | None = None) -> dict[str, Any]:
    """hello to `ready` on an open socket; the hello_ack, and in it `took_ms` from the hello on."""
    hello = {"type": "hello", "protocol": 1, "wrapper_id": f"w_{sid}", "instance_id": f"i_{sid}", "attempt": attempt}
    began = time.perf_counter()
    await ws.send_json({**hello, "executions": executions or [], "spool": {"state": "ok"}})
    hello_ack: dict[str, Any] = await ws.receive_json(timeout=30)
    hello_ack["took_ms"] = (time.perf_counter() - began) * 1000
    assert hello_ack["type"] == "hello_ack", hello_ack
    await ws.send_json({"type": "ready"})
    return hello_ack


async def begin(ws: Socket, execution_id: str = "e1") -> None:
    await ws.send_json({"type": "started", "execution_id": execution_id, "seq": 1, "pid": 1})
    await until(ws, "ack")


async def until(ws: Socket, *types: str) -> dict[str, Any]:
    """The next frame of these types; commands between are passed over."""
    while True:
        frame: dict[str, Any] = await ws.receive_json(timeout=60)
        if frame["type"] in types:
            return frame
        assert frame["type"] in ("command", "ack"), frame


async def opened(http: aiohttp.ClientSession, base: str, sid: str) -> tuple[aiohttp.ClientWebSocketResponse, int]:
    """A session with a running execution e1: its socket, and the window that it was told."""
    await create(http, base, sid)
    await submit(http, base, sid)
    ws, hello_ack = await enter(http, base, sid)
    await begin(ws)
    return ws, hello_ack["window_bytes"]


async def pair_of_lines(http: aiohttp.ClientSession, base: str, sid: str) -> tuple[Line, Line]:
    """The wrapper's socket of such a session, and a subscriber's, as `Line`s."""
    await create(http, base, sid)
    await submit(http, base, sid)
    source = await Line.to(http, f"{base}/v1/sessions/{sid}/ingest", SUBPROTOCOL)
    await greet(source, sid)
    await begin(source)
    sink = await Line.to(http, f"{base}/v1/sessions/{sid}/stream")
    await stands(sink)
    return source, sink


async def in_turn(work: Any, items: Any, at_once: int = AT_ONCE) -> list[Any]:
    slots = asyncio.Semaphore(at_once)

    async def one(item: Any) -> Any:
        async with slots:
            return await work(item)

    return await asyncio.gather(*(one(item) for item in items))


def frame_of(seq: int, per_frame: int) -> bytes:
    event = b'{"type":"output","ts_ms":1,"data":{"stream":"stdout","text":"%b"}}' % TEXT.encode()
    return b'{"type":"events","execution_id":"e1","seq":%d,"events":[%b]}' % (seq, b",".join([event] * per_frame))


def ends(text: str) -> tuple[int, int]:
    """The first and the last seq of a frame of events, without parsing what is between."""
    at = text.index('"seq":') + 6
    first = int(text[at : text.index(",", at)])
    at = text.rindex('{"seq":') + 7
    return first, int(text[at : text.index(",", at)])


_parent = sys.stdout


def own_the_pipe() -> None:
    """What libraries print (Ray does, when it likes to) may not stand between us and the parent: it becomes stderr."""
    global _parent
    _parent = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)


def _say(line: str) -> None:
    _parent.write(line + "\n")
    _parent.flush()


def ready() -> None:
    _say("ready")


def go() -> None:
    """Ready; the parent says when everybody is. Blocks the loop: nothing may be going on yet."""
    ready()
    sys.stdin.readline()


async def word() -> str:
    """The parent's next word, while the loop goes on. Empty: it is gone."""
    return (await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)).strip()


def tell(answer: Any) -> None:
    _say(json.dumps(answer))


def quantiles(took: list[float]) -> dict[str, float]:
    took = sorted(took)
    n = len(took)
    return {"n": n, "p50": took[n // 2], "p99": took[n * 99 // 100], "max": took[-1]} if n else {"n": 0}


class Steady:
    """`rate` events a second until told to stop, across every kind of broken line."""

    def __init__(self, http: aiohttp.ClientSession, base: str, sid: str, rate: float) -> None:
        self.http, self.base, self.sid, self.rate = http, base, sid, rate
        self.made, self.acked, self.sent = 1, 0, 0  # record 1 is `started`
        self.back_at = 0.0  # when it was in again, last
        self.lives = 0
        self.stopping = False
        self.latency_ms: deque[float] = deque(maxlen=20_000)
        self._attempts = itertools.count(1)
        self._due: dict[int, float] = {}
        self._some = asyncio.Event()

    async def set_up(self) -> None:
        await create(self.http, self.base, self.sid)
        await submit(self.http, self.base, self.sid)

    async def run(self) -> None:
        """Until everything that was made is acknowledged after `stopping`."""
        making = asyncio.create_task(self._make())
        while not (self.stopping and making.done() and self.acked >= self.made):
            try:
                await self._live()
            except (aiohttp.ClientError, ConnectionError, TimeoutError, TypeError, AssertionError):
                await asyncio.sleep(PAUSE_S)  # TypeError: the socket was closed while a frame was waited for
        await making

    async def _make(self) -> None:
        step = 1 / self.rate
        due = time.perf_counter() + step
        while not self.stopping:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            due += step
            if self.made - self.acked < 5000:  # a spool has a limit
                self.made += 1
                self._due[self.made] = time.perf_counter()
                self._some.set()

    async def _live(self) -> None:
        known = (
            [{"execution_id": "e1", "state": "running", "first_seq": 1, "last_seq": self.made}] if self.lives else []
        )
        async with asyncio.timeout(30):
            ws, hello_ack = await enter(self.http, self.base, self.sid, next(self._attempts), known)
        try:
            for directive in hello_ack["executions"]:
                assert directive["directive"] == "resume", directive
                self._settle(directive["acked_seq"])
            self.sent = self.acked
            if self.acked == 0:
                await ws.send_json({"type": "started", "execution_id": "e1", "seq": 1, "pid": 1})
                self.sent = 1
            self.lives += 1
            self.back_at = time.time()
            sender = asyncio.create_task(self._send(ws))
            try:
                async for message in ws:
                    frame = json.loads(message.data)
                    if frame["type"] == "ack":
                        self._settle(frame["seq"])
                        if self.stopping and self.acked >= self.made:
                            return
                    elif frame["type"] == "nack":
                        raise TimeoutError(frame)  # it begins anew from what hello_ack says
            finally:
                sender.cancel()
        finally:
            await ws.close()

    async def _send(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        while True:
            if self.sent >= self.made or not self.acked or self.sent - self.acked > 1000:
                self._some.clear()
                await self._some.wait()
                continue
            last = min(self.made, self.sent + 100)
            event = {"type": "output", "ts_ms": 1, "data": {"stream": "stdout", "text": TEXT}}
            events = [event] * (last - self.sent)
            frame = {"type": "events", "execution_id": "e1", "seq": self.sent + 1, "events": events}
            await ws.send_str(json.dumps(frame, separators=(",", ":")))
            self.sent = last

    def _settle(self, acked: int) -> None:
        now = time.perf_counter()
        for seq in range(self.acked + 1, acked + 1):
            if (made_at := self._due.pop(seq, None)) is not None:
                self.latency_ms.append((now - made_at) * 1000)
        self.acked = max(self.acked, acked)
        self._some.set()
