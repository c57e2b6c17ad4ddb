"""A failing run as a readable conversation, as short as it can be made in the time given.

`<` came from the gateway, `>` went to it, `=` is what stands in the store, `!` befell somebody, `.` is what a wrapper
says of itself, `*` is life and death.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace

from tests.simulation.kernel import US, Violation
from tests.simulation.plan import Happening, Plan
from tests.simulation.run import Result, run

WIDTH = 170
TAIL_LINES = 400  # of a story; what came before them is counted


@dataclass
class Small:
    plan: Plan
    violation: Violation
    tries: int


def shrink(plan: Plan, failed: Result, steps: int, within_s: float) -> Small:
    """Leaves happenings out, many at a time and then one by one, while the same guarantee still breaks."""
    assert failed.violation is not None
    until, tries = time.monotonic() + within_s, 0
    best, violation = list(plan.happenings), failed.violation

    def fails(tried: list[Happening]) -> Violation | None:
        nonlocal tries
        tries += 1
        found = run(replace(plan, happenings=tuple(tried)), steps=steps).violation
        return found if found is not None and found.guarantee == failed.violation.guarantee else None  # type: ignore[union-attr]

    late = [h for h in best if h.at_us <= failed.virtual_s * US]
    if len(late) < len(best) and (found := fails(late)) is not None:
        best, violation = late, found
    size = max(1, len(best) // 2)
    while time.monotonic() < until:
        at, cut = 0, False
        while at < len(best) and time.monotonic() < until:
            tried = best[:at] + best[at + size :]
            if (found := fails(tried)) is not None:
                best, violation, cut = tried, found, True
            else:
                at += size
        if size == 1 and not cut:
            break
        size = max(1, size // 2)
    return Small(replace(plan, happenings=tuple(best)), violation, tries)


def told(result: Result) -> str:
    lines = [f"seed {result.plan.seed}  {result.plan.odds}"]
    found = [line for line in result.story if '"type":"heartbeat"' not in line[2]]
    if len(found) > TAIL_LINES:
        lines.append(f"… {len(found) - TAIL_LINES} lines before")
        found = found[-TAIL_LINES:]
    lines += [f"{at / US:10.4f}  {who:<12} {_short(what)}" for at, who, what in found]
    return "\n".join(lines)


def _short(what: str) -> str:
    """A frame by its type and what matters of it; anything else as it is."""
    sign, _, rest = what.partition(" ")
    if sign in "<>" and rest.startswith("{"):
        try:
            frame = json.loads(rest)
        except ValueError:
            return what[:WIDTH]
        kind = frame.pop("type")
        for dull in ("client", "limits", "heartbeat_interval_s", "max_frame_bytes", "window_bytes", "server_time_ms"):
            frame.pop(dull, None)
        if kind == "events":
            events = frame.pop("events")
            frame["events"] = " ".join(f"{e['type']}{e['data'].get('n', '')}" for e in events)
        words = " ".join(f"{key}={_word(value)}" for key, value in frame.items() if value is not None)
        what = f"{sign} {kind} {words}"
    return what[:WIDTH]


def _word(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
