"""What a decision about a node answers, beside the answers that sessions have too (law/effects.py)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from actors.law.nodes.model import UploadReport
from actors.law.nodes.requests import TaskReport

Frame = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Upward:
    """What the asker does next, after the commit, in this order; none of it is lost if it does not: a deadline in the
    same transaction says it again. tasks: transitions to perform. verify: objects to look at, then UploadVerified.
    """

    tasks: tuple[TaskReport, ...] = ()
    verify: tuple[UploadReport, ...] = ()
    changed: bool = True


@dataclass(frozen=True, slots=True)
class NodeConnected:
    """directives: frames for hello_ack. upward: as above, after hello_ack was written."""

    epoch: int
    directives: tuple[Frame, ...] = ()
    upward: Upward = Upward()


@dataclass(frozen=True, slots=True)
class Fetched:
    """Frames to write, in this order. more: something is left; fetch again (with a seed of its own)."""

    frames: tuple[Frame, ...]
    more: bool = False


@dataclass(frozen=True, slots=True)
class Ignored:
    """It does not count (late, foreign, mismatched, a repeat): answered with success, nothing changed."""

    invocation_id: str
    changed: bool = False  # True: it came too late, and the invocation has been settled as such


NodeAnswer = Upward | NodeConnected | Fetched | Ignored


def upward_of(answer: object) -> Upward:
    """What is to be carried upward after any answer; nothing for most."""
    if isinstance(answer, Upward):
        return answer
    if isinstance(answer, NodeConnected):
        return answer.upward
    return Upward(changed=False)
