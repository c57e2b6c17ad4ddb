"""Whom a webhook may call. A stranger's URL must not make this service speak to its own network.

The rule is about an address, and it is asked where the address is known for certain: for a literal one when it is
submitted, for a name when it was resolved, and once more for the very address that a socket is about to connect to,
so that a name which answers differently the second time gains nothing.
"""

from __future__ import annotations

import errno
import ipaddress
import re
import socket
from collections.abc import Mapping
from typing import Any, Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from actors.config import network_of
from actors.protocol.errors import HoldfastError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# Of one connection, or of our own making (RFC 9110 §7.6.1 and what a proxy would act on).
NEVER_HEADERS: Final = frozenset(
    {"connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer"}
    | {"transfer-encoding", "upgrade", "host", "content-length", "content-encoding", "expect", "accept-encoding"}
)
HEADER_VALUE_MAX: Final = 4096
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}\Z")
_HEADER_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*\Z")
_NAMED_LOCAL: Final = ("localhost", "local", "internal", "localdomain")
# Public by their number, and yet the cloud's own: Azure's host. (Others are link-local or private.)
METADATA: Final = frozenset(map(ipaddress.ip_address, ("168.63.129.16", "fd00:ec2::254", "100.100.100.200")))
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")


class NotAllowed(OSError):
    """An OSError, because it is raised where a socket would be made."""

    def __init__(self, text: str) -> None:
        super().__init__(errno.EACCES, text)


class Targets:
    """`webhook_allow`: hosts, suffixes and networks. Empty: every public address, and no other."""

    def __init__(self, allow: tuple[str, ...]) -> None:
        self._networks = [n for entry in allow if (n := network_of(entry)) is not None]
        names = [entry for entry in allow if network_of(entry) is None and entry != "*"]
        self._suffixes = tuple("." + entry.lstrip("*").lstrip(".") for entry in names if entry[0] in "*.")
        self._hosts = frozenset(entry for entry in names if entry[0] not in "*.")
        self._public = not allow or "*" in allow

    def named(self, host: str) -> bool:
        return host in self._hosts or host.endswith(self._suffixes)

    def permits(self, host: str, address: Address) -> bool:
        """A network of the list allows whatever it holds; a name of the list every address but a metadata one."""
        address = unwrapped(address)
        if any(address in network for network in self._networks):
            return True
        if address in METADATA or address.is_link_local or address.is_unspecified or address.is_multicast:
            return False
        if self.named(host):
            return True
        return self._public and address.is_global and not address.is_reserved

    # ------------------------------------------------------------ at submit

    def check(self, url: str, headers: Mapping[str, str]) -> None:
        """Raises webhook_not_allowed or bad_request: what can be known before anything is resolved."""
        for name, value in headers.items():
            if not _HEADER_NAME.match(name) or len(value) > HEADER_VALUE_MAX or not _HEADER_VALUE.match(value):
                raise HoldfastError(
                    "bad_request", f"callback.headers: {name[:80]!r} or its value is not a valid header"
                )
            if name.lower() in NEVER_HEADERS:
                raise HoldfastError("bad_request", f"callback.headers: {name!r} belongs to the connection, not to you")
        self.check_url(url)

    def check_url(self, url: str) -> str:
        """The host to connect to. Raises webhook_not_allowed or bad_request."""
        try:
            parsed = URL(url)
            host, port = (parsed.host or "").rstrip(".").lower(), parsed.port
        except ValueError:
            host, port, parsed = "", None, URL()
        if not host or parsed.scheme not in ("http", "https") or not port:
            raise HoldfastError("bad_request", "callback.url is no URL that can be called")
        if parsed.user is not None or parsed.password is not None:
            raise HoldfastError("bad_request", "callback.url has a user in it: use a header, a URL is shown and logged")
        address = literal(host)
        if address is not None:
            if not self.permits(host, address):
                raise HoldfastError("webhook_not_allowed", f"{host} is not an address that may be called")
            return host
        if self.named(host):
            return host
        if not self._public and not self._networks:
            raise HoldfastError("webhook_not_allowed", f"{host} is not on the list of webhook_allow")
        if host.rpartition(".")[2] in _NAMED_LOCAL and not self._networks:
            raise HoldfastError("webhook_not_allowed", f"{host} is a name of a local network")
        return host

    # ------------------------------------------------------------ at delivery

    def connector(self, host: str, resolver: AbstractResolver) -> aiohttp.TCPConnector:
        """For one delivery to `host`: resolves by the rule, and asks it again for each address that it connects to."""

        def make(info: Any) -> socket.socket:
            family, kind, proto, _, where = info
            if not self.permits(host, ipaddress.ip_address(where[0].partition("%")[0])):
                raise NotAllowed(f"{where[0]} is not an address that may be called")
            return socket.socket(family, kind, proto)

        return aiohttp.TCPConnector(
            resolver=_Judging(self, resolver), use_dns_cache=False, force_close=True, limit=1, socket_factory=make
        )


class _Judging(AbstractResolver):
    def __init__(self, targets: Targets, inner: AbstractResolver) -> None:
        self._targets, self._inner = targets, inner

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        name = host.rstrip(".").lower()
        kept = [r for r in found if self._targets.permits(name, ipaddress.ip_address(r["host"].partition("%")[0]))]
        if found and not kept:
            raise NotAllowed(f"{host} has no address that may be called")
        return kept

    async def close(self) -> None:
        return None  # the inner one is shared


def literal(host: str) -> Address | None:
    """The address that a host is, in any of the ways in which C libraries read one (127.1, 0x7f000001, 2130706433)."""
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        pass
    try:
        return ipaddress.IPv4Address(socket.inet_aton(host))
    except (OSError, ValueError):
        return None


def unwrapped(address: Address) -> Address:
    """An IPv4 address inside an IPv6 one is the one that is reached."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address
