"""What Python itself does to a folder, noted into the same story as what SQLite does: opens that create, renames,
deletions, new folders, fsyncs of files and of folders.

The interpreter tells of the first four (audit events); of an fsync it does not, so `os.fsync` and `os.fdatasync` are
wrapped while a watch lasts. Of the bytes that Python writes only those are noted that were fsynced: the others never
survive a cut here, which is the least that a disk may do.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.power.disk import MakeDir, Resize, Sync, SyncDir, Write
from tests.power.vfs import Scribe

PAGE = 4096
_watching: list[Scribe] = []


@contextmanager
def watched(scribe: Scribe, *, sqlite_unseen: bool = False) -> Iterator[Scribe]:
    """The current process, and what it forks, while the block lasts.

    sqlite_unseen: SQLite works here without a scribe. What it did to a folder's files is noted when that folder is
    synced: their contents as synced (a checkpoint does that itself), and which of them are gone.
    """
    _install()
    real, real_data, _watching[:] = os.fsync, os.fdatasync, [scribe]

    def fsync(fd: int) -> None:
        real(fd)
        path = os.readlink(f"/proc/self/fd/{fd}")
        if not _inside(scribe, path):
            return
        if not os.path.isdir(path):
            _note_content(scribe, path)
            return
        if sqlite_unseen:
            here = [scribe.folder / name for name in scribe.first if os.path.dirname(name) == scribe.key(path)]
            for known in sorted(here, key=lambda known: not known.exists()):  # a log goes when the file has all of it
                if known.exists():
                    _note_content(scribe, str(known))
                else:
                    scribe.drop(str(known))
        scribe.note(SyncDir(scribe.key(path)))

    os.fsync = os.fdatasync = fsync  # (a length that bytes need goes with their data: fdatasync(2))
    try:
        yield scribe
    finally:
        os.fsync, os.fdatasync = real, real_data
        _watching.clear()


def _note_content(scribe: Scribe, path: str) -> None:
    number = scribe.number_of(path)
    with open(path, "rb") as file:
        data = file.read()
    before = scribe.noted.get(number, b"")
    scribe.noted[number] = data
    for at in range(0, len(data), PAGE):
        if before[at : at + PAGE] != data[at : at + PAGE]:  # what did not change was not written
            scribe.note(Write(number, at, data[at : at + PAGE]))
    if len(data) < len(before):
        scribe.note(Resize(number, len(data)))
    scribe.note(Sync(number))


def _hear(event: str, args: tuple[Any, ...]) -> None:
    if not _watching or not (event == "open" or event.startswith("os.")):
        return
    scribe = _watching[0]
    match event, args:
        case "open", (path, _, int(flags)) if flags & os.O_CREAT and _inside(scribe, path):
            if not os.fspath(path).endswith("lock") and not os.path.exists(path):
                scribe.number_of(os.fspath(path))
        case "os.rename", (path, to, *_) if _inside(scribe, path):
            scribe.move(os.fspath(path), os.fspath(to))
        case "os.remove" | "os.rmdir", (path, *_) if _inside(scribe, path):
            scribe.drop(os.fspath(path))
        case "os.mkdir", (path, *_) if _inside(scribe, path) and not os.path.exists(path):
            scribe.note(MakeDir(scribe.key(os.fspath(path))))


def _inside(scribe: Scribe, path: Any) -> bool:
    try:
        scribe.key(os.fspath(path))
    except (TypeError, ValueError):
        return False
    return True


_installed: list[bool] = []


def _install() -> None:
    """For good: an audit hook cannot be taken out again. It hears nothing while nobody watches."""
    if not _installed:
        _installed.append(True)
        sys.addaudithook(_hear)
