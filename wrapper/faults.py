"""A script of misfortunes for a fake device: at which point, at the how manieth time, what happens.

    uploaded=die          the first time that an upload is complete and noted, but not told: SIGKILL
    said@2=drop           the second time after it was told: the cable is cut
    begin=delay:3         the first `begin` is obeyed three seconds late
    uploaded@*=twice      every complete upload is told twice

Passes are counted in the device's folder, so that a device which was told to die at its first upload lives at its
second, in its next life.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

# What may happen anywhere. `drop` and `skip` are for the caller to carry out: they end the step at hand.
ANYWHERE: Final = {
    "die": "SIGKILL to itself",
    "stop": "SIGSTOP to itself: the socket stays, nobody answers",
    "drop": "the cable is cut, and what was about to be said is not",
    "skip": "what was about to be done or said is not",
    "delay": "seconds of nothing, e.g. delay:3",
}

# point → (when it is reached, what else may happen there)
POINTS: Final[dict[str, tuple[str, dict[str, str]]]] = {
    "order": ("a task order came, before it is obeyed", {"unknown": "the next state that is told is `unknown`"}),
    "obeyed": ("an order was obeyed and noted, before the state is told", {}),
    "invoke": ("a command came, before it runs", {}),
    "result": ("a command has run, before its result is told", {}),
    "request": (
        "an upload was asked for, before that is noted",
        {"lose": "the recording is lost: `not_found`", "fail": "`failed` is told instead"},
    ),
    "accepted": ("the request is noted, before `accepted` is told", {}),
    "object": ("the object is stored, before that is noted", {"corrupt": "and it is not what is told of it"}),
    "uploaded": ("the upload is noted, before it is told", {"twice": "it is told twice"}),
    "said": ("the upload was told", {}),
    "ack": ("the acknowledgement came, before it is carried out", {}),
    "acked": ("the recording is deleted and that is noted", {"again": "the upload is told once more"}),
}
# An order's own name is a point too: `begin=…` is the `begin`s among the orders.
ORDERS: Final = ("config", "begin", "pause", "resume", "finish", "cancel", "clear")

_FORM = re.compile(r"([a-z]+)(?:@(\d{1,6}|\*))?=([a-z]+)(?::(\d{1,5}(?:\.\d{1,3})?))?")


@dataclass(frozen=True, slots=True)
class Fault:
    """``nth`` None: every time."""

    point: str
    action: str
    nth: int | None = 1
    seconds: float = 0.0


def parse(text: str) -> Fault:
    """Raises ValueError: what is wrong, and what there is."""
    form = _FORM.fullmatch(text)
    if form is None:
        raise ValueError(f"{text!r} is not POINT[@N]=ACTION[:SECONDS]")
    point, nth, action, seconds = form.groups()
    if point not in POINTS and point not in ORDERS:
        raise ValueError(f"there is no point {point!r}; there are {', '.join((*POINTS, *ORDERS))}")
    here = ANYWHERE | POINTS["order" if point in ORDERS else point][1]
    if action not in here:
        raise ValueError(f"nothing called {action!r} can happen at {point!r}; there are {', '.join(here)}")
    if (action == "delay") != (seconds is not None):
        raise ValueError(f"{text!r}: seconds belong to `delay`, and `delay` needs them")
    if nth == "0":
        raise ValueError(f"{text!r}: the first time is 1")
    return Fault(point, action, None if nth == "*" else int(nth or 1), float(seconds or 0))


class Faults:
    def __init__(
        self,
        script: Sequence[Fault],
        passed: Callable[[str], int],
        *,
        kill: Callable[[signal.Signals], None] = lambda what: os.kill(os.getpid(), what),
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """``passed`` counts the passes of a point, durably."""
        self.script, self._passed, self._kill, self._sleep = script, passed, kill, sleep

    async def at(self, point: str, also: str | None = None) -> str | None:
        """What the caller has to do about it: `drop`, `skip` or one of the point's own; None: go on."""
        told: str | None = None
        for name in (point, also):
            if name is None or not any(fault.point == name for fault in self.script):
                continue
            n = self._passed(name)
            for fault in self.script:
                if fault.point == name and fault.nth in (None, n):
                    told = await self._happen(fault) or told
        return told

    async def _happen(self, fault: Fault) -> str | None:
        match fault.action:
            case "die":
                self._kill(signal.SIGKILL)
            case "stop":
                self._kill(signal.SIGSTOP)
            case "delay":
                await self._sleep(fault.seconds)
            case other:
                return other
        return None
