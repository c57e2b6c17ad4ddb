"""Is the object that a device says it uploaded really there? A small port; looking happens outside any transaction.

It only ever looks: nothing is written, moved or deleted here. A key is a relative path; whatever leads out of the
root, by `..`, by an absolute path or by a symbolic link, is refused.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final, Protocol

READ_BYTES: Final = 1 << 20  # hashed piece by piece, so that a recording of any size costs this much memory


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
        path = self._inside(object_key)
        if path is None:
            return Verdict(False, "the object key is not a path below the store")
        if not self._root.is_dir():
            raise FileNotFoundError(f"the object store {self._root} is not there")  # a mount that is away: ask again
        if not path.is_file():
            return Verdict(False, "there is no such object")
        found = path.stat().st_size
        if found != size:
            return Verdict(False, f"the object has {found} bytes, not {size}")
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while piece := file.read(READ_BYTES):
                digest.update(piece)
        if digest.hexdigest() != sha256:
            return Verdict(False, "the object has another sha256")
        return Verdict(True)

    def _inside(self, object_key: str) -> Path | None:
        key = PurePosixPath(object_key)
        if not object_key or "\0" in object_key or "\\" in object_key or key.is_absolute() or ".." in key.parts:
            return None
        path = (self._root / key).resolve()
        return path if path.is_relative_to(self._root) else None


def object_store(root: Path | None) -> ObjectStore:
    return Unchecked() if root is None else LocalDirectory(root)
