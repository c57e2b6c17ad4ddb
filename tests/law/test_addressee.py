"""Whose mailbox a request goes to. A deadline has a subject of its own, and it must not be taken for that."""

from __future__ import annotations

from actors.law.sweeps import sweep_of
from actors.protocol.ids import ulid


def test_a_sweep_goes_to_whom_the_deadline_is_of_and_not_to_what_it_is_about() -> None:
    assert sweep_of("s", "stale", "e1", ulid()).addressee == "s"
    assert sweep_of("node/arm", "invocation", "inv_1", ulid()).addressee == "node/arm"
