"""Answers of a group are told one by one, on the loop: what one of them does wrong is not the others' affair."""

from __future__ import annotations

from typing import Any

from actors.store.worker import StoreWorker
from tests.world import World


def test_an_answer_that_is_handled_badly_keeps_no_other_from_being_told(world: World) -> None:
    worker = StoreWorker(world.another_process, on_broken=lambda error: None)
    told: list[Any] = []
    worker.after_group = lambda: told.append("after")

    def bad(result: Any) -> None:
        raise AttributeError(f"a bug in the handling of {result}")

    worker._tell([(told.append, 1), (bad, 2), (told.append, 3)])
    assert told == [1, 3, "after"]
