"""Saying things on a socket without ever waiting for a peer that does not read.

`send` never suspends: it hands the bytes to the transport at once, so it may be called from a group's callback. What
bounds it: a backlog above BACKLOG_BYTES that does not shrink for `slow_s` means that the peer takes nothing, and one
above BACKLOG_MAX_BYTES that it takes too little; the socket is then cut. Pings are ours, not aiohttp's: its pong
deadline is always half the ping interval, and ours is a promise (PROTOCOL, DESIGN §2.7).
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from typing import Any, Final

from aiohttp import WSMsgType, web
from aiohttp._websocket.reader import WebSocketDataQueue, WebSocketReader
from aiohttp._websocket.writer import WebSocketWriter
from aiohttp.base_protocol import BaseProtocol

from actors.gateway.limits import Pace

Clock = Callable[[], float]
Take = Callable[[bytes], None]

READ_AHEAD_BYTES: Final = 1 << 16  # aiohttp's own: of what is received, so before the hello only

BACKLOG_BYTES: Final = 256 << 10  # what a healthy peer on a bad line may still have to take
BACKLOG_MAX_BYTES: Final = 8 << 20  # a few of the largest frames; beyond it the peer costs us memory
CLOSE_WAIT_S: Final = 2.0  # for the peer's own close frame; it has nothing more to say that counts


class Inbox(WebSocketDataQueue):
    """What aiohttp has read and nobody has received yet; text frames may be taken on the spot instead."""

    def __init__(self, protocol: BaseProtocol, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(protocol, READ_AHEAD_BYTES, loop=loop)
        self.take: Take | None = None

    def feed_data(self, data: Any, size: int) -> None:
        """Called by aiohttp's parser for each message."""
        if self.take is not None:
            kind = data[0]
            if kind is WSMsgType.TEXT:
                self.take(data[1])
                return
            if kind is WSMsgType.CLOSE:
                self.take = None  # whoever has closed has nothing more to say
        super().feed_data(data, size)


class Frames(web.WebSocketResponse[Any]):
    """aiohttp's socket, with a shorter way for text frames in both directions: the long one, a future, a task's turn
    and two coroutines for each, costs more than decoding the frame. It leans on aiohttp's parser and queue, which are
    no public names: hence the bound on its version, and tests on real sockets."""

    _line: asyncio.Transport | None = None

    def _post_start(self, request: web.BaseRequest, protocol: str | None, writer: WebSocketWriter) -> None:
        visitor = request.protocol
        early, visitor._message_tail = visitor._message_tail, b""  # of a peer that did not wait for our answer
        super()._post_start(request, protocol, writer)
        assert self._loop is not None
        self._line = request.transport
        self._reader = Inbox(visitor, self._loop)
        self._parser = WebSocketReader(self._reader, self._max_msg_size, compress=False, decode_text=False)
        visitor._payload_parser = self._parser
        if early:
            self._parser.feed_data(early)

    def listen(self, take: Take) -> None:
        """From here on text frames are not received: `take` is called with each, in order, as it is read from the line.
        It may not raise. `receive` tells of everything else, as before."""
        inbox, others, closed = self._reader, [], self._closed or self._closing
        assert isinstance(inbox, Inbox)
        while inbox._buffer:
            message = _at_once(inbox.read())
            if message.type is not WSMsgType.TEXT:
                others.append(message)
                closed |= message.type is WSMsgType.CLOSE
            elif not closed:
                take(message.data)
        if not closed:
            inbox.take = take
        for message in others:
            WebSocketDataQueue.feed_data(inbox, message, 0)

    def say(self, text: bytes) -> None:
        """A text frame, on its way at once. A line that is gone is no error here: the reader finds out and says so."""
        line = self._line
        if line is None or self._closed or line.is_closing():
            return
        size = len(text)
        if size < 126:
            line.write(b"\x81%c%b" % (size, text))
        elif size < 1 << 16:
            line.write(b"\x81\x7e" + size.to_bytes(2, "big") + text)
        else:
            line.write(b"\x81\x7f" + size.to_bytes(8, "big"))
            line.write(text)  # by itself, not copied

    async def close(self, **how: Any) -> bool:
        if isinstance(self._reader, Inbox):
            self._reader.take = None
        return await super().close(**how)


