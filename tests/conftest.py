"""What every suite shares: waiting with a deadline, a world with a clock that walks, and who may run beside whom.

With pytest-xdist (`-n 2 --dist loadgroup`, as CI does) each worker takes the next test when it has finished one, and
each has its own shared `up`. A test that is marked `alone` has the machine to itself: the other worker finishes the
test at hand and waits. For one that is marked `crowd` it waits as well, but what is `timeless` goes on in the time that
is left over (tests/idle.py). Without xdist all of this is nothing.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TypeVar

import pytest

from tests import idle
from tests.idle import (  # noqa: F401 - pytest finds its hooks here
    pytest_collection_finish,
    pytest_collection_modifyitems,
    pytest_configure,
    pytest_pyfunc_call,
    pytest_runtest_logreport,
    pytest_runtest_protocol,
)
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


@pytest.fixture(autouse=True)
def room(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Shared by all tests that run at a time, or held by one that is `alone`, or a `crowd`."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        yield
        return
    alone, crowd = (request.node.get_closest_marker(name) is not None for name in ("alone", "crowd"))
    shared_by_workers = tmp_path_factory.getbasetemp().parent
    with open(shared_by_workers / "turn.lock", "a") as turn, open(shared_by_workers / "room.lock", "a") as held:
        # Who wants the room alone waits for it inside the turnstile: nobody slips in before them for ever.
        fcntl.flock(turn, fcntl.LOCK_EX)
        fcntl.flock(held, fcntl.LOCK_EX if alone or crowd else fcntl.LOCK_SH)
        fcntl.flock(turn, fcntl.LOCK_UN)
        with idle.put_aside(request.config) if alone else nullcontext():
            yield
