"""`holdfast backup` and `holdfast restore`: which files, where, under which lock. What is done to the store itself is
store/backup.py.

A backup is a directory: `holdfast.db` (one plain, checked file), `backup.json` (what it is), `holdfast.toml` if there
is one; the admin token only if asked for. It appears whole or not at all. A restore needs the data directory for
itself, works beside it, and moves what stood there aside; nothing is ever deleted.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from actors.config import Settings
from actors.protocol.codes import EXIT_CONFLICT, EXIT_FAILURE, EXIT_NOT_FOUND, EXIT_UNAVAILABLE
from actors.protocol.errors import StorageBroken, StorageError
from actors.store import backup as store_backup
from actors.store.sqlite import now_ms

FORMAT = 1
MANIFEST, DATABASE, CONFIG, TOKEN = "backup.json", "holdfast.db", "holdfast.toml", "token"


class BackupError(Exception):
    """It was not done, and nothing was changed. `exit_code` is of codes.py."""

    def __init__(self, message: str, exit_code: int = EXIT_FAILURE) -> None:
        super().__init__(message)
        self.exit_code = exit_code


# -------------------------------------------------------------------- backup


def backup(
    settings: Settings,
    dest: Path,
    *,
    with_token: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Copies the data directory of a service, running or not, to the new directory `dest`; returns its manifest."""
    if dest.exists() and (not dest.is_dir() or any(dest.iterdir())):
        raise BackupError(f"{dest} is there already; name a new directory", EXIT_CONFLICT)
    dest.parent.mkdir(parents=True, exist_ok=True)
    partial = dest.with_name(f".{dest.name}.partial-{os.getpid()}")
    partial.mkdir(mode=0o700)
    try:
        with _storage_words():
            copied = store_backup.copy(settings.store_path, partial / DATABASE, progress)
        named = [CONFIG, *([TOKEN] if with_token else [])]
        files = [name for name in named if (settings.data_dir / name).is_file()]
        for name in files:
            shutil.copyfile(settings.data_dir / name, partial / name)
        if with_token and TOKEN not in files:
            raise BackupError(f"there is no token in {settings.data_dir}", EXIT_NOT_FOUND)
        manifest = {
            "format": FORMAT,
            "taken_at_ms": copied.taken_at_ms,
            "bytes": copied.bytes,
            "sessions": copied.sessions,
            "files": sorted([DATABASE, *files]),
        }
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
        for path in partial.iterdir():
            path.chmod(0o600)
            _fsync(path)
        _fsync(partial)
        if dest.is_dir():
            dest.rmdir()
        partial.rename(dest)
        _fsync(dest.parent)
    except OSError as error:
        raise BackupError(f"{error.filename or dest}: {error.strerror}", EXIT_UNAVAILABLE) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return {**manifest, "path": str(dest)}


# -------------------------------------------------------------------- restore


def manifest_of(src: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((src / MANIFEST).read_text())
        if manifest["format"] != FORMAT:
            raise BackupError(f"{src} is a backup of format {manifest['format']}; this version knows {FORMAT}")
        return dict(manifest)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BackupError(f"{src} is no backup: {MANIFEST} is missing or unreadable", EXIT_NOT_FOUND) from error


def restore(
    src: Path, settings: Settings, *, force: bool = False, wall_ms: Callable[[], int] = now_ms
) -> dict[str, Any]:
    """Puts the backup in the place of the store. Returns what was done."""
    manifest, data_dir, store = manifest_of(src), settings.data_dir, settings.store_path
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    store.parent.mkdir(parents=True, exist_ok=True)
    with _alone_in(data_dir):
        if store.exists() and not force:
            raise BackupError(
                f"there is a store at {store}; with --force it is moved aside, nothing is deleted", EXIT_CONFLICT
            )
        stage = store.parent / f".restore-{os.getpid()}"
        stage.mkdir(mode=0o700)
        try:
            with _storage_words():
                shutil.copyfile(src / DATABASE, stage / DATABASE)
                (stage / DATABASE).chmod(0o600)
                store_backup.check_file(stage / DATABASE)
                sessions = store_backup.come_back(stage / DATABASE, settings.policy(), wall_ms)
            _fsync(stage / DATABASE)
            aside = _move_aside(data_dir, store, src)
            os.rename(stage / DATABASE, store)
            taken = [name for name in (CONFIG, TOKEN) if (src / name).is_file() and not (data_dir / name).exists()]
            for name in taken:
                shutil.copyfile(src / name, data_dir / name)
                (data_dir / name).chmod(0o600)
                _fsync(data_dir / name)
            _fsync(store.parent)
            _fsync(data_dir)
        except OSError as error:
            raise BackupError(f"{error.filename or src}: {error.strerror}", EXIT_UNAVAILABLE) from error
        finally:
            shutil.rmtree(stage, ignore_errors=True)
    return {
        "data_dir": str(data_dir),
        "sessions": sessions,
        "taken_at_ms": manifest["taken_at_ms"],
        "moved_aside": str(aside) if aside else None,
        "files": sorted([DATABASE, *taken]),
    }


def _move_aside(data_dir: Path, store: Path, src: Path) -> Path | None:
    """The old store with its log (they belong together), and what the backup brings along."""
    if store.exists():
        store_backup.fold_log(store)
    names = [store, *(store.with_name(store.name + end) for end in ("-wal", "-shm"))]
    names += [data_dir / name for name in (CONFIG, TOKEN) if (src / name).is_file()]
    there = [path for path in names if path.exists()]
    if not there:
        return None
    base = data_dir / time.strftime("replaced-%Y%m%dT%H%M%SZ", time.gmtime())
    aside = next(p for n in range(1000) if not (p := base.with_name(f"{base.name}{f'.{n}' if n else ''}")).exists())
    aside.mkdir(mode=0o700)
    _fsync(data_dir)  # the folder before what moves into it
    for path in reversed(there):  # the store itself last but its log: a crash between leaves it to be moved again
        shutil.move(path, aside / path.name)
    _fsync(aside)
    # Before the new store takes the place: an old log that came back beside it would be played into it.
    _fsync(data_dir)
    _fsync(store.parent)
    return aside


@contextlib.contextmanager
def _alone_in(data_dir: Path) -> Iterator[None]:
    """The locks of `up` and of a gateway that may have outlived it. Raises BackupError."""
    held = []
    try:
        for name in ("up.lock", "gateway.lock"):
            fd = os.open(data_dir / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            held.append(fd)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                who = "a `holdfast up`" if name == "up.lock" else "a gateway that outlived its `holdfast up`"
                raise BackupError(f"{data_dir} is in use by {who}; stop it first", EXIT_CONFLICT) from None
        yield
    finally:
        for fd in held:
            os.close(fd)


@contextlib.contextmanager
def _storage_words() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise BackupError(f"there is no {error.filename or error}", EXIT_NOT_FOUND) from error
    except StorageBroken as error:
        raise BackupError(f"the store is not sound: {error.detail}") from error
    except StorageError as error:
        raise BackupError(f"the store cannot be copied now: {error.detail}", EXIT_UNAVAILABLE) from error


def _fsync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
