"""Cuts the power at every write and every sync of a recorded life, and has what is left of the disk judged.

One recording serves many cuts. The disk is played forward; before each thing that it does, images are made of what
may survive there, and each is put into a fresh folder and opened by the real program, with SQLite's own library
underneath and none of ours.
"""

from __future__ import annotations

import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tests.power.dbapi import Hashes
from tests.power.disk import (
    EVERY_HOW,
    Disk,
    Drop,
    Entry,
    How,
    Image,
    Make,
    MakeDir,
    Mark,
    Move,
    Resize,
    Sync,
    SyncDir,
    Write,
)
from tests.power.told import Fact, Told

SHOWN = 5  # failing cuts that are kept in full


class Hearer(Protocol):
    def hear(self, facts: list[Fact]) -> None: ...


@dataclass(slots=True)
class Knows:
    """What the program had said when the power went."""

    ready: bool = False
    stands: Hashes = field(default_factory=dict)  # content after the last commit that returned
    under_way: Hashes | None = None  # and of the one that had not returned yet
    told: Hearer = field(default_factory=Told)
    facts_under_way: list[Fact] = field(default_factory=list)  # will be told next, if that one survived
    commits: int = 0
    held: set[str] = field(default_factory=set)  # tables that had rows at some time

    def hear(self, mark: Mark) -> None:
        match mark.kind:
            case "ready":
                self.ready, self.stands = True, mark.value
            case "committing":
                self.under_way = mark.value
                self.held |= {name for name, (rows, _) in mark.value.items() if rows}
            case "committed":
                assert self.under_way is not None
                self.stands, self.under_way = self.under_way, None
                self.commits += 1
            case "told":
                self.told.hear(mark.value)


@dataclass(frozen=True, slots=True)
class Verdict:
    lost: int = 0  # acknowledged things that are not there
    wrong: tuple[str, ...] = ()
    corrupt: bool = False


class Judge(Protocol):
    def __call__(self, folder: Path, knows: Knows, rng: random.Random) -> Verdict: ...


@dataclass(frozen=True, slots=True)
class Failure:
    seed: int
    at: int
    before: str
    how: str
    story: tuple[str, ...]
    wrong: tuple[str, ...]

    def __str__(self) -> str:
        said = [f"cut {self.seed}:{self.at}: power lost before {self.before}; of the unsynced writes: {self.how}"]
        said += [f"  survived  {line}" for line in self.story]
        said += [f"  WRONG     {line}" for line in self.wrong]
        return "\n".join(said)