def _at_once(reading: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine that does not have to wait."""
    try:
        reading.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("a queue that has something does not wait")


def websocket(*, max_msg_size: int, protocols: tuple[str, ...] = ()) -> Frames:
    """No compression (DESIGN §8), bytes instead of text (the decoder reads bytes), pings by hand."""
    return Frames(
        timeout=CLOSE_WAIT_S,
        autoping=False,
        compress=False,
        protocols=protocols,
        max_msg_size=max_msg_size,
        writer_limit=sys.maxsize,  # aiohttp then never waits inside a send; we watch the backlog ourselves
        decode_text=False,
    )


FRAME_HEAD_BYTES: Final = 14  # at most
REASON_MAX_BYTES: Final = 123  # RFC 6455 §5.5: 125 with the code
LINGER_S: Final = 30.0  # for a slow consumer to read on to its close code


def _short(reason: str) -> bytes:
    """Cut to what a close frame can hold, never inside a character: that would be a protocol error of ours."""
    return reason.encode()[:REASON_MAX_BYTES].decode("utf-8", "ignore").encode()


class Slow(Exception):
    """The peer takes nothing."""


class Wire:
    def __init__(
        self,
        ws: Frames,
        transport: asyncio.Transport | None,
        *,
        now: Clock,
        ping_s: float,
        pong_s: float,
        slow_s: float,
        pace: Pace,
        arrived: Callable[[], int] = lambda: 0,
    ) -> None:
        """arrived: how many bytes the connection has brought so far."""
        self.ws, self.transport, self.now, self.pace, self._arrived = ws, transport, now, pace, arrived
        self._spared = pace.endless
        self.excess: str | None = None  # what the peer sent too much of
        self._complete = arrived()  # of these bytes, those that whole messages may account for
        self._whole = False  # a message was completed since the last look
        self.ping_s, self.pong_s, self.slow_s = ping_s, pong_s, slow_s
        self.cut_because: str | None = None
        self._heard_at = self._pinged_at = now()
        self._heard = False  # since the last look
        self._awaiting_pong = False
        self._draining = False
        self._backlog = 0
        self._shrunk_at: float | None = None  # since when the backlog is high and has not shrunk

    # ------------------------------------------------------------ out

    def send(self, text: bytes) -> None:
        self.ws.say(text)
        if self.transport is not None and self.transport.get_write_buffer_size() > BACKLOG_MAX_BYTES:
            self.cut("slow consumer")

    def pong(self, payload: bytes) -> None:
        if not self.ws.closed:
            self._now(self.ws.pong(payload))
            if self.backlog > BACKLOG_MAX_BYTES:
                self.cut("slow consumer")

    def _now(self, sending: Coroutine[Any, Any, None]) -> None:
        """Runs a send to its end on the spot: without compression, and with our writer_limit, it never suspends."""
        try:
            sending.send(None)
        except StopIteration:
            return
        except (ConnectionError, RuntimeError):
            return  # the line is gone; the reader finds out and says so
        sending.close()  # it did suspend: the bytes are handed over all the same, only the waiting is dropped

    @property
    def backlog(self) -> int:
        return 0 if self.transport is None else self.transport.get_write_buffer_size()

    def has_room(self, size: int) -> bool:
        """Whether the peer still counts as quick with so many bytes more; who does not has to `drain`."""
        if self.ws.closed:
            return False
        return self.transport is None or self.transport.get_write_buffer_size() + size <= BACKLOG_BYTES

    async def drain(self) -> None:
        """Returns when the backlog is low; raises Slow when it does not shrink for slow_s."""
        low, pause = self.backlog, 0.005
        if low <= BACKLOG_BYTES:
            return
        shrunk_at = self.now()
        self._draining = True
        try:
            while (backlog := self.backlog) > BACKLOG_BYTES // 4 and not self.ws.closed:
                if backlog < low:
                    low, shrunk_at = backlog, self.now()
                elif self.now() - shrunk_at > self.slow_s:
                    raise Slow
                await asyncio.sleep(pause)
                pause = min(pause * 2, 0.25)
        finally:
            self._draining = False

    # ------------------------------------------------------------ life

    def heard(self, size: int, *, control: bool = False) -> bool:
        """Anything at all came from the peer: its process is scheduled. False: it was too much (`excess` says of what),
        and the frame may not be used."""
        self._heard = True  # `tend` looks at the clock, for all that came since
        if control:
            self._complete += size + FRAME_HEAD_BYTES
        else:
            self._whole = True
            if self._spared:
                return self.excess is None
        if (excess := self.pace.heard(size, control)) is not None:
            self.excess = self.excess or excess
        return self.excess is None

    def tend(self) -> None:
        """Called every second or so: pings, misses pongs, cuts those that do not read."""
        if self.ws.closed:
            return
        now, backlog = self.now(), self.backlog
        self.pace.tend(now)
        if self._heard:
            self._heard, self._awaiting_pong, self._heard_at = False, False, now
        if self._whole:
            self._whole, self._complete = False, self._arrived()
        elif self._arrived() - self._complete > self.pace.unfinished_max:
            self.excess = self.excess or "fragments"
        if backlog > BACKLOG_BYTES:
            # Whoever drains judges the same, and can say why: after a stand-still of the loop both were due at once,
            # and a subscriber that we cut first never heard its 4008.
            if self._draining:
                return
            if self._shrunk_at is None or backlog < self._backlog:
                self._shrunk_at = now
            elif now - self._shrunk_at > self.slow_s:
                self.cut("slow consumer")
            self._backlog = backlog
            return  # a ping would wait behind the backlog; its pong says nothing
        self._shrunk_at = None
        if self._awaiting_pong:
            if now - self._pinged_at >= self.pong_s:
                self.cut("ping timeout")
        elif now - max(self._heard_at, self._pinged_at) >= self.ping_s:
            self._awaiting_pong, self._pinged_at = True, now
            self._now(self.ws.ping())

    def cut(self, why: str) -> None:
        """No close handshake: whoever does not answer pings would not answer that either."""
        self.cut_because = self.cut_because or why
        if self.transport is not None:
            self.transport.abort()

    async def close(self, code: int, reason: str = "") -> None:
        try:
            # No drain: a peer that reads nothing would hold us for ever.
            await self.ws.close(code=code, message=_short(reason), drain=False)
        except (ConnectionError, RuntimeError, TimeoutError):
            self.cut("close failed")
        if self.transport is not None and self.backlog:
            # The close frame stands behind what the peer has not read. It gets a while; then the memory is ours again.
            asyncio.get_running_loop().call_later(LINGER_S, self.transport.abort)
