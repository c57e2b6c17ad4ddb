"""A copy of the live file, and what has to be different in one that comes back. SQL only; files are actors/backup.py.

The copy is one snapshot: the reader holds it from the first page to the last, because a step-wise copy begins anew
whenever somebody else commits, and here somebody commits every second. In WAL mode a reader blocks no writer; only the
write-ahead log cannot be reused meanwhile, and grows by what is written during the copy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actors.law.audit import Act
from actors.law.model import Policy
from actors.law.requests import Restored
from actors.protocol.errors import StorageBroken
from actors.protocol.ids import ulid
from actors.store.locks import library, translate
from actors.store.sqlite import SqliteStore, now_ms

PAGES = 512  # per step, 2 MiB: between steps the process can be interrupted, and says how far it is
EPOCHS_AHEAD = (
    1_000_000_000  # more connects than happen between a backup and its restore; below 2^53 for a million restores
)
SESSIONS_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Copied:
    bytes: int
    sessions: int
    taken_at_ms: int


def copy(source: Path, target: Path, progress: Callable[[int, int], None] = lambda done, total: None) -> Copied:
    """Writes `target` (which must not exist), checked, one plain file. Blocks nobody.

    Errors: StorageUnavailable (disk full, locked), StorageBroken (the copy is not sound), FileNotFoundError.
    """
    if not source.is_file():
        raise FileNotFoundError(source)
    sqlite = library()
    live = sqlite.connect(f"{source.absolute().as_uri()}?mode=rw", uri=True, timeout=5, isolation_level=None)
    made = sqlite.connect(str(target), timeout=5, isolation_level=None)
    try:
        live.execute("pragma wal_autocheckpoint = 0")  # only the gateway checkpoints
        made.execute("pragma synchronous = OFF")  # one fsync at the end
        live.execute("begin")
        taken_at_ms = now_ms()
        sessions = live.execute("select count(*) from sessions where deleted_at_ms is null").fetchone()[0]
        live.backup(made, pages=PAGES, progress=lambda _, left, total: progress(total - left, total), sleep=0)
        live.execute("rollback")
        made.execute("pragma journal_mode = delete")
        check(made)
        size = made.execute("select page_count * page_size from pragma_page_count, pragma_page_size").fetchone()[0]
    except sqlite.Error as error:
        raise translate(error) or StorageBroken(str(error)) from error
    finally:
        made.close()
        live.close()
    return Copied(size, sessions, taken_at_ms)


def check(connection: Any) -> None:
    """Raises StorageBroken."""
    said = [row[0] for row in connection.execute("pragma integrity_check(5)").fetchall()]
    if said != ["ok"]:
        raise StorageBroken(f"integrity_check: {'; '.join(said)}")
    tables = {row[0] for row in connection.execute("select name from sqlite_master where type = 'table'").fetchall()}
    if not {"sessions", "events", "executions", "_sqlite_migrations"} <= tables:
        raise StorageBroken("it is no store of Holdfast")


def fold_log(path: Path) -> None:
    """What stands in the log goes into the file, and the log away, so that one rename moves all of it. Best effort:
    a store that cannot be read is being replaced for that."""
    sqlite = library()
    try:
        connection = sqlite.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=5, isolation_level=None)
    except sqlite.Error:
        return
    try:
        connection.execute("pragma wal_checkpoint(truncate)").fetchall()
    except sqlite.Error:
        return
    finally:
        connection.close()


def check_file(path: Path) -> None:
    """Raises StorageBroken or StorageUnavailable."""
    sqlite = library()
    connection = sqlite.connect(str(path), timeout=5, isolation_level=None)
    try:
        check(connection)
    except sqlite.Error as error:
        raise translate(error) or StorageBroken(str(error)) from error
    finally:
        connection.close()


def come_back(path: Path, policy: Policy, wall: Callable[[], int] = now_ms) -> int:
    """Makes a restored file safe to be lived in; nobody else has it open. Returns how many sessions there are.

    What was acknowledged after the backup is not in it, and its numbers will be used again: so every log becomes
    another one (`stream_id`), no epoch that was ever given out can be given again, every connection is lost, and what
    ran waits its whole grace for its wrapper. Leases and the registry of processes are nobody's.
    """
    store = SqliteStore.open(path, policy, checkpoints=True, wall=wall)
    try:
        store._alone(lambda: _nobody_is_here(store))
        count = 0
        for part in _living(store):
            store._alone(lambda ids=part: [store.decide_in_transaction(_request(i), None) for i in ids])  # type: ignore[misc]
            count += len(part)
        return count
    finally:
        store.close()


def _nobody_is_here(store: SqliteStore) -> None:
    c, now = store._c, store.wall_ms()
    c.execute("update counters set value = value + ? where name = 'epoch'", (EPOCHS_AHEAD,))
    for table in ("gateways", "actors", "reaper"):
        c.execute(f"delete from {table}")
    c.execute("update callbacks set lease = null, next_at_ms = ? where lease is not null", (now,))
    store.note(Act("store.restore", None), now)


def _living(store: SqliteStore) -> Iterator[list[str]]:
    after = ""
    sql = "select id from sessions where id > ? and deleted_at_ms is null order by id limit ?"
    while found := store._c.execute(sql, (after, SESSIONS_AT_ONCE)).fetchall():
        after = found[-1][0]
        yield [row[0] for row in found]


def _request(session_id: str) -> Restored:
    return Restored(session_id=session_id, seed=ulid())
