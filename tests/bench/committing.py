"""The yardstick of B4: the relay, and each frame is a row of SQLite, committed (`synchronous=FULL`) before it goes on.

What the service promises, and nothing else: no session, no fence, no numbers, nothing parsed, no frame refused. One
thread writes what has gathered as one transaction and by one statement, so the interpreter is handed over seldom; then
the loop passes each frame on and says that it is stored. `python -m tests.bench.committing PORT FILE`
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections import defaultdict
from collections.abc import Coroutine
from typing import Any, NamedTuple

from aiohttp import WSMsgType, web

from actors.store.locks import library
from actors.store.sqlite import CHECKPOINT_PAGES
from tests.bench.relay import serve

HANDOVER_S = 0.0005  # as the service sets it
ROWS = 4000  # of one statement; SQLite takes 32,766 values


class Frame(NamedTuple):
    session_id: str
    seq: int
    text: str
    source: web.WebSocketResponse


class Committing:
    def __init__(self, path: str) -> None:
        self.path = path
        self.out: dict[str, list[web.WebSocketResponse]] = defaultdict(list)
        self.waiting: list[Frame] = []  # as many as its clients send in their few seconds
        self.some = threading.Condition()
        self.rung = False
        self.loop: asyncio.AbstractEventLoop
        self.sends: set[asyncio.Task[None]] = set()

    async def start(self, _: web.Application) -> None:
        self.loop = asyncio.get_running_loop()
        threading.Thread(target=self.write, daemon=True).start()

    async def subscribe(self, request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(compress=False, max_msg_size=0)
        await ws.prepare(request)
        self.out[request.match_info["id"]].append(ws)
        async for _ in ws:
            continue
        self.out[request.match_info["id"]].remove(ws)
        return ws

    async def publish(self, request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(compress=False, max_msg_size=0)
        await ws.prepare(request)
        seq = 0
        async for message in ws:
            if message.type is WSMsgType.TEXT:
                seq += 1
                frame = Frame(request.match_info["id"], seq, message.data, ws)
                self.waiting.append(frame)  # made before: in between the writer may take the list away
                if not self.rung:
                    self.rung = True
                    self.loop.call_soon(self.ring)
        return ws

    def ring(self) -> None:
        self.rung = False
        with self.some:
            self.some.notify()

    def write(self) -> None:
        c = library().connect(self.path, isolation_level=None)
        for pragma in ("journal_mode=wal", "synchronous=full", f"wal_autocheckpoint={CHECKPOINT_PAGES}"):
            c.execute(f"pragma {pragma}")
        c.execute("create table events (sid text, seq int, text text, primary key (sid, seq)) without rowid")
        while True:
            with self.some:
                while not self.waiting:
                    self.some.wait()
                group, self.waiting = self.waiting, []
            c.execute("begin immediate")
            for at in range(0, len(group), ROWS):
                rows = group[at : at + ROWS]
                values = [column for frame in rows for column in frame[:3]]
                c.execute(f"insert into events values {', '.join(['(?, ?, ?)'] * len(rows))}", values)
            c.execute("commit")
            self.loop.call_soon_threadsafe(self.tell, group)

    def tell(self, group: list[Frame]) -> None:
        for frame in group:
            for sink in self.out[frame.session_id]:
                self.send(sink.send_str(frame.text))
            self.send(frame.source.send_str(f'{{"type":"ack","seq":{frame.seq}}}'))

    def send(self, sending: Coroutine[Any, Any, None]) -> None:
        task = self.loop.create_task(sending)
        self.sends.add(task)
        task.add_done_callback(self.sends.discard)

    def application(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/out/{id}", self.subscribe)
        app.router.add_get("/in/{id}", self.publish)
        app.on_startup.append(self.start)
        return app


if __name__ == "__main__":
    sys.setswitchinterval(HANDOVER_S)
    serve(Committing(sys.argv[2]).application(), int(sys.argv[1]))
