"""What every peer that holds a link is to the gateway: a wrapper of a session, or a role of a node.

Shared are the manners of the socket: what is said, how it ends, whose close is told to whom. What a frame means is the
room of its kind (connection.py, node_connection.py); whether it owns anything is decided by the law, never here.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any, Final

import orjson

from actors import telemetry
from actors.gateway.door import Door
from actors.gateway.wire import Slow, Wire
from actors.law.requests import Request
from actors.protocol import ids
from actors.protocol.codes import CLOSE
from actors.protocol.errors import HoldfastError

RETRY_AFTER_S: Final = 1.0
DRAIN_S: Final = 60.0  # frames received before a close are applied before it; a store that takes longer has stopped


class Peer:
    """subject: whose mailbox its requests pass. role: of a node's; of the connections of one subject and role only the
    youngest may own. Subclasses say what a frame means, and how their end is told."""

    kind: str  # ingest or node; for /metrics

    def __init__(self, door: Door, wire: Wire, subject: str, role: str, token_hash: str | None) -> None:
        self.door, self.wire, self.subject, self.role, self.token_hash = door, wire, subject, role, token_hash
        self.connection_id = ids.new_id("connection", door.mint)
        self.epoch = 0
        self.asked = False  # a connect went out: whatever came of it, `closed` must follow
        self.ready = False  # commands may flow
        self.over = False  # nothing more is taken
        self.end_code: int | None = None
        self.end_reason = ""
        self.closing: asyncio.Task[None] | None = None
        self.seen = self.progressed = False  # since the last flush
        self.frame_at = door.clock()  # as of the last look: `tend` comes every second
        self._frame_came = False
        self._checking = False
        self._fetching = self._fetch_again = False
        self._idle = asyncio.Event()

    # ------------------------------------------------------------ of its kind

    def take(self, item: Any) -> None:
        """Called by the reader for each frame, in order. Never raises, never waits."""
        raise NotImplementedError

    def take_all(self, items: list[Any]) -> None:
        """The same for frames that were read together."""
        for item in items:
            self.take(item)

    def closed(self, code: int | None, reason: str, error: str) -> Request:
        """How the end of this connection is told to its subject."""
        raise NotImplementedError

    async def fetch_page(self) -> bool:
        """Says what waits for this connection, in order, none twice; returns whether there may be more. Raises
        HoldfastError: the store could not be asked."""
        raise NotImplementedError

    def after_group(self) -> None:
        """The group in which something of ours was committed is told."""

    @property
    def busy(self) -> bool:
        """Frames were received and are not settled yet."""
        raise NotImplementedError

    def forget_frames(self) -> None:
        """What was received and not begun is void."""
        raise NotImplementedError

    async def look_at_silence(self) -> None:
        """No frame for stale_s."""
        raise NotImplementedError

    # ------------------------------------------------------------ out

    def say(self, frame: dict[str, Any]) -> None:
        self.wire.send(orjson.dumps(frame))

    def say_error(self, code: str, message: str) -> None:
        self.say({"type": "error", "code": code, "message": message[:1000]})

    def commands_wait(self) -> None:
        """A hint: something may be there to be fetched."""
        if self.ready and not self.over:
            self._fetch_again = True
            if not self._fetching:
                self._fetching = True
                self.door.spawn(self._fetch())

    async def _fetch(self) -> None:
        """One at a time; a hint that comes meanwhile is one more look."""
        try:
            while self._fetch_again and not self.over:
                self._fetch_again = False
                try:
                    self._fetch_again |= await self.fetch_page()
                except HoldfastError:
                    self._fetch_again = True
                    await asyncio.sleep(RETRY_AFTER_S)
                    continue
                await self.wire.drain()
        except Slow:
            self.wire.cut("slow consumer")
        finally:
            self._fetching = False

    # ------------------------------------------------------------ life and end

    def heard(self) -> None:
        self.seen = self._frame_came = True

    def too_much(self) -> None:
        if self.end_code is None:
            telemetry.emit(f"{self.kind}.rate_limited", subject=self.subject, what=self.wire.excess)
            self.door.limits.refused[self.wire.excess or ""] += 1
            self.end(CLOSE["rate_limited"], reason_of(f"too many {self.wire.excess}", RETRY_AFTER_S), drain=True)

    def tend(self) -> None:
        self.wire.tend()
        if self.wire.excess is not None:
            self.too_much()
        if self._frame_came:
            self._frame_came, self.frame_at = False, self.door.clock()
        silent = self.door.clock() - self.frame_at
        if silent >= self.door.settings.stale_s and self.epoch and not self._checking and not self.over:
            self._checking = True
            self.door.spawn(self._look())

    async def _look(self) -> None:
        try:
            await self.look_at_silence()
        finally:
            await asyncio.sleep(min(5.0, self.door.settings.stale_s))
            self._checking = False

    def end(self, code: int, reason: str = "", *, drain: bool = False) -> None:
        """Closes the socket from our side. drain: what was received is still applied; otherwise it is void."""
        if self.end_code is not None:
            return
        self.end_code, self.end_reason = code, reason
        if not drain:
            self.void()
        self.closing = self.door.spawn(self.wire.close(code, reason))

    def storage_failed(self, error: HoldfastError) -> None:
        """Acknowledge nothing from here on (G10): the peer has kept what was not acknowledged, and comes again."""
        if self.over:
            return
        telemetry.emit(f"{self.kind}.storage_failed", subject=self.subject, code=error.code)
        self.say_error(error.code, error.detail)
        self.end(CLOSE["try_again_later"], reason_of(error.code, RETRY_AFTER_S))

    def void(self) -> None:
        self.over = True
        self.forget_frames()
        if not self.busy:
            self._idle.set()

    def settled(self) -> None:
        """To be called when `busy` may have become false."""
        if not self.busy:
            self._idle.set()

    async def drained(self) -> None:
        """Every frame that was received is committed or refused."""
        if not self.busy:
            return
        self._idle.clear()
        try:
            async with asyncio.timeout(DRAIN_S):
                await self._idle.wait()
        except TimeoutError:
            telemetry.emit(f"{self.kind}.drain_failed", subject=self.subject)
            self.void()


def reason_of(why: str, retry_after_s: float | None) -> str:
    """A close reason that a peer can read (PROTOCOL §2.3): JSON when there is a time to wait."""
    if retry_after_s is None:
        return why
    return json.dumps({"retry_after_s": retry_after_s, "reason": why[:60]}, separators=(",", ":"))
