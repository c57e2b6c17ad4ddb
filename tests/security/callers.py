"""Who may stand at the door: every scope, every bound one, and those with nothing or with something worthless."""

from __future__ import annotations

from dataclasses import replace

from actors.gateway.auth import hash_of
from actors.protocol.ids import new_id
from actors.store.contract import Token
from tests.gateway.house import TOKENS, House

FREE = ("admin", "operator", "reader", "wrapper", "node", "collector")
BOUND = ("operator", "reader", "wrapper", "node", "collector")
NOBODY = ("none", "garbage", "expired", "revoked", "ticket")
OWN = tuple(f"own {scope}" for scope in BOUND)  # of the session (a node, a collector: the node, station) asked for
OTHERS = tuple(f"other {scope}" for scope in BOUND)  # of another one
ALL = (*FREE, *OWN, *OTHERS, *NOBODY)

PAST_MS = 1


async def secret_of(house: House, who: str, sid: str) -> str | None:
    """A fresh token for this caller, who asks for the session sid, or for the node or station of the same id. None: it
    sends no header at all."""
    if who == "none":
        return None
    if who == "garbage":
        return "hft_garbage"
    if who in TOKENS:
        return TOKENS[who]
    if who == "ticket":  # as a bearer: a ticket is no token
        made = await house.call("POST", "/v1/tickets", {"session_id": sid, "scope": "operator"}, status=201)
        return str(made["ticket"])
    kind, _, scope = who.rpartition(" ")
    bound_to = {"own": sid, "other": "somebody-elses"}.get(kind)
    if who in ("expired", "revoked"):
        scope = "admin"
    expires_at_ms = PAST_MS if who == "expired" else None
    to = {"node": "node_id", "collector": "station_id"}.get(scope, "session_id")
    token = replace(Token(new_id("token"), scope, expires_at_ms=expires_at_ms), **{to: bound_to})
    secret = f"secret-{token.token_id}"
    await house.worker.write(lambda store: store.put_token(hash_of(secret), token))
    if who == "revoked":
        await house.worker.write(lambda store: store.revoke_token(token.token_id))
    return secret
