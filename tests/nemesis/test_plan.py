"""A plan is a function of its seed: complete, within its bounds, and the same again tomorrow."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest

from tests.nemesis.faults import Nemesis
from tests.nemesis.plan import HEADS, MENU, SHORTEST_S, Fault, plan

SESSIONS, LINKS = ["s0", "s1", "s2"], ["s0", "s1", "s2", "watchers"]
ALL = {"mount", "strace", "clock", "service clock"}


def made(seed: int, faults: int = 70, able: set[str] = ALL, **more: float) -> list[Fault]:
    return plan(seed, faults, 100.0, SESSIONS, LINKS, able, **more)  # type: ignore[arg-type]


def test_a_seed_is_a_plan() -> None:
    assert made(7) == made(7)
    assert made(7) != made(8)
    assert [str(fault) for fault in made(7)] == [str(fault) for fault in made(7)]


@pytest.mark.parametrize("seed", range(20))
def test_every_kind_comes_and_every_bound_holds(seed: int) -> None:
    faults = made(seed)
    counted = Counter(fault.kind for fault in faults)
    assert len(faults) == 70 and set(counted) == set(MENU)
    assert sum(counted[name] for name in HEADS) == 4
    assert faults == sorted(faults, key=lambda fault: fault.at)
    for fault in faults:
        kind = MENU[fault.kind]
        assert 0.0 <= fault.at <= 100.0
        assert (fault.seconds > 0) == kind.lasts
        assert not kind.lasts or SHORTEST_S <= fault.seconds <= min(15.0, kind.longest_s)
        assert fault.target in {"session": SESSIONS, "link": LINKS}.get(kind.target, [kind.target])


def test_what_the_host_cannot_do_is_not_planned() -> None:
    kinds = {fault.kind for fault in made(3, able=set())}
    assert kinds == {name for name, kind in MENU.items() if not kind.needs}


def test_a_long_plan_has_long_faults_and_its_heads_apart() -> None:
    faults = made(5, 2000, longest_s=120.0, heads=40)
    assert max(fault.seconds for fault in faults) > 100
    heads = [fault.at for fault in faults if MENU[fault.kind].head]
    assert len(heads) == 40
    assert min(b - a for a, b in itertools.pairwise(heads)) >= 0.5 * 100.0 / 40


def test_the_nemesis_can_do_everything_on_the_menu() -> None:
    assert [name for name in MENU if not hasattr(Nemesis, f"_{name}")] == []
