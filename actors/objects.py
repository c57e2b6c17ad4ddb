"""Is the object that a device says it uploaded really there? A small port; looking happens outside any transaction.

It only ever looks: nothing is written, moved or deleted here. A key is a relative path; whatever leads out of the
root, by `..`, by an absolute path or by a symbolic link, is refused.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Final, Protocol

READ_BYTES: Final = 1 << 20  # hashed piece by piece, so that a recording of any size costs this much memory
# What no name of an object can lead to. Anything else (no permission, a disk that fails) is the store's own trouble.
_NO_OBJECT: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO})


@dataclass(frozen=True, slots=True)
class Verdict:
    """ok: size and sha256 are those that were told. verified false with ok: there is no store to look at."""

    ok: bool
    detail: str | None = None
    verified: bool = True


class ObjectStore(Protocol):
    async def verify(self, object_key: str, size: int, sha256: str) -> Verdict:
        """Errors: OSError, when the store cannot be asked now (ask again; nothing is concluded)."""


class Unchecked:
    """No store is configured: a device's word is taken, and the task says so."""

    async def verify(self, object_key: str, size: int, sha256: str) -> Verdict:
        return Verdict(True, "object_not_verified", verified=False)


class LocalDirectory:
    """Objects are files below `root`."""

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()

    async def verify(self, object_key: str, size: int, sha256: str) -> Verdict:
        return await asyncio.to_thread(self._verify, object_key, size, sha256)

    def _verify(self, object_key: str, size: int, sha256: str) -> Verdict:
        if not self._root.is_dir():
            raise FileNotFoundError(f"the object store {self._root} is not there")  # a mount that is away: ask again
        try:
            path = self._inside(object_key)
            if path is None:
                return Verdict(False, "the object key is not a path below the store")
            # Without blocking: what is no file (a pipe, put there since) is opened, seen, and not waited for.
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno in _NO_OBJECT:
                return Verdict(False, "there is no such object")
            raise
        try:
            found = os.fstat(handle)
            if not stat.S_ISREG(found.st_mode):
                return Verdict(False, "there is no such object")
            if found.st_size != size:
                return Verdict(False, f"the object has {found.st_size} bytes, not {size}")
            with open(handle, "rb", closefd=False) as file:
                same = sha256_of(file, size) == sha256
        finally:
            os.close(handle)
        return Verdict(True) if same else Verdict(False, "the object has another sha256")

    def _inside(self, object_key: str) -> Path | None:
        key = PurePosixPath(object_key)
        if not object_key or "\0" in object_key or "\\" in object_key or key.is_absolute() or ".." in key.parts:
            return None
        try:
            path = (self._root / key).resolve()
        except RuntimeError:  # symbolic links in a circle
            return None
        return path if path.is_relative_to(self._root) else None


def sha256_of(file: BinaryIO, size: int) -> str:
    """Of `size` bytes and no more: an object that is still being written to would never end."""
    digest = hashlib.sha256()
    left = size
    while left > 0 and (piece := file.read(min(READ_BYTES, left))):
        digest.update(piece)
        left -= len(piece)
    return digest.hexdigest()


def object_store(root: Path | None) -> ObjectStore:
    return Unchecked() if root is None else LocalDirectory(root)
