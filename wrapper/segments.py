"""Reads what a shim wrote: framed records in `out.NNNNNNNN`, from one position (segment, offset) on.

A position always stands between two records. A record that is still being written (or was torn when the shim died)
is left for later. A segment is over only when the next one exists: that is looked at *before* its end is read.

What was read may be *taken*: a record in the spool names the bytes here instead of holding them (ADR 10). A segment
with such bytes is synced before the record is, renamed `taken.NNNNNNNN` when all of it has been read (so that it does
not count against the shim's limit of unread ones), and deleted when no record names it any more.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from wrapper.shim import HEADER_BYTES, STDOUT, fsync_dir, segment_name

# One spool transaction's worth, and one sync for it: bounds memory and the time that the spool is busy.
BATCH_BYTES: Final = 2 << 20
# On a scarce disk. With what the log holds until a checkpoint there (spoolfile), it fits what `room` leaves free, also
# where no record names its bytes.
SCARCE_BATCH_BYTES: Final = 512 << 10
BUFFER_BYTES: Final = 32 << 10


class Position(NamedTuple):
    segment: int
    offset: int


class Piece(NamedTuple):
    stream: str
    ts_ms: int
    data: bytes
    at: Position | None = None  # of its first byte; None: nowhere that could be named later


class Extent(NamedTuple):
    segment: int
    offset: int
    length: int


class Source(NamedTuple):
    """Where the bytes of an `output` record stand, and all else that its body is made of: it can be written again
    word for word. `held`: what was left of a character of the piece before, at most three bytes."""

    ts_ms: int
    stream: str
    held: bytes
    extents: tuple[Extent, ...]

    @property
    def length(self) -> int:
        return len(self.held) + sum(extent.length for extent in self.extents)

    def to_text(self) -> str:
        """`@SEGMENT:OFFSET:LENGTH[,…] TS_MS STREAM HELD`: no body, which is JSON, begins like that."""
        where = ",".join([f"{segment}:{offset}:{length}" for segment, offset, length in self.extents])
        return f"{MARK}{where} {self.ts_ms} {self.stream} {self.held.hex()}"

    @classmethod
    def from_text(cls, text: str) -> Source:
        where, ts_ms, stream, held = text[len(MARK) :].split(" ")
        extents = tuple(Extent(*map(int, one.split(":"))) for one in where.split(","))
        return cls(int(ts_ms), stream, bytes.fromhex(held), extents)


MARK: Final = "@"


def read(run_dir: str, at: Position, limit: int = BATCH_BYTES) -> tuple[list[Piece], Position]:
    """At least one record if there is one, at most about ``limit`` bytes; and the position after them."""
    pieces: list[Piece] = []
    segment, offset = at
    while limit > 0:
        over = os.path.exists(os.path.join(run_dir, segment_name(segment + 1)))
        try:
            # The buffer is for many small records; a large one goes past it, and is copied once.
            with open(os.path.join(run_dir, segment_name(segment)), "rb", buffering=BUFFER_BYTES) as file:
                # Shorter than the position: a power cut took what was read already, and the shim with it.
                size_now = max(offset, os.fstat(file.fileno()).st_size)
                file.seek(offset)
                while limit > 0 and size_now - offset >= HEADER_BYTES:
                    header = file.read(HEADER_BYTES)
                    size = int.from_bytes(header[9:], "big")
                    if size_now - offset - HEADER_BYTES < size:
                        break
                    at = Position(segment, offset + HEADER_BYTES)
                    stream = "stdout" if header[0] == STDOUT else "stderr"
                    pieces.append(Piece(stream, int.from_bytes(header[1:9], "big"), file.read(size), at))
                    offset += HEADER_BYTES + size
                    limit -= HEADER_BYTES + size
        except FileNotFoundError:
            break
        if not over or offset < size_now:
            break
        segment, offset = segment + 1, 0
    return pieces, Position(segment, offset)


def taken_name(index: int) -> str:
    return f"taken.{index:08d}"


def forget(run_dir: str, before: int, named_from: int | None = None) -> None:
    """Consumed are the segments before ``before``: room for the shim to go on. Of these the spool still names bytes
    from ``named_from`` on (None: nowhere); the others are deleted."""
    named_from = before if named_from is None else named_from
    for name in os.listdir(run_dir):
        kind, _, digits = name.partition(".")
        if kind not in ("out", "taken") or not digits.isdigit() or (index := int(digits)) >= before:
            continue
        path = os.path.join(run_dir, name)
        if index < named_from:
            os.unlink(path)
        elif kind == "out":
            os.rename(path, os.path.join(run_dir, taken_name(index)))


def sync(run_dir: str, segments: Iterable[int], *, names: bool) -> None:
    """What stands in them stays through a power cut; ``names``: so do their names. Raises OSError."""
    for index in segments:
        fd = _open(run_dir, index)
        try:
            os.fdatasync(fd)
        finally:
            os.close(fd)
    if names:
        fsync_dir(run_dir)


def _open(run_dir: str, index: int) -> int:
    try:
        return os.open(os.path.join(run_dir, segment_name(index)), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return os.open(os.path.join(run_dir, taken_name(index)), os.O_RDONLY | os.O_CLOEXEC)


class Reader:
    """Bytes by their place, for as long as one look at the spool takes: neighbours mostly stand in one file."""

    def __init__(self, run_dir: str) -> None:
        self._run_dir = run_dir
        self._segment, self._fd = -1, -1

    def fetch(self, extents: Sequence[Extent]) -> bytes | None:
        """None when they are not there any more, or not all of them. Raises OSError for a disk that fails."""
        parts: list[bytes] = []
        for segment, offset, length in extents:
            if segment != self._segment:
                self.close()
                try:
                    self._segment, self._fd = segment, _open(self._run_dir, segment)
                except (FileNotFoundError, NotADirectoryError):
                    self._segment = -1
                    return None
            data = os.pread(self._fd, length, offset)
            if len(data) != length:
                return None
            parts.append(data)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._segment, self._fd = -1, -1
