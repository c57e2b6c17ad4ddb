"""Yardsticks of the disk: raw SQLite with the same rows in the same batches, and a bare fdatasync."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

from actors.store.locks import library


def fdatasync_ms(folder: Path, n: int = 800, per_s: float = 400.0) -> tuple[float, float]:
    """Milliseconds of a 4 KiB append and its fdatasync, `per_s` of them a second: p50 and p99."""
    took = []
    due = time.perf_counter()
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        for _ in range(n):
            due += 1 / per_s
            time.sleep(max(0.0, due - time.perf_counter()))
            file.write(b"x" * 4096)
            file.flush()
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            took.append((time.perf_counter() - began) * 1000)
    took.sort()
    return took[n // 2], took[n * 99 // 100]


def sqlite_rows_per_s(folder: Path, batch: int, seconds: float = 2.0) -> float:
    """Rows per second with executemany, one transaction and one fsync per batch, synchronous=FULL."""
    sqlite = library()
    path = folder / "raw.db"
    path.unlink(missing_ok=True)
    db = sqlite.connect(str(path), isolation_level=None)
    db.execute("pragma journal_mode = wal")
    db.execute("pragma synchronous = full")
    db.execute(
        "create table events (session_id text, seq integer, execution_id text, exec_seq integer, type text, "
        "ts_ms integer, stored_at_ms integer, data text, primary key (session_id, seq)) without rowid"
    )
    data, seq, began = '{"stream":"stdout","text":"0123456789012345678901234567890123456789"}', 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        rows = [(f"s{(seq + i) % 50}", seq + i, "e1", seq + i, "output", 1, 1, data) for i in range(batch)]
        db.execute("begin immediate")
        db.executemany("insert into events values (?, ?, ?, ?, ?, ?, ?, ?)", rows)
        db.execute("commit")
        seq += batch
    rate = seq / (time.perf_counter() - began)
    db.close()
    path.unlink()
    return rate
