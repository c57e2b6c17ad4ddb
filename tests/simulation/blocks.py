"""Blocks of seeds, one seed after the other. A module of its own: a spawned process never imports a `__main__`."""

from __future__ import annotations

import gc
from collections.abc import Iterator

from tests.simulation import plan
from tests.simulation.run import STEPS, run


def block(first: int, end: int, steps: int = STEPS) -> Iterator[tuple[int, int, str | None]]:
    """(seed, its steps, what is wrong with it) of each seed."""
    for seed in range(first, end):
        result = run(plan.make(seed), steps=steps)
        yield seed, result.steps, None if result.violation is None else str(result.violation)
        if seed % 10 == 9:
            gc.collect()


def whole(part: tuple[int, int, int]) -> list[tuple[int, int, str | None]]:
    """A block at once, for a pool of processes."""
    return list(block(*part))
