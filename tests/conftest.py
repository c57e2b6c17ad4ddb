"""What every suite shares: waiting with a deadline, a world with a clock that walks, and who may run beside whom.

With pytest-xdist (`-n 2 --dist loadgroup`, as CI does) each worker takes the next test when it has finished one, and
each has its own shared `up`. A test that is marked `alone` has the machine to itself: the other worker finishes the
test at hand and waits. Beside one that is `loud` (it fills the machine, but judges no time) run only those that are
`pure`: one process that computes and has no deadline but its last. Without xdist all of this is nothing.
"""

from __future__ import annotations

import contextlib
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
    """Who wants the machine alone comes first: one behind the other they wait for nobody's half-done test. Then the
    loud ones, and behind them those who may run beside them."""
    items.sort(key=lambda item: ORDER.index(_kind(item)))


ORDER = ("alone", "loud", "pure", "")


def _kind(item: pytest.Item) -> str:
    return next((kind for kind in ORDER[:-1] if item.get_closest_marker(kind) is not None), "")


@pytest.fixture(autouse=True)
def room(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The room is shared by all tests that run at a time, or held by one that is `alone`; its quiet by all but the
    pure ones, or held by one that is `loud`."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        yield
        return
    kind = _kind(request.node)
    shared_by_workers = tmp_path_factory.getbasetemp().parent
    with contextlib.ExitStack() as stack:
        turn, whole, quiet = (
            stack.enter_context(open(shared_by_workers / f"{name}.lock", "a")) for name in ("turn", "room", "quiet")
        )
        # Who wants something alone waits for it inside the turnstile: nobody slips in before them for ever.
        fcntl.flock(turn, fcntl.LOCK_EX)
        fcntl.flock(whole, fcntl.LOCK_EX if kind == "alone" else fcntl.LOCK_SH)
        if kind != "pure":
            fcntl.flock(quiet, fcntl.LOCK_EX if kind == "loud" else fcntl.LOCK_SH)
        fcntl.flock(turn, fcntl.LOCK_UN)
        yield
