"""Who is asking, and what they may do. Tokens are known by their hash only; a secret is never kept, shown or logged.

A token of one session sees nothing of another: it is answered as if that session did not exist.
Tickets are for browsers, which cannot set a header on a socket: single use, short, in memory (a gateway that falls
forgets them, and the page asks for another).
"""

from __future__ import annotations

import hashlib
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from actors.config import is_loopback
from actors.gateway.limits import Limits
from actors.protocol.errors import HoldfastError
from actors.store.contract import Token
from actors.store.worker import StoreWorker

CACHE_S: Final = 3.0  # revocation must bite within 5 s (DESIGN §8), live sockets included
CACHE_MAX: Final = 10_000
TICKET_S: Final = 30.0
LOOPBACK_NAMES: Final = ("localhost", "127.0.0.1", "[::1]")
TICKETS_MAX: Final = 10_000  # handed out and not used yet; then the oldest go

SECRET_BYTES: Final = 32  # 256 bits (DESIGN §8): beyond guessing, so a plain hash is enough at rest
MAY_ADMINISTER: Final = frozenset({"admin"})
MAY_READ: Final = frozenset({"admin", "operator", "reader"})
MAY_OPERATE: Final = frozenset({"admin", "operator"})
MAY_INGEST: Final = frozenset({"admin", "operator", "wrapper"})
MAY_CONNECT: Final = frozenset({"admin", "node"})
# Work of a station: a collector's own, and everybody's for who operates or reads.
MAY_SEE_WORK: Final = MAY_READ | {"collector"}
MAY_COMPLETE: Final = MAY_OPERATE | {"collector"}


@dataclass(frozen=True, slots=True)
class Caller:
    """token_hash: of the token behind it (behind the ticket too), so that a revocation finds its sockets."""

    token: Token
    token_hash: str

    @property
    def name(self) -> str:
        return self.token.token_id

    def need(self, scopes: frozenset[str], session_id: str | None = None) -> Caller:
        """Raises forbidden, or session_not_found where the session is somebody else's."""
        if self.token.scope not in scopes:
            raise HoldfastError("forbidden", f"a token of scope {self.token.scope} may not do this")
        if self.token.session_id is not None and self.token.session_id != session_id:
            if session_id is None:
                raise HoldfastError("forbidden", "this token is for one session only")
            raise HoldfastError("session_not_found")
        return self

    def need_node(self, scopes: frozenset[str], node_id: str) -> Caller:
        """Raises forbidden, or node_not_found where its token is for another node, or for none."""
        self.need(scopes)
        if self.token.scope == "node" and self.token.node_id != node_id:
            raise HoldfastError("node_not_found")
        return self

    @property
    def collects(self) -> bool:
        """It sees the work of one station (its token's), and of none if its token names none."""
        return self.token.scope == "collector"

    def sees_station(self, station_id: str | None) -> bool:
        return not self.collects or (station_id is not None and self.token.station_id == station_id)


def new_secret() -> str:
    """Opaque; the prefix only tells scanners of code and logs what they have found."""
    return "hft_" + secrets.token_urlsafe(SECRET_BYTES)


