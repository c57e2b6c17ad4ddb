"""SQLite's own unix files, with a scribe beside them: every write, truncation, sync, creation and deletion is noted.

The files are real (locks and shared memory are SQLite's own); only what reaches the disk is recorded, in order. The
-shm file is not: it is memory, and SQLite makes it anew after a boot. What SQLite's unix VFS does below this level and
a shim cannot see is repeated here: a journal or write-ahead log that was opened for creation has its directory synced
with its first sync (os_unix.c, UNIXFILE_DIRSYNC; tests/power/test_files.py looks at the system calls).
"""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any

import apsw

from tests.power.disk import Disk, Drop, Entry, Make, Mark, Move, Resize, Sync, SyncDir, Write

_counter = itertools.count()
OPEN_CREATE = apsw.SQLITE_OPEN_CREATE
LOGS = apsw.SQLITE_OPEN_MAIN_JOURNAL | apsw.SQLITE_OPEN_SUPER_JOURNAL | apsw.SQLITE_OPEN_WAL


class Scribe(apsw.VFS):  # type: ignore[misc]
    """One folder under observation. `log` is the story; `first` what stood in the folder when it began."""

    def __init__(self, folder: Path, *, obeys_sync: bool = True) -> None:
        """obeys_sync False: a disk that lies, for a control that must fail."""
        self.name, self.folder, self.obeys_sync = f"scribe-{next(_counter)}", folder, obeys_sync
        self.log: list[Entry] = []
        self.watching = True
        there = [path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(("-shm", "lock"))]
        self.first = {self.key(path): path.read_bytes() for path in there}
        self._numbers = {name: number for name, number in Disk(self.first).names.items() if number is not None}
        self.noted = {number: self.first[name] for name, number in self._numbers.items()}  # for watching.py
        self._next = itertools.count(len(self._numbers))
        super().__init__(self.name, "")

    def mark(self, kind: str, value: Any = None) -> None:
        self.note(Mark(kind, value))

    def note(self, entry: Entry) -> None:
        if self.watching:
            self.log.append(entry)

    def stop(self) -> Scribe:
        """The power is gone; what Python closes behind us no disk sees any more."""
        self.watching = False
        return self

    def key(self, path: str | Path) -> str:
        """As the disk calls it: from the folder on. Raises ValueError for a path that is elsewhere."""
        name = Path(os.path.abspath(path)).relative_to(os.path.abspath(self.folder))
        return "" if name == Path(".") else str(name)

    def number_of(self, path: str) -> int:
        """Of a file that is there, or is about to be made."""
        name = self.key(path)
        number = self._numbers.get(name)
        if number is None:
            number = self._numbers[name] = next(self._next)
            self.note(Make(name, number))
        return number

    def drop(self, path: str) -> None:
        if self._numbers.pop(self.key(path), None) is not None:
            self.note(Drop(self.key(path)))

    def move(self, path: str, to: str) -> None:
        old, new = self.key(path), self.key(to)
        for name in [name for name in self._numbers if name == old or name.startswith(old + "/")]:
            self._numbers[new + name[len(old) :]] = self._numbers.pop(name)
        self.note(Move(old, new, self._numbers.get(new)))

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        return Watched(self, path, name, flags) if path else apsw.VFSFile("", name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        super().xDelete(filename, syncdir)
        self.drop(filename)
        if syncdir:
            self.note(SyncDir(os.path.dirname(self.key(filename))))


class Watched(apsw.VFSFile):  # type: ignore[misc]
    def __init__(self, scribe: Scribe, path: str, name: Any, flags: list[int]) -> None:
        there = os.path.exists(path) or flags[0] & OPEN_CREATE
        self.scribe = scribe
        self.number = scribe.number_of(path) if there else -1
        self.path = path
        self.syncs_folder = bool(flags[0] & OPEN_CREATE and flags[0] & LOGS)
        super().__init__("", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:
        self.scribe.note(Write(self.number, offset, bytes(data)))
        super().xWrite(data, offset)

    def xTruncate(self, size: int) -> None:
        self.scribe.note(Resize(self.number, size))
        super().xTruncate(size)

    def xSync(self, flags: int) -> None:
        super().xSync(flags)
        if not self.scribe.obeys_sync:
            return
        self.scribe.note(Sync(self.number))
        if self.syncs_folder:
            self.syncs_folder = False
            self.scribe.note(SyncDir(os.path.dirname(self.scribe.key(self.path))))
