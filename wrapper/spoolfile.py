"""The spool's directory: one wrapper at a time, one SQLite file, and what to do when that file cannot be read.

    DIR/lock                 flock'ed for the wrapper's life; the kernel drops it with the process
    DIR/spool.db(-wal)       everything that must survive
    DIR/runs/EXE.N/          one shim's directory per launch
    DIR/unreadable-MS/       a spool that could not be read, moved aside for people to look at, with its segments

An unreadable spool is not an empty one: the new spool remembers `unreadable` and says so in every hello, until the
agents that it knows nothing of are ended and the server had its grace time (DESIGN §2.6, last row).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import time
from collections.abc import Callable
from typing import Final

from actors.protocol.ids import new_id
from wrapper.shim import fsync_dir

# 2: a record may name its bytes instead of holding them (ADR 10). The tables are those of 1, and a spool of 1 becomes
# one of 2 with its first such record: an old file must open on a full disk, where it cannot be written to.
SCHEMA_VERSION: Final = 2
REFERENCES: Final = 2
Connect = Callable[..., sqlite3.Connection]
# Pages in the write-ahead log (4 MiB) before they are copied into the file: what comes and is acknowledged within it is
# copied once for all. Where the disk is scarce (1 MiB), because the log is what still needs it there.
LOG_PAGES: Final = 1024
SCARCE_LOG_PAGES: Final = 256
CHECK_BYTES: Final = 16 << 20  # a whole-file check only while it costs milliseconds
MARKER: Final = "broken"  # left by a wrapper that met corruption while it ran

SCHEMA: Final = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE executions (
  no INTEGER PRIMARY KEY AUTOINCREMENT, execution_id TEXT NOT NULL UNIQUE, state TEXT NOT NULL DEFAULT 'received',
  input TEXT NOT NULL, limits TEXT NOT NULL, received_at_ms INTEGER NOT NULL,
  acked_seq INTEGER NOT NULL DEFAULT 0, last_seq INTEGER NOT NULL DEFAULT 0,
  launches INTEGER NOT NULL DEFAULT 0, run_dir TEXT, agent_pid INTEGER, facts TEXT,
  segment INTEGER NOT NULL DEFAULT 0, offset INTEGER NOT NULL DEFAULT 0, driver_state TEXT NOT NULL DEFAULT '{}',
  stdin_len INTEGER NOT NULL DEFAULT 0, ladder TEXT, dropped TEXT, final TEXT);
CREATE TABLE records (
  no INTEGER NOT NULL, seq INTEGER NOT NULL, to_seq INTEGER NOT NULL, kind TEXT NOT NULL, bytes INTEGER NOT NULL,
  body TEXT NOT NULL, PRIMARY KEY (no, seq));
CREATE TABLE commands (
  n INTEGER PRIMARY KEY AUTOINCREMENT, command_id TEXT NOT NULL UNIQUE, execution_id TEXT NOT NULL, kind TEXT NOT NULL,
  status TEXT NOT NULL, code TEXT, detail TEXT, stdin_at INTEGER, stdin BLOB);
CREATE INDEX commands_of ON commands (execution_id);
CREATE TABLE approvals (approval_id TEXT PRIMARY KEY, no INTEGER NOT NULL, ref TEXT) WITHOUT ROWID;
CREATE TABLE tombstones (n INTEGER PRIMARY KEY AUTOINCREMENT, execution_id TEXT NOT NULL UNIQUE, ended_at_ms INTEGER);
"""


class SpoolError(Exception):
    """The spool cannot be used; the sentence says why and what to do."""


class SpoolLocked(SpoolError):
    """Another wrapper uses this directory."""


class SpoolFull(SpoolError):
    """The disk is full: rolled back, nothing lost, try again."""


class SpoolBroken(SpoolError):
    """I/O error, failed fsync or corruption: the process must end; an fsync is never retried."""


def make_folder(path: str) -> None:
    """Makes it, and what is missing above it; each name is on the disk with the folder that holds it."""
    if os.path.isdir(path):
        return
    above = os.path.dirname(os.path.abspath(path))
    make_folder(above)
    os.makedirs(path, mode=0o700, exist_ok=True)
    fsync_dir(above)


