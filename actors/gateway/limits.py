"""How much one caller may ask for: requests, frames, bytes, connections. A token bucket for each, all of them bounded.

Two kinds of limit. What no honest peer meets (control frames, a message that never ends) holds for everybody. What is a
matter of taste (rates, connections per caller) is a setting, generous, and spares loopback peers unless
`limit_loopback` says otherwise: on one host the wrappers, the tools and the load tests are the operator's own, and
behind a proxy on the same host every peer has one address, which only the proxy can tell apart.
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Final

from aiohttp import web

from actors.config import Settings, is_loopback
from actors.protocol.errors import HoldfastError

BURST_S: Final = 2.0  # a bucket holds two seconds of its rate: a page that loads, a wrapper that replays
BUCKETS_MAX: Final = 20_000  # callers remembered; the longest silent is forgotten, and starts full again
# Pings and pongs a second, and whatever a watcher says: libraries ping once in seconds, none needs ten.
CONTROL_FRAMES: Final = 50.0
CONTROL_BURST: Final = 500.0


class Bucket:
    __slots__ = ("at", "burst", "level", "rate")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self.rate, self.burst, self.level, self.at = rate, burst, burst, now

    def take(self, n: float, now: float) -> float:
        """0.0: taken. Otherwise nothing was taken, and in so many seconds it could be."""
        self.level = min(self.burst, self.level + (now - self.at) * self.rate)
        self.at = now
        if self.level >= n:
            self.level -= n
            return 0.0
        return (n - self.level) / self.rate


class Limits:
    """Of one gateway. `now`: monotonic seconds."""

    def __init__(self, settings: Settings, now: Callable[[], float]) -> None:
        self._settings, self._now = settings, now
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()
        self._seated: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()  # by what was too much; for /metrics

    def spares(self, address: str | None) -> bool:
        return not self._settings.limit_loopback and address is not None and is_loopback(address)

    # ------------------------------------------------------------ requests

    def request(self, who: str, address: str | None) -> None:
        """who: a token's hash, or `@` and an address. Raises rate_limited, with the time to wait."""
        rate = self._settings.requests_per_s
        if not rate or self.spares(address):
            return
        now, bucket = self._now(), self._buckets.get(who)
        if bucket is None:
            bucket = self._buckets[who] = Bucket(rate, rate * BURST_S, now)
            if len(self._buckets) > BUCKETS_MAX:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(who)
        if wait_s := bucket.take(1.0, now):
            self.refused["requests"] += 1
            whose = "from this address" if who.startswith("@") else "with this token"
            detail = f"more than {rate:g} requests a second {whose}"
            raise HoldfastError("rate_limited", detail, retry_after_s=math.ceil(wait_s * 1000) / 1000)

    # ------------------------------------------------------------ connections

    def room(self, token_hash: str, address: str | None) -> None:
        """Raises too_many_connections: sockets and streams that this token holds."""
        most = self._settings.connections_per_token
        if not self.spares(address) and self._seated[token_hash] >= most:
            self.refused["connections_per_token"] += 1
            raise HoldfastError("too_many_connections", f"this token holds {most} connections already")

    def sit(self, token_hash: str | None) -> None:
        if token_hash is not None:
            self._seated[token_hash] += 1

    def rise(self, token_hash: str | None) -> None:
        if token_hash is not None:
            self._seated[token_hash] -= 1
            if self._seated[token_hash] <= 0:
                del self._seated[token_hash]

    # ------------------------------------------------------------ frames

    def pace(self, request: web.Request) -> Pace:
        settings = self._settings
        spared = self.spares(request.remote)
        return Pace(
            0.0 if spared else settings.frames_per_s,
            0.0 if spared else float(settings.bytes_per_s),
            unfinished_max=8 * settings.max_frame_bytes,
        )


class Pace:
    """What one socket may send. `heard` is called for each frame and is only arithmetic; `tend`, every second or so,
    gives back what the time since then allows. So a burst is at most the bucket and a turn of `tend`."""

    __slots__ = (
        "_arrived",
        "_at",
        "bytes",
        "bytes_left",
        "control_left",
        "endless",
        "frames",
        "frames_left",
        "unfinished_max",
    )

    def __init__(self, frames_per_s: float, bytes_per_s: float, *, unfinished_max: int) -> None:
        """Rates of 0 are off. unfinished_max: bytes that may come without completing a message: a message has at most
        max_frame_bytes, and cut into the smallest fragments seven times that."""
        endless = float("inf")
        self.endless = not frames_per_s and not bytes_per_s
        self.frames, self.bytes = frames_per_s or endless, bytes_per_s or endless
        self.frames_left, self.bytes_left = self.frames * BURST_S, self.bytes * BURST_S
        self.control_left = CONTROL_BURST
        self.unfinished_max = unfinished_max
        self._at: float | None = None
        self._arrived = 0

    def heard(self, size: int, control: bool) -> str | None:
        """None, or what there was too much of."""
        if control:
            self.control_left -= 1
            return "control frames" if self.control_left < 0 else None
        self.frames_left -= 1
        self.bytes_left -= size
        if self.frames_left < 0:
            return "frames"
        return "bytes" if self.bytes_left < 0 else None

    def tend(self, now: float) -> None:
        if self._at is not None:
            passed = now - self._at
            self.control_left = min(CONTROL_BURST, self.control_left + passed * CONTROL_FRAMES)
            self.frames_left = min(self.frames * BURST_S, self.frames_left + passed * self.frames)
            self.bytes_left = min(self.bytes * BURST_S, self.bytes_left + passed * self.bytes)
        self._at = now
