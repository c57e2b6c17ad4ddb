"""The ladder: SIGINT, then SIGTERM, then SIGKILL, each with its deadline inside `within_s`. Pure.

It is durable: a ladder is a plain value in the spool, with wall-clock deadlines, so a wrapper that restarts in the
middle goes on where it was. A wall clock that jumps can only make a step come sooner, never keep one away: the wait
for a step is never longer than the step itself.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Final, Literal

Kind = Literal["interrupt", "abort", "stop"]
SIGNALS: Final = ("SIGINT", "SIGTERM", "SIGKILL")
SHARES: Final = (0.0, 0.4, 0.7)  # of within_s; the last 30 % are for dying, draining and reporting
FORCE_S: Final = 1.0  # with force: SIGTERM at once, and this long for last words


@dataclass(frozen=True, slots=True)
class Ladder:
    """`step` is the next rung (0…2; 3: all signals are sent). `due_ms` is when, wall clock."""

    kind: Kind
    within_s: float
    force: bool
    step: int
    due_ms: int
    reason: str | None = None
    interrupt_id: str | None = None

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | None) -> Ladder | None:
        return None if text is None else cls(**json.loads(text))


def begin(
    kind: Kind, at_ms: int, within_s: float, *, force: bool = False, reason: str | None = None, iid: str | None = None
) -> Ladder:
    return Ladder(kind, within_s, force, 1 if force else 0, at_ms, reason, iid)


def upgrade(old: Ladder, new: Ladder, at_ms: int) -> Ladder:
    """Two reasons to end one execution make one ladder: never slower, never back a rung; an abort outranks."""
    kind: Kind = "abort" if "abort" in (old.kind, new.kind) else old.kind
    merged = replace(old, kind=kind, interrupt_id=old.interrupt_id or new.interrupt_id)
    if new.force and not old.force:
        step = max(old.step, 1)
        due_ms = at_ms if old.step < 2 else min(old.due_ms, at_ms + int(FORCE_S * 1000))
        merged = replace(merged, force=True, step=step, due_ms=due_ms)
    return merged


def wait_s(ladder: Ladder, at_ms: int) -> float | None:
    """Seconds until the next rung; None when there is none left."""
    if ladder.step >= len(SIGNALS):
        return None
    longest = FORCE_S if ladder.force else ladder.within_s * 0.4
    return min(max(0.0, (ladder.due_ms - at_ms) / 1000), longest)


def anchored(ladder: Ladder, at_ms: int) -> Ladder:
    """A wall clock that was set back may not keep a rung away: one that is due later than it can be is due anew."""
    wait = wait_s(ladder, at_ms)
    if wait is None or (ladder.due_ms - at_ms) / 1000 <= wait:
        return ladder
    return replace(ladder, due_ms=at_ms + round(wait * 1000))


def climb(ladder: Ladder, at_ms: int) -> tuple[Ladder, str] | None:
    """The rung that is due, and the ladder after it; None when nothing is due."""
    wait = wait_s(ladder, at_ms)
    if wait is None or wait > 0:
        return None
    step = ladder.step + 1
    if step < len(SIGNALS):
        pause = FORCE_S if ladder.force else ladder.within_s * (SHARES[step] - SHARES[step - 1])
    else:
        pause = 0.0
    return replace(ladder, step=step, due_ms=at_ms + round(pause * 1000)), SIGNALS[step - 1]
