"""A peer that takes nothing: who judges it, and when."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from actors.gateway.wire import BACKLOG_BYTES, Slow, Wire


class Line:
    def __init__(self) -> None:
        self.backlog, self.aborted = 2 * BACKLOG_BYTES, False

    def get_write_buffer_size(self) -> int:
        return self.backlog

    def abort(self) -> None:
        self.aborted = True


class Stalled:
    """A wire whose peer takes nothing, under a clock that is told when to walk."""

    def __init__(self) -> None:
        self.now_s, self.line = 100.0, Line()
        pace: Any = SimpleNamespace(endless=True, unfinished_max=1 << 20, tend=lambda now: None)
        ws: Any = SimpleNamespace(closed=False)
        line: Any = self.line
        self.wire = Wire(ws, line, now=lambda: self.now_s, ping_s=20, pong_s=20, slow_s=5, pace=pace)


def test_one_that_nobody_drains_is_cut_when_its_time_is_over() -> None:
    stalled = Stalled()
    for _ in range(6):
        stalled.wire.tend()
        assert not stalled.line.aborted
        stalled.now_s += 1
    stalled.wire.tend()
    assert stalled.line.aborted and stalled.wire.cut_because == "slow consumer"


async def test_one_that_is_drained_is_left_to_who_drains_and_hears_why() -> None:
    """After a stand-still of the loop both looks are due at once, and the order of the two is nobody's."""
    stalled = Stalled()
    draining = asyncio.create_task(stalled.wire.drain())
    await asyncio.sleep(0)
    stalled.wire.tend()
    stalled.now_s += 60
    stalled.wire.tend()
    assert not stalled.line.aborted
    with pytest.raises(Slow):
        await asyncio.wait_for(draining, 10)
    stalled.wire.tend()
    stalled.now_s += 6
    stalled.wire.tend()
    assert stalled.line.aborted, "what nobody drains any more is cut as before"


async def test_a_drain_that_is_given_up_leaves_the_judgement_to_the_look() -> None:
    stalled = Stalled()
    draining = asyncio.create_task(stalled.wire.drain())
    await asyncio.sleep(0)
    draining.cancel()
    with pytest.raises(asyncio.CancelledError):
        await draining
    stalled.wire.tend()
    stalled.now_s += 6
    stalled.wire.tend()
    assert stalled.line.aborted
