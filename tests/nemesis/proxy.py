"""A bad network: loopback TCP lines to the gateway that can be slow, thin, silent, cut, or say a frame twice.

A Link is one listening port with its own weather; it belongs to one wrapper's session, or to subscribers. A link with a
recorder also watches: what went out and what was acknowledged is history, whatever becomes of it afterwards. Bytes are
delayed, held or dropped with their connection, never changed; only whole text frames are ever repeated.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from actors.history import content_hash
from tests.nemesis.frames import Piece, Scanner
from tests.nemesis.record import Recorder

CHUNK = 16 << 10
ONCE = {"hello"}  # said once per connection by the protocol: a second one is another fault than a doubled record


@dataclass
class Weather:
    """What the link does now. Several faults may hold at once: each takes its own part away again."""

    latency_s: list[float] = field(default_factory=list)
    bytes_per_s: list[float] = field(default_factory=list)
    silent: int = 0
    double: int = 0


class Link:
    def __init__(self, name: str, upstream: Callable[[], tuple[str, int]], recorder: Recorder | None = None) -> None:
        self.name, self.upstream, self.recorder, self.weather = name, upstream, recorder, Weather()
        self.port = 0
        self.lines: set[Line] = set()
        self.doubled = 0
        self._cleared = asyncio.Event()
        self._cleared.set()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> Link:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    # ------------------------------------------------------------ weather

    def silence(self, on: bool) -> None:
        self.weather.silent += 1 if on else -1
        if self.weather.silent:
            self._cleared.clear()
        else:
            self._cleared.set()

    def reset(self) -> None:
        """RST both ways, on every connection."""
        for line in list(self.lines):
            line.cut()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        line = Line(self, writer)
        self.lines.add(line)
        try:
            await self._cleared.wait()  # a connect into the silence is accepted by the kernel, and then nothing
            there, out = await asyncio.open_connection(*self.upstream())
            line.out = out
            pumps = [
                asyncio.create_task(self._pump(line, reader, out, line.from_client)),
                asyncio.create_task(self._pump(line, there, writer, line.from_server)),
            ]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_EXCEPTION)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        except (OSError, asyncio.CancelledError):
            pass  # nobody is behind the door, or the test is over: the client sees a reset
        finally:
            self.lines.discard(line)
            self._tasks.discard(task)
            line.cut()

    async def _pump(
        self,
        line: Line,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        seen: Callable[[bytes], list[bytes]],
    ) -> None:
        while data := await reader.read(CHUNK):
            for piece in seen(data):
                await self._cleared.wait()
                weather = self.weather
                pause = max(weather.latency_s, default=0.0)
                if weather.bytes_per_s:
                    pause += len(piece) / min(weather.bytes_per_s)
                if pause:
                    await asyncio.sleep(pause)
                if writer.is_closing():
                    return  # cut meanwhile: what was held is lost with its connection
                writer.write(piece)
            await writer.drain()
        await self._cleared.wait()
        if writer.can_write_eof():
            writer.write_eof()


class Line:
    """One connection through a link, and what is understood of it."""

    def __init__(self, link: Link, client: asyncio.StreamWriter) -> None:
        self.link, self.client, self.out = link, client, None
        self.connection: str | None = None
        self._up, self._down = Scanner(), Scanner()

    out: asyncio.StreamWriter | None

    def cut(self) -> None:
        for writer in (self.client, self.out):
            if writer is None:
                continue
            sock = writer.get_extra_info("socket")
            if sock is not None and sock.fileno() >= 0:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    def from_client(self, data: bytes) -> list[bytes]:
        if self.link.recorder is None:
            return [data]
        told: list[bytes] = []
        for piece in self._up.feed(data):
            told.append(piece.raw)
            frame = decoded(piece)
            if frame is None:
                continue
            self._note_sent(self.link.recorder, frame)
            if self.link.weather.double and frame.get("type") not in ONCE:
                told.append(piece.raw)
                self.link.doubled += 1
        return told

    def from_server(self, data: bytes) -> list[bytes]:
        if self.link.recorder is None:
            return [data]
        told: list[bytes] = []
        for piece in self._down.feed(data):
            told.append(piece.raw)
            frame = decoded(piece)
            if frame is not None:
                self._note_heard(self.link.recorder, frame)
        return told

    def _note_sent(self, recorder: Recorder, frame: dict[str, Any]) -> None:
        if frame.get("type") not in ("started", "events", "gap", "approval", "final"):
            return
        events = frame.get("events")
        hashes = [None] if events is None else [content_hash(e["type"], e.get("data") or {}) for e in events]
        recorder.say(
            "sent",
            session=self.link.name,
            execution=frame["execution_id"],
            connection=self.connection or "",
            seq=frame["seq"],
            hashes=hashes,
            frame=frame["type"],
        )

    def _note_heard(self, recorder: Recorder, frame: dict[str, Any]) -> None:
        sid = self.link.name
        if frame.get("type") == "hello_ack":
            self.connection = frame["connection_id"]
            recorder.say("owned", session=sid, connection=self.connection, epoch=frame["epoch"])
            acks = [(d["execution_id"], d["acked_seq"]) for d in frame["executions"] if d["directive"] == "resume"]
        elif frame.get("type") == "ack":
            acks = [(frame["execution_id"], frame["seq"])]
        else:
            return
        for eid, seq in acks:
            recorder.say("acked", session=sid, execution=eid, connection=self.connection, seq=seq)


def decoded(piece: Piece) -> dict[str, Any] | None:
    if piece.text is None:
        return None
    try:
        frame = json.loads(piece.text)
    except ValueError:
        return None
    return frame if isinstance(frame, dict) else None
