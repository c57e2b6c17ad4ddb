"""What will be done to whom, and when: a list made from a seed alone. Pure; the same seed is the same plan.

Every kind of the menu that the host allows comes at least once, then they are drawn by weight. Faults overlap as their
times fall. Those that take the whole head down are spread evenly: one outage behind the other would test nothing else.
"""

from __future__ import annotations

import random
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

SHORTEST_S, LONGEST_CI_S = 0.1, 15.0


@dataclass(frozen=True)
class Kind:
    weight: float
    target: str  # session, link, service, spools
    lasts: bool = False  # it has an end of its own making
    needs: str = ""  # what the host must be able to do
    head: bool = False  # takes Ray's head, or `up`, down
    longest_s: float = 1e9


MENU: Final[dict[str, Kind]] = {
    "latency": Kind(3, "link", lasts=True),
    "throttle": Kind(2, "link", lasts=True),
    "silence": Kind(4, "link", lasts=True),
    "reset": Kind(4, "link"),
    "double": Kind(3, "link", lasts=True),
    "wrapper_kill": Kind(6, "session"),
    "wrapper_upgrade": Kind(2, "session"),
    "wrapper_stop": Kind(4, "session", lasts=True),
    "rival": Kind(2, "session"),
    "agent_kill": Kind(2, "session"),
    "agent_stop": Kind(2, "session", lasts=True),
    "shim_kill": Kind(1, "session"),
    "shim_stop": Kind(1, "session", lasts=True),
    "gateway_kill": Kind(6, "service"),
    "gateway_stop": Kind(3, "service", lasts=True),
    "actor_kill": Kind(5, "session"),
    "actor_stop": Kind(3, "session", lasts=True),
    "reaper_kill": Kind(3, "service"),
    "reaper_stop": Kind(2, "service", lasts=True),
    "up_stop": Kind(1, "service", lasts=True),
    "raylet_kill": Kind(1, "service", head=True),
    "gcs_kill": Kind(1, "service", head=True),
    "up_kill": Kind(1, "service", head=True),
    "up_restart": Kind(1, "service", head=True),
    "service_disk_full": Kind(2, "service", lasts=True, needs="mount", longest_s=10.0),
    "spools_disk_full": Kind(2, "spools", lasts=True, needs="mount", longest_s=10.0),
    "gateway_fsync_eio": Kind(2, "service", lasts=True, needs="strace", longest_s=6.0),
    "wrapper_fsync_eio": Kind(2, "session", lasts=True, needs="strace", longest_s=6.0),
    "wrappers_clock": Kind(2, "wrappers", needs="clock"),
    "service_clock": Kind(2, "service", needs="service clock"),
}
HEADS: Final = [name for name, kind in MENU.items() if kind.head]


@dataclass(frozen=True)
class Fault:
    at: float  # seconds after the load began
    kind: str
    target: str
    seconds: float = 0.0
    more: tuple[tuple[str, Any], ...] = ()

    def get(self, name: str) -> Any:
        return dict(self.more)[name]

    def __str__(self) -> str:
        more = "".join(f" {k}={v}" for k, v in self.more)
        lasts = f" for {self.seconds:.1f} s" if self.seconds else ""
        return f"{self.at:7.2f}  {self.kind} of {self.target}{lasts}{more}"


def plan(
    seed: int,
    faults: int,
    within_s: float,
    sessions: Collection[str],
    links: Collection[str],
    able: Collection[str],
    *,
    longest_s: float = LONGEST_CI_S,
    heads: int = 4,
) -> list[Fault]:
    """``heads``: how many of the faults take the head down, at least one of each kind if it is four or more."""
    r = random.Random(f"plan {seed}")
    menu = {name: kind for name, kind in MENU.items() if not kind.needs or kind.needs in able}
    light = [name for name in menu if name not in HEADS]
    few = faults - heads
    drawn = light[:few] + r.choices(light, [menu[name].weight for name in light], k=max(0, few - len(light)))
    r.shuffle(drawn)
    times = sorted(r.uniform(0.0, within_s) for _ in drawn)
    made = [_fault(r, at, name, sessions, links, longest_s) for at, name in zip(times, drawn, strict=True)]
    order = [HEADS[i % len(HEADS)] for i in range(heads)]
    r.shuffle(order)
    for i, name in enumerate(order):
        at = within_s * (i + 0.5 + r.uniform(-0.2, 0.2)) / heads
        made.append(_fault(r, at, name, sessions, links, longest_s))
    return sorted(made, key=lambda fault: fault.at)


def _fault(
    r: random.Random, at: float, name: str, sessions: Collection[str], links: Collection[str], longest_s: float
) -> Fault:
    kind = MENU[name]
    pool = {"session": sorted(sessions), "link": sorted(links)}.get(kind.target, [kind.target])
    # Log-uniform: as many of tenths of a second as of tens; every limit of the service has faults on both sides of it.
    length = SHORTEST_S * (longest_s / SHORTEST_S) ** r.random()
    more: dict[str, Any] = {}
    if name == "latency":
        more["delay_s"] = round(r.uniform(0.02, 0.5), 3)
    elif name == "throttle":
        more["bytes_per_s"] = r.choice((500, 2_000, 20_000))
    elif name == "silence":
        more["then_cut"] = r.random() < 0.5
    elif name in ("wrapper_kill", "up_kill", "up_restart"):
        more["away_s"] = round(r.choice((0.0, 0.5, 3.0, 12.0)) * r.random(), 2)
    elif name.endswith("_clock"):
        more["step_s"] = r.choice((-7200, -90, -5, 5, 90, 7200))
    if kind.head:
        more["at_once"] = r.random() < 0.25  # or when the service stands again after the last fall
    if kind.needs in ("strace", "mount"):
        length = r.uniform(3.0, kind.longest_s)  # something must be synced in it, and the log outgrow the blocks it has
    seconds = round(min(length, kind.longest_s), 2) if kind.lasts else 0.0
    return Fault(round(at, 2), name, r.choice(pool), seconds, tuple(more.items()))
