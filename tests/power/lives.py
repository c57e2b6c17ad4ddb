"""Lives of a store and of a spool, one after another on the same disk: each but the first begins where a power cut
ended the one before, and each is cut at every place."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from actors.store.locks import library
from tests.power import spooling, storing
from tests.power.cuts import Judge, Knows, Report, cut_everywhere, enough, image_at
from tests.power.dbapi import content
from tests.power.disk import EVERY_HOW, Mark
from tests.power.judging import judge_store
from tests.power.told import Told
from tests.power.vfs import Scribe


@dataclass(frozen=True, slots=True)
class Kind:
    """What lives: how it is recorded, what it can promise, who judges it."""

    name: str
    file: str
    record: Callable[..., Scribe]
    judge: Judge
    promises: Callable[[], Any]
    steps: int  # of one life, for CI


STORE = Kind("store", "holdfast.db", storing.record, judge_store, Told, 100)
SPOOL = Kind("spool", "spool.db", spooling.record, spooling.judge_spool, spooling.Promised, 60)
TRIMMED = Kind("trim", "spool.db", partial(spooling.record, policy="trim"), spooling.judge_spool, spooling.Promised, 60)


KINDS = {kind.name: kind for kind in (STORE, SPOOL, TRIMMED)}


def live(
    kind: Kind,
    seed: int,
    *,
    lives: int,
    cuts: int | None = None,
    steps: int | None = None,
    only: tuple[int, int] | None = None,
    progress: Callable[[Report], None] = lambda report: None,
    **controls: Any,
) -> Report:
    """`cuts` per life; None: just so many that every place is reached. only: (life, place), to look at it again.

    Returns the sum over all lives.
    """
    total, files, knows = Report(), dict[str, bytes](), Knows(told=kind.promises())
    for nth in range(lives):
        folder = _folder(files)
        try:
            scribe = kind.record(folder, seed * 1000 + nth, steps or kind.steps, **controls)
        finally:
            shutil.rmtree(folder)
        wanted = enough(scribe.log) if cuts is None else cuts
        total.add(
            cut_everywhere(
                files, scribe.log, kind.judge, seed=seed * 1000 + nth, cuts=wanted, knows=knows,
                only=None if only is None else only[1] if only[0] == nth else -1, progress=progress,
            )
        )  # fmt: skip
        if nth + 1 < lives:
            files, knows = _next(kind, files, scribe, knows, seed * 1000 + nth)
    return total


def _next(kind: Kind, first: dict[str, bytes], scribe: Scribe, knows: Knows, seed: int) -> tuple[Any, Knows]:
    """Somewhere in the second half of this life the power goes; and what is known of what is left."""
    rng = random.Random(seed)
    places = [i for i, op in enumerate(scribe.log) if not isinstance(op, Mark) and i > len(scribe.log) // 2]
    image, knew = image_at(first, scribe.log, rng.choice(places), rng.choice(EVERY_HOW), seed, knows)
    folder = _folder(image.files)
    try:
        c = library().connect(str(folder / kind.file))
        found = content(c.execute)
        c.close()
    finally:
        shutil.rmtree(folder)
    told = deepcopy(knew.told)
    if found == knew.under_way:
        told.hear(knew.facts_under_way)
    return image.files, Knows(ready=True, stands=found, told=told)


def _folder(files: dict[str, bytes]) -> Path:
    base = "/dev/shm" if Path("/dev/shm").is_dir() else None
    folder = Path(tempfile.mkdtemp(prefix="power-", dir=base))
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder
