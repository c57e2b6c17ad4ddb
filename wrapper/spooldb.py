"""The frame of every use of the spool's database: one durable transaction, and what its errors mean.

Full disk: rolled back, nothing lost, try again (SpoolFull). Anything else from the disk or the file: the process must
end (SpoolBroken), because nobody knows what a failed fsync has kept; corruption leaves a marker for the next start.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from actors.protocol.defaults import SPOOL_LIMIT_BYTES, SPOOL_RESERVE_BYTES
from wrapper import spoolfile
from wrapper.spoolfile import SpoolBroken, SpoolError, SpoolFull

Policy = Literal["block", "trim"]


class SpoolDb:
    def __init__(
        self,
        directory: str,
        session_id: str,
        *,
        limit_bytes: int = SPOOL_LIMIT_BYTES,
        policy: Policy = "block",
        connect: spoolfile.Connect = sqlite3.connect,
    ) -> None:
        self.dir = os.path.abspath(directory)
        self.limit_bytes, self.policy = limit_bytes, policy
        self.reserve_bytes = min(SPOOL_RESERVE_BYTES, limit_bytes // 4)
        self._connect = connect
        self._lock = spoolfile.lock(self.dir)
        try:
            try:
                self._db = self._open(session_id)
            except sqlite3.DatabaseError as error:
                raise SpoolError(f"cannot make a spool in {self.dir}: {error}") from error
            if not self._makes_sense():
                self._db.close()
                spoolfile.mark_broken(self.dir)
                self._db = self._open(session_id)
            self.bytes: int = self._one("SELECT coalesce(sum(bytes), 0) FROM records")[0]
            self.wrapper_id = self.meta("wrapper_id")
            self.unreadable = self.meta("unreadable") == "1"
            self._refers = self._one("PRAGMA user_version")[0] >= spoolfile.REFERENCES
        except BaseException:
            os.close(self._lock)
            raise

    def _open(self, session_id: str) -> sqlite3.Connection:
        return spoolfile.open_database(self.dir, session_id, self._connect)

    def look_through(self) -> None:
        """Decodes what is decoded at every start. Raises ValueError, TypeError or KeyError if it makes no sense."""

    def _makes_sense(self) -> bool:
        """A file can be sound for SQLite and its values be none of ours: that is unreadable as well."""
        try:
            self.look_through()
        except SpoolBroken as error:
            if getattr(error.__cause__, "sqlite_errorcode", None) is not None:
                raise
            return False  # text that is not UTF-8: Python's own error, without a code of SQLite's
        except (ValueError, TypeError, KeyError):
            return False
        return True

    def close(self) -> None:
        self._db.close()
        os.close(self._lock)

    # ------------------------------------------------------------ the frame of every method

    @contextmanager
    def _writing(self) -> Iterator[None]:
        before = self.bytes
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield
            self._db.execute("COMMIT")
        except sqlite3.DatabaseError as error:
            self.bytes = before
            self._roll_back()
            raise self._verdict(error) from error
        except BaseException:
            self.bytes = before
            self._roll_back()
            raise

    def _roll_back(self) -> None:
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")

    def _verdict(self, error: sqlite3.DatabaseError) -> Exception:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
        if code == sqlite3.SQLITE_FULL:
            return SpoolFull(f"no room for the spool in {self.dir}: {error}")
        if code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            spoolfile.mark_broken(self.dir)
        return SpoolBroken(f"the spool in {self.dir} failed: {error}")

    def _one(self, sql: str, *args: Any) -> Any:
        rows = self._all(sql, *args)
        return rows[0] if rows else None

    def _all(self, sql: str, *args: Any) -> list[Any]:
        try:
            return self._db.execute(sql, args).fetchall()
        except sqlite3.DatabaseError as error:
            raise self._verdict(error) from error

    def meta(self, key: str) -> str:
        return str(self._one("SELECT value FROM meta WHERE key = ?", key)[0])

    def readable_again(self) -> None:
        with self._writing():
            self._db.execute("UPDATE meta SET value = '0' WHERE key = 'unreadable'")
        self.unreadable = False
