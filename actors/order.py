"""The order actor: the mailbox that an order's decisions pass while it is awake. The same shell as a session's.

An order that is merely open needs nobody: its rows say how far it is. It never calls a node actor and never waits for
one: what devices must hear stands in notices, which the nodes take by themselves.
"""

from __future__ import annotations

from actors.session import SessionActor


class OrderActor(SessionActor):
    """name: `order/<id>`."""

    async def busy(self) -> bool:
        return False
