"""What a recording device must not forget: its recorder's state, its recordings, and which of them are acknowledged.

    DIR/lock               one process at a time
    DIR/device.db          the rows; synchronous=FULL, every method one transaction
    DIR/recordings/        one file per task and attempt, until the service acknowledges it

A recording goes `recording → recorded → uploaded → kept | discarded`. Its file is deleted after the row that says so is
on disk, never before: a crash between leaves a file that nobody asks for, and `open` removes it. Rows of kept and
discarded ones stay (the last KEPT_ROWS), so that a repeated request is answered with what was uploaded, not with
"never heard of it".
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from wrapper import spoolfile
from wrapper.recorder import IDLE, Recorder

KEPT_ROWS: Final = 1000  # as many tombstones as a wrapper keeps; a service repeats itself within minutes, not months

State = Literal["recording", "recorded", "uploaded", "kept", "discarded"]

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS recorder (one INTEGER PRIMARY KEY CHECK (one = 1), state TEXT NOT NULL, task_id TEXT,
  attempt INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS recordings (
  n INTEGER PRIMARY KEY AUTOINCREMENT, task_id TEXT NOT NULL, attempt INTEGER NOT NULL, state TEXT NOT NULL,
  wanted INTEGER NOT NULL DEFAULT 0, object_key TEXT, sha256 TEXT, size INTEGER, UNIQUE (task_id, attempt));
CREATE TABLE IF NOT EXISTS passes (point TEXT PRIMARY KEY, n INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS ran (
  n INTEGER PRIMARY KEY AUTOINCREMENT, idempotency_key TEXT NOT NULL, command TEXT NOT NULL);
"""


@dataclass(frozen=True, slots=True)
class Recording:
    """``wanted``: the service has asked for it. object_key, sha256 and size are known once it is uploaded."""

    task_id: str
    attempt: int
    state: State
    wanted: bool = False
    object_key: str | None = None
    sha256: str | None = None
    size: int | None = None

    @property
    def open(self) -> bool:
        """The service has asked and has not acknowledged."""
        return self.wanted and self.state in ("recording", "recorded", "uploaded")