def hash_of(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


class Authority:
    def __init__(
        self,
        worker: StoreWorker,
        origins: tuple[str, ...],
        limits: Limits,
        now: Callable[[], float],
        wall_ms: Callable[[], int],
    ) -> None:
        self._limits = limits
        self._worker, self._now, self._wall_ms = worker, now, wall_ms
        self.origins = frozenset(origins)  # the allow-list; own pages are added when the door knows its address
        self._cache: OrderedDict[str, tuple[float, Token | None]] = OrderedDict()
        self._tickets: OrderedDict[str, tuple[float, Caller]] = OrderedDict()

    # ------------------------------------------------------------ tokens

    async def caller(self, request: web.Request, *, ticket_ok: bool = False) -> Caller:
        """Raises unauthenticated or origin_not_allowed. ticket_ok: only streams say so, never a route that changes."""
        self.check_origin(request)
        if ticket_ok and (ticket := request.query.get("ticket")):
            return self._measured(await self._redeem(ticket), request)
        kind, _, secret = request.headers.get("Authorization", "").partition(" ")
        if kind.lower() != "bearer" or not secret.strip():
            raise HoldfastError("unauthenticated")
        hashed = hash_of(secret.strip())
        token = await self.token(hashed)
        if token is None:
            raise HoldfastError("unauthenticated", "this token is not known, has expired or was revoked")
        return self._measured(Caller(token, hashed), request)

    def _measured(self, caller: Caller, request: web.Request) -> Caller:
        self._limits.request(caller.token_hash, request.remote)
        return caller

    async def token(self, hashed: str) -> Token | None:
        now = self._now()
        known = self._cache.get(hashed)
        if known is None or now - known[0] > CACHE_S:
            known = (now, await self._worker.read(lambda store: store.token(hashed)))
            self._cache[hashed] = known
            self._cache.move_to_end(hashed)
            while len(self._cache) > CACHE_MAX:
                self._cache.popitem(last=False)
        token = known[1]
        if token is not None and token.expires_at_ms is not None and token.expires_at_ms <= self._wall_ms():
            return None
        return token

    def forget(self, hashed: str) -> None:
        """A token was made or revoked here: the next request sees it at once."""
        self._cache.pop(hashed, None)

    def forget_node(self, node_id: str) -> None:
        """Its tokens were revoked with it: a cached one would let its device in once more, and make it anew."""
        for hashed, (_, token) in list(self._cache.items()):
            if token is not None and token.node_id == node_id:
                del self._cache[hashed]

    async def revoked(self, hashes: set[str]) -> set[str]:
        """Those that hold no longer; one short read for all."""
        wanted = sorted(hashes)
        if not wanted:
            return set()
        found = await self._worker.read(lambda store: [store.token(h) for h in wanted])
        return {h for h, token in zip(wanted, found, strict=True) if token is None}

    # ------------------------------------------------------------ tickets

    def issue(self, caller: Caller, scope: str, session_id: str | None) -> tuple[str, int]:
        secret = "tkt_" + secrets.token_urlsafe(32)
        token = Token(caller.token.token_id, scope, session_id or caller.token.session_id)
        self._tickets[hash_of(secret)] = (self._now() + TICKET_S, Caller(token, caller.token_hash))
        while len(self._tickets) > TICKETS_MAX:
            self._tickets.popitem(last=False)
        return secret, self._wall_ms() + round(TICKET_S * 1000)

    async def _redeem(self, secret: str) -> Caller:
        """Taken out before anything is awaited: of two who come at once, one gets in."""
        until, caller = self._tickets.pop(hash_of(secret), (0.0, None))
        if caller is None or self._now() >= until or await self.token(caller.token_hash) is None:
            raise HoldfastError("unauthenticated", "this ticket is not known, was used, or has expired")
        return caller

    # ------------------------------------------------------------ browsers

    def check_origin(self, request: web.Request) -> str | None:
        """None: no browser. Raises origin_not_allowed. Compared as text, whole: no case, port or suffix is forgiven.

        The Host of the request is no measure: a page whose name was rebound to our address sends its own as both.
        """
        said = request.headers.getall("Origin", [])
        if not said:
            return None
        if len(said) > 1 or said[0] not in self.origins:
            raise HoldfastError("origin_not_allowed", f"origin {', '.join(said)[:200]!r}")
        return said[0]


def own_origins(url: str) -> frozenset[str]:
    """Under which our own pages are opened: the URL itself, and on loopback its other names."""
    scheme, _, where = url.partition("://")
    host, _, port = where.rpartition(":")
    hosts = {host, *LOOPBACK_NAMES} if is_loopback(host.strip("[]")) else {host}
    return frozenset(f"{scheme}://{name}:{port}" for name in hosts)
