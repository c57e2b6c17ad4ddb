"""When to come back after a connection was lost, if at all. Pure: `now` and the jitter are passed in.

One rule for everything that keeps a connection to Holdfast: the close table says whether; the pause doubles up to its
cap and begins anew after a connection that held for BACKOFF_RESET_S; a server may ask for patience, not for absence.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from actors.protocol.codes import CLOSE, CLOSE_CODES, may_reconnect
from actors.protocol.defaults import BACKOFF_RESET_S, BACKOFF_S

RETRY_AFTER_MAX_S: Final = 300.0
_RETRY_AFTER = re.compile(r"retry_after_s\D{0,4}(\d{1,6}(?:\.\d{1,3})?)")


class Backoff:
    def __init__(self, backoff_s: Sequence[float] = BACKOFF_S, jitter: Sequence[float] | None = None) -> None:
        """``jitter``: factors around 1, used in turn; randomness is the caller's."""
        self._backoff_s, self._jitter = tuple(backoff_s), tuple(jitter or (1.0,))
        self._losses = 0
        self._live_since: float | None = None

    def on_live(self, now: float) -> None:
        self._live_since = now

    def on_close(self, code: int | None, reason: str, now: float) -> float | None:
        """Seconds to wait; None: do not come back.

        4009 names a later attempt of the caller's own instance. Whoever makes one attempt at a time asks here about
        its latest, so that later one is gone, if it ever was: come back with a greater number.
        """
        if not may_reconnect(code) and code != CLOSE["fenced"]:
            return None
        if self._live_since is not None and now - self._live_since >= BACKOFF_RESET_S:
            self._losses = 0
        self._live_since = None
        pause = self._backoff_s[min(self._losses, len(self._backoff_s) - 1)]
        pause *= self._jitter[self._losses % len(self._jitter)]
        self._losses += 1
        row = CLOSE_CODES.get(code) if code is not None else None
        if row is not None and row.reconnect == "later":
            pause = max(pause, _retry_after_s(reason))
        return pause


def _retry_after_s(reason: str) -> float:
    """`{"retry_after_s":5}` or `retry_after_s=5`: whichever way the reason says it."""
    found = _RETRY_AFTER.search(reason)
    return min(float(found.group(1)), RETRY_AFTER_MAX_S) if found else 0.0
