"""What every suite shares: waiting with a deadline, a world with a clock that walks, and who may run beside whom.

With pytest-xdist (`-n 2 --dist loadgroup`, as CI does) each worker takes the next test when it has finished one, and
each has its own shared `up`. A test that is marked `alone` has the machine to itself: the other worker finishes the
test at hand and waits. Without xdist all of this is nothing.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from tests.world import World

T = TypeVar("T")


def eventually(fact: Callable[[], T], within: float = 10.0, *, every: float = 0.02, what: str = "") -> T:
    """Polls until the fact is true (truthy) and returns it. Errors: AssertionError with the last value."""
    end = time.monotonic() + within
    while True:
        value = fact()
        if value:
            return value
        assert time.monotonic() < end, f"not within {within} s: {what or fact} (last: {value!r})"
        time.sleep(every)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


# ---------------------------------------------------------------- several workers on one machine


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Who wants the machine alone comes first: one behind the other they wait for nobody's half-done test."""
    items.sort(key=lambda item: item.get_closest_marker("alone") is None)


@pytest.fixture(autouse=True)
def room(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Shared by all tests that run at a time, or held by one that is `alone`."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        yield
        return
    alone = request.node.get_closest_marker("alone") is not None
    shared_by_workers = tmp_path_factory.getbasetemp().parent
    with open(shared_by_workers / "turn.lock", "a") as turn, open(shared_by_workers / "room.lock", "a") as held:
        # Who wants the room alone waits for it inside the turnstile: nobody slips in before them for ever.
        fcntl.flock(turn, fcntl.LOCK_EX)
        fcntl.flock(held, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(turn, fcntl.LOCK_UN)
        yield
