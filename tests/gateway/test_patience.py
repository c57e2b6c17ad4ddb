"""Whoever is refused for asking too much is told to wait, however little is missing: "after 0 s" would be at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.config import Settings
from actors.gateway.limits import BURST_S, Limits
from actors.gateway.problems import problem
from actors.protocol.errors import HoldfastError

RATE = 10


@pytest.mark.parametrize("missing_s", [0.0999, 0.0004, 0.0000001])
def test_a_refusal_never_says_zero(tmp_path: Path, missing_s: float) -> None:
    now = 0.0
    limits = Limits(Settings(port=0, data_dir=tmp_path, limit_loopback=True, requests_per_s=RATE), lambda: now)
    for _ in range(round(RATE * BURST_S)):
        limits.request("who", "127.0.0.1")
    now = 1 / RATE - missing_s
    with pytest.raises(HoldfastError) as refused:
        limits.request("who", "127.0.0.1")
    assert refused.value.extra["retry_after_s"] >= missing_s
    assert problem(refused.value).headers["Retry-After"] == "1"
    now += refused.value.extra["retry_after_s"]
    limits.request("who", "127.0.0.1")
