"""Sockets between simulated processes: bytes in order, or cut anywhere, or held back, or nobody knows.

A `Line` is one WebSocket over TCP: two pipes and two ends. The ends have the surface of aiohttp's two classes that our
code touches, and follow them (web_ws.py, client_ws.py) at the end of a connection. A message of which one byte is
missing never arrives: test_wire.py shows that on aiohttp's own sockets, cut at every byte.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from aiohttp import WSMessage, WSMsgType

from tests.simulation.kernel import US, Kernel, Process

HEAD_BYTES = 8  # of a frame, about: what a cut may hit beside the payload
CLOSE_WAIT_S = 2.0
CLOSED = WSMessage(WSMsgType.CLOSED, None, None)
CLOSING = WSMessage(WSMsgType.CLOSING, None, None)


class Pipe:
    """One direction. Nothing overtakes; what is held back comes later or never."""

    def __init__(self, kernel: Kernel, name: str) -> None:
        self.kernel, self.name = kernel, name
        self.end: End | None = None  # who reads here
        self.items: deque[tuple[int, int, WSMessage | None]] = deque()  # arrives, bytes, message (None: end of stream)
        self.backlog = 0
        self.dead = False
        self.hold_until = 0
        self.lose = self.double = 0  # so many of the next frames
        self.swallowed = False  # a frame was lost in the middle of the stream

    def send(self, message: WSMessage | None, size: int) -> None:
        if self.dead:
            return
        if message is not None and message.type is WSMsgType.TEXT:
            if self.lose:
                self.lose -= 1
                self.swallowed = True
                return
            if self.double:
                self.double -= 1
                self._put(message, size)
        self._put(message, size)

    def _put(self, message: WSMessage | None, size: int) -> None:
        kernel = self.kernel
        arrives = max(kernel.now + kernel.latency(400, 3 * US, 0.003), self.hold_until)
        if self.items:
            arrives = max(arrives, self.items[-1][0])
        self.items.append((arrives, size, message))
        self.backlog += size
        if len(self.items) == 1:
            kernel.at(arrives, self._flow)

    def _flow(self) -> None:
        """What has arrived is read together, as a socket's buffer is."""
        kernel, items = self.kernel, self.items
        if not items or self.dead:
            kernel.steps -= 1
            return
        if self.hold_until > kernel.now:
            kernel.at(self.hold_until, self._flow)
            kernel.steps -= 1
            return
        while items and items[0][0] <= kernel.now:
            _, size, message = items.popleft()
            self.backlog -= size
            if self.end is not None:
                self.end.feed(message)
        if items:
            kernel.at(items[0][0], self._flow)

    def hold(self, us: int) -> None:
        """Nothing arrives for so long: a slow line, or a reader that does not read."""
        self.hold_until = max(self.hold_until, self.kernel.now + us)
        self.items = deque((max(at, self.hold_until), size, m) for at, size, m in self.items)

    def cut(self, at_byte: int) -> None:
        """Of what is on its way only so many bytes arrive: whole messages, and then perhaps a piece of one."""
        kept: deque[tuple[int, int, WSMessage | None]] = deque()
        for item in self.items:
            at_byte -= item[1]
            if at_byte < 0:
                break
            kept.append(item)
        self.items = kept
        self.backlog = sum(item[1] for item in kept)