def lock(directory: str) -> int:
    make_folder(directory)
    fd = os.open(os.path.join(directory, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = os.read(fd, 20).decode("ascii", "replace").strip()
        os.close(fd)
        raise SpoolLocked(
            f"{directory} is in use by another wrapper (pid {pid or 'unknown'}): stop it, or choose another --spool-dir"
        ) from None
    os.ftruncate(fd, 0)
    os.pwrite(fd, str(os.getpid()).encode(), 0)
    return fd


def open_database(directory: str, session_id: str, connect: Connect = sqlite3.connect) -> sqlite3.Connection:
    """The spool of this session, made or moved aside and made anew as need be. Raises SpoolError."""
    path = os.path.join(directory, "spool.db")
    os.makedirs(os.path.join(directory, "runs"), mode=0o700, exist_ok=True)
    unreadable = os.path.exists(os.path.join(directory, MARKER))
    db = None
    if os.path.exists(path) and not unreadable:
        try:
            db = _connect(path, connect)
            _check(db, path)
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # (the words of quick_check may be spoiled too)
            code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)
            if code & 0xFF not in (
                sqlite3.SQLITE_CORRUPT,
                sqlite3.SQLITE_NOTADB,
                sqlite3.SQLITE_ERROR,
            ):
                raise SpoolError(f"cannot open {path}: {error}") from error
            if db is not None:
                db.close()
            unreadable = True
    if unreadable:
        _move_aside(directory)
        db = None
    if db is None or db.execute("PRAGMA user_version").fetchone()[0] == 0:
        db = db or _connect(path, connect)
        _create(db, session_id, unreadable)
        if unreadable:
            os.unlink(os.path.join(directory, MARKER))
            fsync_dir(directory)  # a marker that comes back after a power cut would put the new spool aside as well
    owner = db.execute("SELECT value FROM meta WHERE key = 'session_id'").fetchone()[0]
    if owner != session_id:
        db.close()
        raise SpoolError(
            f"{directory} is the spool of session {owner}, not of {session_id}: choose another --spool-dir"
        )
    return db


def mark_broken(directory: str) -> None:
    """The next start puts this spool aside. Best effort: that start looks for itself as well."""
    try:
        with open(os.path.join(directory, MARKER), "a"):
            return
    except OSError:
        return


def _connect(path: str, connect: Connect) -> sqlite3.Connection:
    new = not os.path.exists(path) or os.path.getsize(path) == 0  # (empty: a cut came before its first commit)
    db = connect(path, isolation_level=None, check_same_thread=False, timeout=0)
    # Exclusive: nobody else has business here (so the WAL-reset bug of old SQLite, which needs two connections, cannot
    # happen with whatever library Python has), and without the shared-memory index a full disk cannot become a SIGBUS.
    pragmas = (
        "locking_mode=EXCLUSIVE",
        "journal_mode=WAL",
        "synchronous=FULL",
        f"wal_autocheckpoint={LOG_PAGES}",
        "temp_store=MEMORY",
        "secure_delete=OFF",  # on in some builds: forgetting a record would write as much as the record
    )
    if new:  # (on an old file this would write, and an old file must open on a full disk)
        db.execute("PRAGMA auto_vacuum=INCREMENTAL").fetchall()  # a drained spool gives the disk back: spool._tidy
    for pragma in pragmas:
        db.execute(f"PRAGMA {pragma}").fetchall()
    return db


def _check(db: sqlite3.Connection, path: str) -> None:
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA_VERSION:
        db.close()
        raise SpoolError(f"{path} was made by a newer holdfast-wrapper (schema {version}): upgrade this one")
    if version == 0:
        if db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            raise _corrupt("a database that is not a spool")
        return
    db.execute("SELECT count(*), max(last_seq) FROM executions").fetchone()
    db.execute("SELECT max(no), max(seq) FROM records").fetchone()
    db.execute("SELECT max(n) FROM commands").fetchone()
    if db.execute("SELECT count(*) FROM meta WHERE key IN ('wrapper_id', 'session_id')").fetchone()[0] != 2:
        raise _corrupt("a spool without its identity")
    if os.path.getsize(path) <= CHECK_BYTES:
        verdict = db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            raise _corrupt(verdict)


def _corrupt(detail: str) -> sqlite3.DatabaseError:
    error = sqlite3.DatabaseError(detail)
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error


def _create(db: sqlite3.Connection, session_id: str, unreadable: bool) -> None:
    rows = [("wrapper_id", new_id("wrapper")), ("session_id", session_id), ("unreadable", "1" if unreadable else "0")]
    db.execute("BEGIN IMMEDIATE")
    for statement in SCHEMA.strip().split(";\n"):
        db.execute(statement)
    db.executemany("INSERT INTO meta VALUES (?, ?)", rows)
    db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    db.execute("COMMIT")


def _keep_segments(runs: str, aside: str) -> None:
    """What its records name goes with it: a second name, because the shims that write there are still to be ended,
    and their directories taken away."""
    for run in os.listdir(runs):
        kept = os.path.join(aside, run)
        for name in os.listdir(os.path.join(runs, run)):
            if name.startswith(("out.", "taken.")):
                os.makedirs(kept, mode=0o700, exist_ok=True)
                with contextlib.suppress(OSError):  # (a file system without them) for people to look at, no promise
                    os.link(os.path.join(runs, run, name), os.path.join(kept, name))


def _move_aside(directory: str) -> None:
    aside = os.path.join(directory, f"unreadable-{int(time.time() * 1000)}")
    os.makedirs(aside, mode=0o700)
    # The marker stands until the new spool says `unreadable` itself: a wrapper killed in between comes here again.
    with open(os.path.join(directory, MARKER), "a"):
        pass
    fsync_dir(directory)  # before anything moves: half moved and unmarked, it would be taken for an empty spool
    for name in ("spool.db", "spool.db-wal", "spool.db-shm", "spool.db-journal"):
        source = os.path.join(directory, name)
        if os.path.exists(source):
            os.rename(source, os.path.join(aside, name))
    _keep_segments(os.path.join(directory, "runs"), aside)
    fsync_dir(aside)
    fsync_dir(directory)  # the old log may not come back beside the new file
