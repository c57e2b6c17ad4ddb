"""The ladder always ends, within its time, and goes on where it was."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from wrapper.ladder import Ladder, anchored, begin, climb, upgrade, wait_s


def climb_all(ladder: Ladder, now: int) -> list[tuple[int, str]]:
    steps = []
    while (wait := wait_s(ladder, now)) is not None:
        now += round(wait * 1000)
        rung = climb(ladder, now)
        assert rung is not None
        ladder, name = rung
        steps.append((now, name))
    return steps


def test_three_rungs_within_twenty_seconds() -> None:
    assert climb_all(begin("interrupt", 0, 20.0), 0) == [(0, "SIGINT"), (8000, "SIGTERM"), (14000, "SIGKILL")]


def test_by_force_it_takes_a_second() -> None:
    assert climb_all(begin("interrupt", 0, 20.0, force=True), 0) == [(0, "SIGTERM"), (1000, "SIGKILL")]


def test_force_hurries_a_ladder_that_is_being_climbed() -> None:
    rung = climb(begin("interrupt", 0, 600.0), 0)
    assert rung is not None
    hurried = upgrade(rung[0], begin("interrupt", 100, 600.0, force=True), 100)
    assert climb_all(hurried, 100) == [(100, "SIGTERM"), (1100, "SIGKILL")]


def test_an_abort_outranks_an_interrupt_and_keeps_its_rung() -> None:
    rung = climb(begin("interrupt", 0, 20.0, iid="int_1"), 0)
    assert rung is not None
    merged = upgrade(rung[0], begin("abort", 5, 20.0), 5)
    assert (merged.kind, merged.step, merged.interrupt_id) == ("abort", 1, "int_1")


def test_it_survives_as_text() -> None:
    ladder = begin("abort", 7, 3.5, force=True, reason="ß", iid="int_1")
    assert Ladder.from_json(ladder.to_json()) == ladder
    assert Ladder.from_json(None) is None


@settings(deadline=None)
@given(st.integers(0, 10**13), st.floats(1, 3600), st.booleans())
def test_a_clock_that_jumps_never_keeps_a_step_away(jump: int, within_s: float, force: bool) -> None:
    ladder, spent = begin("interrupt", jump, within_s, force=force), 0.0
    now = 0  # the clock was set back after the ladder began
    while (wait := wait_s(ladder, now)) is not None:
        spent += wait
        rung = climb(ladder, ladder.due_ms)
        assert rung is not None
        ladder = rung[0]
    assert spent <= 3 * 0.4 * within_s + 3


def test_a_clock_set_back_an_hour_keeps_no_rung_away() -> None:
    """Asked again and again, as the runner does, on a clock that was set back after the first rung."""
    first = climb(begin("interrupt", 3_600_000, 20.0), 3_600_000)
    assert first is not None
    ladder, sent, now = first[0], [first[1]], 0
    while now <= 20_000:
        ladder = anchored(ladder, now)
        rung = climb(ladder, now)
        if rung is not None:
            ladder = rung[0]
            sent.append(rung[1])
        now += 100
    assert sent == ["SIGINT", "SIGTERM", "SIGKILL"]
