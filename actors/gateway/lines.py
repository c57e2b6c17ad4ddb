"""One execution's numbering as one connection sees it: what is acknowledged, what is on its way, what is waited for.

Pure: no socket, no store, no clock. The store decides again inside its own transaction (the append fence); this only
saves it the questions whose answers are known, and keeps the promise to say `nack gap` once and then be silent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from actors.law.delivery import Again, Apply, Gap, cover


@dataclass(frozen=True, slots=True)
class Drop:
    """Say nothing: the peer knows what is expected, or that the execution has ended."""


@dataclass(frozen=True, slots=True)
class InFlight:
    """Queued already; the acknowledgement comes with the commit."""


Verdict = Again | Apply | Gap | Drop | InFlight


class Line:
    """`acked`: known to be committed. `queued`: the last number handed to the store. None: nothing is known yet, and
    the store is asked. `expected`: after a nack, everything beyond it is dropped until it comes."""

    __slots__ = ("acked", "ended", "expected", "generation", "owed", "queued")

    def __init__(self, acked: int | None = None) -> None:
        self.acked: int = acked or 0
        self.queued: int | None = acked
        self.expected: int | None = None
        self.ended: Literal["terminal", "unknown_execution"] | None = None
        self.owed = False  # an ack is due
        self.generation = 0  # grows with each refusal, so that refusals of what was sent before it say nothing new

    def follows(self, first: int) -> bool:
        """Exactly what comes next, and nothing is amiss: `take` would say Apply(first, 0). The way of nearly every
        frame, without an object for the answer."""
        return self.queued == first - 1 and self.expected is None and self.ended is None

    def take(self, first: int, last: int) -> Verdict:
        """A frame with records first..last. Changes nothing but `expected`, when the awaited number has come."""
        if self.ended is not None:
            return Drop()
        if self.expected is not None:
            if first > self.expected:
                return Drop()
            if last >= self.expected:
                self.expected = None
        if self.queued is None:
            return Apply(first, 0)
        verdict = cover(self.queued, first, last)
        if isinstance(verdict, Again) and last > self.acked:
            return InFlight()
        return verdict

    def awaits(self, seq: int) -> bool:
        """Whether a control record is to be looked at; one beyond the awaited number is dropped."""
        if self.expected is not None:
            if seq > self.expected:
                return False
            if seq == self.expected:
                self.expected = None
        return True

    def sent(self, last: int) -> None:
        self.queued = last

    def committed(self, acked: int) -> None:
        if acked > self.acked:
            self.acked = acked
        if self.queued is None or self.queued < self.acked:
            self.queued = self.acked

    def refused(self, expected: int | None, *, sure: bool = True) -> None:
        """From `expected` on everything has to come again; None: only what is in flight is void.

        sure: everything before `expected` is committed (the store said so). Otherwise nothing is known of it, and
        nothing of it may be acknowledged from here.
        """
        self.generation += 1
        self.expected = expected
        if not sure:
            self.queued = None
            return
        if expected is not None:
            self.acked = expected - 1
        self.queued = self.acked

    def end(self, why: Literal["terminal", "unknown_execution"]) -> None:
        self.generation += 1
        self.ended, self.acked, self.queued, self.expected = why, 0, None, None

    def begin(self) -> None:
        self.ended = None
