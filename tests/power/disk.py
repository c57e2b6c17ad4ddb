"""A disk with a power switch: what was written, what was synced, and what may be left of it after a cut. Pure.

The rules are those that POSIX gives and no more. After `Sync` of a file its bytes stand. Bytes written since then
stand or not, each 512-byte sector by itself, whatever was written before or after it (a cache writes back in any
order). A sector that was under way may hold rubbish, but only inside the range of the write (SQLite counts on this:
POWERSAFE_OVERWRITE, the default of its unix VFS). A file's length follows its last surviving byte, or may have grown
without the bytes (zeros). A name that was made, moved or dropped since `SyncDir` may be as it was before.
Not modelled: a disk that lies about fsync, bits that rot, a sector that was synced and is damaged by its neighbour.
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

SECTOR = 512

How = Literal["none", "all", "some", "few", "prefix", "late", "torn", "zeros"]
EVERY_HOW: tuple[How, ...] = ("none", "all", "some", "few", "prefix", "late", "torn", "zeros")


@dataclass(frozen=True, slots=True)
class Write:
    file: int
    at: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Resize:
    file: int
    size: int


@dataclass(frozen=True, slots=True)
class Sync:
    file: int


@dataclass(frozen=True, slots=True)
class Make:
    name: str
    file: int


@dataclass(frozen=True, slots=True)
class Drop:
    name: str


@dataclass(frozen=True, slots=True)
class MakeDir:
    name: str


@dataclass(frozen=True, slots=True)
class Move:
    """Within one file system: all or nothing, whichever of the directories is synced."""

    name: str
    to: str
    file: int | None = None  # None: a folder


@dataclass(frozen=True, slots=True)
class SyncDir:
    name: str = ""


@dataclass(frozen=True, slots=True)
class Mark:
    """Not a thing of the disk: what the program knew, or had said, at this moment."""

    kind: str
    value: Any = None


Rename = Make | Drop | Move | MakeDir
Op = Write | Resize | Sync | Rename | SyncDir
Entry = Op | Mark


@dataclass(slots=True)
class File:
    stands: bytearray = field(default_factory=bytearray)
    since: list[Write | Resize] = field(default_factory=list)

    def sync(self) -> None:
        for op in self.since:
            _apply(self.stands, op)
        self.since.clear()


@dataclass(slots=True)
class Image:
    """What somebody finds who switches the power on again. story: which of the unsynced things survived."""

    files: dict[str, bytes]
    story: list[str]
    folders: tuple[str, ...] = ()

    def put(self, folder: Path) -> None:
        for name in sorted(self.folders):
            (folder / name).mkdir(parents=True, exist_ok=True)
        for name, data in self.files.items():
            (folder / name).write_bytes(data)


class Disk:
    def __init__(self, files: dict[str, bytes] | None = None) -> None:
        """files: what stands already, as after a boot."""
        self.files: dict[int, File] = {}
        self.names: dict[str, int | None] = {"": None}  # None: a folder
        self.renamed: list[Rename] = []
        for number, (name, data) in enumerate(sorted((files or {}).items())):
            self.files[number] = File(bytearray(data))
            self.names[name] = number
            while name := os.path.dirname(name):
                self.names[name] = None

    def do(self, op: Entry) -> None:
        match op:
            case Write() | Resize():
                self.files[op.file].since.append(op)
            case Sync(file):
                self.files[file].sync()
            case Make(_, file):
                self.files.setdefault(file, File())
                self.renamed.append(op)
            case Drop() | Move() | MakeDir():
                self.renamed.append(op)
            case SyncDir(folder):
                here = [change for change in self.renamed if folder in _folders(change)]
                _rename(self.names, here)
                self.renamed = [change for change in self.renamed if change not in here]
            case Mark():
                pass

    @property
    def unsynced(self) -> int:
        return sum(len(f.since) for f in self.files.values()) + len(self.renamed)

    def cut(self, how: How, rng: random.Random) -> Image:
        story: list[str] = []
        names, kept = dict(self.names), []
        for change in self.renamed:
            # A directory is a file too: of its changes any subset survives.
            if how == "all" or (how != "none" and rng.random() < 0.5):
                kept.append(change)
            else:
                story.append(f"not {change}")
        _rename(names, kept)
        names = {name: file for name, file in names.items() if _reachable(name, names)}
        files = {name: self._content(name, file, how, rng, story) for name, file in names.items() if file is not None}
        return Image(files, story, tuple(name for name, file in names.items() if file is None and name))

    def _content(self, name: str, number: int, how: How, rng: random.Random, story: list[str]) -> bytes:
        file = self.files[number]
        if how == "none" or not file.since:
            if file.since:
                story.append(f"{name}: none of {len(file.since)} writes")
            return bytes(file.stands)
        data = bytearray(file.stands)
        if how == "all":
            for op in file.since:
                _apply(data, op)
            story.append(f"{name}: all {len(file.since)} writes")
            return bytes(data)
        pieces = [piece for op in file.since for piece in _sectors(op)]
        chosen = _choose(len(pieces), how, rng)
        for piece, survives in zip(pieces, chosen, strict=True):
            if survives == "torn" and isinstance(piece, Write):
                good = rng.randrange(len(piece.data) + 1)
                piece = Write(number, piece.at, piece.data[:good] + rng.randbytes(len(piece.data) - good))
            if survives:
                _apply(data, piece)
            elif how == "zeros" and isinstance(piece, Write) and len(data) < piece.at + len(piece.data):
                data.extend(bytes(piece.at + len(piece.data) - len(data)))
        story.append(f"{name}: {how} of {len(pieces)} sectors: {_ranges(chosen)}")
        return bytes(data)


def _choose(n: int, how: How, rng: random.Random) -> list[bool | str]:
    if n == 0:  # a write of nothing
        return []
    match how:
        case "prefix":
            k = rng.randrange(n + 1)
            return [i < k for i in range(n)]
        case "late":  # the first are lost, the last are there
            k = rng.randrange(n + 1)
            return [i >= k for i in range(n)]
        case "torn":
            k = rng.randrange(n)
            others = rng.choice((0.0, 0.5, 1.0))
            return ["torn" if i == k else i < k or rng.random() < others for i in range(n)]
        case "few":
            lost = {rng.randrange(n) for _ in range(rng.randint(1, 3))}
            return [i not in lost for i in range(n)]
        case _:
            p = rng.choice((0.1, 0.5, 0.9))
            return [rng.random() < p for _ in range(n)]


def _sectors(op: Write | Resize) -> list[Write | Resize]:
    if isinstance(op, Resize):
        return [op]
    found: list[Write | Resize] = []
    at, end = op.at, op.at + len(op.data)
    while at < end:
        stop = min((at // SECTOR + 1) * SECTOR, end)
        found.append(Write(op.file, at, op.data[at - op.at : stop - op.at]))
        at = stop
    return found


def _apply(data: bytearray, op: Write | Resize) -> None:
    if isinstance(op, Resize):
        if op.size < len(data):
            del data[op.size :]
        else:
            data.extend(bytes(op.size - len(data)))
        return
    if len(data) < op.at:
        data.extend(bytes(op.at - len(data)))
    data[op.at : op.at + len(op.data)] = op.data


def _rename(names: dict[str, int | None], changes: list[Rename]) -> None:
    for change in changes:
        match change:
            case Make(name, file):
                names[name] = file
            case MakeDir(name):
                names[name] = None
            case Drop(name):
                names.pop(name, None)
            case Move(name, to, int(file)):
                names.pop(name, None)
                names[to] = file
            case Move(name, to):
                for old in [old for old in names if old == name or old.startswith(name + "/")]:
                    names[to + old[len(name) :]] = names.pop(old)


def _folders(change: Rename) -> set[str]:
    names = (change.name, change.to) if isinstance(change, Move) else (change.name,)
    return {os.path.dirname(name) for name in names}


def _reachable(name: str, names: dict[str, int | None]) -> bool:
    """A file in a folder that was lost is lost with it."""
    while name:
        name = os.path.dirname(name)
        if name not in names:
            return False
    return True


def _ranges(chosen: list[bool | str]) -> str:
    """[True, True, False, True] → "0-1 3"."""
    runs: list[list[int]] = []
    torn = [i for i, c in enumerate(chosen) if c == "torn"]
    for i, c in enumerate(chosen):
        if c and runs and runs[-1][1] == i - 1:
            runs[-1][1] = i
        elif c:
            runs.append([i, i])
    text = " ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs[:20]) or "none"
    return text + (" …" if len(runs) > 20 else "") + "".join(f", {i} torn" for i in torn)
