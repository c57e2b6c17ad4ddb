"""Whether an uploaded object is there, whole, and the one that was meant: a port, and one of it over a directory.

A device says that it has uploaded `object_key` with this size and digest; nothing is acknowledged (and so nothing is
deleted on the device) before somebody has looked. Looking never happens inside a transaction: it takes as long as the
object is big. Nothing here decides what becomes of a task, and nothing here ever changes an object.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

CHUNK_BYTES: Final = 1 << 20
# Objects read at the same time: hashing takes a core each, and the gateway wants the others.
AT_ONCE: Final = 2
KEY_MAX: Final = 1024  # characters; what object stores allow


@dataclass(frozen=True, slots=True)
class Verdict:
    """ok: it is there and it is the one. detail: for people; of an object that is not, why not. verified: somebody has
    looked."""

    ok: bool
    detail: str | None = None
    verified: bool = True


class ObjectsUnavailable(Exception):
    """Nobody could look now (the directory is away, an I/O error). It says nothing about the object: ask again."""


class ObjectStore(Protocol):
    async def verify(self, object_key: str, size: int | None, sha256: str | None) -> Verdict:
        """size in bytes, sha256 as hex; what is None was not said and is not compared. Raises ObjectsUnavailable."""


class Unverified:
    """No store of objects is configured: whatever is said is believed, and the verdict says that it was."""

    async def verify(self, object_key: str, size: int | None, sha256: str | None) -> Verdict:
        return Verdict(True, "not verified: no objects_dir", verified=False)


class LocalDirectory:
    """Objects are the regular files below `root`; a key is a relative path with `/`. Nothing outside is ever opened."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._threads = ThreadPoolExecutor(AT_ONCE, "objects")

    async def verify(self, object_key: str, size: int | None, sha256: str | None) -> Verdict:
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._look, object_key, size, sha256)

    def _look(self, object_key: str, size: int | None, sha256: str | None) -> Verdict:
        try:
            root = self.root.resolve(strict=True)
        except OSError as error:
            raise ObjectsUnavailable(f"{self.root}: {error.strerror}") from None
        path = self._inside(root, object_key)
        if path is None:
            return Verdict(False, "this is not a key of an object")
        try:
            # not blocking: a pipe in the place of an object must not hold the thread
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
        except (FileNotFoundError, NotADirectoryError):
            return Verdict(False, "there is no such object")
        except OSError as error:
            raise ObjectsUnavailable(f"{object_key[:80]!r}: {error.strerror}") from None
        try:
            return _compared(fd, size, sha256)
        except OSError as error:
            raise ObjectsUnavailable(f"{object_key[:80]!r}: {error.strerror}") from None
        finally:
            os.close(fd)

    @staticmethod
    def _inside(root: Path, object_key: str) -> Path | None:
        """None: a key that is empty, absolute, too long, or leads out, by `..` or by a link."""
        parts = object_key.split("/")
        if not 0 < len(object_key) <= KEY_MAX or "\0" in object_key or any(p in ("", ".", "..") for p in parts):
            return None
        path = Path(os.path.realpath(root.joinpath(*parts)))
        return path if path.is_relative_to(root) else None


def _compared(fd: int, size: int | None, sha256: str | None) -> Verdict:
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        return Verdict(False, "this is not a file")
    if size is not None and status.st_size != size:
        return Verdict(False, f"it has {status.st_size} bytes, not {size}")
    if sha256 is not None:
        digest = hashlib.sha256()
        while chunk := os.read(fd, CHUNK_BYTES):
            digest.update(chunk)
        if not hmac.compare_digest(digest.hexdigest(), sha256.lower()):
            return Verdict(False, "its sha256 is another")
    return Verdict(True)


def objects_at(root: Path | None) -> ObjectStore:
    return Unverified() if root is None else LocalDirectory(root)
