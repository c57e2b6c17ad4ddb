"""A line against a store that only knows what it committed: what is acknowledged stands, and stands once."""

from __future__ import annotations

import random
from typing import Any

import pytest

from actors.gateway.lines import Drop, InFlight, Line
from actors.law.delivery import Again, Apply, Gap, cover


def test_a_known_line_answers_by_itself() -> None:
    line = Line(10)
    assert line.take(1, 10) == Again()
    assert line.take(8, 12) == Apply(11, 3)
    assert line.take(12, 13) == Gap(11)
    line.sent(12)
    assert line.take(11, 12) == InFlight()
    assert line.take(13, 13) == Apply(13, 0)
    line.committed(12)
    assert line.take(11, 12) == Again()


def test_after_a_nack_everything_beyond_the_expected_number_is_dropped_until_it_comes() -> None:
    line = Line(10)
    line.refused(11)
    assert [line.take(n, n) for n in (12, 13, 99)] == [Drop()] * 3
    assert not line.awaits(14)
    assert line.take(10, 10) == Again() and line.take(12, 12) == Drop()
    assert line.take(11, 11) == Apply(11, 0)
    line.sent(11)
    assert line.take(12, 12) == Apply(12, 0)


def test_of_an_unknown_line_nothing_is_acknowledged_without_the_store() -> None:
    line = Line()
    assert line.take(7, 7) == Apply(7, 0)
    line.refused(7, sure=False)
    assert line.take(8, 8) == Drop()
    assert line.take(3, 3) == Apply(3, 0)
    assert line.take(7, 7) == Apply(7, 0)


def test_an_ended_line_is_silent_until_it_begins_again() -> None:
    line = Line(3)
    line.end("unknown_execution")
    assert line.take(4, 4) == Drop()
    line.begin()
    line.committed(1)
    assert line.take(2, 2) == Apply(2, 0)


@pytest.mark.parametrize("seed", range(200))
def test_whatever_is_sent_again_reordered_or_refused_an_ack_never_lies(seed: int) -> None:
    """A wrapper that resends anything at any time, a store that commits, loses groups, or was ahead all along."""
    dice = random.Random(seed)
    committed = dice.randint(0, 5)  # the store's truth at connect
    line = Line(committed if dice.random() < 0.5 else None)
    flight: list[tuple[int, int, int]] = []
    stored = list(range(1, committed + 1))
    for _ in range(300):
        if flight and dice.random() < 0.5:
            first, last, generation = flight.pop(0)
            match cover(committed, first, last):
                case Apply(at, _):
                    stored += range(at, last + 1)
                    committed = last
                    line.committed(committed)
                case Again():
                    if generation == line.generation:
                        line.committed(committed)
                case Gap(expected):
                    if generation == line.generation:
                        line.refused(expected)
        else:
            first = max(1, committed + dice.randint(-4, 6))
            last = first + dice.randint(0, 4)
            match line.take(first, last):
                case Apply(at, _):
                    assert at >= first
                    flight.append((at, last, line.generation))
                    line.sent(last)
                case Again():
                    assert last <= committed, "acknowledged, and not stored"
                case Gap(expected) if not flight:
                    assert expected == committed + 1
                    line.refused(expected)
        assert line.acked <= committed
        assert stored == list(range(1, committed + 1))


@pytest.mark.parametrize("ended", [None, "terminal"])
@pytest.mark.parametrize("expected", [None, 1, 3, 9])
@pytest.mark.parametrize("queued", [None, 0, 1, 5])
def test_what_follows_is_what_take_would_apply_whole(queued: int | None, expected: int | None, ended: Any) -> None:
    for acked in range((queued or 0) + 1):
        for first in range(1, 8):
            for last in range(first, 9):
                line = Line(acked)
                line.queued, line.expected, line.ended = queued, expected, ended
                follows = line.follows(first)
                verdict = line.take(first, last)
                if follows:
                    assert verdict == Apply(first, 0)
                elif expected is None and queued is not None:
                    assert verdict != Apply(first, 0), "nothing is amiss, and it was the next"
