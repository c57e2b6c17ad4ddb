"""Exactly once into the log, in order: what a numbered range means against what is acknowledged (DESIGN §2.5).

    acked = 10:   1..10 → Again        8..12 → Apply from 11        11..12 → Apply from 11        12.. → Gap(11)
No time window and no memory: two integers decide.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Again:
    """All of it stands already: acknowledge again."""


@dataclass(frozen=True, slots=True)
class Apply:
    """Store from `first` on; `skip` leading records stand already."""

    first: int
    skip: int


@dataclass(frozen=True, slots=True)
class Gap:
    """It begins beyond what we have: refuse, and say what is expected."""

    expected: int


def cover(acked: int, first: int, last: int) -> Again | Apply | Gap:
    """A frame with records first..last (1 ≤ first ≤ last) against the high-water mark `acked` (≥ 0)."""
    if last <= acked:
        return Again()
    if first > acked + 1:
        return Gap(acked + 1)
    return Apply(acked + 1, acked + 1 - first)
