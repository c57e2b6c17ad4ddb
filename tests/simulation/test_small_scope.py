"""All interleavings of the small scope, and that the explorer can find what is wrong."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from actors.law import effects as fx
from tests.simulation import smallscope
from tests.simulation.kernel import Violation
from tests.simulation.smallscope import SCOPES, Explorer, Scope, SmallStore

pytestmark = pytest.mark.pure


@pytest.mark.timeout(900)  # seconds alone; on a machine that is shared by many, minutes
@pytest.mark.parametrize("scope", SCOPES, ids=lambda s: f"{s.deadline}, {1 + s.other} wrappers, {s.faults} faults")
def test_every_interleaving_keeps_every_guarantee(scope: Scope) -> None:
    found = Explorer(scope).explore()
    print(f"{scope}: {found}")
    assert found.states > 1000 and found.transitions > found.states and found.paths > 100_000


class NoGrace(SmallStore):
    """The deadline of grace is not written."""

    def _do(self, sid: str, view: Any, effect: Any) -> None:
        if not (isinstance(effect, fx.Arm) and effect.kind == "grace"):
            super()._do(sid, view, effect)


class NoFence(SmallStore):
    """Any connection may append."""

    def append_in_transaction(self, item: Any, wall_ms: int, service_ms: int) -> Any:
        row = self._c.execute("select connection_epoch from sessions").fetchone()
        return super().append_in_transaction(replace(item, epoch=row[0]), wall_ms, service_ms)


@pytest.mark.parametrize(("made", "other", "guarantee"), [(NoGrace, True, "G12"), (NoFence, False, "G6")])
def test_a_planted_bug_is_found_with_the_way_that_leads_to_it(
    made: type[SmallStore], other: bool, guarantee: str
) -> None:
    with pytest.raises(Violation) as found:
        Explorer(Scope("grace", other, faults=1), made).explore()
    Violation.made.clear()
    assert found.value.guarantee == guarantee
    assert "connect" in str(found.value)


def test_a_seed_names_a_request_whatever_way_led_to_it() -> None:
    assert smallscope.seed("connect 0") == smallscope.seed("connect 0") != smallscope.seed("connect 1")
