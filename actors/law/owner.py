"""The rules of ownership that sessions and node roles share (DESIGN §2.3): who may take over, who is displaced, who may
speak. A connection is known by its id and epoch; presence and grace hang on it, never on a name alone.
"""

from __future__ import annotations

from typing import Protocol

from actors.law.effects import CloseSocket, Fenced, RefuseConnection
from actors.law.model import Policy
from actors.protocol.codes import CLOSE, Link


class Owner(Protocol):
    """What a row says of the connection that owns it, or owned it last."""

    @property
    def link(self) -> Link: ...
    @property
    def connection_id(self) -> str | None: ...
    @property
    def connection_epoch(self) -> int: ...
    @property
    def instance_id(self) -> str | None: ...
    @property
    def attempt(self) -> int | None: ...
    @property
    def last_seen_service_ms(self) -> int: ...


def late_or_too_soon(
    owner: Owner, instance_id: str, attempt: int | None, service_ms: int, policy: Policy
) -> RefuseConnection | None:
    """A late open never wins; under `stale_only` nobody displaces an owner that was seen within the threshold.

    attempt None, on either side: that peer does not count its connects, so the later arrival is the later one.
    """
    own = owner.instance_id == instance_id
    if own and attempt is not None and owner.attempt is not None and attempt <= owner.attempt:
        return RefuseConnection(CLOSE["fenced"], "a later attempt of this instance was here")
    if owner.link != "connected" or own or policy.takeover == "latest_wins":
        return None
    silent_s = (service_ms - owner.last_seen_service_ms) / 1000
    if silent_s >= policy.takeover_threshold_s:
        return None
    wait = policy.takeover_threshold_s - silent_s
    return RefuseConnection(CLOSE["try_again_later"], "already_connected", round(wait, 1))


def displace(owner: Owner, instance_id: str) -> CloseSocket | None:
    """How the present owner's socket is closed by its successor; None: there is no present owner."""
    if owner.link != "connected" or owner.connection_id is None:
        return None
    own = owner.instance_id == instance_id
    code, why = ("fenced", "a later attempt took over") if own else ("superseded", "another instance took over")
    return CloseSocket(owner.connection_id, CLOSE[code], why)


def owns(owner: Owner, connection_id: str, epoch: int) -> bool:
    return owner.link == "connected" and (owner.connection_id, owner.connection_epoch) == (connection_id, epoch)


def fenced_by_owner(owner: Owner, instance_id: str, what: str) -> Fenced:
    """How to close a socket that is not the owner's: it depends on who is."""
    if owner.link != "connected":
        return Fenced(CLOSE["going_away"], "this connection was given up; connect again")
    if owner.instance_id == instance_id:
        return Fenced(CLOSE["fenced"], f"a later attempt of this instance owns the {what}")
    return Fenced(CLOSE["superseded"], f"another instance owns the {what}")
