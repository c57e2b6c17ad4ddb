"""As the service opens it, each commit of the store is a sync (DESIGN §4)."""

from __future__ import annotations

from pathlib import Path

from actors.law.model import Policy
from actors.store.sqlite import SqliteStore
from tests.world import LIMITS

FULL = 2  # https://sqlite.org/pragma.html#pragma_synchronous


def test_every_commit_of_the_store_is_on_the_disk(tmp_path: Path) -> None:
    """The gateway's writer (which checkpoints) and everybody else."""
    for checkpoints in (True, False):
        store = SqliteStore.open(tmp_path / "holdfast.db", Policy(LIMITS), checkpoints=checkpoints)
        assert store._c.execute("pragma synchronous").fetchone()[0] == FULL
        assert store._c.execute("pragma journal_mode").fetchone()[0] == "wal"
        store.close()
