"""What a seed decides before anything runs: who asks what, and which faults fall when. Everything else (latencies, the
agent's script, which of several processes is hit) is drawn while it runs, from the same seed.

A plan is a list of happenings, so that a failing one can be made smaller by leaving some out.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from tests.simulation.kernel import US


@dataclass(frozen=True, slots=True)
class Happening:
    at_us: int
    kind: str
    pick: float  # which of those that it could befall
    size: float  # how long, how much, how deep

    def __str__(self) -> str:
        return f"{self.at_us / US:9.3f} s  {self.kind} ({self.pick:.3f}, {self.size:.3f})"


@dataclass(frozen=True, slots=True)
class Odds:
    """What differs between worlds, and not within one."""

    sessions: int = 2
    second_wrapper: float = 0.5
    shim_start_fails: float = 0.0
    hung: bool = False
    max_runtime: bool = False
    small_spool: bool = False
    stale_only: bool = False
    actors: bool = True


@dataclass(frozen=True, slots=True)
class Plan:
    seed: int
    odds: Odds
    happenings: tuple[Happening, ...]


ASKED = (
    ("submit", 26),
    ("interrupt", 7),
    ("interrupt_named", 5),
    ("force", 3),
    ("fail", 2),
    ("input", 3),
    ("approve", 6),
    ("watch", 6),
    ("delete", 0.4),
)
FAULTS = (
    ("crash_wrapper", 7),
    ("crash_wrapper_at_turn", 7),
    ("stop_wrapper", 2),
    ("crash_gateway", 3),
    ("crash_gateway_at_turn", 4),
    ("crash_gateway_at_commit", 4),
    ("crash_actor", 3),
    ("crash_actor_at_turn", 2),
    ("crash_actor_at_commit", 3),
    ("crash_reaper", 2),
    ("crash_reaper_at_commit", 2),
    ("crash_everything", 1),
    ("freeze_wrapper", 4),
    ("freeze_gateway", 2),
    ("zombie_gateway", 3),
    ("freeze_actor", 3),
    ("freeze_reaper", 2),
    ("second_actor", 3),
    ("second_wrapper", 6),
    ("cut", 9),
    ("half_open", 5),
    ("ghost", 5),
    ("hold_up", 4),
    ("hold_down", 4),
    ("lose_up", 4),
    ("lose_down", 2),
    ("double_up", 5),
    ("wall_jump", 3),
    ("host_wall_jump", 2),
    ("busy", 4),
    ("full", 5),
    ("slow_disk", 6),
    ("reads_fail", 2),
    ("spool_full", 2),
    ("kill_shim", 2),
    ("kill_agent", 2),
    ("slow_watcher", 3),
    ("cut_watcher", 4),
)
RARE = ("store_backup", "store_restore", "spool_backup", "spool_restore")


def make(seed: int) -> Plan:
    rng = random.Random(f"plan {seed}")
    odds = Odds(
        sessions=rng.choice((1, 1, 2, 2, 3)),
        second_wrapper=rng.choice((0.0, 0.5, 1.0)),
        shim_start_fails=rng.choice((0.0, 0.0, 0.2)),
        hung=rng.random() < 0.25,
        max_runtime=rng.random() < 0.25,
        small_spool=rng.random() < 0.2,
        stale_only=rng.random() < 0.2,
        actors=rng.random() < 0.7,
    )
    found: list[Happening] = []

    def add(at: float, kind: str) -> None:
        found.append(Happening(int(at * US), kind, rng.random(), rng.random()))

    at = 0.2
    for _ in range(odds.sessions):
        add(at, "submit")
        add(at + 0.1, "watch")
        at += 0.05
    horizon = 45.0
    at, every = 0.5, rng.choice((0.8, 1.5, 2.5))
    while at < horizon:
        at += rng.expovariate(1 / every)
        add(at, _one(rng, ASKED))
    at, every = rng.random() * 2, rng.choice((0.2, 0.4, 0.8, 1.5, 4.0))
    liked = rng.sample([kind for kind, _ in FAULTS], rng.randint(4, len(FAULTS)))  # some worlds know few faults, often
    kinds = tuple((kind, weight) for kind, weight in FAULTS if kind in liked)
    while at < horizon:
        at += rng.expovariate(1 / every)
        add(at, _one(rng, kinds))
    if rng.random() < 0.05:
        when = rng.random() * 10
        add(when, "store_backup")
        add(when + rng.random() * 8, "store_restore")
    if rng.random() < 0.08:
        when = rng.random() * 10
        add(when, "spool_backup")
        add(when + rng.random() * 8, "spool_restore")
    return Plan(seed, odds, tuple(sorted(found, key=lambda h: h.at_us)))


def _one(rng: random.Random, weighted: tuple[tuple[str, float], ...]) -> str:
    return rng.choices([kind for kind, _ in weighted], [weight for _, weight in weighted])[0]
