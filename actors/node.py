"""The node actor: the mailbox that a node's decisions pass while it is awake. The same shell as a session's.

Its own is only when it may sleep: a node that is merely connected needs nobody, because its rows say that it is there.
It is kept awake by what is asked of it and what it says, and sleeps when both have been silent for a while.
"""

from __future__ import annotations

from actors.session import SessionActor


class NodeActor(SessionActor):
    """name: `node/<id>`."""

    async def busy(self) -> bool:
        return False
