"""The verdict: every rule asked, in order, over one court. Pure: the same history, the same verdict."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from actors.history import delivery, life, log, reaping
from actors.history.court import Anomaly, Court
from actors.history.reading import Observation

RULES: Final[tuple[Callable[[Court], None], ...]] = (*log.RULES, *delivery.RULES, *life.RULES, *reaping.RULES)


def check(observations: Iterable[Observation]) -> list[Anomaly]:
    """Every anomaly of the history; an empty list is a clean one."""
    court = Court(sorted(observations, key=lambda o: o.at))
    court.gather()
    for rule in RULES:
        rule(court)
    return court.found
