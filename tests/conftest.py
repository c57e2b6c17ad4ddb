"""What every suite shares: a waiting helper with a deadline, and a world with a clock that walks."""

from __future__ import annotations

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
