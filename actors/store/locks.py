"""Fair writing between processes, and which SQLite may be trusted.

SQLite's own busy waiting is unfair: beside a busy group-commit writer a control transaction waited 3.3 s at p99. Here a
writer that waits holds a *shared* flock on a side file ("somebody waits"), and a writer that has just committed tries
the exclusive one: if it cannot have it, somebody waits, and it lets them in for a millisecond. Measured: p99 2.8 ms, no
throughput lost. The kernel drops flocks with the process, so no crash leaves the sign up.
"""

from __future__ import annotations

import fcntl
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from actors.protocol.errors import StorageBroken, StorageUnavailable

MINIMUM = (3, 51, 3)  # older ones have the WAL-reset corruption bug when several processes share the file
GIVE_UP_S = 4.0  # below CONTROL_DEADLINE_S, so that whoever waits for us hears "unavailable", not silence
RETRY: frozenset[int] = frozenset({5, 6, 13})  # SQLITE_BUSY, LOCKED, FULL: rolled back, try again
IOERR_SHMSIZE = 10 | (19 << 8)  # the shared-memory file could not grow: a full disk, not a broken one
CORRUPT: frozenset[int] = frozenset({10, 11, 26})  # SQLITE_IOERR, CORRUPT, NOTADB: the process must exit


def library() -> Any:
    """The SQLite binding to use: the pysqlite3 wheel where there is one. Errors: RuntimeError with how to mend it."""
    try:
        import pysqlite3 as sqlite  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        import sqlite3 as sqlite
    version = tuple(int(part) for part in sqlite.sqlite_version.split("."))
    if version < MINIMUM:
        raise RuntimeError(
            f"SQLite {sqlite.sqlite_version} is too old: several processes share the file, and versions before "
            f"{'.'.join(map(str, MINIMUM))} can corrupt it then. Install the wheel that brings its own: "
            "pip install 'pysqlite3>=0.6'"
        )
    return sqlite


def translate(error: Exception) -> StorageUnavailable | StorageBroken | None:
    """What an sqlite3.Error means for us; None: it is not the storage's fault (a constraint, our own bug)."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        text = str(error)
        if "locked" in text or "full" in text:
            return StorageUnavailable(text)
        return StorageBroken(text) if "disk I/O" in text or "malformed" in text else None
    if code & 0xFF in RETRY or code == IOERR_SHMSIZE:
        return StorageUnavailable(f"{getattr(error, 'sqlite_errorname', code)}: {error}")
    if code & 0xFF in CORRUPT:
        return StorageBroken(f"{getattr(error, 'sqlite_errorname', code)}: {error}")
    return None


def write_lock_holder(database: Path) -> int | None:
    """The pid of the process that holds the WAL write lock of `database`, read from /proc/locks (Linux).

    The lock is byte 120 of the -shm file. The file is only stat'ed: opening and closing it here would drop the locks
    that SQLite itself holds in this process.
    """
    try:
        inode = os.stat(f"{database}-shm").st_ino
        with open("/proc/locks") as locks:
            for line in locks:
                part = line.split()
                writes = len(part) == 8 and part[1] == "POSIX" and part[3] == "WRITE" and part[6:] == ["120", "120"]
                if writes and int(part[5].rpartition(":")[2]) == inode and int(part[4]) > 0:
                    return int(part[4])
    except (OSError, ValueError):
        return None
    return None


def process_started(pid: int) -> int | None:
    """Clock ticks since boot at which the process began (/proc/<pid>/stat field 22): with the pid, a process's name."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            return int(stat.read().rpartition(b")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return None


class WriteTurn:
    """`begin` takes SQLite's write lock, waiting fairly; `ended` lets those in who wait. One per writing connection."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._birth = os.open(path.with_name("migrate.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def begin(
        self,
        connection: Any,
        operational_error: type[Exception],
        give_up_s: float = GIVE_UP_S,
        on_blocked: Callable[[], bool] | None = None,
    ) -> None:
        """on_blocked is asked once, when the wait is over: True means that it ended the holder, so try again."""
        end, pause, waiting = time.monotonic() + give_up_s, 0.0003, False
        try:
            while True:
                try:
                    connection.execute("begin immediate")
                    return
                except operational_error as error:
                    known = translate(error)
                    if not isinstance(known, StorageUnavailable):
                        raise known or error from error
                    if "full" in str(error):
                        raise known from error
                    if time.monotonic() > end:
                        ended, on_blocked = on_blocked is not None and on_blocked(), None
                        if not ended:
                            raise known from error
                        end = time.monotonic() + 1.0
                waiting = waiting or self._say_waiting()
                time.sleep(pause * random.uniform(0.5, 1.5))
                pause = min(pause * 1.3, 0.005)
        finally:
            if waiting:
                fcntl.flock(self._fd, fcntl.LOCK_UN)

    def _say_waiting(self) -> bool:
        """Never blocks: whoever froze while trying the sign (below) may hold it, and only the sign is lost then."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def ended(self) -> None:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.001)
        else:
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    def exclusively(self, work: Callable[[], object]) -> None:
        """Runs `work` while no other process migrates; on a file of its own, so that nobody's writing is disturbed."""
        fcntl.flock(self._birth, fcntl.LOCK_EX)
        try:
            work()
        finally:
            fcntl.flock(self._birth, fcntl.LOCK_UN)

    def close(self) -> None:
        os.close(self._fd)
        os.close(self._birth)
