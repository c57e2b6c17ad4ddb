"""A store and a spool that came back from a power cut, opened by the real program and compared with what was told."""

from __future__ import annotations

import random
from copy import deepcopy
from pathlib import Path
from typing import Any

from actors.law.model import Policy
from actors.protocol.errors import StorageError
from actors.store.locks import library
from actors.store.schema import migrations
from actors.store.sqlite import SqliteStore
from tests.power.cuts import Knows, Verdict
from tests.power.dbapi import content
from tests.power.told import asked_again, broken_promises, differences
from tests.world import LIMITS

NOW_MS = 1_700_000_000_000 + 50 * 86_400_000 // 100  # after the walk, before retention or idempotency would matter


def judge_store(folder: Path, knows: Knows, rng: random.Random) -> Verdict:
    path, sqlite = folder / "holdfast.db", library()
    if rng.random() < 0.15:  # shared memory of before the cut: the kernel may have written it back
        path.with_name("holdfast.db-shm").write_bytes(rng.randbytes(32768))
    opened: list[Any] = []

    def connect(name: str, **how: Any) -> Any:
        opened.append(sqlite.connect(name, **how))
        return opened[-1]

    try:
        store = SqliteStore.open(path, Policy(limits=LIMITS), checkpoints=True, wall=lambda: NOW_MS, connect=connect)
    except StorageError as error:
        return Verdict(corrupt=True, wrong=(f"it does not open: {error}",))
    try:
        return _stored(store, opened[-1], knows, rng)
    except (StorageError, sqlite.Error) as error:
        return Verdict(corrupt=True, wrong=(f"it cannot be read: {error!r}",))
    finally:
        store.close()


def _stored(store: SqliteStore, c: Any, knows: Knows, rng: random.Random) -> Verdict:
    said = [row[0] for row in c.execute("pragma integrity_check(3)").fetchall()]
    if said != ["ok"]:
        return Verdict(corrupt=True, wrong=(f"integrity_check: {'; '.join(said)}",))
    found = content(c.execute)
    if not knows.ready:  # it was being made: then it is whole now, and empty
        wrong = [f"{name} has rows" for name in ("sessions", "events", "executions") if found[name][0]]
        if found["_sqlite_migrations"][0] != len(migrations._migrations):
            wrong.append(f"{found['_sqlite_migrations'][0]} of {len(migrations._migrations)} migrations were applied")
        return Verdict(wrong=tuple(wrong))
    allowed = [knows.stands] + ([knows.under_way] if knows.under_way is not None else [])
    wrong = differences(found, allowed)
    told = knows.told
    if knows.under_way is not None and found == knows.under_way and knows.facts_under_way:
        told = deepcopy(told)
        told.hear(knows.facts_under_way)
    lost, broken = broken_promises(store, told)
    wrong += broken
    if not wrong and rng.random() < 0.1:
        wrong += asked_again(store, told)
        store.tick("gw_1")  # and it lives on
    return Verdict(lost=lost, wrong=tuple(wrong))