class Recordings:
    def __init__(self, folder: str) -> None:
        """Opens the folder. Raises SpoolLocked: another process has it."""
        self.folder = Path(folder).absolute()
        try:
            self._lock = spoolfile.lock(str(self.folder))
        except spoolfile.SpoolLocked:
            raise spoolfile.SpoolLocked(f"{folder} is in use by another device: stop it, or choose another") from None
        self._files = self.folder / "recordings"
        self._files.mkdir(mode=0o700, exist_ok=True)
        self._db = sqlite3.connect(self.folder / "device.db", isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.executescript(SCHEMA)
        self._sweep()

    def close(self) -> None:
        self._db.close()
        os.close(self._lock)

    def _sweep(self) -> None:
        """Files whose rows say that they may go: what a crash left."""
        living = {self.path(one.task_id, one.attempt) for one in self.all() if one.state not in ("kept", "discarded")}
        for file in self._files.iterdir():
            if file not in living:
                file.unlink()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield self._db
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:  # a full disk has rolled it back already
                self._db.execute("ROLLBACK")
            raise

    # ------------------------------------------------------------ the recorder

    def recorder(self) -> Recorder:
        row = self._db.execute("SELECT state, task_id, attempt FROM recorder").fetchone()
        return IDLE if row is None else Recorder(*row)

    def obeyed(self, now: Recorder, *, opens: bool = False, keeps: bool = False, drops: bool = False) -> None:
        """The recorder's new state, and in the same write what becomes of the recording.

        ``now`` names the task even when it goes back to idle, because the recording is that task's.
        """
        with self._writing() as db:
            db.execute(
                "INSERT INTO recorder VALUES (1, ?, ?, ?) ON CONFLICT (one) DO UPDATE"
                " SET state = excluded.state, task_id = excluded.task_id, attempt = excluded.attempt",
                (now.state, now.task_id, now.attempt),
            )
            of = (now.task_id, now.attempt)
            if opens:
                db.execute("INSERT OR IGNORE INTO recordings (task_id, attempt, state) VALUES (?, ?, 'recording')", of)
            if keeps:
                db.execute("UPDATE recordings SET state = 'recorded' WHERE task_id = ? AND attempt = ?", of)
            if drops:
                db.execute("DELETE FROM recordings WHERE task_id = ? AND attempt = ? AND state = 'recording'", of)
        if drops and now.task_id is not None:
            self.path(now.task_id, now.attempt).unlink(missing_ok=True)

    # ------------------------------------------------------------ recordings

    def path(self, task_id: str, attempt: int) -> Path:
        """Ids have no dots and no slashes, so no two share a name and none leaves the folder."""
        return self._files / f"{task_id}.{attempt}"

    def get(self, task_id: str, attempt: int) -> Recording | None:
        found = self._rows("WHERE task_id = ? AND attempt = ?", task_id, attempt)
        return found[0] if found else None

    def all(self) -> list[Recording]:
        return self._rows("")

    def _rows(self, where: str, *values: Any) -> list[Recording]:
        sql = f"SELECT task_id, attempt, state, wanted, object_key, sha256, size FROM recordings {where} ORDER BY n"  # noqa: S608
        return [Recording(t, a, state, bool(w), *told) for t, a, state, w, *told in self._db.execute(sql, values)]

    def wanted(self, task_id: str, attempt: int) -> None:
        with self._writing() as db:
            db.execute("UPDATE recordings SET wanted = 1 WHERE task_id = ? AND attempt = ?", (task_id, attempt))

    def uploaded(self, task_id: str, attempt: int, object_key: str, sha256: str, size: int) -> None:
        with self._writing() as db:
            db.execute(
                "UPDATE recordings SET state = 'uploaded', object_key = ?, sha256 = ?, size = ?"
                " WHERE task_id = ? AND attempt = ? AND state = 'recorded'",
                (object_key, sha256, size, task_id, attempt),
            )

    def acknowledged(self, task_id: str, attempt: int, state: Literal["kept", "discarded"]) -> None:
        """First the row, then the file."""
        with self._writing() as db:
            db.execute("UPDATE recordings SET state = ? WHERE task_id = ? AND attempt = ?", (state, task_id, attempt))
            db.execute(
                "DELETE FROM recordings WHERE state IN ('kept', 'discarded') AND n NOT IN"
                " (SELECT n FROM recordings WHERE state IN ('kept', 'discarded') ORDER BY n DESC LIMIT ?)",
                (KEPT_ROWS,),
            )
        self.path(task_id, attempt).unlink(missing_ok=True)

    def lost(self, task_id: str, attempt: int) -> None:
        """As by a disk that died: the row and the file are gone."""
        with self._writing() as db:
            db.execute("DELETE FROM recordings WHERE task_id = ? AND attempt = ?", (task_id, attempt))
        self.path(task_id, attempt).unlink(missing_ok=True)

    # ------------------------------------------------------------ what scripts and proofs count by

    def passed(self, point: str) -> int:
        """How often this point has been reached, this time included, over every life of the device."""
        with self._writing() as db:
            db.execute("INSERT INTO passes VALUES (?, 1) ON CONFLICT (point) DO UPDATE SET n = n + 1", (point,))
            return int(db.execute("SELECT n FROM passes WHERE point = ?", (point,)).fetchone()[0])

    def ran(self, idempotency_key: str, command: str) -> None:
        with self._writing() as db:
            db.execute("INSERT INTO ran (idempotency_key, command) VALUES (?, ?)", (idempotency_key, command))

    def runs(self) -> list[tuple[str, str]]:
        """(idempotency_key, command) of every command that began, in order."""
        return list(self._db.execute("SELECT idempotency_key, command FROM ran ORDER BY n"))
