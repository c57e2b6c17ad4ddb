"""docs/security.md and the metrics table of docs/operations.md say what there is, and all of it."""

from __future__ import annotations

import re
from pathlib import Path

from tests.docs.reading import text_of
from tests.docs.test_readme import names_of_tests
from tests.gateway.house import House
from tests.security.test_metrics import scrape

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_every_test_that_the_floor_names_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", text_of(DOCS / "security.md")))
    assert len(named) > 20 and sorted(named - names_of_tests()) == []


async def test_every_metric_is_documented_and_none_in_vain(house: House) -> None:
    wrapper = await house.running()
    await house.call("POST", "/v1/sessions/s/executions/e/fail", {"error": "x"})
    shown = {re.sub(r"_(bucket|count|sum|created)$", "", name) for name, _ in await scrape(house)}
    shown = {name for name in shown if name.startswith("holdfast_")}
    named = set(re.findall(r"`(holdfast_\w+)`", text_of(DOCS / "operations.md").partition("## Metrics")[2]))
    # only once something of the kind has happened, or once a reaper lives
    rare = {f"holdfast_{n}" for n in ("deadlines_fired_total", "interrupts_total", "refused_total")}
    rare |= {"holdfast_connections_cut_total", "holdfast_reaper_beat_age_seconds"}
    assert shown - named == set() and named - shown <= rare
    await wrapper.close()