class End:
    """One side of a WebSocket, as our code sees aiohttp's."""

    server = False

    def __init__(self, process: Process, line: Line, out: Pipe) -> None:
        self.process, self.line, self.out = process, line, out
        self.inbox: deque[WSMessage | None] = deque()
        self.closed = self.lost = False
        self.close_code: int | None = None
        self._closing = False
        self._waiter: asyncio.Future[None] | None = None
        self._receiving = False
        self._close_wait: asyncio.Future[None] | None = None

    # ------------------------------------------------------------ in

    def feed(self, message: WSMessage | None) -> None:
        if not self.process.alive:
            return
        if message is None:
            self.lost = True
        self.inbox.append(message)
        self._ring()

    def _ring(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _read(self) -> WSMessage:
        while not self.inbox:
            self._waiter = self.process.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        message = self.inbox.popleft()
        if message is None:
            self.inbox.append(None)  # the end of a stream stays its end
            raise EOFError
        return message

    async def receive(self) -> WSMessage:
        if self._receiving:
            raise RuntimeError("Concurrent call to receive() is not allowed")
        if self.closed:
            return CLOSED
        if self._closing:
            if not self.server:
                await self.close()
                return CLOSED
            return CLOSING
        self._receiving = True
        try:
            message = await self._read()
        except EOFError:
            self.close_code = 1000 if self.server else 1006
            self._receiving = False
            self.closed = True
            self.line.leave(self)
            return CLOSED
        finally:
            self._receiving = False
            if self._close_wait is not None and not self._close_wait.done():
                self._close_wait.set_result(None)
        if message.type is WSMsgType.CLOSE:
            self._closing, self.close_code = True, message.data
            if not self.closed:
                await self.close()
        elif message.type is WSMsgType.CLOSING:
            self._closing = True
            if self.server:
                self.close_code = 1000
        return message

    # ------------------------------------------------------------ out

    def _send(self, message: WSMessage, size: int) -> None:
        if self.closed or self.lost:
            raise ConnectionResetError("Cannot write to closing transport")
        self.line.said(self, message)
        self.out.send(message, size + HEAD_BYTES)

    async def send_frame(self, data: bytes, kind: WSMsgType) -> None:
        self._send(WSMessage(kind, data, None), len(data))

    async def send_str(self, text: str) -> None:
        data = text.encode()
        self._send(WSMessage(WSMsgType.TEXT, data, None), len(data))

    async def ping(self, payload: bytes = b"") -> None:
        self._send(WSMessage(WSMsgType.PING, payload, None), len(payload))

    async def pong(self, payload: bytes = b"") -> None:
        self._send(WSMessage(WSMsgType.PONG, payload, None), len(payload))

    async def close(self, *, code: int = 1000, message: bytes = b"", drain: bool = True) -> bool:
        if self._receiving and not self._closing:
            self._close_wait = self.process.create_future()
            if not self.server:
                self._closing = True
            else:
                self.closed = True
                self._say_close(code, message)
            self.inbox.appendleft(CLOSING)
            self._ring()
            await self._close_wait
            if self.server:
                return await self._await_close()
        if self.closed:
            return False
        self.closed = True
        self._say_close(code, message)
        if self._closing and self.close_code is not None:
            self.line.leave(self)  # the peer's close frame was the first
            return True
        return await self._await_close()

    def _say_close(self, code: int, message: bytes) -> None:
        if not self.lost:
            said = WSMessage(WSMsgType.CLOSE, code, message.decode("utf-8", "replace"))
            self.line.said(self, said)
            self.out.send(said, len(message) + 2 + HEAD_BYTES)

    async def _await_close(self) -> bool:
        try:
            async with asyncio.timeout(CLOSE_WAIT_S):
                while True:
                    message = await self._read()
                    if message.type is WSMsgType.CLOSE:
                        self.close_code = message.data
                        break
        except (EOFError, TimeoutError):
            self.close_code = 1006
        finally:
            self.line.leave(self)
        return True


class ServerEnd(End):
    server = True
    _take: Callable[[bytes], None] | None = None

    # As wire.Frames:
    def listen(self, take: Callable[[bytes], None]) -> None:
        held, self.inbox = self.inbox, deque()
        for message in held:
            if message is not None and message.type is WSMsgType.TEXT:
                take(message.data)
            else:
                self.inbox.append(message)
        if not (self.closed or self._closing):
            self._take = take

    def feed(self, message: WSMessage | None) -> None:
        if self._take is None or message is None or message.type is not WSMsgType.TEXT:
            super().feed(message)
        elif self.process.alive:
            self.process.call_soon(self._taken, message.data)  # when its turn comes: it may be frozen

    def _taken(self, data: bytes) -> None:
        if self._take is not None:
            self._take(data)

    async def close(self, *, code: int = 1000, message: bytes = b"", drain: bool = True) -> bool:
        self._take = None
        return await super().close(code=code, message=message, drain=drain)

    def say(self, text: bytes) -> None:
        if not (self.closed or self.lost):
            self._send(WSMessage(WSMsgType.TEXT, text, None), len(text))

    # As a transport, for wire.Wire:
    def abort(self) -> None:
        self.line.abort(self)

    def get_write_buffer_size(self) -> int:
        return self.out.backlog


class Line:
    """What runs over it is for the listener: (the end that spoke, the message)."""

    def __init__(
        self, kernel: Kernel, client: Process, server: Process, name: str, listener: Callable[[End, WSMessage], None]
    ) -> None:
        self.kernel, self.name, self._listener = kernel, name, listener
        up, down = Pipe(kernel, f"{name} up"), Pipe(kernel, f"{name} down")
        self.client, self.server = End(client, self, up), ServerEnd(server, self, down)
        up.end, down.end = self.server, self.client
        self.over = False
        self.left: set[str] = set()
        client.on_death.append(lambda: self._died(self.client))
        server.on_death.append(lambda: self._died(self.server))

    def said(self, end: End, message: WSMessage) -> None:
        self._listener(end, message)

    def _other(self, end: End) -> End:
        return self.client if end is self.server else self.server

    def leave(self, end: End) -> None:
        """A clean end of our side: the peer reads what was sent, then the end of the stream."""
        end.lost = True
        if "server" in self.left if end.server else "client" in self.left:
            return
        self.left.add("server" if end.server else "client")
        end.out.send(None, 0)
        self._over()

    def abort(self, end: End) -> None:
        """Reset: our side is gone at once; what was on its way may arrive or not."""
        end.out.cut(int(self.kernel.rng.random() * (end.out.backlog + 1)))
        self.leave(end)
        end.feed(None)

    def _died(self, end: End) -> None:
        if not self.over or not end.lost:
            end.out.cut(int(self.kernel.rng.random() * (end.out.backlog + 1)))
            self.leave(end)

    def cut(self, where: float, client_knows: bool, server_knows: bool) -> None:
        """The line is gone between two bytes. Who is not told has a half-open socket, and its own pings."""
        for pipe, knows in ((self.client.out, server_knows), (self.server.out, client_knows)):
            pipe.cut(int(where * (pipe.backlog + 1)))
            if knows:
                pipe.send(None, 0)
            last = pipe.items[-1][0] if pipe.items else self.kernel.now
            self.kernel.at(last + 1, self._silence, pipe)

    def ghost(self, us: int) -> None:
        """The client believes that the line is lost; what it sent arrives all the same, later, and so does its end."""
        self.client.out.hold(us)
        self.client.feed(None)

    def _silence(self, pipe: Pipe) -> None:
        pipe.dead = True
        pipe.items.clear()
        pipe.backlog = 0
        self.kernel.steps -= 1

    def _over(self) -> None:
        self.over = {"server", "client"} <= self.left
