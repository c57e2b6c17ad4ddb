"""How a request reaches its decision: the session's actor while it is awake, otherwise the same transition here.

Because each decision stands on rows read in its own transaction (ADR 2), it does not matter who runs it. So an actor
that sleeps, died or froze costs a caller at most CONTROL_DEADLINE_S, once, and never the answer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from actors.law.requests import Request
from actors.protocol.defaults import CONTROL_DEADLINE_S
from actors.store.contract import IdempotencyKey, Outcome


class Asleep(Exception):
    """There is no actor to ask; certainly nothing was executed."""


class OutcomeUnknown(Exception):
    """The actor died, froze or cannot be reached: the request may or may not have been executed."""


class ActorPort(Protocol):
    """The runtime's side (Ray). All of it is hints: none of these calls may block the event loop."""

    def awake(self, subject: str) -> bool:
        """A cheap belief; may be wrong either way."""

    async def call(self, request: Request, key: IdempotencyKey | None, within_s: float) -> Outcome:
        """Raises Asleep, OutcomeUnknown, TimeoutError (no answer in time), or the HoldfastError of the store."""

    def wake(self, subject: str) -> None:
        """In the background, bounded; never waits."""

    def end_frozen(self, subject: str) -> None:
        """Kills the actor that missed its deadline, by pid and start time; in the background."""


class NoActors:
    """Every session sleeps: for embedding, for tests, and while Ray is away."""

    def awake(self, subject: str) -> bool:
        return False

    async def call(self, request: Request, key: IdempotencyKey | None, within_s: float) -> Outcome:
        raise Asleep(request.addressee)

    def wake(self, subject: str) -> None:
        return None

    def end_frozen(self, subject: str) -> None:
        return None


Local = Callable[[Request, IdempotencyKey | None], Awaitable[Outcome]]


class Mailbox:
    """`perform` is the one call that gateway, reaper and clients use for a control decision."""

    def __init__(self, local: Local, port: ActorPort, deadline_s: float = CONTROL_DEADLINE_S) -> None:
        self.local, self.port, self.deadline_s = local, port, deadline_s

    async def perform(self, request: Request, key: IdempotencyKey | None = None, *, wake: bool = False) -> Outcome:
        """wake: an operator's call or an execution, so the actor should live; it comes up behind the answer."""
        if self.port.awake(request.addressee):
            try:
                return await self.port.call(request, key, self.deadline_s)
            except TimeoutError:
                self.port.end_frozen(request.addressee)
            except (Asleep, OutcomeUnknown):
                pass  # requests are idempotent by their seed: deciding again here is safe
        elif wake:
            self.port.wake(request.addressee)
        return await self.local(request, key)