@dataclass(slots=True)
class Report:
    cuts: int = 0
    lost: int = 0
    corrupt: int = 0
    wrong: int = 0  # cuts with anything wrong at all
    points: int = 0  # places that were cut
    places: int = 0  # that there are
    commits: int = 0
    held: set[str] = field(default_factory=set)
    kinds: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)

    def add(self, other: Report) -> None:
        for name in ("cuts", "lost", "corrupt", "wrong", "points", "places", "commits"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.held |= other.held
        self.kinds.update(other.kinds)
        self.failures = (self.failures + other.failures)[:SHOWN]

    def __str__(self) -> str:
        kinds = ", ".join(f"{n} before a {kind}" for kind, n in sorted(self.kinds.items()))
        return (
            f"{self.cuts} cuts at {self.points} places ({kinds}) over {self.commits} commits: "
            f"{self.lost} acknowledged lost, {self.corrupt} corrupt, {self.wrong} wrong"
        )


def weight(op: Entry | None) -> int:
    """How often it is cut there, compared with a write: where order is made, there is more to go wrong."""
    return 1 if isinstance(op, Write) else 4


def places(log: Sequence[Entry]) -> int:
    """Entries that do something to the disk; and the end."""
    return sum(not isinstance(op, Mark) for op in log) + 1


def enough(log: Sequence[Entry]) -> int:
    """So many cuts reach every place."""
    return sum(weight(op) for op in log if not isinstance(op, Mark)) + weight(None)


def cut_everywhere(
    first: dict[str, bytes],
    log: Sequence[Entry],
    judge: Judge,
    *,
    seed: int,
    cuts: int,
    knows: Knows | None = None,
    only: int | None = None,
    progress: Callable[[Report], None] = lambda report: None,
) -> Report:
    """About `cuts` cuts (at least `enough(log)` reach every place), chosen by `seed`.

    knows: what was known when the recording began. only: just the cuts at this entry, with the same choices.
    """
    report, disk, knows = Report(), Disk(first), deepcopy(knows or Knows())
    share = cuts / enough(log)
    base = "/dev/shm" if Path("/dev/shm").is_dir() else None
    root = Path(tempfile.mkdtemp(prefix="power-", dir=base))
    try:
        for at, op in [*enumerate(log), (len(log), None)]:
            if isinstance(op, Mark):
                knows.hear(op)
                continue
            rng = random.Random(f"{seed} {at}")
            n = int(share * weight(op)) + (rng.random() < share * weight(op) % 1)
            if n:
                report.points += 1
                knows.facts_under_way = _next_facts(log, at) if knows.under_way is not None else []
            for how in hows(rng, n) if only in (None, at) else ():
                kind = type(op).__name__.lower() if op else "end"
                image = disk.cut(how, rng)
                verdict = _judged(root, image, judge, knows, rng)
                report.cuts += 1
                report.kinds[kind] += 1
                report.lost += verdict.lost
                report.corrupt += verdict.corrupt
                if verdict.wrong:
                    report.wrong += 1
                    if len(report.failures) < SHOWN:
                        report.failures.append(
                            Failure(seed, at, _named(op, disk), how, tuple(image.story), verdict.wrong)
                        )
                if report.cuts % 500 == 0:
                    progress(report)
            if op is not None:
                disk.do(op)
    finally:
        shutil.rmtree(root)
    report.commits, report.places, report.held = knows.commits, places(log), knows.held
    return report


def image_at(
    first: dict[str, bytes], log: Sequence[Entry], at: int, how: How, seed: int, knows: Knows | None = None
) -> tuple[Image, Knows]:
    """One image, to live on from."""
    disk, knows = Disk(first), deepcopy(knows or Knows())
    for op in log[:at]:
        disk.do(op)
        if isinstance(op, Mark):
            knows.hear(op)
    knows.facts_under_way = _next_facts(log, at) if knows.under_way is not None else []
    return disk.cut(how, random.Random(seed)), knows


def hows(rng: random.Random, n: int) -> Iterator[How]:
    """Different ones first."""
    while n > 0:
        yield from rng.sample(EVERY_HOW, min(n, len(EVERY_HOW)))
        n -= len(EVERY_HOW)


def _judged(root: Path, image: Image, judge: Judge, knows: Knows, rng: random.Random) -> Verdict:
    folder = Path(tempfile.mkdtemp(dir=root))
    try:
        image.put(folder)
        return judge(folder, knows, rng)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _next_facts(log: Sequence[Entry], at: int) -> list[Fact]:
    for op in log[at:]:
        if isinstance(op, Mark) and op.kind == "told":
            return list(op.value)
        if isinstance(op, Mark) and op.kind == "committing":
            return []  # this commit is told of together with the next
    return []


def _named(op: Entry | None, disk: Disk) -> str:
    names = {number: name for name, number in disk.names.items()}
    names |= {change.file: change.name for change in disk.renamed if isinstance(change, Make)}
    match op:
        case Write(file, where, data):
            return f"write of {len(data)} bytes to {names.get(file)} at {where}"
        case Resize(file, size):
            return f"truncation of {names.get(file)} to {size}"
        case Sync(file):
            return f"sync of {names.get(file)}"
        case Make(name) | Drop(name) | MakeDir(name):
            return f"{type(op).__name__.lower()} of {name}"
        case Move(name, to):
            return f"move of {name} to {to}"
        case SyncDir(name):
            return f"sync of the directory {name or '.'}"
        case _:
            return "the end"
